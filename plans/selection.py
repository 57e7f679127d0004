"""The selection on one object type: its plain fields in one generated comprehension, its other fields in steps."""

from collections.abc import Callable, Sequence
from typing import Any

from graphql import GraphQLObjectType

from plans.declared import value_of
from plans.leaves import NAMES, Leaf
from plans.run import Jobs, Place, Run, attempt
from plans.shapes import Keys, Shape
from plans.steps import Step

Build = Callable[[Sequence[Any], Run], list[dict[str, Any]]]


class Plain:
    """A leaf that is read from its row: an attribute, or what `derive` makes of the row."""

    __slots__ = ("attribute", "derive", "leaf")

    def __init__(self, leaf: Leaf, attribute: str, derive: Callable[[Any], Any] | None) -> None:
        self.leaf, self.attribute, self.derive = leaf, attribute, derive

    def value(self, row: Any) -> Any:
        return value_of(row, self.attribute) if self.derive is None else self.derive(row)


class Selection:
    """Complete once `seal` was called."""

    __slots__ = ("_built", "_constants", "_keys", "_plain", "_shapes", "_steps", "placed", "type")

    def __init__(self, type_: GraphQLObjectType) -> None:
        self.type = type_
        self.placed = False
        self._keys: list[str] = []
        self._constants: dict[str, str] = {}
        self._plain: dict[str, Plain] = {}
        self._steps: list[Step] = []
        self._shapes: list[tuple[str, Shape]] = []
        self._built: dict[bool, Build] = {}

    def add_constant(self, key: str, value: str) -> None:
        self._keys.append(key)
        self._constants[key] = value

    def add_plain(self, key: str, plain: Plain) -> None:
        self._keys.append(key)
        self._plain[key] = plain
        self._shapes.append((key, plain.leaf))

    def add_step(self, step: Step) -> None:
        self._keys.append(step.key)
        self._steps.append(step)
        self._shapes.append((step.key, step.shape))

    def seal(self) -> "Selection":
        self.placed = any(step.placed for step in self._steps)
        return self

    @property
    def steps(self) -> Sequence[Step]:
        return self._steps

    def fill(
        self, rows: Sequence[Any], kinds: set[type], places: list[Place] | None, run: Run, jobs: Jobs
    ) -> list[dict[str, Any]]:
        """An object for each row; what takes longer goes to `jobs`."""
        outs = self.objects(rows, kinds, run)
        for step in self._steps:
            step.start(rows, outs, places, run, jobs)
        return outs

    def objects(self, rows: Sequence[Any], kinds: set[type], run: Run) -> list[dict[str, Any]]:
        """An object for each row, with its plain fields and room for the others."""
        if len(kinds) == 1 or dict not in kinds:
            try:
                return self._build(dict in kinds)(rows, run)
            except Exception:  # noqa: S110  # some attribute raises: find out which, row by row
                pass
        return [self._object(row, run) for row in rows]

    def _object(self, row: Any, run: Run) -> dict[str, Any]:
        out: dict[str, Any] = {key: self._constants.get(key) for key in self._keys}
        for key, plain in self._plain.items():
            out[key] = plain.leaf.coerce(attempt(plain.value, row), run)
        return out

    def _build(self, items: bool) -> Build:
        build = self._built.get(items)
        if build is None:
            build = self._built[items] = self._written(items)
        return build

    def _written(self, items: bool) -> Build:
        """The comprehension. Response keys are names of GraphQL, attributes are names of ours: nothing to escape."""
        names: dict[str, Any] = dict(NAMES)
        parts = []
        for number, key in enumerate(self._keys):
            plain = self._plain.get(key)
            if plain is None:
                value = repr(self._constants.get(key))
            else:
                if plain.derive is not None:
                    names[f"derive{number}"] = plain.derive
                    read = f"derive{number}(r)"
                else:
                    read = f"r.get({plain.attribute!r})" if items else f"r.{plain.attribute}"
                value = plain.leaf.expression(read, number, names)
            parts.append(f"{key!r}: {value}")
        source = f"lambda rows, run: [{{{', '.join(parts)}}} for r in rows]"
        build: Build = eval(compile(source, f"<plan of {self.type.name}>", "eval"), names)  # noqa: S307
        return build

    def settled(self, out: dict[str, Any], path: Keys, run: Run) -> dict[str, Any]:
        settled = dict(out)  # others may share `out`
        for key, shape in self._shapes:
            settled[key] = shape.settle(out[key], [*path, key], run)
        return settled
