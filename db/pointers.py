"""Queries on which objects the rows point at, and which are waited for or swept."""

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Text, delete, func, literal, select, union, union_all, update

from db.database import Prepared, Session
from db.datasets import version_topic
from db.rows import DatasetVersion, Json, columns
from db.tables import (
    artifacts,
    dataset_columns,
    dataset_versions,
    datasets,
    model_versions,
    training_runs,
    unowned_objects,
    upload_sessions,
)
from db.vocabulary import DatasetVersionStatus, UploadStatus


class Pointer(NamedTuple):
    """A row that says that there is an object at `key`; `what` it is for the row of that id."""

    what: str
    id: UUID
    key: str


_CHECKPOINT = training_runs.c.checkpoint["object_key"].astext
_POINTERS = Prepared(
    union_all(
        *(
            select(literal(what, Text).label("what"), id, key.label("key")).where(key.is_not(None))
            for what, id, key in (
                ("upload", dataset_versions.c.id, dataset_versions.c.upload_key),
                ("data", dataset_versions.c.id, dataset_versions.c.data_key),
                ("artifact", artifacts.c.id, artifacts.c.object_key),
                ("checkpoint", training_runs.c.id, _CHECKPOINT),
                ("model", model_versions.c.id, model_versions.c.model_key),
                ("manifest", model_versions.c.id, model_versions.c.manifest_key),
            )
        )
    )
)
_AWAITED = Prepared(
    union(
        select(unowned_objects.c.key),
        select(upload_sessions.c.object_key).where(upload_sessions.c.status == literal(UploadStatus.OPEN, Text)),
    )
)
_UNFINISHED = Prepared(select(training_runs.c.id).where(training_runs.c.finished_at.is_(None)))


async def pointers(session: Session) -> set[Pointer]:
    return {Pointer._make(record) for record in await session.records(_POINTERS)}


async def awaited(session: Session) -> set[str]:
    """Where an object may come to be, or is to be deleted: open uploads, work that is going on, what is to be swept."""
    return {key for (key,) in await session.records(_AWAITED)}


async def unfinished_runs(session: Session) -> set[UUID]:
    """Runs whose workers may have stored what they have not told yet."""
    return {id for (id,) in await session.records(_UNFINISHED)}


async def forget_upload(session: Session, version_id: UUID, key: str) -> None:
    """The uploaded bytes of a version are gone."""
    mine = (dataset_versions.c.id == version_id, dataset_versions.c.upload_key == key)
    await session.run(update(dataset_versions).where(*mine).values(upload_key=None))


async def lose_data(session: Session, version_id: UUID, key: str, failure: Json) -> tuple[DatasetVersion, UUID] | None:
    """READY becomes FAILED, without columns, since its Parquet is gone; with the project. None in another state."""
    statement = (
        update(dataset_versions)
        .where(
            dataset_versions.c.id == version_id,
            dataset_versions.c.data_key == key,
            dataset_versions.c.status == literal(DatasetVersionStatus.READY, Text),
            datasets.c.id == dataset_versions.c.dataset_id,
        )
        .values(
            status=DatasetVersionStatus.FAILED,
            failure=failure,
            data_key=None,
            row_count=None,
            column_count=None,
            changed=func.pg_current_xact_id(),
        )
        .returning(datasets.c.project_id, *columns(DatasetVersion, dataset_versions))
    )
    for project_id, *rest in await session.records(statement):
        await session.run(delete(dataset_columns).where(dataset_columns.c.version_id == version_id))
        session.topics.add(version_topic(version_id))
        return DatasetVersion._make(rest), project_id
    return None
