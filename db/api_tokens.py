"""Queries on API tokens and the digests of their secrets."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    LargeBinary,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)

from auth.api_tokens import HeldToken, TokenLimits
from auth.permissions import Permission
from auth.principals import HeldGrant, Principal
from db.access import SEEN_EVERY
from db.database import Prepared, Session
from db.forgetting import forgetting
from db.grants import CALLERS, held, held_by
from db.ids import new_id
from db.paging import Order, Page, PageArgs, pages
from db.rows import ApiToken, columns
from db.tables import api_token_secrets, api_tokens, roles, users
from db.vocabulary import UserStatus

_ROW = columns(ApiToken, api_tokens)
_BY_IDS = Prepared(select(*_ROW).where(api_tokens.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))))
_LOCK = Prepared(select(*_ROW).where(api_tokens.c.id == bindparam("id")).with_for_update())
_NEWEST_FIRST = Order.by("CREATED_AT", api_tokens.c.created_at, api_tokens.c.id, descending=True)
_OVER = or_(
    api_token_secrets.c.valid_until < func.now(),
    api_token_secrets.c.token_id == any_(
        select(api_tokens.c.id).where(or_(api_tokens.c.revoked_at.is_not(None), api_tokens.c.expires_at < func.now()))
        .scalar_subquery()
    ),
)  # fmt: skip
_FORGET_SECRETS = forgetting(api_token_secrets, _OVER)
_COUNTS = and_(
    users.c.status == UserStatus.ACTIVE.value,
    api_tokens.c.revoked_at.is_(None),
    api_tokens.c.expires_at > func.clock_timestamp(),
    or_(api_token_secrets.c.valid_until.is_(None), api_token_secrets.c.valid_until > func.clock_timestamp()),
)
_BY_SECRET = api_token_secrets.join(api_tokens, api_tokens.c.id == api_token_secrets.c.token_id).join(
    users, users.c.id == api_tokens.c.owner_id
)
_GIVEN = api_token_secrets.c.digest == bindparam("digest", type_=LargeBinary)
_HELD = held_by(select(api_tokens.c.owner_id).select_from(_BY_SECRET).where(_GIVEN).scalar_subquery())
_PRINCIPAL = Prepared(
    select(
        api_tokens.c.id,
        api_tokens.c.owner_id,
        api_tokens.c.permissions,
        api_tokens.c.project_ids,
        api_tokens.c.allowed_networks,
        func.least(api_tokens.c.expires_at, api_token_secrets.c.valid_until),
        func.coalesce(api_tokens.c.last_used_at < func.clock_timestamp() - literal(SEEN_EVERY), true()),
        _HELD.c.id,
        func.coalesce(roles.c.permissions, _HELD.c.permissions),
        _HELD.c.project_id,
        _HELD.c.resource_id,
        _HELD.c.expires_at,
    )
    .select_from(_BY_SECRET.outerjoin(_HELD, true()).outerjoin(roles, roles.c.id == _HELD.c.role_id))
    .where(_GIVEN, _COUNTS)
)
_OWNED = held_by(bindparam("user", type_=Uuid))
_OWNER = Prepared(
    select(
        _OWNED.c.id,
        func.coalesce(roles.c.permissions, _OWNED.c.permissions),
        _OWNED.c.project_id,
        _OWNED.c.resource_id,
        _OWNED.c.expires_at,
    )
    .select_from(users.outerjoin(_OWNED, true()).outerjoin(roles, roles.c.id == _OWNED.c.role_id))
    .where(users.c.id == bindparam("user"), users.c.status == UserStatus.ACTIVE.value)
)
_FREE = select(api_tokens.c.id).where(api_tokens.c.id == bindparam("token")).with_for_update(skip_locked=True)
_NOTE_USE = Prepared(
    update(api_tokens)
    .where(api_tokens.c.id == _FREE.scalar_subquery())
    .values(last_used_at=func.clock_timestamp(), last_used_from=bindparam("address", type_=Text))
)
_STILL_GOOD = Prepared(
    select(api_token_secrets.c.digest)
    .select_from(_BY_SECRET)
    .where(api_token_secrets.c.digest == any_(bindparam("digests", type_=ARRAY(LargeBinary))), _COUNTS)
)


async def principal(session: Session, digest: bytes, *, ip_address: str | None) -> tuple[Principal, datetime] | None:
    """The caller behind the secret of a token, and until when it counts; None when it does not.

    Whether the token is taken from where the caller is, one asks its limits.
    """
    found = await session.records(_PRINCIPAL, digest=digest)
    if not found:
        return None
    id, owner_id, permissions, projects, networks, until, unseen = found[0][:7]
    limits = limits_of(permissions, projects, networks, until)
    if unseen and limits.admit(ip_address):
        await session.run(_NOTE_USE, token=id, address=ip_address)
    return Principal.by_token(owner_id, HeldToken(id, limits), held([record[7:] for record in found])), until


def limits_of(
    permissions: Sequence[str], projects: Sequence[UUID] | None, networks: Sequence[str] | None, expires_at: datetime
) -> TokenLimits:
    return TokenLimits(
        permissions=frozenset(Permission(name) for name in permissions),
        projects=None if projects is None else frozenset(projects),
        networks=None if networks is None else tuple(networks),
        expires_at=expires_at,
    )


async def owner_holds(session: Session, user_id: UUID) -> list[HeldGrant] | None:
    """The grants in force of whoever is to own a token; None when there is no such account, or it is not active."""
    found = await session.records(_OWNER, user=user_id)
    return held(found) if found else None


async def still_good(session: Session, digests: Sequence[bytes]) -> set[bytes]:
    """Those of these secrets that still count."""
    return {record[0] for record in await session.records(_STILL_GOOD, digests=list(digests))}


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, ApiToken]:
    return {token.id: token for token in await session.all(ApiToken, _BY_IDS, ids=list(ids))}


async def of_users(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[ApiToken]]:
    """Newest first, those that are revoked or have expired included."""
    return await pages(session, ApiToken, select(*_ROW), api_tokens.c.owner_id, ids, _NEWEST_FIRST, args)


async def lock(session: Session, id: UUID) -> ApiToken | None:
    return await session.first(ApiToken, _LOCK, id=id)


async def insert_token(
    session: Session, *, name: str, prefix: str, owner_id: UUID, limits: TokenLimits, digest: bytes
) -> ApiToken:
    token = await session.first(
        ApiToken,
        insert(api_tokens)
        .values(
            id=new_id(),
            name=name,
            prefix=prefix,
            owner_id=owner_id,
            permissions=literal(sorted(limits.permissions), ARRAY(Text)),
            project_ids=literal(None if limits.projects is None else sorted(limits.projects), ARRAY(Uuid)),
            allowed_networks=literal(None if limits.networks is None else list(limits.networks), ARRAY(Text)),
            expires_at=limits.expires_at,
        )
        .returning(*_ROW),
    )
    assert token is not None
    await _insert_secret(session, token.id, digest)
    return token


async def replace_secret(
    session: Session, id: UUID, *, prefix: str, digest: bytes, overlap: timedelta
) -> tuple[ApiToken, datetime]:
    """Another secret in the place of those that count; they count for as long as the overlap, at most as before.

    The token, and until when the last of them counts. Every process that has connections of theirs is woken.
    """
    ends = func.least(
        api_token_secrets.c.valid_until, api_tokens.c.expires_at, func.clock_timestamp() + literal(overlap)
    )
    await session.run(
        update(api_token_secrets)
        .where(api_token_secrets.c.token_id == id, api_tokens.c.id == id)
        .values(valid_until=ends)
    )
    until: datetime = await session.scalar(
        select(func.max(api_token_secrets.c.valid_until)).where(api_token_secrets.c.token_id == id)
    )
    token = await session.first(
        ApiToken, update(api_tokens).where(api_tokens.c.id == id).values(prefix=prefix).returning(*_ROW)
    )
    assert token is not None
    await _insert_secret(session, id, digest)
    session.topics.add(CALLERS)
    return token, until


async def revoke(session: Session, id: UUID) -> ApiToken | None:
    """End a token that is not revoked; every process that has connections of it is woken."""
    session.topics.add(CALLERS)
    return await session.first(
        ApiToken,
        update(api_tokens)
        .where(api_tokens.c.id == id, api_tokens.c.revoked_at.is_(None))
        .values(revoked_at=func.clock_timestamp())
        .returning(*_ROW),
    )


async def revoke_all(session: Session, owner_id: UUID) -> int:
    """End every token of a person; how many still counted."""
    session.topics.add(CALLERS)
    return await session.run(
        update(api_tokens)
        .where(api_tokens.c.owner_id == owner_id, api_tokens.c.revoked_at.is_(None))
        .values(revoked_at=func.clock_timestamp())
    )


async def forget_old_secrets(session: Session, *, limit: int) -> int:
    """Delete digests of secrets that do not count any more, at most `limit`; how many."""
    return await session.run(_FORGET_SECRETS, limit=limit)


async def _insert_secret(session: Session, token_id: UUID, digest: bytes) -> None:
    await session.run(insert(api_token_secrets).values(digest=digest, token_id=token_id))
