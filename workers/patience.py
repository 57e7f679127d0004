"""Jobs that wait for a store or a database that is away, and let go of what they hold when they are cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

import structlog

from db.connections import DatabaseUnavailable
from db.database import Session
from storage.objects import StoreUnavailable
from workers.worker import Worker

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
_log = structlog.get_logger(__name__)


async def patiently(
    worker: Worker,
    id: UUID,
    lease: UUID,
    attempt: Callable[[Worker, UUID, UUID], Awaitable[None]],
    release: Callable[[Session, UUID, UUID], Awaitable[object]],
    *,
    what: str,
) -> None:
    """Attempt until it ends; cancelled, release the lease, so that it is as if it had not been tried."""
    pause = FIRST_PAUSE
    try:
        while True:
            try:
                await attempt(worker, id, lease)
            except (StoreUnavailable, DatabaseUnavailable) as error:
                _log.warning("waiting", what=what, id=id.hex, error=str(error))
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
    except asyncio.CancelledError:
        await asyncio.shield(_let_go(worker, id, lease, release))
        raise


async def _let_go(
    worker: Worker, id: UUID, lease: UUID, release: Callable[[Session, UUID, UUID], Awaitable[object]]
) -> None:
    with suppress(DatabaseUnavailable):
        async with worker.db.transaction() as session:
            await release(session, id, lease)
