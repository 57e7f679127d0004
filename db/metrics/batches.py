"""Batches of points that came before, and what was answered to them."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Interval, Select, and_, func, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert

from db.database import Session
from db.forgetting import forgetting
from db.tables import metric_batches


async def begin(session: Session, project_id: UUID, batch_id: str) -> dict[str, Any] | None:
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


async def remember(session: Session, project_id: UUID, batch_id: str, answer: dict[str, Any]) -> None:
    await session.run(metric_batches.update().where(_is_batch(project_id, batch_id)).values(answer=answer))


async def forget_old(session: Session, *, limit: int) -> int:
    """Forget which batches have come, of those older than `BATCHES_KEPT_FOR`; how many."""
    return await session.run(_FORGET, limit=limit)


BATCHES_KEPT_FOR = timedelta(days=30)
_FORGET = forgetting(metric_batches, metric_batches.c.created_at <= func.now() - literal(BATCHES_KEPT_FOR, Interval))


def _is_batch(project_id: UUID, batch_id: str) -> ColumnElement[bool]:
    return and_(metric_batches.c.project_id == project_id, metric_batches.c.batch_id == batch_id)
