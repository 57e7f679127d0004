"""The callers with open connections to this process, and the end of those whose session or API token is over.

What ends, anywhere, rings a topic; each process then asks once about all the sessions and secrets of tokens it has
connections of, and closes those that have ended. It asks as often as any reader whom nobody wakes, so without Redis,
and after a change that rings nobody, it takes a little longer.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Self
from uuid import UUID

from db import access, api_tokens
from db.connections import DatabaseUnavailable
from db.database import Database
from db.grants import CALLERS
from events.wakeups import Bell, Wakeups


class Callers:
    def __init__(self, db: Database, wakeups: Wakeups) -> None:
        self._db = db
        self._wakeups = wakeups
        self._open: defaultdict[UUID | bytes, set[Callable[[], None]]] = defaultdict(set)
        self._bell: Bell | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    @contextlib.contextmanager
    def connected(self, credential: UUID | bytes, ended: Callable[[], None]) -> Iterator[None]:
        """While a connection of a session, or of the secret with this digest, is open; `ended` is called at its end.

        Also when it ended just before: it is looked up again at once.
        """
        self._open[credential].add(ended)
        if self._bell is not None:
            self._bell.ring()
        try:
            yield
        finally:
            self._open[credential].discard(ended)
            if not self._open[credential]:
                del self._open[credential]

    async def _watch(self) -> None:
        with self._wakeups.watching(CALLERS) as self._bell:
            while True:
                await self._bell.wait(self._wakeups.patience)
                try:
                    await self._end_those_that_are_over()
                except DatabaseUnavailable:
                    await asyncio.sleep(self._wakeups.patience)

    async def _end_those_that_are_over(self) -> None:
        asked = list(self._open)
        if not asked:
            return
        async with self._db.reading() as session:
            still_open: set[UUID | bytes] = set()
            sessions = [credential for credential in asked if isinstance(credential, UUID)]
            if sessions:
                still_open |= await access.still_open(session, sessions)
            secrets = [credential for credential in asked if isinstance(credential, bytes)]
            if secrets:
                still_open |= await api_tokens.still_good(session, secrets)
        for credential in asked:
            if credential not in still_open:
                for ended in tuple(self._open.get(credential, ())):
                    ended()
