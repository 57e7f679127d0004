"""Which workers are there: each writes a sign of life, and health reads them."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from db import workers
from db.connections import DatabaseUnavailable
from db.database import Database
from db.ids import new_id
from monitoring.health import Degraded

EVERY_SECONDS = 2.0
GONE_AFTER_SECONDS = 10.0
_log = structlog.get_logger(__name__)


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


@asynccontextmanager
async def present(db: Database, name: str) -> AsyncIterator[None]:
    """Signs of life for as long as the block runs."""
    key = new_id()

    async def beat() -> None:
        while True:
            try:
                async with db.transaction() as session:
                    await workers.sign_of_life(session, key, name, forget_after=10 * GONE_AFTER_SECONDS)
            except DatabaseUnavailable as error:
                _log.warning("no sign of life written", error=str(error))
            await asyncio.sleep(EVERY_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
        with suppress(DatabaseUnavailable):
            async with db.transaction() as session:
                await workers.sign_off(session, key)


async def check_workers(db: Database) -> None:
    """Raises `Degraded` when no worker gave a sign of life lately: jobs wait then."""
    async with db.reading() as session:
        if not await workers.present(session, within=GONE_AFTER_SECONDS):
            raise Degraded("No worker is running: uploads and training runs wait. Start one with `headai worker`.")
