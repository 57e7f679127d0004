"""Runs whose worker or child is killed at random rounds: each finishes once, with the model of a run left alone.

`--disturbed-runs 50` kills its way through fifty of them (`make endure`).
"""

import asyncio
import os
import random
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.at_work import bell_of, look_at, queued_run, went_on
from tests.test_training import steps_of

pytestmark = pytest.mark.slow

ROUNDS = 600


@pytest.mark.timeout(0)
async def test_runs_that_are_killed_again_and_again_finish_once_with_the_same_model(
    services, db, store, execute, scientist, project, start_worker, tmp_path: Path, pytestconfig
):
    async def over(id: str) -> Any:
        run = await look_at(execute, scientist, id)
        return run if run and run["finishedAt"] else None

    async def queued() -> str:
        return await queued_run(db, store, execute, scientist, project, tmp_path, rounds=ROUNDS)

    worker = await start_worker()
    alone = await queued()
    async with bell_of(services, alone) as until:
        undisturbed = await until(lambda: over(alone))
    assert [a["status"] for a in undisturbed["attempts"]] == ["SUCCEEDED"]

    chance = random.Random(20)
    resumed = 0
    for number in range(pytestconfig.getoption("--disturbed-runs")):
        id = await queued()
        async with bell_of(services, id) as until:
            for round_ in sorted(chance.sample(range(ROUNDS // 2), 2)):

                async def beyond(id: str = id, round_: int = round_) -> bool:
                    return len(await steps_of(db, id, "valid.auc")) > round_ or bool(await over(id))

                await until(beyond)
                if (number + round_) % 2:
                    worker.kill()
                    await worker.wait()
                    worker = await start_worker()
                else:
                    await asyncio.to_thread(_kill_child_of, worker.pid)
            run = await until(partial(over, id))
        assert (run["status"], run["failure"]) == ("SUCCEEDED", None)
        assert {a["status"] for a in run["attempts"][:-1]} <= {"LOST"}
        assert [t["to"] for t in run["transitions"]].count("SUCCEEDED") == 1
        for name in ("train.auc", "train.binary_logloss", "valid.auc", "valid.binary_logloss"):
            assert await steps_of(db, id, name) == list(range(ROUNDS))
        assert _model(run) == _model(undisturbed)
        resumed += await went_on(db, id)
    assert resumed > 0, "some went on from a checkpoint"


def _model(run: Any) -> str:
    return next(str(file["sha256"]) for file in run["artifacts"]["nodes"] if file["path"] == "model.txt")


def _kill_child_of(worker: int) -> None:
    with suppress(psutil.NoSuchProcess):
        for template in psutil.Process(worker).children():
            for child in template.children():
                os.kill(child.pid, signal.SIGKILL)
