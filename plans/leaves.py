"""Leaves: Python that makes the JSON of a scalar or an enum, written once for each type.

The quick way is for values of the class that a type usually has. Everything else, and everything that goes wrong, goes
through graphql-core's own completion of a leaf.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from math import isfinite
from typing import Any
from uuid import UUID

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLLeafType,
    GraphQLString,
)
from graphql.execution import Executor
from graphql.pyutils import Undefined

from plans.run import Jobs, Place, Run, Site, is_odd
from plans.shapes import Shape

PLAIN = frozenset((str, int, float, bool, dict, list, tuple, datetime, date, time, timedelta, UUID, Decimal))
"""Classes whose values a scalar's own function may be called with: no null, no exception, nothing to await."""

BUILT_IN: dict[str, str] = {
    GraphQLString.name: "v if type(v := {read}) is str",
    GraphQLID.name: "v if type(v := {read}) is str",
    GraphQLInt.name: "v if type(v := {read}) is int and -2147483648 <= v <= 2147483647",
    GraphQLFloat.name: "v if type(v := {read}) is float and isfinite(v)",
    GraphQLBoolean.name: "v if type(v := {read}) is bool",
}
IS_BUILT_IN = {type_.name: type_ for type_ in (GraphQLString, GraphQLID, GraphQLInt, GraphQLFloat, GraphQLBoolean)}


class Leaf(Shape):
    """A scalar or an enum."""

    __slots__ = ("_each", "_names", "_quick", "type")

    def __init__(self, site: Site, non_null: bool, type_: GraphQLLeafType) -> None:
        super().__init__(site, non_null)
        self.type = type_
        self._names: dict[str, Any] = {}
        self._quick = self._written()
        self._each: Callable[[Sequence[Any], Run], list[Any]] | None = None

    def expression(self, read: str, number: int, names: dict[str, Any]) -> str:
        """Python for the JSON of what `read` reads; what it needs is put into `names`."""
        names[f"slow{number}"] = self.coerce
        names.update({f"{name}{number}": thing for name, thing in self._names.items()})
        quick = self._quick.format(read=read, n=number)
        null = "" if self.non_null else " else None if v is None"
        return f"{quick}{null} else slow{number}(v, run)"

    def _written(self) -> str:
        type_ = self.type
        if IS_BUILT_IN.get(type_.name) is type_:
            return BUILT_IN[type_.name]
        if isinstance(type_, GraphQLEnumType):
            self._names = {"kinds": _classes_of(type_), "shown": _shown(type_)}
            return "w if type(v := {read}) in kinds{n} and (w := shown{n}.get(v)) is not None"
        self._names = {"show": type_.coerce_output_value}
        return "w if type(v := {read}) in PLAIN and (w := show{n}(v)) is not None and w is not Undefined"

    def complete(self, values: Sequence[Any], places: list[Place] | None, run: Run, jobs: Jobs) -> list[Any]:
        if self._each is None:
            names = dict(NAMES)
            source = f"lambda values, run: [{self.expression('item', 0, names)} for item in values]"
            self._each = eval(compile(source, f"<{self.type.name}>", "eval"), names)  # noqa: S307
        try:
            return self._each(values, run)
        except Exception:
            return [self.coerce(value, run) for value in values]

    def coerce(self, value: Any, run: Run) -> Any:
        if is_odd(type(value)):
            return self.odd(value, None, run)
        try:
            return Executor.complete_leaf_value(self.type, value)
        except Exception as error:
            return run.fail(error)


NAMES: dict[str, Any] = {"isfinite": isfinite, "PLAIN": PLAIN, "Undefined": Undefined}


@lru_cache(maxsize=1024)
def _classes_of(type_: GraphQLEnumType) -> frozenset[type]:
    """The classes of an enum's values: the members' own, and that of what they stand for."""
    wrapped = getattr(type_, "wrapped_cls", None)
    classes = {type(value.value) for value in type_.values.values()} & PLAIN
    return frozenset(classes | ({wrapped} if wrapped is not None and issubclass(wrapped, Enum) else set()))


@lru_cache(maxsize=1024)
def _shown(type_: GraphQLEnumType) -> dict[Any, str]:
    """The name of each value that graphql-core has one for."""
    wrapped = getattr(type_, "wrapped_cls", None)
    values: list[Any] = [value.value for value in type_.values.values()]
    if wrapped is not None and issubclass(wrapped, Enum):
        values = [*wrapped, *values]
    shown: dict[Any, str] = {}
    for value in values:
        try:
            name = type_.coerce_output_value(value)
            if value in shown and shown[value] != name:
                return {}
            shown[value] = name
        except Exception:  # noqa: S112
            continue
    return shown
