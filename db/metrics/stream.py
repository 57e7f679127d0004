"""New points as they come: the newest of each series, and what a snapshot could not see."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    LargeBinary,
    Text,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
)

from db import snapshots
from db.database import Session
from db.metrics import chunks
from db.metrics.arrays import NO_STEP, unpacked
from db.metrics.data import ColumnData, NewPoints
from db.metrics.selection import InvalidPattern, Selector, let_through
from db.snapshots import Snapshot
from db.tables import Xid8, metric_chunks, metric_points, metric_series
from ml.downsampling import History
from ml.packing import Stored, in_order, joined, taken

NEWEST = 1_000
_MOST_IN_A_BATCH = 100_000
_SLICES = 16

_NAMES = (metric_series.c.id, metric_series.c.name, metric_series.c.run_id, metric_series.c.labels)
_PAYLOAD = tuple(metric_chunks.c[name] for name in chunks.PAYLOAD.split(", "))


class _Found(NamedTuple):
    """Points of series, those of each in parts; `last` is the last transaction of a batch that was cut."""

    snapshot: Snapshot
    last: int | None
    series: dict[UUID, tuple[str, UUID | None, list[dict[str, str]]]]
    rows: dict[UUID, History]
    chunks: dict[UUID, list[Stored]]


async def newest(session: Session, selector: Selector) -> tuple[list[NewPoints], Snapshot]:
    """The newest points of each series, and the snapshot that saw them. Raises `InvalidPattern`."""
    points, series, packed = metric_points.c, metric_series.c, metric_chunks.c
    last = (
        select(points.step, points.at, points.value)
        .where(points.series_id == series.id)
        .order_by(points.step.desc().nulls_first(), points.at.desc())
        .limit(NEWEST)
        .correlate(metric_series)
        .subquery("last")
    )
    rows = select(*_arrays(last.c)).lateral("rows")
    later = func.sum(packed.points).over(
        order_by=(packed.first_step.desc().nulls_first(), packed.first_at.desc()), rows=(None, -1)
    )
    all_chunks = select(*_PAYLOAD, later.label("later")).where(packed.series_id == series.id).lateral("all_chunks")
    statement = union_all(
        _rows(select(*_NAMES, rows.c.steps, rows.c.at, rows.c.value)
              .select_from(metric_series.join(rows, true())).where(*let_through(selector)).subquery("s")),
        _chunks(select(*_NAMES, *(all_chunks.c[column.name] for column in _PAYLOAD))
                .select_from(metric_series.join(all_chunks, true()))
                .where(*let_through(selector), func.coalesce(all_chunks.c.later, 0) < NEWEST).subquery("c")),
        _moment(null()),
    )  # fmt: skip
    found = await _found(session, statement)
    parts = defaultdict(list, {id: [one.history for one in of] for id, of in found.chunks.items()})
    return _listed(found, {id: taken(_ordered([*parts[id], *_of(found.rows, id)]), slice(-NEWEST, None))
                           for id in found.series}), found.snapshot  # fmt: skip


async def unseen(session: Session, selector: Selector, snapshot: Snapshot) -> tuple[list[NewPoints], Snapshot]:
    """The points that a snapshot could not see, and the snapshot to ask with next.

    A long backlog comes in parts of about a hundred thousand points, cut between two transactions. Raises
    `InvalidPattern`.
    """
    points, packed = metric_points.c, metric_chunks.c
    fresh = (
        select(*_NAMES, points.step, points.at, points.value, points.changed)
        .join_from(metric_series, metric_points, points.series_id == metric_series.c.id)
        .where(*let_through(selector), snapshots.unseen(points.changed, snapshot))
        .cte("fresh")
    )
    fresh_chunks = (
        select(*_NAMES, *_PAYLOAD, packed.last_changed)
        .join_from(metric_series, metric_chunks, packed.series_id == metric_series.c.id)
        .where(*let_through(selector), packed.last_changed >= literal(snapshot.xmin, BigInteger))
        .cte("fresh_chunks")
    )
    bound = _cut(fresh, fresh_chunks, snapshot)
    part = (
        select(fresh).where(or_(bound.is_(None), _number(fresh.c.changed) <= bound))
        .order_by(fresh.c.id, fresh.c.step, fresh.c.at)
        .subquery("part")
    )  # fmt: skip
    names = [part.c[column.name] for column in _NAMES]
    statement = union_all(
        _rows(select(*names, *_arrays(part.c)).group_by(*names).subquery("s")),
        _chunks(select(fresh_chunks)
                .where(or_(bound.is_(None), fresh_chunks.c.first_changed <= bound)).subquery("c")),
        _moment(bound),
    )  # fmt: skip
    found = await _found(session, statement)
    parts: defaultdict[UUID, list[History]] = defaultdict(list)
    for id, of in found.chunks.items():
        for one in of:
            new = ~snapshot.saw(one.changed)
            if found.last is not None:
                new &= one.changed <= found.last
            parts[id].append(one.history if new.all() else taken(one.history, new))
    next = found.snapshot if found.last is None else Snapshot.before(found.last + 1)
    listed = _listed(found, {id: _ordered([*parts[id], *_of(found.rows, id)]) for id in found.series})
    if found.last is not None and not listed:
        return await unseen(session, selector, next)
    return listed, next


def _cut(rows: Any, packed: Any, snapshot: Snapshot) -> ColumnElement[int]:
    """The last transaction of the first hundred thousand points or so, when there are more; all up to it are over.

    The points of a chunk count as if they had come evenly between its first and its last transaction.
    """
    first = func.greatest(packed.c.first_changed, literal(snapshot.xmin, BigInteger), type_=BigInteger)
    numbers = func.generate_series(literal(1, BigInteger), literal(_SLICES, BigInteger))
    slice_ = numbers.table_valued("number", name="slice").render_derived()
    steps = union_all(
        select(_number(rows.c.changed).label("changed"), literal(1, BigInteger).label("points")),
        select(
            first + (packed.c.last_changed - first) * slice_.c.number // literal(_SLICES, BigInteger),
            cast(packed.c.points // literal(_SLICES, Integer) + 1, BigInteger),
        ).select_from(packed.join(slice_, true())),
    ).subquery("steps")
    counted = select(steps.c.changed, func.sum(steps.c.points).over(order_by=steps.c.changed).label("until")).subquery(
        "counted"
    )
    ends = func.min(counted.c.changed, type_=BigInteger)
    end = select(ends.label("changed")).where(counted.c.until > _MOST_IN_A_BATCH).subquery("end")
    # A cursor can only say that all is seen up to a transaction, so it does not go back behind what was seen before.
    last = func.greatest(end.c.changed, literal(snapshot.xmax - 1, BigInteger), type_=BigInteger)
    over = _number(func.pg_snapshot_xmin(func.pg_current_snapshot(), type_=Xid8))
    cut = select(last.label("changed")).where(end.c.changed.is_not(None), last < over).cte("cut")
    return select(cut.c.changed).scalar_subquery()


def _number(transaction: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(cast(transaction, Text), BigInteger)


def _arrays(points: Any) -> list[ColumnElement[bytes]]:
    """Points of a group as three binary arrays, in the order they come in."""
    return [
        func.array_send(func.array_agg(column), type_=LargeBinary).label(name)
        for name, column in (
            ("steps", func.coalesce(points.step, literal(NO_STEP, BigInteger))),
            ("at", points.at),
            ("value", points.value),
        )
    ]


def _rows(series: Any) -> Any:
    """Rows of each series: its names, no number of points, three arrays."""
    c = series.c
    return select(
        c.id, c.name, c.run_id, c.labels, cast(null(), Integer).label("points"), c.steps, c.at, c.value,
        cast(null(), LargeBinary).label("changed"), cast(null(), BigInteger).label("first_changed"),
        cast(null(), Text).label("snapshot"), cast(null(), BigInteger).label("last"),
    ).where(c.at.is_not(None))  # fmt: skip


def _chunks(series: Any) -> Any:
    c = series.c
    payload = (c[column.name] for column in _PAYLOAD)
    return select(c.id, c.name, c.run_id, c.labels, *payload, cast(null(), Text), cast(null(), BigInteger))


def _moment(bound: Any) -> Any:
    nothing = (cast(null(), column.type) for column in (*_NAMES, *_PAYLOAD))
    return select(*nothing, snapshots.now(), cast(bound, BigInteger))


async def _found(session: Session, statement: Any) -> _Found:
    try:
        records = await session.records(statement)
    except asyncpg.InvalidRegularExpressionError as error:
        raise InvalidPattern(str(error)) from error
    series: dict[UUID, Any] = {}
    rows: dict[UUID, History] = {}
    packed: defaultdict[UUID, list[Stored]] = defaultdict(list)
    now, last = "", None
    for record in records:
        id, name, run_id, labels, points, steps, at, value, changed, first_changed, snapshot, bound = record
        if id is None:
            now, last = snapshot, bound
            continue
        series[id] = name, run_id, labels
        if points is None:
            rows[id] = unpacked(steps, at, value)
        else:
            packed[id].append(chunks.unpacked(points, steps, at, value, changed, first_changed))
    return _Found(Snapshot.of(now), last, series, rows, packed)


def _of(rows: dict[UUID, History], id: UUID) -> list[History]:
    return [rows[id]] if id in rows else []


def _ordered(parts: Sequence[History]) -> History:
    history = joined(list(parts))
    order = in_order(history)
    return history if order is None else taken(history, order)


def _listed(found: _Found, points: dict[UUID, History]) -> list[NewPoints]:
    """The series that have any of the points, by name."""
    return [
        NewPoints(id, *found.series[id], ColumnData.of(points[id]))
        for id in sorted(found.series, key=lambda id: (found.series[id][0], id))
        if len(points[id].at)
    ]
