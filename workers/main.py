"""The worker process: takes jobs, does them, and hands back what it has not finished when it is told to stop."""

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import structlog

from db.database import Database
from db.jobs import Job, serve
from db.vocabulary import OperationKind
from events.wakeups import Wakeups, redis_of
from ml.processes import Template
from storage.objects import ObjectStore, StoreSettings
from workers.batches import predict_batch
from workers.datasets import process_version
from workers.examining import check_model, evaluate
from workers.operations import operate
from workers.presence import present, worker_name
from workers.sweeping import forget, sweep
from workers.training import train_run
from workers.worker import Worker

Do = Callable[[Worker, UUID], Awaitable[None]]
OPERATIONS = {
    OperationKind.BATCH_PREDICTION.value: predict_batch,
    OperationKind.EVALUATION.value: evaluate,
    OperationKind.MODEL_CHECK.value: check_model,
}
JOBS: dict[Job, Do] = {
    Job.PROCESS_VERSION: process_version,
    Job.TRAIN_RUN: train_run,
    Job.PREDICT_BATCH: partial(operate, OPERATIONS),
    Job.EXAMINE_MODEL: partial(operate, OPERATIONS),
}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Where everything is; `runs_at_once` is how many runs train here at the same time, `threads` on how many cores.

    `event_retention` is how long events stay in the log, `metric_retention` how long the points of metrics of no run
    stay (None: for ever), `checkpoint_seconds` how often a run keeps where it is.
    """

    database_url: str
    database_pool_size: int
    redis_url: str
    store: StoreSettings
    scratch: Path
    run_memory_limit_mb: int
    runs_at_once: int
    event_retention: timedelta
    metric_retention: timedelta | None
    checkpoint_seconds: float
    threads: int = os.cpu_count() or 1


async def run(settings: WorkerSettings) -> None:
    """Work until SIGTERM or SIGINT. Raises `DatabaseUnavailable` when there is no database to begin with."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await work(settings, stop)


async def work(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Take jobs until `stop` is set; then hand back the runs at work, so that another worker takes them at once."""
    async with AsyncExitStack() as stack:
        redis = redis_of(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        wakeups = await stack.enter_async_context(Wakeups(redis))
        db = await stack.enter_async_context(
            Database(settings.database_url, pool_size=settings.database_pool_size, ring=wakeups.ring)
        )
        store = await stack.enter_async_context(ObjectStore.open(settings.store))
        children = Template()
        stack.push_async_callback(children.close)
        children.start()
        scratch = settings.scratch / f"worker-{os.getpid()}"
        await asyncio.to_thread(_only_ours, scratch)
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        worker = Worker(
            db=db,
            store=store,
            wakeups=wakeups,
            name=worker_name(),
            scratch=scratch,
            run_memory_limit_mb=settings.run_memory_limit_mb,
            children=children,
            threads=settings.threads,
            event_retention=settings.event_retention,
            metric_retention=settings.metric_retention,
            checkpoint_seconds=settings.checkpoint_seconds,
        )
        await stack.enter_async_context(present(db, worker.name))
        _log.info("worker is ready", worker=worker.name)
        async with asyncio.TaskGroup() as group:
            for job, do in JOBS.items():
                group.create_task(
                    serve(settings.database_url, job, partial(do, worker), at_once=settings.runs_at_once, stop=stop)
                )
            group.create_task(sweep(worker, stop))
            group.create_task(forget(worker, stop))
        _log.info("worker has stopped", worker=worker.name)


def _only_ours(scratch: Path) -> None:
    """Make our folder, and remove those of workers of this machine that were killed."""
    scratch.mkdir(parents=True, exist_ok=True)
    for other in scratch.parent.glob("worker-*"):
        pid = other.name.removeprefix("worker-")
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(other, ignore_errors=True)
