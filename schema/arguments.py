"""Arguments on their way to a resolver: what was left out becomes None, what breaks a limit is refused.

So is what PostgreSQL cannot hold: the character NUL, half of a surrogate pair, and in JSON a number that is not finite
or has more than 64 bits. An ID is left as it came: what is no ID of ours names nothing. Rows of data, lists of JSON
objects, are judged by the signature of their model.
"""

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from strawberry import UNSET
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver, SyncExtensionResolver
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField
from strawberry.utils.str_converters import to_camel_case

from domain.refusals import ErrorCode
from domain.texts import storable
from resolvers.context import Info
from resolvers.inputs.limits import Constraint
from resolvers.inputs.scalars import JSON, JSONObject
from schema.failures import bad_request

Path = tuple[str, ...]
DEEPEST_JSON = 32


@dataclass(frozen=True, slots=True)
class Broken:
    """A limit that a value broke, and where."""

    path: Path
    message: str
    allowed: dict[str, Any] | None = None
    code: ErrorCode = ErrorCode.OUT_OF_RANGE


class Arguments(FieldExtension):
    """The innermost extension of every field with arguments: resolvers see None, never UNSET."""

    def apply(self, field: StrawberryField) -> None:
        self._taken = {argument.python_name: argument for argument in field.arguments}
        self._optional = tuple(a.python_name for a in field.arguments if a.default is UNSET)

    def ready(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Raises `ApiError` BAD_REQUEST when an argument breaks its limits."""
        for name in self._optional:
            if arguments.get(name, UNSET) is UNSET:
                arguments[name] = None
        for name, argument in self._taken.items():
            value = arguments.get(name)
            if value is None or value is UNSET:
                continue
            for broken in _broken(argument, value, (graphql_name(argument),)):
                raise bad_request(f"`{'.'.join(broken.path)}` {broken.message}.", user_code=broken.code)
        return arguments

    def resolve(self, next_: SyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        return next_(source, info, **self.ready(arguments))

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        result = next_(source, info, **self.ready(arguments))
        return await result if inspect.isawaitable(result) else result


def settled(value: Any, path: Path) -> Iterator[Broken]:
    """Every limit an input object breaks, at any depth; what was left out of it becomes None on the way."""
    definition = getattr(type(value), "__strawberry_definition__", None)
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from settled(item, (*path, str(number)))
    elif isinstance(definition, StrawberryObjectDefinition) and definition.is_input:
        for field in definition.fields:
            item = getattr(value, field.python_name)
            if item is UNSET:
                setattr(value, field.python_name, None)
            elif item is not None:
                yield from _broken(field, item, (*path, graphql_name(field)))


def _broken(element: Any, value: Any, path: Path) -> Iterator[Broken]:
    """What is wrong with the value of an argument or of an input field."""
    for constraint in constraints_of(element):
        message = constraint.broken_by(value)
        if message is not None:
            yield Broken(path, message, constraint.allowed)
    of = _innermost(element.type)
    if getattr(of, "__strawberry_definition__", None) is not None:
        yield from settled(value, path)
    elif of in _FREE and not (of is JSONObject and isinstance(value, list)):
        for where, item in enumerate(value) if isinstance(value, list) else ((None, value),):
            message = _unstorable(item)
            if message is not None:
                yield Broken(path if where is None else (*path, str(where)), message, code=ErrorCode.INVALID)


_FREE = (str, JSON, JSONObject)


def _innermost(of: Any) -> Any:
    while hasattr(of, "of_type"):
        of = of.of_type
    return of


def _unstorable(value: Any, room: int = DEEPEST_JSON) -> str | None:
    """Why a text or a JSON value cannot be stored, in words, or None."""
    if room < 0:
        return f"is nested more than {DEEPEST_JSON} deep"
    if isinstance(value, str):
        return None if storable(value) else "holds a character that cannot be stored: NUL, or half of a surrogate pair"
    if isinstance(value, dict):
        return next(filter(None, (_unstorable(item, room - 1) for item in (*value, *value.values()))), None)
    if isinstance(value, list):
        return next(filter(None, (_unstorable(item, room - 1) for item in value)), None)
    if isinstance(value, float):
        return None if math.isfinite(value) else "holds a number that is not finite"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "holds an integer of more than 64 bits"
    return None


def constraints_of(element: Any) -> tuple[Constraint, ...]:
    return tuple(directive for directive in element.directives or () if isinstance(directive, Constraint))


def graphql_name(element: Any) -> str:
    return str(element.graphql_name or to_camel_case(element.python_name))
