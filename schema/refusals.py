"""The refusals of the domain, as clients see them: select `UserError`, then the kinds you know."""

from datetime import timedelta

import strawberry

from db.vocabulary import ColumnType
from domain import refusals
from domain.refusals import ErrorCode
from resolvers.inputs.scalars import JSON
from schema.fields import shows
from schema.nodes import Node


@strawberry.interface(
    description="Something the caller can fix. New kinds may appear: select the interface, then the kinds you know."
)
class UserError:
    code: ErrorCode = strawberry.field(description="Stable and machine readable.")
    message: str = strawberry.field(description="Ready to show.")
    path: list[str] | None = strawberry.field(
        description='Path in the input, for example ["input", "spec", "params", "num_leaves"].'
    )


@strawberry.type
class ValidationError(UserError):
    allowed: JSON | None = strawberry.field(description="What would have been accepted.")
    is_type_of = shows(refusals.Invalid)


@strawberry.type
class NotFoundError(UserError):
    id: strawberry.ID | None
    is_type_of = shows(refusals.NotFound)


@strawberry.type
class AlreadyExistsError(UserError):
    existing: Node | None
    is_type_of = shows(refusals.AlreadyExists)


@strawberry.type
class StaleRevisionError(UserError):
    current_revision: int
    current: Node | None
    is_type_of = shows(refusals.StaleRevision)


@strawberry.type
class InvalidStateError(UserError):
    current_state: str
    allowed_states: list[str]
    is_type_of = shows(refusals.InvalidState)


@strawberry.type
class InUseError(UserError):
    dependents: list[Node] = strawberry.field(description="What still points at it.")
    is_type_of = shows(refusals.InUse)


@strawberry.type
class AuthenticationError(UserError):
    retry_after: timedelta | None = strawberry.field(description="Set when waiting helps.")
    is_type_of = shows(refusals.NotAuthenticated)


@strawberry.type
class ColumnTypeMismatch:
    column: str
    expected: ColumnType
    actual: ColumnType


@strawberry.type
class SchemaMismatchError(UserError):
    missing_columns: list[str]
    unexpected_columns: list[str]
    type_mismatches: list[ColumnTypeMismatch]
    is_type_of = shows(refusals.SchemaMismatch)


ALL = (
    ValidationError,
    NotFoundError,
    AlreadyExistsError,
    StaleRevisionError,
    InvalidStateError,
    InUseError,
    AuthenticationError,
    SchemaMismatchError,
)
