"""The filters and orders that lists share."""

from datetime import datetime

import strawberry
from strawberry import UNSET

from db.vocabulary import OrderDirection
from resolvers.inputs.limits import limited, optional
from resolvers.inputs.scalars import BigInt


@strawberry.input
class StringFilter:
    eq: str | None = UNSET
    in_: list[str] | None = optional("in")
    contains: str | None = UNSET
    starts_with: str | None = UNSET


@strawberry.input
class FloatFilter:
    gt: float | None = UNSET
    gte: float | None = UNSET
    lt: float | None = UNSET
    lte: float | None = UNSET


@strawberry.input
class BigIntFilter:
    gte: BigInt | None = UNSET
    lte: BigInt | None = UNSET


@strawberry.input
class DateTimeFilter:
    gte: datetime | None = UNSET
    lt: datetime | None = UNSET


@strawberry.input
class TagFilter:
    key: str
    value: StringFilter | None = UNSET


@strawberry.input
class TagInput:
    key: str = limited(max_length=128)
    value: str = limited(max_length=1024)


@strawberry.input
class TimeRangeInput:
    from_: datetime = strawberry.field(name="from")
    to: datetime | None = UNSET


@strawberry.input
class StepRangeInput:
    from_: BigInt = strawberry.field(name="from")
    to: BigInt | None = UNSET


def descending(direction: OrderDirection) -> bool:
    return direction is OrderDirection.DESC
