"""Limits on what callers send: printed in the schema, and checked before the resolver from the very same object."""

import dataclasses
import re
from typing import Annotated, Any

import strawberry
from strawberry.schema_directive import Location

_ON_INPUT = [Location.ARGUMENT_DEFINITION, Location.INPUT_FIELD_DEFINITION]


@strawberry.schema_directive(
    name="constraint",
    locations=_ON_INPUT,
    description="Input limits, checked before the resolver and shown in the explorer.",
)
class Constraint:
    min: float | None = strawberry.UNSET
    max: float | None = strawberry.UNSET
    min_length: int | None = strawberry.UNSET
    max_length: int | None = strawberry.UNSET
    min_items: int | None = strawberry.UNSET
    max_items: int | None = strawberry.UNSET
    pattern: str | None = strawberry.UNSET

    def broken_by(self, value: Any) -> str | None:
        """What is wrong with a value, in words, or None. A list's length is its items, a text's its characters."""
        if isinstance(value, list):
            return _outside("items", len(value), self.min_items, self.max_items)
        if isinstance(value, str):
            if self.pattern is not strawberry.UNSET and not re.fullmatch(str(self.pattern), value):
                return f"has to match {self.pattern}"
            return _outside("characters", len(value), self.min_length, self.max_length)
        if isinstance(value, (int, float)):
            return _outside("", value, self.min, self.max)
        return None

    @property
    def allowed(self) -> dict[str, Any]:
        """The limits that are set, by their GraphQL names."""
        names = {"min_length": "minLength", "max_length": "maxLength", "min_items": "minItems", "max_items": "maxItems"}
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {names.get(name, name): value for name, value in given.items() if value is not strawberry.UNSET}


@strawberry.schema_directive(
    name="sensitive",
    locations=[Location.FIELD_DEFINITION, *_ON_INPUT[::-1]],
    description="Shown once, never logged, cached or audited in plain text.",
)
class Sensitive:
    pass


def _outside(unit: str, amount: float, least: Any, most: Any) -> str | None:
    if least is not strawberry.UNSET and amount < least:
        return f"has at least {least:g} {unit}" if unit else f"is at least {least:g}"
    if most is not strawberry.UNSET and amount > most:
        return f"has at most {most:g} {unit}" if unit else f"is at most {most:g}"
    return None


def limited(
    *,
    default: Any = dataclasses.MISSING,
    name: str | None = None,
    sensitive: bool = False,
    description: str | None = None,
    **limits: Any,
) -> Any:
    """An input field with limits: `name: str = limited(min_length=1, max_length=200)`."""
    directives: list[object] = [Sensitive()] if sensitive else []
    if limits:
        directives.append(Constraint(**limits))
    return strawberry.field(default=default, name=name, description=description, directives=directives)


def optional(name: str | None = None, **limits: Any) -> Any:
    """An input field that may be left out; the resolver then finds None."""
    return limited(default=strawberry.UNSET, name=name, **limits)


def argument(of: Any, **limits: Any) -> Any:
    """The annotation of an argument with limits: `limit: argument(int, min=1, max=500) = 50`."""
    return Annotated[of, strawberry.argument(directives=[Constraint(**limits)])]
