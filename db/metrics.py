"""Queries on metrics: series, their points as columns, and the summary kept with each series.

Points travel as arrays, one statement whatever the number of series. A point keeps the transaction that wrote it, so
a reader of the stream asks for what its last snapshot could not see.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import numpy as np
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    LargeBinary,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    text,
    true,
)
from sqlalchemy import column as sql_column
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from auth.permissions import Permission
from db import snapshots
from db.conditions import instant, one_of, words
from db.database import Prepared, Session
from db.ids import new_id
from db.paging import Order, Page, PageArgs, page
from db.rows import MetricSeries, Sized, columns
from db.sight import in_sight
from db.snapshots import Snapshot
from db.tables import Xid8, metric_batches, metric_points, metric_series
from db.vocabulary import DownsampleMethod, MetricAxis, MetricKind, MetricScope
from ml.downsampling import Axis, History, Method, Thinned, thinned


class SeriesPoints(NamedTuple):
    """Points of one series on their way in: columns of equal length, `at` in epoch milliseconds."""

    scope: MetricScope
    name: str
    run_id: UUID | None
    at: Sequence[int]
    values: Sequence[float]
    steps: Sequence[int] | None = None
    labels: Sequence[Mapping[str, str]] = ()
    kind: MetricKind = MetricKind.GAUGE
    unit: str | None = None
    higher_is_better: bool | None = None
    rises: bool = True


class Columns(NamedTuple):
    """Points of one series as columns of equal length, in order of step and time."""

    steps: Sequence[int | None]
    at: Sequence[int]
    values: Sequence[float]


class Inserted(NamedTuple):
    """How many points of a series were new; which ones, when some were there already."""

    new: int
    points: Columns | None


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

_KEEP_SERIES = Prepared(
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

_INSERT_POINTS = Prepared(
    text("""
    WITH inserted AS (
        INSERT INTO metric_points (series_id, step, at, value)
        SELECT (CAST(:ids AS uuid[]))[p.which], p.step, p.at, p.value
        FROM unnest(
            CAST(:which AS integer[]), CAST(:steps AS bigint[]), CAST(:at AS bigint[]), CAST(:values AS float8[])
        ) AS p (which, step, at, value)
        ON CONFLICT (series_id, step, at) DO NOTHING
        RETURNING series_id, step, at, value
    ), counted AS (
        SELECT series_id, count(*) AS new FROM inserted GROUP BY series_id
    ), partly AS (
        SELECT series_id, new FROM counted
        JOIN unnest(CAST(:ids AS uuid[]), CAST(:lengths AS bigint[])) AS given (series_id, length) USING (series_id)
        WHERE new < length
    ), listed AS (
        SELECT series_id, array_agg(step) AS steps, array_agg(at) AS at, array_agg(value) AS values
        FROM inserted JOIN partly USING (series_id) GROUP BY series_id
    )
    SELECT series_id, new, steps, at, values FROM counted LEFT JOIN listed USING (series_id)
    """)
)

_FORGET_STEPS = Prepared(
    text("""
    DELETE FROM metric_points p
    USING unnest(CAST(:ids AS uuid[]), CAST(:first_steps AS bigint[])) AS g (series_id, first_step)
    WHERE p.series_id = g.series_id AND p.step >= g.first_step
    """)
)

_WHOLE = Prepared(
    text("""
    SELECT series_id, array_agg(step), array_agg(at), array_agg(value)
    FROM metric_points WHERE series_id = ANY (CAST(:ids AS uuid[])) GROUP BY series_id
    """)
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


async def keep_series(session: Session, project_id: UUID | None, batch: Sequence[SeriesPoints]) -> list[MetricSeries]:
    """The series of a batch, in its order, made where they were missing, and locked until the transaction ends.

    No two of the batch are the same series.
    """
    kept = await session.all(
        MetricSeries,
        _KEEP_SERIES,
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
    by_key = {series_key(series): series for series in kept}
    return [by_key[series_key(series)] for series in batch]


def series_key(series: SeriesPoints | MetricSeries) -> tuple[Any, ...]:
    """What makes a series the same within its project."""
    labels = tuple((label["name"], label["value"]) for label in series.labels)
    return series.run_id, str(series.scope), series.name, labels


async def insert_points(session: Session, ids: Sequence[UUID], batch: Sequence[SeriesPoints]) -> dict[UUID, Inserted]:
    """Write the points that are new. A series without new points is left out of the answer."""
    which: list[int] = []
    steps: list[int | None] = []
    at: list[int] = []
    values: list[float] = []
    for number, series in enumerate(batch, start=1):
        which += [number] * len(series.values)
        steps += series.steps if series.steps is not None else [None] * len(series.values)
        at += series.at
        values += series.values
    records = await session.records(
        _INSERT_POINTS,
        ids=list(ids),
        lengths=[len(series.values) for series in batch],
        which=which,
        steps=steps,
        at=at,
        values=values,
    )
    return {
        record[0]: Inserted(record[1], None if record[2] is None else Columns(record[2], record[3], record[4]))
        for record in records
    }


async def forget_steps_from(session: Session, first_steps: Mapping[UUID, int]) -> None:
    """Delete the points of each series from a step on."""
    await session.run(_FORGET_STEPS, ids=list(first_steps), first_steps=list(first_steps.values()))


async def whole_history(session: Session, ids: Sequence[UUID]) -> dict[UUID, Columns]:
    """Every point of each series; a series without points is left out."""
    return {record[0]: Columns(*record[1:]) for record in await session.records(_WHOLE, ids=list(ids))}


async def write_summaries(session: Session, summaries: Mapping[UUID, Summary]) -> None:
    columns = {name: [getattr(summary, name) for summary in summaries.values()] for name in Summary._fields}
    await session.run(_WRITE_SUMMARIES, ids=list(summaries), **columns)


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_ROW = columns(MetricSeries, metric_series)
_IN_SIGHT = in_sight(Permission.METRIC_READ, metric_series.c.project_id, metric_series.c.run_id)
_NO_STEP = -(2**63)
_MOST_AT_ONCE = 2_000_000
_MOST_IN_A_BATCH = 100_000
_IN_A_THREAD = 20_000
NEWEST = 1_000


class InvalidPattern(Exception):
    """PostgreSQL does not take the text for a regular expression."""


class LabelMatcher(NamedTuple):
    """A label as a selector wants it; with nothing but the name, it only has to be there."""

    name: str
    eq: str | None = None
    one_of: tuple[str, ...] | None = None
    regex: str | None = None
    not_eq: str | None = None


class Selector(NamedTuple):
    """Which series; `names` may hold `*` for any characters. A part that is None asks for nothing."""

    project_id: UUID | None = None
    scope: MetricScope | None = None
    names: tuple[str, ...] | None = None
    labels: tuple[LabelMatcher, ...] = ()
    run_ids: tuple[UUID, ...] | None = None


class Range(NamedTuple):
    """Which points of a series; every bound is part of the range."""

    first_step: int | None = None
    last_step: int | None = None
    from_at: int | None = None
    to_at: int | None = None
    last: timedelta | None = None


class Wanted(NamedTuple):
    """What of a history, thinned how; without `method` it comes as it is."""

    range: Range = Range()
    method: DownsampleMethod = DownsampleMethod.NONE
    max_points: int = 1000
    axis: MetricAxis = MetricAxis.STEP


class RunMetrics(NamedTuple):
    """Which series of runs, and what of their history."""

    scope: MetricScope
    names: tuple[str, ...] | None
    wanted: Wanted = Wanted()


class MetricPoint(NamedTuple):
    step: int | None
    at: datetime
    value: float | None
    non_finite: str | None


class ColumnData(NamedTuple):
    """Points as the API shows them; NaN stands where there is no finite value."""

    step: list[int] | None
    at: list[int]
    value: list[float]
    min: list[float] | None = None
    max: list[float] | None = None
    count: list[int] | None = None  # type: ignore[assignment]

    @classmethod
    def of(cls, history: History) -> "ColumnData":
        return cls(
            None if history.stepless.any() else history.steps.tolist(), history.at.tolist(), history.values.tolist()
        )


class SeriesData(NamedTuple):
    """The history of one series, perhaps thinned, as a snapshot of the database saw it."""

    series_id: UUID
    total_points: int
    thinned: Thinned
    snapshot: Snapshot

    @property
    def columns(self) -> ColumnData:
        kept = self.thinned
        return ColumnData.of(kept.history)._replace(
            min=None if kept.low is None else kept.low.tolist(),
            max=None if kept.high is None else kept.high.tolist(),
            count=None if kept.counts is None else kept.counts.tolist(),
        )

    @property
    def returned_points(self) -> int:
        return len(self.thinned.history.at)

    @property
    def downsampled(self) -> bool:
        return self.thinned.method is not Method.NONE

    @property
    def method(self) -> DownsampleMethod:
        return DownsampleMethod(self.thinned.method)

    @property
    def resolution(self) -> timedelta | None:
        return None if self.thinned.width is None else timedelta(milliseconds=self.thinned.width)

    def points(self, limit: int) -> list[MetricPoint]:
        steps, stepless, at, values = (column[:limit].tolist() for column in self.thinned.history)
        return [
            point(None if without else step, moment, value)
            for step, without, moment, value in zip(steps, stepless, at, values, strict=True)
        ]


class SeriesOfRun(NamedTuple):
    series: MetricSeries
    data: SeriesData


class NewPoints(NamedTuple):
    """Points of one series that a stream hands on."""

    series_id: UUID
    name: str
    run_id: UUID | None
    labels: list[dict[str, str]]
    columns: ColumnData


def point(step: int | None, at: int, value: float) -> MetricPoint:
    finite = bool(np.isfinite(value))
    word = None if finite else "NAN" if value != value else f"{'POSITIVE' if value > 0 else 'NEGATIVE'}_INFINITY"
    return MetricPoint(step, moment(at), value if finite else None, word)


def moment(at: int) -> datetime:
    """A time in epoch milliseconds as a datetime, exact to the millisecond."""
    return datetime.fromtimestamp(at // 1000, UTC) + timedelta(milliseconds=at % 1000)


def milliseconds(at: datetime) -> int:
    """The whole epoch milliseconds of a moment."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _selected(selector: Selector) -> Iterator[ColumnElement[bool]]:
    series = metric_series.c
    yield _IN_SIGHT
    if selector.project_id is not None:
        yield series.project_id == selector.project_id
    if selector.scope is not None:
        yield series.scope == str(selector.scope)
    if selector.run_ids is not None:
        yield series.run_id == any_(literal(list(selector.run_ids), ARRAY(Uuid)))
    if selector.names is not None:
        yield series.name.like(any_(literal([_pattern(name) for name in selector.names], ARRAY(Text))))
    yield from _labelled(selector.labels)


def _pattern(glob: str) -> str:
    escaped = glob.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def _labelled(matchers: Sequence[LabelMatcher]) -> Iterator[ColumnElement[bool]]:
    labels = metric_series.c.labels
    for matcher in matchers:
        entry = (
            func.jsonb_array_elements(labels).table_valued(sql_column("value", JSONB), name="label").render_derived()
        )
        value = func.jsonb_extract_path_text(entry.c.value, "value", type_=Text)
        meant: list[ColumnElement[bool]] = [
            func.jsonb_extract_path_text(entry.c.value, "name", type_=Text) == matcher.name
        ]
        if matcher.eq is not None:
            meant.append(value == matcher.eq)
        if matcher.one_of is not None:
            meant.append(one_of(value, matcher.one_of))
        if matcher.regex is not None:
            meant.append(value.regexp_match(f"^(?:{matcher.regex})$"))
        if matcher.not_eq is not None and len(meant) == 1:
            meant.append(value == matcher.not_eq)
            yield not_(exists(select(true()).select_from(entry).where(*meant).correlate_except(entry)))
            continue
        if matcher.not_eq is not None:
            meant.append(value != matcher.not_eq)
        yield exists(select(true()).select_from(entry).where(*meant).correlate_except(entry))


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, MetricSeries]:
    return {series.id: series for series in await session.all(MetricSeries, _BY_IDS, ids=list(ids))}


_BY_IDS = Prepared(select(*_ROW).where(metric_series.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))), _IN_SIGHT))


async def listed(session: Session, selector: Selector, args: PageArgs) -> Page[MetricSeries]:
    """A page of the series a selector and `args.filter` let through, by name. Raises `InvalidPattern`."""
    statement = select(*_ROW).where(*_selected(selector))
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
    statement = select(*_ROW).where(*_selected(selector)).order_by(series.name, series.labels, series.id)
    try:
        return await session.all(MetricSeries, statement.limit(limit))
    except asyncpg.InvalidRegularExpressionError as error:
        raise InvalidPattern(str(error)) from error


async def lock_series(session: Session, selector: Selector, ids: Sequence[UUID] | None) -> list[Sized]:
    """The series a selector lets through, of these IDs if they are given; locked until the transaction ends.

    They are locked in the order in which those who write points lock them. Raises `InvalidPattern`.
    """
    series = metric_series.c
    statement = (
        select(series.id, series.point_count)
        .where(*_selected(selector))
        .order_by(series.run_id, series.scope, series.name, series.labels)
        .with_for_update()
    )
    if ids is not None:
        statement = statement.where(series.id == any_(literal(list(ids), ARRAY(Uuid))))
    try:
        return await session.all(Sized, statement)
    except asyncpg.InvalidRegularExpressionError as error:
        raise InvalidPattern(str(error)) from error


async def delete_series(session: Session, ids: Sequence[UUID]) -> None:
    """Delete series with all their points."""
    await session.run(_DELETE_SERIES, ids=list(ids))


_DELETE_SERIES = Prepared(delete(metric_series).where(metric_series.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))))


async def names(session: Session, selector: Selector, *, limit: int) -> list[str]:
    name = metric_series.c.name
    records = await session.records(select(name).where(*_selected(selector)).distinct().order_by(name).limit(limit))
    return [record[0] for record in records]


async def of_runs(session: Session, run_ids: Sequence[UUID], args: RunMetrics) -> dict[UUID, list[MetricSeries]]:
    """The series of each run, by name: what summaries and names are read from."""
    selector = Selector(scope=args.scope, names=args.names, run_ids=tuple(run_ids))
    statement = select(*_ROW).where(*_selected(selector)).order_by(metric_series.c.name, metric_series.c.id)
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
            _IN_SIGHT,
        )
        .distinct()
        .order_by(series.run_id, series.name)
    )
    found: dict[UUID, list[str]] = {run_id: [] for run_id in run_ids}
    for run_id, name in await session.records(statement, run_ids=list(run_ids)):
        found[run_id].append(name)
    return found


async def histories_of_runs(
    session: Session, run_ids: Sequence[UUID], args: RunMetrics
) -> dict[UUID, list[SeriesOfRun]]:
    """The series of each run with their history, by name."""
    known = await of_runs(session, run_ids, args)
    data = await histories(session, [series.sized for of_run in known.values() for series in of_run], args.wanted)
    return {run_id: [SeriesOfRun(series, data[series.sized]) for series in of_run] for run_id, of_run in known.items()}


async def snapshot(session: Session) -> Snapshot:
    """What can be seen now."""
    return Snapshot.of(await session.scalar(_SNAPSHOT))


_SNAPSHOT = Prepared(select(snapshots.now()))


async def histories(
    session: Session, series: Sequence[Sized], wanted: Wanted, *, as_of: Snapshot | None = None
) -> dict[Sized, SeriesData]:
    """The history of each series, read as columns and thinned.

    One statement, or as many as keep about two million points in memory at a time. All see the same snapshot: the
    first one's own, or `as_of`, a moment ago.
    """
    found: dict[Sized, SeriesData] = {}
    first = as_of
    for chunk in _chunks(series):
        for one, history, snapshot in await _read(session, chunk, wanted.range, first):
            first = first or snapshot
            made = await _thinned(history, wanted)
            found[one] = SeriesData(one.id, len(history.at), made, first)
    return found


def _chunks(series: Sequence[Sized]) -> Iterator[list[Sized]]:
    sizes, total = [], 0
    for one in series:
        total += one.point_count
        sizes.append(total // _MOST_AT_ONCE)
    for _, chunk in groupby(zip(sizes, series, strict=True), key=lambda pair: pair[0]):
        yield [one for _, one in chunk]


async def _thinned(history: History, wanted: Wanted) -> Thinned:
    """Long histories are thinned beside the event loop."""
    how = {"max_points": wanted.max_points, "method": Method(wanted.method), "axis": Axis(wanted.axis)}
    if len(history.at) > _IN_A_THREAD:
        return await asyncio.to_thread(thinned, history, **how)  # type: ignore[arg-type]
    return thinned(history, **how)  # type: ignore[arg-type]


async def _read(
    session: Session, series: Sequence[Sized], range: Range, snapshot: Snapshot | None
) -> list[tuple[Sized, History, Snapshot]]:
    points = metric_points.c
    from_at = range.from_at
    if range.last is not None:
        from_at = time.time_ns() // 1_000_000 - range.last // timedelta(milliseconds=1)
    bounds: list[ColumnElement[bool]] = []
    if range.first_step is not None:
        bounds.append(points.step >= literal(range.first_step, BigInteger))
    if range.last_step is not None:
        bounds.append(points.step <= literal(range.last_step, BigInteger))
    if from_at is not None:
        bounds.append(points.at >= literal(from_at, BigInteger))
    if range.to_at is not None:
        bounds.append(points.at <= literal(range.to_at, BigInteger))
    if snapshot is not None:
        bounds.append(snapshots.seen(points.changed, snapshot))
    ids = bindparam("ids", type_=ARRAY(Uuid))
    chosen = (
        select(points.series_id, points.step, points.at, points.value)
        .where(points.series_id == any_(ids), *bounds)
        .order_by(points.series_id, points.step, points.at)
        .subquery("chosen")
    )
    grouped = select(chosen.c.series_id, *_packed(chosen.c)).group_by(chosen.c.series_id).subquery("grouped")
    asked = func.unnest(ids).table_valued(sql_column("id", Uuid), name="asked").render_derived()
    statement = select(asked.c.id, grouped.c.steps, grouped.c.at, grouped.c.value, snapshots.now()).select_from(
        asked.outerjoin(grouped, grouped.c.series_id == asked.c.id)
    )
    by_id = {one.id: one for one in series}
    records = await session.records(statement, ids=list(by_id))
    return [
        (by_id[record[0]], _unpacked(record[1], record[2], record[3]), Snapshot.of(record[4])) for record in records
    ]


def _packed(points: Any) -> list[ColumnElement[bytes]]:
    """Points of a group as three binary arrays, in the order they come in."""
    return [
        func.array_send(func.array_agg(column), type_=LargeBinary).label(name)
        for name, column in (
            ("steps", func.coalesce(points.step, literal(_NO_STEP, BigInteger))),
            ("at", points.at),
            ("value", points.value),
        )
    ]


_HEADER = 20
_INTEGER = np.dtype([("length", ">i4"), ("item", ">i8")])
_DOUBLE = np.dtype([("length", ">i4"), ("item", ">f8")])


def _unpacked(steps: bytes | None, at: bytes | None, values: bytes | None) -> History:
    """The arrays of `array_send`: a header of 20 bytes (one dimension), then each item behind its length."""

    def items(packed: bytes | None, of: np.dtype[Any]) -> Any:
        return np.frombuffer(packed or b"", of, offset=_HEADER if packed else 0)["item"]

    read = items(steps, _INTEGER).astype(np.int64)
    return History(
        read, read == _NO_STEP, items(at, _INTEGER).astype(np.int64), items(values, _DOUBLE).astype(np.float64)
    )


# ── The stream of points ────────────────────────────────────────────────────────────────────────────────────────────


async def newest(session: Session, selector: Selector) -> tuple[list[NewPoints], Snapshot]:
    """The newest points of each series, and the snapshot that saw them. Raises `InvalidPattern`."""
    points, series = metric_points.c, metric_series.c
    last = (
        select(points.step, points.at, points.value)
        .where(points.series_id == series.id)
        .order_by(points.step.desc().nulls_first(), points.at.desc())
        .limit(NEWEST)
        .subquery("last")
    )
    ordered = select(last).order_by(last.c.step, last.c.at).subquery("ordered")
    packed = select(*_packed(ordered.c)).lateral("packed")
    chosen = (
        select(series.id, series.name, series.run_id, series.labels, packed.c.steps, packed.c.at, packed.c.value)
        .select_from(metric_series.join(packed, true()))
        .where(*_selected(selector))
        .subquery("series")
    )
    return await _stream(session, chosen, [])


async def unseen(session: Session, selector: Selector, snapshot: Snapshot) -> tuple[list[NewPoints], Snapshot]:
    """The points that a snapshot could not see, and the snapshot to ask with next.

    A long backlog comes in parts of about a hundred thousand points, cut between two transactions. Raises
    `InvalidPattern`.
    """
    points, series = metric_points.c, metric_series.c
    fresh = (
        select(
            series.id,
            series.name,
            series.run_id,
            series.labels,
            points.step,
            points.at,
            points.value,
            points.changed,
        )
        .join_from(metric_series, metric_points, points.series_id == series.id)
        .where(*_selected(selector), snapshots.unseen(points.changed, snapshot))
        .cte("fresh")
    )
    ends = select(fresh.c.changed).order_by(fresh.c.changed).offset(_MOST_IN_A_BATCH).limit(1).subquery("ends")
    floor = literal(snapshot.xmax - 1, Xid8)
    cut = select(func.greatest(ends.c.changed, floor, type_=Xid8).label("changed")).subquery("cut")
    bound = (
        select(cut.c.changed)
        .where(cut.c.changed < func.pg_snapshot_xmin(func.pg_current_snapshot(), type_=Xid8))
        .scalar_subquery()
    )
    part = (
        select(fresh)
        .where(or_(bound.is_(None), fresh.c.changed <= bound))
        .order_by(fresh.c.id, fresh.c.step, fresh.c.at)
        .subquery("part")
    )
    grouped = (
        select(part.c.id, part.c.name, part.c.run_id, part.c.labels, *_packed(part.c))
        .group_by(part.c.id, part.c.name, part.c.run_id, part.c.labels)
        .subquery("series")
    )
    return await _stream(session, grouped, [bound])


async def _stream(session: Session, series: Any, bound: Sequence[Any]) -> tuple[list[NewPoints], Snapshot]:
    moment_ = select(snapshots.now().label("snapshot"), *(one.label("bound") for one in bound)).subquery("moment")
    statement = (
        select(*moment_.c, *series.c)
        .select_from(moment_.outerjoin(series, true()))
        .order_by(series.c.name, series.c.id)
    )
    try:
        records = await session.records(statement)
    except asyncpg.InvalidRegularExpressionError as error:
        raise InvalidPattern(str(error)) from error
    width = 1 + len(bound)
    cut = records[0][1] if bound else None
    snapshot = Snapshot.of(records[0][0]) if cut is None else Snapshot.before(cut + 1)
    found = []
    for record in records:
        id, name, run_id, labels, steps, at, values = tuple(record)[width:]
        if steps is not None:
            found.append(NewPoints(id, name, run_id, labels, ColumnData.of(_unpacked(steps, at, values))))
    return found, snapshot


# ── Batches that came before ────────────────────────────────────────────────────────────────────────────────────────


async def begin_batch(session: Session, project_id: UUID, batch_id: str) -> dict[str, Any] | None:
    """None for a batch that is new: it is taken, and others with its ID wait until the transaction is over. The
    answer that was given, for one that came before."""
    taken = await session.run(
        upsert(metric_batches)
        .values(project_id=project_id, batch_id=batch_id, answer={})
        .on_conflict_do_nothing(index_elements=[metric_batches.c.project_id, metric_batches.c.batch_id])
    )
    if taken:
        return None
    statement: Select[Any] = select(metric_batches.c.answer).where(_is_batch(project_id, batch_id))
    answer: dict[str, Any] = await session.scalar(statement)
    return answer


async def remember_batch(session: Session, project_id: UUID, batch_id: str, answer: dict[str, Any]) -> None:
    await session.run(metric_batches.update().where(_is_batch(project_id, batch_id)).values(answer=answer))


def _is_batch(project_id: UUID, batch_id: str) -> ColumnElement[bool]:
    return and_(metric_batches.c.project_id == project_id, metric_batches.c.batch_id == batch_id)
