"""The plans of a process: few, of documents that come again, and nothing of who sent them."""

from collections import OrderedDict
from typing import Any

from graphql import OperationDefinitionNode
from graphql.execution import Executor

from plans.compiler import Operation, Plan

MAX_FIELDS = 20_000
MAX_CHARACTERS = 1 << 20
LONGEST = 16_384
SIGHTINGS = 3


class Seen:
    """An operation that was executed before."""

    __slots__ = ("characters", "compiled", "held", "times")

    def __init__(self, operation: OperationDefinitionNode, characters: int) -> None:
        self.held = operation
        """Kept alive: it is known by its id."""
        self.characters = characters
        self.times = 0
        self.compiled: Operation | None = None

    @property
    def fields(self) -> int:
        return 0 if self.compiled is None else self.compiled.weight


class Plans:
    """Bounded by the fields of all plans and by the characters of their documents; the longest unused go first.

    A plan takes up to 2.5 KiB a field; `make bench` measures what making the largest takes.
    """

    def __init__(
        self, *, fields: int = MAX_FIELDS, characters: int = MAX_CHARACTERS, sightings: int = SIGHTINGS
    ) -> None:
        self.sightings = sightings
        self._most_fields, self._most_characters = fields, characters
        self._seen: OrderedDict[int, Seen] = OrderedDict()
        self.fields = self.characters = 0

    def __len__(self) -> int:
        return sum(seen.compiled is not None for seen in self._seen.values())

    def of(self, executor: Executor[Any], *, learn: bool) -> Plan | None:
        """The plan for this operation; None when graphql-core should run it.

        `learn`: whether this sighting counts, and may be the one at which the operation is compiled.
        """
        seen = self._seen.get(id(executor.operation))
        if seen is None:
            if not learn:
                return None
            seen = self._first(executor.operation)
            if seen is None:
                return None
        self._seen.move_to_end(id(seen.held))
        if seen.compiled is None:
            if not learn:
                return None
            seen.times += 1
            if seen.times < self.sightings:
                return None
            seen.compiled = Operation(executor)
        before = seen.fields
        plan = seen.compiled.plan(executor, compile=learn)
        self.fields += seen.fields - before
        self._make_room()
        return plan

    def _first(self, operation: OperationDefinitionNode) -> Seen | None:
        characters = len(operation.loc.source.body) if operation.loc is not None else LONGEST + 1
        if characters > LONGEST:
            return None
        seen = self._seen[id(operation)] = Seen(operation, characters)
        self.characters += characters
        self._make_room()
        return seen

    def _make_room(self) -> None:
        while len(self._seen) > 1 and (self.fields > self._most_fields or self.characters > self._most_characters):
            _, gone = self._seen.popitem(last=False)
            self.fields -= gone.fields
            self.characters -= gone.characters
