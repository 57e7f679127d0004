"""A model as it changes, through the API."""

from contextlib import aclosing
from datetime import timedelta

import pytest

from db.ids import Kind, global_id
from domain.events import forget_old_events
from schema.execution import stream
from tests.registered import registered

WATCH = """
subscription ($id: ID!, $after: String) {
  modelUpdated(id: $id, after: $after) {
    kind cursor model { name aliases { name } }
    aliasChange { alias from { id } to { id } reason actor { ... on User { username } } }
  }
}
"""
CREATE = "mutation ($input: CreateModelInput!) { createModel(input: $input) { model { id } errors { code } } }"
UPDATE = "mutation ($input: UpdateModelInput!) { updateModel(input: $input) { errors { code } } }"
DELETE = "mutation ($input: DeleteModelInput!) { deleteModel(input: $input) { errors { code } } }"
SET_ALIAS = "mutation ($input: SetModelAliasInput!) { setModelAlias(input: $input) { errors { code } } }"


@pytest.fixture
def watch(context_of, scientist):
    def start(id, principal=scientist, **variables):
        return aclosing(_updates(stream(WATCH, {"id": id, **variables}, None, context_of(principal))))

    return start


async def _updates(responses):
    async with aclosing(responses):
        async for response, _ in responses:
            if "errors" in response:
                raise AssertionError(response["errors"])
            yield response["data"]["modelUpdated"]


@pytest.fixture
def change(execute, admin):
    async def send(document, **input):
        response = await execute(document, principal=admin, input=input)
        (payload,) = response["data"].values()
        assert payload["errors"] == []
        return payload

    return send


@pytest.fixture
async def model_id(change, project):
    named = {"projectId": global_id(Kind.PROJECT, project.id), "name": "tumor", "task": "REGRESSION"}
    return (await change(CREATE, **named))["model"]["id"]


async def test_a_model_is_followed_until_it_is_deleted(watch, change, model_id):
    async with watch(model_id) as updates:
        first = await anext(updates)
        await change(UPDATE, id=model_id, name="lump")
        renamed = await anext(updates)
        await change(DELETE, id=model_id)
        rest = [update async for update in updates]

    assert (first["kind"], first["model"]["name"], first["aliasChange"]) == ("SNAPSHOT", "tumor", None)
    assert (renamed["kind"], renamed["model"]["name"]) == ("UPDATED", "lump")
    assert [(update["kind"], update["model"]) for update in rest] == [("DELETED", None)]


async def test_a_reader_goes_on_after_its_cursor(watch, change, model_id):
    async with watch(model_id) as updates:
        cursor = (await anext(updates))["cursor"]
    await change(UPDATE, id=model_id, name="lump")
    await change(UPDATE, id=model_id, name="bump")

    async with watch(model_id, after=cursor) as updates:
        missed = [await anext(updates) for _ in range(2)]
        await change(UPDATE, id=model_id, name="mole")
        live = await anext(updates)

    assert [update["kind"] for update in (*missed, live)] == ["UPDATED"] * 3
    assert live["model"]["name"] == "mole"
    assert len({update["cursor"] for update in (*missed, live)}) == 3


async def test_what_an_alias_pointed_at_is_told(watch, change, db, store, execute, admin, project, tmp_path):
    made = await registered(db, store, execute, admin, project, tmp_path, num_rounds=2)

    async with watch(made.model_id) as updates:
        await anext(updates)
        await change(SET_ALIAS, modelId=made.model_id, alias="champion", versionId=made.version_id, reason="Best")
        moved = await anext(updates)

    assert moved["aliasChange"] == {
        "alias": "champion",
        "from": None,
        "to": {"id": made.version_id},
        "reason": "Best",
        "actor": {"username": "ada"},
    }
    assert moved["model"]["aliases"] == [{"name": "champion"}]


async def test_what_is_forgotten_is_a_gap(watch, change, model_id, db):
    async with watch(model_id) as updates:
        cursor = (await anext(updates))["cursor"]
    await change(UPDATE, id=model_id, name="lump")
    async with db.transaction() as session:
        assert await forget_old_events(session, keep=timedelta(0)) > 0

    async with watch(model_id, after=cursor) as updates:
        gap = await anext(updates)
        await change(UPDATE, id=model_id, name="bump")
        live = await anext(updates)

    assert (gap["kind"], gap["model"]["name"]) == ("GAP", "lump")
    assert (live["kind"], live["model"]["name"]) == ("UPDATED", "bump")


@pytest.mark.parametrize("id", ["model_" + "0" * 32, "run_" + "0" * 32, "nothing"])
async def test_what_is_no_model_is_told(context_of, scientist, id):
    responses = [item async for item, _ in stream(WATCH, {"id": id}, None, context_of(scientist))]

    assert [response["errors"][0]["message"] for response in responses] == ["There is no model with this ID."]
