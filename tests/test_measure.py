"""Documents that are too large are refused before they cost anything, in time that grows with their length."""

import pytest

from tests.conftest import Execute


async def refusal(execute: Execute, principal, document: str) -> str:
    answer = await execute(document, principal=principal)
    assert answer["data"] is None
    [error] = answer["errors"]
    assert error["extensions"]["code"] == "BAD_REQUEST"
    return str(error["message"])


def deep(levels: int) -> str:
    return "{ a " * levels + "}" * levels


def bomb(levels: int) -> str:
    """Each fragment spreads the next one twice: a few hundred bytes that stand for 2^levels fields."""
    fragments = [f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(levels)]
    return "\n".join(["{ ...F0 }", *fragments, f"fragment F{levels} on Query {{ a: __typename b: __typename }}"])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (deep(13), "The operation is 13 levels deep; at most 12 are taken."),
        (deep(150), "The operation is 150 levels deep; at most 12 are taken."),
        (
            "{" + " ".join(f"a{n}: __typename" for n in range(31)) + "}",
            "The operation has 31 aliases; at most 30 are taken.",
        ),
        (bomb(4), "The operation has 32 aliases; at most 30 are taken."),
        (bomb(20), "The document selects `a` more than 20 times in one place."),
        ("{" + " __typename" * 21 + "}", "The document selects `__typename` more than 20 times in one place."),
        ("{ __typename" + " @skip(if: false)" * 9 + "}", "There are 9 directives in one place; at most 8 are taken."),
        (
            " ".join(f"query Q{n} {{ __typename }}" for n in range(21)),
            "The document has 21 operations; at most 20 are taken.",
        ),
    ],
)
async def test_what_is_too_large_is_refused_in_words(execute, admin, document, message):
    assert await refusal(execute, admin, document) == message


async def test_a_thousand_tokens_are_read_and_no_more(execute, admin):
    message = await refusal(execute, admin, "{" + " __typename" * 1000 + "}")

    assert message == "Syntax Error: Document contains more than 1000 tokens. Parsing aborted."


async def test_fragments_that_spread_themselves_are_refused_by_the_validation(execute, admin):
    answer = await execute("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }", principal=admin)

    assert answer["errors"][0]["message"] == "Cannot spread fragment 'A' within itself via 'B'."


@pytest.mark.parametrize(
    "document",
    [
        "{ a: __schema { types { name } } }",
        "{ __schema { a: types { name } b: types { name } } }",
        "{ __schema { ...S } } fragment S on __Schema { types { fields { a: type { name } } } }",
        '{ __type(name: "Query") { a: fields { name } } }',
    ],
)
async def test_introspection_goes_through_the_schema_once(execute, admin, document):
    assert await refusal(execute, admin, document) == (
        "Introspection takes no aliases, but on `__type`: each would go through the schema again."
    )
    several = await execute('{ a: __type(name: "Query") { name } b: __type(name: "Job") { name } }', principal=admin)
    assert several["data"]["a"] == {"name": "Query"}


async def test_depth_counts_through_fragments_and_introspection_is_not_measured(execute, admin):
    through = "{ viewer { ...V } } fragment V on Viewer { projects { nodes { id } } }"
    introspection = "{ __schema { types { fields { type " + "{ ofType " * 9 + "{ name }" + "}" * 9 + " } } } }"

    assert (await execute(through, principal=admin))["data"] == {"viewer": {"projects": {"nodes": []}}}
    assert "errors" not in await execute(introspection, principal=admin)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{ viewr { user { id } } }", "Cannot query field 'viewr' on type 'Query'."),
        ("{ projects(frst: 1) { nodes { id } } }", "Unknown argument 'frst' on field 'Query.projects'."),
        (
            "{ viewer { can(permission: RUN_CREAT) { allowed } } }",
            "Value 'RUN_CREAT' does not exist in 'Permission' enum.",
        ),
        ('{ node(id: "a") { ... on Projct { id } } }', "Unknown type 'Projct'."),
    ],
)
async def test_what_is_misspelt_gets_no_suggestion_of_what_there_is(execute, admin, document, message):
    assert await refusal(execute, admin, document) == message


async def test_neither_do_misspelt_variables(execute, admin):
    document = "query ($permission: Permission!) { viewer { can(permission: $permission) { allowed } } }"

    answer = await execute(document, principal=admin, permission="RUN_CREAT")

    [error] = answer["errors"]
    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert "RUN_CREATE" not in error["message"]
