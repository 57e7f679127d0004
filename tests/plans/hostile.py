"""A schema that does everything wrong which a schema can do, over rows full of what must not be in them.

Relations, guards and derived fields are declared as Head AI declares its own; the rest is plain Strawberry.
"""

import asyncio
import enum
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import strawberry
from graphql import GraphQLError
from strawberry import UNSET
from strawberry.schema.config import StrawberryConfig

from dataloaders.batching import Batches, Loader
from plans.declared import Derived, value_of
from resolvers.inputs.scalars import JSON, SCALARS, BigInt
from schema.access import Guard
from schema.directives import ViewerDirective
from schema.failures import ApiError, Code
from schema.fields import computed, relation, shows

Info = strawberry.Info


@dataclass
class Context:
    """What one execution leaves behind: who was called where, how often, and what mutations did, in order."""

    world: "World"
    allowed: bool
    dataloaders: dict[Any, Batches] = field(default_factory=dict)
    principal: None = None
    calls: Counter[Any] = field(default_factory=Counter)
    done: list[str] = field(default_factory=list)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = 3


class Mood(enum.StrEnum):
    GOOD = "GOOD"
    BAD = "BAD"


strawberry.enum(Colour)
strawberry.enum(Mood)


class Told:
    """Says the same of itself in every execution."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Promise(Told):
    """Awaitable, as often as one likes."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        if isinstance(self.value, Broken):
            raise self.value
        return self.value


class Broken(Exception):
    pass


class Breaks(Told):
    """A list that breaks off in the middle."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        yield from self.items
        raise Broken("broken off")


class Flows(Told):
    """An asynchronous list, which may break off too."""

    def __init__(self, items: Sequence[Any], breaks: bool) -> None:
        self.items, self.breaks = items, breaks

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self.items:
            await asyncio.sleep(0)
            yield item
        if self.breaks:
            raise Broken("dried up")


class Thing(NamedTuple):
    id: Any
    name: Any
    number: Any
    ratio: Any
    flag: Any
    at: Any
    big: Any
    colour: Any
    mood: Any
    data: Any
    words: Any
    grid: Any
    friend_id: Any
    friend_ids: Any
    parts: Any
    friend: Any
    friends: Any
    any_one: Any
    any_ones: Any
    named: Any

    @property
    def moody(self) -> str:
        if self.number == 13:
            raise Broken("unlucky")
        return f"{self.name}!"


class Other(NamedTuple):
    id: Any
    name: Any
    number: Any
    thing_id: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise GraphQLError(f"no {name} here", extensions={"code": "OTHER"})


class Odd(Told):
    """No row: an object with attributes of its own."""

    def __init__(self, id: Any, name: Any, kind: Any) -> None:
        self.id, self.name, self.kind = id, name, kind


class Cast(Told):
    """Knows its type by itself, as graphql-core's default resolver looks for it."""

    def __init__(self, typename: Any, name: Any) -> None:
        self._Cast__typename = typename
        self.id = "cast"
        self.name = name


class World:
    """Rows made from a seed. The same seed makes the same world."""

    def __init__(self, seed: int, *, tame: float = 0.0) -> None:
        """`tame` is the share of values that are as they should be."""
        self.random = random.Random(seed)
        self.tame = tame
        self.things: list[Any] = []
        for number in range(8):
            self.things.append(self._thing(number))
        self.others = [self._other(number) for number in range(4)]
        self.by_id = {thing.id: thing for thing in self.things if isinstance(thing.id, (str, int))}
        self.answers: dict[Any, Any] = {}

    def answer(self, key: Any, usual: Sequence[Any], wrong: Sequence[Any]) -> Any:
        """What a resolver gives: drawn once, then always the same."""
        if key not in self.answers:
            draw = random.Random(f"{key} {self.random.getstate()[1][:3]}")
            self.answers[key] = draw.choice(usual if draw.random() < self.tame else [*usual, *wrong])
        return self.answers[key]

    def _of(self, usual: Sequence[Any], *wrong: Any) -> Any:
        return self.random.choice(usual if self.random.random() < self.tame else [*usual, *wrong])

    def _some(self, most: int = 3) -> list[Any]:
        return [self._row() for _ in range(self.random.randrange(most))]

    def _row(self) -> Any:
        """One of what is there already, sometimes nothing of the kind."""
        known = self.things or [None]
        wrong = [
            None,
            Broken("no row"),
            Promise(known[0]),
            Odd(1, "odd", "Thing"),
            "text",
            5,
            {"id": 1, "name": "dict"},
        ]
        return self._of(known, *wrong)

    def _any(self) -> Any:
        casts = [Cast(name, "c") for name in ("Thing", "Nothing", "Query")]
        wrong = [*casts, Odd("o", "odd", "Thing"), None, 7, Promise(self._other(8)), Broken("any")]
        return self._of([*self.things, self._other(9)], *wrong)

    def _thing(self, number: int) -> Thing:
        of = self._of
        return Thing(
            id=of([f"t{number}", number], None, True, 1.5, Broken("id"), Promise(f"p{number}"), UNSET),
            name=of(["a", "ü", f"n{number}"], None, 5, True, Broken("name"), Promise("later"), Promise(None), b"x", ""),
            number=of([0, 1, -5, 2**31 - 1], None, 2**31, -(2**70), 1.0, 1.5, "3", "x", True, math.nan, 13),
            ratio=of([0.5, -1e300, 0.0], None, math.nan, math.inf, 3, 2**80, "0.25", "x", True, 10**400),
            flag=of([True, False], None, 0, 1, "x", 2.0, math.nan),
            at=of([datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)], None, "2026", datetime(2026, 1, 1), 5),
            big=of([2**62, 0, -1], None, 2**80, "9", 1.5, Promise(2**53), Broken("big")),
            colour=of([Colour.RED, Colour.BLUE, "green"], None, "RED", "mauve", 3, [], Mood.GOOD),
            mood=of([Mood.GOOD, "BAD"], None, "UGLY", 1, Promise(Mood.BAD), Promise("UGLY")),
            data=of([{"a": [1, 2.5, None]}, [], "x", 0, False], None, math.nan, {"x": math.inf}, 2**70, Promise([1])),
            words=of([["a", "b"], ("c",), []], None, [None], ["a", 5, Broken("w")], "abc", 5, Breaks(["a"]), Breaks([]),
                     Flows(["x", None], breaks=False), Flows(["x"], breaks=True), [Promise("p"), Promise(None)],
                     Promise(["late"]), {"k": 1}, Broken("words"), [Promise(Broken("inner")), "q"]),
            grid=of([[[1, 2], [3]], [], [[]]], None, [None, [1]], [[1, None], [2]], [[2**40], [1]], 5, [5],
                    [Promise([1, 2])], [[Promise(4)]], [Breaks([1])]),
            friend_id=of(["t0", "t1", 2, 3], None, "nobody", Broken("key")),
            friend_ids=of([("t0", "t1"), (), ("t2", "t2")], None, ("nobody",)),
            parts=of([[{"label": "l", "share": 0.5}], []], None, [{"label": None, "share": 1}], [{"share": "x"}],
                     [None], [{"label": "l", "share": 0.1}, Odd(1, "odd", None)], {"label": "x"}),
            friend=self._row(),
            friends=of([self._some()], None, 5, Breaks(self._some()), Flows(self._some(), breaks=False), (None,)),
            any_one=self._any(),
            any_ones=of([[self._any() for _ in range(3)]], None, [None], Promise([self._any()])),
            named=self._any(),
        )  # fmt: skip

    def _other(self, number: int) -> Other:
        return Other(
            self._of([f"o{number}"], None), self._of(["other"], None), self._of([1], "x"), self._of(["t0"], None)
        )


# ── How rows are loaded ─────────────────────────────────────────────────────────────────────────────────────────────


async def _things(context: Any, keys: Sequence[Any], args: Any) -> dict[Any, Any]:
    context.calls[("things", repr(args), tuple(map(repr, keys)))] += 1
    await asyncio.sleep(0)
    return {key: context.world.by_id[key] for key in keys if key in context.world.by_id}


async def _lists(context: Any, keys: Sequence[Any], args: Any) -> dict[Any, Any]:
    await asyncio.sleep(0)
    most = args or 10
    return {key: [context.world.by_id.get(one) for one in key][:most] for key in keys if key}


async def _nothing(context: Any, keys: Sequence[Any], args: Any) -> dict[Any, Any]:
    raise Broken("the loader failed")


broken = Loader(_nothing, lambda: None, None)
one_thing = Loader(_things, lambda: None, None)
many_things = Loader(_lists, list, None)


def most(first: Annotated[int | None, strawberry.argument(name="first")] = UNSET, fail: bool = False) -> Any:
    if fail:
        raise GraphQLError("told to fail", extensions={"code": "TOLD"})
    return first


class Allowed(Guard):
    directive = ViewerDirective()

    def denial(self, context: Any) -> ApiError | None:
        return None if context.allowed else ApiError(Code.FORBIDDEN, "Not for you.")


allowed = Allowed()


# ── Types ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def seen(info: Info, what: str) -> None:
    info.context.calls[(what, *info.path.as_list())] += 1


@strawberry.input
class Point:
    x: int = 0
    y: int | None = UNSET
    colour: Colour | None = None
    inner: list[int] | None = None


@strawberry.input(one_of=True)
class Either:
    name: strawberry.Maybe[str]
    number: strawberry.Maybe[int]


@strawberry.interface
class Named:
    name: str | None


def kind_of(value: Any, info: Any, type_: Any) -> Any:
    if isinstance(value, Odd):
        if value.kind is None:
            raise Broken("what is it?")
        return Promise("Weird")
    return "Weird"


@strawberry.interface
class Living:
    id: strawberry.ID | None


Living.__strawberry_definition__.resolve_type = kind_of  # type: ignore[attr-defined]


async def late_name(root: Any, info: Info) -> str:
    seen(info, "late_name")
    await asyncio.sleep(0)
    if root.number == 1:
        raise Broken("late")
    return "promised" if isinstance(root.name, Promise) else root.name  # type: ignore[no-any-return]


def early_number(root: Any, info: Info, times: int = 2, point: Point | None = None, colours: list[Colour] = ()) -> Any:  # type: ignore[assignment]
    seen(info, "early_number")
    if point is not None and point.x == 3:
        return Broken("returned")
    return [times, root.number, None if point is None else (point.x, repr(point.y), point.colour), list(colours)]


def either(root: Any, info: Info, by: Either) -> str:
    seen(info, "either")
    return repr((by.name, by.number))


def own_words(root: Any) -> Any:
    return root.words


def derived(function: Any) -> Any:
    return strawberry.field(resolver=function, metadata={Derived: Derived(function)})


def label_of(root: Any) -> str:
    return f"<{root.name}>"


def risky_of(root: Any) -> int:
    return 10 // root.number  # type: ignore[no-any-return]


@strawberry.type
class Part:
    label: str
    share: float


@strawberry.type(name="Thing")
class ThingType(Named):
    id: strawberry.ID
    number: int
    maybe_number: int | None = strawberry.field(name="maybeNumber", resolver=lambda root: root.number)
    ratio: float | None
    flag: bool | None
    at: datetime | None
    big: BigInt | None
    colour: Colour | None
    mood: Mood
    data: JSON | None
    words: list[str]
    maybe_words: list[str | None] | None = strawberry.field(resolver=own_words)
    grid: list[list[int] | None] | None
    moody: str | None
    parts: list[Part]
    label: str = derived(label_of)
    risky: int | None = derived(risky_of)
    secret: str | None = strawberry.field(extensions=[allowed])
    secret_number: int = computed(lambda root: root.number, guard=allowed)
    friend: Annotated["ThingType", strawberry.lazy(__name__)] | None
    friends: list[Annotated["ThingType", strawberry.lazy(__name__)] | None] | None
    linked: Annotated["ThingType", strawberry.lazy(__name__)] | None = relation(one_thing, by="friend_id")
    must_link: Annotated["ThingType", strawberry.lazy(__name__)] = relation(one_thing, by="friend_id")
    some: list[Annotated["ThingType", strawberry.lazy(__name__)]] = relation(many_things, by="friend_ids", args=most)
    lost: Annotated["ThingType", strawberry.lazy(__name__)] | None = relation(broken, by="friend_id")
    guarded: Annotated["ThingType", strawberry.lazy(__name__)] | None = relation(
        one_thing, by="friend_id", guard=allowed
    )
    late_name: str = computed(late_name)
    early: JSON | None = computed(early_number)
    either: str | None = computed(either)
    any_one: Annotated[Annotated["ThingType", strawberry.lazy(__name__)] | Annotated["OtherType", strawberry.lazy(__name__)], strawberry.union("AnyOne")] | None  # fmt: skip  # noqa: E501
    any_ones: list[Annotated["Anything", strawberry.lazy(__name__)]]  # type: ignore[type-arg]
    named: Named | None
    is_type_of = shows(Thing)


@strawberry.type(name="Other")
class OtherType(Named):
    id: strawberry.ID | None
    number: int
    thing: ThingType | None = relation(one_thing, by="thing_id")
    surprise: str | None
    is_type_of = shows(Other)


@strawberry.type
class Weird(Living):
    """Decides slowly whether it is one."""

    name: str | None

    @classmethod
    def is_type_of(cls, value: Any, info: Any) -> Any:
        return Promise(not isinstance(value, (str, Thing)))


@strawberry.type
class Dreary:
    """Decides quickly, by its value."""

    name: str | None
    number: int | None

    @classmethod
    def is_type_of(cls, value: Any, info: Any) -> bool:
        if value == "text":
            raise Broken("is_type_of")
        return getattr(value, "number", None) != 0


Anything = Annotated[ThingType | OtherType, strawberry.union("Anything")]


def _given(info: Info, what: str, usual: Sequence[Any], *wrong: Any) -> Any:
    seen(info, what)
    return info.context.world.answer((what, *info.path.as_list()), usual, wrong)


async def flow(upto: int = 3) -> Any:
    for number in range(min(upto, 5)):
        await asyncio.sleep(0)
        yield number


@strawberry.type
class Query:
    @strawberry.field
    def thing(self, info: Info) -> ThingType:
        return _given(info, "thing", info.context.world.things, None, Broken("thing"))  # type: ignore[no-any-return]

    @strawberry.field
    async def maybe_thing(self, info: Info, id: strawberry.ID | None = None) -> ThingType | None:
        await asyncio.sleep(0)
        things = info.context.world.things
        return _given(info, "maybe", things, None, "text", 5, Broken("maybe"))  # type: ignore[no-any-return]

    @strawberry.field
    async def things(self, info: Info, first: int = 3) -> list[ThingType]:
        seen(info, "things")
        return info.context.world.things[: max(0, first)]  # type: ignore[no-any-return]

    @strawberry.field
    def perhaps(self, info: Info, first: int = 3) -> list[ThingType | None] | None:
        seen(info, "perhaps")
        return [*info.context.world.things[: max(0, first)], None, "text"]  # type: ignore[return-value]

    @strawberry.field
    def anything(self, info: Info) -> list[Anything | None]:  # type: ignore[valid-type]
        seen(info, "anything")
        world = info.context.world
        return [*world.things[:2], *world.others[:2], world.things[0]]  # type: ignore[no-any-return]

    @strawberry.field
    def names(self, info: Info) -> list[Named]:
        world = info.context.world
        return [*world.things[2:4], *world.others]

    @strawberry.field
    def living(self, info: Info) -> list[Living | None]:
        seen(info, "living")
        return _given(info, "living", [[Odd("1", "w", "Weird")]], [Odd("2", "w", None), "text", None], ["text"])  # type: ignore[no-any-return]

    @strawberry.field
    def dreary(self, info: Info) -> list[Dreary | None]:
        return [*info.context.world.things[:4], "text"]

    @strawberry.field
    async def count(self, info: Info, fail: bool = False) -> int:
        seen(info, "count")
        if fail:
            raise ApiError(Code.BAD_REQUEST, "asked to fail", user_code="ASKED")
        return 7

    @strawberry.field(extensions=[allowed])
    async def private(self, info: Info) -> str | None:
        seen(info, "private")
        return "secret"

    flow: list[int] = strawberry.field(resolver=flow)


@strawberry.type
class Payload:
    thing: ThingType | None
    must: ThingType
    errors: list[str]


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def change(self, info: Info, point: Point) -> Payload | None:
        info.context.done.append(f"change {point.x}")
        await asyncio.sleep(0)
        if point.x == 2:
            raise Broken("change")
        thing = info.context.world.things[0]
        return {"thing": thing, "must": thing if point.x else None, "errors": []}  # type: ignore[return-value]

    @strawberry.mutation
    def add(self, info: Info, number: int = 1) -> int:
        info.context.done.append(f"add {number}")
        if number == 3:
            raise Broken("add")
        return number + 1

    @strawberry.mutation
    def touch(self, info: Info) -> ThingType:
        info.context.done.append("touch")
        return info.context.world.things[1]  # type: ignore[no-any-return]


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def watch(self, info: Info, times: int = 2) -> AsyncIterator[ThingType]:
        for number in range(min(max(times, 0), 4)):
            await asyncio.sleep(0)
            info.context.dataloaders.clear()
            yield info.context.world.things[number]

    @strawberry.subscription
    async def ticks(self, info: Info) -> AsyncIterator[int | None]:
        for number in (1, None, 2**40):
            yield number


class HostileSchema(strawberry.Schema):
    def process_errors(self, errors: Any, execution_context: Any = None) -> None:
        """The tests look at them."""


def schema_with(executor: type | None) -> strawberry.Schema:
    return HostileSchema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[ThingType, OtherType, Weird, Dreary],
        execution_context_class=executor,
        config=StrawberryConfig(default_resolver=value_of, scalar_map=SCALARS),
    )
