"""PostgreSQL, Valkey and SeaweedFS together, over one folder: what `headai up` and the tests start.

async with EmbeddedStack(home) as servers:
    await connect(servers.database_url, servers.redis_url, servers.s3)
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Self

from embedded.home import EmbeddedServerError, Home
from embedded.postgres import Identity, Postgres
from embedded.seaweed import S3Access, Seaweed
from embedded.server import Server
from embedded.valkey import Valkey

__all__ = ["EmbeddedServerError", "EmbeddedStack", "S3Access", "Server"]


class EmbeddedStack:
    """The wanted servers, running inside `async with`; the folder belongs to one stack at a time.

    Entering raises `EmbeddedServerError` with what to change. Data, passwords and ports stay in `home`.
    """

    def __init__(
        self,
        home: Path,
        want_postgres: bool = True,
        want_valkey: bool = True,
        want_seaweed: bool = True,
        *,
        postgres_identity: Identity | None = None,
    ) -> None:
        self._home = Home(home)
        self._postgres = Postgres(self._home, identity=postgres_identity)
        self._valkey = Valkey(self._home)
        self._seaweed = Seaweed(self._home)
        wanted = ((self._postgres, want_postgres), (self._valkey, want_valkey), (self._seaweed, want_seaweed))
        self.servers: tuple[Server, ...] = tuple(server for server, is_wanted in wanted if is_wanted)

    @property
    def database_url(self) -> str:
        """postgresql://user:password@host:port/database"""
        return self._postgres.url

    @property
    def redis_url(self) -> str:
        return self._valkey.url

    @property
    def s3(self) -> S3Access:
        return self._seaweed.access

    def hold(self) -> None:
        """Take hold of the folder, until `stop()`; `start()` does it when it was not done before."""
        self._home.lock()

    async def start(self, started: Callable[[Server], None] = lambda server: None) -> None:
        """Start every server; `started` is told of each one. All or nothing."""
        self.hold()

        async def start(server: Server) -> None:
            await server.start()
            started(server)

        try:
            async with asyncio.TaskGroup() as group:
                for server in self.servers:
                    group.create_task(start(server))
        except BaseException as error:
            await self.stop()
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def stop(self) -> None:
        """Stop every server, then let go of the folder."""
        try:
            await asyncio.gather(*(server.stop() for server in self.servers))
        finally:
            self._home.unlock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
