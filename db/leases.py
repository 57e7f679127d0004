"""Who holds a training run that is at work: leases, attempts and signs of life.

A writer names its lease, and writes nothing when the run has another one by now. Scripts outside hold no lease: every
call of theirs is a sign of life.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Interval,
    LargeBinary,
    String,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    column,
    exists,
    func,
    insert,
    literal,
    not_,
    select,
    true,
    update,
)
from sqlalchemy import table as sql_table

from db.database import Prepared, Session
from db.jobs import Job
from db.rows import Json
from db.runs import AT_WORK, HELD, NOW, Held, Status
from db.tables import run_attempts, training_runs
from db.vocabulary import Algorithm

_BY_ID = training_runs.c.id == bindparam("id")
_IDS = bindparam("ids", type_=ARRAY(Uuid))


async def lock_leased(session: Session, id: UUID, lease: UUID) -> Held | None:
    """The run when this lease is its present one, locked; else None."""
    return await session.first(Held, _LOCK_LEASED, id=id, lease=lease)


_LOCK_LEASED = Prepared(
    select(*HELD).where(_BY_ID, training_runs.c.lease == bindparam("lease")).with_for_update(key_share=True)
)


async def beat(session: Session, id: UUID, lease: UUID) -> Json | bool | None:
    """A sign of life of the worker: the cancellation that was asked for, or None; False when the lease is over."""
    records = await session.records(_BEAT, id=id, lease=lease)
    return records[0][0] if records else False


_BEAT = Prepared(
    update(training_runs)
    .where(_BY_ID, training_runs.c.lease == bindparam("lease"))
    .values(heartbeat_at=NOW, changed=training_runs.c.changed)
    .returning(training_runs.c.cancellation)
)


async def keep_checkpoint(session: Session, id: UUID, checkpoint: Json) -> None:
    """Where the next attempt goes on from; nobody who watches the run is told."""
    await session.run(update(training_runs).where(training_runs.c.id == id).values(checkpoint=checkpoint))


async def begin_attempt(session: Session, run_id: UUID, number: int, worker: str) -> None:
    await session.run(
        insert(run_attempts).values(run_id=run_id, number=number, status=Status.STARTING, worker=worker, started_at=NOW)
    )


async def change_attempt(session: Session, run_id: UUID, number: int, **values: Any) -> None:
    of_run = (run_attempts.c.run_id == run_id) & (run_attempts.c.number == number)
    await session.run(update(run_attempts).where(of_run).values(**values))


async def silent(session: Session, *, since: timedelta, limit: int = 100) -> list[UUID]:
    """Runs at work whose worker gave no sign of life for so long."""
    return [record[0] for record in await session.records(_SILENT, since=since, limit=limit)]


async def lock_silent(session: Session, id: UUID, *, since: timedelta) -> Held | None:
    """The run, locked, if it is at work and its worker gave no sign of life for so long."""
    return await session.first(Held, _LOCK_SILENT, id=id, since=since)


_IS_EXTERNAL = training_runs.c.algorithm == literal(Algorithm.EXTERNAL.value)

_GAVE_NO_SIGN = and_(
    training_runs.c.finished_at.is_(None),
    training_runs.c.heartbeat_at < NOW - bindparam("since", type_=Interval),
)

_IS_SILENT = and_(
    _GAVE_NO_SIGN, training_runs.c.status == any_(literal(list(AT_WORK), ARRAY(Text))), not_(_IS_EXTERNAL)
)

_SILENT = Prepared(
    select(training_runs.c.id)
    .where(_IS_SILENT)
    .order_by(training_runs.c.heartbeat_at)
    .limit(bindparam("limit", type_=BigInteger))
)

_LOCK_SILENT = Prepared(select(*HELD).where(_BY_ID, _IS_SILENT).with_for_update(key_share=True))


async def silent_external(
    session: Session, *, at_work_since: timedelta, lost_since: timedelta, limit: int = 100
) -> list[UUID]:
    """Runs of scripts outside that gave no sign of life for so long, at work or lost already."""
    found = []
    for statuses, since in ((AT_WORK, at_work_since), ((Status.LOST,), lost_since)):
        found += await session.records(_SILENT_EXTERNAL, statuses=list(statuses), since=since, limit=limit)
    return [record[0] for record in found]


_SILENT_EXTERNAL = Prepared(
    select(training_runs.c.id)
    .where(_GAVE_NO_SIGN, _IS_EXTERNAL, training_runs.c.status == any_(bindparam("statuses", type_=ARRAY(Text))))
    .order_by(training_runs.c.heartbeat_at)
    .limit(bindparam("limit", type_=BigInteger))
)


async def beat_external(session: Session, ids: Sequence[UUID]) -> list[UUID]:
    """A sign of life of scripts outside, once a second at most; those of their runs that were lost until now."""
    await session.run(_BEAT_EXTERNAL, ids=list(ids))
    return [record[0] for record in await session.records(_LOST_EXTERNAL, ids=list(ids))]


_BEAT_EXTERNAL = Prepared(
    update(training_runs)
    .where(
        training_runs.c.id == any_(_IDS),
        _IS_EXTERNAL,
        training_runs.c.status == any_(literal([*AT_WORK, Status.LOST], ARRAY(Text))),
        training_runs.c.heartbeat_at < NOW - literal(timedelta(seconds=1), Interval),
    )
    .values(heartbeat_at=NOW, changed=training_runs.c.changed)
)

_LOST_EXTERNAL = Prepared(
    select(training_runs.c.id).where(
        training_runs.c.id == any_(_IDS), _IS_EXTERNAL, training_runs.c.status == literal(Status.LOST.value)
    )
)


async def without_job(session: Session, *, limit: int = 100) -> list[UUID]:
    """Queued runs that no job is about, because it was dropped."""
    return [record[0] for record in await session.records(_WITHOUT_JOB, limit=limit)]


_QUEUE = sql_table("pgqueuer", column("entrypoint", String), column("payload", LargeBinary))

_WITHOUT_JOB = Prepared(
    select(training_runs.c.id)
    .where(
        training_runs.c.finished_at.is_(None),
        training_runs.c.status == literal(Status.QUEUED.value),
        not_(_IS_EXTERNAL),
        ~exists(
            select(true())
            .select_from(_QUEUE)
            .where(
                _QUEUE.c.entrypoint == literal(Job.TRAIN_RUN.value),
                _QUEUE.c.payload == func.uuid_send(training_runs.c.id),
            )
        ),
    )
    .limit(bindparam("limit", type_=BigInteger))
)
