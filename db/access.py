"""Queries on who may do what: sessions, refresh tokens, and the principal that a session and its grants add up to."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, and_, any_, bindparam, func, insert, literal, or_, select, true, update

from auth.principals import Principal
from db.database import Prepared, Session
from db.forgetting import forgetting
from db.grants import CALLERS, held, held_by
from db.ids import new_id
from db.paging import Order, Page, PageArgs, pages
from db.rows import Session as SessionRow
from db.rows import columns
from db.tables import refresh_tokens, roles, sessions, users
from db.vocabulary import UserStatus

_HELD = held_by(bindparam("user", type_=Uuid))
_IS_OPEN = and_(
    users.c.status == UserStatus.ACTIVE.value,
    sessions.c.revoked_at.is_(None),
    sessions.c.expires_at > func.clock_timestamp(),
)
_OF_USERS = sessions.join(users, users.c.id == sessions.c.user_id)
SEEN_EVERY = timedelta(minutes=1)
"""How exactly the database knows when somebody was last there: a request within the minute writes nothing."""
_PRINCIPAL = Prepared(
    select(
        sessions.c.last_seen_at < func.clock_timestamp() - literal(SEEN_EVERY),
        _HELD.c.id,
        func.coalesce(roles.c.permissions, _HELD.c.permissions),
        _HELD.c.project_id,
        _HELD.c.resource_id,
        _HELD.c.expires_at,
    )
    .select_from(_OF_USERS.outerjoin(_HELD, true()).outerjoin(roles, roles.c.id == _HELD.c.role_id))
    .where(sessions.c.id == bindparam("session"), users.c.id == bindparam("user"), _IS_OPEN)
)
_FREE = (
    select(sessions.c.id, sessions.c.user_id)
    .select_from(_OF_USERS)
    .where(sessions.c.id == bindparam("session"))
    .with_for_update(skip_locked=True, key_share=True)
    .cte("free")
)
_NOTE_SEEN = Prepared(
    update(users)
    .where(users.c.id == _FREE.c.user_id)
    .values(last_seen_at=func.clock_timestamp())
    .add_cte(
        update(sessions).where(sessions.c.id == _FREE.c.id).values(last_seen_at=func.clock_timestamp()).cte("seen")
    )
)
"""When nobody holds the rows: whoever comes next says so then."""
_SESSIONS = Prepared(
    select(*columns(SessionRow, sessions)).where(sessions.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
)
_STILL_OPEN = Prepared(
    select(sessions.c.id)
    .select_from(_OF_USERS)
    .where(sessions.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))), _IS_OPEN)
)
_NEWEST_FIRST = Order.by("CREATED_AT", sessions.c.created_at, sessions.c.id, descending=True)


class Refresh(NamedTuple):
    """A refresh token as the database knows it, with the session it belongs to."""

    session_id: UUID
    user_id: UUID
    used_at: datetime | None
    revoked_at: datetime | None
    expires_at: datetime
    status: str


async def principal(session: Session, *, session_id: UUID, user_id: UUID) -> Principal | None:
    """The caller behind a session with the grants in force now; None when the session or the account is over."""
    found = await session.records(_PRINCIPAL, session=session_id, user=user_id)
    if not found:
        return None
    if found[0][0]:
        await session.run(_NOTE_SEEN, session=session_id)
    return Principal.of(user_id, session_id, held([record[1:] for record in found]))


async def open_session(
    session: Session, *, user_id: UUID, lifetime: timedelta, ip_address: str | None, user_agent: str | None
) -> SessionRow:
    statement = (
        insert(sessions)
        .values(
            id=new_id(),
            user_id=user_id,
            expires_at=func.clock_timestamp() + literal(lifetime),
            ip_address=ip_address,
            user_agent=user_agent,
        )
        .returning(*columns(SessionRow, sessions))
    )
    opened = await session.first(SessionRow, statement)
    assert opened is not None
    return opened


async def add_refresh_token(session: Session, session_id: UUID, digest: bytes) -> None:
    await session.run(insert(refresh_tokens).values(digest=digest, session_id=session_id))


async def lock_refresh_token(session: Session, digest: bytes) -> Refresh | None:
    """The token with its session, locked so that of two uses at once the second is seen as a reuse."""
    statement = (
        select(
            sessions.c.id,
            sessions.c.user_id,
            refresh_tokens.c.used_at,
            sessions.c.revoked_at,
            sessions.c.expires_at,
            users.c.status,
        )
        .select_from(
            refresh_tokens.join(sessions, sessions.c.id == refresh_tokens.c.session_id).join(
                users, users.c.id == sessions.c.user_id
            )
        )
        .where(refresh_tokens.c.digest == digest)
        .with_for_update(of=[refresh_tokens, sessions])
    )
    return await session.first(Refresh, statement)


async def use_refresh_token(session: Session, digest: bytes, session_id: UUID, lifetime: timedelta) -> datetime:
    """Mark a token as used and let its session live on; when the session ends then."""
    await session.run(
        update(refresh_tokens).where(refresh_tokens.c.digest == digest).values(used_at=func.clock_timestamp())
    )
    expires_at: datetime = await session.scalar(
        update(sessions)
        .where(sessions.c.id == session_id)
        .values(last_seen_at=func.clock_timestamp(), expires_at=func.clock_timestamp() + literal(lifetime))
        .returning(sessions.c.expires_at)
    )
    return expires_at


async def revoke_sessions(session: Session, user_id: UUID, *, only: UUID | None = None, but: UUID | None = None) -> int:
    """End one session of a user, or all of them, or all but one; how many were still open.

    Every process that has connections of theirs is woken.
    """
    statement = update(sessions).where(sessions.c.user_id == user_id, sessions.c.revoked_at.is_(None))
    if only is not None:
        statement = statement.where(sessions.c.id == only)
    if but is not None:
        statement = statement.where(sessions.c.id != but)
    session.topics.add(CALLERS)
    return await session.run(statement.values(revoked_at=func.clock_timestamp()))


async def still_open(session: Session, ids: Sequence[UUID]) -> set[UUID]:
    """Those of these sessions that have not ended, and whose users may still come in."""
    return {record[0] for record in await session.records(_STILL_OPEN, ids=list(ids))}


async def sessions_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, SessionRow]:
    return {row.id: row for row in await session.all(SessionRow, _SESSIONS, ids=list(ids))}


async def sessions_of_users(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[SessionRow]]:
    """Newest first, those that are over included, until they are forgotten."""
    statement = select(*columns(SessionRow, sessions))
    return await pages(session, SessionRow, statement, sessions.c.user_id, ids, _NEWEST_FIRST, args)


async def forget_old_sessions(session: Session, *, limit: int) -> int:
    """Delete sessions that were over 30 days ago, at most `limit`, with their refresh tokens; how many."""
    return await session.run(_FORGET_SESSIONS, limit=limit)


async def forget_old_refresh_tokens(session: Session, *, limit: int) -> int:
    """Delete refresh tokens that were used up 30 days ago, at most `limit`; how many.

    Until then one that comes back ends its session; after that it is a token nobody knows.
    """
    return await session.run(_FORGET_REFRESH_TOKENS, limit=limit)


_LONG_AGO = func.now() - literal(timedelta(days=30))
_FORGET_SESSIONS = forgetting(sessions, or_(sessions.c.expires_at < _LONG_AGO, sessions.c.revoked_at < _LONG_AGO))
_FORGET_REFRESH_TOKENS = forgetting(refresh_tokens, refresh_tokens.c.used_at < _LONG_AGO)
