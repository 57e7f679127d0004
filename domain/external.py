"""Runs that somebody else's script trains: it reports how it goes, and gives a sign of life with everything it sends.

A script may be slow between two rounds, on a machine that sleeps, or behind a network that fails, so its silence is
borne far longer than a worker's: after `LOST_AFTER` its run is LOST, with the next sign of life RUNNING again, and
after `GIVEN_UP_AFTER` FAILED. A script cannot be killed from here: a cancellation is the answer to its next report.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from auth.principals import Principal
from db import leases, run_logs, runs
from db.database import Session
from db.ids import Kind, key_of
from db.rows import Json, TrainingRun
from db.run_logs import LinesAppended
from db.runs import FINAL, NOW, Held
from db.vocabulary import FailureCode, LogLevel
from db.vocabulary import TrainingRunStatus as Status
from domain.refusals import ErrorCode, Invalid, InvalidState, Refused, not_found
from domain.texts import checked_text
from domain.training import ALL_RUNS, WORKER, Line, end_run, log_topic, move, run_topic, say
from events.log import user_actor
from ml.spec import Algorithm

LOST_AFTER = timedelta(minutes=5)
GIVEN_UP_AFTER = timedelta(days=1)
SCRIPT = "external"
MAX_PHASE = 100
MAX_BATCH_ID = 200
ENDS = (Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.CANCELED)
REPORTABLE = (Status.STARTING, Status.RUNNING, *ENDS)


class Reported(NamedTuple):
    """The run after a report, and whether its script has to stop."""

    training_run: TrainingRun
    cancel_requested: bool


async def report(
    session: Session,
    actor: Principal,
    *,
    id: str,
    status: Status | None,
    fraction: float | None,
    phase: str | None,
    message: str | None,
) -> Reported:
    """What a script says of its run. The same report twice is as good as once.

    Whatever a script reports of a run that was canceled, or ran out of time, but its success is answered with the wish
    that it stops. A script that ends in any way while it was to be canceled leaves the run CANCELED.
    Raises `Refused`.
    """
    if status is not None and status not in REPORTABLE:
        message = f"A script reports that its run is {', '.join(REPORTABLE)}; {status} is for Head AI to say."
        raise Refused(Invalid(message=message, path=("input", "status"), allowed=list(REPORTABLE)))
    if fraction is not None and not (math.isfinite(fraction) and 0 <= fraction <= 1):
        path = ("input", "fraction")
        message = "A fraction is between 0 and 1."
        raise Refused(
            Invalid(code=ErrorCode.OUT_OF_RANGE, message=message, path=path, allowed={"minimum": 0, "maximum": 1})
        )
    checked_text(phase, "input", "phase", max_length=MAX_PHASE)
    checked_text(message, "input", "message")
    run = await _locked(session, id)
    if run.status in FINAL:
        return await _after_the_end(session, run, status)
    who = user_actor(actor.user_id)
    run = await _arrived(session, run, status, who)
    progress = await _progress(session, run, fraction, phase)
    if status in ENDS:
        return Reported(await _ended(session, run, status, who, message, progress), False)
    if message is not None:
        await say(session, run, LogLevel.INFO, message)
    if run.status != Status.QUEUED:
        row = await runs.change(session, run.id, heartbeat_at=NOW, progress=progress)
    else:
        row = await runs.change(session, run.id, progress=progress)
    session.topics.update((ALL_RUNS, run_topic(run.id)))
    return Reported(row, run.status == Status.CANCELING)


async def append_lines(
    session: Session, actor: Principal, *, id: str, lines: Sequence[Line], batch_id: str | None
) -> LinesAppended:
    """Add lines to the log of a run; a batch that comes again adds nothing and is answered as before.

    Raises `Refused`.
    """
    checked_text(batch_id, "input", "batchId", max_length=MAX_BATCH_ID)
    run = await _locked(session, id)
    if batch_id is not None:
        before = await run_logs.batch_of_lines(session, run.id, batch_id)
        if before is not None:
            return before
    if run.status in FINAL:
        raise Refused(_over(run))
    if lines:
        await run_logs.append_lines(session, run.id, run.attempt, lines)
        session.topics.add(log_topic(run.id))
    answer = LinesAppended(len(lines), await run_logs.last_line(session, run.id))
    if batch_id is not None:
        await run_logs.remember_batch_of_lines(session, run.id, batch_id, answer)
    await signs_of_life(session, [run.id])
    return answer


async def signs_of_life(session: Session, run_ids: Sequence[UUID]) -> None:
    """Something came from the scripts of these runs; one that was lost is RUNNING again. Other runs are left alone."""
    for run_id in await leases.beat_external(session, run_ids) if run_ids else ():
        run = await runs.lock(session, run_id)
        if run is not None and run.status == Status.LOST:
            await _back(session, run, WORKER)


async def give_up_silent(session: Session, run_id: UUID) -> None:
    """The run of a script that gave no sign of life is LOST, or FAILED when it was for a day."""
    run = await runs.lock(session, run_id)
    if run is None or run.status in FINAL or run.heartbeat_at is None:
        return
    borne = GIVEN_UP_AFTER if run.status == Status.LOST else LOST_AFTER
    if datetime.now(UTC) - run.heartbeat_at < borne:
        return
    message = "Its script gave no sign of life"
    if run.status == Status.CANCELING:
        await _ended(session, run, Status.CANCELED, WORKER, f"{message} after it was to stop.", None)
    elif run.status == Status.LOST:
        message = f"{message} for {_in_words(GIVEN_UP_AFTER)}."
        failure = _failure(FailureCode.WORKER_LOST, message)
        await leases.change_attempt(
            session, run.id, run.attempt, status=Status.FAILED, finished_at=NOW, failure=failure
        )
        await end_run(session, run, Status.FAILED, actor=WORKER, reason=message, failure=failure)
    elif run.status in (Status.STARTING, Status.RUNNING):
        message = f"{message} for {_in_words(LOST_AFTER)}."
        await say(session, run, LogLevel.WARNING, message)
        await leases.change_attempt(session, run.id, run.attempt, status=Status.LOST)
        await move(session, run, Status.LOST, actor=WORKER, reason=message)


async def _locked(session: Session, id: str) -> Held:
    key = key_of(id, Kind.RUN)
    run = await runs.lock(session, key) if key is not None else None
    if run is None:
        raise Refused(not_found("training run", id, "input", "id"))
    if run.spec["algorithm"] != Algorithm.EXTERNAL:
        message = "Head AI trains this run itself; only a run with the algorithm EXTERNAL is reported from outside."
        raise Refused(Invalid(message=message, path=("input", "id"), allowed=[Algorithm.EXTERNAL]))
    return run


async def _after_the_end(session: Session, run: Held, status: Status | None) -> Reported:
    stopped = run.status in (Status.CANCELED, Status.TIMED_OUT)
    if status == run.status or (stopped and status != Status.SUCCEEDED):
        row = (await runs.by_ids(session, [run.id]))[run.id]
        return Reported(row, stopped and status not in ENDS)
    raise Refused(_over(run))


def _over(run: Held) -> InvalidState:
    return InvalidState(
        message="This run is over.",
        path=("input", "id"),
        current_state=run.status,
        allowed_states=[Status.QUEUED, Status.STARTING, Status.RUNNING, Status.CANCELING, Status.LOST],
    )


async def _arrived(session: Session, run: Held, status: Status | None, who: str) -> Held:
    """Take a run as far as a report implies: a script that trains has started, and one that was lost is back."""
    if run.status == Status.LOST:
        run = await _back(session, run, who)
    if run.status == Status.QUEUED and status not in (None, Status.CANCELED):
        attempt = run.attempt + 1
        await leases.begin_attempt(session, run.id, attempt, SCRIPT)
        await move(
            session,
            run,
            Status.STARTING,
            actor=who,
            attempt=attempt,
            heartbeat_at=NOW,
            failure=None,
            started_at=run.started_at or NOW,
        )
        run = run._replace(status=Status.STARTING, attempt=attempt)
    if run.status == Status.STARTING and status not in (None, Status.STARTING, Status.CANCELED):
        await move(session, run, Status.RUNNING, actor=who)
        await leases.change_attempt(session, run.id, run.attempt, status=Status.RUNNING)
        run = run._replace(status=Status.RUNNING)
    return run


async def _back(session: Session, run: Held, who: str) -> Held:
    await leases.change_attempt(session, run.id, run.attempt, status=Status.RUNNING)
    await move(session, run, Status.RUNNING, actor=who, reason="Its script is back.", heartbeat_at=NOW)
    return run._replace(status=Status.RUNNING)


async def _progress(session: Session, run: Held, fraction: float | None, phase: str | None) -> Json:
    """The progress with what a report says of it; what it leaves out stays."""
    progress = (await runs.by_ids(session, [run.id]))[run.id].progress
    if fraction is not None:
        progress = progress | {"fraction": fraction}
    if phase is not None:
        return progress | {"phase": phase}
    waits = progress.get("phase") in ("queued", "starting")
    return progress | {"phase": "training"} if waits and run.status == Status.RUNNING else progress


async def _ended(
    session: Session, run: Held, status: Status, who: str, message: str | None, progress: Json | None
) -> TrainingRun:
    values: Json = {} if progress is None else {"progress": progress}
    if run.status == Status.CANCELING:
        wanted = run.cancellation or {}
        late = f"It had ended as {status} when the cancellation reached it."
        reason = wanted.get("reason") or message if status == Status.CANCELED else late
        return await end_run(session, run, Status.CANCELED, actor=wanted.get("actor", who), reason=reason, **values)
    if status == Status.SUCCEEDED:
        values["progress"] = (progress or {}) | {"fraction": 1.0, "phase": "finished"}
    elif status == Status.FAILED:
        values["failure"] = _failure(FailureCode.INTERNAL, message or "Its script reported a failure.")
    elif status == Status.TIMED_OUT:
        values["failure"] = _failure(FailureCode.TIMEOUT, message or "Its script ran out of time.")
    if status in (Status.FAILED, Status.TIMED_OUT):
        await say(session, run, LogLevel.ERROR, values["failure"]["message"])
        message = values["failure"]["message"]
    return await end_run(session, run, status, actor=who, reason=message, **values)


def _failure(code: FailureCode, message: str) -> Json:
    return {"code": code, "message": message, "retryable": True, "detail": None}


def _in_words(time: timedelta) -> str:
    return f"{time.days * 24} hours" if time.days else f"{time.seconds // 60} minutes"
