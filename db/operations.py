"""Queries on work that outlives the request: batch predictions, evaluations, and checks of uploaded models."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    LargeBinary,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    cast,
    exists,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table

from db.conditions import one_of
from db.database import Prepared, Session
from db.events import State, settled
from db.ids import new_id
from db.jobs import Job, enqueue
from db.paging import Order, Page, PageArgs, page
from db.rows import BatchPrediction, Json, columns
from db.sight import model_version_in_sight, version_in_sight
from db.tables import operations
from db.vocabulary import OperationKind, OperationStatus

NOW = func.clock_timestamp()
UNFINISHED = (OperationStatus.QUEUED, OperationStatus.RUNNING, OperationStatus.CANCELING)
JOBS: Mapping[str, Job] = {
    OperationKind.BATCH_PREDICTION: Job.PREDICT_BATCH,
    OperationKind.EVALUATION: Job.EXAMINE_MODEL,
    OperationKind.MODEL_CHECK: Job.EXAMINE_MODEL,
}


class Held(NamedTuple):
    """An operation as a worker holds it; `kept` is what earlier attempts have reached."""

    id: UUID
    project_id: UUID
    kind: str
    status: str
    model_version_id: UUID
    dataset_version_id: UUID | None
    output_dataset_id: UUID | None
    spec: Json
    kept: Json
    rows_scored: int
    rows_failed: int
    attempt: int
    lease: UUID | None
    created_by: UUID | None


class Ended(NamedTuple):
    """How an operation is going, or how it ended."""

    status: str
    failure: Json | None
    evaluation_id: UUID | None


_HELD = columns(Held, operations)
_BATCH = columns(BatchPrediction, operations)
_SEEN = and_(
    operations.c.kind == literal(OperationKind.BATCH_PREDICTION.value),
    model_version_in_sight(operations.c.model_version_id),
    version_in_sight(operations.c.dataset_version_id),
)
"""A batch prediction is seen by those who see both its model and the data it reads."""
_BATCHES_BY_IDS = Prepared(select(*_BATCH).where(operations.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))), _SEEN))
_LOCKED = Prepared(select(*_HELD).where(operations.c.id == bindparam("id"), _SEEN).with_for_update())
_ENDED = Prepared(select(*columns(Ended, operations)).where(operations.c.id == bindparam("id")))
_NEWEST_FIRST = Order.by("ID", operations.c.id, descending=True)


async def batches_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, BatchPrediction]:
    return {batch.id: batch for batch in await session.all(BatchPrediction, _BATCHES_BY_IDS, ids=list(ids))}


async def batches(session: Session, project_id: UUID | None, args: PageArgs) -> Page[BatchPrediction]:
    """The newest first, of one project or of all."""
    statement = select(*_BATCH).where(_SEEN)
    if project_id is not None:
        statement = statement.where(operations.c.project_id == literal(project_id, Uuid))
    return await page(session, BatchPrediction, statement, _NEWEST_FIRST, args)


async def state_of(session: Session, id: UUID) -> State[BatchPrediction] | None:
    """A batch prediction as its watchers are shown it."""
    found = select(operations.c.changed, settled(operations.c.changed).label("is_settled"), *_BATCH)
    for changed, is_settled, *rest in await session.records(found.where(operations.c.id == id, _SEEN)):
        return State(BatchPrediction._make(rest), changed, is_settled)
    return None


async def ended(session: Session, id: UUID) -> Ended | None:
    """How any operation is going; None when it is gone, with the model version or the data it was about."""
    return await session.first(Ended, _ENDED, id=id)


async def lock(session: Session, id: UUID) -> Held | None:
    """A batch prediction in sight, held by this transaction."""
    return await session.first(Held, _LOCKED, id=id)


async def ask(
    session: Session,
    *,
    kind: OperationKind,
    project_id: UUID,
    model_version_id: UUID,
    dataset_version_id: UUID | None,
    output_dataset_id: UUID | None = None,
    spec: Json,
    created_by: UUID,
) -> UUID:
    """A new operation, QUEUED, and the job that does it; its key."""
    id = new_id()
    await session.run(
        insert(operations).values(
            id=id,
            project_id=project_id,
            kind=kind,
            status=OperationStatus.QUEUED,
            progress={"phase": "queued", "fraction": 0},
            model_version_id=model_version_id,
            dataset_version_id=dataset_version_id,
            output_dataset_id=output_dataset_id,
            spec=spec,
            created_by=created_by,
        )
    )
    await enqueue(session, JOBS[kind], id, once=_job_name(id))
    return id


async def requeue_stranded(session: Session) -> int:
    """Give every operation that is not over a job, should it have none; how many had none."""
    stranded = await session.records(_WITHOUT_JOB)
    for id, kind in stranded:
        await enqueue(session, JOBS[kind], id, once=_job_name(id))
    return len(stranded)


_QUEUE = sql_table("pgqueuer", sql_column("entrypoint", Text), sql_column("payload", LargeBinary))
_WITHOUT_JOB = Prepared(
    select(operations.c.id, operations.c.kind).where(
        operations.c.finished_at.is_(None),
        ~exists(
            select(true())
            .select_from(_QUEUE)
            .where(
                _QUEUE.c.entrypoint == any_(literal(sorted({str(job) for job in JOBS.values()}), ARRAY(Text))),
                _QUEUE.c.payload == func.uuid_send(operations.c.id),
            )
        ),
    )
)


def _job_name(id: UUID) -> str:
    return f"operation:{id.hex}"


async def claim(session: Session, id: UUID, lease: UUID) -> Held | None:
    """Take an operation to work on it; earlier leases end. A lease that is taken again is the same attempt.

    None when the operation is over or gone.
    """
    another = operations.c.lease.is_distinct_from(literal(lease, Uuid))
    begun = case(
        (operations.c.status == literal(OperationStatus.QUEUED.value), literal(OperationStatus.RUNNING.value)),
        else_=operations.c.status,
    )
    mine = and_(operations.c.id == id, one_of(operations.c.status, UNFINISHED))
    return await _changed(
        session,
        mine,
        id,
        status=begun,
        lease=lease,
        attempt=operations.c.attempt + cast(another, Integer),
        started_at=func.coalesce(operations.c.started_at, func.clock_timestamp()),
    )


async def leased(session: Session, id: UUID, lease: UUID) -> Held | None:
    """The operation, held by this transaction; None when the lease is over."""
    mine = and_(operations.c.id == id, operations.c.lease == literal(lease, Uuid))
    return await session.first(Held, select(*_HELD).where(mine).with_for_update())


async def release(session: Session, id: UUID, lease: UUID) -> bool:
    """Give an operation back unfinished, as if it had not been tried; False without lease."""
    mine = and_(operations.c.id == id, operations.c.lease == literal(lease, Uuid))
    given_back = await _changed(session, mine, id, lease=None, attempt=operations.c.attempt - 1)
    return given_back is not None


async def change(session: Session, id: UUID, /, **values: Any) -> Held:
    """Write columns of an operation that the transaction holds, and wake those who watch it."""
    changed = await _changed(session, operations.c.id == id, id, **values)
    assert changed is not None
    return changed


async def check_of(session: Session, version_id: UUID) -> UUID | None:
    """The check of an uploaded model, by the version that it is to become."""
    mine = (operations.c.model_version_id == version_id, operations.c.kind == literal(OperationKind.MODEL_CHECK.value))
    found: UUID | None = await session.scalar(select(operations.c.id).where(*mine))
    return found


async def unfinished_like(
    session: Session, *, kind: OperationKind, model_version_id: UUID, dataset_version_id: UUID, spec: Json
) -> UUID | None:
    """An operation that is not over and does the same."""
    statement = (
        select(operations.c.id)
        .where(
            operations.c.kind == literal(kind.value),
            operations.c.model_version_id == model_version_id,
            operations.c.dataset_version_id == dataset_version_id,
            operations.c.spec == literal(spec, operations.c.spec.type),
            operations.c.finished_at.is_(None),
        )
        .limit(1)
    )
    found: UUID | None = await session.scalar(statement)
    return found


async def _changed(session: Session, mine: ColumnElement[bool], id: UUID, /, **values: Any) -> Held | None:
    statement = update(operations).where(mine).values(changed=func.pg_current_xact_id(), **values).returning(*_HELD)
    found = await session.first(Held, statement)
    if found is not None:
        session.topics.add(operation_topic(id))
    return found


def operation_topic(id: UUID) -> str:
    """Rings when the operation has changed."""
    return f"operation:{id.hex}"
