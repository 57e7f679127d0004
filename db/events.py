"""The event log, read in the order in which it settled.

A row keeps the transaction that wrote it. Transactions commit in another order than they take their numbers, so a
reader that asked for `number > last` would lose what commits late. Readers see only what is settled: rows of
transactions older than every transaction still running, in the order (transaction, number).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)

from auth.permissions import Permission
from db.database import Prepared, RowT, Session
from db.ids import Kind, new_id
from db.rows import Event, columns
from db.sight import in_sight
from db.tables import Xid8, dataset_versions, events, installation, model_versions, operations
from db.vocabulary import EventType


class Position(NamedTuple):
    """A place in a settled stream: after the row with this transaction and number."""

    changed: int
    number: int


Shown = Mapping[Permission, Sequence[EventType]]
"""Which events a permission shows, where it is held."""


class EventFilter(NamedTuple):
    """Which events; a part that is None asks for nothing."""

    types: Sequence[EventType] | None = None
    project_ids: Sequence[UUID] | None = None
    subject_ids: Sequence[str] | None = None
    actors: Sequence[str] | None = None
    resource_id: UUID | None = None
    shown: Shown | None = None


SETTLED = text("pg_snapshot_xmin(pg_current_snapshot())")
_EPOCH = Prepared(select(installation.c.epoch))
_HEAD = Prepared(select(text("pg_snapshot_xmin(pg_current_snapshot()) AS xmin")))


class State(NamedTuple, Generic[RowT]):
    """A thing as it is now; `changed` is settled when every older transaction is over."""

    row: RowT
    changed: int
    is_settled: bool


def settled(changed: ColumnElement[Any]) -> ColumnElement[bool]:
    """Rows whose transaction, and every one before it, is over."""
    return changed < func.pg_snapshot_xmin(func.pg_current_snapshot(), type_=Xid8)


def after(changed: ColumnElement[Any], number: ColumnElement[Any], position: Position) -> ColumnElement[bool]:
    return tuple_(changed, number) > tuple_(literal(position.changed, Xid8), literal(position.number))


def before(changed: ColumnElement[Any], number: ColumnElement[Any], position: Position) -> ColumnElement[bool]:
    return tuple_(changed, number) < tuple_(literal(position.changed, Xid8), literal(position.number))


async def append(
    session: Session,
    *,
    type: EventType,
    project_id: UUID | None,
    actor: str | None,
    subject_id: str,
    resource: tuple[Kind, UUID],
    changes: dict[str, Any] | None,
    request_id: str | None,
) -> None:
    """Write an event in the caller's transaction. `resource` is what it is about, or a version of that."""
    await session.run(
        insert(events).values(
            id=new_id(),
            type=type,
            project_id=project_id,
            actor=actor,
            subject_id=subject_id,
            resource_id=_resource(*resource),
            changes=changes,
            request_id=request_id,
        )
    )


def _resource(kind: Kind, key: UUID) -> Any:
    """The dataset, run or model that something is, or is a version of."""
    if kind is Kind.DATASET_VERSION:
        return select(dataset_versions.c.dataset_id).where(dataset_versions.c.id == key).scalar_subquery()
    if kind is Kind.MODEL_VERSION:
        return select(model_versions.c.model_id).where(model_versions.c.id == key).scalar_subquery()
    if kind is Kind.BATCH_PREDICTION:
        of_operation = model_versions.join(operations, operations.c.model_version_id == model_versions.c.id)
        found = select(model_versions.c.model_id).select_from(of_operation).where(operations.c.id == key)
        return found.scalar_subquery()
    return key if kind in (Kind.DATASET, Kind.RUN, Kind.MODEL) else None


async def settled_after(session: Session, position: Position, filter: EventFilter, *, limit: int) -> list[Event]:
    """The next events after a position, oldest first; only what is settled."""
    statement = (
        matching(filter)
        .where(after(events.c.changed, events.c.number, position))
        .order_by(events.c.changed, events.c.number)
        .limit(limit)
    )
    return await session.all(Event, statement)


async def settled_before(
    session: Session, position: Position | None, filter: EventFilter, *, limit: int
) -> list[Event]:
    """The last events before a position, or of all; the newest first."""
    statement = matching(filter).order_by(events.c.changed.desc(), events.c.number.desc()).limit(limit)
    if position is not None:
        statement = statement.where(before(events.c.changed, events.c.number, position))
    return await session.all(Event, statement)


async def by_ids(session: Session, ids: Sequence[UUID], shown: Shown) -> Mapping[UUID, Event]:
    wanted = events.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))
    statement = select(*columns(Event, events)).where(wanted, _in_sight(shown))
    return {event.id: event for event in await session.all(Event, statement, ids=list(ids))}


def _in_sight(shown: Shown) -> ColumnElement[bool]:
    return or_(
        false(),
        *(
            and_(
                events.c.type == any_(literal(list(types), ARRAY(Text))),
                in_sight(permission, events.c.project_id, events.c.resource_id),
            )
            for permission, types in shown.items()
        ),
    )


def matching(filter: EventFilter) -> Select[Any]:
    """The settled events a filter lets through."""
    statement = select(*columns(Event, events)).where(settled(events.c.changed))
    if filter.shown is not None:
        statement = statement.where(_in_sight(filter.shown))
    if filter.types is not None:
        statement = statement.where(events.c.type == any_(literal(list(filter.types), ARRAY(Text))))
    if filter.project_ids is not None:
        statement = statement.where(events.c.project_id == any_(literal(list(filter.project_ids), ARRAY(Uuid))))
    if filter.subject_ids is not None:
        statement = statement.where(events.c.subject_id == any_(literal(list(filter.subject_ids), ARRAY(Text))))
    if filter.resource_id is not None:
        statement = statement.where(events.c.resource_id == filter.resource_id)
    if filter.actors is not None:
        statement = statement.where(events.c.actor == any_(literal(list(filter.actors), ARRAY(Text))))
    return statement


class Tail(NamedTuple):
    """The end of the log: everything before `head` is settled; `unsettled`: committed events wait behind it."""

    head: Position
    unsettled: bool


async def tail(session: Session) -> Tail:
    record = (await session.records(_TAIL))[0]
    return Tail(Position(record[0], 0), record[1])


_TAIL = Prepared(
    select(
        text("pg_snapshot_xmin(pg_current_snapshot()) AS xmin"),
        exists().where(events.c.changed >= func.pg_snapshot_xmin(func.pg_current_snapshot(), type_=Xid8)),
    )
)


async def head(session: Session) -> Position:
    """The place where everything settled is past and everything else is to come."""
    return Position(await session.scalar(_HEAD), 0)


async def epoch(session: Session) -> UUID:
    """Tells one life of the database from another: transaction numbers do not survive a dump and restore."""
    found: UUID = await session.scalar(_EPOCH)
    return found


async def forget_before(session: Session, moment: datetime, *, limit: int) -> int:
    """Delete the oldest events, at most `limit`, up to the first one that is not older than a moment; how many.

    Where the log now begins is kept, so that a reader who comes from before it learns of the gap. Of several callers
    at once each waits for the one before, so that the beginning never moves back.
    """
    await session.run(_LOCK)
    older = (
        select(events.c.changed, events.c.number, (events.c.at < moment).label("older"))
        .where(settled(events.c.changed))
        .order_by(events.c.changed, events.c.number)
        .limit(limit)
        .subquery("older")
    )
    doomed = (
        select(older.c.changed, older.c.number)
        .add_columns(func.bool_and(older.c.older).over(order_by=(older.c.changed, older.c.number)).label("gone"))
        .subquery("doomed")
    )
    last = (
        select(doomed.c.changed, doomed.c.number)
        .where(doomed.c.gone)
        .order_by(doomed.c.changed.desc(), doomed.c.number.desc())
        .limit(1)
    )
    records = await session.records(last)
    if not records:
        return 0
    end = Position(*records[0])
    await session.run(update(installation).values(forgotten_changed=end.changed, forgotten_number=end.number))
    upto = Position(end.changed, end.number + 1)
    return await session.run(delete(events).where(before(events.c.changed, events.c.number, upto)))


_LOCK = Prepared(select(installation.c.epoch).with_for_update())


async def forgotten(session: Session) -> Position | None:
    """The last event that was deleted; None when all that ever happened is still there."""
    record = (await session.records(_FORGOTTEN))[0]
    return None if record[0] is None else Position(*record)


_FORGOTTEN = Prepared(select(installation.c.forgotten_changed, installation.c.forgotten_number))
