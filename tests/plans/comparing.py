"""Whether two executors gave the same answer, as the specification lets them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from graphql import GraphQLError

Shown = tuple[Any, ...]


def shown(error: GraphQLError) -> Shown:
    cause = error.original_error
    where = tuple((location.line, location.column) for location in error.locations or ())
    return tuple(error.path or ()), error.message, where, repr(error.extensions), type(cause).__name__


def nulled(path: Sequence[str | int], data: Any) -> tuple[str | int, ...]:
    """Where the null is that an error at `path` led to."""
    at: list[str | int] = []
    for key in path:
        if data is None:
            break
        try:
            data = data[key]
        except LookupError:
            return (*at, "nothing")
        at.append(key)
    return tuple(at) if data is None else (*at, "no null")


def difference(core: Any, plans: Any, every: Sequence[GraphQLError] | None) -> str | None:
    """What is different, in words, or None.

    Where a null bubbles, an executor may tell any of the errors below it, and the specification lets it drop the rest.
    `every` are the errors of an execution in which no null bubbles; what is told must be among them.
    """
    if repr(core.data) != repr(plans.data):
        return f"data\n  core  {core.data!r}\n  plans {plans.data!r}"
    ours, theirs = Counter(map(shown, plans.errors or ())), Counter(map(shown, core.errors or ()))
    if ours == theirs:
        return None
    bubbled = {path for path in (error[0] for error in ours + theirs) if nulled(path, core.data) != path}
    places = {nulled(path, core.data) for path in bubbled}

    def inside(path: Sequence[str | int]) -> bool:
        return any(tuple(path[: len(place)]) == place for place in places)

    for name, one, other in (("plans", ours, theirs), ("core", theirs, ours)):
        for error, times in one.items():
            if inside(error[0]):
                if every is not None and error not in set(map(shown, every)):
                    return f"{name} tells what nobody else does: {error}"
            elif other[error] != times:
                return f"only {name} tells {error}"
    if {nulled(error[0], core.data) for error in ours} != {nulled(error[0], core.data) for error in theirs}:
        return f"places of nulls\n  core  {sorted(map(repr, theirs))}\n  plans {sorted(map(repr, ours))}"
    return None
