"""Queries on upload sessions: the parts of a file on their way to the store."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Text, Uuid, any_, bindparam, case, func, insert, literal, select, update

from db.database import Prepared, Session
from db.paging import Order, Page, PageArgs, pages
from db.rows import UploadSession, columns
from db.sight import dataset_in_sight
from db.tables import upload_sessions
from db.vocabulary import UploadStatus

_OVER = upload_sessions.c.expires_at <= func.clock_timestamp()
_STATUS = case(
    (upload_sessions.c.status == UploadStatus.OPEN, case((_OVER, UploadStatus.EXPIRED), else_=UploadStatus.OPEN)),
    else_=upload_sessions.c.status,
).label("status")
_ROW: list[ColumnElement[Any]] = [
    _STATUS if column.name == "status" else column for column in columns(UploadSession, upload_sessions)
]
_IN_SIGHT = dataset_in_sight(upload_sessions.c.dataset_id)
_BY_IDS = Prepared(select(*_ROW).where(upload_sessions.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))), _IN_SIGHT))
_LOCKED = Prepared(select(*_ROW).where(upload_sessions.c.id == bindparam("id"), _IN_SIGHT).with_for_update())
_NEWEST_FIRST = Order.by("CREATED_AT", upload_sessions.c.created_at, upload_sessions.c.id, descending=True)


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, UploadSession]:
    """An upload that is open past its time reads as EXPIRED."""
    return {upload.id: upload for upload in await session.all(UploadSession, _BY_IDS, ids=list(ids))}


async def of_datasets(
    session: Session, dataset_ids: Sequence[UUID], args: PageArgs
) -> Mapping[UUID, Page[UploadSession]]:
    """Newest first."""
    return await pages(
        session, UploadSession, select(*_ROW), upload_sessions.c.dataset_id, dataset_ids, _NEWEST_FIRST, args
    )


async def object_keys(session: Session, dataset_id: UUID) -> set[str]:
    """Where the parts of the dataset's uploads are, or were joined."""
    statement = select(upload_sessions.c.object_key).where(upload_sessions.c.dataset_id == dataset_id)
    return {key for (key,) in await session.records(statement)}


async def lock(session: Session, upload_id: UUID) -> UploadSession | None:
    """The upload, held until the transaction ends."""
    return await session.first(UploadSession, _LOCKED, id=upload_id)


async def overdue(session: Session, *, limit: int = 20) -> list[UploadSession]:
    """Uploads that nobody completed in time, the oldest first."""
    statement = (
        select(*_ROW)
        .where(upload_sessions.c.status == literal(UploadStatus.OPEN, Text), _OVER)
        .order_by(upload_sessions.c.expires_at)
        .limit(limit)
    )
    return await session.all(UploadSession, statement)


async def insert_open(
    session: Session,
    *,
    id: UUID,
    dataset_id: UUID,
    version_id: UUID,
    file_name: str,
    size_bytes: int,
    part_size_bytes: int,
    part_count: int,
    storage_upload_id: str,
    object_key: str,
    sha256: str | None,
    lifetime: timedelta,
    created_by: UUID,
) -> UploadSession:
    statement = (
        insert(upload_sessions)
        .values(
            id=id,
            dataset_id=dataset_id,
            version_id=version_id,
            file_name=file_name,
            size_bytes=size_bytes,
            part_size_bytes=part_size_bytes,
            part_count=part_count,
            status=UploadStatus.OPEN,
            storage_upload_id=storage_upload_id,
            object_key=object_key,
            sha256=sha256,
            expires_at=func.clock_timestamp() + literal(lifetime),
            created_by=created_by,
        )
        .returning(*_ROW)
    )
    made = await session.first(UploadSession, statement)
    assert made is not None
    return made


async def close(session: Session, upload_id: UUID, status: UploadStatus, *, sha256: str | None) -> UploadSession:
    """The upload is over; a SHA-256 that came with its end is kept."""
    statement = (
        update(upload_sessions)
        .where(upload_sessions.c.id == upload_id)
        .values(
            status=literal(status, Text),
            sha256=func.coalesce(upload_sessions.c.sha256, literal(sha256, Text)),
        )
        .returning(*_ROW)
    )
    closed = await session.first(UploadSession, statement)
    assert closed is not None
    return closed
