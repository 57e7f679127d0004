"""Page arguments as every list field takes them. An argument left out is None."""

from typing import Any

from strawberry import UNSET

from db.paging import PageArgs
from db.rows import Tags
from db.vocabulary import OrderDirection
from resolvers.inputs.filters import TagInput

Ordering = tuple[str, bool]


def page_args(
    first: int | None = UNSET, after: str | None = UNSET, last: int | None = UNSET, before: str | None = UNSET
) -> PageArgs:
    return PageArgs.of(first, after, last, before)


def first_args(first: int | None = UNSET, after: str | None = UNSET) -> PageArgs:
    return PageArgs.of(first, after)


def ordering(order_by: Any) -> Ordering:
    """An order input as queries take it: the name of the field, and whether it descends."""
    return str(order_by.field), order_by.direction is OrderDirection.DESC


def tags_of(given: list[TagInput] | None) -> Tags:
    return [{"key": tag.key, "value": tag.value} for tag in given or ()]
