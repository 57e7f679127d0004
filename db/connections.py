"""Connections to PostgreSQL, lent for one block each.

asyncpg's pool makes, counts and closes them. To take one from it and to give it back costs as much as a small statement
(two futures, a task and a turn of the loop), so a connection that comes back in order stays at hand for the next block,
unless somebody waits for the pool.
"""

from types import TracebackType
from typing import Any

import asyncpg

WAIT_SECONDS = 10.0
UNREACHABLE = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.CannotConnectNowError,
               asyncpg.AdminShutdownError, asyncpg.CrashShutdownError, asyncpg.TooManyConnectionsError,
               asyncpg.InternalClientError, asyncpg.IdleInTransactionSessionTimeoutError)  # fmt: skip


class DatabaseUnavailable(Exception):
    """PostgreSQL cannot be reached, or refused the connection. Trying again later may help."""


class Connections:
    """What one pool lends."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._at_hand: list[Any] = []
        self._waiting = 0

    def lent(self) -> "Lent":
        """`async with connections.lent() as connection`; raises `DatabaseUnavailable` at its begin and at its end."""
        return Lent(self)

    async def close(self) -> None:
        """Close them all once nobody has one."""
        while self._at_hand:
            await self._pool.release(self._at_hand.pop())
        await self._pool.close()

    async def take(self) -> Any:
        while self._at_hand:
            connection = self._at_hand.pop()
            if not _is_gone(connection):
                return connection
            await self._pool.release(connection)
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=WAIT_SECONDS)
        finally:
            self._waiting -= 1

    def keep(self, connection: Any) -> bool:
        """Whether the connection stays at hand; if not, it has to be released."""
        if self._waiting or _is_gone(connection):
            return False
        self._at_hand.append(connection)
        return True

    async def release(self, connection: Any) -> None:
        await self._pool.release(connection)


class Lent:
    """A connection for the length of a block."""

    __slots__ = ("_connection", "_connections")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def __aenter__(self) -> Any:
        try:
            self._connection = await self._connections.take()
        except UNREACHABLE as error:
            raise _unavailable(error) from error
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._connections.keep(self._connection):
            return
        try:
            if isinstance(error, asyncpg.InternalClientError):
                self._connection.terminate()  # a server that was killed left it in the middle of something
            await self._connections.release(self._connection)
        except UNREACHABLE as trouble:
            raise _unavailable(trouble) from trouble
        if isinstance(error, UNREACHABLE):
            raise _unavailable(error) from error


def _is_gone(connection: Any) -> bool:
    """Whether it was closed. The pool takes a connection back that the server closed, and then it says nothing more."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


def _unavailable(error: BaseException) -> DatabaseUnavailable:
    return DatabaseUnavailable(str(error) or type(error).__name__)
