"""Training runs through the API, the job run in this process on real data and real servers."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select, text, update

from db.connections import DatabaseUnavailable
from db.database import Database
from db.ids import Kind, global_id, key_of
from db.metrics import histories
from db.metrics.selection import RunMetrics
from db.rows import Project
from db.tables import run_transitions, training_runs
from db.vocabulary import MetricScope
from domain.models import create_model
from ml.processes import Template
from schema.build import schema
from tests.ready import cancer, ready_version
from workers import sweeping
from workers.sweeping import sweep_once
from workers.training import train_run
from workers.worker import Worker

CREATE = """
mutation ($input: CreateTrainingRunInput!) {
  createTrainingRun(input: $input) {
    trainingRun { id name status statusReason attempts { number } progress { fraction phase } revision }
    errors {
      __typename code message path
      ... on ValidationError { allowed } ... on InvalidStateError { currentState allowedStates }
      ... on AlreadyExistsError { existing { id } } ... on NotFoundError { id }
    }
  }
}
"""
VALIDATE = """
mutation ($input: CreateTrainingRunInput!) {
  validateTrainingRun(input: $input) {
    valid warnings estimatedDuration
    resolvedSpec { task algorithm target features evaluationMetrics params numRounds earlyStoppingRounds timeout
      split { strategy validationFraction testFraction folds timeColumn } seed maxAttempts }
    errors { __typename code path }
  }
}
"""
CANCEL = """
mutation ($input: CancelTrainingRunInput!) {
  cancelTrainingRun(input: $input) {
    trainingRun { status statusReason }
    errors { __typename code path ... on InvalidStateError { currentState allowedStates } }
  }
}
"""
RUN = """
query ($id: ID!) {
  trainingRun(id: $id) {
    id status statusReason
    transitions { from to reason attempt actor { ... on User { username } ... on SystemActor { component } } }
    progress { fraction phase completed total unit estimatedFinishAt }
    failure { code message retryable detail }
    spec { numRounds features } params { name value explicit }
    datasetVersion { number } validationDatasetVersion { number }
    environment { headAiVersion pythonVersion packages cpuCount memoryBytes }
    attempts { number status worker startedAt finishedAt failure { code } }
    heartbeatAt startedAt finishedAt duration
    logs { nodes { number level stream attempt text } }
    artifacts { totalCount nodes { id path sizeBytes sha256 contentType download { url sha256 sizeBytes } } }
    modelVersions { number status sha256 aliases run { id } params { name } }
    parentRun { id } childRuns { nodes { id } }
  }
}
"""
UPDATES = """
subscription ($id: ID, $filter: TrainingRunFilter, $after: String) {
  trainingRunUpdated(id: $id, filter: $filter, after: $after) {
    cursor kind changedFields trainingRun { id status progress { completed } }
  }
}
"""
LOGS = """
subscription ($id: ID!, $filter: LogFilter, $after: String) {
  trainingRunLogs(id: $id, filter: $filter, after: $after) {
    cursor kind lines { number text } hasMorePast droppedLines finished
  }
}
"""


@pytest.fixture
def hand(services: Any, template: Template, tmp_path: Path) -> Worker:
    """A worker whose jobs the test runs itself."""
    return Worker(
        db=services.db,
        store=services.store,
        wakeups=services.wakeups,
        name="here:1",
        scratch=tmp_path,
        run_memory_limit_mb=2048,
        children=template,
        threads=1,
    )


@pytest.fixture
async def version(db: Database, store: Any, project: Project, tmp_path: Path) -> UUID:
    return await ready_version(db, store, project, tmp_path, cancer())


@pytest.fixture
def asked(project: Project, version: UUID) -> Any:
    """`asked(num_rounds...)`: the input of a run on the breast cancer data."""

    def make(spec: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
        base = {
            "task": "BINARY_CLASSIFICATION",
            "target": "diagnosis",
            "numRounds": 5,
            "earlyStoppingRounds": None,
        }
        return {
            "projectId": global_id(Kind.PROJECT, project.id),
            "datasetVersionId": global_id(Kind.DATASET_VERSION, version),
            "spec": base | (spec or {}),
        } | given

    return make


@pytest.fixture
def create(execute: Any, scientist: Any) -> Any:
    async def make(input: dict[str, Any]) -> str:
        made = (await execute(CREATE, principal=scientist, input=input))["data"]["createTrainingRun"]
        assert made["errors"] == []
        return str(made["trainingRun"]["id"])

    return make


def key(run_id: str) -> UUID:
    found = key_of(run_id, Kind.RUN)
    assert found is not None
    return found


async def run_of(execute: Any, principal: Any, id: str) -> dict[str, Any]:
    answer = await execute(RUN, principal=principal, id=id)
    assert "errors" not in answer, answer
    return dict(answer["data"]["trainingRun"])


async def steps_of(db: Database, run_id: str, name: str) -> list[int]:
    async with db.reading() as session:
        found = await histories.of_runs(session, [key(run_id)], RunMetrics(MetricScope.RUN, (name,)))
    return [step for one in found.get(key(run_id), ()) for step in one.data.columns.step or ()]


async def counted(db: Database) -> tuple[int, int]:
    """How many runs and jobs there are."""
    async with db.reading() as session:
        runs = await session.scalar(select(func.count()).select_from(training_runs))
        jobs = await session.connection.fetchval("SELECT count(*) FROM pgqueuer")
    return runs, jobs


async def test_a_run_is_queued_with_its_job(execute, scientist, asked, db):
    made = await execute(CREATE, principal=scientist, input=asked(name="first"))

    run = made["data"]["createTrainingRun"]["trainingRun"]
    assert made["data"]["createTrainingRun"]["errors"] == []
    assert run | {"id": None} == {
        "id": None,
        "name": "first",
        "status": "QUEUED",
        "statusReason": None,
        "attempts": [],
        "progress": {"fraction": None, "phase": "queued"},
        "revision": 1,
    }
    async with db.reading() as session:
        payloads = await session.connection.fetch("SELECT entrypoint, payload FROM pgqueuer")
    assert [(p["entrypoint"], p["payload"]) for p in payloads] == [("train_run", key(run["id"]).bytes)]


async def test_trains_and_registers(execute, scientist, asked, create, hand, project, db, store):
    async with db.transaction() as session:
        model = await create_model(
            session,
            scientist,
            project_id=global_id(Kind.PROJECT, project.id),
            name="tumours",
            description=None,
            task="BINARY_CLASSIFICATION",
            tags=[],
        )
    register = {"modelId": global_id(Kind.MODEL, model.id), "alias": "champion"}
    id = await create(asked({"params": {"numLeaves": 7}}, registerAs=register))

    await train_run(hand, key(id))

    run = await run_of(execute, scientist, id)
    assert (run["status"], run["statusReason"], run["failure"]) == ("SUCCEEDED", None, None)
    assert [(t["from"], t["to"], t["attempt"]) for t in run["transitions"]] == [
        (None, "QUEUED", 0),
        ("QUEUED", "STARTING", 1),
        ("STARTING", "RUNNING", 1),
        ("RUNNING", "SUCCEEDED", 1),
    ]
    assert [t["actor"] for t in run["transitions"]] == [{"username": "sam"}] + 3 * [{"component": "worker"}]
    assert run["progress"] == {
        "fraction": 1.0,
        "phase": "finished",
        "completed": "5",
        "total": "5",
        "unit": "rounds",
        "estimatedFinishAt": None,
    }
    assert [(a["number"], a["status"], a["worker"], a["failure"]) for a in run["attempts"]] == [
        (1, "SUCCEEDED", "here:1", None)
    ]
    assert {"name": "num_leaves", "value": 7, "explicit": True} in run["params"]
    assert {"name": "learning_rate", "value": 0.1, "explicit": False} in run["params"]
    assert run["environment"]["packages"]["lightgbm"].startswith("4.")
    assert [line["number"] for line in run["logs"]["nodes"]] == [
        str(n) for n in range(1, len(run["logs"]["nodes"]) + 1)
    ]
    for name in ("train.auc", "valid.auc", "train.binary_logloss", "valid.binary_logloss"):
        assert await steps_of(db, id, name) == [0, 1, 2, 3, 4]
    artifacts = {artifact["path"]: artifact for artifact in run["artifacts"]["nodes"]}
    assert (run["artifacts"]["totalCount"], sorted(artifacts)) == (3, ["manifest.json", "model.txt", "model_card.md"])
    async with httpx.AsyncClient() as client:
        content = (await client.get(artifacts["model.txt"]["download"]["url"])).content
    assert hashlib.sha256(content).hexdigest() == artifacts["model.txt"]["sha256"]
    assert content.startswith(b"tree\n")
    (model_version,) = run["modelVersions"]
    assert model_version["sha256"] == artifacts["model.txt"]["sha256"]
    assert (model_version["number"], model_version["status"], model_version["aliases"]) == (1, "READY", ["champion"])
    assert model_version["run"] == {"id": id}
    assert list(hand.scratch.glob("*-1")) == []


async def test_early_stopping_ends_with_progress_one(execute, scientist, asked, create, hand):
    id = await create(asked({"numRounds": 500, "earlyStoppingRounds": 3}))

    await train_run(hand, key(id))

    run = await run_of(execute, scientist, id)
    assert run["status"] == "SUCCEEDED"
    assert run["progress"]["fraction"] == 1.0
    rounds = int(run["progress"]["completed"])
    assert rounds < 500
    assert run["statusReason"] == f"Stopped early after {rounds} rounds: round {rounds - 4} was the best."


async def test_a_bad_spec_is_refused_with_all_that_is_wrong_and_nothing_is_written(execute, scientist, asked, db):
    spec = {
        "target": "diagnose",
        "numRounds": 10,
        "params": {"num_leafs": 3, "learningRate": -1, "num_iterations": 5},
        "evaluationMetrics": ["rmse"],
        "split": {"validationFraction": 1.5},
    }

    made = await execute(CREATE, principal=scientist, input=asked(spec))

    payload = made["data"]["createTrainingRun"]
    assert payload["trainingRun"] is None
    assert {(e["__typename"], e["code"], "/".join(e["path"])) for e in payload["errors"]} == {
        ("ValidationError", "NOT_FOUND", "input/spec/target"),
        ("ValidationError", "OUT_OF_RANGE", "input/spec/split/validationFraction"),
        ("ValidationError", "INVALID", "input/spec/evaluationMetrics/0"),
        ("ValidationError", "INVALID", "input/spec/params/num_leafs"),
        ("ValidationError", "OUT_OF_RANGE", "input/spec/params/learningRate"),
        ("ValidationError", "INVALID", "input/spec/params/num_iterations"),
    }
    allowed = {"/".join(e["path"]): e["allowed"] for e in payload["errors"]}
    assert allowed["input/spec/params/learningRate"] == {"type": "number", "exclusiveMinimum": 0.0}
    assert await counted(db) == (0, 0)


@pytest.mark.parametrize(
    ("spec", "code", "path"),
    [
        ({"target": "site"}, "INVALID", ["input", "spec", "target"]),
        ({"target": None}, "REQUIRED", ["input", "spec", "target"]),
        ({"task": "REGRESSION"}, "INVALID", ["input", "spec", "target"]),
        ({"task": "RANKING"}, "INVALID", ["input", "spec", "task"]),
        ({"features": ["diagnosis"]}, "INVALID", ["input", "spec", "features", "0"]),
        ({"numRounds": 0}, "OUT_OF_RANGE", ["input", "spec", "numRounds"]),
        ({"params": {"x\x00": 1}}, "INVALID", ["input", "spec", "params"]),
    ],
)
async def test_each_of_these_is_refused(execute, scientist, asked, db, spec, code, path):
    payload = (await execute(CREATE, principal=scientist, input=asked(spec)))["data"]["createTrainingRun"]

    assert (code, path) in [(error["code"], error["path"]) for error in payload["errors"]]
    assert await counted(db) == (0, 0)


async def test_what_it_names_has_to_be_there(execute, scientist, asked, db, store, project, tmp_path):
    processing = await ready_version(db, store, project, tmp_path, cancer(), status="PROCESSING")
    missing = "0" * 32
    given = asked(
        datasetVersionId=global_id(Kind.DATASET_VERSION, processing),
        validationDatasetVersionId=f"datasetversion_{missing}",
        parentRunId=f"dataset_{missing}",
        registerAs={"modelId": f"model_{missing}"},
    )

    payload = (await execute(CREATE, principal=scientist, input=given))["data"]["createTrainingRun"]

    assert [(e["__typename"], e["path"]) for e in payload["errors"]] == [
        ("InvalidStateError", ["input", "datasetVersionId"]),
        ("NotFoundError", ["input", "validationDatasetVersionId"]),
        ("NotFoundError", ["input", "parentRunId"]),
        ("NotFoundError", ["input", "registerAs", "modelId"]),
    ]
    assert payload["errors"][0]["currentState"] == "PROCESSING"
    assert await counted(db) == (0, 0)


async def test_names_are_unique_in_the_project_and_made_up_when_missing(execute, scientist, asked, create, db):
    taken = await create(asked(name="first"))
    await create(asked())

    payload = (await execute(CREATE, principal=scientist, input=asked(name="first")))["data"]["createTrainingRun"]

    assert [(e["__typename"], e["path"], e["existing"]) for e in payload["errors"]] == [
        ("AlreadyExistsError", ["input", "name"], {"id": taken})
    ]
    assert await counted(db) == (2, 2)


async def test_a_repeated_request_makes_one_run(execute, scientist, asked, create, db):
    first = await create(asked(idempotencyKey="k"))
    again = await create(asked(idempotencyKey="k"))

    other = await execute(CREATE, principal=scientist, input=asked({"numRounds": 6}, idempotencyKey="k"))

    assert again == first
    assert [e["code"] for e in other["data"]["createTrainingRun"]["errors"]] == ["IDEMPOTENCY_MISMATCH"]
    assert await counted(db) == (1, 1)


async def test_validating_tells_what_a_run_would_be(execute, scientist, asked, db):
    fine = (await execute(VALIDATE, principal=scientist, input=asked({"timeout": "PT1M"})))["data"]
    bad = (await execute(VALIDATE, principal=scientist, input=asked({"target": "nobody"})))["data"]

    answer = fine["validateTrainingRun"]
    assert (answer["valid"], answer["errors"]) == (True, [])
    assert answer["resolvedSpec"]["evaluationMetrics"] == ["auc", "binary_logloss"]
    assert len(answer["resolvedSpec"]["features"]) == 31
    assert answer["resolvedSpec"]["timeout"] == "PT1M"
    assert bad["validateTrainingRun"] == {
        "valid": False,
        "warnings": None,
        "estimatedDuration": None,
        "resolvedSpec": None,
        "errors": [{"__typename": "ValidationError", "code": "NOT_FOUND", "path": ["input", "spec", "target"]}],
    }
    assert await counted(db) == (0, 0)


async def test_the_duration_is_estimated_from_earlier_runs_on_the_same_data(
    execute, scientist, asked, create, db, version, store, project, tmp_path
):
    other = await ready_version(db, store, project, tmp_path, cancer())
    elsewhere = await ready_version(db, store, project, tmp_path, cancer())

    async def succeeded(on: UUID, seconds: float, rounds: int, status: str = "SUCCEEDED") -> None:
        id = key(await create(asked(datasetVersionId=global_id(Kind.DATASET_VERSION, on))))
        async with db.transaction() as session:
            await session.connection.execute(
                "UPDATE training_runs SET status = $2, attempt = 2, progress = $3, finished_at = now() WHERE id = $1",
                id,
                status,
                {"fraction": 1.0, "phase": "finished", "completed": rounds},
            )
            for number, took in ((1, 1000.0), (2, seconds)):
                await session.connection.execute(
                    "INSERT INTO run_attempts (run_id, number, status, started_at, finished_at) "
                    "VALUES ($1, $2, 'LOST', now() - $3::interval, now())",
                    id,
                    number,
                    timedelta(seconds=took),
                )

    async def estimated() -> str | None:
        answer = await execute(VALIDATE, principal=scientist, input=asked({"numRounds": 7}))
        return answer["data"]["validateTrainingRun"]["estimatedDuration"]

    await succeeded(elsewhere, 100, 1)
    await succeeded(version, 100, 10, "FAILED")
    await succeeded(version, 100, 0)
    without = await estimated()
    async with db.transaction() as session:
        await session.connection.execute(
            "UPDATE dataset_versions SET number = 2, "
            "dataset_id = (SELECT dataset_id FROM dataset_versions WHERE id = $1) WHERE id = $2",
            version,
            other,
        )
    await succeeded(other, 30, 3)
    on_the_dataset = await estimated()
    for seconds, rounds in ((10, 5), (60, 20), (4, 1)):
        await succeeded(version, seconds, rounds)
    on_the_version = await estimated()

    assert (without, on_the_dataset, on_the_version) == (None, "PT1M10S", "PT21S")


async def test_a_viewer_starts_and_cancels_nothing(execute, caller, asked, create, db):
    viewer = await caller("Viewer")
    id = await create(asked())

    made = await execute(CREATE, principal=viewer, input=asked())
    canceled = await execute(CANCEL, principal=viewer, input={"id": id})

    assert [made["errors"][0]["extensions"]["code"], canceled["errors"][0]["extensions"]["code"]] == 2 * ["FORBIDDEN"]
    assert await counted(db) == (1, 1)


async def test_somebody_without_grants_sees_no_run(execute, caller, create, asked):
    stranger, id = await caller(None), await create(asked())

    answer = await execute(
        "query ($id: ID!) { trainingRun(id: $id) { id } node(id: $id) { id } trainingRuns { totalCount } }",
        principal=stranger,
        id=id,
    )

    assert answer["data"] == {"trainingRun": None, "node": None, "trainingRuns": {"totalCount": 0}}


# Canceling


async def canceled_midway(execute: Any, principal: Any, hand: Worker, id: str, **how: Any) -> None:
    """Run the job, and cancel once the first points are there."""
    training = asyncio.create_task(train_run(hand, key(id)))
    with hand.wakeups.watching(f"points:run:{key(id).hex}") as bell:
        assert await bell.wait(60)
    answer = await execute(CANCEL, principal=principal, input={"id": id, **how})
    assert answer["data"]["cancelTrainingRun"] == {
        "trainingRun": {"status": "CANCELING", "statusReason": how.get("reason")},
        "errors": [],
    }
    await training


async def test_a_queued_run_is_canceled_at_once(execute, scientist, asked, create, hand):
    id = await create(asked())

    answer = await execute(CANCEL, principal=scientist, input={"id": id, "reason": "typo"})
    await train_run(hand, key(id))

    assert answer["data"]["cancelTrainingRun"]["trainingRun"] == {"status": "CANCELED", "statusReason": "typo"}
    run = await run_of(execute, scientist, id)
    assert (run["status"], run["attempts"], run["artifacts"]["nodes"]) == ("CANCELED", [], [])
    again = await execute(CANCEL, principal=scientist, input={"id": id})
    assert again["data"]["cancelTrainingRun"]["errors"] == [
        {
            "__typename": "InvalidStateError",
            "code": "INVALID_STATE",
            "path": ["input", "id"],
            "currentState": "CANCELED",
            "allowedStates": ["QUEUED", "STARTING", "RUNNING", "CANCELING", "LOST"],
        }
    ]


@pytest.mark.parametrize(
    ("how", "kept"),
    [({}, ["manifest.json", "model.txt", "model_card.md"]), ({"keepBest": False}, []), ({"force": True}, [])],
)
async def test_a_run_at_work_is_canceled(execute, scientist, asked, create, hand, how, kept):
    id = await create(asked({"numRounds": 100000}))

    await canceled_midway(execute, scientist, hand, id, reason="enough", **how)

    run = await run_of(execute, scientist, id)
    assert (run["status"], run["statusReason"]) == ("CANCELED", "enough")
    assert [t["to"] for t in run["transitions"]] == ["QUEUED", "STARTING", "RUNNING", "CANCELING", "CANCELED"]
    assert [artifact["path"] for artifact in run["artifacts"]["nodes"]] == kept
    assert run["transitions"][-1]["actor"] == {"username": "sam"}


async def test_an_unknown_run_cannot_be_canceled(execute, scientist):
    answer = await execute(CANCEL, principal=scientist, input={"id": f"run_{'0' * 32}"})

    assert answer["data"]["cancelTrainingRun"] == {
        "trainingRun": None,
        "errors": [{"__typename": "NotFoundError", "code": "NOT_FOUND", "path": ["input", "id"]}],
    }


# Failing


async def test_a_run_that_takes_too_long_times_out(execute, scientist, asked, create, hand):
    id = await create(asked({"numRounds": 100000, "timeout": "PT1S"}))

    await train_run(hand, key(id))

    run = await run_of(execute, scientist, id)
    assert run["status"] == "TIMED_OUT"
    assert (run["failure"]["code"], run["failure"]["message"]) == ("TIMEOUT", "Training took longer than 1 s.")
    assert run["attempts"][0]["failure"] == {"code": "TIMEOUT"}


async def test_data_that_is_gone_fails_the_run(execute, scientist, asked, create, hand, store, db):
    id = await create(asked())
    async with db.reading() as session:
        data = await session.connection.fetchval("SELECT data_key FROM dataset_versions")
    await store.delete([data])

    await train_run(hand, key(id))

    run = await run_of(execute, scientist, id)
    assert (run["status"], run["failure"]["code"]) == ("FAILED", "INVALID_DATA")
    assert run["failure"]["message"] == "The data of the dataset version is not in the store any more."


async def test_a_failure_that_may_pass_is_tried_again_as_often_as_asked(execute, scientist, asked, create, hand, db):
    id = await create(asked({"maxAttempts": 2}))
    async with db.transaction() as session:
        broken = text("jsonb_set(spec, '{split,strategy}', '\"GROUP\"')")
        await session.run(update(training_runs).values(spec=broken).where(training_runs.c.id == key(id)))

    await train_run(hand, key(id))
    first = await run_of(execute, scientist, id)
    await train_run(hand, key(id))

    run = await run_of(execute, scientist, id)
    assert (first["status"], [a["status"] for a in first["attempts"]]) == ("QUEUED", ["FAILED"])
    assert (run["status"], run["failure"]["code"]) == ("FAILED", "INTERNAL")
    assert "Traceback" in run["failure"]["detail"]
    assert [t["to"] for t in run["transitions"]] == 2 * ["QUEUED", "STARTING", "RUNNING", "FAILED"]


# Losing the worker


async def lose(hand: Worker, id: str) -> None:
    """As if the worker had died a while ago."""
    async with hand.db.transaction() as session:
        long_ago = func.clock_timestamp() - timedelta(minutes=1)
        await session.run(update(training_runs).values(heartbeat_at=long_ago).where(training_runs.c.id == key(id)))


async def claimed(hand: Worker, id: str) -> Any:
    from domain.training import claim

    async with hand.db.transaction() as session:
        run = await claim(session, key(id), worker="gone:1")
    assert run is not None
    return run


async def test_a_lost_run_is_tried_again_three_times_whatever_its_attempts(execute, scientist, asked, create, hand):
    id = await create(asked())
    for _ in range(4):
        await claimed(hand, id)
        await lose(hand, id)
        await sweep_once(hand)

    run = await run_of(execute, scientist, id)
    assert (run["status"], run["failure"]["code"]) == ("FAILED", "WORKER_LOST")
    assert [a["status"] for a in run["attempts"]] == 4 * ["LOST"]
    assert [t["to"] for t in run["transitions"]] == ["QUEUED"] + 3 * ["STARTING", "LOST", "QUEUED"] + [
        "STARTING",
        "LOST",
        "FAILED",
    ]


async def test_nobody_is_given_up_on_when_the_database_stood_still(asked, create, hand, db, monkeypatch):
    monkeypatch.setattr(sweeping, "STOOD_STILL_SECONDS", 0.0)
    id = await create(asked())
    await claimed(hand, id)
    await lose(hand, id)

    with pytest.raises(DatabaseUnavailable):
        await sweep_once(hand)

    async with db.reading() as session:
        assert await session.scalar(select(training_runs.c.status).where(training_runs.c.id == key(id))) == "STARTING"


async def test_a_worker_that_lost_its_lease_writes_nothing(asked, create, hand, db):
    from db.vocabulary import FailureCode
    from domain.training import LeaseLost, Line, beat, complete, fail, record, started

    id = await create(asked())
    old = await claimed(hand, id)
    await lose(hand, id)
    await sweep_once(hand)
    await claimed(hand, id)
    async with db.reading() as session:
        before = await session.connection.fetchrow("SELECT * FROM training_runs")

    nothing: dict[str, Any] = {"points": {}, "system_points": {}, "lines": [], "afresh": False}
    line = Line(before["created_at"], "INFO", "STDOUT", "late")
    for step in (
        lambda s: record(s, old, **(nothing | {"lines": [line]}), progress={"fraction": 1.0}),
        lambda s: beat(s, old),
        lambda s: started(s, old, environment={}),
        lambda s: complete(s, old, outcome=None, files=[], progress={}, reason=None),
        lambda s: fail(s, old, code=FailureCode.INTERNAL, message="late", retryable=False),
    ):
        with pytest.raises(LeaseLost):
            async with db.transaction() as session:
                await step(session)

    async with db.reading() as session:
        assert await session.connection.fetchrow("SELECT * FROM training_runs") == before
        assert await session.connection.fetchval("SELECT count(*) FROM run_logs WHERE text = 'late'") == 0


async def test_a_second_attempt_leaves_every_step_once(execute, scientist, asked, create, hand, db):
    id = await create(asked({"numRounds": 100000}))
    first = asyncio.create_task(train_run(hand, key(id)))
    with hand.wakeups.watching(f"points:run:{key(id).hex}") as bell:
        assert await bell.wait(60)
        assert await bell.wait(60)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    handed_back = await run_of(execute, scientist, id)
    trained_before = await steps_of(db, id, "valid.auc")
    async with db.transaction() as session:
        fewer = text("jsonb_set(spec, '{num_rounds}', '30')")
        await session.run(update(training_runs).values(spec=fewer).where(training_runs.c.id == key(id)))

    await train_run(hand, key(id))

    assert (handed_back["status"], handed_back["statusReason"]) == ("QUEUED", "Its worker was stopped.")
    assert [(a["status"], a["failure"]) for a in handed_back["attempts"]] == [("LOST", None)]
    assert len(trained_before) > 0
    run = await run_of(execute, scientist, id)
    assert run["status"] == "SUCCEEDED"
    assert await steps_of(db, id, "valid.auc") == list(range(30))


async def test_lost_connections_to_the_database_are_no_failure(execute, scientist, asked, create, hand, db):
    id = await create(asked({"numRounds": 1500}))
    training = asyncio.create_task(train_run(hand, key(id)))
    with hand.wakeups.watching(f"points:run:{key(id).hex}") as bell:
        for _ in range(3):
            assert await bell.wait(60)
            async with db.reading() as session:
                await session.connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'headai' AND pid <> pg_backend_pid()"
                )
    await training

    run = await run_of(execute, scientist, id)
    assert (run["status"], len(run["attempts"])) == ("SUCCEEDED", 1)
    assert await steps_of(db, id, "valid.auc") == list(range(1500))
    numbers = [int(line["number"]) for line in run["logs"]["nodes"]]
    assert numbers == list(range(1, len(numbers) + 1))


class Forgetful:
    """A database whose every other transaction commits, and then the connection is lost before it says so."""

    def __init__(self, db: Database) -> None:
        self.reading = db.reading
        self._db = db
        self.committed = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self._db.transaction() as session:
            yield session
        self.committed += 1
        if self.committed % 2 == 0:
            raise DatabaseUnavailable("the connection was lost")


async def test_what_was_written_without_our_learning_of_it_is_not_written_twice(
    execute, scientist, asked, create, hand, db, monkeypatch
):
    monkeypatch.setattr("workers.training._AGAIN_SECONDS", 0.01)
    monkeypatch.setattr("workers.training.SAMPLE_SECONDS", 0.05)
    id = await create(asked({"numRounds": 50}))
    await train_run(replace(hand, db=Forgetful(db)), key(id))

    run = await run_of(execute, scientist, id)
    assert (run["status"], [a["status"] for a in run["attempts"]]) == ("SUCCEEDED", ["SUCCEEDED"])
    assert await steps_of(db, id, "valid.auc") == list(range(50))
    lines = [(line["number"], line["text"]) for line in run["logs"]["nodes"]]
    assert [int(number) for number, _ in lines] == list(range(1, len(lines) + 1))
    assert len({text for _, text in lines}) == len(lines), "no line is there twice"
    assert [transition["to"] for transition in run["transitions"]] == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]


async def test_a_queued_run_without_a_job_gets_one(asked, create, hand, db):
    id = await create(asked())
    async with db.transaction() as session:
        await session.connection.execute("DELETE FROM pgqueuer")

    await sweep_once(hand)
    await sweep_once(hand)

    async with db.reading() as session:
        payloads = await session.connection.fetch("SELECT payload FROM pgqueuer")
    assert [p["payload"] for p in payloads] == [key(id).bytes]


# Lists


async def test_filters(execute, scientist, asked, create, hand, project):
    trained = await create(asked({"params": {"num_leaves": 7}}, name="trained", tags=[{"key": "k", "value": "v"}]))
    waiting = await create(asked(name="waiting", description="for a worker", parentRunId=trained))
    await train_run(hand, key(trained))

    async def found(**filter: Any) -> set[str]:
        query = "query ($f: TrainingRunFilter) { trainingRuns(filter: $f) { nodes { name } totalCount } }"
        answer = (await execute(query, principal=scientist, f=filter))["data"]["trainingRuns"]
        assert answer["totalCount"] == len(answer["nodes"])
        return {node["name"] for node in answer["nodes"]}

    assert await found(name={"startsWith": "TRAIN"}) == {"trained"}
    assert await found(statuses=["QUEUED", "FAILED"]) == {"waiting"}
    assert await found(algorithms=["EXTERNAL"]) == set()
    assert await found(tasks=["BINARY_CLASSIFICATION"]) == {"trained", "waiting"}
    assert await found(tags=[{"key": "k"}]) == {"trained"}
    assert await found(createdById=f"user_{scientist.user_id.hex}") == {"trained", "waiting"}
    assert await found(createdById="nobody") == set()
    assert await found(finishedAt={"gte": "2020-01-01T00:00:00Z"}) == {"trained"}
    assert await found(createdAt={"lt": "2020-01-01T00:00:00Z"}) == set()
    assert await found(parentRunId=trained) == {"waiting"}
    assert await found(metrics=[{"name": "valid.auc", "value": {"gt": 0.5}}]) == {"trained"}
    assert await found(metrics=[{"name": "valid.auc", "of": "BEST", "value": {"lt": 0.5}}]) == set()
    assert await found(params=[{"name": "numLeaves", "eq": 7}]) == {"trained"}
    assert await found(params=[{"name": "num_leaves", "in": [31, 63]}]) == {"waiting"}
    assert await found(params=[{"name": "num_leaves", "number": {"gte": 7, "lt": 32}}]) == {"trained", "waiting"}
    assert await found(search="WORKER") == {"waiting"}
    assert await found(**{"or": [{"search": "worker"}, {"statuses": ["SUCCEEDED"]}]}) == {"trained", "waiting"}
    assert await found(**{"not": {"finishedAt": {"gte": "2020-01-01T00:00:00Z"}}}) == {"waiting"}
    assert await found(**{"and": [{"statuses": ["SUCCEEDED"]}, {"name": {"eq": "waiting"}}]}) == set()
    assert waiting


async def test_orders_with_runs_that_lack_the_value_last(execute, scientist, asked, create, hand):
    weak = await create(asked({"numRounds": 1}, name="weak"))
    strong = await create(asked({"numRounds": 20}, name="strong"))
    await create(asked(name="none"))
    await train_run(hand, key(weak))
    await train_run(hand, key(strong))

    async def ordered(first: int = 10, after: str | None = None, **order: Any) -> tuple[list[str], str]:
        query = """query ($o: TrainingRunOrder, $first: Int, $after: String) {
          trainingRuns(orderBy: $o, first: $first, after: $after) { nodes { name } pageInfo { endCursor } } }"""
        answer = await execute(query, principal=scientist, o=order, first=first, after=after)
        page = answer["data"]["trainingRuns"]
        return [node["name"] for node in page["nodes"]], page["pageInfo"]["endCursor"]

    metric = {"field": "METRIC", "metric": "train.auc"}
    assert (await ordered(**metric, direction="DESC"))[0] == ["strong", "weak", "none"]
    assert (await ordered(**metric, direction="ASC"))[0] == ["weak", "strong", "none"]
    assert (await ordered(field="FINISHED_AT", direction="DESC"))[0] == ["strong", "weak", "none"]
    assert (await ordered(field="STARTED_AT", direction="ASC"))[0] == ["weak", "strong", "none"]
    assert (await ordered(field="DURATION", direction="ASC"))[0][2] == "none"
    assert (await ordered(field="NAME", direction="ASC"))[0] == ["none", "strong", "weak"]
    names, cursor = await ordered(first=2, **metric, direction="DESC")
    rest, _ = await ordered(first=2, after=cursor, **metric, direction="DESC")
    assert names + rest == ["strong", "weak", "none"]
    refused = await execute("{ trainingRuns(orderBy: {field: METRIC}) { totalCount } }", principal=scientist)
    assert refused["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_nested_lists_are_one_statement_a_level(execute, scientist, asked, create, statements):
    for _ in range(3):
        await create(asked())
    query = """{ projects { nodes { trainingRuns(first: 5) { nodes {
      name transitions { to } attempts { number } logs { nodes { text } } artifacts { nodes { path } }
      childRuns { nodes { id } } datasetVersion { usedByRuns { nodes { id } } }
    } } } } }"""

    with statements() as seen:
        answer = await execute(query, principal=scientist)

    assert len(answer["data"]["projects"]["nodes"][0]["trainingRuns"]["nodes"]) == 3
    assert len(seen) == 9, "projects, runs; transitions, attempts, logs, artifacts, children, versions; their runs"


async def test_the_schema_of_an_algorithm(execute, scientist):
    answer = await execute("{ algorithmSchema(algorithm: LIGHTGBM) }", principal=scientist)

    assert answer["data"]["algorithmSchema"]["properties"]["num_leaves"]["minimum"] == 2


# Following


@pytest.fixture
def follow(context_of: Any) -> Any:
    """`async with follow(SUBSCRIPTION, principal, id=…) as items`: the items of a subscription."""

    def start(query: str, principal: Any, **variables: Any) -> Any:
        async def items() -> AsyncIterator[dict[str, Any]]:
            stream = await schema.subscribe(query, variables, context_value=context_of(principal))
            async for result in stream:  # type: ignore[union-attr]
                assert result.errors is None, result.errors
                assert result.data is not None
                yield next(iter(result.data.values()))

        return aclosing(items())

    return start


async def test_follows_a_run_to_its_end_and_resumes(execute, scientist, asked, create, hand, follow):
    id = await create(asked({"numRounds": 20}))
    seen: list[dict[str, Any]] = []
    training = None
    async with follow(UPDATES, scientist, id=id) as items:
        async for item in items:
            seen.append(item)
            training = training or asyncio.create_task(train_run(hand, key(id)))
    assert training is not None
    await training

    assert (seen[0]["kind"], seen[0]["changedFields"], seen[0]["trainingRun"]["status"]) == ("SNAPSHOT", [], "QUEUED")
    assert {item["kind"] for item in seen[1:]} == {"UPDATED"}
    assert seen[-1]["trainingRun"]["status"] == "SUCCEEDED"
    assert "finishedAt" in seen[-1]["changedFields"]
    assert "name" not in seen[-1]["changedFields"]
    cursors = [item["cursor"] for item in seen]
    assert cursors == sorted(set(cursors))
    async with follow(UPDATES, scientist, id=id, after=cursors[0]) as items:
        resumed = [item async for item in items]
    assert [item["cursor"] for item in resumed] == [cursors[-1]]
    async with follow(UPDATES, scientist, id=id, after=cursors[-1]) as items:
        assert [item async for item in items] == []


async def test_follows_the_runs_a_filter_matches(execute, scientist, asked, create, follow):
    first = await create(asked(name="a1"))
    await create(asked(name="b1"))
    filter = {"name": {"startsWith": "a"}, "statuses": ["QUEUED"]}
    async with follow(UPDATES, scientist, filter=filter) as items:
        snapshot = await anext(items)
        await create(asked(name="b2"))
        second = await create(asked(name="a2"))
        created = await anext(items)
        await execute(CANCEL, principal=scientist, input={"id": first})
        left = await anext(items)
    async with follow(UPDATES, scientist, filter={"name": {"startsWith": "a"}}, after=created["cursor"]) as items:
        resumed = await anext(items)

    assert [(item["kind"], item["trainingRun"]["id"]) for item in (snapshot, created, left, resumed)] == [
        ("SNAPSHOT", first),
        ("CREATED", second),
        ("UPDATED", first),
        ("UPDATED", first),
    ]
    assert left["trainingRun"]["status"] == "CANCELED"
    assert resumed["cursor"] == left["cursor"]


async def test_a_filter_that_matches_nothing_yet_starts_with_an_empty_snapshot(scientist, asked, create, follow):
    async with follow(UPDATES, scientist, filter={"name": {"eq": "late"}}) as items:
        empty = await anext(items)
        id = await create(asked(name="late"))
        created = await anext(items)

    assert (empty["kind"], empty["trainingRun"]) == ("SNAPSHOT", None)
    assert (created["kind"], created["trainingRun"]["id"]) == ("CREATED", id)


async def test_follows_the_log_to_its_end_and_resumes(scientist, asked, create, hand, follow):
    id = await create(asked({"numRounds": 20}))
    batches: list[dict[str, Any]] = []
    training = None
    async with follow(LOGS, scientist, id=id) as items:
        async for batch in items:
            batches.append(batch)
            training = training or asyncio.create_task(train_run(hand, key(id)))
    assert training is not None
    await training
    numbers = [int(line["number"]) for batch in batches for line in batch["lines"]]
    async with follow(LOGS, scientist, id=id, after="2") as items:
        resumed = [batch async for batch in items]
    async with follow(LOGS, scientist, id=id, filter={"contains": "phase: TRAIN"}) as items:
        filtered = [batch async for batch in items]

    assert (batches[0]["kind"], batches[0]["lines"], batches[0]["finished"]) == ("SNAPSHOT", [], False)
    assert numbers == list(range(1, len(numbers) + 1))
    assert [batch["finished"] for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert {batch["droppedLines"] for batch in batches} == {"0"}
    assert [int(line["number"]) for batch in resumed for line in batch["lines"]] == numbers[2:]
    assert resumed[-1]["finished"]
    assert [line["text"] for batch in filtered for line in batch["lines"]] == ["Phase: training"]


async def test_a_stream_of_what_is_not_there_is_refused(execute, scientist, context_of):
    for query in (UPDATES, LOGS):
        stream = await schema.subscribe(query, {"id": f"run_{'0' * 32}"}, context_value=context_of(scientist))
        results = [stream] if not hasattr(stream, "__aiter__") else [result async for result in stream]
        assert [str(result.errors[0].message) for result in results] == ["There is no training run with this ID."]


async def test_the_log_takes_only_its_own_cursors(scientist, asked, create, context_of):
    id = await create(asked())
    stream = await schema.subscribe(LOGS, {"id": id, "after": "x"}, context_value=context_of(scientist))
    results = [stream] if not hasattr(stream, "__aiter__") else [result async for result in stream]
    assert results[0].errors is not None


async def test_every_change_of_state_is_an_event(asked, create, hand, db):
    id = await create(asked())

    await train_run(hand, key(id))

    async with db.reading() as session:
        events = await session.connection.fetch("SELECT type FROM events WHERE subject_id = $1 ORDER BY number", id)
        moves = await session.scalar(select(func.count()).select_from(run_transitions))
    assert [event["type"] for event in events] == ["RUN_CREATED", "RUN_STARTED", "RUN_SUCCEEDED"]
    assert moves == 4
