"""Documents measured, priced, parsed and validated once: the texts met before go straight to execution.

Parsing and validating a document costs more than running most queries. Valid documents are kept by their exact text,
bounded in number and length; what was refused is not remembered.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    Visitor,
    get_operation_ast,
    specified_rules,
    validate,
    visit,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from auth.permissions import Permission
from events.budgets import OverBudget
from resolvers.context import Charge, Context
from schema.failures import ApiError, Code, bad_request, forbidden, over_budget, unauthenticated
from schema.measure import MAX_TOKENS, Measured, TooLarge, measured

MAX_DOCUMENTS = 1024
MAX_LENGTH = 16_384
RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


class Known(NamedTuple):
    document: DocumentNode
    introspects: bool
    measured: Measured


_known: OrderedDict[str, Known] = OrderedDict()


class DocumentCache(SchemaExtension):
    """Also asks what is about a caller: whether this one may read the schema, and has the points that it costs."""

    def on_parse(self) -> Iterator[None]:
        self.execution_context.parse_options["max_tokens"] = MAX_TOKENS
        known = _known.get(self.execution_context.query or "")
        if known is not None:
            _known.move_to_end(self.execution_context.query or "")
            self.execution_context.graphql_document = known.document
        yield

    async def on_validate(self) -> AsyncIterator[None]:
        execution = self.execution_context
        assert execution.graphql_document is not None
        known = _known.get(execution.query or "")
        errors: list[GraphQLError] = []
        if known is None:
            document = execution.graphql_document
            try:
                size = measured(document, execution.schema._schema, execution.context.services.limits)
            except TooLarge as error:
                errors = [bad_request(str(error))]
            else:
                errors = validate(execution.schema._schema, document, RULES, hide_suggestions=True)
                if not errors:
                    known = _remembered(execution.query or "", document, size)
        if known is not None and known.introspects:
            refusal = _may_not_introspect(execution.context)
            errors = [refusal] if refusal is not None else []
        if not errors and execution._provided_operation_name is None and _operations(execution.graphql_document) > 1:
            errors = [bad_request("The document has several operations: name the one to run by `operationName`.")]
        if not errors and known is not None:
            refusal = await _charge(execution.context, known, execution.operation_name, execution.variables)
            errors = [refusal] if refusal is not None else []
        execution.pre_execution_errors = errors
        yield


def subscribes(text: str, operation: str | None) -> bool:
    """Whether this names a subscription that was met before and is remembered; for one that has yielded an item."""
    known = _known.get(text)
    chosen = get_operation_ast(known.document, operation) if known is not None else None
    return chosen is not None and chosen.operation is OperationType.SUBSCRIPTION


async def _charge(
    context: Context, known: Known, operation: str | None, variables: dict[str, Any] | None
) -> ApiError | None:
    """Take what the operation costs from the caller's budget, and note it; why it may not run, or None."""
    services = context.services
    cost = known.measured.cost(operation, variables)
    if cost > services.limits.max_cost:
        message = f"The operation costs {cost} points; at most {services.limits.max_cost} are taken."
        return ApiError(Code.COST_LIMIT, f"{message} Ask for fewer elements (`first`) or fewer levels.")
    try:
        context.charge = Charge(cost, await services.budgets.spend(context.account, cost))
    except OverBudget as error:
        context.charge = Charge(cost, error.balance)
        return over_budget(error)
    return None


def _operations(document: DocumentNode) -> int:
    return sum(isinstance(definition, OperationDefinitionNode) for definition in document.definitions)


def _remembered(text: str, document: DocumentNode, size: Measured) -> Known:
    known = Known(document, introspects(document), size)
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
        case "signed-in" | "system-read" if context.principal is None:
            return unauthenticated(context.rejected)
        case "system-read" if not context.may(Permission.SYSTEM_READ):
            return forbidden(Permission.SYSTEM_READ)
    return None
