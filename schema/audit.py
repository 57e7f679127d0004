"""The audit log, and whether it is whole."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import audit, rows
from db.ids import Kind
from db.vocabulary import AuditAction, AuditOutcome
from resolvers import audit as resolve
from resolvers import nodes
from resolvers.inputs.scalars import SHA256, BigInt, JSONObject
from schema.access import requires
from schema.directives import PAGED
from schema.fields import identity, query, relation, shows
from schema.nodes import Node, UncountedConnection

if TYPE_CHECKING:
    from schema.api_tokens import ApiToken
    from schema.identity import Actor
    from schema.projects import Project


@strawberry.type(description="Append only; every entry carries the hash of the one before it.")
class AuditEvent(Node):
    id: strawberry.ID = identity(Kind.AUDIT_EVENT)
    at: datetime
    action: AuditAction
    outcome: AuditOutcome
    actor: Annotated["Actor", strawberry.lazy("schema.identity")] | None = relation(loaders.actor, by="actor")
    actor_name: str = strawberry.field(description="Kept as text, so the entry outlives the account.")
    via_token: Annotated["ApiToken", strawberry.lazy("schema.api_tokens")] | None = relation(
        loaders.api_token, by="token_id"
    )
    project: Annotated["Project", strawberry.lazy("schema.projects")] | None = relation(
        loaders.project, by="project_id"
    )
    resource_id: strawberry.ID | None
    resource: Node | None = relation(nodes.subject, by="resource_id")
    resource_name: str | None
    ip_address: str | None
    user_agent: str | None
    operation_name: str | None
    request_id: str
    before: JSONObject | None = strawberry.field(description="What the changed fields held.")
    after: JSONObject | None = strawberry.field(
        description="The input without its secrets; of fields that changed, what they hold now."
    )
    previous_hash: SHA256
    hash: SHA256
    is_type_of = shows(rows.AuditEvent)


@strawberry.type
class AuditVerification:
    intact: bool
    checked_count: BigInt
    first_broken: AuditEvent | None = relation(
        loaders.audit_event,
        by="first_broken_id",
        description="Null when the log is intact, and when only its end is missing.",
    )
    is_type_of = shows(audit.Verification)


@strawberry.type
class AuditQueries:
    audit_events: UncountedConnection[AuditEvent] | None = query(
        resolve.all_audit_events,
        guard=requires(Permission.AUDIT_READ, resource="filter.projectId"),
        directives=[PAGED],
    )
    verify_audit_log: AuditVerification | None = query(
        resolve.verify,
        guard=requires(Permission.AUDIT_READ),
        cost=100,
        description="Recomputes the hash chain.",
    )
