"""Training runs: what may be asked for, and how a run gets from one state to the next.

QUEUED → STARTING → RUNNING → SUCCEEDED, FAILED, TIMED_OUT; STARTING, RUNNING → CANCELING → CANCELED. Each worker that
takes a run makes an attempt of its own and holds a lease; whoever holds another lease by then writes nothing.

A run whose worker vanished is LOST and then QUEUED again. `maxAttempts` counts what a run does to itself: a failure
that may pass is tried again until so many attempts have failed. A worker that vanishes is not the run's doing, so a run
is taken up again after its first three losses whatever `maxAttempts` says, and after that as long as `maxAttempts`
allows it. A worker that is told to stop hands its runs back, which counts for nothing. The next attempt goes on from
the last checkpoint, and the steps it trains again replace those of the attempt before.
"""

import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from auth.permissions import Permission
from auth.principals import Place, Principal
from db import leases, models, projects, run_logs, runs
from db.database import Session
from db.ids import Kind, key_of
from db.jobs import Job, enqueue
from db.rows import Json, Tags, TrainingRun
from db.runs import AT_WORK, FINAL, NOW, Held, TrainingData
from db.vocabulary import DatasetVersionStatus, EventType, FailureCode, LogLevel, LogStream, MetricScope
from db.vocabulary import TrainingRunStatus as Status
from domain.idempotency import made_before, recall, remember
from domain.metrics import Points, record_points
from domain.models import create_version_of_run
from domain.refusals import AlreadyExists, ErrorCode, Invalid, InvalidState, Refusal, Refused, not_found
from domain.texts import checked_tags, checked_text, storable, strings
from events.log import publish, system_actor, user_actor
from ml.algorithm import METRICS, Resolved, resolve
from ml.spec import Algorithm, TrainingSpec

ALL_RUNS = "runs"
LOST_AFTER = timedelta(seconds=7)
MAX_LOSSES = 3
MAX_NAME = 200
WORKER = system_actor("worker")
QUEUED: Json = {"fraction": None, "phase": "queued"}
_EVENTS = {
    Status.RUNNING: EventType.RUN_STARTED,
    Status.SUCCEEDED: EventType.RUN_SUCCEEDED,
    Status.FAILED: EventType.RUN_FAILED,
    Status.TIMED_OUT: EventType.RUN_FAILED,
    Status.CANCELED: EventType.RUN_CANCELED,
    Status.LOST: EventType.RUN_LOST,
    Status.QUEUED: EventType.RUN_RETRIED,
}


def run_topic(run_id: UUID) -> str:
    return f"run:{run_id.hex}"


def cancel_topic(run_id: UUID) -> str:
    """Rung for the worker alone, which would otherwise hear itself."""
    return f"cancel:{run_id.hex}"


def log_topic(run_id: UUID) -> str:
    return f"logs:{run_id.hex}"


class LeaseLost(Exception):
    """The run went on without this worker: it was lost, taken by another one, or canceled by force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a caller asks for; IDs are as they were given."""

    project_id: str
    spec: TrainingSpec
    name: str | None = None
    description: str | None = None
    tags: Tags
    dataset_version_id: str | None = None
    validation_dataset_version_id: str | None = None
    parent_run_id: str | None = None
    register_model_id: str | None = None
    register_alias: str | None = None

    def to_json(self) -> Json:
        return {name: getattr(self, name) for name in self.__slots__ if name != "spec"} | {"spec": self.spec.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A request that can be granted: the spec with everything filled in, and the keys of what it names."""

    resolved: Resolved
    project_id: UUID
    dataset_version_id: UUID | None
    validation_dataset_version_id: UUID | None
    parent_run_id: UUID | None
    register_model_id: UUID | None


@dataclass(frozen=True, slots=True)
class Line:
    """A log line on its way in."""

    at: datetime
    level: str
    stream: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of a run that is in the store already."""

    path: str
    size_bytes: int
    sha256: str
    content_type: str
    object_key: str


# What callers do


async def plan_run(session: Session, actor: Principal, request: RunRequest) -> Planned:
    """Check a request against the data it names. Raises `Refused` with everything that is wrong with it, at once."""
    refusals: list[Refusal] = []
    _check_texts(request, refusals)
    project_id = key_of(request.project_id, Kind.PROJECT)
    if project_id is None or project_id not in await projects.by_ids(session, [project_id]):
        raise Refused(*refusals, not_found("project", request.project_id, "input", "projectId"))
    data = await _data(session, actor, project_id, request.dataset_version_id, "datasetVersionId", refusals)
    validation = await _data(
        session, actor, project_id, request.validation_dataset_version_id, "validationDatasetVersionId", refusals
    )
    if request.dataset_version_id is None and request.spec.algorithm is not Algorithm.EXTERNAL:
        refusals.append(
            Invalid(
                code=ErrorCode.REQUIRED,
                message="Name the dataset version to train on.",
                path=("input", "datasetVersionId"),
            )
        )
    columns = [] if data is None else await runs.facts_of_columns(session, data.id, data.row_count)
    resolved = resolve(request.spec, columns, has_validation_data=request.validation_dataset_version_id is not None)
    if data is not None or request.spec.algorithm is Algorithm.EXTERNAL:
        refusals += [
            Invalid(code=ErrorCode(p.code), message=p.message, path=p.path, allowed=p.allowed)
            for p in resolved.problems
        ]
    parent_run_id = await _parent(session, actor, project_id, request.parent_run_id, refusals)
    model_id = await _model(session, actor, project_id, request, refusals)
    if refusals:
        raise Refused(*refusals)
    return Planned(
        resolved=resolved,
        project_id=project_id,
        dataset_version_id=None if data is None else data.id,
        validation_dataset_version_id=None if validation is None else validation.id,
        parent_run_id=parent_run_id,
        register_model_id=model_id,
    )


async def estimated_duration(session: Session, planned: Planned) -> timedelta | None:
    """The rounds that are asked for, at the pace of earlier runs on the same data; None when there were none."""
    if planned.dataset_version_id is None or planned.resolved.spec.algorithm is Algorithm.EXTERNAL:
        return None
    pace = await runs.seconds_per_round(session, planned.dataset_version_id)
    return None if pace is None else timedelta(seconds=pace * planned.resolved.spec.num_rounds)


@contextmanager
def _collecting(refusals: list[Refusal]) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        refusals += refused.refusals


def _check_texts(request: RunRequest, refusals: list[Refusal]) -> None:
    with _collecting(refusals):
        checked_text(request.name, "input", "name", max_length=MAX_NAME)
    with _collecting(refusals):
        checked_text(request.description, "input", "description")
    with _collecting(refusals):
        checked_tags(request.tags, "input", "tags")
    spec = request.spec
    texts = [spec.target, spec.weight_column, spec.group_column, spec.split.time_column, *(spec.features or ())]
    texts += [*spec.evaluation_metrics, *strings(dict(spec.params))]
    if not all(storable(text) for text in texts if text is not None):
        refusals.append(
            Invalid(
                message="A text in the spec holds a character that cannot be stored (NUL or half a pair).",
                path=("input", "spec"),
            )
        )


async def _data(
    session: Session, actor: Principal, project_id: UUID, given: str | None, field: str, refusals: list[Refusal]
) -> TrainingData | None:
    if given is None:
        return None
    key = key_of(given, Kind.DATASET_VERSION)
    found = await runs.dataset_version(session, key) if key is not None else None
    if found is None or found.project_id != project_id:
        refusals.append(not_found("dataset version in this project", given, "input", field))
        return None
    if found.status != DatasetVersionStatus.READY:
        refusals.append(
            InvalidState(
                message="This dataset version is not ready to be trained on.",
                path=("input", field),
                current_state=found.status,
                allowed_states=[DatasetVersionStatus.READY],
            )
        )
        return None
    return found


async def _parent(
    session: Session, actor: Principal, project_id: UUID, given: str | None, refusals: list[Refusal]
) -> UUID | None:
    if given is None:
        return None
    key = key_of(given, Kind.RUN)
    found = (await runs.by_ids(session, [key])).get(key) if key is not None else None
    if found is None or found.project_id != project_id:
        refusals.append(not_found("training run in this project", given, "input", "parentRunId"))
        return None
    return found.id


async def _model(
    session: Session, actor: Principal, project_id: UUID, request: RunRequest, refusals: list[Refusal]
) -> UUID | None:
    given = request.register_model_id
    if given is None:
        return None
    path = ("input", "registerAs", "modelId")
    key = key_of(given, Kind.MODEL)
    found = (await models.by_ids(session, [key])).get(key) if key is not None else None
    if found is None or found.project_id != project_id:
        refusals.append(not_found("model in this project", given, *path))
        return None
    if not actor.may(Permission.MODEL_UPDATE, Place(project_id, found.id)):
        refusals.append(Invalid(message="Registering a model needs the permission MODEL_UPDATE.", path=path))
        return None
    if found.task != request.spec.task:
        refusals.append(
            Invalid(
                message=f"The model {found.name!r} is for {found.task}, and this run trains for {request.spec.task}.",
                path=path,
                allowed=found.task,
            )
        )
    return found.id


async def create_run(
    session: Session, actor: Principal, request: RunRequest, *, idempotency_key: str | None
) -> TrainingRun:
    """Queue a run. Raises `Refused` with everything that is wrong with the request; nothing is written then."""
    told = request.to_json()
    known = await recall(session, actor, "createTrainingRun", idempotency_key, told)
    if known is not None:
        return made_before(await runs.by_ids(session, [known]), known)
    planned = await plan_run(session, actor, request)
    run = await _inserted(session, actor, request, planned)
    await runs.add_transition(
        session,
        run.id,
        from_status=None,
        to_status=Status.QUEUED,
        actor=user_actor(actor.user_id),
        reason=None,
        attempt=0,
    )
    await publish(session, EventType.RUN_CREATED, run.id, project_id=run.project_id, actor=user_actor(actor.user_id))
    session.topics.update((ALL_RUNS, run_topic(run.id)))
    if request.spec.algorithm is not Algorithm.EXTERNAL:
        await enqueue(session, Job.TRAIN_RUN, run.id)
    await remember(session, actor, "createTrainingRun", idempotency_key, told, run.id)
    return run


async def _inserted(session: Session, actor: Principal, request: RunRequest, planned: Planned) -> TrainingRun:
    resolved = planned.resolved
    while True:
        name = request.name or _made_up_name()
        run = await runs.insert_unless_taken(
            session,
            project_id=planned.project_id,
            name=name,
            description=request.description,
            tags=request.tags,
            created_by=actor.user_id,
            task=resolved.spec.task,
            algorithm=resolved.spec.algorithm,
            spec=resolved.spec.to_json(),
            params=[
                {"name": p.name, "value": p.value, "explicit": p.explicit}
                for p in resolved.params
                if p.value is not None
            ],
            progress=QUEUED,
            dataset_version_id=planned.dataset_version_id,
            validation_dataset_version_id=planned.validation_dataset_version_id,
            parent_run_id=planned.parent_run_id,
            register_model_id=planned.register_model_id,
            register_alias=request.register_alias,
        )
        if run is not None:
            return run
        if request.name is not None:
            raise Refused(
                AlreadyExists(
                    message=f"The project has a training run named {name!r} already.",
                    path=("input", "name"),
                    existing=await runs.by_name(session, planned.project_id, name),
                )
            )


def _made_up_name() -> str:
    return f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}-{secrets.token_hex(2)}"  # noqa: S311 only a name


_ADJECTIVES = ("amber", "bold", "brisk", "calm", "clear", "deft", "early", "fair", "fresh", "keen", "lucid", "steady")
_NOUNS = ("aspen", "birch", "brook", "cedar", "cliff", "delta", "fjord", "grove", "heath", "maple", "ridge", "river")


async def cancel_run(
    session: Session, actor: Principal, *, id: str, reason: str | None, force: bool, keep_best: bool
) -> TrainingRun:
    """End a run: at once when no worker has it, else at its next round, or by killing it (`force`).

    A script of somebody else's cannot be killed: with `force` its run ends at once, and the script hears of it when it
    reports the next time.

    Raises `Refused` when there is no such run, or it is over.
    """
    checked_text(reason, "input", "reason")
    key = key_of(id, Kind.RUN)
    run = await runs.lock(session, key) if key is not None else None
    if run is None:
        raise Refused(not_found("training run", id, "input", "id"))
    if run.status in FINAL:
        raise Refused(
            InvalidState(
                message="This run is over.",
                path=("input", "id"),
                current_state=run.status,
                allowed_states=[Status.QUEUED, *AT_WORK, Status.LOST],
            )
        )
    who = user_actor(actor.user_id)
    is_out_of_reach = force and run.spec["algorithm"] == Algorithm.EXTERNAL
    if run.status not in AT_WORK or is_out_of_reach:
        return await end_run(session, run, Status.CANCELED, actor=who, reason=reason)
    session.topics.add(cancel_topic(run.id))
    wanted = {"force": force, "keep_best": keep_best and not force, "reason": reason, "actor": who}
    if run.status != Status.CANCELING:
        return await move(session, run, Status.CANCELING, actor=who, reason=reason, cancellation=wanted)
    if force and not (run.cancellation or {}).get("force"):
        session.topics.update((ALL_RUNS, run_topic(run.id)))
        return await runs.change(session, run.id, cancellation=wanted)
    return (await runs.by_ids(session, [run.id]))[run.id]


# What workers do


async def claim(session: Session, run_id: UUID, *, worker: str) -> Held | None:
    """Begin the next attempt of a queued run; None when the run is not there to be taken."""
    run = await runs.lock(session, run_id)
    if run is None or run.status != Status.QUEUED or run.spec["algorithm"] == Algorithm.EXTERNAL:
        return None
    attempt = run.attempt + 1
    await leases.begin_attempt(session, run.id, attempt, worker)
    run = run._replace(attempt=attempt, lease=uuid4())
    await move(
        session,
        run,
        Status.STARTING,
        actor=WORKER,
        attempt=attempt,
        lease=run.lease,
        heartbeat_at=NOW,
        started_at=run.started_at or NOW,
        failure=None,
        progress={"fraction": None, "phase": "starting"},
    )
    return run._replace(status=Status.STARTING)


async def leased(session: Session, run: Held) -> Held:
    """The run as it is now, locked. Raises `LeaseLost`."""
    assert run.lease is not None
    found = await leases.lock_leased(session, run.id, run.lease)
    if found is None:
        raise LeaseLost(run.id)
    return found


async def started(session: Session, run: Held, *, environment: Json) -> None:
    """The child is at work. Raises `LeaseLost`."""
    now = await leased(session, run)
    if now.status == Status.STARTING:
        await move(session, now, Status.RUNNING, actor=WORKER, environment=environment)
        await leases.change_attempt(session, run.id, run.attempt, status=Status.RUNNING)


async def beat(session: Session, run: Held) -> Json | None:
    """A sign of life; the cancellation that was asked for, if any. Raises `LeaseLost`."""
    assert run.lease is not None
    cancellation = await leases.beat(session, run.id, run.lease)
    if cancellation is False:
        raise LeaseLost(run.id)
    return cancellation if isinstance(cancellation, dict) else None


async def record(
    session: Session,
    run: Held,
    *,
    points: Mapping[str, Points],
    system_points: Mapping[str, Points],
    lines: Sequence[Line],
    progress: Json | None,
    afresh: bool,
    lines_after: int | None = None,
) -> None:
    """What a run has said since the last time. Raises `LeaseLost`, and nothing is written then.

    `afresh`: these are the first points of the attempt, so the history of earlier attempts from there on gives way.
    `lines_after`: the number of the last line that the worker knows is written. Lines beyond it are the first of
    `lines`, written by a call that never learned of its commit, and are not written again.
    """
    await leased(session, run)
    if points:
        directions = {name: METRICS[name.rpartition(".")[2]].higher_is_better for name in points}
        await record_points(
            session,
            project_id=run.project_id,
            run_id=run.id,
            scope=MetricScope.RUN,
            points=points,
            higher_is_better=directions,
            replace=afresh,
        )
    if system_points:
        await record_points(
            session,
            project_id=run.project_id,
            run_id=run.id,
            scope=MetricScope.SYSTEM,
            points=system_points,
            units=SYSTEM_UNITS,
        )
    if lines and lines_after is not None:
        lines = lines[await run_logs.last_line(session, run.id) - lines_after :]
    if lines:
        await run_logs.append_lines(session, run.id, run.attempt, lines)
        session.topics.add(log_topic(run.id))
    if progress is not None:
        await runs.change(session, run.id, progress=progress)
        session.topics.update((ALL_RUNS, run_topic(run.id)))


SYSTEM_UNITS = {"system.cpu_percent": "percent", "system.rss_bytes": "bytes"}


async def keep_checkpoint(
    session: Session, run: Held, *, rounds: int, maker: str, sha256: str, object_key: str
) -> None:
    """The next attempt goes on from here; every step up to it is written. Raises `LeaseLost`."""
    await leased(session, run)
    checkpoint = {"rounds": rounds, "maker": maker, "sha256": sha256, "object_key": object_key}
    await leases.keep_checkpoint(session, run.id, checkpoint)


async def complete(
    session: Session,
    run: Held,
    *,
    outcome: Json | None,
    files: Sequence[StoredFile],
    progress: Json,
    reason: str | None,
) -> None:
    """The end of a run whose training ended by itself or was canceled at a round, with all that it leaves.

    State, artifacts and model version are one transaction. Raises `LeaseLost`, and nothing is written then.
    """
    now = await leased(session, run)
    canceling = now.status == Status.CANCELING
    kept = outcome if not canceling or (now.cancellation or {}).get("keep_best") else None
    for file in files if kept is not None else ():
        await runs.put_artifact(
            session,
            run.id,
            path=file.path,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            content_type=file.content_type,
            object_key=file.object_key,
        )
    cancellation = now.cancellation or {}
    row = await end_run(
        session,
        now,
        Status.CANCELED if canceling else Status.SUCCEEDED,
        actor=cancellation.get("actor", WORKER) if canceling else WORKER,
        reason=cancellation.get("reason") if canceling else reason,
        outcome=kept,
        progress=progress,
        **({} if canceling else {"checkpoint": None}),
    )
    if kept is not None and now.register_model_id is not None:
        found = await models.by_ids(session, [now.register_model_id])
        if now.register_model_id in found:
            await create_version_of_run(
                session,
                run=row,
                model=found[now.register_model_id],
                outcome=kept,
                description=None,
                tags=[],
                created_by=now.created_by,
                actor=WORKER,
                alias=now.register_alias,
            )


async def canceled(session: Session, run: Held) -> None:
    """The run was killed because somebody wanted it so. Raises `LeaseLost`."""
    await _canceled(session, await leased(session, run))


async def _canceled(session: Session, run: Held, reason: str | None = None) -> None:
    cancellation = run.cancellation or {}
    await end_run(
        session,
        run,
        Status.CANCELED,
        actor=cancellation.get("actor", WORKER),
        reason=cancellation.get("reason") or reason,
    )


async def fail(
    session: Session, run: Held, *, code: FailureCode, message: str, retryable: bool, detail: str | None = None
) -> None:
    """The attempt failed; what may pass is tried again while `maxAttempts` allows it. Raises `LeaseLost`."""
    now = await leased(session, run)
    failure = {"code": code, "message": message, "retryable": retryable, "detail": detail}
    await say(session, now, LogLevel.ERROR, message)
    if now.status == Status.CANCELING:
        await _canceled(session, now, message)
        return
    status = Status.TIMED_OUT if code is FailureCode.TIMEOUT else Status.FAILED
    row = await end_run(session, now, status, actor=WORKER, reason=message, failure=failure)
    failed = [a for a in await _attempts(session, now) if a.status in (Status.FAILED, Status.TIMED_OUT)]
    if retryable and len(failed) < now.spec["max_attempts"]:
        await _queue_again(session, now._replace(status=row.status), "It may work the next time.")


async def lose_silent(session: Session, run_id: UUID) -> bool:
    """Give up on the worker of a run that gave no sign of life for `LOST_AFTER`; whether it was so."""
    run = await leases.lock_silent(session, run_id, since=LOST_AFTER)
    if run is not None:
        await _lose(session, run, "Its worker vanished.")
    return run is not None


async def lose(session: Session, run: Held, message: str) -> None:
    """The run was ended from outside, by no fault of its own that we know of. Raises `LeaseLost`."""
    await _lose(session, await leased(session, run), message)


async def _lose(session: Session, run: Held, message: str) -> None:
    if run.status == Status.CANCELING:
        await _canceled(session, run, message)
        return
    attempts = await _attempts(session, run)
    failure: Json = {"code": FailureCode.WORKER_LOST, "message": message, "retryable": True, "detail": None}
    await _lost(session, run, message, failure)
    losses = sum(1 for a in attempts if a.status == Status.LOST and a.failure is not None) + 1
    lost = run._replace(status=Status.LOST)
    spent = sum(1 for a in attempts if a.failure is not None) + 1
    if losses <= MAX_LOSSES or spent < run.spec["max_attempts"]:
        await _queue_again(session, lost, message)
        await enqueue(session, Job.TRAIN_RUN, run.id)
    else:
        message = f"Given up after {losses} losses. {message}"
        failure |= {"message": message, "retryable": False}
        await end_run(session, lost, Status.FAILED, actor=WORKER, reason=message, failure=failure)


async def hand_back(session: Session, run: Held) -> None:
    """The worker stops: the run waits for another one, and the attempt does not count. Raises `LeaseLost`."""
    now = await leased(session, run)
    if now.status == Status.CANCELING:
        await _canceled(session, now, "Its worker was stopped before it could end the run.")
        return
    await _lost(session, now, "Its worker was stopped.", None)
    await _queue_again(session, now._replace(status=Status.LOST), "Its worker was stopped.")


async def _attempts(session: Session, run: Held) -> Sequence[Any]:
    """The attempts since the run was last tried again on request."""
    return [a for a in (await runs.attempts_by_run(session, [run.id]))[run.id] if a.number > run.tries_from]


async def _lost(session: Session, run: Held, message: str, failure: Json | None) -> None:
    await say(session, run, LogLevel.WARNING, message)
    await leases.change_attempt(session, run.id, run.attempt, status=Status.LOST, finished_at=NOW, failure=failure)
    await move(session, run, Status.LOST, actor=WORKER, reason=message, lease=None)


async def _queue_again(session: Session, run: Held, reason: str) -> None:
    await move(session, run, Status.QUEUED, actor=WORKER, reason=reason, lease=None, finished_at=None, progress=QUEUED)
    if run.status != Status.LOST:
        await enqueue(session, Job.TRAIN_RUN, run.id)


async def end_run(
    session: Session, run: Held, status: Status, *, actor: str, reason: str | None, **values: Any
) -> TrainingRun:
    if run.status in AT_WORK:
        await leases.change_attempt(
            session,
            run.id,
            run.attempt,
            status=status,
            finished_at=NOW,
            failure=values.get("failure"),
        )
    session.topics.add(log_topic(run.id))
    return await move(session, run, status, actor=actor, reason=reason, lease=None, finished_at=NOW, **values)


async def move(
    session: Session, run: Held, status: Status, *, actor: str, reason: str | None = None, **values: Any
) -> TrainingRun:
    """From one state to the next, with the transition recorded, told and streamed; the caller holds the row."""
    attempt = values.get("attempt", run.attempt)
    await runs.add_transition(
        session, run.id, from_status=run.status, to_status=status, actor=actor, reason=reason, attempt=attempt
    )
    row = await runs.change(session, run.id, status=status, status_reason=reason, **values)
    if status in _EVENTS:
        await publish(
            session,
            _EVENTS[status],
            run.id,
            project_id=run.project_id,
            actor=actor,
            changes={"status": [run.status, status]},
        )
    session.topics.update((ALL_RUNS, run_topic(run.id)))
    return row


async def say(session: Session, run: Held, level: LogLevel, text: str) -> None:
    line = Line(datetime.now(UTC), level, LogStream.SYSTEM, text)
    await run_logs.append_lines(session, run.id, run.attempt, [line])
    session.topics.add(log_topic(run.id))
