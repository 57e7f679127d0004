"""The callers with open connections and streams in this process, and what becomes of them when their rights change.

What ends or changes, anywhere, rings a topic; each process then asks once about all the sessions and secrets of tokens
it has connections of, and closes those that have ended, and once about the grants of all whose streams are open, and
tells those whose rights have moved. It asks as often as any reader whom nobody wakes, so without Redis, and after a
change that rings nobody, it takes a little longer; a grant that ends by itself is asked about in that moment. How many
connections a session has open it writes down for the others (`db.presence`).
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from auth.principals import Principal
from db import access, api_tokens, grants, presence
from db.connections import DatabaseUnavailable
from db.database import Database
from db.grants import CALLERS
from db.ids import new_id
from events.wakeups import Bell, Wakeups

_SIGN_OF_LIFE_SECONDS = 10.0
_SOONEST_LOOK = 0.05
"""How soon a grant that should be over is asked about again, in seconds: the clock of the database decides."""


class _Stream:
    """An open stream of a caller, as that caller was when the stream was last told."""

    def __init__(self, principal: Principal, moved: Callable[[Principal], None]) -> None:
        self.principal = principal
        self.moved = moved


class Callers:
    def __init__(self, db: Database, wakeups: Wakeups) -> None:
        self._db = db
        self._wakeups = wakeups
        self._open: defaultdict[UUID | bytes, set[Callable[[], None]]] = defaultdict(set)
        self._streams: defaultdict[UUID, set[_Stream]] = defaultdict(set)
        self._bell: Bell | None = None
        self._process = new_id()
        self._told: dict[UUID, int] = {}
        self._told_at: float | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._told_at is not None:
            with contextlib.suppress(DatabaseUnavailable):
                async with self._db.transaction() as session:
                    await presence.sign_off(session, self._process)

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
            if self._bell is not None:
                self._bell.ring()

    @contextlib.contextmanager
    def following(self, principal: Principal, moved: Callable[[Principal], None]) -> Iterator[None]:
        """While a stream of this caller is open; `moved` is told the caller anew when the grants have changed.

        Also when they changed just before: they are looked up again at once.
        """
        stream = _Stream(principal, moved)
        self._streams[principal.user_id].add(stream)
        if self._bell is not None:
            self._bell.ring()
        try:
            yield
        finally:
            self._streams[principal.user_id].discard(stream)
            if not self._streams[principal.user_id]:
                del self._streams[principal.user_id]

    async def _watch(self) -> None:
        with self._wakeups.watching(CALLERS) as self._bell:
            while True:
                await self._bell.wait(self._until_next_look())
                try:
                    await self._end_those_that_are_over()
                    await self._tell_those_whose_rights_moved()
                    await self._tell_how_many_are_open()
                except DatabaseUnavailable:
                    await asyncio.sleep(self._wakeups.patience)

    async def _tell_how_many_are_open(self) -> None:
        """Write how many connections each session has in this process, where that has changed, or a sign of life."""
        now = {id: len(ended) for id, ended in self._open.items() if isinstance(id, UUID)}
        moved = {id: now.get(id, 0) for id in now.keys() | self._told.keys() if now.get(id, 0) != self._told.get(id, 0)}
        time = asyncio.get_running_loop().time()
        due = self._told and self._told_at is not None and time - self._told_at >= _SIGN_OF_LIFE_SECONDS
        if not (moved or due):
            return
        async with self._db.transaction() as session:
            if not await presence.sign_of_life(session, self._process):
                moved = now
            if moved:
                await presence.write(session, self._process, moved)
        self._told, self._told_at = now, time

    def _until_next_look(self) -> float:
        """The patience of a reader, or less when a grant ends earlier."""
        ends = (
            grant.expires_at
            for streams in self._streams.values()
            for stream in streams
            for grant in stream.principal.grants
            if grant.expires_at is not None
        )
        first = min(ends, default=None)
        if first is None:
            return self._wakeups.patience
        return min(self._wakeups.patience, max(_SOONEST_LOOK, (first - datetime.now(UTC)).total_seconds()))

    async def _tell_those_whose_rights_moved(self) -> None:
        asked = list(self._streams)
        if not asked:
            return
        async with self._db.reading() as session:
            held = await grants.held_by_users(session, asked)
        for user_id in asked:
            for stream in tuple(self._streams.get(user_id, ())):
                fresh = stream.principal.holding(held.get(user_id, ()))
                if set(fresh.grants) != set(stream.principal.grants):
                    stream.principal = fresh
                    stream.moved(fresh)

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
