"""Which operations get a plan, how many of them are kept, and who decides it."""

import re
from dataclasses import replace
from typing import Any

import pytest
from graphql import OperationDefinitionNode, parse
from graphql.execution import Executor as CoreExecutor

from headai.operations import document, names
from monitoring.metrics import METRICS
from plans.cache import LONGEST, Plans
from plans.compiler import MAX_CHOICES, MAX_FIELDS
from schema.build import schema
from schema.execution import respond
from schema.executor import Executor

FLAGGED = """
query Flagged($a: Boolean!, $b: Boolean! = true) {
  viewer { permissions @skip(if: $a) __typename @include(if: $b) }
}"""


def executor(text: str, **variables: Any) -> CoreExecutor[Any]:
    made = Executor.build(schema._schema, parse(text), raw_variable_values=variables)
    assert isinstance(made, CoreExecutor), made
    return made


@pytest.mark.parametrize("name", names())
def test_every_operation_we_hand_out_is_planned(name: str) -> None:
    (definition,) = parse(document(name)).definitions
    assert isinstance(definition, OperationDefinitionNode)
    built = Executor(schema._schema, {}, {}, None, None, definition, _no_values(definition), *([lambda *_: None] * 3))

    assert Plans(sightings=1).of(built, learn=True) is not None


def _no_values(definition: OperationDefinitionNode) -> Any:
    from graphql.execution.values import VariableValues

    assert not any(directive for directive in definition.directives or ()), "a flag would need its variable"
    return VariableValues({}, {})


def test_an_operation_is_compiled_when_it_is_seen_the_third_time() -> None:
    plans, seen = Plans(), executor("{ viewer { permissions } }")

    assert [plans.of(seen, learn=True) is not None for _ in range(4)] == [False, False, True, True]


def test_whoever_does_not_count_neither_makes_a_plan_nor_pushes_one_out() -> None:
    plans, seen = Plans(sightings=1), executor("{ viewer { permissions } }")

    assert plans.of(seen, learn=False) is None
    assert (len(plans), plans.characters) == (0, 0)
    made = plans.of(seen, learn=True)
    assert made is not None
    assert plans.of(seen, learn=False) is made


@pytest.mark.parametrize(
    "text",
    [
        "{ __schema { queryType { name } } }",
        '{ __type(name: "Query") { name } viewer { permissions } }',
        "{ viewer { permissions } #" + "x" * LONGEST + "\n}",
        "{ "
        + " ".join(f"a{n}: nodes(ids: []) {{ id ... on Dataset {{ name }} }}" for n in range(MAX_FIELDS // 8))
        + " }",
    ],
    ids=["introspection", "introspection of a type", "too long", "too many fields"],
)
def test_graphql_core_runs_the_rest(text: str) -> None:
    assert Plans(sightings=1).of(executor(text), learn=True) is None


def test_each_choice_of_flags_has_a_plan_of_its_own() -> None:
    plans, (definition,) = Plans(sightings=1), parse(FLAGGED).definitions

    def of(**variables: Any) -> Any:
        made = executor(FLAGGED, **variables)
        made.operation = definition  # type: ignore[assignment]
        return plans.of(made, learn=True)

    assert of(a=True) is of(a=True, b=True)
    assert of(a=True) is not of(a=False)
    assert of(a=True, b=False) is not of(a=True)
    assert plans.fields == 3 + 1 + 2  # viewer; and per choice what is left: __typename; both; nothing


def test_an_operation_has_a_bounded_number_of_choices() -> None:
    flags = [f"$v{n}: Boolean!" for n in range(6)]
    fields = [f"a{n}: permissions @skip(if: $v{n})" for n in range(6)]
    text = f"query Many({', '.join(flags)}) {{ viewer {{ __typename {' '.join(fields)} }} }}"
    plans, (definition,) = Plans(sightings=1), parse(text).definitions
    made = 0
    for choice in range(64):
        one = executor(text, **{f"v{n}": bool(choice >> n & 1) for n in range(6)})
        one.operation = definition  # type: ignore[assignment]
        made += plans.of(one, learn=True) is not None

    assert made == MAX_CHOICES


def test_plans_are_bounded_and_the_longest_unused_goes_first() -> None:
    plans = Plans(fields=10, sightings=1)
    seen = [executor(f"{{ viewer {{ a{n}: permissions b: permissions }} }}") for n in range(5)]
    first = plans.of(seen[0], learn=True)
    for one in (seen[1], seen[2], seen[0], seen[3]):
        plans.of(one, learn=True)

    assert (len(plans), plans.fields) == (3, 9)
    assert plans.of(seen[0], learn=False) is first
    assert plans.of(seen[1], learn=False) is None

    few = Plans(characters=100, sightings=9)
    for one in seen:
        few.of(one, learn=True)
    assert few.characters <= 100


async def test_callers_who_did_not_sign_in_use_plans_and_make_none(
    context_of: Any, admin: Any, services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = Plans(sightings=1)
    monkeypatch.setattr(Executor, "plans", plans)
    planned = replace(services, executor="plans")
    anonymous, known = (replace(context_of(who), services=planned) for who in (None, admin))
    query = "{ serviceInfo { limits { maxDepth maxAliases } } }"

    def executions() -> dict[str, float]:
        body = METRICS.exposition()[0].decode()
        return {
            name: float(count) for name, count in re.findall(r'headai_executions_total{executor="(\w+)"} (\S+)', body)
        }

    before = executions()
    answers = [(await respond(query, None, None, context))[0]["data"] for context in (anonymous, known, anonymous)]

    assert answers == [{"serviceInfo": {"limits": {"maxDepth": 12, "maxAliases": 30}}}] * 3
    assert len(plans) == 1
    after = executions()
    assert after["core"] - before.get("core", 0) == 1
    assert after["plans"] - before.get("plans", 0) == 2


async def test_core_can_be_asked_for(
    context_of: Any, admin: Any, services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = Plans(sightings=1)
    monkeypatch.setattr(Executor, "plans", plans)
    context = replace(context_of(admin), services=replace(services, executor="core"))

    answer, _ = await respond("{ viewer { user { username } } }", None, None, context)

    assert answer["data"] == {"viewer": {"user": {"username": "ada"}}}
    assert len(plans) == 0
