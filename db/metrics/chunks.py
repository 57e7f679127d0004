"""Chunks of points in the database: where they stand, what they hold, and how they are written."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from sqlalchemy import text

from db.database import Prepared, Session
from db.ids import new_id
from ml.downsampling import History
from ml.packing import Place, Stored, pack_integers, place_of, roll_up, rolled, unpack_integers

PAYLOAD = "points, steps, at, value, changed, first_changed"
"""The columns that `unpacked` takes, in its order."""


class Bounds(NamedTuple):
    """Where a chunk stands in its series."""

    id: UUID
    series_id: UUID
    points: int
    first: Place
    last: Place


class Extent(NamedTuple):
    """What a chunk adds to a summary: its extremes, first and last point, and what is counted over all of them."""

    series_id: UUID
    extremes: History
    points: int
    finite_points: int
    sum_value: float | None
    from_at: int
    to_at: int


_KINDS = {
    "id": "uuid",
    "series_id": "uuid",
    "points": "integer",
    "finite_points": "integer",
    "sum_value": "float8",
    "first_step": "bigint",
    "first_at": "bigint",
    "last_step": "bigint",
    "last_at": "bigint",
    "from_at": "bigint",
    "to_at": "bigint",
    "first_changed": "bigint",
    "last_changed": "bigint",
    "cell": "integer",
    "steps": "bytea",
    "at": "bytea",
    "value": "bytea",
    "changed": "bytea",
    "fine": "bytea",
    "coarse": "bytea",
}
_OWN = "CAST(CAST(pg_current_xact_id() AS text) AS bigint)"
_GIVEN = ", ".join(
    f"coalesce(g.{name}, {_OWN})" if name in ("first_changed", "last_changed") else f"g.{name}" for name in _KINDS
)
_INSERT = Prepared(
    text(f"""
    WITH made AS (
        INSERT INTO metric_chunks ({", ".join(_KINDS)})
        SELECT {_GIVEN}
        FROM unnest({", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _KINDS.items())})
            AS g ({", ".join(_KINDS)})
        RETURNING series_id, points
    ), counted AS (
        SELECT series_id, sum(points) AS points FROM made GROUP BY series_id
    )
    UPDATE metric_series s SET packed_count = s.packed_count + counted.points
    FROM counted WHERE s.id = counted.series_id
    """)  # noqa: S608
)
_DELETE = Prepared(
    text("""
    WITH gone AS (
        DELETE FROM metric_chunks WHERE id = ANY (CAST(:ids AS uuid[])) RETURNING series_id, points
    ), counted AS (
        SELECT series_id, sum(points) AS points FROM gone GROUP BY series_id
    )
    UPDATE metric_series s SET packed_count = s.packed_count - counted.points
    FROM counted WHERE s.id = counted.series_id
    """)
)
_BOUNDS = Prepared(
    text("""
    SELECT id, series_id, points, first_step, first_at, last_step, last_at FROM metric_chunks
    WHERE series_id = ANY (CAST(:ids AS uuid[])) ORDER BY series_id, first_step, first_at
    """)
)
_READ = Prepared(
    text(f"SELECT id, {PAYLOAD} FROM metric_chunks WHERE id = ANY (CAST(:ids AS uuid[]))")  # noqa: S608
)
_EXTENTS = Prepared(
    text("""
    SELECT series_id, coarse, steps IS NULL, points, finite_points, sum_value, from_at, to_at FROM metric_chunks
    WHERE series_id = ANY (CAST(:ids AS uuid[])) ORDER BY series_id, first_step, first_at
    """)
)
_ENDED = Prepared(
    text("""
    SELECT id FROM metric_chunks WHERE series_id = ANY (CAST(:ids AS uuid[])) AND to_at < CAST(:at AS bigint)
    """)
)
_MANY_SMALL = Prepared(
    text("""
    SELECT series_id FROM metric_chunks
    WHERE series_id = ANY (CAST(:ids AS uuid[])) AND points < CAST(:small AS integer)
    GROUP BY series_id HAVING count(*) >= CAST(:many AS integer)
    """)
)


async def insert(session: Session, made: Sequence[tuple[UUID, Stored]]) -> None:
    """Write chunks: each the ordered points of a series, all with steps or all without, at most `packing.CHUNK`.

    Points that are `changed` by 0 are those of this transaction; then all of the chunk are.
    """
    rows = [_row(series_id, points) for series_id, points in made]
    if rows:
        await session.run(_INSERT, **{name: [row[name] for row in rows] for name in _KINDS})


def _row(series_id: UUID, points: Stored) -> dict[str, Any]:
    history, changed = points
    first, last = place_of(history, 0), place_of(history, -1)
    values = history.values
    finite = values[np.isfinite(values)]
    rollup = roll_up(history)
    earliest, latest = int(changed.min()), int(changed.max())
    with np.errstate(over="ignore"):
        total = float(finite.sum())
    return {
        "id": new_id(),
        "series_id": series_id,
        "points": len(values),
        "finite_points": len(finite),
        "sum_value": total if len(finite) else None,
        "first_step": None if first.stepless else first.step,
        "first_at": first.at,
        "last_step": None if last.stepless else last.step,
        "last_at": last.at,
        "from_at": int(history.at.min()),
        "to_at": int(history.at.max()),
        "first_changed": earliest or None,
        "last_changed": latest or None,
        "cell": rollup.cell,
        "steps": None if first.stepless else pack_integers(history.steps),
        "at": pack_integers(history.at),
        "value": values.astype("<f8").tobytes(),
        "changed": None if earliest == latest else pack_integers(changed),
        "fine": rollup.fine,
        "coarse": rollup.coarse,
    }


async def delete(session: Session, ids: Sequence[UUID]) -> None:
    if ids:
        await session.run(_DELETE, ids=list(ids))


async def bounds(session: Session, series_ids: Sequence[UUID]) -> list[Bounds]:
    """The chunks of some series, each series' in its order."""
    return [
        Bounds(id, series_id, points, Place.of(first_step, first_at), Place.of(last_step, last_at))
        for id, series_id, points, first_step, first_at, last_step, last_at in await session.records(
            _BOUNDS, ids=list(series_ids)
        )
    ]


async def ended_before(session: Session, series_ids: Sequence[UUID], at: int) -> list[UUID]:
    """The chunks of some series whose points are all from before a time."""
    return [record[0] for record in await session.records(_ENDED, ids=list(series_ids), at=at)]


async def read(session: Session, ids: Sequence[UUID]) -> dict[UUID, Stored]:
    """The points of chunks; one that is not there any more is left out."""
    return {record[0]: unpacked(*record[1:]) for record in await session.records(_READ, ids=list(ids))}


def unpacked(
    points: int, steps: bytes | None, at: bytes, value: bytes, changed: bytes | None, first_changed: int
) -> Stored:
    stepless = steps is None
    history = History(
        np.zeros(points, np.int64) if steps is None else unpack_integers(steps, points),
        np.full(points, stepless),
        unpack_integers(at, points),
        np.frombuffer(value, "<f8"),
    )
    return Stored(history, np.full(points, first_changed) if changed is None else unpack_integers(changed, points))


async def extents(session: Session, series_ids: Sequence[UUID]) -> list[Extent]:
    """What the chunks of some series hold, each series' in its order."""
    return [
        Extent(series_id, rolled(coarse, stepless=stepless), *rest)
        for series_id, coarse, stepless, *rest in await session.records(_EXTENTS, ids=list(series_ids))
    ]


async def with_many_small(session: Session, series_ids: Sequence[UUID], *, small: int, many: int) -> list[UUID]:
    """Those of some series that have at least `many` chunks of fewer than `small` points."""
    return [record[0] for record in await session.records(_MANY_SMALL, ids=list(series_ids), small=small, many=many)]
