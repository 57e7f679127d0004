"""What every worker sees to beside its jobs: work that another one left behind, and what is too old to be kept."""

import asyncio
import time
from contextlib import suppress
from functools import partial

import structlog

from db import access, api_tokens, idempotency, leases, predictions, run_logs
from db.connections import DatabaseUnavailable
from db.jobs import Job, enqueue
from db.metrics import batches
from domain import external
from domain.events import AT_ONCE, forget_old_events
from domain.metrics import forget_old_points
from domain.training import LOST_AFTER, lose_silent
from workers.datasets import delete_unowned_objects, end_expired_uploads, requeue_stranded
from workers.operations import requeue_stranded as requeue_operations
from workers.worker import Worker

EVERY_SECONDS = 2.0
STOOD_STILL_SECONDS = 3.0
FORGET_EVERY_SECONDS = 60.0
_log = structlog.get_logger(__name__)


async def sweep(worker: Worker, stop: asyncio.Event) -> None:
    """Queue again what lost its worker, and what is queued without a job, until `stop` is set.

    While the database is away, or stands still, nobody can give a sign of life, so nobody is given up on until some
    time after.
    """
    patient_until = 0.0
    while not stop.is_set():
        try:
            if time.monotonic() >= patient_until:
                await sweep_once(worker)
        except DatabaseUnavailable as error:
            patient_until = time.monotonic() + LOST_AFTER.total_seconds()
            _log.warning("cannot look for lost runs", error=str(error))
        await _pause(EVERY_SECONDS, stop)


async def sweep_once(worker: Worker) -> None:
    began = time.monotonic()
    async with worker.db.reading() as session:
        silent = await leases.silent(session, since=LOST_AFTER)
        forgotten = await leases.without_job(session)
        scripts = await leases.silent_external(
            session, at_work_since=external.LOST_AFTER, lost_since=external.GIVEN_UP_AFTER
        )
    waited = time.monotonic() - began
    if waited > STOOD_STILL_SECONDS:
        raise DatabaseUnavailable(f"It took {waited:.0f} s to answer; workers could give no sign of life either.")
    for run_id in scripts:
        async with worker.db.transaction() as session:
            await external.give_up_silent(session, run_id)
    for run_id in silent:
        async with worker.db.transaction() as session:
            if await lose_silent(session, run_id):
                _log.warning("a run lost its worker", run=run_id.hex)
    for run_id in forgotten:
        async with worker.db.transaction() as session:
            await enqueue(session, Job.TRAIN_RUN, run_id, once=f"run:{run_id.hex}")
    await requeue_stranded(worker)
    await requeue_operations(worker)
    await end_expired_uploads(worker)
    await delete_unowned_objects(worker)


async def forget(worker: Worker, stop: asyncio.Event) -> None:
    """Delete what is too old, about once a minute, until `stop` is set."""
    while not stop.is_set():
        try:
            await forget_once(worker)
        except DatabaseUnavailable as error:
            _log.warning("cannot delete what is old", error=str(error))
        await _pause(FORGET_EVERY_SECONDS, stop)


async def forget_once(worker: Worker) -> None:
    """Events, predictions, keys, batches, sessions and tokens, ten thousand a transaction; points of some series."""
    for forget_some in (
        partial(forget_old_events, keep=worker.event_retention),
        partial(predictions.forget_old, limit=AT_ONCE),
        partial(idempotency.forget_old, limit=AT_ONCE),
        partial(run_logs.forget_old_batches_of_lines, limit=AT_ONCE),
        partial(batches.forget_old, limit=AT_ONCE),
        partial(access.forget_old_sessions, limit=AT_ONCE),
        partial(access.forget_old_refresh_tokens, limit=AT_ONCE),
        partial(api_tokens.forget_old_secrets, limit=AT_ONCE),
    ):
        forgotten = AT_ONCE
        while forgotten == AT_ONCE:
            async with worker.db.transaction() as session:
                forgotten = await forget_some(session)
    if worker.metric_retention is not None:
        more = True
        while more:
            async with worker.db.transaction() as session:
                more = await forget_old_points(session, keep=worker.metric_retention)


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
