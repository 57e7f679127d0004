"""The answers of a rule that says no. Each one carries what the caller needs to try again.

A refusal is a value; `Refused` is how it travels, so a transaction rolls back on its way out. `path` names the place in
the input, as the caller wrote it: `("input", "spec", "params", "num_leaves")`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum, auto
from typing import Any


class ErrorCode(StrEnum):
    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name

    REQUIRED = auto()
    INVALID = auto()
    TOO_LONG = auto()
    OUT_OF_RANGE = auto()
    NOT_FOUND = auto()
    ALREADY_EXISTS = auto()
    STALE_REVISION = auto()
    INVALID_STATE = auto()
    IN_USE = auto()
    INVALID_CREDENTIALS = auto()
    ACCOUNT_LOCKED = auto()
    TOKEN_EXPIRED = auto()
    WEAK_PASSWORD = auto()
    CHECKSUM_MISMATCH = auto()
    UPLOAD_INCOMPLETE = auto()
    SCHEMA_MISMATCH = auto()
    LAST_ADMIN = auto()
    IDEMPOTENCY_MISMATCH = auto()
    CURSOR_EXPIRED = auto()
    CURSOR_INVALID = auto()
    CONFIRMATION_MISMATCH = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    code: ErrorCode
    message: str
    path: tuple[str, ...] | None = None


class Refused(Exception):
    """Carries refusals out of a rule, and the transaction with them back to where it began."""

    def __init__(self, *refusals: Refusal) -> None:
        super().__init__(" ".join(refusal.message for refusal in refusals))
        self.refusals = refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid(Refusal):
    """A value that cannot be taken; `allowed` says what could."""

    code: ErrorCode = ErrorCode.INVALID
    allowed: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFound(Refusal):
    code: ErrorCode = ErrorCode.NOT_FOUND
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyExists(Refusal):
    """`existing` is the row that is in the way."""

    code: ErrorCode = ErrorCode.ALREADY_EXISTS
    existing: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleRevision(Refusal):
    code: ErrorCode = ErrorCode.STALE_REVISION
    current_revision: int
    current: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidState(Refusal):
    code: ErrorCode = ErrorCode.INVALID_STATE
    current_state: str
    allowed_states: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse(Refusal):
    """`dependents` are the rows that still point at it."""

    code: ErrorCode = ErrorCode.IN_USE
    dependents: Sequence[Any] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAuthenticated(Refusal):
    code: ErrorCode = ErrorCode.INVALID_CREDENTIALS
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeMismatch:
    column: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaMismatch(Refusal):
    code: ErrorCode = ErrorCode.SCHEMA_MISMATCH
    missing_columns: Sequence[str] = ()
    unexpected_columns: Sequence[str] = ()
    type_mismatches: Sequence[TypeMismatch] = field(default_factory=tuple)


def not_found(what: str, id: str | None, *path: str) -> NotFound:
    """The one answer for what does not exist and what the caller may not see."""
    return NotFound(message=f"There is no {what} with this ID.", path=path or None, id=id)
