"""Calls that are repeated and calls that cross: every mutation with an `idempotencyKey`, and every one with an
`expectedRevision`, found in the schema; one without its line here fails.
"""

import asyncio

import pytest
from sqlalchemy import func, select

from db import idempotency, tables
from schema.build import schema
from tests.world import build

ONCE = {
    "cloneTrainingRun": ({"id": "run"}, {"name": "again"}, {"name": "another"}, "trainingRun", tables.training_runs),
    "createBatchPrediction": (
        {"modelId": "modelVersion", "inputVersionId": "datasetVersion", "outputDatasetId": "dataset"},
        {"includeProbabilities": False},
        {"includeProbabilities": True},
        "batchPrediction",
        tables.operations,
    ),
    "createDataset": ({"projectId": "project"}, {"name": "new"}, {"name": "another"}, "dataset", tables.datasets),
    "createModelVersion": (
        {"modelId": "model", "fromId": "modelVersion"},
        {"description": "new"},
        {"description": "another"},
        "modelVersion",
        tables.model_versions,
    ),
    "createTrainingRun": (
        {"projectId": "project"},
        {"name": "new", "spec": {"task": "REGRESSION", "algorithm": "EXTERNAL"}},
        {"name": "another", "spec": {"task": "RANKING", "algorithm": "EXTERNAL"}},
        "trainingRun",
        tables.training_runs,
    ),
    "startUpload": (
        {"datasetId": "dataset"},
        {"fileName": "a.csv", "sizeBytes": 1, "format": "CSV"},
        {"fileName": "b.csv", "sizeBytes": 1, "format": "CSV"},
        "upload",
        tables.upload_sessions,
    ),
}
"""Mutation: the IDs it takes from the world, its input, another input, what it makes, and where."""

CHECKED_ONLY = {"validateTrainingRun"}
"""Takes the input of another mutation and makes nothing."""

REVISED = {
    "updateDataset": ("dataset", "name"),
    "updateModel": ("model", "name"),
    "updateModelVersion": ("modelVersion", "description"),
    "updateProject": ("project", "name"),
    "updateRole": ("ownRole", "name"),
    "updateTeam": ("team", "name"),
    "updateTrainingRun": ("run", "name"),
    "updateUser": ("user", "displayName"),
}
"""Mutation: what it changes, and a field of it."""


def mutations_with(field):
    root = schema._schema.type_map["Mutation"].fields
    return {name for name, mutation in root.items() if field in mutation.args["input"].type.of_type.fields}


def test_every_mutation_with_a_key_or_a_revision_has_its_line():
    assert mutations_with("idempotencyKey") == set(ONCE) | CHECKED_ONLY
    assert mutations_with("expectedRevision") == set(REVISED)


@pytest.fixture
async def world(db):
    return await build(db)


@pytest.fixture
def call(execute, world):
    async def send(mutation, input, makes, principal="administrator"):
        made = f"{makes} {{ id }}" if makes else ""
        name = mutation[0].upper() + mutation[1:]
        document = (
            f"mutation ($input: {name}Input!) {{ {mutation}(input: $input) {{ {made} errors {{ code path "
            "... on StaleRevisionError { currentRevision } } } }"
        )
        answer = await execute(document, principal=world.people[principal], input=input)
        assert "errors" not in answer, answer
        return answer["data"][mutation]

    return send


def input_of(world, taken, given):
    ids = world.ids["lab"]
    input = {name: ids[kind] for name, kind in taken.items()} | given
    if "fromId" in input:
        input["from"] = {"copyOfVersionId": input.pop("fromId")}
    if "outputDatasetId" in input:
        input["model"] = {"id": input.pop("modelId")}
    return input


async def count(db, table):
    async with db.reading() as session:
        return await session.scalar(select(func.count()).select_from(table))


@pytest.mark.parametrize("mutation", ONCE)
async def test_what_is_asked_for_twice_is_done_once(mutation, call, world, db):
    taken, given, other, makes, table = ONCE[mutation]
    input = input_of(world, taken, given) | {"idempotencyKey": "k"}
    before = await count(db, table)

    first, second = await asyncio.gather(*(call(mutation, input, makes) for _ in range(2)))
    again = await call(mutation, input, makes)
    mismatch = await call(mutation, input_of(world, taken, other) | {"idempotencyKey": "k"}, makes)

    assert first["errors"] == []
    assert first == second == again
    assert mismatch == {makes: None, "errors": [{"code": "IDEMPOTENCY_MISMATCH", "path": ["input", "idempotencyKey"]}]}
    assert await count(db, table) == before + 1

    of_another = await call(mutation, input_of(world, taken, other) | {"idempotencyKey": "k"}, makes, "scientist")
    assert of_another["errors"] == [], "a key is its caller's own"
    assert of_another[makes] != first[makes]

    async with db.transaction() as session:
        await session.connection.execute(f"DELETE FROM {table.name} WHERE created_by IS NOT NULL")
    gone = await call(mutation, input, makes)
    assert gone == {makes: None, "errors": [{"code": "NOT_FOUND", "path": ["input", "idempotencyKey"]}]}


@pytest.mark.parametrize("mutation", ONCE)
async def test_without_its_key_the_effect_is_not_there_either(mutation, execute, call, world, db, monkeypatch):
    taken, given, _, makes, table = ONCE[mutation]
    input = input_of(world, taken, given) | {"idempotencyKey": "k"}
    before = await count(db, table)

    async def refuse(*_, **__):
        raise RuntimeError("no room for keys")

    with monkeypatch.context() as broken:
        broken.setattr(idempotency, "remember", refuse)
        with pytest.raises(AssertionError, match="INTERNAL"):
            await call(mutation, input, makes)
    assert await count(db, table) == before
    assert await count(db, tables.idempotency_keys) == 0
    assert (await call(mutation, input, makes))["errors"] == []


@pytest.mark.parametrize("mutation", REVISED)
async def test_of_two_changes_of_one_revision_one_is_made(mutation, execute, call, world):
    kind, field = REVISED[mutation]
    id = world.ids["lab"][kind]
    shown = "query ($id: ID!) { node(id: $id) { ... on " + mutation.removeprefix("update") + " { revision } } }"

    async def revision():
        answer = await execute(shown, principal=world.people["administrator"], id=id)
        return answer["data"]["node"]["revision"]

    now = await revision()
    answers = await asyncio.gather(
        *(call(mutation, {"id": id, "expectedRevision": now, field: text}, None) for text in ("one", "two"))
    )
    stale = await call(mutation, {"id": id, "expectedRevision": now, field: "three"}, None)

    late = [{"code": "STALE_REVISION", "path": ["input", "expectedRevision"], "currentRevision": now + 1}]
    assert sorted(len(answer["errors"]) for answer in answers) == [0, 1]
    assert [answer["errors"] for answer in (*answers, stale) if answer["errors"]] == [late, late]
    assert await revision() == now + 1
