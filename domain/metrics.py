"""Metrics: recording points, and the summary that every series keeps of its points.

Values are IEEE 754 doubles and stay as they are, NaN and the infinities included.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import numpy as np

from db import projects
from db.database import Session
from db.ids import Kind, key_of
from db.metrics import chunks, points, series
from db.metrics.chunks import Extent
from db.metrics.selection import Selector
from db.metrics.series import SeriesPoints, Summary, summary_of
from db.rows import MetricSeries
from db.vocabulary import MetricScope
from domain.refusals import ErrorCode, Invalid, Refused, not_found
from ml.algorithm import higher_is_better as usually_higher_is_better
from ml.downsampling import History
from ml.packing import in_order, taken

ALL_POINTS = "points"
SERIES_AT_ONCE = 20
NOTHING = Summary(0, 0, *(None,) * 12)

Points = tuple[Sequence[int] | None, Sequence[int], Sequence[float]]


def project_topic(project_id: UUID) -> str:
    return f"points:{project_id.hex}"


def run_topic(run_id: UUID) -> str:
    return f"points:run:{run_id.hex}"


async def record_points(
    session: Session,
    *,
    project_id: UUID,
    run_id: UUID | None,
    scope: MetricScope,
    points: Mapping[str, Points],
    higher_is_better: Mapping[str, bool] | None = None,
    units: Mapping[str, str] | None = None,
    replace: bool = False,
) -> None:
    """Write points of many series in the caller's transaction, and wake who follows them.

    `points` maps the name of a series to `(steps, at, values)`, columns of equal length; `at` is epoch milliseconds,
    `steps` is None for a series without steps. A (step, at) that is there already changes nothing. With `replace`
    the history of a series from the first given step on gives way to the new points: what a later attempt of a run
    trains again. Statements: three a batch, and a few more for what becomes chunks or was there.
    """
    directions, named_units = higher_is_better or {}, units or {}
    batch = [
        SeriesPoints(
            scope=scope,
            name=name,
            run_id=run_id,
            points=history_of(steps, at, values),
            unit=named_units.get(name),
            higher_is_better=directions.get(name),
            rises=directions.get(name, usually_higher_is_better(name)),
        )
        for name, (steps, at, values) in points.items()
        if len(values)
    ]
    if batch:
        kept = await series.keep(session, project_id, batch)
        await write(session, kept, batch, replace=replace)


def history_of(steps: Sequence[int] | None, at: Sequence[int], values: Sequence[float]) -> History:
    size = len(values)
    return History(
        np.zeros(size, np.int64) if steps is None else np.array(steps, np.int64),
        np.full(size, steps is None),
        np.array(at, np.int64),
        np.array(values, np.float64),
    )


@dataclass(frozen=True, slots=True)
class Written:
    accepted: int
    duplicates: int


async def write(
    session: Session, kept: Sequence[MetricSeries], batch: Sequence[SeriesPoints], *, replace: bool = False
) -> Written:
    """Write the points of series that `series.keep` has locked."""
    if replace:
        kept = await _without_replaced(session, kept, batch)
    given = [one.points for one in batch]
    inserted = await points.insert(session, list(zip(kept, given, strict=True)))
    before = {one.id: summary_of(one) for one in kept}
    if inserted:
        after = {id: together(before[id], summarized(new)) for id, new in inserted.items()}
        await series.write_summaries(session, after)
    for one in kept:
        if one.id in inserted:
            session.topics.add(ALL_POINTS)
            if one.project_id is not None:
                session.topics.add(project_topic(one.project_id))
            if one.run_id is not None:
                session.topics.add(run_topic(one.run_id))
    accepted = sum(len(new.at) for new in inserted.values())
    return Written(accepted, sum(len(history.at) for history in given) - accepted)


async def _without_replaced(
    session: Session, kept: Sequence[MetricSeries], batch: Sequence[SeriesPoints]
) -> list[MetricSeries]:
    """Delete what is trained again; the series as they are then."""
    first_steps = {
        one.id: int(given.points.steps.min())
        for one, given in zip(kept, batch, strict=True)
        if not given.points.stepless.any() and one.last_step is not None and one.last_step >= given.points.steps.min()
    }
    if not first_steps:
        return list(kept)
    await points.forget_steps_from(session, first_steps)
    left = await summaries_anew(session, list(first_steps))
    await series.write_summaries(session, left)
    return [one._replace(**left[one.id]._asdict()) if one.id in left else one for one in kept]


async def summaries_anew(session: Session, ids: Sequence[UUID]) -> dict[UUID, Summary]:
    """What the points that are there say, read from rows and rollups."""
    summaries = dict.fromkeys(ids, NOTHING)
    for extent in await chunks.extents(session, ids):
        summaries[extent.series_id] = together(summaries[extent.series_id], _summary_of_chunk(extent))
    for id, rows in (await points.rows_of(session, ids)).items():
        summaries[id] = together(summaries[id], summarized(rows))
    return summaries


def _summary_of_chunk(extent: Extent) -> Summary:
    return summarized(extent.extremes)._replace(
        point_count=extent.points,
        finite_count=extent.finite_points,
        sum_value=extent.sum_value,
        first_at=extent.from_at,
        last_at=extent.to_at,
    )


@dataclass(frozen=True, slots=True)
class Deleted:
    series: int
    points: int


async def delete_series(
    session: Session, *, project_id: str, ids: Sequence[str] | None, selector: Selector | None, dry_run: bool
) -> Deleted:
    """Delete series of a project with all their points, or with `dry_run` only tell what would be deleted.

    The series are named by their IDs or by a selector. Raises `Refused`, with nothing deleted, when neither or both
    are given, and for an ID that is not that of a series of this project. Raises `InvalidPattern`.
    """
    project = key_of(project_id, Kind.PROJECT)
    if project is None or project not in await projects.by_ids(session, [project]):
        raise Refused(not_found("project", project_id, "input", "projectId"))
    if (ids is None) == (selector is None):
        message = "Name the series by `ids` or by `selector`: one of the two."
        code = ErrorCode.REQUIRED if ids is None else ErrorCode.INVALID
        raise Refused(Invalid(code=code, message=message, path=("input", "ids")))
    if selector is not None and selector.project_id not in (None, project):
        message = "The selector names another project than `projectId`."
        raise Refused(Invalid(message=message, path=("input", "selector", "projectId")))
    keys = None if ids is None else [key_of(text, Kind.SERIES) for text in ids]
    known = None if keys is None else [key for key in keys if key is not None]
    found = await series.lock(session, (selector or Selector())._replace(project_id=project), known)
    there = {one.id for one in found}
    missing = [
        not_found("metric series", text, "input", "ids", str(number))
        for number, (text, key) in enumerate(zip(ids or (), keys or (), strict=True))
        if key not in there
    ]
    if missing:
        raise Refused(*missing)
    if found and not dry_run:
        await series.delete_all(session, list(there))
    return Deleted(len(found), sum(one.point_count for one in found))


async def forget_old_points(session: Session, *, keep: timedelta) -> bool:
    """Delete points of series of no run from longer ago than `keep`, of a few series; whether there may be more.

    What is left of a series is what its summary says then; a series of which nothing is left goes, too. Old points in a
    chunk with newer ones go with these.
    """
    before = time.time_ns() // 1_000_000 - keep // timedelta(milliseconds=1)
    ids = await series.lock_with_points_before(session, before, limit=SERIES_AT_ONCE)
    if ids:
        await points.forget_before(session, ids, before)
        left = await summaries_anew(session, ids)
        await series.write_summaries(session, {id: summary for id, summary in left.items() if summary.point_count})
        await series.delete_all(session, [id for id, summary in left.items() if not summary.point_count])
    return len(ids) == SERIES_AT_ONCE


def summarized(history: History) -> Summary:
    """The summary of some points of one series. The extremes are those of the earliest step that has them."""
    order = in_order(history)
    steps, stepless, at, values = history if order is None else taken(history, order)
    finite = np.flatnonzero(np.isfinite(values))

    def step_of(number: int) -> int | None:
        return None if stepless[number] else int(steps[number])

    summary = NOTHING._replace(
        point_count=len(values),
        first_at=int(at.min()),
        last_at=int(at.max()),
        last_step=step_of(-1),
        last_point_at=int(at[-1]),
        last_value=float(values[-1]),
    )
    if not len(finite):
        return summary
    low, high = int(finite[np.argmin(values[finite])]), int(finite[np.argmax(values[finite])])
    with np.errstate(over="ignore"):
        total = float(values[finite].sum())
    return summary._replace(
        finite_count=len(finite),
        min_value=float(values[low]),
        min_step=step_of(low),
        min_at=int(at[low]),
        max_value=float(values[high]),
        max_step=step_of(high),
        max_at=int(at[high]),
        sum_value=total,
    )


def together(one: Summary, other: Summary) -> Summary:
    """The summary of two sets of points that have none in common."""
    if not one.point_count or not other.point_count:
        return one if one.point_count else other
    last = max(one, other, key=lambda s: _place(s.last_step, s.last_point_at))
    low = min(_with_values(one, other), key=lambda s: (s.min_value, _place(s.min_step, s.min_at)), default=NOTHING)
    high = min(
        _with_values(one, other), key=lambda s: (-(s.max_value or 0.0), _place(s.max_step, s.max_at)), default=NOTHING
    )
    return Summary(
        point_count=one.point_count + other.point_count,
        finite_count=one.finite_count + other.finite_count,
        first_at=min(one.first_at or 0, other.first_at or 0),
        last_at=max(one.last_at or 0, other.last_at or 0),
        last_step=last.last_step,
        last_point_at=last.last_point_at,
        last_value=last.last_value,
        min_value=low.min_value,
        min_step=low.min_step,
        min_at=low.min_at,
        max_value=high.max_value,
        max_step=high.max_step,
        max_at=high.max_at,
        sum_value=sum(s.sum_value or 0.0 for s in _with_values(one, other)) if low.finite_count else None,
    )


def _with_values(*summaries: Summary) -> list[Summary]:
    return [summary for summary in summaries if summary.finite_count]


def _place(step: int | None, at: int | None) -> tuple[bool, int, int]:
    """Where a point stands in its series: those without a step come last."""
    return step is None, step or 0, at or 0
