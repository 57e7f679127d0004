"""Running an operation: from the text of a request to an answer that can be sent."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from graphql import GraphQLError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from resolvers.context import Context
from schema.build import schema
from schema.failures import all_shown, bad_request, no_such_operation

Response = dict[str, Any]

READS = (OperationType.QUERY,)
ALL_BUT_SUBSCRIPTIONS = (OperationType.QUERY, OperationType.MUTATION)


async def respond(
    query: str,
    variables: Mapping[str, Any] | None,
    operation_name: str | None,
    context: Context,
    *,
    allowed: tuple[OperationType, ...] = ALL_BUT_SUBSCRIPTIONS,
) -> tuple[Response, bool]:
    """The response of a query or a mutation, and whether it was executed at all."""
    try:
        result = await schema.execute(
            query,
            dict(variables) if variables else None,
            context,
            operation_name=operation_name,
            allowed_operation_types=allowed,
        )
    except InvalidOperationTypeError as error:
        return _refusal(_wrong_way(error.operation_type)), False
    except CannotGetOperationTypeError as error:
        return _refusal(no_such_operation(error.operation_name)), False
    return _response(result), result.data is not None or not _before_execution(result)


async def stream(
    query: str, variables: Mapping[str, Any] | None, operation_name: str | None, context: Context
) -> AsyncGenerator[tuple[Response, bool], None]:
    """The responses of any operation, one after the other; with each, whether the operation was executed at all.

    The first says what the operation costs.
    """
    results: Any = await schema.stream(
        query, dict(variables) if variables else None, context, operation_name=operation_name
    )
    async with aclosing(results):
        first = True
        async for result in results:
            yield _response(result, costs=first), not _before_execution(result)
            first = False


def _response(result: Any, *, costs: bool = True) -> Response:
    errors = all_shown(result.errors)
    response: Response = {"data": result.data}
    if errors:
        response["errors"] = [error.formatted for error in errors]
    if costs and result.extensions:
        response["extensions"] = result.extensions
    return response


def _before_execution(result: Any) -> bool:
    """Whether nothing ran: the document was refused, or it has no such operation."""
    return result.data is None and any(error.path is None for error in result.errors or ())


def _refusal(error: GraphQLError) -> Response:
    return {"data": None, "errors": [error.formatted]}


def _wrong_way(kind: OperationType) -> GraphQLError:
    if kind is OperationType.SUBSCRIPTION:
        return bad_request("Subscriptions run over the WebSocket at /graphql or over SSE at /graphql/stream.")
    return bad_request("A mutation is sent by POST.")
