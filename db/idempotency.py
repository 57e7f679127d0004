"""Queries on idempotency keys: what a caller's earlier call with the same key made."""

from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Text, Uuid, bindparam, cast, func, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert

from db.database import Prepared, Session
from db.forgetting import forgetting
from db.tables import idempotency_keys

KEPT = timedelta(hours=24)


class Remembered(NamedTuple):
    input_digest: bytes
    result_id: UUID | None


_MINE = (
    (idempotency_keys.c.user_id == bindparam("user_id"))
    & (idempotency_keys.c.mutation == bindparam("mutation"))
    & (idempotency_keys.c.key == bindparam("key"))
)
_EXPIRED = idempotency_keys.c.created_at < func.clock_timestamp() - literal(KEPT)
_LOCK = Prepared(
    select(
        func.pg_advisory_xact_lock(
            func.hashtextextended(
                cast(bindparam("user_id", type_=Uuid), Text)
                + bindparam("mutation", type_=Text)
                + literal(" ")
                + bindparam("key", type_=Text),
                0,
            )
        )
    )
)
_FIND = Prepared(select(idempotency_keys.c.input_digest, idempotency_keys.c.result_id).where(_MINE, ~_EXPIRED))
_FORGET = forgetting(idempotency_keys, _EXPIRED)


async def lock_and_find(session: Session, user_id: UUID, mutation: str, key: str) -> Remembered | None:
    """What an earlier call with this key made in the last 24 hours; others with the key wait until we have ended."""
    await session.run(_LOCK, user_id=user_id, mutation=mutation, key=key)
    return await session.first(Remembered, _FIND, user_id=user_id, mutation=mutation, key=key)


async def remember(
    session: Session, user_id: UUID, mutation: str, key: str, *, input_digest: bytes, result_id: UUID
) -> None:
    """Keep what this key made. The caller found none and holds its lock, so one that is there all the same is old."""
    given = {"input_digest": input_digest, "result_id": result_id}
    made = upsert(idempotency_keys).values(user_id=user_id, mutation=mutation, key=key, **given)
    own = (idempotency_keys.c.user_id, idempotency_keys.c.mutation, idempotency_keys.c.key)
    await session.run(
        made.on_conflict_do_update(index_elements=own, set_=given | {"created_at": func.clock_timestamp()})
    )


async def forget_old(session: Session, *, limit: int) -> int:
    """Delete keys older than a day, at most `limit`; how many."""
    return await session.run(_FORGET, limit=limit)
