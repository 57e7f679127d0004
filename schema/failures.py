"""What goes into the top-level `errors`: a code a program can act on, a message a person can.

What the caller can fix in its input is not here: it comes back in `payload.errors`. A fault of ours is logged whole and
shown as INTERNAL with the request id, so that nothing about us leaks.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum

import structlog
from graphql import GraphQLError
from strawberry.schema.exceptions import CannotGetOperationTypeError

from db.connections import DatabaseUnavailable
from db.database import Collided
from db.paging import InvalidCursor, InvalidPage
from db.rows import OutOfSight
from domain.refusals import Refused
from events.budgets import OverBudget
from events.cursors import CursorExpired, CursorInvalid
from ml.processes import ChildFailure, ChildRaised
from resolvers.context import PermissionRequired, SessionRequired, SignInRequired
from resolvers.inputs.scalars import show_duration
from storage.objects import StoreUnavailable

_log = structlog.get_logger(__name__)
_ECHOED = re.compile(r"(cannot represent (?:[^:]* )?value): .*|,? found: .*", re.DOTALL)


class Code(StrEnum):
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    COST_LIMIT = "COST_LIMIT"
    BAD_REQUEST = "BAD_REQUEST"
    SLOW_CONSUMER = "SLOW_CONSUMER"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class ApiError(GraphQLError):
    """An error of the API's own.

    `user_code` is a code of `ErrorCode` that says more; `cursor` is where a stream that ends can be gone on from.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        user_code: str | None = None,
        retry_after: timedelta | None = None,
        cursor: str | None = None,
    ) -> None:
        extensions: dict[str, object] = {"code": code}
        if user_code is not None:
            extensions["userCode"] = user_code
        if retry_after is not None:
            extensions["retryAfter"] = show_duration(retry_after)
        if cursor is not None:
            extensions["cursor"] = cursor
        super().__init__(message, extensions=extensions)


def unauthenticated(rejected: str | None = None) -> ApiError:
    """`rejected` says why the credentials that came were not accepted."""
    return ApiError(Code.UNAUTHENTICATED, rejected or "Sign in first: this needs an access token.")


def forbidden(permission: str, *, cursor: str | None = None) -> ApiError:
    """`cursor` is the place to go on from in a stream that ends because the permission is not held any more."""
    return ApiError(Code.FORBIDDEN, f"This needs the permission {permission}.", cursor=cursor)


def bad_request(message: str, *, user_code: str | None = None) -> ApiError:
    return ApiError(Code.BAD_REQUEST, message, user_code=user_code)


def over_budget(error: OverBudget) -> ApiError:
    return ApiError(Code.RATE_LIMITED, str(error), retry_after=error.retry_after)


def slow_consumer(cursor: str | None) -> ApiError:
    """A stream ends because its client did not read; `cursor` is that of the last item it was sent."""
    message = "The client reads too slowly, so this stream ends. Subscribe again"
    return ApiError(
        Code.SLOW_CONSUMER, f"{message} with `after` as in `cursor`." if cursor else f"{message}.", cursor=cursor
    )


def no_such_operation(name: str | None) -> ApiError:
    return bad_request("The document has no operation" + ("." if name is None else f" named `{name}`."))


def _in_our_words(error: Exception) -> ApiError | None:
    """What an exception means to a caller; None for a fault of ours."""
    match error:
        case ApiError():
            return error
        case SignInRequired():
            return unauthenticated()
        case SessionRequired():
            return ApiError(Code.FORBIDDEN, "An API token does not do this: sign in.")
        case PermissionRequired(permission=permission, cursor=cursor):
            return forbidden(permission, cursor=cursor)
        case OutOfSight(permission=permission):
            return forbidden(permission)
        case CannotGetOperationTypeError(operation_name=name):
            return no_such_operation(name)
        case InvalidPage():
            return bad_request(str(error))
        case InvalidCursor() | CursorInvalid():
            return bad_request("This is not a cursor of this list in this order.", user_code="CURSOR_INVALID")
        case CursorExpired():
            return bad_request("This cursor is too old to go on from. Start anew.", user_code="CURSOR_EXPIRED")
        case Refused(refusals=refusals):
            return bad_request(" ".join(refusal.message for refusal in refusals), user_code=refusals[0].code)
        case Collided():
            return ApiError(Code.UNAVAILABLE, "Something else was changed at the same moment. Try again.")
        case DatabaseUnavailable():
            return ApiError(Code.UNAVAILABLE, "The database cannot be reached. Try again in a moment.")
        case StoreUnavailable():
            return ApiError(Code.UNAVAILABLE, "The object store cannot be reached. Try again in a moment.")
        case ChildFailure() if not isinstance(error, ChildRaised):
            _log.warning("a child process failed", reason=str(error), output=error.output)
            return ApiError(Code.UNAVAILABLE, f"{error} Try again; if it happens again, ask for less at a time.")
    return None


def shown(error: GraphQLError) -> GraphQLError:
    """The error as the caller sees it."""
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if isinstance(error, ApiError):
        return error
    if cause is None:
        code = (error.extensions or {}).get("code", Code.BAD_REQUEST)
        return _located(error, _without_values(error.message), {**(error.extensions or {}), "code": code})
    own = _in_our_words(cause)
    if own is not None:
        return _located(error, own.message, own.extensions or {})
    if error.path is None and isinstance(cause, (ValueError, OverflowError)):
        return _located(error, "This value cannot be read as its type: it is too large.", {"code": Code.BAD_REQUEST})
    if isinstance(cause, GraphQLError):
        return _located(error, _without_values(error.message), {"code": Code.BAD_REQUEST, **(cause.extensions or {})})
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    _log.error("a field failed", path=error.path, exc_info=cause)
    return _located(error, f"Something went wrong on our side. Request {request_id}.", {"code": Code.INTERNAL})


def _without_values(message: str) -> str:
    """What graphql-core says of an input, without the input: a password of a wrong type is a password all the same."""
    return _ECHOED.sub(lambda told: f"{told[1] or ''}.", message, count=1)


def all_shown(errors: Sequence[GraphQLError] | None) -> list[GraphQLError] | None:
    return [shown(error) for error in errors] if errors else None


def _located(error: GraphQLError, message: str, extensions: dict[str, object]) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )
