"""A worker that is killed while it processes a version: `python -m tests.dying_worker POINT VERSION SCRATCH`."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import storage.objects
import workers.datasets
from db import datasets
from db.database import Database
from events.wakeups import Wakeups, redis_of
from headai.settings import Settings
from ml.processes import Template
from storage.objects import MIB, ObjectStore
from workers.datasets import process_version
from workers.worker import Worker

POINTS = ("fetch", "convert", "profile", "store", "finish")


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at(point: str) -> None:
    heard = workers.datasets._Progress.heard

    def heard_or_die(progress: Any, phase: str, fraction: float | None) -> None:
        heard(progress, phase, fraction)
        if phase == point:
            die()

    match point:
        case "fetch":
            storage.objects._append = die
        case "store":  # all parts of the Parquet are sent, and not joined
            storage.objects.PART_BYTES = 5 * MIB
            ObjectStore.complete_multipart = die  # type: ignore[method-assign]
        case "finish":
            datasets.finish = die
        case _:
            workers.datasets._Progress.heard = heard_or_die  # type: ignore[method-assign]


async def main(version_id: UUID, scratch: Path) -> None:
    settings = Settings.load()
    async with (
        Wakeups(redis_of(settings.redis_url)) as wakeups,
        Database(settings.database_url) as db,
        ObjectStore.open(settings.store()) as store,
    ):
        worker = Worker(
            db=db,
            store=store,
            wakeups=wakeups,
            name="dying",
            scratch=scratch,
            run_memory_limit_mb=2048,
            children=Template(),
        )
        await process_version(worker, version_id)


if __name__ == "__main__":
    dies_at(sys.argv[1])
    asyncio.run(main(UUID(hex=sys.argv[2]), Path(sys.argv[3])))
