"""People, their teams, and the caller."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from auth.principals import Principal as Caller
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import AuditAction, UserStatus
from domain import sessions
from resolvers import identity as resolve
from resolvers import projects as resolve_projects
from resolvers import service as resolve_service
from resolvers import teams as resolve_teams
from resolvers.grants import user_grant_args
from resolvers.inputs.limits import Sensitive
from resolvers.paging import first_args, page_args
from schema.access import public, requires, viewer
from schema.audit import AuditEvent
from schema.directives import PAGED
from schema.fields import computed, identity, mutation, query, relation, shows
from schema.nodes import Connection, Node, UncountedConnection
from schema.refusals import UserError

if TYPE_CHECKING:
    from schema.api_tokens import ApiToken
    from schema.grants import Grant, PermissionDecision
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
    teams: list[Annotated["Team", strawberry.lazy("schema.identity")]] = relation(loaders.teams_of_user, by="id")
    grants: Connection[Annotated["Grant", strawberry.lazy("schema.grants")]] | None = relation(
        loaders.grants_of_user,
        by="id",
        args=user_grant_args,
        guard=requires(Permission.GRANT_READ, resource="id"),
        directives=[PAGED],
        description="Roles held directly and through teams, at every scope.",
    )
    sessions: Connection[Annotated["Session", strawberry.lazy("schema.identity")]] | None = relation(
        loaders.sessions_of_user,
        by="id",
        args=first_args,
        guard=requires(Permission.SESSION_MANAGE, resource="id"),
    )
    api_tokens: Connection[Annotated["ApiToken", strawberry.lazy("schema.api_tokens")]] | None = relation(
        loaders.api_tokens_of_user,
        by="id",
        args=first_args,
        guard=requires(Permission.TOKEN_MANAGE, resource="id"),
    )
    audit_events: UncountedConnection[AuditEvent] | None = relation(
        loaders.audit_events_of_user, by="id", args=first_args, guard=requires(Permission.AUDIT_READ)
    )
    is_type_of = shows(rows.User)


@strawberry.type(description="A group of users that can hold grants.")
class Team(Node):
    id: strawberry.ID = identity(Kind.TEAM)
    name: str
    description: str | None
    members: Connection[User] = relation(loaders.members_of_team, by="id", args=page_args, directives=[PAGED])
    created_at: datetime
    revision: int
    is_type_of = shows(rows.Team)


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
    open_connections: int = relation(
        loaders.open_connections,
        by="id",
        description="Open subscription sockets that belong to it; revoking closes them within a second.",
    )
    revoked_at: datetime | None
    is_type_of = shows(rows.Session)


Actor = Annotated[User | SystemActor, strawberry.union("Actor", description="Who did something.")]
Principal = Annotated[User | Team, strawberry.union("Principal", description="Who can hold a grant.")]


@strawberry.type(description="The caller: principal, session, effective rights and remaining budget in one place.")
class Viewer:
    principal: Principal = relation(loaders.user, by="user_id")
    user: User | None = relation(loaders.user, by="user_id")
    session: Session | None = relation(loaders.session, by="session_id")
    api_token: Annotated["ApiToken", strawberry.lazy("schema.api_tokens")] | None = relation(
        loaders.api_token, by="token_id"
    )
    permissions: list[Permission] = computed(
        lambda root: sorted(root.permissions),
        description="Global permissions. Ask `viewerCan` on a resource for the rest.",
    )
    can: Annotated["PermissionDecision", strawberry.lazy("schema.grants")] = computed(resolve.decision_on)
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
class UpdateUserPayload:
    user: User | None
    errors: list[UserError]


@strawberry.type
class DeleteUserPayload:
    user: User | None
    errors: list[UserError]


@strawberry.type
class UpdateViewerPayload:
    viewer: Viewer | None
    errors: list[UserError]


@strawberry.type
class CreateTeamPayload:
    team: Team | None
    errors: list[UserError]


@strawberry.type
class UpdateTeamPayload:
    team: Team | None
    errors: list[UserError]


@strawberry.type
class DeleteTeamPayload:
    deleted_id: strawberry.ID | None
    errors: list[UserError]


@strawberry.type
class IdentityQueries:
    viewer: Viewer = query(resolve.viewer, guard=viewer)
    users: Connection[User] | None = query(resolve.all_users, guard=requires(Permission.USER_READ), directives=[PAGED])
    user: User | None = query(resolve.user, guard=requires(Permission.USER_READ))
    teams: Connection[Team] | None = query(
        resolve_teams.all_teams, guard=requires(Permission.USER_READ), directives=[PAGED]
    )


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
    update_user: UpdateUserPayload | None = mutation(
        resolve.update_user,
        guard=requires(Permission.USER_UPDATE, resource="input.id"),
        returns="user",
        audited=AuditAction.USER_UPDATE,
    )
    delete_user: DeleteUserPayload | None = mutation(
        resolve.delete_user,
        guard=requires(Permission.USER_DELETE, resource="input.id"),
        returns="user",
        audited=AuditAction.USER_DELETE,
    )
    update_viewer: UpdateViewerPayload | None = mutation(
        resolve.update_viewer, guard=viewer, returns="viewer", audited=AuditAction.USER_UPDATE
    )
    create_team: CreateTeamPayload | None = mutation(
        resolve_teams.create_team,
        guard=requires(Permission.USER_UPDATE),
        returns="team",
        audited=AuditAction.TEAM_CHANGE,
    )
    update_team: UpdateTeamPayload | None = mutation(
        resolve_teams.update_team,
        guard=requires(Permission.USER_UPDATE),
        returns="team",
        audited=AuditAction.TEAM_CHANGE,
    )
    delete_team: DeleteTeamPayload | None = mutation(
        resolve_teams.delete_team,
        guard=requires(Permission.USER_DELETE),
        returns="deleted_id",
        audited=AuditAction.TEAM_CHANGE,
    )
