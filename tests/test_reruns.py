"""What can be done with a run that is there, through the API: rename it, try it again, clone it, delete it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from db.ids import Kind, global_id
from db.tables import training_runs
from domain.models import create_model
from domain.uploads import sweep
from storage.keys import run_prefix
from tests.at_work import went_on
from tests.ready import cancer, ready_version
from tests.test_training import (  # noqa: F401 fixtures
    CANCEL,
    CREATE,
    asked,
    counted,
    create,
    hand,
    key,
    run_of,
    steps_of,
    version,
)
from workers.training import train_run
from workers.worker import Worker

ERRORS = """
  __typename code path ... on InvalidStateError { currentState allowedStates }
  ... on AlreadyExistsError { existing { id } } ... on InUseError { dependents { id } }
  ... on StaleRevisionError { currentRevision current { id } } ... on NotFoundError { id }
"""
FIELDS = "id name description status statusReason revision spec { numRounds params } failure { code }"
PAYLOAD = f"trainingRun {{ {FIELDS} }} errors {{ {ERRORS} }}"


def mutation(name: str) -> str:
    kind = f"{name[0].upper()}{name[1:]}Input"
    return f"mutation ($input: {kind}!) {{ {name}(input: $input) {{ {PAYLOAD} }} }}"


@pytest.fixture
def call(execute: Any, scientist: Any, admin: Any) -> Any:
    """`await call("retryTrainingRun", id=…)`: the run, when nothing is wrong."""

    async def call(name: str, /, **input: Any) -> Any:
        principal = admin if name == "deleteTrainingRun" else scientist
        answer = await execute(mutation(name), principal=principal, input=input)
        assert "errors" not in answer, answer
        assert answer["data"][name]["errors"] == []
        return answer["data"][name]["trainingRun"]

    return call


@pytest.fixture
def refused(execute: Any, scientist: Any, admin: Any, db: Any) -> Any:
    """`await refused("retryTrainingRun", id=…)`: the errors; nothing was written."""

    async def rows() -> Any:
        async with db.reading() as session:
            runs = await session.records(select(training_runs).order_by(training_runs.c.id))
        return runs, await counted(db)

    async def refused(name: str, /, **input: Any) -> Any:
        before = await rows()
        principal = admin if name == "deleteTrainingRun" else scientist
        answer = await execute(mutation(name), principal=principal, input=input)
        assert "errors" not in answer, answer
        assert answer["data"][name]["trainingRun"] is None
        assert await rows() == before
        return answer["data"][name]["errors"]

    return refused


@pytest.fixture
def done(create: Any, hand: Any, asked: Any) -> Any:  # noqa: F811
    async def done(**given: Any) -> str:
        id = str(await create(asked(**given)))
        await train_run(hand, key(id))
        return id

    return done


def model_of(run: Any) -> str:
    return next(file["sha256"] for file in run["artifacts"]["nodes"] if file["path"] == "model.txt")


# Trying again


@pytest.mark.parametrize("resume", [True, False])
async def test_a_canceled_run_goes_on_or_starts_over(execute, scientist, asked, create, hand, db, call, resume):  # noqa: F811
    spec = asked({"numRounds": 2000, "params": {"num_leaves": 4, "learning_rate": 0.01}})
    alone = await create(spec)
    await train_run(hand, key(alone))
    id = await canceled_after_a_checkpoint(execute, scientist, db, hand, spec)

    again = await call("retryTrainingRun", id=id, resume=resume)
    await train_run(hand, key(id))

    assert (again["id"], again["status"], again["failure"]) == (id, "QUEUED", None)
    run = await run_of(execute, scientist, id)
    assert run["status"] == "SUCCEEDED"
    assert [a["status"] for a in run["attempts"]] == ["CANCELED", "SUCCEEDED"]
    retried = next(t for t in run["transitions"] if t["from"] == "CANCELED")
    assert (retried["to"], retried["actor"]) == ("QUEUED", {"username": "sam"})
    assert await went_on(db, id) is resume
    assert model_of(run) == model_of(await run_of(execute, scientist, alone))
    for name in ("train.auc", "valid.auc", "valid.binary_logloss"):
        assert await steps_of(db, id, name) == list(range(2000))
    assert await _checkpoint(db, id) is None


async def canceled_after_a_checkpoint(execute: Any, scientist: Any, db: Any, worker: Worker, spec: Any) -> str:
    """A canceled run that has a checkpoint; one that was done before the cancellation reached it is not counted."""
    for _ in range(5):
        made = await execute(CREATE, principal=scientist, input=spec)
        id = str(made["data"]["createTrainingRun"]["trainingRun"]["id"])
        training = asyncio.create_task(train_run(replace(worker, checkpoint_seconds=0.01), key(id)))
        with worker.wakeups.watching(f"points:run:{key(id).hex}") as bell:
            while not await _checkpoint(db, id) and not training.done():
                await bell.wait(1)
        await execute(CANCEL, principal=scientist, input={"id": id, "keepBest": False})
        await training
        if (await run_of(execute, scientist, id))["status"] == "CANCELED":
            return id
    raise AssertionError("no run was canceled in time")


async def _checkpoint(db: Any, id: str) -> Any:
    async with db.reading() as session:
        return await session.scalar(select(training_runs.c.checkpoint).where(training_runs.c.id == key(id)))


async def test_tries_count_anew_after_a_retry(execute, scientist, asked, create, hand, store, db, call):  # noqa: F811
    id = await create(asked({"maxAttempts": 2}))
    async with db.reading() as session:
        data = await session.connection.fetchval("SELECT data_key FROM dataset_versions")
    kept = await store.read(data)
    await store.write(data, b"PAR1 this is no Parquet at all PAR1", "application/vnd.apache.parquet")
    for _ in range(2):
        await train_run(hand, key(id))
    spoiled = await run_of(execute, scientist, id)

    await call("retryTrainingRun", id=id)
    await train_run(hand, key(id))
    still = await run_of(execute, scientist, id)
    [copy] = (hand.scratch / "data").iterdir()
    copy.unlink()
    await store.write(data, kept, "application/vnd.apache.parquet")
    await train_run(hand, key(id))

    assert (spoiled["status"], spoiled["failure"]["code"], len(spoiled["attempts"])) == ("FAILED", "INTERNAL", 2)
    assert (still["status"], len(still["attempts"])) == ("QUEUED", 3)
    run = await run_of(execute, scientist, id)
    assert (run["status"], run["failure"]) == ("SUCCEEDED", None)
    assert [a["status"] for a in run["attempts"]] == ["FAILED", "FAILED", "FAILED", "SUCCEEDED"]


async def test_only_what_ended_without_success_is_tried_again(asked, create, done, refused):  # noqa: F811
    queued, succeeded = await create(asked()), await done()
    for id, state in ((queued, "QUEUED"), (succeeded, "SUCCEEDED")):
        assert await refused("retryTrainingRun", id=id) == [
            {
                "__typename": "InvalidStateError",
                "code": "INVALID_STATE",
                "path": ["input", "id"],
                "currentState": state,
                "allowedStates": ["FAILED", "TIMED_OUT", "CANCELED"],
            }
        ]


async def test_a_run_whose_data_was_deleted_is_not_tried_again(execute, scientist, asked, create, refused, db):  # noqa: F811
    id = await create(asked())
    await execute(CANCEL, principal=scientist, input={"id": id})
    async with db.transaction() as session:
        await session.connection.execute("DELETE FROM datasets")
    assert await refused("retryTrainingRun", id=id) == [
        {"__typename": "ValidationError", "code": "INVALID", "path": ["input", "id"]}
    ]


async def test_a_run_trained_outside_is_not_tried_again(asked, create, refused):  # noqa: F811
    id = await create(asked({"algorithm": "EXTERNAL"}))
    assert await refused("retryTrainingRun", id=id) == [
        {"__typename": "ValidationError", "code": "INVALID", "path": ["input", "id"]}
    ]


# Cloning


async def test_a_clone_has_the_changes_and_nothing_else(execute, scientist, asked, create, hand, db, call):  # noqa: F811
    spec = {"params": {"numLeaves": 7, "learning_rate": 0.3}, "features": ["mean radius", "mean area"]}
    id = await create(asked(spec, name="first", description="About it", tags=[{"key": "a", "value": "b"}]))

    clone = await call("cloneTrainingRun", id=id, name="second", numRounds=9, params={"num_leaves": 5, "eta": None})
    await train_run(hand, key(clone["id"]))

    assert clone["id"] != id
    assert (clone["name"], clone["description"], clone["status"]) == ("second", "About it", "QUEUED")
    assert clone["spec"] == {"numRounds": 9, "params": {"objective": "binary", "num_leaves": 5}}
    run = await run_of(execute, scientist, clone["id"])
    assert (run["status"], run["spec"]["features"]) == ("SUCCEEDED", ["mean radius", "mean area"])
    assert {p["name"]: p["value"] for p in run["params"] if p["explicit"]} == {"num_leaves": 5}
    assert (await run_of(execute, scientist, id))["status"] == "QUEUED"


async def test_a_clone_without_changes_trains_the_same_model(execute, scientist, done, hand, call):  # noqa: F811
    id = await done()
    clone = await call("cloneTrainingRun", id=id)
    await train_run(hand, key(clone["id"]))
    first, second = [await run_of(execute, scientist, one) for one in (id, clone["id"])]
    assert model_of(first) == model_of(second)


async def test_a_repeated_clone_makes_one_run(asked, create, call, refused, db):  # noqa: F811
    id = await create(asked())
    first = await call("cloneTrainingRun", id=id, numRounds=3, idempotencyKey="once")
    again = await call("cloneTrainingRun", id=id, numRounds=3, idempotencyKey="once")
    assert (first["id"], await counted(db)) == (again["id"], (2, 2))
    (error,) = await refused("cloneTrainingRun", id=id, numRounds=4, idempotencyKey="once")
    assert error["code"] == "IDEMPOTENCY_MISMATCH"


async def test_a_clone_is_refused_where_its_input_is_wrong(asked, create, refused, store, db, project, tmp_path):  # noqa: F811
    id = await create(asked(name="first"))
    other = await ready_version(db, store, project, tmp_path, cancer().rename_columns([f"c{i}" for i in range(32)]))

    async def where(**input: Any) -> list[tuple[str, list[str]]]:
        return [(e["code"], e["path"]) for e in await refused("cloneTrainingRun", id=id, **input)]

    assert await where(numRounds=0, params={"num_leaves": 1}) == [
        ("OUT_OF_RANGE", ["input", "numRounds"]),
        ("OUT_OF_RANGE", ["input", "params", "num_leaves"]),
    ]
    assert await where(name="first") == [("ALREADY_EXISTS", ["input", "name"])]
    unfit = await where(datasetVersionId=global_id(Kind.DATASET_VERSION, other))
    assert set(map(str, unfit)) == {str(("NOT_FOUND", ["input", "datasetVersionId"]))}
    assert await where(datasetVersionId="datasetversion_1") == [("NOT_FOUND", ["input", "datasetVersionId"])]


# Renaming


async def test_a_run_gets_another_name_and_description(asked, create, call):  # noqa: F811
    id = await create(asked(name="first", description="Old"))
    run = await call("updateTrainingRun", id=id, name="second", expectedRevision=1)
    assert (run["name"], run["description"], run["revision"]) == ("second", "Old", 2)
    run = await call("updateTrainingRun", id=id, description="New")
    assert (run["name"], run["description"], run["revision"]) == ("second", "New", 3)
    same = await call("updateTrainingRun", id=id, description="New")
    assert same["revision"] == 3
    bare = await call("updateTrainingRun", id=id, description="")
    assert (bare["name"], bare["description"], bare["revision"]) == ("second", None, 4)


async def test_a_rename_is_refused(asked, create, refused):  # noqa: F811
    other, id = await create(asked(name="taken")), await create(asked(name="first"))
    assert await refused("updateTrainingRun", id=id, name="taken") == [
        {
            "__typename": "AlreadyExistsError",
            "code": "ALREADY_EXISTS",
            "path": ["input", "name"],
            "existing": {"id": other},
        }
    ]
    assert await refused("updateTrainingRun", id=id, name="second", expectedRevision=2) == [
        {
            "__typename": "StaleRevisionError",
            "code": "STALE_REVISION",
            "path": ["input", "expectedRevision"],
            "currentRevision": 1,
            "current": {"id": id},
        }
    ]
    assert [e["code"] for e in await refused("updateTrainingRun", id=id, name=" ")] == ["REQUIRED"]
    assert [e["code"] for e in await refused("updateTrainingRun", id=id, name="x" * 201)] == ["TOO_LONG"]


# Deleting


async def test_a_run_that_is_over_goes_with_everything_it_left(execute, scientist, done, call, db, store):
    id = await done()
    before = [file.key async for file in store.list(run_prefix(key(id)))]

    deleted = await call("deleteTrainingRun", id=id)
    await sweep(db, store)

    assert {name.rpartition("/")[2] for name in before} >= {"manifest.json", "model.txt"}
    assert (deleted["id"], deleted["status"]) == (id, "SUCCEEDED")
    assert await run_of_nobody(execute, scientist, id)
    assert await steps_of(db, id, "valid.auc") == []
    assert [file.key async for file in store.list(run_prefix(key(id)))] == []


async def run_of_nobody(execute: Any, scientist: Any, id: str) -> bool:
    answer = await execute("query ($id: ID!) { trainingRun(id: $id) { id } }", principal=scientist, id=id)
    return answer["data"] == {"trainingRun": None}


async def test_a_run_at_work_or_in_use_stays(asked, create, done, refused, db, admin, project, store):  # noqa: F811
    queued = await create(asked())
    (error,) = await refused("deleteTrainingRun", id=queued)
    assert (error["code"], error["currentState"]) == ("INVALID_STATE", "QUEUED")
    assert error["allowedStates"] == ["SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELED"]

    parent = await done()
    child = await create(asked(parentRunId=parent))
    (error,) = await refused("deleteTrainingRun", id=parent)
    assert (error["code"], error["dependents"]) == ("IN_USE", [{"id": child}])

    async with db.transaction() as session:
        model = await create_model(
            session, admin, project_id=global_id(Kind.PROJECT, project.id), name="tumor",
            task="BINARY_CLASSIFICATION", description=None, tags=[],
        )  # fmt: skip
    registered = await done(registerAs={"modelId": global_id(Kind.MODEL, model.id)})
    (error,) = await refused("deleteTrainingRun", id=registered)
    assert (error["code"], len(error["dependents"])) == ("IN_USE", 1)
    assert len([file async for file in store.list(run_prefix(key(registered)))]) >= 2


# Who may


@pytest.mark.parametrize("name", ["updateTrainingRun", "retryTrainingRun", "cloneTrainingRun", "deleteTrainingRun"])
async def test_needs_a_run_and_the_permission(execute, caller, done, refused, name, db):
    id, viewer = await done(), await caller("Viewer")
    before = await counted(db)
    answer = await execute(mutation(name), principal=viewer, input={"id": id})
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await counted(db) == before
    unknown = f"run_{'0' * 32}"
    assert await refused(name, id=unknown) == [
        {"__typename": "NotFoundError", "code": "NOT_FOUND", "path": ["input", "id"], "id": unknown}
    ]
