"""Keyset pages in both directions: stable under inserts, and as cheap on page 1000 as on page 1.

A cursor is the position of one row in one ordering: the values of the ordering's keys, the row's key last. A cursor of
another ordering is refused, so a page never continues a list it does not belong to.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Uuid,
    and_,
    bindparam,
    column,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)

from db.database import RowT, Session

MAX_PAGE = 100
DEFAULT_PAGE = 25
ItemT = TypeVar("ItemT")


class InvalidCursor(Exception):
    """The text is not a cursor that a page of this list, in this order, handed out."""


class InvalidPage(Exception):
    """The page arguments cannot be meant together; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key: a column that is never null, and its direction."""

    column: ColumnElement[Any]
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """A total order: its name goes into cursors, its last key is unique."""

    name: str
    keys: tuple[Key, ...]

    @classmethod
    def by(cls, name: str, *columns: ColumnElement[Any], descending: bool = False) -> "Order":
        """All keys in one direction, which lets an index serve the page."""
        return cls(f"{name}:{'desc' if descending else 'asc'}", tuple(Key(c, descending) for c in columns))

    def encode(self, values: Sequence[Any]) -> str:
        told = [_STRANGE[str(value)] if _is_strange(value) else value for value in values]
        return urlsafe_b64encode(orjson.dumps([self.name, *told], default=str)).decode().rstrip("=")

    def decode(self, cursor: str) -> list[Any]:
        """The key values a cursor stands for. Raises `InvalidCursor`."""
        try:
            name, *values = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            if name != self.name or len(values) != len(self.keys):
                raise InvalidCursor(cursor)
            return [_typed(key.column, value) for key, value in zip(self.keys, values, strict=True)]
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidCursor(cursor) from error


def _typed(of: ColumnElement[Any], value: Any) -> Any:
    """What PostgreSQL can compare the column with. Raises `ValueError`: a cursor comes from outside."""
    wanted = of.type.python_type
    if wanted in (datetime, UUID) and type(value) is not str:
        raise ValueError(value)
    if wanted is datetime:
        return _instant(value)
    if wanted is UUID:
        return UUID(value)
    if wanted is float and (type(value) is int or value in _STRANGE.values()):
        return float(value)
    if type(value) is not wanted or (wanted is str and "\x00" in value):
        raise ValueError(value)
    if wanted is int and not -(most := _MOST[isinstance(of.type, BigInteger)]) - 1 <= value <= most:
        raise ValueError(value)
    return value


def _is_strange(value: Any) -> bool:
    return type(value) is float and not isfinite(value)


_STRANGE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""Numbers that JSON does not have, as cursors write them."""
_MOST = {True: 2**63 - 1, False: 2**31 - 1}


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class PageArgs:
    """Which page: the first rows after a cursor, or the last ones before it; and of which list.

    `filter` and `order` are what the caller asked for, as the entity's query understands them; two arguments are equal
    when they ask for the same page.
    """

    limit: int = DEFAULT_PAGE
    backward: bool = False
    cursor: str | None = None
    filter: Any = field(default=None, compare=False)
    order: Any = field(default=None, compare=False)
    _same: Any = None

    @classmethod
    def of(
        cls,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
        *,
        filter: Any = None,
        order: Any = None,
    ) -> "PageArgs":
        """Raises `InvalidPage` when the four do not say one page."""
        if first is not None and last is not None:
            raise InvalidPage("Ask for `first` or for `last`, not for both.")
        if after is not None and before is not None:
            raise InvalidPage("Give `after` or `before`, not both.")
        if (last is not None and after is not None) or (first is not None and before is not None):
            raise InvalidPage("`after` goes with `first`, and `before` goes with `last`.")
        backward = last is not None or before is not None
        limit = (last if backward else first) or (DEFAULT_PAGE if first is None and last is None else 0)
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidPage(f"`{'last' if backward else 'first'}` is between 1 and {MAX_PAGE}.")
        cursor = before if backward else after
        return cls(limit, backward, cursor, filter, order, (_frozen(filter), _frozen(order)))


def _frozen(value: Any) -> Any:
    """A hashable stand-in that is equal for equal filters."""
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value).__name__, *(_frozen(getattr(value, f.name)) for f in fields(value)))
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    return value


@dataclass(frozen=True, slots=True)
class Edge(Generic[ItemT]):
    cursor: str
    node: ItemT


@dataclass(frozen=True, eq=False, slots=True)
class Counting:
    """How to count a list, should somebody ask: one statement for all lists counted alike."""

    count: Callable[[Session, Sequence[UUID]], Any]


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """A page of a list; it is its own `pageInfo`."""

    nodes: Sequence[ItemT]
    cursors: Sequence[Callable[[], str]] = ()
    has_next_page: bool = False
    has_previous_page: bool = False
    total: tuple[Counting, UUID] | None = None

    @property
    def edges(self) -> list[Edge[ItemT]]:
        return [Edge(cursor(), node) for cursor, node in zip(self.cursors, self.nodes, strict=True)]

    @property
    def page_info(self) -> "Page[ItemT]":
        return self

    @property
    def start_cursor(self) -> str | None:
        return self.cursors[0]() if self.cursors else None

    @property
    def end_cursor(self) -> str | None:
        return self.cursors[-1]() if self.cursors else None


EMPTY: Page[Any] = Page(())
_WHOLE_LIST = UUID(int=0)


async def page(session: Session, row: type[RowT], statement: Select[Any], order: Order, args: PageArgs) -> Page[RowT]:
    """One page of one list, in one statement. Raises `InvalidCursor`."""
    records = await session.records(_cut(statement, order, args))
    return _paged(row, records, order, args, counting(statement))


def counting(statement: Select[Any]) -> tuple[Counting, UUID]:
    """The `Page.total` of a list."""

    async def count(later: Session, _: Sequence[UUID]) -> dict[UUID, int]:
        counted = select(func.count()).select_from(statement.order_by(None).subquery())
        return {_WHOLE_LIST: await later.scalar(counted)}

    return Counting(count), _WHOLE_LIST


async def pages(
    session: Session,
    row: type[RowT],
    statement: Select[Any],
    parent: ColumnElement[Any],
    parents: Sequence[UUID],
    order: Order,
    args: PageArgs,
) -> dict[UUID, Page[RowT]]:
    """The same page of each parent's list, in one statement. `parent` is the child's column that names its parent.

    The lateral join walks the children's index once per parent and stops after `limit + 1` rows, however many there
    are. Raises `InvalidCursor`.
    """

    async def count(later: Session, keys: Sequence[UUID]) -> dict[UUID, int]:
        mine = statement.where(parent == func.any(bindparam("parents", type_=ARRAY(Uuid)))).order_by(None)
        listed = mine.add_columns(parent.label("of_parent")).subquery()
        counted = select(listed.c.of_parent, func.count()).group_by(listed.c.of_parent)
        found = dict.fromkeys(keys, 0)
        found.update(dict(await later.records(counted, parents=list(keys))))
        return found

    wanted = (
        func.unnest(bindparam("parents", type_=ARRAY(Uuid)))
        .table_valued(column("key", Uuid), name="wanted")
        .render_derived()
    )
    inner = _cut(statement.where(parent == wanted.c.key), order, args).lateral("children")
    positions = [inner.c[f"key_{number}"] for number in range(len(order.keys))]
    outer = select(wanted.c.key, *inner.c).select_from(wanted.join(inner, true()))
    for key, position in zip(order.keys, positions, strict=True):
        outer = outer.order_by(position.desc() if key.descending != args.backward else position.asc())

    found: dict[UUID, list[Any]] = {key: [] for key in parents}
    for record in await session.records(outer, parents=list(parents)):
        found[record[0]].append(record)
    counting = Counting(count)
    return {key: _paged(row, records, order, args, (counting, key), begin=1) for key, records in found.items()}


def _cut(statement: Select[Any], order: Order, args: PageArgs) -> Select[Any]:
    """The rows of one page and one more, with the keys of the order behind their columns."""
    statement = statement.add_columns(*(key.column.label(f"key_{n}") for n, key in enumerate(order.keys)))
    for key in order.keys:
        statement = statement.order_by(key.column.desc() if key.descending != args.backward else key.column.asc())
    if args.cursor is not None:
        statement = statement.where(_beyond(order, order.decode(args.cursor), args.backward))
    return statement.limit(args.limit + 1)


def _beyond(order: Order, values: Sequence[Any], backward: bool) -> ColumnElement[bool]:
    """Rows that come after a position (before it, when going backward)."""
    keys = [
        (key.column, literal(value, key.column.type), key.descending != backward)
        for key, value in zip(order.keys, values, strict=True)
    ]
    if len({descending for *_, descending in keys}) == 1:
        here = tuple_(*(of for of, *_ in keys))
        there = tuple_(*(value for _, value, _ in keys))
        return here < there if keys[0][2] else here > there
    choices = []
    for number, (of, value, descending) in enumerate(keys):
        level = [one == other for one, other, _ in keys[:number]]
        choices.append(and_(*level, of < value if descending else of > value))
    return or_(*choices)


def _paged(
    row: type[RowT],
    records: Sequence[Any],
    order: Order,
    args: PageArgs,
    total: tuple[Counting, UUID],
    *,
    begin: int = 0,
) -> Page[RowT]:
    """`begin` is where the row's columns begin in a record; the keys of the order come last."""
    more = len(records) > args.limit
    kept = list(records[: args.limit])
    if args.backward:
        kept.reverse()
    width = len(order.keys)
    make: Callable[[Sequence[Any]], RowT] = row._make  # type: ignore[attr-defined]
    return Page(
        nodes=[make(record[begin:-width]) for record in kept],
        cursors=Cursors(order, kept),
        has_next_page=args.cursor is not None if args.backward else more,
        has_previous_page=more if args.backward else args.cursor is not None,
        total=total,
    )


class Cursors(Sequence[Callable[[], str]]):
    """The cursors of records that end with the keys of their order; written when somebody asks for one."""

    __slots__ = ("_order", "_records")

    def __init__(self, order: Order, records: Sequence[Any]) -> None:
        self._order, self._records = order, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        record, width = self._records[index], len(self._order.keys)
        return lambda: self._order.encode(record[-width:])
