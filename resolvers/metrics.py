"""Metrics: points in, histories out, and new points as they come."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from auth.principals import Place
from db.ids import Kind, global_id, key_of
from db.metrics import histories, stream
from db.metrics import series as series_queries
from db.metrics.data import MetricPoint, NewPoints, SeriesData, milliseconds, moment, point
from db.metrics.selection import InvalidPattern, LabelMatcher, Range, RunMetrics, Selector, Wanted
from db.paging import EMPTY, Page, PageArgs
from db.rows import MetricSeries
from db.snapshots import Snapshot
from db.vocabulary import Aggregation, DownsampleMethod, MetricKind, MetricScope, UpdateKind
from domain.ingestion import GivenSeries, ingest
from domain.metrics import ALL_POINTS, delete_series, project_topic, run_topic
from domain.refusals import ErrorCode, Invalid, Refused
from domain.texts import storable
from events import cursors
from ml.aggregation import Aggregate, aggregated
from ml.downsampling import Axis, Method, Thinned, thinned
from resolvers.context import Context, Info
from resolvers.inputs.limits import argument
from resolvers.inputs.metrics import (
    DeleteMetricSeriesInput,
    DownsampleInput,
    IngestMetricsInput,
    LabelMatcherInput,
    MetricQueryInput,
    MetricRangeInput,
    MetricSelectorInput,
    MetricSeriesFilter,
)
from resolvers.streams import place_in_sight

MAX_NAMES = 1000
MAX_RAW_POINTS = 1_000_000
MAX_PATTERN = 200
SHORT = DownsampleInput(max_points=500)
USUAL = DownsampleInput(max_points=1000)


class Summary(NamedTuple):
    name: str
    unit: str | None
    last: MetricPoint | None
    min: float | None
    max: float | None
    mean: float | None
    count: int  # type: ignore[assignment]
    best: MetricPoint | None


class Group(NamedTuple):
    name: str
    labels: list[dict[str, str]]
    run_id: UUID | None
    data: SeriesData


class QueryResult(NamedTuple):
    groups: list[Group]
    truncated: bool
    execution_ms: float
    cursor: str


class Batch(NamedTuple):
    cursor: str
    kind: UpdateKind
    series: list[NewPoints]
    dropped_points: int


# ── In ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def ingest_metrics(info: Info, input: IngestMetricsInput) -> dict[str, Any]:
    series = [
        GivenSeries(
            scope=given.scope,
            run_id=given.run_id,
            name=given.name,
            labels=[(label.name, label.value) for label in given.labels or ()],
            unit=given.unit,
            kind=given.kind,
            higher_is_better=given.higher_is_better,
            steps=given.steps,
            at=given.at,
            values=given.values,
            non_finite=[(one.index, one.value) for one in given.non_finite or ()],
        )
        for given in input.series
    ]
    async with info.context.db.transaction() as session:
        return await ingest(
            session,
            info.context.caller,
            project_id=input.project_id,
            batch_id=input.batch_id,
            series=series,
            max_points=info.context.services.limits.max_points_per_ingest,
        )


async def delete_metric_series(info: Info, input: DeleteMetricSeriesInput) -> dict[str, Any]:
    selector = None
    if input.selector is not None:
        selector = _selector(input.selector) or Selector(run_ids=())
    try:
        async with info.context.db.transaction() as session:
            deleted = await delete_series(
                session, project_id=input.project_id, ids=input.ids, selector=selector, dry_run=input.dry_run
            )
    except InvalidPattern as error:
        raise _not_a_pattern(error, "selector", "labels") from error
    return {"series": deleted.series, "points": deleted.points}


# ── Out ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def all_series(
    info: Info,
    filter: MetricSeriesFilter | None = UNSET,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[MetricSeries]:
    args = PageArgs.of(first, after, last, before, filter=filter)
    selector: Selector | None = Selector()
    if filter is not None:
        selector = selector_of(
            scope=filter.scope,
            project_id=filter.project_id,
            run_ids=None if filter.run_id is None else [filter.run_id],
            labels=filter.labels,
        )
    if selector is None or not info.context.sees(Permission.METRIC_READ):
        return EMPTY
    try:
        async with info.context.db.reading() as session:
            return await series_queries.listed(session, selector, args)
    except InvalidPattern as error:
        raise _not_a_pattern(error) from error


async def metric_names(
    info: Info, scope: MetricScope, project_id: strawberry.ID | None = UNSET, prefix: str | None = UNSET
) -> list[str]:
    """The first thousand names, sorted."""
    selector = selector_of(scope=scope, project_id=project_id, names=None if prefix is None else [f"{prefix}*"])
    if selector is None or not info.context.sees(Permission.METRIC_READ):
        return []
    async with info.context.db.reading() as session:
        return await series_queries.names(session, selector, limit=MAX_NAMES)


async def metric_query(info: Info, input: MetricQueryInput) -> QueryResult:
    """The history of the series a selector names. What comes after it continues at `cursor`."""
    started = time.perf_counter()
    how = None if input.aggregation is None else Aggregate(input.aggregation)
    width = _bucket(input)
    wanted = wanted_of(input.range, input.downsample if how is None else None)
    selector = _selector(input.selector)
    series: list[MetricSeries] = []
    data = {}
    async with info.context.db.reading() as session:
        snapshot = await histories.snapshot(session)
        if selector is not None and info.context.sees(Permission.METRIC_READ):
            try:
                series = await series_queries.selected(session, selector, limit=input.limit_series + 1)
            except InvalidPattern as error:
                raise _not_a_pattern(error) from error
        truncated = len(series) > input.limit_series
        series = series[: input.limit_series]
        _refuse_too_much(series, wanted)
        _refuse_rates_of_gauges(series, input.aggregation)
        if series:
            data = await histories.of_series(session, [one.sized for one in series], wanted, as_of=snapshot)
    groups = [Group(one.name, one.labels, one.run_id, data[one.sized]) for one in series]
    if how is not None:
        thinning = wanted_of(input.range, input.downsample)
        gathered = _gathered(series, groups, input.group_by)
        groups = await asyncio.to_thread(lambda: [_together(of, how, width, thinning) for of in gathered])
    return QueryResult(
        groups=groups,
        truncated=truncated,
        execution_ms=(time.perf_counter() - started) * 1000,
        cursor=cursors.encode_snapshot(info.context.services.epoch, snapshot),
    )


def _bucket(input: MetricQueryInput) -> int | None:
    """How wide a bucket of an aggregation is, in milliseconds. Raises `Refused`."""
    for name, given in (("step", input.step), ("groupBy", input.group_by)):
        if given is not None and input.aggregation is None:
            message = f"`{name}` says how to aggregate: give `aggregation` with it."
            raise Refused(Invalid(code=ErrorCode.REQUIRED, message=message, path=("input", "aggregation")))
    if input.step is None:
        return None
    width = input.step // timedelta(milliseconds=1)
    if width < 1:
        message = "A step is at least a millisecond long."
        raise Refused(Invalid(code=ErrorCode.OUT_OF_RANGE, message=message, path=("input", "step")))
    return width


def _refuse_rates_of_gauges(series: Sequence[MetricSeries], aggregation: Aggregation | None) -> None:
    gauge = next((one.name for one in series if one.kind != MetricKind.COUNTER), None)
    if aggregation is Aggregation.RATE and gauge is not None:
        message = f"RATE is of counters, and {gauge!r} is a gauge: select counters, or take another aggregation."
        raise Refused(Invalid(message=message, path=("input", "aggregation")))


def _gathered(
    series: Sequence[MetricSeries], groups: Sequence[Group], group_by: Sequence[str] | None
) -> list[list[Group]]:
    """The series that are aggregated together: without `group_by` each alone, else those of one name that have the
    same values, or lack, the same labels. A group shows those labels, and a run when all its series are of that run."""
    if group_by is None:
        return [[group] for group in groups]
    found: dict[Any, list[Group]] = {}
    for group in groups:
        labels = [label for label in group.labels if label["name"] in group_by]
        key = group.name, tuple((label["name"], label["value"]) for label in labels)
        found.setdefault(key, []).append(group._replace(labels=labels))
    for alike in found.values():
        if len({group.run_id for group in alike}) > 1:
            alike[:] = [group._replace(run_id=None) for group in alike]
    return list(found.values())


def _together(groups: Sequence[Group], how: Aggregate, width: int | None, wanted: Wanted) -> Group:
    """The groups as one, aggregated and then thinned."""
    made: Thinned = aggregated([group.data.thinned.history for group in groups], how=how, width=width)
    if wanted.method is not DownsampleMethod.NONE:
        less = thinned(made.history, max_points=wanted.max_points, method=Method(wanted.method), axis=Axis(wanted.axis))
        made = made if less.method is Method.NONE else less
    total = sum(group.data.total_points for group in groups)
    return groups[0]._replace(data=groups[0].data._replace(total_points=total, thinned=made))


def data_args(range: MetricRangeInput | None = UNSET, downsample: DownsampleInput | None = USUAL) -> Wanted:
    return wanted_of(range, downsample)


def summary_args(names: list[str] | None = UNSET) -> RunMetrics:
    return RunMetrics(MetricScope.RUN, _globs(names))


def run_metrics_args(
    names: list[str] | None = UNSET,
    range: MetricRangeInput | None = UNSET,
    downsample: DownsampleInput | None = USUAL,
) -> RunMetrics:
    return RunMetrics(MetricScope.RUN, _globs(names), wanted_of(range, downsample))


def system_metrics_args(
    names: list[str] | None = UNSET,
    range: MetricRangeInput | None = UNSET,
    downsample: DownsampleInput | None = SHORT,
) -> RunMetrics:
    return RunMetrics(MetricScope.SYSTEM, _globs(names), wanted_of(range, downsample))


def all_of_run() -> RunMetrics:
    return RunMetrics(MetricScope.RUN, None)


def first_at(root: MetricSeries) -> datetime | None:
    return None if root.first_at is None else moment(root.first_at)


def last_at(root: MetricSeries) -> datetime | None:
    return None if root.last_at is None else moment(root.last_at)


def last_point(root: MetricSeries) -> MetricPoint | None:
    if root.last_point_at is None or root.last_value is None:
        return None
    return point(root.last_step, root.last_point_at, root.last_value)


def best_point(root: MetricSeries) -> MetricPoint | None:
    if root.best_at is None or root.best_value is None:
        return None
    return point(root.best_step, root.best_at, root.best_value)


def mean(root: MetricSeries) -> float | None:
    """The mean of the finite values; None when their sum is beyond the largest double."""
    if root.sum_value is None or root.sum_value in (float("inf"), float("-inf")):
        return None
    return root.sum_value / root.finite_count


def points(root: SeriesData, limit: argument(int | None, min=1, max=500) = 100) -> list[MetricPoint]:  # type: ignore[valid-type]
    return root.points(100 if limit is None else limit)


def data_cursor(root: SeriesData, info: Info) -> str:
    return cursors.encode_snapshot(info.context.services.epoch, root.snapshot)


# ── As they come ────────────────────────────────────────────────────────────────────────────────────────────────────


async def metric_points(
    info: Info,
    selector: MetricSelectorInput,
    after: str | None = UNSET,
    max_updates_per_second: argument(float | None, min=0.1, max=10) = 2.0,  # type: ignore[valid-type]
) -> AsyncIterator[Batch]:
    """A snapshot, unless `after` says where to go on, then batches of what is new; nothing is ever dropped.

    What comes is handed on at once, and what comes within the next `1 / maxUpdatesPerSecond` seconds together.
    """
    context = info.context
    context.require(Permission.METRIC_READ)
    epoch = context.services.epoch
    chosen = _selector(selector) or Selector(run_ids=())
    seen = None if after is None else await _past(context, after)
    pause = 1 / (max_updates_per_second or 2.0)
    named = await _places_in_sight(context, chosen)
    with context.watching(*_topics(chosen)) as bell:
        while True:
            here = after if seen is None else cursors.encode_snapshot(epoch, seen)
            context.require(Permission.METRIC_READ, *named, cursor=here)
            try:
                async with context.db.reading() as session:
                    if seen is None:
                        fresh, snapshot = await stream.newest(session, chosen)
                    else:
                        fresh, snapshot = await stream.unseen(session, chosen, seen)
            except InvalidPattern as error:
                raise _not_a_pattern(error) from error
            if seen is None or fresh:
                kind = UpdateKind.SNAPSHOT if seen is None else UpdateKind.UPDATED
                handed_on = time.monotonic()
                yield Batch(cursors.encode_snapshot(epoch, snapshot), kind, fresh, 0)
            seen = snapshot
            if fresh:
                with context.watching() as only_rights:
                    await only_rights.wait(max(0.0, handed_on + pause - time.monotonic()))
            else:
                await bell.until_next_look(unsettled=False)


async def _places_in_sight(context: Context, chosen: Selector) -> list[Place]:
    """Where the runs or the project are that a selector names, those of them that the reader sees now."""
    named = [(Kind.RUN, key) for key in chosen.run_ids or ()]
    if chosen.run_ids is None and chosen.project_id is not None:
        named = [(Kind.PROJECT, chosen.project_id)]
    found = [await place_in_sight(context, Permission.METRIC_READ, kind, key) for kind, key in named]
    return [place for places in found for place in places]


async def _past(context: Context, cursor: str) -> Snapshot:
    """The moment that a cursor names. Raises `CursorInvalid`, also for one to come, or `CursorExpired`."""
    then = cursors.decode_snapshot(context.services.epoch, cursor)
    async with context.db.reading() as session:
        now = await histories.snapshot(session)
    if not 0 < then.xmin <= now.xmin or then.xmax > now.xmax:
        raise cursors.CursorInvalid(cursor)
    return then


def _topics(selector: Selector) -> list[str]:
    if selector.run_ids is not None:
        return [run_topic(run_id) for run_id in selector.run_ids]
    return [ALL_POINTS if selector.project_id is None else project_topic(selector.project_id)]


def series_id(root: NewPoints) -> strawberry.ID:
    return strawberry.ID(global_id(Kind.SERIES, root.series_id))


def run_id(root: NewPoints) -> strawberry.ID | None:
    return None if root.run_id is None else strawberry.ID(global_id(Kind.RUN, root.run_id))


# ── What the inputs mean ────────────────────────────────────────────────────────────────────────────────────────────


def _selector(given: MetricSelectorInput) -> Selector | None:
    return selector_of(
        scope=given.scope,
        project_id=given.project_id,
        names=given.names,
        run_ids=given.run_ids,
        labels=given.labels,
    )


def selector_of(
    *,
    scope: MetricScope | None = None,
    project_id: str | None = None,
    names: list[str] | None = None,
    run_ids: Any = None,
    labels: list[LabelMatcherInput] | None = None,
) -> Selector | None:
    """None when an ID is that of nothing, so that nothing can match. Raises `Refused`."""
    project = None if project_id is None else key_of(project_id, Kind.PROJECT)
    runs = None if run_ids is None else tuple(key for text in run_ids if (key := key_of(text, Kind.RUN)) is not None)
    if (project_id is not None and project is None) or runs == ():
        return None
    for matcher in labels or ():
        if matcher.regex is not None and len(matcher.regex) > MAX_PATTERN:
            raise Refused(Invalid(message=f"A regular expression has at most {MAX_PATTERN} characters."))
    texts = [
        *(names or ()),
        *(text for m in labels or () for text in (m.name, m.eq, m.regex, m.not_eq, *(m.in_ or ())) if text is not None),
    ]
    if not all(storable(text) for text in texts):
        return None
    return Selector(
        project_id=project,
        scope=scope,
        names=_globs(names),
        labels=tuple(
            LabelMatcher(m.name, m.eq, None if m.in_ is None else tuple(m.in_), m.regex, m.not_eq) for m in labels or ()
        ),
        run_ids=runs,
    )


def _globs(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def wanted_of(range: MetricRangeInput | None, downsample: DownsampleInput | None) -> Wanted:
    """Without `downsample` a history comes as it is."""
    bounds = _range(range)
    if downsample is None:
        return Wanted(bounds)
    return Wanted(bounds, downsample.method, downsample.max_points, downsample.axis)


def _range(given: MetricRangeInput | None) -> Range:
    if given is None:
        return Range()
    if given.steps is not None:
        return Range(first_step=given.steps.from_, last_step=given.steps.to)
    if given.time is not None:
        to = given.time.to
        return Range(from_at=milliseconds(given.time.from_), to_at=None if to is None else milliseconds(to))
    return Range(last=given.last)


def _refuse_too_much(series: list[MetricSeries], wanted: Wanted) -> None:
    if wanted.method is DownsampleMethod.NONE and sum(one.point_count for one in series) > MAX_RAW_POINTS:
        raise Refused(
            Invalid(
                code=ErrorCode.OUT_OF_RANGE,
                message=f"These series have more than {MAX_RAW_POINTS} points: give `downsample`, or ask for fewer.",
                path=("input", "downsample"),
            )
        )


def _not_a_pattern(error: Exception, *path: str) -> Refused:
    return Refused(
        Invalid(message=f"`regex` is no regular expression: {error}.", path=("input", *(path or ("labels",))))
    )
