"""What fields and types declare as data, so that both executors can read it: graphql-core's and the plans'."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from dataloaders.batching import Loader
from resolvers.context import Info


def value_of(source: Any, name: str) -> Any:
    """How a field without a resolver reads its value: an item of a JSON object, an attribute of a row."""
    return source.get(name) if type(source) is dict else getattr(source, name)


@dataclass(frozen=True, eq=False, slots=True)
class Relation:
    """A field whose value `loader` finds by the attribute `by` of the parent.

    The parameters of `args` are the field's arguments, and what it returns goes to the loader.
    """

    loader: Loader
    by: str
    args: Callable[..., Any] | None

    async def resolve(self, source: Any, info: Info, arguments: Mapping[str, Any]) -> Any:
        key = value_of(source, self.by)
        if key is None:
            return self.loader.missing()
        return await self.loader.load(info.context, key, self.args(**arguments) if self.args else None)


@dataclass(frozen=True, eq=False, slots=True)
class Derived:
    """A field whose value is a function of the row alone, without effects: it may be asked twice."""

    value: Callable[[Any], Any]


@runtime_checkable
class Guards(Protocol):
    """A field extension that does nothing but ask the context; a plan asks it once for all rows."""

    def denial(self, context: Any) -> Exception | None: ...


@runtime_checkable
class Readies(Protocol):
    """A field extension that does nothing but make arguments ready, the same ones always in the same way."""

    def ready(self, arguments: dict[str, Any]) -> dict[str, Any]: ...


def rows_shown_by(is_type_of: Any) -> tuple[type, ...] | None:
    """The rows of a type that tells its objects by their class alone (`schema.fields.shows`); else None."""
    return getattr(is_type_of, "rows", None)
