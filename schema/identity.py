"""People, roles, the grants they hold, and the caller."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from auth.principals import Principal as Caller
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import AuditAction, GrantScopeType, UserStatus
from domain import sessions
from domain.decisions import Decision
from resolvers import grants as resolve_grants
from resolvers import identity as resolve
from resolvers import nodes
from resolvers import projects as resolve_projects
from resolvers import service as resolve_service
from resolvers.inputs.limits import Sensitive
from resolvers.paging import first_args
from schema.access import public, requires, viewer
from schema.audit import AuditEvent
from schema.directives import PAGED
from schema.fields import computed, identity, mutation, query, relation, shows
from schema.nodes import Connection, Node, UncountedConnection
from schema.refusals import UserError

if TYPE_CHECKING:
    from schema.projects import Project
    from schema.service import RateLimit


@strawberry.type(description="The server itself: a scheduler, a worker, the retention job.")
class SystemActor:
    component: str
    is_type_of = shows(rows.SystemActor)


@strawberry.type
class User(Node):
    id: strawberry.ID = identity(Kind.USER)
    username: str
    display_name: str
    email: str | None = computed(resolve.email_of, description="Visible to the user and to holders of USER_READ.")
    status: UserStatus
    last_seen_at: datetime | None
    created_at: datetime
    updated_at: datetime
    revision: int
    sessions: Connection[Annotated["Session", strawberry.lazy("schema.identity")]] | None = relation(
        loaders.sessions_of_user,
        by="id",
        args=first_args,
        guard=requires(Permission.SESSION_MANAGE, resource="id"),
    )
    audit_events: UncountedConnection[AuditEvent] | None = relation(
        loaders.audit_events_of_user, by="id", args=first_args, guard=requires(Permission.AUDIT_READ)
    )
    is_type_of = shows(rows.User)


@strawberry.type
class Session(Node):
    id: strawberry.ID = identity(Kind.SESSION)
    user: User = relation(loaders.user, by="user_id")
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    ip_address: str | None
    user_agent: str | None
    current: bool = computed(resolve.is_current)
    revoked_at: datetime | None
    is_type_of = shows(rows.Session)


Actor = Annotated[User | SystemActor, strawberry.union("Actor", description="Who did something.")]
Principal = Annotated[User, strawberry.union("Principal", description="Who can hold a grant.")]


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
    created_at: datetime
    updated_at: datetime
    revision: int
    is_type_of = shows(rows.Role)


@strawberry.type(description="A principal holds a role, or single permissions, somewhere, perhaps for a while.")
class Grant(Node):
    id: strawberry.ID = identity(Kind.GRANT)
    principal: Principal = relation(loaders.user, by="user_id")
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
        loaders.grants,
        by="deciding",
        description="The grants that decided it; empty when the caller may not read grants.",
    )
    is_type_of = shows(Decision)


@strawberry.type(description="The caller: principal, session, effective rights and remaining budget in one place.")
class Viewer:
    principal: Principal = relation(loaders.user, by="user_id")
    user: User | None = relation(loaders.user, by="user_id")
    session: Session | None = relation(loaders.session, by="session_id")
    permissions: list[Permission] = computed(
        lambda root: sorted(root.permissions),
        description="Global permissions. Ask `viewerCan` on a resource for the rest.",
    )
    can: PermissionDecision = computed(resolve.decision_on)
    projects: Connection[Annotated["Project", strawberry.lazy("schema.projects")]] = computed(
        resolve_projects.viewer_projects
    )
    rate_limit: Annotated["RateLimit", strawberry.lazy("schema.service")] = computed(resolve_service.rate_limit_of)
    is_type_of = shows(Caller)


@strawberry.type(
    description="A signed access token (JWT) and an opaque refresh token. The refresh token rotates on every use; "
    "using an old one revokes the session."
)
class AuthTokens:
    access_token: str = strawberry.field(directives=[Sensitive()])
    access_token_expires_at: datetime
    refresh_token: str | None = strawberry.field(directives=[Sensitive()])
    refresh_token_expires_at: datetime | None
    token_type: str
    is_type_of = shows(sessions.Tokens)


@strawberry.type
class LoginPayload:
    tokens: AuthTokens | None
    viewer: Viewer | None
    errors: list[UserError]


@strawberry.type
class RefreshTokensPayload:
    tokens: AuthTokens | None
    errors: list[UserError]


@strawberry.type
class LogoutPayload:
    revoked_sessions: int
    errors: list[UserError]


@strawberry.type
class RevokeSessionPayload:
    session: Session | None
    errors: list[UserError]


@strawberry.type
class ChangePasswordPayload:
    revoked_sessions: int
    errors: list[UserError]


@strawberry.type
class CreateUserPayload:
    user: User | None
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
class IdentityQueries:
    viewer: Viewer = query(resolve.viewer, guard=viewer)
    users: Connection[User] | None = query(resolve.all_users, guard=requires(Permission.USER_READ), directives=[PAGED])
    user: User | None = query(resolve.user, guard=requires(Permission.USER_READ))
    roles: Connection[Role] | None = query(resolve.all_roles, guard=requires(Permission.ROLE_READ), directives=[PAGED])
    role: Role | None = query(resolve.role, guard=requires(Permission.ROLE_READ))


@strawberry.type
class IdentityMutations:
    login: LoginPayload | None = mutation(resolve.login, guard=public, returns=None, audited=AuditAction.LOGIN, cost=50)
    refresh_tokens: RefreshTokensPayload | None = mutation(resolve.refresh_tokens, guard=public, returns="tokens")
    logout: LogoutPayload | None = mutation(
        resolve.logout,
        guard=viewer,
        returns="revoked_sessions",
        refused={"revoked_sessions": 0},
        audited=AuditAction.LOGOUT,
    )
    revoke_session: RevokeSessionPayload | None = mutation(
        resolve.revoke_session, guard=viewer, returns="session", audited=AuditAction.SESSION_REVOKE
    )
    change_password: ChangePasswordPayload | None = mutation(
        resolve.change_password,
        guard=viewer,
        returns="revoked_sessions",
        refused={"revoked_sessions": 0},
        audited=AuditAction.PASSWORD_CHANGE,
    )
    create_user: CreateUserPayload | None = mutation(
        resolve.create_user,
        guard=requires(Permission.USER_CREATE),
        returns="user",
        audited=AuditAction.USER_CREATE,
    )
    create_grant: CreateGrantPayload | None = mutation(
        resolve_grants.create_grant,
        guard=requires(Permission.GRANT_MANAGE, resource="input.scopeId"),
        returns="grant",
        audited=AuditAction.GRANT_CREATE,
    )
    revoke_grant: RevokeGrantPayload | None = mutation(
        resolve_grants.revoke_grant,
        guard=requires(Permission.GRANT_MANAGE, resource="input.id"),
        returns="revoked_id",
        audited=AuditAction.GRANT_REVOKE,
    )
