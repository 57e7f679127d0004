"""The short way through lists of plain data gives exactly what graphql-core gives, errors included."""

from typing import Any

import pytest
import strawberry
from strawberry.schema.config import StrawberryConfig

from plans.declared import value_of
from plans.plain_data import PlainDataExecutor
from resolvers.inputs.scalars import JSON, SCALARS


@strawberry.type
class Share:
    label: str
    share: float


@strawberry.type
class Output:
    value: JSON
    row_number: int
    shares: list[Share] | None
    names: list[str] | None

    @strawberry.field
    def doubled(root: Any) -> int:  # type: ignore[misc]
        return 2 * int(root["row_number"])


GOOD: list[Any] = [
    {
        "value": n / 3,
        "row_number": n,
        "names": None,
        "shares": [{"label": "a", "share": 0.25}, {"label": "b", "share": 1}],
    }
    for n in range(3)
]
DATA: dict[str, list[Any]] = {
    "good": GOOD,
    "empty": [],
    "null item": [GOOD[0], None],
    "null value": [GOOD[0], {**GOOD[1], "value": None}],
    "missing value": [{"row_number": 1}],
    "wrong type": [GOOD[0], {**GOOD[1], "row_number": "x"}],
    "null inside": [{**GOOD[0], "shares": [{"label": None, "share": 1.0}]}],
    "no shares": [{**GOOD[0], "shares": None}],
    "no list": [{**GOOD[0], "shares": 5}],
}
DOCUMENTS = [
    "{ outputs { value } }",
    "{ outputs { value rowNumber shares { label share } names } }",
    "{ outputs { again: value value ...More } } fragment More on Output { shares { share } shares { label } }",
    "{ outputs { __typename value shares { __typename label } } }",
    "{ outputs { value doubled } }",
    "{ outputs { value @skip(if: true) rowNumber @include(if: true) } }",
    "{ outputs @include(if: true) { value } }",
    "{ perhaps { value shares { label } } }",
]


def schema_with(executor: Any) -> strawberry.Schema:
    @strawberry.type
    class Query:
        @strawberry.field
        async def outputs(self, info: strawberry.Info) -> list[Output]:
            return info.context  # type: ignore[no-any-return]

        @strawberry.field
        async def perhaps(self, info: strawberry.Info) -> list[Output | None] | None:
            return info.context  # type: ignore[no-any-return]

    class Quiet(strawberry.Schema):
        def process_errors(self, errors: Any, execution_context: Any = None) -> None:
            pass

    config = StrawberryConfig(default_resolver=value_of, scalar_map=SCALARS)
    return Quiet(query=Query, execution_context_class=executor, config=config)


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
@pytest.mark.parametrize("document", DOCUMENTS)
async def test_both_ways_give_the_same_answer(document: str, data: list[Any]) -> None:
    short, ordinary = [
        await schema_with(executor).execute(document, context_value=data) for executor in (PlainDataExecutor, None)
    ]

    assert short.data == ordinary.data
    assert [str(error) for error in short.errors or ()] == [str(error) for error in ordinary.errors or ()]


async def test_plain_lists_are_completed_without_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the short way is not taken at all."""
    seen: list[str] = []
    executed = PlainDataExecutor.execute_field

    def execute_field(self: Any, parent_type: Any, *arguments: Any) -> Any:
        seen.append(parent_type.name)
        return executed(self, parent_type, *arguments)

    monkeypatch.setattr(PlainDataExecutor, "execute_field", execute_field)

    result = await schema_with(PlainDataExecutor).execute(DOCUMENTS[1], context_value=GOOD)

    assert result.errors is None
    assert seen == ["Query"]
