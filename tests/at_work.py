"""Runs that worker processes train, and how a test waits for what they do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from db.ids import Kind, global_id
from db.tables import run_logs
from tests.ready import cancer, ready_version
from tests.test_training import CREATE, RUN, key

Until = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


async def queued_run(
    db: Any, store: Any, execute: Any, principal: Any, project: Any, folder: Path, *, rounds: int, repeat: int = 20
) -> str:
    """A run of so many rounds; `repeat` makes each of them take longer."""
    version = await ready_version(db, store, project, folder, cancer(repeat=repeat))
    spec = {
        "task": "BINARY_CLASSIFICATION",
        "target": "diagnosis",
        "numRounds": rounds,
        "earlyStoppingRounds": None,
    }
    input = {
        "projectId": global_id(Kind.PROJECT, project.id),
        "datasetVersionId": global_id(Kind.DATASET_VERSION, version),
        "spec": spec,
    }
    made = await execute(CREATE, principal=principal, input=input)
    assert made["data"]["createTrainingRun"]["errors"] == []
    return str(made["data"]["createTrainingRun"]["trainingRun"]["id"])


async def look_at(execute: Any, principal: Any, id: str) -> dict[str, Any] | None:
    """The run as the API tells it; None while there is no database to ask."""
    answer = await execute(RUN, principal=principal, id=id)
    if "errors" in answer:
        assert {error["extensions"]["code"] for error in answer["errors"]} == {"UNAVAILABLE"}, answer
        return None
    return dict(answer["data"]["trainingRun"])


async def went_on(db: Any, run_id: str) -> bool:
    """Whether an attempt of the run went on from a checkpoint."""
    said = run_logs.c.text.startswith("Going on after round")
    async with db.reading() as session:
        return bool(await session.records(select(run_logs.c.number).where(run_logs.c.run_id == key(run_id), said)))


@asynccontextmanager
async def bell_of(services: Any, run_id: str) -> AsyncIterator[Until]:
    """`await until(check)`: look again whenever the run has changed, until the check answers something."""
    with services.wakeups.watching(f"run:{key(run_id).hex}", f"points:run:{key(run_id).hex}") as bell:

        async def until(check: Callable[[], Awaitable[Any]]) -> Any:
            async with asyncio.timeout(90):
                while not (found := await check()):
                    await bell.wait(1)
            return found

        yield until
