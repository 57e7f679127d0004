"""The audit log: append only, every entry carries the hash of the one before it.

The hash of an entry is the SHA-256 of the UTF-8 text of a JSON array, as PostgreSQL prints `jsonb`: the hash of the
entry before it (64 zeros for the first), then its own columns in the order of `_HASHED`; `at` is in microseconds since
1970. `audit_head` holds the number and the hash of the last entry. Numbers have no gaps, so a changed, removed or
reordered entry breaks the chain at that place, and an end that was cut off does not fit the head.

Who appends locks the head, as the last thing before the commit: writers wait for each other's commit and for nothing
else, and no lock is taken after it, so they cannot block each other.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    extract,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    text,
    update,
)

from db import tables
from db.conditions import instant, one_of
from db.database import Prepared, Session
from db.ids import Kind, identify, new_id
from db.paging import Order, Page, PageArgs, page, pages
from db.rows import AuditEvent, columns
from db.tables import audit_events, audit_head, users
from db.vocabulary import AuditAction, AuditOutcome

ORIGIN = "0" * 64
_HASHED = (
    "number", "id", "at", "action", "outcome", "user_id", "token_id", "actor", "actor_name", "project_id",
    "resource_id", "resource_name", "ip_address", "user_agent", "operation_name", "request_id", "before", "after",
)  # fmt: skip
_GIVEN = tuple(name for name in _HASHED if name not in ("at", "actor_name"))
_NEWEST_FIRST = Order.by("NUMBER", audit_events.c.number, descending=True)
_AT_ONCE = 20_000
_NAMES: dict[Kind, ColumnElement[Any]] = {
    Kind.USER: tables.users.c.username,
    Kind.API_TOKEN: tables.api_tokens.c.name,
    Kind.TEAM: tables.teams.c.name,
    Kind.ROLE: tables.roles.c.name,
    Kind.PROJECT: tables.projects.c.name,
    Kind.DATASET: tables.datasets.c.name,
    Kind.RUN: tables.training_runs.c.name,
    Kind.MODEL: tables.models.c.name,
}


class Entry(NamedTuple):
    """What an entry says, but for its place in the chain. `actor_name` counts where there is no such user."""

    action: AuditAction
    outcome: AuditOutcome
    user_id: UUID | None
    token_id: UUID | None
    actor: str | None
    actor_name: str
    project_id: UUID | None
    resource_id: str | None
    resource_name: str | None
    ip_address: str | None
    user_agent: str | None
    operation_name: str | None
    request_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Verification(NamedTuple):
    intact: bool
    checked_count: int
    first_broken_id: UUID | None


def _hash(entry: FromClause, previous_hash: ColumnElement[Any]) -> ColumnElement[str]:
    def told(name: str) -> ColumnElement[Any]:
        return cast(extract("epoch", entry.c.at) * 1_000_000, BigInteger) if name == "at" else entry.c[name]

    written = cast(func.jsonb_build_array(previous_hash, *(told(name) for name in _HASHED)), Text)
    return func.encode(func.sha256(func.convert_to(written, "UTF8")), "hex")


def _appending() -> Prepared:
    given = [cast(bindparam(name, type_=audit_events.c[name].type), audit_events.c[name].type) for name in _GIVEN]
    name = select(users.c.username).where(users.c.id == bindparam("user_id", type_=Uuid)).scalar_subquery()
    entry = select(
        func.clock_timestamp().label("at"),
        func.coalesce(name, cast(bindparam("actor_name", type_=Text), Text)).label("actor_name"),
        cast(bindparam("previous_hash", type_=Text), Text).label("previous_hash"),
        *(value.label(column) for value, column in zip(given, _GIVEN, strict=True)),
    ).subquery("entry")
    chained = select(*entry.c, _hash(entry, entry.c.previous_hash))
    return Prepared(insert(audit_events).from_select([*entry.c.keys(), "hash"], chained).returning(audit_events.c.hash))


_HEAD = Prepared(select(audit_head.c.number, audit_head.c.hash).with_for_update())
_APPEND = _appending()
_MOVE_HEAD = Prepared(
    update(audit_head).values(number=bindparam("to", type_=BigInteger), hash=bindparam("by", type_=Text))
)
_HAS_WRITTEN = Prepared(select(text("pg_current_xact_id_if_assigned() IS NOT NULL")))
_BY_IDS = Prepared(
    select(*columns(AuditEvent, audit_events)).where(audit_events.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
)


async def append(session: Session, entry: Entry) -> None:
    """Write an entry in the caller's transaction, which has to end right after it: the head stays locked until then."""
    number, previous_hash = (await session.records(_HEAD))[0]
    hash = await session.scalar(_APPEND, id=new_id(), number=number + 1, previous_hash=previous_hash, **entry._asdict())
    await session.run(_MOVE_HEAD, to=number + 1, by=hash)


async def has_written(session: Session) -> bool:
    """Whether the transaction has written anything so far, or locked a row in order to."""
    return bool(await session.scalar(_HAS_WRITTEN))


async def name_of(session: Session, resource_id: str | None) -> str | None:
    """What a resource is called, where it has a name."""
    identity = identify(resource_id or "")
    name = _NAMES.get(identity.kind) if identity is not None else None
    if identity is None or name is None:
        return None
    found: str | None = await session.scalar(select(name).where(name.table.c.id == identity.key))
    return found


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, AuditEvent]:
    return {event.id: event for event in await session.all(AuditEvent, _BY_IDS, ids=list(ids))}


async def listed(session: Session, args: PageArgs) -> Page[AuditEvent]:
    """Newest first."""
    statement = select(*columns(AuditEvent, audit_events))
    wanted = args.filter
    if wanted is not None:
        statement = statement.where(*instant(audit_events.c.at, wanted.at))
        if wanted.actions is not None:
            statement = statement.where(one_of(audit_events.c.action, wanted.actions))
        if wanted.outcomes is not None:
            statement = statement.where(one_of(audit_events.c.outcome, wanted.outcomes))
        if wanted.actor_id is not None:
            statement = statement.where(audit_events.c.actor == wanted.actor_id)
        if wanted.resource_id is not None:
            statement = statement.where(audit_events.c.resource_id == wanted.resource_id)
        if wanted.project_id is not None:
            project = identify(wanted.project_id)
            key = project.key if project is not None and project.kind is Kind.PROJECT else None
            statement = statement.where(audit_events.c.project_id == key if key else literal(False))
        if wanted.request_id is not None:
            statement = statement.where(audit_events.c.request_id == wanted.request_id)
        if wanted.ip_address is not None:
            statement = statement.where(audit_events.c.ip_address == wanted.ip_address)
    return await page(session, AuditEvent, statement, _NEWEST_FIRST, args)


async def of_users(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[AuditEvent]]:
    """What each of these people did, newest first."""
    statement = select(*columns(AuditEvent, audit_events))
    return await pages(session, AuditEvent, statement, audit_events.c.user_id, ids, _NEWEST_FIRST, args)


async def verify(session: Session, since: datetime | None, until: datetime | None) -> Verification:
    """Compute every hash of the time anew, oldest first, up to the first entry that does not fit.

    An entry fits when its hash is that of its columns and it names the hash of the entry numbered one less. Without
    `until` the last entry has to be the one that the head names; where it is not, no entry is broken and the end is
    missing. Reads 20,000 entries at a time, so a long log holds no snapshot open.
    """
    checked, after = 0, 0
    while True:
        count, last, broken = (await session.records(_stretch(since, until), after=after))[0]
        checked += count
        if broken is not None:
            first: UUID = await session.scalar(select(audit_events.c.id).where(audit_events.c.number == broken))
            return Verification(False, checked, first)
        if count < _AT_ONCE:
            break
        after = last
    missing = until is None and await session.scalar(_END_IS_MISSING)
    return Verification(not missing, checked, None)


def _stretch(since: datetime | None, until: datetime | None) -> Any:
    entry = audit_events.alias("entry")
    asked = [entry.c.number > bindparam("after", type_=BigInteger)]
    if since is not None:
        asked.append(entry.c.at >= since)
    if until is not None:
        asked.append(entry.c.at < until)
    some = select(entry).where(*asked).order_by(entry.c.number).limit(_AT_ONCE).subquery("some")
    before = audit_events.alias("before")
    fits = and_(
        some.c.hash == _hash(some, some.c.previous_hash),
        or_(
            and_(some.c.number == 1, some.c.previous_hash == ORIGIN),
            func.coalesce(some.c.previous_hash == before.c.hash, False),
        ),
    )
    return select(func.count(), func.max(some.c.number), func.min(some.c.number).filter(not_(fits))).select_from(
        some.outerjoin(before, before.c.number == some.c.number - 1)
    )


_END_IS_MISSING = Prepared(
    select(
        not_(
            or_(
                and_(
                    audit_head.c.number == 0,
                    ~select(audit_events.c.id).exists(),
                ),
                select(audit_events.c.id)
                .where(audit_events.c.number == audit_head.c.number, audit_events.c.hash == audit_head.c.hash)
                .exists(),
            )
        )
    ).select_from(audit_head)
)
