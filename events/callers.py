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
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from auth.principals import Principal
from db import access, api_tokens, grants, presence
from db.connections import DatabaseUnavailable
from db.database import Collided, Database
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
        self._new: set[UUID | bytes] = set()
        self._new_readers: set[UUID] = set()
        self._news = asyncio.Event()
        self._looking = asyncio.Lock()
        self._process = new_id()
        self._told: dict[UUID, int] = {}
        self._told_at: float | None = None
        self._watching: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._watching = [asyncio.create_task(self._watch()), asyncio.create_task(self._watch_news())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
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
        self._new.add(credential)
        self._news.set()
        try:
            yield
        finally:
            self._open[credential].discard(ended)
            if not self._open[credential]:
                del self._open[credential]
            self._news.set()

    @contextlib.contextmanager
    def following(self, principal: Principal, moved: Callable[[Principal], None]) -> Iterator[None]:
        """While a stream of this caller is open; `moved` is told the caller anew when the grants have changed.

        Also when they changed just before: they are looked up again at once.
        """
        stream = _Stream(principal, moved)
        self._streams[principal.user_id].add(stream)
        self._new_readers.add(principal.user_id)
        self._news.set()
        try:
            yield
        finally:
            self._streams[principal.user_id].discard(stream)
            if not self._streams[principal.user_id]:
                del self._streams[principal.user_id]

    async def _watch(self) -> None:
        """Look at everybody, whenever somebody rings or it is time."""
        with self._wakeups.watching(CALLERS) as self._bell:
            while True:
                await self._bell.wait(self._until_next_look())
                await self._look(list(self._open), list(self._streams))

    async def _watch_news(self) -> None:
        """Look at those who came since the last look, and count those who went."""
        while True:
            await self._news.wait()
            self._news.clear()
            credentials, readers = list(self._new), list(self._new_readers)
            self._new.clear()
            self._new_readers.clear()
            await self._look(credentials, readers)
            if self._bell is not None and self._first_end(readers) is not None:
                self._bell.ring()  # whoever looks at everybody has to wake in time for that end

    async def _look(self, credentials: Sequence[UUID | bytes], readers: Sequence[UUID]) -> None:
        """One look after the other, so that what an older one read never comes after a newer one."""
        try:
            async with self._looking:
                await self._end_those_that_are_over(credentials)
                await self._tell_those_whose_rights_moved(readers)
                await self._tell_how_many_are_open()
        except (DatabaseUnavailable, Collided):
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
        first = self._first_end(self._streams)
        if first is None:
            return self._wakeups.patience
        return min(self._wakeups.patience, max(_SOONEST_LOOK, (first - datetime.now(UTC)).total_seconds()))

    def _first_end(self, readers: Iterable[UUID]) -> datetime | None:
        """When the first of the grants of these readers ends by itself."""
        ends = (
            grant.expires_at
            for user_id in readers
            for stream in self._streams.get(user_id, ())
            for grant in stream.principal.grants
            if grant.expires_at is not None
        )
        return min(ends, default=None)

    async def _tell_those_whose_rights_moved(self, asked: Sequence[UUID]) -> None:
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

    async def _end_those_that_are_over(self, asked: Sequence[UUID | bytes]) -> None:
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
