"""Runs that are trained outside, as their scripts report them through the API."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, update

from db.ids import Kind, global_id, key_of
from db.tables import training_runs
from domain.external import GIVEN_UP_AFTER, LOST_AFTER
from ml.processes import Template
from tests.test_training import CANCEL, CREATE
from workers.sweeping import sweep_once
from workers.worker import Worker

REPORT = """
mutation ($input: ReportRunInput!) {
  reportRun(input: $input) {
    trainingRun { status statusReason progress { fraction phase } failure { code message } }
    cancelRequested
    errors { __typename code message path ... on ValidationError { allowed }
      ... on InvalidStateError { currentState allowedStates } }
  }
}
"""
APPEND = """
mutation ($input: AppendRunLogsInput!) {
  appendRunLogs(input: $input) {
    appended lastNumber errors { __typename code path ... on InvalidStateError { currentState } }
  }
}
"""
INGEST = """
mutation ($input: IngestMetricsInput!) { ingestMetrics(input: $input) { accepted duplicates errors { code message } } }
"""
RUN = """
query ($id: ID!) {
  trainingRun(id: $id) {
    status statusReason params { name value explicit } datasetVersion { id }
    transitions { from to attempt reason actor { ... on User { username } ... on SystemActor { component } } }
    attempts { number status worker failure { code } } progress { fraction phase } failure { code message retryable }
    logs { nodes { number level stream attempt text } } summary { name last { step value } count }
    startedAt finishedAt heartbeatAt
  }
}
"""
SPEC = {"task": "BINARY_CLASSIFICATION", "algorithm": "EXTERNAL", "params": {"depth": 3, "solver": "lbfgs"}}
Report = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def run(execute, scientist, project) -> str:
    input = {"projectId": global_id(Kind.PROJECT, project.id), "name": "outside", "spec": SPEC}
    made = await execute(CREATE, principal=scientist, input=input)
    assert made["data"]["createTrainingRun"]["errors"] == []
    return made["data"]["createTrainingRun"]["trainingRun"]["id"]


@pytest.fixture
def report(execute, scientist, run) -> Report:
    async def send(**said: Any) -> dict[str, Any]:
        answer = await execute(REPORT, principal=scientist, input={"id": run, **said})
        assert "errors" not in answer, answer
        return answer["data"]["reportRun"]

    return send


@pytest.fixture
def look(execute, scientist, run) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def look() -> dict[str, Any]:
        return (await execute(RUN, principal=scientist, id=run))["data"]["trainingRun"]

    return look


@pytest.fixture
def sweep(db, store, services, tmp_path):
    """Look for silent runs once, as if a script had been silent for so long."""

    async def sweep(run: str, silence: timedelta) -> None:
        async with db.transaction() as session:
            moment = func.clock_timestamp() - silence
            await session.run(
                update(training_runs).where(training_runs.c.id == key_of(run, Kind.RUN)).values(heartbeat_at=moment)
            )
        await sweep_once(
            Worker(
                db=db,
                store=store,
                wakeups=services.wakeups,
                name="sweeper",
                scratch=tmp_path,
                run_memory_limit_mb=1000,
                children=Template(),
            )
        )

    return sweep


def steps_of(run: dict[str, Any]) -> list[Any]:
    return [(t["from"], t["to"], t["attempt"]) for t in run["transitions"]]


async def test_a_script_reports_its_run_from_the_first_sign_to_the_end(report, look):
    assert (await look())["status"] == "QUEUED"

    begun = await report(status="RUNNING")
    assert begun == {
        "trainingRun": {
            "status": "RUNNING",
            "statusReason": None,
            "progress": {"fraction": None, "phase": "training"},
            "failure": None,
        },
        "cancelRequested": False,
        "errors": [],
    }
    halfway = await report(fraction=0.5, phase="fold 2", message="Half of it is done.")
    assert halfway["trainingRun"]["progress"] == {"fraction": 0.5, "phase": "fold 2"}
    ended = await report(status="SUCCEEDED", message="AUC 0.99")
    assert (ended["trainingRun"]["status"], ended["trainingRun"]["statusReason"]) == ("SUCCEEDED", "AUC 0.99")

    run = await look()
    assert steps_of(run) == [
        (None, "QUEUED", 0),
        ("QUEUED", "STARTING", 1),
        ("STARTING", "RUNNING", 1),
        ("RUNNING", "SUCCEEDED", 1),
    ]
    assert [t["actor"] for t in run["transitions"]] == [{"username": "sam"}] * 4
    assert run["attempts"] == [{"number": 1, "status": "SUCCEEDED", "worker": "external", "failure": None}]
    assert run["progress"] == {"fraction": 1.0, "phase": "finished"}
    assert run["params"] == [
        {"name": "depth", "value": 3, "explicit": True},
        {"name": "solver", "value": "lbfgs", "explicit": True},
    ]
    assert run["datasetVersion"] is None
    assert [(n["level"], n["stream"], n["text"]) for n in run["logs"]["nodes"]] == [
        ("INFO", "SYSTEM", "Half of it is done.")
    ]
    assert None not in (run["startedAt"], run["finishedAt"], run["heartbeatAt"])


async def test_the_same_end_twice_is_as_good_as_once_and_another_end_is_refused(report, look):
    await report(status="FAILED", message="No convergence.")
    before = await look()

    again = await report(status="FAILED", message="No convergence.")
    other = await report(status="SUCCEEDED")

    assert again["errors"] == []
    assert again["trainingRun"]["status"] == "FAILED"
    error = other["errors"][0]
    assert (error["__typename"], error["code"], error["currentState"]) == (
        "InvalidStateError",
        "INVALID_STATE",
        "FAILED",
    )
    assert other["trainingRun"] is None
    assert await look() == before
    assert before["failure"] == {"code": "INTERNAL", "message": "No convergence.", "retryable": True}


@pytest.mark.parametrize(
    ("said", "path", "code"),
    [
        ({"status": "LOST"}, ["input", "status"], "INVALID"),
        ({"status": "QUEUED"}, ["input", "status"], "INVALID"),
        ({"fraction": 1.5}, ["input", "fraction"], "OUT_OF_RANGE"),
        ({"phase": "x" * 101}, ["input", "phase"], "TOO_LONG"),
        ({"message": "a\x00b"}, ["input", "message"], "INVALID"),
    ],
)
async def test_what_a_script_cannot_report_changes_nothing(report, look, said, path, code):
    before = await look()

    refused = await report(**said)

    assert [(e["path"], e["code"]) for e in refused["errors"]] == [(path, code)]
    assert (refused["trainingRun"], refused["cancelRequested"]) == (None, False)
    assert await look() == before


async def test_a_cancellation_is_the_answer_to_the_next_report(execute, scientist, run, report, look):
    await report(status="RUNNING")
    canceled = await execute(CANCEL, principal=scientist, input={"id": run, "reason": "Enough."})
    assert canceled["data"]["cancelTrainingRun"]["trainingRun"]["status"] == "CANCELING"

    assert (await report(fraction=0.3))["cancelRequested"] is True
    assert (await report(status="CANCELED"))["trainingRun"]["status"] == "CANCELED"

    assert steps_of(await look())[-2:] == [("RUNNING", "CANCELING", 1), ("CANCELING", "CANCELED", 1)]
    assert (await look())["statusReason"] == "Enough."


async def test_a_run_that_is_canceled_by_force_is_over_at_once_and_its_script_hears_of_it(
    execute, scientist, run, report, look
):
    await report(status="RUNNING")

    canceled = await execute(CANCEL, principal=scientist, input={"id": run, "force": True})

    assert canceled["data"]["cancelTrainingRun"]["trainingRun"]["status"] == "CANCELED"
    late = await report(fraction=0.3)
    assert (late["cancelRequested"], late["errors"]) == (True, [])
    assert (await report(status="SUCCEEDED"))["errors"][0]["currentState"] == "CANCELED"
    assert (await look())["progress"]["fraction"] is None


async def test_only_long_silence_loses_a_run_and_any_sign_of_life_brings_it_back(
    execute, scientist, project, run, report, look, sweep
):
    await report(status="RUNNING", fraction=0.2)
    await sweep(run, LOST_AFTER / 2)
    assert (await look())["status"] == "RUNNING", "a script may be slower than a worker"

    await sweep(run, LOST_AFTER * 2)
    lost = await look()
    assert (lost["status"], lost["attempts"][0]["status"]) == ("LOST", "LOST")
    assert lost["transitions"][-1]["actor"] == {"component": "worker"}

    points = {"runId": run, "name": "loss", "steps": [0], "values": [0.5]}
    sent = await execute(
        INGEST, principal=scientist, input={"projectId": global_id(Kind.PROJECT, project.id), "series": [points]}
    )
    assert sent["data"]["ingestMetrics"]["accepted"] == 1
    assert (await look())["status"] == "RUNNING"

    await sweep(run, LOST_AFTER * 2)
    await execute(APPEND, principal=scientist, input={"id": run, "lines": [{"text": "here"}]})
    assert (await look())["status"] == "RUNNING"

    await sweep(run, LOST_AFTER * 2)
    assert (await report(fraction=0.3))["trainingRun"]["status"] == "RUNNING"
    assert (await look())["attempts"] == [{"number": 1, "status": "RUNNING", "worker": "external", "failure": None}]


async def test_a_run_that_stays_lost_fails(run, report, look, sweep):
    await report(status="RUNNING")
    await sweep(run, LOST_AFTER * 2)

    await sweep(run, GIVEN_UP_AFTER * 2)

    over = await look()
    assert (over["status"], over["failure"]["code"]) == ("FAILED", "WORKER_LOST")
    assert over["attempts"][0]["failure"] == {"code": "WORKER_LOST"}
    assert (await report(fraction=0.4))["errors"][0]["code"] == "INVALID_STATE"


async def test_a_batch_of_lines_counts_once(execute, scientist, run, report, look):
    await report(status="RUNNING")
    lines = [
        {"text": "epoch 1", "at": "2026-01-31T12:00:00.000Z"},
        {"text": "a warning", "level": "ERROR", "stream": "STDERR"},
    ]
    input = {"id": run, "lines": lines, "batchId": "one"}

    first = await execute(APPEND, principal=scientist, input=input)
    again = await execute(APPEND, principal=scientist, input=input)
    other = await execute(APPEND, principal=scientist, input=input | {"batchId": "two", "lines": [{"text": "end"}]})

    assert first["data"]["appendRunLogs"] == {"appended": 2, "lastNumber": "2", "errors": []}
    assert again == first
    assert other["data"]["appendRunLogs"] == {"appended": 1, "lastNumber": "3", "errors": []}
    assert (await look())["logs"]["nodes"] == [
        {"number": "1", "level": "INFO", "stream": "STDOUT", "attempt": 1, "text": "epoch 1"},
        {"number": "2", "level": "ERROR", "stream": "STDERR", "attempt": 1, "text": "a warning"},
        {"number": "3", "level": "INFO", "stream": "STDOUT", "attempt": 1, "text": "end"},
    ]

    bad = await execute(APPEND, principal=scientist, input={"id": run, "lines": [{"text": "a\x00b"}]})
    assert [e["path"] for e in bad["data"]["appendRunLogs"]["errors"]] == [["input", "lines", "0", "text"]]
    await report(status="SUCCEEDED")
    late = await execute(APPEND, principal=scientist, input={"id": run, "lines": [{"text": "late"}]})
    assert late["data"]["appendRunLogs"]["errors"] == [
        {
            "__typename": "InvalidStateError",
            "code": "INVALID_STATE",
            "path": ["input", "id"],
            "currentState": "SUCCEEDED",
        }
    ]
    assert await execute(APPEND, principal=scientist, input=input) == first
    assert len((await look())["logs"]["nodes"]) == 3


async def test_a_run_that_head_ai_trains_takes_no_report_from_outside(execute, scientist, db, run, report, look):
    async with db.transaction() as session:
        spec = SPEC | {"algorithm": "LIGHTGBM"}
        await session.run(update(training_runs).values(algorithm="LIGHTGBM", spec=spec))

    refused = await report(status="RUNNING")
    lines = await execute(APPEND, principal=scientist, input={"id": run, "lines": [{"text": "x"}]})

    assert refused["errors"][0]["path"] == ["input", "id"]
    assert lines["data"]["appendRunLogs"]["errors"][0]["code"] == "INVALID"
    assert ((await look())["status"], (await look())["logs"]["nodes"]) == ("QUEUED", [])


async def test_reporting_takes_a_right_of_its_own(execute, caller, run, look):
    viewer = await caller("Viewer")

    answer = await execute(REPORT, principal=viewer, input={"id": run, "status": "RUNNING"})

    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert (await look())["status"] == "QUEUED"
