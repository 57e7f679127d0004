"""Documents measured, parsed and validated once: the texts met before go straight to execution.

Parsing and validating a document costs more than running most queries. Valid documents are kept by their exact text,
bounded in number and length; what was refused is not remembered.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from graphql import DocumentNode, FieldNode, GraphQLError, OperationDefinitionNode, Visitor, visit
from strawberry.extensions import SchemaExtension
from strawberry.schema.schema import validate_document

from resolvers.context import Context
from schema.failures import ApiError, Code, bad_request, unauthenticated
from schema.measure import MAX_TOKENS, excess

MAX_DOCUMENTS = 1024
MAX_LENGTH = 16_384


class Known(NamedTuple):
    document: DocumentNode
    introspects: bool


_known: OrderedDict[str, Known] = OrderedDict()


class DocumentCache(SchemaExtension):
    """Also asks whether this caller may read the schema: the one question about a document that is about a caller."""

    def on_parse(self) -> Iterator[None]:
        self.execution_context.parse_options["max_tokens"] = MAX_TOKENS
        known = _known.get(self.execution_context.query or "")
        if known is not None:
            _known.move_to_end(self.execution_context.query or "")
            self.execution_context.graphql_document = known.document
        yield

    def on_validate(self) -> Iterator[None]:
        execution = self.execution_context
        assert execution.graphql_document is not None
        known = _known.get(execution.query or "")
        errors: list[GraphQLError] = []
        if known is None:
            document = execution.graphql_document
            too_much = excess(document, execution.context.services.limits)
            if too_much is not None:
                errors = [bad_request(too_much)]
            else:
                errors = list(validate_document(execution.schema._schema, document, execution.validation_rules))
            if not errors:
                known = _remembered(execution.query or "", document)
        if known is not None and known.introspects:
            refusal = _may_not_introspect(execution.context)
            errors = [refusal] if refusal is not None else []
        if not errors and execution._provided_operation_name is None and _operations(execution.graphql_document) > 1:
            errors = [bad_request("The document has several operations: name the one to run by `operationName`.")]
        execution.pre_execution_errors = errors
        yield


def _operations(document: DocumentNode) -> int:
    return sum(isinstance(definition, OperationDefinitionNode) for definition in document.definitions)


def _remembered(text: str, document: DocumentNode) -> Known:
    known = Known(document, introspects(document))
    if len(text) <= MAX_LENGTH:
        _known[text] = known
        if len(_known) > MAX_DOCUMENTS:
            _known.popitem(last=False)
    return known


def introspects(document: DocumentNode) -> bool:
    """Whether a document asks for `__schema` or `__type` anywhere."""
    found = False

    class Fields(Visitor):
        def enter_field(self, node: FieldNode, *_: object) -> None:
            nonlocal found
            found = found or node.name.value in ("__schema", "__type")

    visit(document, Fields())
    return found


def _may_not_introspect(context: Context) -> GraphQLError | None:
    match context.services.introspection:
        case "off":
            return ApiError(Code.FORBIDDEN, "Introspection is switched off here (HEADAI_INTROSPECTION).")
        case "signed-in" if context.principal is None:
            return unauthenticated(context.rejected)
    return None
