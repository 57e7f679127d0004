"""Series of points, and the summary that is kept with each of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import ARRAY, Uuid, any_, bindparam, delete, func, literal, select, text

from db.conditions import instant, words
from db.database import Prepared, Session
from db.ids import new_id
from db.metrics.selection import IN_SIGHT, InvalidPattern, RunMetrics, Selector, let_through
from db.paging import Order, Page, PageArgs, page
from db.rows import MetricSeries, Sized, columns
from db.tables import metric_series
from db.vocabulary import MetricKind, MetricScope
from ml.downsampling import History

_ROW = columns(MetricSeries, metric_series)


class SeriesPoints(NamedTuple):
    """Points of one series on their way in; those without a step have 0 in its place."""

    scope: MetricScope
    name: str
    run_id: UUID | None
    points: History
    labels: Sequence[Mapping[str, str]] = ()
    kind: MetricKind = MetricKind.GAUGE
    unit: str | None = None
    higher_is_better: bool | None = None
    rises: bool = True


class Summary(NamedTuple):
    """What is kept with a series about all its points; ranges and the sum are of the finite values."""

    point_count: int
    finite_count: int
    first_at: int | None
    last_at: int | None
    last_step: int | None
    last_point_at: int | None
    last_value: float | None
    min_value: float | None
    min_step: int | None
    min_at: int | None
    max_value: float | None
    max_step: int | None
    max_at: int | None
    sum_value: float | None


_SERIES = ", ".join(f"s.{name}" for name in MetricSeries._fields)
_SUMMARY_TYPES = {
    **dict.fromkeys(Summary._fields, "bigint[]"),
    **dict.fromkeys(("last_value", "min_value", "max_value", "sum_value"), "float8[]"),
}

_KEEP = Prepared(
    text(f"""
    INSERT INTO metric_series AS s (id, project_id, run_id, scope, name, kind, unit, labels, higher_is_better, rises)
    SELECT g.id, CAST(:project_id AS uuid), g.run_id, g.scope, g.name, g.kind, g.unit, g.labels, g.higher, g.rises
    FROM ROWS FROM (
        unnest(
            CAST(:ids AS uuid[]), CAST(:run_ids AS uuid[]), CAST(:scopes AS text[]), CAST(:names AS text[]),
            CAST(:kinds AS text[]), CAST(:units AS text[]), CAST(:higher AS boolean[]), CAST(:rises AS boolean[])
        ),
        jsonb_array_elements(CAST(:labels AS jsonb))
    ) AS g (id, run_id, scope, name, kind, unit, higher, rises, labels)
    ORDER BY g.run_id, g.scope, g.name, g.labels
    ON CONFLICT (project_id, run_id, scope, name, labels) DO UPDATE SET
        unit = coalesce(excluded.unit, s.unit),
        higher_is_better = coalesce(excluded.higher_is_better, s.higher_is_better),
        rises = CASE WHEN excluded.higher_is_better IS NULL THEN s.rises ELSE excluded.rises END
    RETURNING {_SERIES}
    """)  # noqa: S608
)

_WRITE_SUMMARIES = Prepared(
    text(f"""
    UPDATE metric_series s SET {", ".join(f"{name} = g.{name}" for name in Summary._fields)}
    FROM unnest(
        CAST(:ids AS uuid[]), {", ".join(f"CAST(:{name} AS {kind})" for name, kind in _SUMMARY_TYPES.items())}
    ) AS g (id, {", ".join(_SUMMARY_TYPES)})
    WHERE s.id = g.id
    """)  # noqa: S608
)


def summary_of(series: MetricSeries) -> Summary:
    return Summary(*(getattr(series, name) for name in Summary._fields))


async def keep(session: Session, project_id: UUID | None, batch: Sequence[SeriesPoints]) -> list[MetricSeries]:
    """The series of a batch, in its order, made where they were missing, and locked until the transaction ends.

    No two of the batch are the same series.
    """
    kept = await session.all(
        MetricSeries,
        _KEEP,
        project_id=project_id,
        ids=[new_id() for _ in batch],
        run_ids=[series.run_id for series in batch],
        scopes=[series.scope for series in batch],
        names=[series.name for series in batch],
        kinds=[series.kind for series in batch],
        units=[series.unit for series in batch],
        labels=[list(series.labels) for series in batch],
        higher=[series.higher_is_better for series in batch],
        rises=[series.rises for series in batch],
    )
    by_key = {key_of(series): series for series in kept}
    return [by_key[key_of(series)] for series in batch]


def key_of(series: SeriesPoints | MetricSeries) -> tuple[Any, ...]:
    """What makes a series the same within its project."""
    labels = tuple((label["name"], label["value"]) for label in series.labels)
    return series.run_id, str(series.scope), series.name, labels


async def write_summaries(session: Session, summaries: Mapping[UUID, Summary]) -> None:
    columns = {name: [getattr(summary, name) for summary in summaries.values()] for name in Summary._fields}
    await session.run(_WRITE_SUMMARIES, ids=list(summaries), **columns)


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, MetricSeries]:
    return {series.id: series for series in await session.all(MetricSeries, _BY_IDS, ids=list(ids))}


_BY_IDS = Prepared(select(*_ROW).where(metric_series.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))), IN_SIGHT))


async def listed(session: Session, selector: Selector, args: PageArgs) -> Page[MetricSeries]:
    """A page of the series a selector and `args.filter` let through, by name. Raises `InvalidPattern`."""
    statement = select(*_ROW).where(*let_through(selector))
    wanted: Any = args.filter
    if wanted is not None:
        statement = statement.where(
            *words(metric_series.c.name, wanted.name),
            *instant(func.to_timestamp(metric_series.c.last_at / 1000.0), wanted.last_at),
        )
    order = Order.by("NAME", metric_series.c.name, metric_series.c.id)
    try:
        return await page(session, MetricSeries, statement, order, args)
    except asyncpg.InvalidRegularExpressionError as error:
        raise InvalidPattern(str(error)) from error


async def selected(session: Session, selector: Selector, *, limit: int) -> list[MetricSeries]:
    """The first series a selector lets through, by name and labels. Raises `InvalidPattern`."""
    series = metric_series.c
    statement = select(*_ROW).where(*let_through(selector)).order_by(series.name, series.labels, series.id)
    try:
        return await session.all(MetricSeries, statement.limit(limit))
    except asyncpg.InvalidRegularExpressionError as error:
        raise InvalidPattern(str(error)) from error


async def lock(session: Session, selector: Selector, ids: Sequence[UUID] | None) -> list[Sized]:
    """The series a selector lets through, of these IDs if they are given; locked until the transaction ends.

    They are locked in the order in which those who write points lock them. Raises `InvalidPattern`.
    """
    series = metric_series.c
    statement = (
        select(series.id, series.point_count)
        .where(*let_through(selector))
        .order_by(series.run_id, series.scope, series.name, series.labels)
        .with_for_update()
    )
    if ids is not None:
        statement = statement.where(series.id == any_(literal(list(ids), ARRAY(Uuid))))
    try:
        return await session.all(Sized, statement)
    except asyncpg.InvalidRegularExpressionError as error:
        raise InvalidPattern(str(error)) from error


async def lock_with_points_before(session: Session, at: int, *, limit: int) -> list[UUID]:
    """Some series of no run that have a row, or a whole chunk, of points before a time; locked, those that others hold
    left out."""
    return [record[0] for record in await session.records(_LOCK_OLD, at=at, limit=limit)]


_LOCK_OLD = Prepared(
    text("""
    SELECT s.id FROM metric_series s
    WHERE s.run_id IS NULL AND s.first_at < CAST(:at AS bigint) AND (
        EXISTS (SELECT FROM metric_points p WHERE p.series_id = s.id AND p.at < CAST(:at AS bigint))
        OR EXISTS (SELECT FROM metric_chunks c WHERE c.series_id = s.id AND c.to_at < CAST(:at AS bigint))
    )
    LIMIT CAST(:limit AS bigint) FOR UPDATE SKIP LOCKED
    """)
)


async def delete_all(session: Session, ids: Sequence[UUID]) -> None:
    """Delete series with all their points."""
    await session.run(_DELETE, ids=list(ids))


_DELETE = Prepared(delete(metric_series).where(metric_series.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))))


async def names(session: Session, selector: Selector, *, limit: int) -> list[str]:
    name = metric_series.c.name
    records = await session.records(select(name).where(*let_through(selector)).distinct().order_by(name).limit(limit))
    return [record[0] for record in records]


async def of_runs(session: Session, run_ids: Sequence[UUID], args: RunMetrics) -> dict[UUID, list[MetricSeries]]:
    """The series of each run, by name: what summaries and names are read from."""
    selector = Selector(scope=args.scope, names=args.names, run_ids=tuple(run_ids))
    statement = select(*_ROW).where(*let_through(selector)).order_by(metric_series.c.name, metric_series.c.id)
    found: dict[UUID, list[MetricSeries]] = {run_id: [] for run_id in run_ids}
    for series in await session.all(MetricSeries, statement):
        assert series.run_id is not None
        found[series.run_id].append(series)
    return found


async def names_of_runs(session: Session, run_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """The names of each run's own series, sorted."""
    series = metric_series.c
    statement = (
        select(series.run_id, series.name)
        .where(
            series.run_id == any_(bindparam("run_ids", type_=ARRAY(Uuid))),
            series.scope == str(MetricScope.RUN),
            IN_SIGHT,
        )
        .distinct()
        .order_by(series.run_id, series.name)
    )
    found: dict[UUID, list[str]] = {run_id: [] for run_id in run_ids}
    for run_id, name in await session.records(statement, run_ids=list(run_ids)):
        found[run_id].append(name)
    return found
