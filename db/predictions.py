"""Queries on predictions: kept for a day, so that whoever asked can come back to them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, Double, Uuid, any_, bindparam, func, literal, select
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects.postgresql import JSONB

from db.database import Prepared, Session
from db.forgetting import forgetting
from db.ids import new_id
from db.rows import Json, Prediction, columns
from db.sight import model_version_in_sight
from db.tables import predictions

KEPT_FOR = timedelta(days=1)
_ROW = columns(Prediction, predictions)
_OLDEST = func.clock_timestamp() - literal(KEPT_FOR)
_BY_IDS = Prepared(
    select(*_ROW).where(
        predictions.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))),
        predictions.c.created_at > _OLDEST,
        model_version_in_sight(predictions.c.model_version_id),
    )
)
_SOON_ON_DISK = select(func.set_config("synchronous_commit", "off", True).label("setting")).cte("soon_on_disk")
_INSERT = Prepared(
    insert_into(predictions)
    .from_select(
        ["id", "model_version_id", "outputs", "latency_ms", "created_by"],
        select(
            bindparam("id", type_=Uuid),
            bindparam("version", type_=Uuid),
            bindparam("outputs", type_=JSONB),
            bindparam("latency", type_=Double),
            bindparam("user", type_=Uuid),
        ).select_from(_SOON_ON_DISK),
    )
    .returning(predictions.c.created_at)
)
_FORGET = forgetting(predictions, predictions.c.created_at <= func.now() - literal(KEPT_FOR))


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Prediction]:
    """Those of them that are not older than a day."""
    return {prediction.id: prediction for prediction in await session.all(Prediction, _BY_IDS, ids=list(ids))}


async def insert(
    session: Session, *, version_id: UUID, outputs: list[Json], latency_ms: float, created_by: UUID
) -> Prediction:
    """Keep a prediction, in one statement that does not wait for the disk: a crash may lose the last ones."""
    id = new_id()
    created_at = await session.scalar(
        _INSERT, id=id, version=version_id, outputs=outputs, latency=latency_ms, user=created_by
    )
    return Prediction(id, version_id, outputs, latency_ms, created_at, created_by)


async def forget_old(session: Session, *, limit: int) -> int:
    """Delete predictions older than a day, at most `limit`; how many."""
    return await session.run(_FORGET, limit=limit)
