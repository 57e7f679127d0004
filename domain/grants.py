"""Giving and taking rights: who holds what, where, until when."""

from collections.abc import Sequence
from datetime import UTC, datetime

from auth.permissions import Permission
from auth.principals import EVERYWHERE, Place, Principal
from db import grants, places, roles, teams, users
from db.database import Session
from db.ids import Identity, Kind, global_id, identify, key_of
from db.rows import Grant
from db.vocabulary import EventType
from domain.administration import an_administrator_stays, not_held
from domain.refusals import ErrorCode, Invalid, Refusal, Refused, not_found
from domain.texts import checked_text
from events.log import publish, user_actor

SCOPES = (Kind.PROJECT, Kind.DATASET, Kind.RUN, Kind.MODEL)


async def create_grant(
    session: Session,
    actor: Principal,
    *,
    principal_id: str,
    role_id: str | None,
    permissions: Sequence[Permission] | None,
    scope_id: str | None,
    expires_at: datetime | None,
    reason: str | None,
) -> Grant:
    """Give a user or a team a role, or single permissions: everywhere, in a project, or on one dataset, run or model.

    Raises `Refused`. Nobody gives away what is not theirs at that place.
    """
    checked_text(reason, "input", "reason")
    refusals: list[Refusal] = []
    principal = await _holder(session, principal_id)
    if principal is None:
        refusals.append(not_found("user or team", principal_id, "input", "principalId"))
    scope = None if scope_id is None else identify(scope_id)
    place: Place | None = EVERYWHERE
    if scope_id is not None:
        place = await _place(session, scope)
        if place is None:
            refusals.append(not_found("project, dataset, run or model", scope_id, "input", "scopeId"))
    if expires_at is not None and expires_at <= datetime.now(UTC):
        refusals.append(
            Invalid(code=ErrorCode.OUT_OF_RANGE, message="This moment is past.", path=("input", "expiresAt"))
        )
    path = ("input", "what", "permissions" if role_id is None else "roleId")
    role_key = None if role_id is None else key_of(role_id, Kind.ROLE)
    given = {str(permission) for permission in permissions or ()}
    if role_id is not None:
        role = await roles.hold(session, role_key) if role_key is not None else None
        if role is None:
            refusals.append(not_found("role", role_id, *path))
        else:
            given = set(role.permissions)
    elif not given:
        refusals.append(Invalid(code=ErrorCode.REQUIRED, message="Name at least one permission.", path=path))
    if place is not None:
        lacking = not_held(actor, given, place)
        if lacking:
            message = f"You do not hold {', '.join(lacking)} there yourself."
            refusals.append(Invalid(message=message, path=path))
    if refusals or principal is None or place is None:
        raise Refused(*refusals)
    grant = await grants.insert_grant(
        session,
        principal=principal,
        role_id=role_key,
        permissions=sorted(permissions or ()),
        place=place,
        resource_kind=None if scope is None or place.resource_id is None else scope.kind,
        expires_at=expires_at,
        reason=reason,
        created_by=actor.user_id,
    )
    who = user_actor(actor.user_id)
    await publish(session, EventType.GRANT_CREATED, grant.id, project_id=grant.project_id, actor=who)
    return grant


async def revoke_grant(session: Session, actor: Principal, *, id: str) -> str:
    """Take a grant back; the next request of its holder is without it. The ID of the grant.

    Raises `Refused` when there is no such grant, or nobody would administer the installation any more.
    """
    key = key_of(id, Kind.GRANT)
    async with an_administrator_stays(session, "input", "id"):
        grant = await grants.delete_grant(session, key) if key is not None else None
    if grant is None:
        raise Refused(not_found("grant", id, "input", "id"))
    who = user_actor(actor.user_id)
    await publish(session, EventType.GRANT_REVOKED, grant.id, project_id=grant.project_id, actor=who)
    return global_id(Kind.GRANT, grant.id)


async def _holder(session: Session, id: str) -> Identity | None:
    """The user or the team with this ID; a team is held until the transaction ends."""
    identity = identify(id)
    if identity is not None and identity.kind is Kind.TEAM:
        return identity if await teams.hold(session, identity.key) is not None else None
    if identity is not None and identity.kind is Kind.USER:
        return identity if await users.by_ids(session, [identity.key]) else None
    return None


async def _place(session: Session, scope: Identity | None) -> Place | None:
    if scope is None or scope.kind not in SCOPES:
        return None
    return (await places.of(session, scope.kind, [scope.key])).get(scope.key)
