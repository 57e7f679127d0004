"""Statements on the workers that are there."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert

from db.database import Session
from db.tables import workers


async def sign_of_life(session: Session, key: UUID, name: str, *, forget_after: float) -> None:
    made = upsert(workers).values(id=key, name=name)
    await session.run(
        made.on_conflict_do_update(index_elements=[workers.c.id], set_={"seen_at": func.clock_timestamp()})
    )
    await session.run(delete(workers).where(workers.c.seen_at < _ago(forget_after)))


async def sign_off(session: Session, key: UUID) -> None:
    await session.run(delete(workers).where(workers.c.id == key))


async def present(session: Session, *, within: float) -> int:
    """How many workers gave a sign of life within so many seconds."""
    count: int = await session.scalar(select(func.count()).select_from(workers).where(workers.c.seen_at > _ago(within)))
    return count


def _ago(seconds: float) -> object:
    return func.clock_timestamp() - literal(timedelta(seconds=seconds))
