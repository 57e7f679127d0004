"""Training runs: list, find, check, start, cancel, follow."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from dataloaders import loaders
from db import events, run_logs
from db import runs as queries
from db.events import Position
from db.ids import Kind, key_of
from db.paging import EMPTY, Page, PageArgs
from db.rows import Artifact, Json, LogLine, RunTransition, TrainingRun
from db.runs import FINAL, Ordering
from db.vocabulary import Algorithm, UpdateKind
from domain import training
from domain.refusals import ErrorCode, Invalid, Refused, not_found
from domain.training import ALL_RUNS, RunRequest, log_topic, run_topic
from events import cursors
from ml import spec
from ml.algorithm import ALGORITHM_SCHEMA
from resolvers.context import Context, Info
from resolvers.downloads import USUAL, Download, signed
from resolvers.events import place_after
from resolvers.inputs.training import (
    CancelTrainingRunInput,
    CreateTrainingRunInput,
    LogFilter,
    TrainingRunFilter,
    TrainingRunOrder,
    TrainingRunOrderField,
    TrainingSpecInput,
)
from resolvers.paging import ordering, tags_of
from resolvers.streams import place_in_sight

NEWEST = TrainingRunOrder(field=TrainingRunOrderField.CREATED_AT)
DEEPEST_FILTER = 8
MOST_CONDITIONS = 100
RUNS_AT_ONCE = 200
LINES_AT_ONCE = 1000
BATCH_SECONDS = 0.1
_BEGINNING = Position(0, 0)
_NUMBER = re.compile(r"[0-9]{1,18}")


class RunUpdate(NamedTuple):
    cursor: str
    kind: UpdateKind
    training_run: TrainingRun | None
    changed_fields: list[str]


class LogBatch(NamedTuple):
    cursor: str
    kind: UpdateKind
    lines: list[LogLine]
    has_more_past: bool
    finished: bool
    dropped_lines: int = 0


# Lists


def run_args(
    filter: TrainingRunFilter | None = UNSET,
    order_by: TrainingRunOrder | None = NEWEST,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> PageArgs:
    _check_depth(filter, DEEPEST_FILTER)
    return PageArgs.of(first, after, last, before, filter=filter, order=_ordering(order_by or NEWEST))


def _ordering(order_by: TrainingRunOrder) -> Ordering:
    field, descends = ordering(order_by)
    if field != TrainingRunOrderField.METRIC:
        return Ordering(field, descends)
    if not order_by.metric:
        message = "An order by METRIC needs `metric`: the name of a series, such as valid.auc."
        raise Refused(Invalid(code=ErrorCode.REQUIRED, message=message, path=("orderBy", "metric")))
    return Ordering(field, descends, order_by.metric, str(order_by.of or "BEST"))


def _check_depth(filter: TrainingRunFilter | None, left: int) -> None:
    if filter is None:
        return
    if left == 0:
        message = f"A filter nests `and`, `or` and `not` at most {DEEPEST_FILTER} deep."
        raise Refused(Invalid(code=ErrorCode.OUT_OF_RANGE, message=message, path=("filter",)))
    if max(len(filter.metrics or ()), len(filter.params or ()), len(filter.tags or ())) > MOST_CONDITIONS:
        message = f"A filter has at most {MOST_CONDITIONS} `metrics`, `params` and `tags` each."
        raise Refused(Invalid(code=ErrorCode.OUT_OF_RANGE, message=message, path=("filter",)))
    for part in (*(filter.and_ or ()), *(filter.or_ or ()), filter.not_):
        _check_depth(part, left - 1)


def log_args(
    filter: LogFilter | None = UNSET,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> PageArgs:
    return PageArgs.of(first, after, last, before, filter=filter)


def artifact_args(prefix: str | None = UNSET, first: int | None = UNSET, after: str | None = UNSET) -> PageArgs:
    return PageArgs.of(first, after, filter=prefix)


async def training_runs(
    info: Info,
    filter: TrainingRunFilter | None = UNSET,
    order_by: TrainingRunOrder | None = NEWEST,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[TrainingRun]:
    args = run_args(filter, order_by, first, after, last, before)
    if not info.context.sees(Permission.RUN_READ):
        return EMPTY
    async with info.context.db.reading() as session:
        return await queries.listed(session, args)


# One


async def training_run(info: Info, id: strawberry.ID) -> TrainingRun | None:
    key = key_of(id, Kind.RUN)
    found: TrainingRun | None = await loaders.run.load(info.context, key) if key else None
    return found


async def algorithm_schema(info: Info, algorithm: Algorithm) -> Json:
    return ALGORITHM_SCHEMA[spec.Algorithm(algorithm)]


def progress(root: TrainingRun) -> Json:
    finish = root.progress.get("estimated_finish_at")
    return root.progress | {"estimated_finish_at": finish and datetime.fromisoformat(finish)}


def duration(root: TrainingRun) -> timedelta | None:
    """From the first start to the end, or to now while there is none."""
    if root.started_at is None:
        return None
    return (root.finished_at or datetime.now(UTC)) - root.started_at


def from_status(root: RunTransition) -> Any:
    return root.from_status


def to_status(root: RunTransition) -> Any:
    return root.to_status


async def download(root: Artifact, info: Info, expires_in: timedelta | None = USUAL) -> Download:
    return signed(
        info.context,
        root.object_key,
        expires_in,
        file_name=root.path.rpartition("/")[2],
        content_type=root.content_type or "application/octet-stream",
        sha256=root.sha256,
        size_bytes=root.size_bytes,
    )


# Changes


async def validate_training_run(info: Info, input: CreateTrainingRunInput) -> Json:
    async with info.context.db.reading() as session:
        planned = await training.plan_run(session, info.context.caller, _request(input))
        estimated_duration = await training.estimated_duration(session, planned)
    return {
        "valid": True,
        "resolved_spec": planned.resolved.spec.to_json(),
        "estimated_duration": estimated_duration,
        "warnings": list(planned.resolved.warnings),
    }


async def create_training_run(info: Info, input: CreateTrainingRunInput) -> TrainingRun:
    async with info.context.db.transaction() as session:
        return await training.create_run(
            session, info.context.caller, _request(input), idempotency_key=input.idempotency_key
        )


async def cancel_training_run(info: Info, input: CancelTrainingRunInput) -> TrainingRun:
    async with info.context.db.transaction() as session:
        return await training.cancel_run(
            session,
            info.context.caller,
            id=input.id,
            reason=input.reason,
            force=input.force,
            keep_best=input.keep_best,
        )


def _request(input: CreateTrainingRunInput) -> RunRequest:
    register = input.register_as
    return RunRequest(
        project_id=input.project_id,
        spec=_spec(input.spec),
        name=input.name,
        description=input.description,
        tags=tags_of(input.tags),
        dataset_version_id=input.dataset_version_id,
        validation_dataset_version_id=input.validation_dataset_version_id,
        parent_run_id=input.parent_run_id,
        register_model_id=None if register is None else register.model_id,
        register_alias=None if register is None else register.alias,
    )


def _spec(given: TrainingSpecInput) -> spec.TrainingSpec:
    split = given.split
    return spec.TrainingSpec(
        task=spec.Task(given.task),
        algorithm=spec.Algorithm(given.algorithm),
        target=given.target,
        features=None if given.features is None else tuple(given.features),
        weight_column=given.weight_column,
        group_column=given.group_column,
        params=dict(given.params or {}),
        num_rounds=given.num_rounds,
        early_stopping_rounds=given.early_stopping_rounds,
        evaluation_metrics=tuple(given.evaluation_metrics or ()),
        split=spec.Split()
        if split is None
        else spec.Split(
            strategy=spec.SplitStrategy(split.strategy),
            validation_fraction=split.validation_fraction or 0.0,
            test_fraction=split.test_fraction or 0.0,
            folds=split.folds,
            time_column=split.time_column,
        ),
        seed=given.seed,
        timeout=None if given.timeout is None else given.timeout.total_seconds(),
        max_attempts=given.max_attempts,
    )


# Watching

_SHOWN_BY: dict[str, tuple[str, ...]] = {
    "name": ("name",),
    "description": ("description",),
    "tags": ("tags",),
    "revision": ("revision",),
    "status": ("status", "transitions"),
    "status_reason": ("statusReason",),
    "progress": ("progress",),
    "failure": ("failure",),
    "environment": ("environment",),
    "attempt": ("attempts",),
    "heartbeat_at": ("heartbeatAt",),
    "started_at": ("startedAt", "duration"),
    "finished_at": ("finishedAt", "duration"),
    "updated_at": ("updatedAt",),
}
"""The fields of the API that change with a column."""


def _changed_fields(before: TrainingRun | None, after: TrainingRun) -> list[str]:
    """All of them when it is not known what the run was before."""
    fields = (
        shown
        for column, shown in _SHOWN_BY.items()
        if before is None or getattr(before, column) != getattr(after, column)
    )
    return list(dict.fromkeys(name for shown in fields for name in shown))


async def training_run_updated(
    info: Info, id: strawberry.ID | None = UNSET, filter: TrainingRunFilter | None = UNSET, after: str | None = UNSET
) -> AsyncIterator[RunUpdate]:
    """One run until it is over, or without end the runs that a filter matches (all of them without one).

    A run that a filter does not match any more is told of once more, as it is by then.
    """
    _check_depth(filter, DEEPEST_FILTER)
    context: Context = info.context
    position = await place_after(context, after)
    if id is None:
        updates = _updates_of_many(context, filter, position)
    else:
        key = key_of(id, Kind.RUN) if context.sees(Permission.RUN_READ) else None
        if key is None:
            raise Refused(not_found("training run", id, "id"))
        updates = _updates_of_one(context, key, id, filter, position)
    async for update in updates:
        yield update


async def _updates_of_one(
    context: Context, key: UUID, id: str, filter: TrainingRunFilter | None, position: Position | None
) -> AsyncIterator[RunUpdate]:
    epoch = context.services.epoch
    kind = UpdateKind.SNAPSHOT if position is None else UpdateKind.UPDATED
    before: TrainingRun | None = None
    place = await place_in_sight(context, Permission.RUN_READ, Kind.RUN, key)
    with context.watching(run_topic(key)) as bell:
        while True:
            if place:
                cursor = None if position is None else cursors.encode(epoch, position)
                context.require(Permission.RUN_READ, *place, cursor=cursor)
            async with context.db.reading() as session:
                found = await queries.changes_after(session, _BEGINNING, id=key, filter=filter, limit=1)
            if not found:
                raise Refused(not_found("training run", id, "id"))
            seen, run = found[0], found[0].run
            if seen.settled:
                here = Position(run.changed, run.number)
                if (position is None or here > position) and (seen.matches or before is not None):
                    changed = [] if kind is UpdateKind.SNAPSHOT else _changed_fields(before, run)
                    yield RunUpdate(cursors.encode(epoch, here), kind, run, changed)
                    position, before, kind = here, run, UpdateKind.UPDATED
                if run.status in FINAL:
                    return
            await bell.until_next_look(unsettled=not seen.settled)


async def _updates_of_many(
    context: Context, filter: TrainingRunFilter | None, position: Position | None
) -> AsyncIterator[RunUpdate]:
    epoch = context.services.epoch
    known: dict[UUID, TrainingRun] = {}
    resumed = position is not None
    async with context.db.reading() as session:
        start = await events.head(session)
    rights, held = context.principal, context.sees(Permission.RUN_READ)
    with context.watching(ALL_RUNS) as bell:
        past = not resumed and context.sees(Permission.RUN_READ)
        here = position or _BEGINNING
        while past:
            async with context.db.reading() as session:
                found = await queries.changes_after(
                    session, here, id=None, filter=filter, limit=RUNS_AT_ONCE, matching_only=True
                )
            for seen in found:
                here = Position(seen.run.changed, seen.run.number)
                past = past and here < start
                if not past:
                    break
                known[seen.run.id] = seen.run
                yield RunUpdate(cursors.encode(epoch, here), UpdateKind.SNAPSHOT, seen.run, [])
            past = past and len(found) == RUNS_AT_ONCE
        if not resumed:
            here = start
            if not known:
                yield RunUpdate(cursors.encode(epoch, here), UpdateKind.SNAPSHOT, None, [])
        while True:
            if held:
                context.require(Permission.RUN_READ, cursor=cursors.encode(epoch, here))
            if context.principal is not rights:
                rights, held = context.principal, context.sees(Permission.RUN_READ)
                yield RunUpdate(cursors.encode(epoch, here), UpdateKind.GAP, None, [])
            found = []
            if context.sees(Permission.RUN_READ):
                async with context.db.reading() as session:
                    found = await queries.changes_after(session, here, id=None, filter=filter, limit=RUNS_AT_ONCE)
            settled = [seen for seen in found if seen.settled]
            for seen in settled:
                if context.principal is not rights:
                    break
                here = Position(seen.run.changed, seen.run.number)
                before = known.pop(seen.run.id, None)
                if seen.matches:
                    known[seen.run.id] = seen.run
                elif before is None and not resumed:
                    continue
                is_new = before is None and not resumed and seen.run.revision == 1 and seen.run.attempt == 0
                kind = UpdateKind.CREATED if is_new else UpdateKind.UPDATED
                yield RunUpdate(cursors.encode(epoch, here), kind, seen.run, _changed_fields(before, seen.run))
            if len(settled) < RUNS_AT_ONCE and context.principal is rights:
                await bell.until_next_look(unsettled=len(settled) < len(found))


async def training_run_logs(
    info: Info, id: strawberry.ID, filter: LogFilter | None = UNSET, after: str | None = UNSET
) -> AsyncIterator[LogBatch]:
    """The lines so far, then new ones as they come, until the run is over. Numbers settle in their order."""
    context: Context = info.context
    key = key_of(id, Kind.RUN) if context.sees(Permission.RUN_READ) else None
    if after is not None and not _NUMBER.fullmatch(after):
        raise cursors.CursorInvalid(after)
    if key is None:
        raise Refused(not_found("training run", id, "id"))
    number = int(after or 0)
    kind = UpdateKind.SNAPSHOT if after is None else UpdateKind.UPDATED
    is_first = True
    place = await place_in_sight(context, Permission.RUN_READ, Kind.RUN, key)
    with context.watching(log_topic(key)) as bell:
        while True:
            if place:
                context.require(Permission.RUN_READ, *place, cursor=after if is_first else str(number))
            began = time.monotonic()
            async with context.db.reading() as session:
                run = (await queries.by_ids(session, [key])).get(key)
                if run is None:
                    raise Refused(not_found("training run", id, "id"))
                lines = await run_logs.lines_after(session, key, number, filter, limit=LINES_AT_ONCE)
            has_more = len(lines) == LINES_AT_ONCE
            finished = run.status in FINAL and not has_more
            if lines or finished or (is_first and after is None):
                number = lines[-1].number if lines else number
                yield LogBatch(str(number), kind, lines, has_more, finished)
                is_first = False
            if finished:
                return
            if not has_more:
                kind = UpdateKind.UPDATED
                await bell.until_next_look(unsettled=False)
            await asyncio.sleep(BATCH_SECONDS - (time.monotonic() - began))
