"""Queries on training runs: their states, attempts and artifacts.

A writer first locks the run's row, so what belongs to one run (log lines, transitions) is numbered and committed in one
order. `db.leases` has what the worker that holds a run does with it, `db.run_logs` its log.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    DateTime,
    Double,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    exists,
    false,
    func,
    insert,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy import delete as sql_delete
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from auth.permissions import Permission
from db.conditions import instant, number, one_of, tagged, words
from db.database import Prepared, Session
from db.events import Position, after
from db.ids import Kind, key_of, new_id
from db.paging import Key, Order, Page, PageArgs, counting, page, pages
from db.rows import Artifact, Json, RunAttempt, RunTransition, Tags, TrainingRun, columns
from db.sight import dataset_in_sight, in_sight, run_in_sight
from db.tables import (
    Xid8,
    artifacts,
    dataset_columns,
    dataset_versions,
    datasets,
    metric_series,
    run_attempts,
    run_transitions,
    training_runs,
)
from db.vocabulary import MetricScope, TrainingRunStatus
from ml.algorithm import ColumnFacts, canonical

Status = TrainingRunStatus
AT_WORK = (Status.STARTING, Status.RUNNING, Status.CANCELING)
NOW = func.clock_timestamp()
"""The moment on the clock of the database, as a value to write."""
FINAL = (Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.CANCELED)

_ROW = columns(TrainingRun, training_runs)
_IN_SIGHT = in_sight(Permission.RUN_READ, training_runs.c.project_id, training_runs.c.id)
_BY_IDS = Prepared(select(*_ROW).where(training_runs.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))), _IN_SIGHT))


class Held(NamedTuple):
    """A run as its worker needs it, with everything that decides what may happen to it next."""

    id: UUID
    project_id: UUID
    name: str
    status: str
    spec: Json
    params: list[Json]
    dataset_version_id: UUID | None
    validation_dataset_version_id: UUID | None
    register_model_id: UUID | None
    register_alias: str | None
    created_by: UUID | None
    attempt: int
    lease: UUID | None
    cancellation: Json | None
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None
    checkpoint: Json | None
    tries_from: int


class TrainingData(NamedTuple):
    """The Parquet of a dataset version."""

    id: UUID
    project_id: UUID
    status: str
    digest: str | None
    data_key: str | None
    row_count: int | None


HELD = columns(Held, training_runs)


# Reading


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, TrainingRun]:
    return {run.id: run for run in await session.all(TrainingRun, _BY_IDS, ids=list(ids))}


async def listed(session: Session, args: PageArgs) -> Page[TrainingRun]:
    """A page of all runs; `args.filter` is a `TrainingRunFilter`, `args.order` an `Ordering`."""
    statement, order = _asked(args)
    if args.order.field == "METRIC" and not args.backward:
        found = await _with_metric(session, order, args)
        if found is not None:
            return found
    return await page(session, TrainingRun, statement, order, args)


async def _with_metric(session: Session, order: Order, args: PageArgs) -> Page[TrainingRun] | None:
    """A page by metric whose runs all have the metric, straight from an index; None for one that reaches further."""
    position = None if args.cursor is None else order.decode(args.cursor)
    if position is not None and position[0]:
        return None
    series, asked = metric_series.alias("ordering"), args.order
    value = series.c[_SUMMARY[asked.of]]
    statement = (
        select(*_ROW)
        .join_from(series, training_runs, series.c.run_id == training_runs.c.id)
        .where(
            series.c.name == asked.metric,
            series.c.scope == literal_column("'RUN'"),
            series.c.labels == literal_column("CAST('[]' AS jsonb)"),
            value.is_not(None),
            _IN_SIGHT,
        )
    )
    if args.filter is not None:
        statement = statement.where(matching(args.filter))
    by_index = Order(order.name, (Key(value, asked.descending), Key(series.c.run_id, asked.descending)))
    cursor = None if position is None else by_index.encode(position[1:])
    found = await page(session, TrainingRun, statement, by_index, replace(args, cursor=cursor))
    if not found.has_next_page:
        return None
    whole = replace(found, cursors=[partial(_in, order, by_index, of) for of in found.cursors])
    counted, _ = _asked(args)
    return replace(whole, total=counting(counted))


def _in(order: Order, by_index: Order, cursor: Callable[[], str]) -> str:
    return order.encode([False, *by_index.decode(cursor())])


async def pages_by_project(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[TrainingRun]]:
    statement, order = _asked(args)
    return await pages(session, TrainingRun, statement, training_runs.c.project_id, ids, order, args)


async def pages_by_dataset_version(
    session: Session, ids: Sequence[UUID], args: PageArgs
) -> Mapping[UUID, Page[TrainingRun]]:
    """The runs that train on each version, the newest first."""
    by = training_runs.c.dataset_version_id
    return await pages(session, TrainingRun, select(*_ROW).where(_IN_SIGHT), by, ids, _NEWEST, args)


async def pages_by_parent(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[TrainingRun]]:
    by = training_runs.c.parent_run_id
    return await pages(session, TrainingRun, select(*_ROW).where(_IN_SIGHT), by, ids, _NEWEST, args)


_NEWEST = Order.by("CREATED_AT", training_runs.c.created_at, training_runs.c.id, descending=True)


class Ordering(NamedTuple):
    """`field` is of `TrainingRunOrderField`; `metric` and `of` (a `SummaryValue`) go with METRIC."""

    field: str
    descending: bool
    metric: str | None = None
    of: str = "BEST"


def _asked(args: PageArgs) -> tuple[Select[Any], Order]:
    statement = select(*_ROW).where(_IN_SIGHT)
    if args.filter is not None:
        statement = statement.where(matching(args.filter))
    order: Ordering = args.order
    direction = "desc" if order.descending else "asc"
    name = f"{order.field}:{order.metric}:{order.of}:{direction}" if order.metric else f"{order.field}:{direction}"
    own = Key(training_runs.c.id, order.descending)
    if order.field in _ALWAYS_THERE:
        return statement, Order(name, (Key(_ALWAYS_THERE[order.field], order.descending), own))
    if order.field == "METRIC":
        series = metric_series.alias("ordering")
        statement = statement.outerjoin_from(
            training_runs,
            series,
            and_(
                series.c.run_id == training_runs.c.id,
                series.c.name == order.metric,
                series.c.scope == MetricScope.RUN.value,
                series.c.labels == literal([], JSONB),
            ),
        )
        value: ColumnElement[Any] = series.c[_SUMMARY[order.of]]
        absent: Any = literal(0.0, Double)
    elif order.field == "DURATION":
        value = cast(func.extract("epoch", training_runs.c.finished_at - training_runs.c.started_at), Double)
        absent = literal(0.0, Double)
    else:
        value = _SOMETIMES_THERE[order.field]
        absent = literal(datetime.fromisoformat("1970-01-01T00:00:00+00:00"), DateTime(timezone=True))
    keys = (Key(value.is_(None)), Key(func.coalesce(value, absent, type_=value.type), order.descending), own)
    return statement, Order(name, keys)


_ALWAYS_THERE: dict[str, ColumnElement[Any]] = {
    "CREATED_AT": training_runs.c.created_at,
    "UPDATED_AT": training_runs.c.updated_at,
    "NAME": training_runs.c.name,
}
_SOMETIMES_THERE: dict[str, ColumnElement[Any]] = {
    "STARTED_AT": training_runs.c.started_at,
    "FINISHED_AT": training_runs.c.finished_at,
}
_SUMMARY = {"LAST": "last_value", "BEST": "best_value", "MIN": "min_value", "MAX": "max_value"}


def matching(wanted: Any) -> ColumnElement[bool]:
    """What a `TrainingRunFilter` means; an ID that is none of ours matches nothing."""
    runs = training_runs.c
    conditions: list[ColumnElement[bool]] = [
        *words(runs.name, wanted.name),
        *tagged(runs.tags, wanted.tags),
        *instant(runs.created_at, wanted.created_at),
        *instant(runs.finished_at, wanted.finished_at),
    ]
    for of, values in ((runs.status, wanted.statuses), (runs.algorithm, wanted.algorithms), (runs.task, wanted.tasks)):
        if values is not None:
            conditions.append(one_of(of, [str(value) for value in values]))
    for of, text, kind in (
        (runs.created_by, wanted.created_by_id, Kind.USER),
        (runs.dataset_version_id, wanted.dataset_version_id, Kind.DATASET_VERSION),
        (runs.parent_run_id, wanted.parent_run_id, Kind.RUN),
    ):
        if text is not None:
            key = key_of(text, kind)
            conditions.append(false() if key is None else of == key)
    if wanted.dataset_id is not None:
        key = key_of(wanted.dataset_id, Kind.DATASET)
        versions = select(dataset_versions.c.id).where(dataset_versions.c.dataset_id == key)
        conditions.append(false() if key is None else runs.dataset_version_id.in_(versions))
    conditions += [_has_metric(metric) for metric in wanted.metrics or ()]
    conditions += [_has_param(param) for param in wanted.params or ()]
    if wanted.search is not None:
        found = [of.icontains(wanted.search, autoescape=True) for of in (runs.name, runs.description)]
        conditions.append(or_(*found))
    conditions += [matching(part) for part in wanted.and_ or ()]
    if wanted.or_ is not None:
        conditions.append(or_(false(), *(matching(part) for part in wanted.or_)))
    if wanted.not_ is not None:
        conditions.append(not_(func.coalesce(matching(wanted.not_), false(), type_=Boolean)))
    return and_(true(), *conditions)


def _has_metric(wanted: Any) -> ColumnElement[bool]:
    series = metric_series.alias("measured")
    value = series.c[_SUMMARY[str(wanted.of)]]
    return exists(
        select(true())
        .select_from(series)
        .where(
            series.c.run_id == training_runs.c.id,
            series.c.scope == MetricScope.RUN.value,
            series.c.name == wanted.name,
            value.is_not(None),
            *number(value, wanted.value),
        )
        .correlate(training_runs)
    )


def _has_param(wanted: Any) -> ColumnElement[bool]:
    entry = (
        func.jsonb_array_elements(training_runs.c.params)
        .table_valued(column("value", JSONB), name="param")
        .render_derived()
    )
    named = func.jsonb_extract_path_text(entry.c.value, "name", type_=Text)
    value = func.jsonb_extract_path(entry.c.value, "value", type_=JSONB)
    conditions = [one_of(named, [wanted.name, canonical(wanted.name)])]
    if wanted.eq is not None:
        conditions.append(value == literal(wanted.eq, JSONB))
    if wanted.in_ is not None:
        conditions.append(or_(false(), *(value == literal(item, JSONB) for item in wanted.in_)))
    if wanted.number is not None:
        text = func.jsonb_extract_path_text(entry.c.value, "value", type_=Text)
        numeric = case((func.jsonb_typeof(value) == "number", cast(text, Double)), else_=cast(null(), Double))
        conditions += [numeric.is_not(None), *number(numeric, wanted.number)]
    return exists(select(true()).select_from(entry).where(*conditions).correlate_except(entry))


async def transitions_by_run(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Sequence[RunTransition]]:
    """Oldest first."""
    found: dict[UUID, list[RunTransition]] = {id: [] for id in ids}
    for transition in await session.all(RunTransition, _TRANSITIONS, ids=list(ids)):
        found[transition.run_id].append(transition)
    return found


async def attempts_by_run(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Sequence[RunAttempt]]:
    found: dict[UUID, list[RunAttempt]] = {id: [] for id in ids}
    for attempt in await session.all(RunAttempt, _ATTEMPTS, ids=list(ids)):
        found[attempt.run_id].append(attempt)
    return found


_OF_RUNS = bindparam("ids", type_=ARRAY(Uuid))
_TRANSITIONS = Prepared(
    select(*columns(RunTransition, run_transitions))
    .where(run_transitions.c.run_id == any_(_OF_RUNS))
    .order_by(run_transitions.c.at, run_transitions.c.id)
)
_ATTEMPTS = Prepared(
    select(*columns(RunAttempt, run_attempts))
    .where(run_attempts.c.run_id == any_(_OF_RUNS))
    .order_by(run_attempts.c.run_id, run_attempts.c.number)
)


async def artifacts_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Artifact]:
    return {row.id: row for row in await session.all(Artifact, _ARTIFACTS_BY_IDS, ids=list(ids))}


_ARTIFACTS_BY_IDS = Prepared(
    select(*columns(Artifact, artifacts)).where(artifacts.c.id == any_(_OF_RUNS), run_in_sight(artifacts.c.run_id))
)


async def artifact_pages(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[Artifact]]:
    """By path; `args.filter` is what the paths begin with."""
    statement = select(*columns(Artifact, artifacts))
    if args.filter is not None:
        statement = statement.where(artifacts.c.path.startswith(args.filter, autoescape=True))
    order = Order.by("PATH", artifacts.c.path, artifacts.c.id)
    return await pages(session, Artifact, statement, artifacts.c.run_id, ids, order, args)


class Seen(NamedTuple):
    """A change of a run as a stream meets it: whether it is settled, and whether the run is one the stream is about."""

    settled: bool
    matches: bool
    run: TrainingRun


async def changes_after(
    session: Session,
    position: Position,
    *,
    id: UUID | None,
    filter: Any,
    limit: int,
    matching_only: bool = False,
) -> list[Seen]:
    """Runs that changed after a position, in the order in which that settles; what is not settled comes last."""
    is_settled = training_runs.c.changed < _xmin()
    matches = true() if filter is None else func.coalesce(matching(filter), false(), type_=Boolean)
    statement = (
        select(is_settled, matches, *_ROW)
        .where(after(training_runs.c.changed, training_runs.c.number, position), _IN_SIGHT)
        .order_by(training_runs.c.changed, training_runs.c.number)
        .limit(limit)
    )
    if id is not None:
        statement = statement.where(training_runs.c.id == id)
    if matching_only:
        statement = statement.where(is_settled, matches)
    return [
        Seen(record[0], record[1], TrainingRun._make(tuple(record)[2:])) for record in await session.records(statement)
    ]


def _xmin() -> ColumnElement[Any]:
    return func.pg_snapshot_xmin(func.pg_current_snapshot(), type_=Xid8)


async def dataset_version(session: Session, id: UUID) -> TrainingData | None:
    return await session.first(TrainingData, _TRAINING_DATA, id=id)


_TRAINING_DATA = Prepared(
    select(
        dataset_versions.c.id,
        datasets.c.project_id,
        dataset_versions.c.status,
        dataset_versions.c.digest,
        dataset_versions.c.data_key,
        dataset_versions.c.row_count,
    )
    .join_from(dataset_versions, datasets, datasets.c.id == dataset_versions.c.dataset_id)
    .where(dataset_versions.c.id == bindparam("id"), dataset_in_sight(dataset_versions.c.dataset_id))
    .with_for_update(of=dataset_versions, key_share=True, read=True)
)


async def facts_of_columns(session: Session, version_id: UUID, row_count: int | None) -> list[ColumnFacts]:
    """The columns of a dataset version as the learning sees them."""
    found = []
    for name, type_, nullable, role, profile in await session.records(_FACTS, version_id=version_id):
        known = profile or {}
        found.append(
            ColumnFacts(
                name=name,
                type=type_,
                nullable=nullable,
                role=role,
                row_count=row_count,
                null_count=known.get("null_count"),
                distinct_count=known.get("distinct_count"),
                distinct_count_is_estimate=bool(known.get("distinct_count_is_estimate")),
            )
        )
    return found


_FACTS = Prepared(
    select(
        dataset_columns.c.name,
        dataset_columns.c.type,
        dataset_columns.c.nullable,
        dataset_columns.c.role,
        dataset_columns.c.profile,
    )
    .where(dataset_columns.c.version_id == bindparam("version_id"))
    .order_by(dataset_columns.c.position)
)


async def seconds_per_round(session: Session, version_id: UUID) -> float | None:
    """What a round took the last runs that succeeded on this dataset version, as their median; None without any.

    At most 20 runs count. When none trained on this version, those on other versions of the dataset do. The time is
    that of the attempt that succeeded, so it holds fetching the data and storing the model too; the rounds are those
    that this attempt trained (`progress` has `began_at` when it went on from a checkpoint).
    """
    found: float | None = await session.scalar(_SECONDS_PER_ROUND, version_id=version_id)
    return found


def _pace() -> Prepared:
    version_id = bindparam("version_id", type_=Uuid)
    asked = dataset_versions.alias("asked")
    seconds = cast(func.extract("epoch", run_attempts.c.finished_at - run_attempts.c.started_at), Double)
    completed = cast(func.jsonb_extract_path_text(training_runs.c.progress, "completed", type_=Text), Double)
    began_at = cast(func.jsonb_extract_path_text(training_runs.c.progress, "began_at", type_=Text), Double)
    rounds = completed - func.coalesce(began_at, literal(0.0, Double), type_=Double)
    on_version = (training_runs.c.dataset_version_id == version_id).label("on_version")
    last = (
        select(on_version, (seconds / rounds).label("pace"))
        .select_from(training_runs)
        .join(
            run_attempts,
            and_(run_attempts.c.run_id == training_runs.c.id, run_attempts.c.number == training_runs.c.attempt),
        )
        .join(dataset_versions, dataset_versions.c.id == training_runs.c.dataset_version_id)
        .join(asked, asked.c.dataset_id == dataset_versions.c.dataset_id)
        .where(
            asked.c.id == version_id,
            training_runs.c.status == literal(Status.SUCCEEDED.value),
            rounds > 0,
        )
        .order_by(on_version.desc(), training_runs.c.finished_at.desc())
        .limit(20)
        .subquery("last")
    )
    median = func.percentile_cont(0.5).within_group(last.c.pace)
    return Prepared(select(func.coalesce(median.filter(last.c.on_version), median)))


_SECONDS_PER_ROUND = _pace()


async def unfinished_on_dataset(session: Session, dataset_id: UUID) -> list[TrainingRun]:
    """The runs that are not final and train or validate on a version of the dataset, the oldest first."""
    versions = select(dataset_versions.c.id).where(dataset_versions.c.dataset_id == dataset_id)
    statement = (
        select(*_ROW)
        .where(
            training_runs.c.finished_at.is_(None),
            or_(
                training_runs.c.dataset_version_id.in_(versions),
                training_runs.c.validation_dataset_version_id.in_(versions),
            ),
        )
        .order_by(training_runs.c.created_at, training_runs.c.id)
    )
    return await session.all(TrainingRun, statement)


# Writing


async def insert_unless_taken(
    session: Session,
    *,
    project_id: UUID,
    name: str,
    description: str | None,
    tags: Tags,
    created_by: UUID,
    task: str,
    algorithm: str,
    spec: Json,
    params: list[Json],
    progress: Json,
    dataset_version_id: UUID | None,
    validation_dataset_version_id: UUID | None,
    parent_run_id: UUID | None,
    register_model_id: UUID | None,
    register_alias: str | None,
) -> TrainingRun | None:
    """The new run, queued, or None when its name is taken in the project."""
    statement = (
        upsert(training_runs)
        .values(
            id=new_id(),
            project_id=project_id,
            name=name,
            description=description,
            tags=tags,
            created_by=created_by,
            status=Status.QUEUED,
            progress=progress,
            task=task,
            algorithm=algorithm,
            spec=spec,
            params=params,
            dataset_version_id=dataset_version_id,
            validation_dataset_version_id=validation_dataset_version_id,
            parent_run_id=parent_run_id,
            register_model_id=register_model_id,
            register_alias=register_alias,
        )
        .on_conflict_do_nothing(index_elements=[training_runs.c.project_id, training_runs.c.name])
        .returning(*_ROW)
    )
    return await session.first(TrainingRun, statement)


async def by_name(session: Session, project_id: UUID, name: str) -> TrainingRun | None:
    statement = select(*_ROW).where(training_runs.c.project_id == project_id, training_runs.c.name == name, _IN_SIGHT)
    return await session.first(TrainingRun, statement)


async def lock(session: Session, id: UUID) -> Held | None:
    """The run, which nobody else changes until the transaction ends."""
    return await session.first(Held, _LOCK, id=id)


_BY_ID = training_runs.c.id == bindparam("id")
_LOCK = Prepared(select(*HELD).where(_BY_ID, _IN_SIGHT).with_for_update(key_share=True))


async def change(session: Session, id: UUID, **values: Any) -> TrainingRun:
    """Write columns of a run that the caller has locked; streams see it."""
    made = await session.first(
        TrainingRun,
        update(training_runs)
        .where(training_runs.c.id == id)
        .values(**values, changed=func.pg_current_xact_id(type_=Xid8), updated_at=NOW)
        .returning(*_ROW),
    )
    assert made is not None
    return made


async def change_unless_taken(session: Session, id: UUID, **values: Any) -> TrainingRun | None:
    """As `change`; None, and nothing is changed, when the project has a run of this name."""
    try:
        async with session.connection.transaction():
            return await change(session, id, **values)
    except asyncpg.UniqueViolationError:
        return None


async def children(session: Session, id: UUID, *, limit: int = 100) -> list[TrainingRun]:
    return await session.all(TrainingRun, select(*_ROW).where(training_runs.c.parent_run_id == id).limit(limit))


async def delete(session: Session, id: UUID) -> None:
    """The run with its history, log, attempts and artifacts."""
    await session.run(sql_delete(training_runs).where(training_runs.c.id == id))


async def add_transition(
    session: Session,
    run_id: UUID,
    *,
    from_status: str | None,
    to_status: str,
    actor: str | None,
    reason: str | None,
    attempt: int,
) -> None:
    await session.run(
        insert(run_transitions).values(
            id=new_id(),
            run_id=run_id,
            from_status=from_status,
            to_status=to_status,
            actor=actor,
            reason=reason,
            attempt=attempt,
        )
    )


async def put_artifact(
    session: Session, run_id: UUID, *, path: str, size_bytes: int, sha256: str, content_type: str, object_key: str
) -> None:
    """Record a file of a run, in the place of one of an earlier attempt."""
    given = {"size_bytes": size_bytes, "sha256": sha256, "content_type": content_type, "object_key": object_key}
    made = upsert(artifacts).values(id=new_id(), run_id=run_id, path=path, **given)
    await session.run(made.on_conflict_do_update(index_elements=[artifacts.c.run_id, artifacts.c.path], set_=given))
