"""Every operation we hand to users is valid against the schema we serve, and so are its example variables."""

import re
from pathlib import Path

import pytest
from graphql import (
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    build_schema,
    get_variable_values,
    parse,
    validate,
)
from graphql.language import FieldNode, Visitor, visit

from headai.operations import document, examples, names

SCHEMA = Path(__file__).parents[1] / "schema.graphql"
IDS = {"project", "dataset", "datasetversion", "upload", "run", "model", "modelversion"}
WITHOUT_AN_EXAMPLE = {"Login", "Logout", "RefreshTokens", "FindDataset"}  # the explorer's sign-in bar, and a push


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema(SCHEMA.read_text(encoding="utf-8"))


def operation(name: str) -> OperationDefinitionNode:
    (definition,) = parse(document(name)).definitions
    assert isinstance(definition, OperationDefinitionNode)
    return definition


@pytest.mark.parametrize("name", names())
def test_an_operation_is_valid_and_named_as_its_file(name, schema):
    assert validate(schema, parse(document(name))) == []
    definition = operation(name)
    assert definition.name is not None
    assert definition.name.value == name
    assert document(name).startswith("# ")


MUTATIONS = [name for name in names() if operation(name).operation is OperationType.MUTATION]


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_selects_what_the_caller_can_fix(name):
    (field,) = operation(name).selection_set.selections
    assert isinstance(field, FieldNode)
    assert field.selection_set is not None
    errors = next(
        selection
        for selection in field.selection_set.selections
        if isinstance(selection, FieldNode) and selection.name.value == "errors"
    )
    assert errors.selection_set is not None
    selected = {
        selection.name.value for selection in errors.selection_set.selections if isinstance(selection, FieldNode)
    }
    assert selected >= {"__typename", "code", "message", "path"}


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.operation)
def test_example_variables_fit_their_operation(example, schema):
    values = get_variable_values(schema, operation(example.operation).variable_definitions or (), example.variables)

    assert not isinstance(values, list), values


def test_each_operation_has_one_example_whose_placeholders_are_ids_a_user_meets():
    assert sorted(example.operation for example in examples()) == sorted(set(names()) - WITHOUT_AN_EXAMPLE)
    placeholders = set(re.findall(r'"\$([a-z]+)"', (SCHEMA.parent / "headai/operations/examples.json").read_text()))
    assert placeholders <= IDS


@pytest.mark.parametrize("name", names())
def test_an_operation_stays_well_inside_the_limits(name):
    """Depth 12 and 1,000 tokens are the server's limits."""
    depths: list[int] = [0]

    class Depth(Visitor):
        def enter_selection_set(self, *_):
            depths.append(depths[-1] + 1)

        def leave_selection_set(self, *_):
            deepest.append(depths.pop())

    deepest: list[int] = []
    visit(parse(document(name)), Depth())
    assert max(deepest) <= 8
    assert len(re.findall(r"\w+|[^\s\w]", document(name))) < 500
