"""The shapes a batch takes: one row a key, many rows a key, a page a key, a number a list.

A loader is a pure function of (context, keys, args) that answers all keys of a level in one statement. What the caller
may not read is answered as if it were not there, here and in one place.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from auth.permissions import Permission
from auth.principals import Principal
from db.database import Database, Session
from db.paging import EMPTY, Counting, Page, PageArgs

KeyT = TypeVar("KeyT")
RowT = TypeVar("RowT")


class Reads(Protocol):
    """What a loader needs of the context of an operation."""

    @property
    def db(self) -> Database: ...
    @property
    def principal(self) -> Principal | None: ...
    @property
    def dataloaders(self) -> dict[Any, "Batches"]: ...


Fetch = Callable[[Reads, Sequence[Any], Any], Awaitable[Mapping[Any, Any]]]
Found = Mapping[Any, Any] | Exception


class Loader:
    """`fetch(context, keys, args)` answers all keys of a batch at once; a key it leaves out is `missing()`.

    `reads` is the permission without which nothing is there to see.
    """

    def __init__(self, fetch: Fetch, missing: Callable[[], Any], reads: Permission | None) -> None:
        self._fetch = fetch
        self.missing = missing
        self.reads = reads

    async def fetch(self, context: Reads, keys: Sequence[Any], args: Any) -> Mapping[Any, Any]:
        if self.reads is not None and not (context.principal and context.principal.reach(self.reads)):
            return {}
        return await self._fetch(context, keys, args)

    async def load(self, context: Reads, key: Any, args: Any = None) -> Any:
        """One key, batched with the others that the operation asks for in the same moment."""
        value = (await self.load_all(context, (key,), args))[key]
        if isinstance(value, Exception):
            raise value
        return value

    async def load_all(self, context: Reads, keys: Iterable[Any], args: Any = None) -> dict[Any, Any]:
        """What each key stands for; where its batch failed, the exception."""
        batches = context.dataloaders.get((self, args))
        if batches is None:
            batches = context.dataloaders[self, args] = Batches(lambda wanted: self.fetch(context, wanted, args))
        coming = batches.of(keys)
        for batch in set(coming.values()):
            if not batch.done():
                await asyncio.shield(batch)
        return {key: self._of(batch.result(), key) for key, batch in coming.items()}

    def _of(self, found: Found, key: Any) -> Any:
        if isinstance(found, Exception):
            return found
        return found[key] if key in found else self.missing()


class Batches:
    """What one operation asks one loader for with the same arguments: no key twice, and all of a moment at once."""

    def __init__(self, fetch: Callable[[Sequence[Any]], Awaitable[Mapping[Any, Any]]]) -> None:
        self._fetch = fetch
        self._batch_of: dict[Any, asyncio.Future[Found]] = {}
        self._gathering: tuple[list[Any], asyncio.Future[Found]] | None = None

    def of(self, keys: Iterable[Any]) -> dict[Any, asyncio.Future[Found]]:
        """The batch that brings each key."""
        return {key: self._batch_of.get(key) or self._added(key) for key in keys}

    def _added(self, key: Any) -> asyncio.Future[Found]:
        if self._gathering is None:
            loop = asyncio.get_running_loop()
            self._gathering = [], loop.create_future()
            loop.call_soon(self._send)
        keys, batch = self._gathering
        keys.append(key)
        self._batch_of[key] = batch
        return batch

    def _send(self) -> None:
        assert self._gathering is not None
        keys, batch = self._gathering
        self._gathering = None
        self._sending = asyncio.ensure_future(self._bring(keys, batch))

    async def _bring(self, keys: list[Any], batch: asyncio.Future[Found]) -> None:
        try:
            batch.set_result(await self._fetch(keys))
        except Exception as error:
            batch.set_result(error)
        except BaseException:
            batch.cancel()
            raise


def one(query: Callable[..., Awaitable[Mapping[KeyT, RowT]]], *, reads: Permission | None) -> Loader:
    """The row of each key, or None; a query with a third parameter is given the field's arguments."""

    async def fetch(context: Reads, keys: Sequence[KeyT], args: Any) -> Mapping[KeyT, RowT]:
        async with context.db.reading() as session:
            return await (query(session, keys) if args is None else query(session, keys, args))

    return Loader(fetch, lambda: None, reads)


def many(query: Callable[..., Awaitable[Mapping[KeyT, Sequence[RowT]]]], *, reads: Permission | None) -> Loader:
    """All rows of each key; a query with a third parameter is given the field's arguments."""

    async def fetch(context: Reads, keys: Sequence[KeyT], args: Any) -> Mapping[KeyT, Sequence[RowT]]:
        async with context.db.reading() as session:
            return await (query(session, keys) if args is None else query(session, keys, args))

    return Loader(fetch, list, reads)


def paged(
    query: Callable[[Session, Sequence[UUID], PageArgs], Awaitable[Mapping[UUID, Page[Any]]]],
    *,
    reads: Permission | None,
) -> Loader:
    """The same page of each key's list."""

    async def fetch(context: Reads, keys: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[Any]]:
        async with context.db.reading() as session:
            return await query(session, keys, args)

    return Loader(fetch, lambda: EMPTY, reads)


async def _count(context: Reads, totals: Sequence[tuple[Counting, UUID]], _: Any) -> Mapping[Any, int]:
    lists: defaultdict[Counting, list[UUID]] = defaultdict(list)
    for counting, key in totals:
        lists[counting].append(key)
    found: dict[Any, int] = {}
    async with context.db.reading() as session:
        for counting, keys in lists.items():
            counted = await counting.count(session, keys)
            found.update({(counting, key): number for key, number in counted.items()})
    return found


total = Loader(_count, lambda: 0, None)
"""How many rows a page's whole list has, by the page's `total`."""
