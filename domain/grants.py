"""Giving and taking rights: who holds what, where, until when."""

from collections.abc import Sequence
from datetime import UTC, datetime

from auth.permissions import ADMINISTRATOR, Permission
from auth.principals import EVERYWHERE, Place, Principal
from db import access, places, users
from db.database import Session
from db.ids import Identity, Kind, global_id, identify, key_of
from db.rows import Grant
from db.vocabulary import EventType
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
    """Give a user a role, or single permissions: everywhere, in a project, or on one dataset, run or model.

    Raises `Refused`. Nobody gives away what is not theirs at that place.
    """
    checked_text(reason, "input", "reason")
    refusals: list[Refusal] = []
    user_id = key_of(principal_id, Kind.USER)
    if user_id is None or user_id not in await users.by_ids(session, [user_id]):
        refusals.append(not_found("user", principal_id, "input", "principalId"))
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
    given = set(permissions or ())
    if role_id is not None:
        role = (await access.roles_by_ids(session, [role_key])).get(role_key) if role_key is not None else None
        if role is None:
            refusals.append(not_found("role", role_id, *path))
        else:
            given = {Permission(name) for name in role.permissions}
    elif not given:
        refusals.append(Invalid(code=ErrorCode.REQUIRED, message="Name at least one permission.", path=path))
    if place is not None:
        lacking = sorted(permission for permission in given if not actor.may(permission, place))
        if lacking:
            message = f"You do not hold {', '.join(lacking)} there yourself."
            refusals.append(Invalid(message=message, path=path))
    if refusals or user_id is None or place is None:
        raise Refused(*refusals)
    grant = await access.insert_grant(
        session,
        user_id=user_id,
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
    administrators = await access.lock_administration(session, ADMINISTRATOR)
    grant = await access.delete_grant(session, key) if key is not None else None
    if grant is None:
        raise Refused(not_found("grant", id, "input", "id"))
    if administrators and not await access.lock_administration(session, ADMINISTRATOR):
        message = "This is the last grant that makes somebody an administrator for good. Make another one first."
        raise Refused(Invalid(code=ErrorCode.LAST_ADMIN, message=message, path=("input", "id")))
    who = user_actor(actor.user_id)
    await publish(session, EventType.GRANT_REVOKED, grant.id, project_id=grant.project_id, actor=who)
    return global_id(Kind.GRANT, grant.id)


async def _place(session: Session, scope: Identity | None) -> Place | None:
    if scope is None or scope.kind not in SCOPES:
        return None
    return (await places.of(session, scope.kind, [scope.key])).get(scope.key)
