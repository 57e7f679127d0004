"""Histories of series: read from rows, chunks and rollups as columns, and thinned.

What is read is what one snapshot of the database saw. A long history that is wanted as an envelope (MIN_MAX along its
order) is read from the rollups of its chunks as far as they fit its buckets, and is the same to the last bit.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from sqlalchemy import select, text

from db import snapshots
from db.database import Prepared, Session
from db.metrics import chunks, series
from db.metrics.arrays import packed, unpacked
from db.metrics.data import SeriesData, SeriesOfRun
from db.metrics.selection import Range, RunMetrics, Wanted
from db.rows import Sized
from db.snapshots import Snapshot
from db.vocabulary import DownsampleMethod, MetricAxis
from ml.downsampling import Axis, History, Ints, Method, Thinned, cell_width, thinned
from ml.packing import COARSER, Stored, in_order, joined, rolled, taken

_MOST_AT_ONCE = 2_000_000
_IN_A_THREAD = 20_000
_LONG = 32_768
"""Shorter histories are read whole."""
_LOOKS = 5

_POINT_IN_RANGE = """
    (CAST(:first_step AS bigint) IS NULL OR step >= CAST(:first_step AS bigint))
    AND (CAST(:last_step AS bigint) IS NULL OR step <= CAST(:last_step AS bigint))
    AND (CAST(:from_at AS bigint) IS NULL OR at >= CAST(:from_at AS bigint))
    AND (CAST(:to_at AS bigint) IS NULL OR at <= CAST(:to_at AS bigint))
    AND (CAST(:seen AS text) IS NULL OR pg_visible_in_snapshot(changed, CAST(CAST(:seen AS text) AS pg_snapshot)))
"""
_CHUNK_IN_RANGE = """
    (CAST(:first_step AS bigint) IS NULL OR last_step >= CAST(:first_step AS bigint))
    AND (CAST(:last_step AS bigint) IS NULL OR first_step <= CAST(:last_step AS bigint))
    AND (CAST(:from_at AS bigint) IS NULL OR to_at >= CAST(:from_at AS bigint))
    AND (CAST(:to_at AS bigint) IS NULL OR from_at <= CAST(:to_at AS bigint))
"""
_ROWS = f"""
    SELECT series_id, {packed("step", "at", "value")}
    FROM (
        SELECT series_id, step, at, value FROM metric_points
        WHERE series_id = ANY (CAST(:ids AS uuid[])) AND {_POINT_IN_RANGE}
        ORDER BY series_id, step, at
    ) AS chosen
    GROUP BY series_id
"""  # noqa: S608
_WHOLE = Prepared(
    text(f"""
    SELECT asked.id, CAST(NULL AS integer) AS points, r.step, r.at, r.value, CAST(NULL AS bytea) AS changed,
        CAST(NULL AS bigint) AS first_changed, CAST(pg_current_snapshot() AS text) AS snapshot
    FROM unnest(CAST(:ids AS uuid[])) AS asked (id) LEFT JOIN ({_ROWS}) AS r ON r.series_id = asked.id
    UNION ALL
    (
        SELECT series_id, {chunks.PAYLOAD}, NULL FROM metric_chunks
        WHERE series_id = ANY (CAST(:ids AS uuid[])) AND {_CHUNK_IN_RANGE}
        ORDER BY series_id, first_step, first_at
    )
    """)  # noqa: S608
)
_OUTLINE = Prepared(
    text(f"""
    SELECT asked.id, CAST(pg_current_snapshot() AS text), r.step, r.at, r.value,
        c.ids, c.points, c.cells, c.stepless, c.first, c.last, c.inside, c.last_changed
    FROM unnest(CAST(:ids AS uuid[])) AS asked (id)
    LEFT JOIN ({_ROWS}) AS r ON r.series_id = asked.id
    LEFT JOIN (
        SELECT series_id, array_agg(id) AS ids, array_agg(points) AS points, array_agg(cell) AS cells,
            array_agg(first_step IS NULL) AS stepless, array_agg(coalesce(first_step, first_at)) AS first,
            array_agg(coalesce(last_step, last_at)) AS last, array_agg(last_changed) AS last_changed,
            array_agg(
                (CAST(:first_step AS bigint) IS NULL OR first_step >= CAST(:first_step AS bigint))
                AND (CAST(:last_step AS bigint) IS NULL OR last_step <= CAST(:last_step AS bigint))
                AND (CAST(:from_at AS bigint) IS NULL OR from_at >= CAST(:from_at AS bigint))
                AND (CAST(:to_at AS bigint) IS NULL OR to_at <= CAST(:to_at AS bigint))
            ) AS inside
        FROM (
            SELECT * FROM metric_chunks WHERE series_id = ANY (CAST(:ids AS uuid[])) AND {_CHUNK_IN_RANGE}
            ORDER BY series_id, first_step, first_at
        ) AS chosen
        GROUP BY series_id
    ) AS c ON c.series_id = asked.id
    """)  # noqa: S608
)
_ROLLUPS = Prepared(
    text("""
    SELECT string_agg(CASE WHEN g.coarse THEN c.coarse ELSE c.fine END, CAST('' AS bytea) ORDER BY g.number), count(*)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:coarse AS boolean[])) WITH ORDINALITY AS g (id, coarse, number)
    JOIN metric_chunks c ON c.id = g.id
    """)
)


class _Bounds(NamedTuple):
    """A range at the moment when it is asked for."""

    first_step: int | None
    last_step: int | None
    from_at: int | None
    to_at: int | None

    @classmethod
    def of(cls, range: Range) -> "_Bounds":
        from_at = range.from_at
        if range.last is not None:
            from_at = time.time_ns() // 1_000_000 - range.last // timedelta(milliseconds=1)
        return cls(range.first_step, range.last_step, from_at, range.to_at)

    def within(self, points: Stored, seen: Snapshot | None) -> History:
        """The points in this range that a snapshot saw."""
        steps, stepless, at, _ = points.history
        kept = np.ones(len(at), np.bool_) if seen is None else seen.saw(points.changed)
        if self.first_step is not None:
            kept &= ~stepless & (steps >= self.first_step)
        if self.last_step is not None:
            kept &= ~stepless & (steps <= self.last_step)
        if self.from_at is not None:
            kept &= at >= self.from_at
        if self.to_at is not None:
            kept &= at <= self.to_at
        return points.history if kept.all() else taken(points.history, kept)


class _ChunkGone(Exception):
    """A chunk was made into another one since it was looked up."""


async def of_runs(session: Session, run_ids: Sequence[UUID], args: RunMetrics) -> dict[UUID, list[SeriesOfRun]]:
    """The series of each run with their history, by name."""
    known = await series.of_runs(session, run_ids, args)
    data = await of_series(session, [one.sized for of_run in known.values() for one in of_run], args.wanted)
    return {run_id: [SeriesOfRun(one, data[one.sized]) for one in of_run] for run_id, of_run in known.items()}


async def of_series(
    session: Session, series: Sequence[Sized], wanted: Wanted, *, as_of: Snapshot | None = None
) -> dict[Sized, SeriesData]:
    """The history of each series, read as columns and thinned.

    One statement, or as many as keep about two million points in memory at a time; three or four for each long history
    of which an envelope is wanted. All see the same snapshot: the first one's own, or `as_of`, a moment ago.
    """
    bounds = _Bounds.of(wanted.range)
    enveloped = wanted.method == DownsampleMethod.MIN_MAX and wanted.axis != MetricAxis.RELATIVE_TIME
    found: dict[Sized, SeriesData] = {}
    first = as_of
    for part in _parts([one for one in series if not enveloped or one.point_count < _LONG]):
        snapshot, read = await _whole(session, [one.id for one in part], bounds, first)
        first = first or snapshot
        for one in part:
            history = read[one.id]
            found[one] = SeriesData(one.id, len(history.at), await _thinned(history, wanted), first)
    for one in series:
        if one not in found:
            found[one] = await _enveloped(session, one, wanted, bounds, first)
            first = first or found[one].snapshot
    return found


def _parts(series: Sequence[Sized]) -> Iterator[list[Sized]]:
    sizes, total = [], 0
    for one in series:
        total += one.point_count
        sizes.append(total // _MOST_AT_ONCE)
    for _, part in groupby(zip(sizes, series, strict=True), key=lambda pair: pair[0]):
        yield [one for _, one in part]


async def _thinned(history: History, wanted: Wanted) -> Thinned:
    """Long histories are thinned beside the event loop."""
    how = {"max_points": wanted.max_points, "method": Method(wanted.method), "axis": Axis(wanted.axis)}
    if len(history.at) > _IN_A_THREAD:
        return await asyncio.to_thread(thinned, history, **how)  # type: ignore[arg-type]
    return thinned(history, **how)  # type: ignore[arg-type]


async def _whole(
    session: Session, ids: Sequence[UUID], bounds: _Bounds, seen: Snapshot | None
) -> tuple[Snapshot, Mapping[UUID, History]]:
    """Every point of each series in a range, and the snapshot of the statement."""
    parts: defaultdict[UUID, list[History]] = defaultdict(list)
    rows: dict[UUID, History] = {}
    snapshot = ""
    for id, points, steps, at, value, changed, first_changed, now in await session.records(
        _WHOLE, ids=list(ids), seen=None if seen is None else seen.text, **bounds._asdict()
    ):
        if points is None:
            rows[id], snapshot = unpacked(steps, at, value), now
        else:
            parts[id].append(bounds.within(chunks.unpacked(points, steps, at, value, changed, first_changed), seen))
    return Snapshot.of(snapshot), {id: _ordered([*parts[id], rows[id]]) for id in ids}


def _ordered(parts: list[History]) -> History:
    history = joined([part for part in parts if len(part.at)])
    order = in_order(history)
    return history if order is None else taken(history, order)


# ── From rollups ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Outline(NamedTuple):
    """The chunks of a series in a range: columns with an entry for each. `first` and `last` are along its order."""

    ids: list[UUID]
    points: Ints
    cells: Ints
    stepless: Any
    first: Ints
    last: Ints
    inside: Any
    last_changed: Ints

    @classmethod
    def of(cls, ids: list[UUID] | None, *columns: list[Any] | None) -> "_Outline":
        kinds = (np.int64, np.int64, np.bool_, np.int64, np.int64, np.bool_, np.int64)
        return cls(ids or [], *(np.array(column or [], kind) for column, kind in zip(columns, kinds, strict=True)))


async def _enveloped(
    session: Session, one: Sized, wanted: Wanted, bounds: _Bounds, seen: Snapshot | None
) -> SeriesData:
    """The envelope of a long history. Chunks may be made into others between two statements; then it looks again."""
    for _ in range(_LOOKS):
        try:
            made = await _from_rollups(session, one, wanted, bounds, seen)
        except _ChunkGone:
            continue
        if made is None:
            break
        return made
    snapshot, read = await _whole(session, [one.id], bounds, seen)
    history = read[one.id]
    return SeriesData(one.id, len(history.at), await _thinned(history, wanted), seen or snapshot)


async def _from_rollups(
    session: Session, one: Sized, wanted: Wanted, bounds: _Bounds, seen: Snapshot | None
) -> SeriesData | None:
    """None when the buckets are not along the order of the series, or are none. Raises `_ChunkGone`."""
    (record,) = await session.records(
        _OUTLINE, ids=[one.id], seen=None if seen is None else seen.text, **bounds._asdict()
    )
    snapshot = seen or Snapshot.of(record[1])
    rows = unpacked(*record[2:5])
    outline = _Outline.of(*record[5:])
    inside = outline.inside if seen is None else outline.inside & (outline.last_changed < seen.xmin)
    cut = await _chunks(session, outline, ~inside)
    apart = [rows, *(bounds.within(points, seen) for points in cut)]
    stepless = np.concatenate([outline.stepless[inside], *(part.stepless for part in apart)])
    total = len(stepless) - int(inside.sum()) + int(outline.points[inside].sum())
    if not len(stepless) or (stepless.any() and not stepless.all()):
        return None
    if wanted.axis == MetricAxis.TIME and not stepless.all():
        return None
    ends = [part.at if stepless.all() else part.steps for part in apart]
    along = np.concatenate([outline.first[inside], outline.last[inside], *ends])
    width = cell_width(int(along.min()), int(along.max()), max_points=wanted.max_points)
    if not width or total <= wanted.max_points:
        return None
    coarse = np.left_shift(1, np.minimum(outline.cells + COARSER, 62)) <= width
    rolling = inside & (np.left_shift(1, np.minimum(outline.cells, 62)) <= width)
    rollups = await _rollups(session, outline, rolling, coarse, stepless=bool(stepless.all()))
    raw = [points.history for points in await _chunks(session, outline, inside & ~rolling)]
    condensed = _ordered([rollups, *raw, *apart])
    less = thinned(condensed, max_points=wanted.max_points, method=Method.MIN_MAX, axis=Axis(wanted.axis), size=total)
    return SeriesData(one.id, total, less, snapshot)


async def _chunks(session: Session, outline: _Outline, which: Any) -> list[Stored]:
    ids = [outline.ids[index] for index in np.flatnonzero(which)]
    found = await chunks.read(session, ids) if ids else {}
    if len(found) < len(ids):
        raise _ChunkGone
    return [found[id] for id in ids]


async def _rollups(session: Session, outline: _Outline, which: Any, coarse: Any, *, stepless: bool) -> History:
    chosen = np.flatnonzero(which)
    (record,) = await session.records(
        _ROLLUPS, ids=[outline.ids[index] for index in chosen], coarse=coarse[chosen].tolist()
    )
    if record[1] < len(chosen):
        raise _ChunkGone
    return rolled(record[0] or b"", stepless=stepless)


async def snapshot(session: Session) -> Snapshot:
    """What can be seen now."""
    return Snapshot.of(await session.scalar(_SNAPSHOT))


_SNAPSHOT = Prepared(select(snapshots.now()))
