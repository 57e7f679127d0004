"""Which entries of the audit log are wanted."""

import strawberry
from strawberry import UNSET

from db.vocabulary import AuditAction, AuditOutcome
from resolvers.inputs.filters import DateTimeFilter


@strawberry.input
class AuditEventFilter:
    actions: list[AuditAction] | None = UNSET
    outcomes: list[AuditOutcome] | None = UNSET
    actor_id: strawberry.ID | None = UNSET
    resource_id: strawberry.ID | None = UNSET
    project_id: strawberry.ID | None = UNSET
    at: DateTimeFilter | None = UNSET
    request_id: str | None = UNSET
    ip_address: str | None = UNSET
