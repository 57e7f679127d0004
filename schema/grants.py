"""Roles, the grants that give them, and what they allow."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import AuditAction, GrantScopeType
from domain.decisions import Decision
from resolvers import grants as resolve
from resolvers import nodes
from resolvers import roles as resolve_roles
from resolvers.paging import page_args
from schema.access import requires
from schema.directives import PAGED, ListSize
from schema.fields import identity, mutation, query, relation, shows
from schema.identity import Actor, Principal
from schema.nodes import Connection, Node
from schema.refusals import UserError

if TYPE_CHECKING:
    from schema.projects import Project


@strawberry.type
class Role(Node):
    id: strawberry.ID = identity(Kind.ROLE)
    name: str
    description: str | None
    built_in: bool = strawberry.field(
        description="Built-in roles (Administrator, Maintainer, Data Scientist, Operator, Viewer) cannot be edited, "
        "only copied."
    )
    permissions: list[Permission]
    grants: Connection[Annotated["Grant", strawberry.lazy("schema.grants")]] | None = relation(
        loaders.grants_of_role,
        by="id",
        args=page_args,
        guard=requires(Permission.GRANT_READ),
        directives=[PAGED],
    )
    created_at: datetime
    updated_at: datetime
    revision: int
    is_type_of = shows(rows.Role)


@strawberry.type(description="A principal holds a role, or single permissions, somewhere, perhaps for a while.")
class Grant(Node):
    id: strawberry.ID = identity(Kind.GRANT)
    principal: Principal = relation(loaders.principal, by="principal")
    role: Role | None = relation(loaders.role, by="role_id")
    permissions: list[Permission]
    scope: GrantScopeType
    project: Annotated["Project", strawberry.lazy("schema.projects")] | None = relation(
        loaders.project, by="project_id"
    )
    resource: Node | None = relation(
        nodes.subject, by="resource", description="Set when scope is RESOURCE: a dataset, a run, a model."
    )
    expires_at: datetime | None
    reason: str | None
    created_at: datetime
    created_by: Actor | None = relation(loaders.user, by="created_by")
    is_type_of = shows(rows.Grant)


@strawberry.type(description="The answer to «may I, and why».")
class PermissionDecision:
    permission: Permission
    allowed: bool
    reason: str = strawberry.field(description="One sentence fit to show next to a disabled button.")
    decided_by: list[Grant] = relation(
        loaders.deciding_grants,
        by="deciding",
        description="The grants that decided it; empty when the caller may not read grants.",
    )
    is_type_of = shows(Decision)


@strawberry.type
class CreateRolePayload:
    role: Role | None
    errors: list[UserError]


@strawberry.type
class UpdateRolePayload:
    role: Role | None
    errors: list[UserError]


@strawberry.type
class DeleteRolePayload:
    deleted_id: strawberry.ID | None
    errors: list[UserError]


@strawberry.type
class CreateGrantPayload:
    grant: Grant | None
    errors: list[UserError]


@strawberry.type
class RevokeGrantPayload:
    revoked_id: strawberry.ID | None
    errors: list[UserError]


@strawberry.type
class GrantQueries:
    roles: Connection[Role] | None = query(
        resolve_roles.all_roles, guard=requires(Permission.ROLE_READ), directives=[PAGED]
    )
    role: Role | None = query(resolve_roles.role, guard=requires(Permission.ROLE_READ))
    grants: Connection[Grant] | None = query(
        resolve.all_grants,
        guard=requires(Permission.GRANT_READ, resource="filter.projectId"),
        directives=[PAGED],
    )
    permission_check: PermissionDecision | None = query(
        resolve.permission_check,
        guard=requires(Permission.GRANT_READ, resource="resourceId"),
        description="May this principal do that there, and which grants say so.",
    )
    who_can: Connection[Grant] | None = query(
        resolve.who_can,
        guard=requires(Permission.GRANT_READ, resource="resourceId"),
        directives=[ListSize.by("first")],
        description="Everyone who holds a permission on a resource, and through what.",
    )


@strawberry.type
class GrantMutations:
    create_role: CreateRolePayload | None = mutation(
        resolve_roles.create_role,
        guard=requires(Permission.ROLE_MANAGE),
        returns="role",
        audited=AuditAction.ROLE_CHANGE,
    )
    update_role: UpdateRolePayload | None = mutation(
        resolve_roles.update_role,
        guard=requires(Permission.ROLE_MANAGE),
        returns="role",
        audited=AuditAction.ROLE_CHANGE,
    )
    delete_role: DeleteRolePayload | None = mutation(
        resolve_roles.delete_role,
        guard=requires(Permission.ROLE_MANAGE),
        returns="deleted_id",
        audited=AuditAction.ROLE_CHANGE,
    )
    create_grant: CreateGrantPayload | None = mutation(
        resolve.create_grant,
        guard=requires(Permission.GRANT_MANAGE, resource="input.scopeId"),
        returns="grant",
        audited=AuditAction.GRANT_CREATE,
    )
    revoke_grant: RevokeGrantPayload | None = mutation(
        resolve.revoke_grant,
        guard=requires(Permission.GRANT_MANAGE, resource="input.id"),
        returns="revoked_id",
        audited=AuditAction.GRANT_REVOKE,
    )
