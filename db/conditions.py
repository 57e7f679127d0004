"""What the filter inputs mean in SQL: each function turns one filter into conditions on one column.

A filter that is None, or a part of it that is None, asks for nothing.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import ARRAY, ColumnElement, Text, and_, any_, exists, func, literal, select, true
from sqlalchemy import column as sql_column
from sqlalchemy.dialects.postgresql import JSONB


class Words(Protocol):
    """`StringFilter`."""

    eq: str | None
    in_: list[str] | None
    contains: str | None
    starts_with: str | None


class Instants(Protocol):
    """`DateTimeFilter`: from `gte` on, before `lt`."""

    gte: datetime | None
    lt: datetime | None


class Integers(Protocol):
    """`BigIntFilter`."""

    gte: int | None
    lte: int | None


class Numbers(Protocol):
    """`FloatFilter`."""

    gt: float | None
    gte: float | None
    lt: float | None
    lte: float | None


class TagWanted(Protocol):
    """`TagFilter`: a tag with this key, and with such a value when one is asked for."""

    key: str
    value: Any


def words(column: ColumnElement[Any], wanted: Words | None) -> Iterator[ColumnElement[bool]]:
    if wanted is None:
        return
    if wanted.eq is not None:
        yield column == wanted.eq
    if wanted.in_ is not None:
        yield one_of(column, wanted.in_)
    if wanted.contains is not None:
        yield column.icontains(wanted.contains, autoescape=True)
    if wanted.starts_with is not None:
        yield column.istartswith(wanted.starts_with, autoescape=True)


def instant(column: ColumnElement[Any], wanted: Instants | None) -> Iterator[ColumnElement[bool]]:
    if wanted is None:
        return
    if wanted.gte is not None:
        yield column >= wanted.gte
    if wanted.lt is not None:
        yield column < wanted.lt


def integer(column: ColumnElement[Any], wanted: Integers | None) -> Iterator[ColumnElement[bool]]:
    if wanted is None:
        return
    if wanted.gte is not None:
        yield column >= wanted.gte
    if wanted.lte is not None:
        yield column <= wanted.lte


def number(column: ColumnElement[Any], wanted: Numbers | None) -> Iterator[ColumnElement[bool]]:
    if wanted is None:
        return
    if wanted.gt is not None:
        yield column > wanted.gt
    if wanted.gte is not None:
        yield column >= wanted.gte
    if wanted.lt is not None:
        yield column < wanted.lt
    if wanted.lte is not None:
        yield column <= wanted.lte


def one_of(column: ColumnElement[Any], wanted: Sequence[Any]) -> ColumnElement[bool]:
    """`column = ANY(...)`: one statement whatever the number of values; none of them matches nothing."""
    type_ = Text() if isinstance(wanted, Sequence) and all(isinstance(item, str) for item in wanted) else column.type
    return column == any_(literal(list(wanted), ARRAY(type_)))


def tagged(column: ColumnElement[Any], wanted: Sequence[TagWanted] | None) -> Iterator[ColumnElement[bool]]:
    """Conditions on a `tags` column, an array of {key, value}: every asked tag is there."""
    for tag in wanted or ():
        entry = func.jsonb_array_elements(column).table_valued(sql_column("value", JSONB), name="tag").render_derived()
        key = func.jsonb_extract_path_text(entry.c.value, "key", type_=Text)
        value = func.jsonb_extract_path_text(entry.c.value, "value", type_=Text)
        meant = and_(key == tag.key, *words(value, tag.value))
        yield exists(select(true()).select_from(entry).where(meant).correlate_except(entry))
