"""Random operations over the hostile schema, through both executors: zero differences."""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from pkgutil import iter_modules
from typing import Any, ClassVar

import pytest
import strawberry
from graphql import DocumentNode, ExecutionResult, GraphQLError, execute, parse, subscribe
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

import plans
from plans import compiler, leaves, shapes
from plans import run as run_module
from plans.cache import Plans
from plans.compiler import Plan
from plans.executor import PlanningExecutor
from plans.selection import Selection
from plans.shapes import ListOf
from plans.steps import Step
from tests.plans.comparing import difference
from tests.plans.hostile import Context, World, schema_with
from tests.plans.operations import Drawn, operation

pytestmark = [  # where a null bubbles, graphql-core drops what it has not yet awaited
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Core(StrawberryGraphQLCoreExecutionContext):
    @classmethod
    def build(cls, *args: Any, **named: Any) -> Any:
        return super().build(*args, **{**named, "hide_suggestions": True})


class Unbubbled(Core):
    """Tells every error: no null bubbles."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.error_propagation = False


class Planned(PlanningExecutor):
    plans: ClassVar[Plans]
    taken: ClassVar[list[bool]] = []

    def decided(self, plan: Plan | None) -> None:
        self.taken.append(plan is not None)


CORE, UNBUBBLED, PLANNED = (schema_with(executor) for executor in (Core, Unbubbled, Planned))
KINDS = ("query", "query", "query", "query", "mutation", "subscription")


def scalar(chance: random.Random, type_: str, name: str) -> Any:
    match type_:
        case "Int":
            return chance.choice([0, 1, 2, 3, -1, 2**31 - 1])
        case "Float":
            return chance.choice([0.5, 1, -2.0])
        case "Boolean":
            return chance.random() < 0.3
        case "ID":
            return chance.choice(["t0", "t1", 5])
    return chance.choice(["", "a", 'quo"te', "ü"])


async def run(
    schema: strawberry.Schema, document: DocumentNode, variables: dict[str, Any], world: World, allowed: bool
) -> tuple[list[Any], Context]:
    """Every result of the operation, and what the execution left behind."""
    context = Context(world, allowed)
    subscribes = "subscription" in document.loc.source.body.partition("{")[0]  # type: ignore[union-attr]
    result: Any = (subscribe if subscribes else execute)(
        schema._schema,
        document,
        context_value=context,
        variable_values=variables,
        is_awaitable=optimized_is_awaitable,
        executor_class=schema.execution_context_class,  # type: ignore[arg-type]
    )
    if optimized_is_awaitable(result):
        result = await result
    return [result] if isinstance(result, ExecutionResult) else [one async for one in result], context


async def compared(drawn: Drawn, seed: int, tame: float) -> str | None:
    """What is different, in words, or None. Where there are flags, they are turned over for a second execution."""
    Planned.plans, document = Plans(sightings=1), parse(drawn.document)
    flipped = {name: not value if isinstance(value, bool) else value for name, value in drawn.variables.items()}
    given = [drawn.variables, *([flipped] if flipped != drawn.variables else [])]
    for variables in given:
        different = await _compared(document, variables, seed, tame)
        if different is not None:
            return f"{variables}: {different}"
    return None


async def _compared(document: DocumentNode, variables: dict[str, Any], seed: int, tame: float) -> str | None:
    allowed = seed % 3 > 0
    core, told = await run(CORE, document, variables, World(seed, tame=tame), allowed)
    answered, ours = await run(PLANNED, document, variables, World(seed, tame=tame), allowed)
    every: Sequence[Any] = ()
    if repr([one.errors for one in core]) != repr([one.errors for one in answered]):
        every, _ = await run(UNBUBBLED, document, variables, World(seed, tame=tame), allowed)
    if len(core) != len(answered):
        return f"{len(core)} results and {len(answered)}"
    for number, (one, other) in enumerate(zip(core, answered, strict=True)):
        errors: list[GraphQLError] | None = every[number].errors if number < len(every) else None
        different = difference(one, other, errors or [])
        if different is not None:
            return different
    if told.done != ours.done:
        return f"mutations {told.done} and {ours.done}"
    if all(not one.errors for one in core) and told.calls != ours.calls:
        return f"calls {told.calls - ours.calls} and {ours.calls - told.calls}"
    return None


async def search(seeds: Iterable[int]) -> str | None:
    """The first seed whose operation is answered differently, and how."""
    for seed in seeds:
        chance = random.Random(seed)
        drawn = operation(CORE._schema, chance, scalar, kinds=KINDS, room=chance.choice([4, 10, 25]))
        different = await compared(drawn, seed, tame=chance.choice([0.0, 0.6, 0.9, 1.0]))
        if different is not None:
            return f"seed {seed}\n{drawn.document}\n{different}"
    return None


async def test_both_executors_answer_alike(seeds: Callable[[int], Iterable[int]]) -> None:
    Planned.taken.clear()

    assert await search(seeds(250)) is None
    assert sum(Planned.taken) / len(Planned.taken) > 0.95, "hardly any of it was planned"


def _without_a_word(executor: Any, serially: bool | None = None) -> Any:
    """Runs an operation twice."""
    plan = executor.plan()

    async def both() -> Any:
        await plan.execute(executor)
        return await plan.execute(executor)

    return both()


def _first_plan(plans: Plans, executor: Any, *, learn: bool) -> Any:
    """Takes any plan of the operation, whatever the flags."""
    kept = plans.__dict__.setdefault("kept", {})
    if id(executor.operation) not in kept:
        kept[id(executor.operation)] = executor.operation, USUAL_OF(plans, executor, learn=learn)
    return kept[id(executor.operation)][1]


USUAL_OF = Plans.of


def _next_place(shape: Any, value: Any, path: Any, run: Any) -> Any:
    return [shape.item.settle(item, [*path, index + 1], run) for index, item in enumerate(value)]


async def _silent(awaitable: Any) -> Any:
    try:
        return await awaitable
    except Exception:
        return None


BUGS: dict[str, tuple[Any, str, Any]] = {
    "cache: a plan for other flags": (Plans, "of", _first_plan),
    "compiler: a mutation goes on after the answer is lost": (compiler, "_fails", lambda *_: False),
    "declared: every row is shown by every type": (shapes, "rows_shown_by", lambda _: (object,)),
    "executor: everything runs twice": (PlanningExecutor, "execute_operation", _without_a_word),
    "leaves: NaN is a number": (leaves, "BUILT_IN", leaves.BUILT_IN | {"Float": "v if type(v := {read}) is float"}),
    "run: what is awaited never fails": (run_module, "outcome", _silent),
    "selection: plain fields are never null": (Selection, "add_constant", lambda self, key, value: None),
    "shapes: errors in lists are told of the next item": (ListOf, "settled", _next_place),
    "steps: guards are not asked": (Step, "_denied", lambda self, run: None),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, planted = BUGS[bug]
    monkeypatch.setattr(target, name, planted)

    assert await search(range(250)) is not None


def test_there_is_a_bug_for_every_module() -> None:
    modules = {module.name for module in iter_modules(plans.__path__)}

    assert {bug.partition(":")[0] for bug in BUGS} == modules - {"plain_data"}, "plain_data has a test of its own"


if __name__ == "__main__":
    import sys

    print(asyncio.run(search(range(int(sys.argv[1]), int(sys.argv[2])))))  # noqa: T201
