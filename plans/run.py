"""What one execution of a plan carries, and what stands in its response until the response is settled.

Values are completed many at a time and nothing is raised on the way: what goes wrong stays in the response as a
`Failure`, what is not there yet as a `Later`. A response without either is ready to be sent. One with either is walked
once more from the top: there failures get their path and their place in the document, and nulls bubble.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import Any, NamedTuple

from graphql import FieldNode, GraphQLError, GraphQLField, GraphQLObjectType, GraphQLResolveInfo
from graphql.execution import Executor
from graphql.pyutils import Path, Undefined

Job = Coroutine[Any, Any, None]
Jobs = list[Job]
"""What completes a part of the response later."""
Place = Path | None


class Failure:
    """Stands where a value could not be made."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class Later:
    """Stands where a value is still awaited."""

    __slots__ = ("value",)
    value: Any


class Run:
    """One execution of a plan."""

    __slots__ = ("context", "errors", "executor", "selections", "strays", "unsettled")

    def __init__(self, executor: Executor[Any]) -> None:
        self.executor = executor
        self.context = executor.context_value
        self.unsettled = False
        self.selections: dict[int, Any] = {}
        """The selection behind each object of an abstract type, by the id of what stands for the object."""
        self.strays: Jobs = []
        """What fills the `Later`s."""
        self.errors: list[GraphQLError] = []

    def fail(self, error: Exception) -> Failure:
        self.unsettled = True
        return Failure(error)

    def later(self, value: Awaitable[Any], complete: Callable[[Any, Jobs], Any]) -> Later:
        """Complete what `value` turns out to be, an exception included, and put it where the `Later` is."""
        self.unsettled = True
        stands = Later()

        async def fill() -> None:
            jobs: Jobs = []
            stands.value = complete(await outcome(value), jobs)
            await drain(jobs)

        self.strays.append(fill())
        return stands

    async def drain(self, jobs: Jobs) -> None:
        await drain(jobs)
        while self.strays:
            jobs, self.strays = self.strays, []
            await drain(jobs)


async def drain(jobs: Jobs) -> None:
    if len(jobs) == 1:
        await jobs[0]
    elif jobs:
        await asyncio.gather(*jobs)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """What it gives, or the exception that it raises."""
    try:
        return await awaitable
    except Exception as error:
        return error


async def outcomes(awaitables: list[Awaitable[Any]]) -> list[Any]:
    """What each of them gives, or the exception that it raises; all at the same time."""
    if len(awaitables) == 1:
        return [await outcome(awaitables[0])]
    return await asyncio.gather(*map(outcome, awaitables))


class Site(NamedTuple):
    """A field of the document on one type: where its errors point to."""

    parent: GraphQLObjectType
    key: str
    nodes: list[FieldNode]
    definition: GraphQLField

    @property
    def name(self) -> str:
        return self.nodes[0].name.value

    def info(self, place: Place, run: Run) -> GraphQLResolveInfo[Any]:
        """As graphql-core builds it: an item of a list has the info of the list's field."""
        while place is not None and isinstance(place.key, int):
            place = place.prev
        return run.executor.build_resolve_info(self.definition, self.nodes, self.parent, place)  # type: ignore[arg-type]

    def under(self, places: list[Place] | None) -> list[Place] | None:
        """The places of this field in objects at `places`; None where nobody asks for them."""
        return None if places is None else [Path(place, self.key, self.parent.name) for place in places]


_odd: dict[type, bool] = {type(None): True, type(Undefined): True}


def is_odd(kind: type) -> bool:
    """Whether values of this class are null, exceptions or awaitable."""
    known = _odd.get(kind)
    if known is None:
        known = issubclass(kind, Exception) or is_awaited(kind)
        if len(_odd) < 10_000:
            _odd[kind] = known
    return known


def is_awaited(kind: type) -> bool:
    return issubclass(kind, CoroutineType) or hasattr(kind, "__await__")


def attempt(get: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What it returns, or the exception that it raises."""
    try:
        return get(*arguments, **named)
    except Exception as error:
        return error
