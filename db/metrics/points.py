"""Writing the points of series whose rows are locked: as rows, into chunks, and from rows into chunks.

A long batch that follows everything its series has becomes chunks at once. Others become rows, until a series has so
many that they are folded into its chunks, in the transaction of the batch: that is over or it never was, whatever is
killed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

import numpy as np
from sqlalchemy import text

from db.database import Prepared, Session
from db.metrics import chunks
from db.metrics.arrays import packed, unpacked, unpacked_integers
from db.metrics.chunks import Bounds
from db.rows import MetricSeries
from ml.downsampling import History
from ml.packing import (
    CHUNK,
    Place,
    Stored,
    contained,
    empty,
    in_order,
    joined,
    pieces,
    place_of,
    position,
    repeats,
    taken,
    together,
)

AT_ONCE = 128
"""A batch of so many points that follow all others becomes a chunk; fewer between two chunks join one of them."""
FOLDED_FROM = 1_024
"""So many rows of a series are folded into chunks."""
_SMALL = CHUNK // 2
_MANY_SMALL = 16
_WRITTEN_TOGETHER = 32

_ROWS = Prepared(
    text("""
    INSERT INTO metric_points (series_id, step, at, value)
    SELECT (CAST(:ids AS uuid[]))[p.which], p.step, p.at, p.value
    FROM unnest(
        CAST(:which AS integer[]), CAST(:steps AS bigint[]), CAST(:at AS bigint[]), CAST(:values AS float8[])
    ) AS p (which, step, at, value)
    """)
)
_NEW_ROWS = Prepared(
    text(f"""
    WITH inserted AS (
        INSERT INTO metric_points (series_id, step, at, value)
        SELECT (CAST(:ids AS uuid[]))[p.which], p.step, p.at, p.value
        FROM unnest(
            CAST(:which AS integer[]), CAST(:steps AS bigint[]), CAST(:at AS bigint[]), CAST(:values AS float8[])
        ) AS p (which, step, at, value)
        ON CONFLICT (series_id, step, at) DO NOTHING
        RETURNING series_id, step, at, value
    )
    SELECT series_id, {packed("step", "at", "value")} FROM inserted GROUP BY series_id
    """)  # noqa: S608
)
_TAKE_ROWS = Prepared(
    text(f"""
    WITH gone AS (
        DELETE FROM metric_points WHERE series_id = ANY (CAST(:ids AS uuid[])) RETURNING *
    )
    SELECT series_id, {packed("step", "at", "value", "changed")} FROM gone GROUP BY series_id
    """)  # noqa: S608
)
_OWN_TRANSACTION = Prepared(text("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)"))
_FORGET_ROWS = Prepared(
    text("""
    DELETE FROM metric_points p
    USING unnest(CAST(:ids AS uuid[]), CAST(:first_steps AS bigint[])) AS g (series_id, first_step)
    WHERE p.series_id = g.series_id AND p.step >= g.first_step
    """)
)
_FORGET_OLD_ROWS = Prepared(
    text("DELETE FROM metric_points WHERE series_id = ANY (CAST(:ids AS uuid[])) AND at < CAST(:at AS bigint)")
)
_READ_ROWS = Prepared(
    text(f"""
    SELECT series_id, {packed("step", "at", "value")} FROM metric_points
    WHERE series_id = ANY (CAST(:ids AS uuid[])) GROUP BY series_id
    """)  # noqa: S608
)


async def insert(session: Session, batch: Sequence[tuple[MetricSeries, History]]) -> dict[UUID, History]:
    """Write the points that are new; those of each series that has any.

    A point whose step and time are there already, or earlier in the batch, changes nothing.
    """
    alone: dict[UUID, History] = {}
    rows: dict[UUID, History] = {}
    among: dict[UUID, History] = {}
    folded: dict[UUID, History] = {}
    for series, given in batch:
        points = _ordered(given)
        if not len(points.at):
            continue
        follows = series.point_count == 0 or place_of(points, 0) > Place.of(series.last_step, series.last_point_at or 0)
        if follows and len(points.at) >= AT_ONCE:
            alone[series.id] = points
        elif series.point_count - series.packed_count + len(points.at) >= FOLDED_FROM:
            folded[series.id] = points
        elif follows:
            rows[series.id] = points
        else:
            among[series.id] = points
    if among:
        new = await _not_in_chunks(session, among)
        among = await _insert_rows(session, {id: points for id, points in new.items() if len(points.at)}, _NEW_ROWS)
    if rows:
        await _insert_rows(session, rows, _ROWS)
    made = [(id, piece) for id, points in alone.items() for piece in pieces(_own(points))]
    await chunks.insert(session, made)
    if folded:
        folded = await _fold(session, folded)
    grown = [*folded, *{id for id, piece in made if len(piece) < _SMALL}]
    if grown:
        await _merge_small(session, grown)
    return {id: new for kind in (alone, rows, among, folded) for id, new in kind.items() if len(new.at)}


def _ordered(points: History) -> History:
    """Points in the order of their series, of those with the same place the first."""
    order = in_order(points)
    points = points if order is None else taken(points, order)
    repeated = repeats(points)
    return taken(points, ~repeated) if repeated.any() else points


def _own(points: History, transaction: int = 0) -> Stored:
    return Stored(points, np.full(len(points.at), transaction))


async def _insert_rows(session: Session, rows: Mapping[UUID, History], statement: Prepared) -> dict[UUID, History]:
    if not rows:
        return {}
    lengths = [len(points.at) for points in rows.values()]
    whole = joined(list(rows.values()))
    steps: list[int | None] = whole.steps.tolist()
    for index in np.flatnonzero(whole.stepless).tolist():
        steps[index] = None
    records = await session.records(
        statement,
        ids=list(rows),
        which=np.repeat(np.arange(1, len(rows) + 1), lengths).tolist(),
        steps=steps,
        at=whole.at.tolist(),
        values=whole.values.tolist(),
    )
    return {record[0]: unpacked(*record[1:]) for record in records}


# ── Into chunks ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def _not_in_chunks(session: Session, given: Mapping[UUID, History]) -> dict[UUID, History]:
    """The points that no chunk of their series has."""
    new = dict(given)
    for series_id, bounds in (await _bounds(session, list(given))).items():
        points = given[series_id]
        kept = np.ones(len(points.at), np.bool_)
        for bound in bounds:
            low, high = position(points, bound.first), position(points, bound.last, after=True)
            if low < high:
                found = (await chunks.read(session, [bound.id]))[bound.id]
                kept[low:high] = ~contained(taken(points, slice(low, high)), found.history)
        new[series_id] = taken(points, kept)
    return new


async def _bounds(session: Session, ids: Sequence[UUID]) -> dict[UUID, list[Bounds]]:
    found: defaultdict[UUID, list[Bounds]] = defaultdict(list)
    for bound in await chunks.bounds(session, ids):
        found[bound.series_id].append(bound)
    return found


async def _fold(session: Session, given: Mapping[UUID, History]) -> dict[UUID, History]:
    """Put new points and the rows of their series into chunks; the new ones that were not there."""
    transaction = await session.scalar(_OWN_TRANSACTION)
    rows: dict[UUID, Stored] = {}
    for id, *columns, changed in await session.records(_TAKE_ROWS, ids=list(given)):
        rows[id] = Stored(unpacked(*columns), unpacked_integers(changed))
    all_bounds = await _bounds(session, list(given))
    found = {}
    for id, points in given.items():
        found[id] = await _fold_one(
            session, id, rows.get(id, _own(empty())), _own(points, transaction), all_bounds.get(id, [])
        )
    return found


async def _fold_one(session: Session, id: UUID, rows: Stored, new: Stored, bounds: Sequence[Bounds]) -> History:
    new = new.taken(~contained(new.history, rows.history))
    points = Stored(joined([rows.history, new.history]), np.concatenate((rows.changed, new.changed)))
    is_new = np.arange(len(points)) >= len(rows)
    order = in_order(points.history)
    if order is not None:
        points, is_new = points.taken(order), is_new[order]
    made: list[Stored] = []
    done = 0
    for bound in bounds:
        low, high = position(points.history, bound.first), position(points.history, bound.last, after=True)
        if low - done >= AT_ONCE:
            made += pieces(points.taken(slice(done, low)))
            done = low
        if high > done:
            stored = (await chunks.read(session, [bound.id]))[bound.id]
            joining = points.taken(slice(done, high))
            known = contained(joining.history, stored.history)
            is_new[done:high] &= ~known
            if not known.all():
                await chunks.delete(session, [bound.id])
                made += pieces(together([stored, joining.taken(~known)]))
            done = high
        if len(made) >= _WRITTEN_TOGETHER:
            await chunks.insert(session, [(id, piece) for piece in made])
            made = []
    made += pieces(points.taken(slice(done, None)))
    await chunks.insert(session, [(id, piece) for piece in made])
    return taken(points.history, is_new)


async def _merge_small(session: Session, ids: Sequence[UUID]) -> None:
    """Make whole chunks of many small ones that stand side by side."""
    for id, bounds in (
        await _bounds(session, await chunks.with_many_small(session, ids, small=_SMALL, many=_MANY_SMALL))
    ).items():
        side_by_side: list[list[Bounds]] = [[]]
        for bound in bounds:
            if bound.points < _SMALL:
                side_by_side[-1].append(bound)
            elif side_by_side[-1]:
                side_by_side.append([])
        for small in side_by_side:
            if len(small) > 1:
                found = await chunks.read(session, [bound.id for bound in small])
                await chunks.delete(session, list(found))
                whole = together([found[bound.id] for bound in small])
                await chunks.insert(session, [(id, piece) for piece in pieces(whole)])


# ── Out again ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def forget_steps_from(session: Session, first_steps: Mapping[UUID, int]) -> None:
    """Delete the points of each series from a step on."""
    await session.run(_FORGET_ROWS, ids=list(first_steps), first_steps=list(first_steps.values()))
    for id, bounds in (await _bounds(session, list(first_steps))).items():
        first = first_steps[id]
        hit = [bound for bound in bounds if not bound.last.stepless and bound.last.step >= first]
        cut = [bound.id for bound in hit if bound.first.step < first]
        left = [stored.taken(stored.history.steps < first) for stored in (await chunks.read(session, cut)).values()]
        await chunks.delete(session, [bound.id for bound in hit])
        await chunks.insert(session, [(id, piece) for piece in left])


async def forget_before(session: Session, ids: Sequence[UUID], at: int) -> None:
    """Delete rows of some series from before a time, and chunks that are wholly from before it."""
    await session.run(_FORGET_OLD_ROWS, ids=list(ids), at=at)
    await chunks.delete(session, await chunks.ended_before(session, ids, at))


async def rows_of(session: Session, ids: Sequence[UUID]) -> dict[UUID, History]:
    """The points that stand as rows; a series without them is left out."""
    return {record[0]: unpacked(*record[1:]) for record in await session.records(_READ_ROWS, ids=list(ids))}
