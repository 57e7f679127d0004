"""API tokens: what a program calls with, limited to a part of what its owner may do.

Whoever makes a token, or gives it another secret, holds that secret and so could do what the token may. So nobody makes
one that could do more than they can, and a token passes on no more than it has.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from uuid import UUID

from auth.api_tokens import TokenLimits, new_secret, prefix_of, secret_digest
from auth.permissions import Permission
from auth.principals import EVERYWHERE, HeldGrant, Place, Principal, Rights
from db import api_tokens, projects
from db.database import Session, Touched
from db.ids import Kind, global_id, key_of
from db.rows import ApiToken
from domain.refusals import ErrorCode, Invalid, InvalidState, Refusal, Refused, not_found
from domain.texts import checked_text

MAX_PROJECTS, MAX_NETWORKS = 100, 100


async def create_api_token(
    session: Session,
    actor: Principal,
    *,
    name: str,
    owner_id: str | None,
    permissions: Sequence[Permission],
    project_ids: Sequence[str] | None,
    expires_in: timedelta,
    allowed_networks: Sequence[str] | None,
) -> tuple[ApiToken, str]:
    """A token and its secret, which nobody is shown again.

    Raises `Refused` when it would be wider than its owner, or than the caller: a permission has to be held in each of
    the projects, or somewhere when none is named.
    """
    checked_text(name, "input", "name", max_length=100)
    refusals: list[Refusal] = []
    owner = actor.user_id if owner_id is None else key_of(owner_id, Kind.USER)
    held: Sequence[HeldGrant] | None = actor.grants
    if owner != actor.user_id:
        others = owner is not None and actor.may(Permission.TOKEN_MANAGE)
        held = await api_tokens.owner_holds(session, owner) if others and owner is not None else None
        if held is None:
            refusals.append(not_found("active user", owner_id, "input", "ownerId"))
    keys = await _projects(session, project_ids, refusals)
    networks = _networks(allowed_networks, refusals)
    if expires_in <= timedelta(0):
        message = "A token lives for some time: name a duration longer than zero."
        refusals.append(Invalid(code=ErrorCode.OUT_OF_RANGE, message=message, path=("input", "expiresIn")))
    if refusals or owner is None or held is None:
        raise Refused(*refusals)
    limits = TokenLimits(frozenset(permissions), keys, networks, datetime.now(UTC) + expires_in)
    refusals += _too_wide(actor, owner, held, limits)
    if refusals:
        raise Refused(*refusals)
    secret = new_secret()
    token = await api_tokens.insert_token(
        session, name=name, prefix=prefix_of(secret), owner_id=owner, limits=limits, digest=secret_digest(secret)
    )
    _touch(session, token)
    return token, secret


async def rotate_api_token(
    session: Session, actor: Principal, *, id: str, overlap: timedelta
) -> tuple[ApiToken, str, datetime]:
    """Another secret for a token, which keeps its limits and its end; until when the old one counts beside it.

    Raises `Refused` when there is no such token that the caller looks after, it is over, or could do more than the
    caller.
    """
    token = await _own(session, actor, id)
    if token.revoked_at is not None or token.expires_at <= datetime.now(UTC):
        state = "REVOKED" if token.revoked_at is not None else "EXPIRED"
        raise Refused(
            InvalidState(
                message="This token is over. Make another one.",
                path=("input", "id"),
                current_state=state,
                allowed_states=["ACTIVE"],
            )
        )
    if overlap < timedelta(0):
        raise Refused(
            Invalid(code=ErrorCode.OUT_OF_RANGE, message="An overlap is not negative.", path=("input", "overlap"))
        )
    if token.owner_id != actor.user_id or actor.token_id not in (None, token.id):
        _refuse_what_is_wider(actor, token)
    secret = new_secret()
    rotated, until = await api_tokens.replace_secret(
        session, token.id, prefix=prefix_of(secret), digest=secret_digest(secret), overlap=overlap
    )
    _touch(session, rotated)
    return rotated, secret, until


async def revoke_api_token(session: Session, actor: Principal, *, id: str) -> ApiToken:
    """End a token at once, with what is open of it on every server; one that is revoked stays as it is.

    Raises `Refused` when there is no such token that the caller looks after.
    """
    token = await _own(session, actor, id)
    revoked = await api_tokens.revoke(session, token.id)
    _touch(session, token)
    return revoked or token


async def _own(session: Session, actor: Principal, id: str) -> ApiToken:
    key = key_of(id, Kind.API_TOKEN)
    token = await api_tokens.lock(session, key) if key is not None else None
    if token is None or not (
        token.id == actor.token_id or actor.may(Permission.TOKEN_MANAGE, Place(None, token.owner_id))
    ):
        raise Refused(not_found("API token", id, "input", "id"))
    return token


async def _projects(session: Session, ids: Sequence[str] | None, refusals: list[Refusal]) -> frozenset[UUID] | None:
    if ids is None:
        return None
    path = ("input", "projectIds")
    if not 0 < len(ids) <= MAX_PROJECTS:
        message = f"Name 1 to {MAX_PROJECTS} projects, or none for wherever the owner may."
        refusals.append(Invalid(code=ErrorCode.OUT_OF_RANGE, message=message, path=path))
        return None
    keys = [key_of(id, Kind.PROJECT) for id in ids]
    known = await projects.by_ids(session, [key for key in keys if key is not None])
    for number, (id, key) in enumerate(zip(ids, keys, strict=True)):
        if key is None or key not in known:
            refusals.append(not_found("project", id, *path, str(number)))
    return frozenset(known)


def _networks(texts: Sequence[str] | None, refusals: list[Refusal]) -> tuple[str, ...] | None:
    if texts is None:
        return None
    path = ("input", "allowedNetworks")
    if not 0 < len(texts) <= MAX_NETWORKS:
        message = f"Name 1 to {MAX_NETWORKS} networks, or none for all addresses."
        refusals.append(Invalid(code=ErrorCode.OUT_OF_RANGE, message=message, path=path))
    networks = []
    for number, text in enumerate(texts[:MAX_NETWORKS]):
        try:
            networks.append(str(ip_network(text)))
        except ValueError as error:
            message = f"This is no network, such as 10.1.0.0/16 or 2001:db8::/32: {error}."
            refusals.append(Invalid(message=message, path=(*path, str(number))))
    return tuple(dict.fromkeys(networks))


def _too_wide(actor: Principal, owner: UUID, held: Sequence[HeldGrant], limits: TokenLimits) -> list[Refusal]:
    """What the token would have that its owner has not, or the caller could not pass on."""
    refusals: list[Refusal] = []
    path = ("input", "permissions")
    owned = Rights(tuple(held))
    who = "You do" if owner == actor.user_id else "The owner does"
    lacking = sorted(p for p in limits.permissions if not _holds_within(owned, p, limits.projects))
    if lacking:
        message = f"{who} not hold {', '.join(lacking)} {'there' if limits.projects else 'anywhere'}."
        refusals.append(Invalid(message=message, path=path))
    elif owner != actor.user_id:
        missing = _beyond(actor, limits)
        if missing:
            message = f"You do not hold {', '.join(missing)} there yourself."
            refusals.append(Invalid(message=message, path=path))
    if actor.token is not None:
        own = actor.token.limits
        if own.projects is not None and not (limits.projects is not None and limits.projects <= own.projects):
            message = "A token makes tokens for its own projects only: name some of them."
            refusals.append(Invalid(message=message, path=("input", "projectIds")))
        if not own.cover(limits):
            message = "A token makes no token that lives longer, or is taken from other networks, than itself."
            refusals.append(Invalid(message=message, path=("input", "expiresIn")))
    return refusals


def _holds_within(principal: Rights, permission: Permission, inside: frozenset[UUID] | None) -> bool:
    """Whether a permission is held in each of the projects, or on something in it; without projects, anywhere."""
    reach = principal.reach(permission)
    if inside is None or reach.everywhere:
        return bool(reach)
    places = {grant.project_id for grant in principal.grants if permission in grant.permissions}
    return inside <= places


def _beyond(actor: Principal, limits: TokenLimits) -> list[Permission]:
    places = [EVERYWHERE] if limits.projects is None else [Place(project_id) for project_id in limits.projects]
    return sorted(p for p in limits.permissions if not all(actor.may(p, place) for place in places))


def _refuse_what_is_wider(actor: Principal, token: ApiToken) -> None:
    limits = api_tokens.limits_of(token.permissions, token.project_ids, token.allowed_networks, token.expires_at)
    missing = _beyond(actor, limits)
    if missing or (actor.token is not None and not actor.token.limits.cover(limits)):
        message = "This token may do more than you: you can revoke it, and nothing else."
        raise Refused(Invalid(message=message, path=("input", "id")))


def _touch(session: Session, token: ApiToken) -> None:
    session.touched.append(Touched(global_id(Kind.API_TOKEN, token.id), None))
