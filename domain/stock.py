"""Taking stock: objects that no row knows of, and rows whose objects are not there; both are put right on request."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from db import pointers, unowned
from db.database import Database
from db.pointers import Pointer
from db.vocabulary import EventType, FailureCode
from domain.uploads import sweep
from events.log import publish, system_actor
from storage.keys import run_prefix
from storage.objects import ObjectStore, OpenUpload

MAY_BE_NEW = timedelta(hours=1)
"""How long after an object was stored its row may still be written."""


@dataclass(frozen=True)
class Stock:
    """`missing` are rows without their object, `strays` objects and `stray_uploads` parts without a row; `awaited` is
    how many objects are on their way or are going to be swept, `objects` how many there are."""

    objects: int
    awaited: int
    missing: Sequence[Pointer]
    strays: Sequence[str]
    stray_uploads: Sequence[OpenUpload]

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.strays or self.stray_uploads)


async def check(db: Database, store: ObjectStore, *, may_be_new: timedelta = MAY_BE_NEW) -> Stock:
    """Hold the store against the database while both are in use: what comes or goes meanwhile is no finding.

    Rows are read before and after the objects: a row counts as missing its object when it was there both times, an
    object as a stray when it was there in neither. Raises `StoreUnavailable`.
    """
    async with db.reading() as session:
        before = await pointers.pointers(session)
        known = await pointers.awaited(session)
    objects = {item.key: item.modified_at async for item in store.list("")}
    uploads = [upload async for upload in store.open_uploads()]
    async with db.reading() as session:
        after = await pointers.pointers(session)
        known |= await pointers.awaited(session)
        at_work = tuple(f"{run_prefix(run_id)}/" for run_id in await pointers.unfinished_runs(session))
    owned = known | {pointer.key for pointer in before | after}
    old = datetime.now(UTC) - may_be_new
    return Stock(
        objects=len(objects),
        awaited=len(known),
        missing=sorted(pointer for pointer in before & after if pointer.key not in objects),
        strays=sorted(
            key
            for key, stored_at in objects.items()
            if key not in owned and stored_at <= old and not key.startswith(at_work)
        ),
        stray_uploads=[upload for upload in uploads if upload.key not in known and upload.started_at <= old],
    )


async def repair(db: Database, store: ObjectStore, stock: Stock) -> Sequence[Pointer]:
    """Put right what can be, and tell the rows that cannot: models, artifacts and checkpoints whose object is gone.

    Strays are swept. A version whose Parquet is gone is FAILED, and can be made again from its upload; one whose upload
    is gone forgets it. Raises `StoreUnavailable` with the rest left for the next time.
    """
    for upload in stock.stray_uploads:
        await store.abort_multipart(upload.key, upload.upload_id)
    async with db.transaction() as session:
        await unowned.let_go(session, list(stock.strays))
    left = len(stock.strays)
    while left > 0:
        await sweep(db, store)
        left -= unowned.AT_ONCE
    lost = []
    for pointer in stock.missing:
        match pointer.what:
            case "upload":
                async with db.transaction() as session:
                    await pointers.forget_upload(session, pointer.id, pointer.key)
            case "data":
                await _lose_data(db, pointer.id, pointer.key)
            case _:
                lost.append(pointer)
    return lost


async def _lose_data(db: Database, version_id: UUID, key: str) -> None:
    message = "The data of this version is not in the object store any more. Process it again, or upload it again."
    failure = {"code": FailureCode.STORAGE_UNAVAILABLE, "message": message, "retryable": True, "detail": None}
    async with db.transaction() as session:
        lost = await pointers.lose_data(session, version_id, key, failure)
        if lost is not None:
            await publish(
                session,
                EventType.DATASET_VERSION_FAILED,
                version_id,
                project_id=lost[1],
                actor=system_actor("storage-check"),
                changes={"status": ["READY", "FAILED"]},
            )
