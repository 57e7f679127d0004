"""Queries on predictions: kept for a day, so that whoever asked can come back to them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Double, Select, Uuid, any_, bindparam, func, literal, select, true
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects.postgresql import JSONB

from auth.permissions import Permission
from db.database import Prepared, Session
from db.forgetting import forgetting
from db.ids import new_id
from db.rows import Json, ModelTarget, Prediction, columns
from db.sight import in_sight, model_version_in_sight
from db.tables import model_aliases, model_versions, models, predictions
from db.vocabulary import ModelVersionStatus

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
_TARGET = (
    select(
        model_versions.c.id,
        model_versions.c.status,
        model_versions.c.model_key,
        model_versions.c.sha256,
        model_versions.c.manifest_key,
        model_versions.c.manifest_sha256,
    )
    .join(models, models.c.id == model_versions.c.model_id)
    .where(in_sight(Permission.MODEL_READ, models.c.project_id, models.c.id))
)
_BY_ID = _TARGET.where(model_versions.c.id == bindparam("version"))
_BY_ALIAS = _TARGET.join(model_aliases, model_aliases.c.version_id == model_versions.c.id).where(
    model_aliases.c.model_id == bindparam("model"), model_aliases.c.name == bindparam("alias")
)
_TARGET_BY_ID = Prepared(_BY_ID)
_TARGET_BY_ALIAS = Prepared(_BY_ALIAS)
_SOON_ON_DISK = select(func.set_config("synchronous_commit", "off", True).label("setting")).cte("soon_on_disk")


def _inserting(target: Select[Any]) -> Prepared:
    """Keeps a prediction if the target is still the version that was asked, ready and in sight."""
    found = target.subquery("found")
    row = (
        select(
            bindparam("id", type_=Uuid),
            found.c.id,
            bindparam("outputs", type_=JSONB),
            bindparam("latency", type_=Double),
            bindparam("user", type_=Uuid),
        )
        .join_from(found, _SOON_ON_DISK, true())
        .where(
            found.c.id == bindparam("asked", type_=Uuid),
            found.c.status == ModelVersionStatus.READY,
            found.c.sha256 == bindparam("sha256"),
            found.c.manifest_sha256 == bindparam("manifest_sha256"),
        )
    )
    kept = ["id", "model_version_id", "outputs", "latency_ms", "created_by"]
    return Prepared(insert_into(predictions).from_select(kept, row).returning(predictions.c.created_at))


_INSERT_BY_ID = _inserting(_BY_ID)
_INSERT_BY_ALIAS = _inserting(_BY_ALIAS)
_FORGET = forgetting(predictions, predictions.c.created_at <= func.now() - literal(KEPT_FOR))


class TargetRef(NamedTuple):
    """Which version is to predict: the one of this key, or the one that an alias of a model points at."""

    version_id: UUID | None = None
    model_id: UUID | None = None
    alias: str | None = None


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Prediction]:
    """Those of them that are not older than a day."""
    return {prediction.id: prediction for prediction in await session.all(Prediction, _BY_IDS, ids=list(ids))}


async def target(session: Session, ref: TargetRef) -> ModelTarget | None:
    """The version to predict with."""
    if ref.version_id is not None:
        return await session.first(ModelTarget, _TARGET_BY_ID, version=ref.version_id)
    return await session.first(ModelTarget, _TARGET_BY_ALIAS, model=ref.model_id, alias=ref.alias)


async def insert(
    session: Session,
    ref: TargetRef,
    scored: ModelTarget,
    *,
    outputs: list[Json],
    latency_ms: float,
    created_by: UUID,
) -> Prediction | None:
    """Keep a prediction, in one statement that does not wait for the disk: a crash may lose the last ones.

    None, and nothing is kept, when `ref` no longer leads the reader to the version that was `scored`, or it is not
    ready.
    """
    id = new_id()
    statement, given = (
        (_INSERT_BY_ALIAS, {"model": ref.model_id, "alias": ref.alias})
        if ref.version_id is None
        else (_INSERT_BY_ID, {"version": ref.version_id})
    )
    created_at = await session.scalar(
        statement,
        id=id,
        outputs=outputs,
        latency=latency_ms,
        user=created_by,
        asked=scored.version_id,
        sha256=scored.sha256,
        manifest_sha256=scored.manifest_sha256,
        **given,
    )
    return (
        None if created_at is None else Prediction(id, scored.version_id, outputs, latency_ms, created_at, created_by)
    )


async def forget_old(session: Session, *, limit: int) -> int:
    """Delete predictions older than a day, at most `limit`; how many."""
    return await session.run(_FORGET, limit=limit)
