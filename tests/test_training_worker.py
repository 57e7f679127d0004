"""Training runs done by worker processes that are stopped, killed and started again."""

import asyncio
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from db.tables import artifacts, metric_series, run_attempts, run_logs, run_transitions, training_runs
from tests.at_work import bell_of, look_at, queued_run
from tests.test_training import CANCEL, key, steps_of


@pytest.fixture
def run_to_train(db: Any, store: Any, execute: Any, scientist: Any, project: Any, tmp_path: Path) -> Any:
    return partial(queued_run, db, store, execute, scientist, project, tmp_path)


@pytest.fixture
def look(execute: Any, scientist: Any) -> Any:
    return partial(look_at, execute, scientist)


async def test_a_run_outlives_a_worker_that_is_killed(services, db, start_worker, run_to_train, look):
    id = await run_to_train(rounds=400)
    first = await start_worker()
    async with bell_of(services, id) as until:
        before = await until(lambda: steps_of(db, id, "valid.auc"))
        children = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, 10)
        await start_worker()

        async def is_over() -> Any:
            run = await look(id)
            return run if run["finishedAt"] else None

        run = await until(is_over)

    assert len(before) < 400
    assert alive == [], "the template and its children end with their worker"
    assert run["status"] == "SUCCEEDED"
    assert [(a["status"], a["failure"]) for a in run["attempts"]] == [
        ("LOST", {"code": "WORKER_LOST"}),
        ("SUCCEEDED", None),
    ]
    assert [t["to"] for t in run["transitions"]][3:5] == ["LOST", "QUEUED"]
    assert await steps_of(db, id, "valid.auc") == list(range(400))
    numbers = [int(line["number"]) for line in run["logs"]["nodes"]]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_worker_that_sleeps_longer_than_its_lease_writes_nothing_more(
    services, db, start_worker, run_to_train, look
):
    id = await run_to_train(rounds=1000)
    sleeper = await start_worker()
    async with bell_of(services, id) as until:
        await until(lambda: steps_of(db, id, "valid.auc"))
        sleeper.send_signal(signal.SIGSTOP)
        await start_worker()

        async def is_over() -> Any:
            run = await look(id)
            return run if run["finishedAt"] else None

        run = await until(is_over)
        before = await everything_of(db, id)
        sleeper.send_signal(signal.SIGCONT)
        sleeper.terminate()
        assert await sleeper.wait() == 0
        after = await everything_of(db, id)

    assert run["status"] == "SUCCEEDED"
    assert [(a["status"], a["failure"]) for a in run["attempts"]] == [
        ("LOST", {"code": "WORKER_LOST"}),
        ("SUCCEEDED", None),
    ]
    assert after == before
    assert await steps_of(db, id, "valid.auc") == list(range(1000))


async def everything_of(db: Any, id: str) -> list[Any]:
    """Every row that a worker writes about a run."""
    found: list[Any] = []
    async with db.reading() as session:
        found += await session.records(select(training_runs).where(training_runs.c.id == key(id)))
        for table in (run_attempts, run_transitions, run_logs, artifacts):
            found += await session.records(select(table).where(table.c.run_id == key(id)).order_by(*table.primary_key))
        series = select(metric_series).where(metric_series.c.run_id == key(id)).order_by(metric_series.c.id)
        found += await session.records(series)
    return found


async def test_a_worker_that_is_told_to_stop_hands_its_run_back(services, db, start_worker, run_to_train, look):
    id = await run_to_train(rounds=400)
    first = await start_worker()
    async with bell_of(services, id) as until:
        await until(lambda: steps_of(db, id, "valid.auc"))
        first.terminate()
        assert await first.wait() == 0
        handed_back = await look(id)
        await start_worker()

        async def is_over() -> Any:
            run = await look(id)
            return run if run["finishedAt"] else None

        run = await until(is_over)

    assert (handed_back["status"], handed_back["statusReason"]) == ("QUEUED", "Its worker was stopped.")
    assert run["status"] == "SUCCEEDED"
    assert [(a["status"], a["failure"]) for a in run["attempts"]] == [("LOST", None), ("SUCCEEDED", None)]
    assert await steps_of(db, id, "valid.auc") == list(range(400))


async def test_a_child_that_is_killed_from_outside_is_a_loss_not_a_failure(
    services, db, start_worker, run_to_train, look
):
    id = await run_to_train(rounds=200)
    worker = await start_worker()
    async with bell_of(services, id) as until:
        await until(lambda: steps_of(db, id, "valid.auc"))
        (template,) = psutil.Process(worker.pid).children()
        (child,) = template.children()
        os.kill(child.pid, signal.SIGKILL)

        async def is_over() -> Any:
            run = await look(id)
            return run if run["finishedAt"] else None

        run = await until(is_over)

    assert run["status"] == "SUCCEEDED"
    assert [(a["status"], a["failure"]) for a in run["attempts"]] == [
        ("LOST", {"code": "WORKER_LOST"}),
        ("SUCCEEDED", None),
    ]


async def test_poison_runs_fail_after_their_attempts_and_stop_nobody(
    services, db, store, execute, scientist, start_worker, run_to_train, look
):
    poisoned = [await run_to_train(rounds=5, repeat=1) for _ in range(4)]
    async with db.transaction() as session:
        keys = [r["data_key"] for r in await session.connection.fetch("SELECT data_key FROM dataset_versions")]
        await session.connection.execute("UPDATE training_runs SET spec = jsonb_set(spec, '{max_attempts}', '3')")
    for data in keys:
        await store.write(data, b"PAR1" + bytes(1000) + b"PAR1", "application/vnd.apache.parquet")
    good = await run_to_train(rounds=50, repeat=1)
    await start_worker()
    ended = []
    for id in (good, *poisoned):
        async with bell_of(services, id) as until:

            async def is_over(id: str = id) -> Any:
                run = await look(id)
                return run if run["finishedAt"] and run["status"] != "QUEUED" else None

            ended.append(await until(is_over))

    assert [run["status"] for run in ended] == ["SUCCEEDED"] + 4 * ["FAILED"]
    for run in ended[1:]:
        assert [a["failure"] for a in run["attempts"]] == 3 * [{"code": "INTERNAL"}]


async def test_a_cancellation_reaches_a_worker_process(
    services, db, execute, scientist, start_worker, run_to_train, look
):
    id = await run_to_train(rounds=100_000)
    await start_worker()
    async with bell_of(services, id) as until:
        await until(lambda: steps_of(db, id, "valid.auc"))
        await execute(CANCEL, principal=scientist, input={"id": id})

        async def is_over() -> Any:
            run = await look(id)
            return run if run["finishedAt"] else None

        run = await until(is_over)

    assert run["status"] == "CANCELED"
    assert [artifact["path"] for artifact in run["artifacts"]["nodes"]] == [
        "manifest.json",
        "model.txt",
        "model_card.md",
    ]
