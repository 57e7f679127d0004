"""Servers for tests: what a process is told of them, one that is killed, and a real uvicorn in this process."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import uvicorn

from db.migrate import upgrade
from embedded.server import Server
from embedded.servers import EmbeddedStack
from headai.app import create_app
from headai.leaving import Leaving
from headai.requests import MAX_FRAME_BYTES
from headai.settings import Settings
from storage.objects import ObjectStore
from tests.canaries import watched


async def settings_for(servers: EmbeddedStack, home: Path) -> Settings:
    """The settings of a process that uses these servers; the database is migrated, the bucket made."""
    made = Settings.load(
        home=home,
        database_url=servers.database_url,
        redis_url=servers.redis_url,
        s3_endpoint_url=servers.s3.endpoint_url,
        s3_region=servers.s3.region,
        s3_access_key=servers.s3.access_key,
        s3_secret_key=servers.s3.secret_key,
        login_delay=timedelta(0),
    )
    await asyncio.to_thread(upgrade, made.database_url)
    async with ObjectStore.open(made.store()) as store:
        await store.ensure_bucket()
    return made


async def kill(server: Server) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await server.exited()


@asynccontextmanager
async def served(
    settings: Settings, *, send_buffer: int | None = None, leaving: Leaving | None = None
) -> AsyncIterator[str]:
    """The API on a free port; yields `http://127.0.0.1:<port>`. `send_buffer`: bytes the kernel keeps a connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    config = uvicorn.Config(
        watched(create_app(settings, leaving or Leaving())),
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME_BYTES,
        log_config=None,
        lifespan="on",
    )
    running = uvicorn.Server(config)
    serving = asyncio.create_task(running.serve(sockets=[listener]))
    while not running.started:  # noqa: ASYNC110  (uvicorn offers no event for it)
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = True
        await serving
