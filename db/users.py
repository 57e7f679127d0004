"""Queries on users."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import ARRAY, Uuid, any_, bindparam, delete, exists, func, literal, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert as upsert

from db.conditions import instant, one_of, words
from db.database import Prepared, Session
from db.grants import CALLERS
from db.ids import Kind, key_of, new_id
from db.paging import Order, Page, PageArgs, page
from db.rows import User, columns
from db.tables import grants, metadata, team_members, users
from db.vocabulary import UserStatus

_ROW = columns(User, users)
_BY_IDS = Prepared(select(*_ROW).where(users.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))))
_BY_USERNAME = Prepared(select(*_ROW).where(users.c.username == bindparam("username")))
_DIGEST = Prepared(
    select(users.c.id, users.c.password_digest, users.c.status).where(users.c.username == bindparam("username"))
)
_SIGNED_IN = Prepared(
    update(users)
    .where(users.c.id == bindparam("user"), users.c.status == UserStatus.ACTIVE.value)
    .values(last_seen_at=func.clock_timestamp())
)
_LOCK = Prepared(select(*_ROW).where(users.c.id == bindparam("user")).with_for_update(key_share=True))
ORDERS = {
    "USERNAME": (users.c.username, users.c.id),
    "CREATED_AT": (users.c.created_at, users.c.id),
    "LAST_SEEN_AT": (
        func.coalesce(users.c.last_seen_at, func.to_timestamp(0), type_=users.c.last_seen_at.type),
        users.c.id,
    ),
}


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, User]:
    return {user.id: user for user in await session.all(User, _BY_IDS, ids=list(ids))}


async def by_username(session: Session, username: str) -> User | None:
    return await session.first(User, _BY_USERNAME, username=username)


async def password_of(session: Session, username: str) -> tuple[UUID, str | None, str] | None:
    """The key, the password's digest and the status of the account with this name."""
    found = await session.records(_DIGEST, username=username)
    return (found[0][0], found[0][1], found[0][2]) if found else None


async def digest_of(session: Session, user_id: UUID) -> tuple[str, str | None]:
    """The name of an account and the digest of its password."""
    found = await session.records(select(users.c.username, users.c.password_digest).where(users.c.id == user_id))
    return found[0][0], found[0][1]


async def exchange_password(session: Session, user_id: UUID, *, old: str, new: str) -> bool:
    """Put another digest in the place of `old`; False when that one is not there any more."""
    statement = (
        update(users)
        .where(users.c.id == user_id, users.c.password_digest == old)
        .values(password_digest=new, updated_at=func.clock_timestamp(), revision=users.c.revision + 1)
    )
    return await session.run(statement) == 1


async def listed(session: Session, args: PageArgs) -> Page[User]:
    statement = select(*_ROW)
    wanted = args.filter
    if wanted is not None:
        statement = statement.where(
            *words(users.c.username, wanted.username),
            *words(users.c.email, wanted.email),
            *instant(users.c.created_at, wanted.created_at),
        )
        if wanted.statuses is not None:
            statement = statement.where(one_of(users.c.status, wanted.statuses))
        if wanted.team_id is not None:
            member = exists(select(true()).select_from(team_members)).where(
                team_members.c.user_id == users.c.id, team_members.c.team_id == key_of(wanted.team_id, Kind.TEAM)
            )
            statement = statement.where(member)
        if wanted.search is not None:
            near = f"%{wanted.search}%"
            statement = statement.where(
                or_(users.c.username.ilike(near), users.c.display_name.ilike(near), users.c.email.ilike(near))
            )
    name, descending = args.order
    return await page(session, User, statement, Order.by(name, *ORDERS[name], descending=descending), args)


async def insert_unless_taken(
    session: Session, *, username: str, email: str, display_name: str, password_digest: str | None
) -> User | None:
    """The new user, or None when the username or the address belongs to somebody."""
    statement = (
        upsert(users)
        .values(
            id=new_id(),
            username=username,
            email=email,
            display_name=display_name,
            status=UserStatus.ACTIVE,
            password_digest=password_digest,
        )
        .on_conflict_do_nothing()
        .returning(*_ROW)
    )
    return await session.first(User, statement)


async def by_username_or_email(session: Session, username: str, email: str) -> User | None:
    statement = select(*_ROW).where(
        or_(users.c.username == username, func.lower(users.c.email) == func.lower(literal(email)))
    )
    return await session.first(User, statement.limit(1))


async def set_password(session: Session, user_id: UUID, digest: str) -> None:
    await session.run(
        update(users)
        .where(users.c.id == user_id)
        .values(password_digest=digest, updated_at=func.clock_timestamp(), revision=users.c.revision + 1)
    )


async def note_signed_in(session: Session, user_id: UUID) -> bool:
    """Whether the account is active; nobody suspends it until the transaction has ended."""
    return await session.run(_SIGNED_IN, user=user_id) == 1


async def lock(session: Session, id: UUID) -> User | None:
    """The account, which nobody else changes or deletes until the transaction ends."""
    return await session.first(User, _LOCK, user=id)


async def change_unless_taken(session: Session, id: UUID, **values: Any) -> User | None:
    """The account as it is then; None when the address belongs to somebody else."""
    statement = update(users).where(users.c.id == id).values(**values, updated_at=func.clock_timestamp())
    try:
        async with session.connection.transaction():
            return await session.first(User, statement.returning(*_ROW))
    except asyncpg.UniqueViolationError:
        return None


async def remove(session: Session, id: UUID, *, heir: UUID | None) -> None:
    """Delete an account with its sessions, tokens, grants and memberships.

    What it made becomes the heir's, or nobody's; the grants it gave nobody's, for the heir did not give them.
    """
    if heir is not None:
        for table in metadata.sorted_tables:
            if "created_by" in table.c and table is not grants:
                await session.run(update(table).where(table.c.created_by == id).values(created_by=heir))
    session.topics.add(CALLERS)
    await session.run(delete(users).where(users.c.id == id))


async def any_exists(session: Session) -> bool:
    return bool(await session.scalar(select(func.count()).select_from(select(users.c.id).limit(1).subquery())))
