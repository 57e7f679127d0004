"""The job queue: a job exists exactly when the row it is about does, and is done by whoever takes it first.

Jobs are asked for in the transaction that makes their row. A job whose worker died is taken by another one after
`ABANDONED_AFTER`; so a job may be done twice, and what it does has to bear that.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

import asyncpg
import structlog
from pgqueuer import models
from pgqueuer.adapters.persistence.qb import QueryQueueBuilder
from pgqueuer.core.qm import QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.errors import RetryRequested
from pgqueuer.queries import Queries

from db.connections import DatabaseUnavailable
from db.database import Session

ABANDONED_AFTER = timedelta(seconds=6)
_LOOK_EVERY = timedelta(seconds=2)
_RECONNECT_SECONDS = 1.0
_AGAIN_AFTER = timedelta(seconds=2)
_log = structlog.get_logger(__name__)


class Job(StrEnum):
    """What a worker can be asked to do; the payload is the key of the row it is about."""

    PROCESS_VERSION = "process_version"
    TRAIN_RUN = "train_run"
    PREDICT_BATCH = "predict_batch"
    EXAMINE_MODEL = "examine_model"


async def enqueue(session: Session, job: Job, key: UUID, *, once: str | None = None) -> None:
    """Ask for a job in the caller's transaction; with `once`, unless one so named already waits or runs."""
    asked = _ENQUEUE_ONCE if once else _ENQUEUE
    await session.connection.execute(asked, [0], [str(job)], [key.bytes], [timedelta(0)], [once], [None])


_ENQUEUE = QueryQueueBuilder().build_enqueue_query("raise")
_ENQUEUE_ONCE = QueryQueueBuilder().build_enqueue_query("skip")
"""pgqueuer's own statements, with its parameters: it writes JSON as text, which our connections do not take."""


async def serve(
    database_url: str, job: Job, do: Callable[[UUID], Awaitable[None]], *, at_once: int, stop: asyncio.Event
) -> None:
    """Do jobs of one kind, `at_once` at the most, until `stop` is set; then those at work are cancelled and awaited.

    A job that was cancelled, or that found no database, goes back into the queue; one that raises anything else is
    logged and dropped. The connection is the queue's own: while PostgreSQL is away the jobs at work go on, and are
    found again afterwards.
    """
    at_work: dict[UUID, asyncio.Task[None]] = {}
    cancelled: set[asyncio.Task[None]] = set()
    places = asyncio.Semaphore(at_once)

    async def in_turn(key: UUID) -> None:
        async with places:
            await do(key)

    async def take(key: UUID, lost: asyncio.Event) -> None:
        """Join the job if it is at work here already; leave it at work when the connection is lost."""
        if stop.is_set():
            raise RetryRequested(timedelta(0), "the worker was stopped")
        task = at_work.get(key)
        if task is None:
            task = at_work[key] = asyncio.create_task(in_turn(key))
            task.add_done_callback(lambda _: at_work.pop(key, None))
        gone = asyncio.create_task(lost.wait())
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not task.done():
            return
        if task.cancelled():
            raise RetryRequested(timedelta(0), "the worker was stopped")
        error = task.exception()
        if isinstance(error, DatabaseUnavailable):
            raise RetryRequested(_AGAIN_AFTER, "the database was away")
        if error is not None:
            raise error

    async def cancel_when_stopped() -> None:
        await stop.wait()
        cancel()

    def cancel() -> None:
        """Once each: a job that is cancelled may take a moment to leave things in order."""
        for task in set(at_work.values()) - cancelled:
            cancelled.add(task)
            task.cancel()

    cancelling = asyncio.create_task(cancel_when_stopped())
    try:
        while not stop.is_set():
            try:
                await _serve_connected(database_url, job, take, at_once=at_once, stop=stop)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                _log.warning("the job queue cannot be reached", job=job, error=str(error) or type(error).__name__)
            except Exception:
                _log.exception("the job queue failed", job=job)
            with suppress(TimeoutError):
                async with asyncio.timeout(_RECONNECT_SECONDS):
                    await stop.wait()
    finally:
        cancelling.cancel()
        cancel()
        await asyncio.gather(*at_work.values(), return_exceptions=True)


async def _serve_connected(
    database_url: str,
    job: Job,
    take: Callable[[UUID, asyncio.Event], Awaitable[None]],
    *,
    at_once: int,
    stop: asyncio.Event,
) -> None:
    """Serve over one connection, until it is lost or `stop` is set."""
    connection = await asyncpg.connect(
        database_url, timeout=5, command_timeout=30, server_settings={"application_name": "headai jobs"}
    )
    manager = QueueManager(Queries(AsyncpgDriver(connection)))
    lost = asyncio.Event()

    def on_loss(_: object) -> None:
        lost.set()
        manager.shutdown.set()

    async def on_stop() -> None:
        """Also looks itself whether the connection is closed: a job must never wait for one that nobody told of."""
        while not stop.is_set() and not connection.is_closed():
            with suppress(TimeoutError):
                async with asyncio.timeout(_RECONNECT_SECONDS):
                    await stop.wait()
        if not stop.is_set():
            lost.set()
        manager.shutdown.set()

    async def entry(queued: models.Job) -> None:
        if queued.payload is not None:
            await take(UUID(bytes=queued.payload), lost)

    connection.add_termination_listener(on_loss)
    manager.entrypoint(job)(entry)
    stopping = asyncio.create_task(on_stop())
    try:
        await manager.run(
            dequeue_timeout=_LOOK_EVERY,
            batch_size=1,
            max_concurrent_tasks=max(2, at_once),
            heartbeat_timeout=ABANDONED_AFTER,
        )
    finally:
        stopping.cancel()
        connection.remove_termination_listener(on_loss)
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await connection.close(timeout=2)
