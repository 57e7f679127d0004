"""The shapes a batch takes: one row a key, many rows a key, a page a key, a number a list.

A loader is a pure function of (context, keys, args) that answers all keys of a level in one statement. What the caller
may not read is answered as if it were not there, here and in one place.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader

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
    def dataloaders(self) -> dict[Any, DataLoader[Any, Any]]: ...


Fetch = Callable[[Reads, Sequence[Any], Any], Awaitable[Mapping[Any, Any]]]


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
        loaders = context.dataloaders
        loader = loaders.get((self, args))
        if loader is None:
            loader = loaders[self, args] = DataLoader(partial(self._batch, context, args))
        return await loader.load(key)

    async def _batch(self, context: Reads, args: Any, keys: list[Any]) -> list[Any]:
        found = await self.fetch(context, keys, args)
        return [found[key] if key in found else self.missing() for key in keys]


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
