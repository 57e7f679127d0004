"""Uploads: a file becomes a dataset version in parts that go from its owner straight to the store.

    start → (the client sends the parts) → complete → a worker processes the version
                                         → abort, or nothing for a day: the version is FAILED

The store and the database cannot change together, so each step is made in an order that a crash leaves repeatable:
parts are joined before the record says that the object is there, and completing again goes on where it stopped.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from auth.principals import Principal
from db import datasets, unowned, uploads
from db.database import Database, Session
from db.ids import Kind, key_of, new_id
from db.jobs import Job, enqueue
from db.rows import DatasetVersion, Json, UploadSession
from db.vocabulary import (
    DatasetFormat,
    DatasetSourceKind,
    EventType,
    FailureCode,
    UploadStatus,
)
from domain.idempotency import made_before, recall, remember
from domain.refusals import ErrorCode, Invalid, InvalidState, Refusal, Refused, not_found
from domain.texts import checked_text, storable
from events.log import publish, system_actor, user_actor
from ml.formats import CsvOptions, InvalidData
from storage.keys import upload_key
from storage.objects import MIB, MOST_PARTS, ObjectStore, Part, PartMismatch, StoreUnavailable, UploadMissing, same_etag

LIFETIME = timedelta(hours=24)
URL_LIFETIME = timedelta(hours=6)
MAY_STILL_BE_JOINED = timedelta(hours=1)
"""How long after the end of an upload its object may still come to be; whatever is there then is swept."""
FIRST_PARTS = 100
SMALLEST_PART = 5 * MIB
USUAL_PARTS = (8 * MIB, 64 * MIB)
LARGEST_PART = 5 * 1024 * MIB
LARGEST_FILE = 1024 * 1024 * MIB
MAX_FILE_NAME = 255
_NAMED = 20

CONTENT_TYPES = {
    DatasetFormat.CSV: "text/csv",
    DatasetFormat.PARQUET: "application/vnd.apache.parquet",
    DatasetFormat.ARROW: "application/vnd.apache.arrow.file",
    DatasetFormat.JSONL: "application/x-ndjson",
}


@dataclass(frozen=True, slots=True)
class PartTarget:
    """Where to send one part: whoever holds it may, until it expires."""

    part_number: int
    method: str
    url: str
    headers: list[Json]
    expires_at: datetime


async def start(
    db: Database,
    store: ObjectStore,
    actor: Principal,
    *,
    dataset_id: str,
    file_name: str,
    size_bytes: int,
    format: DatasetFormat,
    sha256: str | None,
    part_size_bytes: int | None,
    csv: CsvOptions | None,
    note: str | None,
    idempotency_key: str | None,
    request: object,
) -> UploadSession:
    """Open an upload, and the dataset version that it will become.

    Raises `Refused` when there is no such dataset, or the file cannot be taken as it is described; `StoreUnavailable`
    with nothing written.
    """
    part_size = _checked_file(file_name, size_bytes, format, part_size_bytes, csv)
    checked_text(note, "input", "note")
    async with db.transaction() as session:
        known = await recall(session, actor, "startUpload", idempotency_key, request)
        if known is not None:
            return made_before(await uploads.by_ids(session, [known]), known)
        key = key_of(dataset_id, Kind.DATASET)
        if key is None or key not in await datasets.by_ids(session, [key]):
            raise Refused(not_found("dataset", dataset_id, "input", "datasetId"))

    version_id, upload_id = new_id(), new_id()
    object_key = upload_key(key, version_id)
    storage_upload_id = await store.start_multipart(object_key, CONTENT_TYPES[format])
    opened: UploadSession | None = None
    try:
        async with db.transaction() as session:
            known = await recall(session, actor, "startUpload", idempotency_key, request)
            if known is not None:
                return made_before(await uploads.by_ids(session, [known]), known)
            dataset = await datasets.lock(session, key, revised=False)
            if dataset is None:
                raise Refused(not_found("dataset", dataset_id, "input", "datasetId"))
            version = await datasets.insert_version(
                session,
                id=version_id,
                dataset_id=key,
                format=format,
                csv_options=csv_json(csv),
                source={"kind": DatasetSourceKind.UPLOAD, "uploaded_file_name": file_name},
                note=note,
                created_by=actor.user_id,
            )
            made = await uploads.insert_open(
                session,
                id=upload_id,
                dataset_id=key,
                version_id=version.id,
                file_name=file_name,
                size_bytes=size_bytes,
                part_size_bytes=part_size,
                part_count=max(1, -(-size_bytes // part_size)),
                storage_upload_id=storage_upload_id,
                object_key=object_key,
                sha256=sha256,
                lifetime=LIFETIME,
                created_by=actor.user_id,
            )
            await unowned.let_go(session, [object_key], after=LIFETIME + MAY_STILL_BE_JOINED)
            await publish(
                session,
                EventType.DATASET_VERSION_CREATED,
                version.id,
                project_id=dataset.project_id,
                actor=user_actor(actor.user_id),
            )
            await remember(session, actor, "startUpload", idempotency_key, request, made.id)
        opened = made
        return opened
    finally:
        if opened is None:
            with suppress(StoreUnavailable):
                await store.abort_multipart(object_key, storage_upload_id)


def targets(store: ObjectStore, upload: UploadSession, numbers: Sequence[int]) -> list[PartTarget]:
    """Where to send these parts; signing asks nothing of the store."""
    signed = [
        (number, store.sign_part(upload.object_key, upload.storage_upload_id, number, URL_LIFETIME))
        for number in numbers
    ]
    return [
        PartTarget(
            number,
            request.method,
            request.url,
            [{"name": name, "value": value} for name, value in request.headers],
            request.expires_at,
        )
        for number, request in signed
    ]


def first_parts(upload: UploadSession) -> range:
    """The parts whose targets come with a new upload; none when it is over."""
    return range(1, min(upload.part_count, FIRST_PARTS) + 1) if upload.status == UploadStatus.OPEN else range(0)


async def open_upload(
    session: Session, actor: Principal, *, upload_id: str, part_numbers: Sequence[int]
) -> UploadSession:
    """The upload, if these parts can be sent to it. Raises `Refused`."""
    upload = await _visible(session, actor, upload_id)
    if upload.status != UploadStatus.OPEN:
        raise Refused(_over(upload, "send parts"))
    wrong = [
        Invalid(
            code=ErrorCode.OUT_OF_RANGE,
            message=f"The parts of this upload are numbered from 1 to {upload.part_count}.",
            path=("input", "partNumbers", str(place)),
            allowed={"min": 1, "max": upload.part_count},
        )
        for place, number in enumerate(part_numbers)
        if not 1 <= number <= upload.part_count
    ]
    if wrong:
        raise Refused(*wrong[:_NAMED])
    return upload


async def complete(
    db: Database,
    store: ObjectStore,
    actor: Principal,
    *,
    upload_id: str,
    parts: Sequence[tuple[int, str]],
    sha256: str | None,
) -> UploadSession:
    """Join the parts and ask for the version to be processed; repeated, it answers the same and does nothing.

    Raises `Refused`: UPLOAD_INCOMPLETE naming the parts that are missing, CHECKSUM_MISMATCH when an ETag or a SHA-256
    is not the one known here, INVALID when a part has another size than it has to; then the upload stays open.
    """
    async with db.reading() as session:
        upload = await _visible(session, actor, upload_id)
    if upload.status == UploadStatus.COMPLETED:
        return upload
    if upload.status != UploadStatus.OPEN:
        raise Refused(_over(upload, "complete it"))
    if sha256 is not None and upload.sha256 not in (None, sha256):
        raise Refused(
            _mismatch(f"The upload was started for a file with the SHA-256 {upload.sha256}.", "input", "sha256")
        )
    _check_list(upload, parts)
    await _join(store, upload, parts)
    try:
        async with db.transaction() as session:
            locked = await uploads.lock(session, upload.id)
            if locked is not None and locked.status == UploadStatus.COMPLETED:
                return locked
            processing = await datasets.uploaded(
                session, upload.version_id, upload_key=upload.object_key, size_bytes=upload.size_bytes
            )
            if locked is None or processing is None:
                raise Refused(_over(locked or upload, "complete it"))
            upload = await uploads.close(session, upload.id, UploadStatus.COMPLETED, sha256=sha256)
            await unowned.forget(session, [upload.object_key])
            await ask_for_processing(session, upload.version_id)
    except Refused:
        async with db.transaction() as session:
            await unowned.let_go(session, [upload.object_key])
        raise
    return upload


async def ask_for_processing(session: Session, version_id: UUID) -> None:
    """A job for a version that is PROCESSING, unless there is one."""
    await enqueue(session, Job.PROCESS_VERSION, version_id, once=f"version:{version_id.hex}")


async def abort(db: Database, store: ObjectStore, actor: Principal, *, upload_id: str) -> UploadSession:
    """Give up an upload: its parts are thrown away, its version is FAILED; repeated, it does nothing.

    Raises `Refused` when the upload is complete; `StoreUnavailable` with nothing written.
    """
    async with db.reading() as session:
        upload = await _visible(session, actor, upload_id)
    if upload.status == UploadStatus.ABORTED:
        return upload
    if upload.status == UploadStatus.COMPLETED:
        raise Refused(_over(upload, "abort it"))
    return await _end(
        db, store, upload, UploadStatus.ABORTED, "The upload was aborted.", actor=user_actor(actor.user_id)
    )


async def expire(db: Database, store: ObjectStore) -> None:
    """End the uploads that were not completed in time; raises `StoreUnavailable` with the rest left for later."""
    async with db.reading() as session:
        overdue = await uploads.overdue(session)
    for upload in overdue:
        with suppress(Refused):  # completed meanwhile
            await _end(
                db,
                store,
                upload,
                UploadStatus.EXPIRED,
                "The upload was not completed in time.",
                actor=system_actor("worker"),
            )


async def _end(
    db: Database, store: ObjectStore, upload: UploadSession, status: UploadStatus, why: str, *, actor: str
) -> UploadSession:
    """Throw the parts away, and the version with them. Raises `Refused` when the upload is complete by now."""
    await store.abort_multipart(upload.object_key, upload.storage_upload_id)
    async with db.transaction() as session:
        dataset = await datasets.lock(session, upload.dataset_id, revised=False)
        locked = await uploads.lock(session, upload.id)
        if dataset is None or locked is None or locked.status == UploadStatus.COMPLETED:
            raise Refused(_over(locked or upload, "end it"))
        ended = await uploads.close(session, upload.id, status, sha256=None)
        failure = {"code": FailureCode.CANCELED, "message": why, "retryable": False}
        if await datasets.upload_ended(session, upload.version_id, failure) is not None:
            await publish(
                session,
                EventType.DATASET_VERSION_FAILED,
                upload.version_id,
                project_id=dataset.project_id,
                actor=actor,
            )
        await unowned.let_go(session, [upload.object_key])
    return ended


async def sweep(db: Database, store: ObjectStore) -> None:
    """Delete the objects that no row points at any more; raises `StoreUnavailable` with the rest left for later.

    A key is forgotten only after the store has let go of it, so a crash in between means that it is asked again.
    """
    async with db.reading() as session:
        keys = await unowned.due(session)
    for key in keys:
        if key.endswith("/"):
            await store.delete([found.key async for found in store.list(key)])
        else:
            await store.remove(key)
        async with db.transaction() as session:
            await unowned.forget(session, [key])


async def held_parts(store: ObjectStore, upload: UploadSession) -> Sequence[Part]:
    """What the store holds of an open upload, by part number; nothing once it is over."""
    if upload.status != UploadStatus.OPEN:
        return ()
    try:
        return await store.list_parts(upload.object_key, upload.storage_upload_id)
    except UploadMissing:
        return ()


async def version_of(session: Session, upload: UploadSession) -> DatasetVersion:
    return (await datasets.versions_by_ids(session, [upload.version_id]))[upload.version_id]


async def _visible(session: Session, actor: Principal, upload_id: str) -> UploadSession:
    key = key_of(upload_id, Kind.UPLOAD)
    found = (await uploads.by_ids(session, [key])).get(key) if key is not None else None
    if found is None:
        raise Refused(not_found("upload", upload_id, "input", "uploadId"))
    return found


def _checked_file(
    file_name: str, size_bytes: int, format: DatasetFormat, part_size_bytes: int | None, csv: CsvOptions | None
) -> int:
    """The size of a part for such a file. Raises `Refused` with everything that is wrong with it."""
    checked_text(file_name, "input", "fileName", max_length=MAX_FILE_NAME)
    refusals: list[Refusal] = []
    if any(character in "/\\" or not character.isprintable() for character in file_name):
        message = "A file name has no slashes and no control characters: give the last part of the path only."
        refusals.append(Invalid(message=message, path=("input", "fileName")))
    if not 0 <= size_bytes <= LARGEST_FILE:
        refusals.append(
            Invalid(
                code=ErrorCode.OUT_OF_RANGE,
                message=f"A file has from 0 to {LARGEST_FILE} bytes.",
                path=("input", "sizeBytes"),
                allowed={"min": 0, "max": LARGEST_FILE},
            )
        )
    if csv is not None:
        refusals += _wrong_options(format, csv)
    fewest = max(SMALLEST_PART, -(-size_bytes // MOST_PARTS))
    if part_size_bytes is not None and not fewest <= part_size_bytes <= LARGEST_PART:
        refusals.append(
            Invalid(
                code=ErrorCode.OUT_OF_RANGE,
                message=f"The parts of this file have from {fewest} to {LARGEST_PART} bytes.",
                path=("input", "partSizeBytes"),
                allowed={"min": fewest, "max": LARGEST_PART},
            )
        )
    if refusals:
        raise Refused(*refusals)
    return part_size_bytes or usual_part_size(size_bytes)


def usual_part_size(size_bytes: int) -> int:
    """Bytes a part: whole MiB, from 8 to 64 as long as 10,000 parts are enough, and about a thousand parts."""
    smallest, largest = USUAL_PARTS
    wanted = min(max(-(-size_bytes // 1000), smallest), largest)
    return -(-max(wanted, -(-size_bytes // MOST_PARTS)) // MIB) * MIB


def _wrong_options(format: DatasetFormat, csv: CsvOptions) -> list[Refusal]:
    if format is not DatasetFormat.CSV:
        return [Invalid(message=f"A {format} file has no CSV options.", path=("input", "csv"))]
    if not all(storable(text) for text in (csv.delimiter, csv.quote, csv.encoding, *csv.null_values)):
        return [Invalid(message="A CSV option holds a character that no file can have.", path=("input", "csv"))]
    try:
        csv.check()
    except InvalidData as error:
        return [Invalid(message=error.message, path=("input", "csv"))]
    return []


def csv_json(csv: CsvOptions | None) -> Json | None:
    """As it is kept."""
    if csv is None:
        return None
    return {
        "delimiter": csv.delimiter,
        "quote": csv.quote,
        "has_header": csv.has_header,
        "encoding": csv.encoding,
        "null_values": list(csv.null_values),
    }


def _check_list(upload: UploadSession, parts: Sequence[tuple[int, str]]) -> None:
    """Raises `Refused` unless the caller names every part of the upload once."""
    refusals: list[Refusal] = []
    seen: set[int] = set()
    for place, (number, _) in enumerate(parts):
        if not 1 <= number <= upload.part_count or number in seen:
            why = "is named twice" if number in seen else f"does not exist: they are 1 to {upload.part_count}"
            refusals.append(Invalid(message=f"Part {number} {why}.", path=("input", "parts", str(place), "partNumber")))
        seen.add(number)
    missing = [number for number in range(1, upload.part_count + 1) if number not in seen]
    if missing:
        refusals.append(_incomplete(missing, "named"))
    if refusals:
        raise Refused(*refusals[:_NAMED])


async def _join(store: ObjectStore, upload: UploadSession, parts: Sequence[tuple[int, str]]) -> None:
    """Make one object of the parts. Raises `Refused` when the store holds others than the caller means."""
    try:
        held = {part.number: part for part in await store.list_parts(upload.object_key, upload.storage_upload_id)}
    except UploadMissing:
        pass  # joined by an earlier call that did not get to the end: complete_multipart compares the object
    else:
        missing = [number for number in range(1, upload.part_count + 1) if number not in held]
        if missing:
            raise Refused(_incomplete(missing, "in the store"))
        wrong = _wrong_sizes(upload, held, parts)
        if wrong:
            raise Refused(*wrong[:_NAMED])
    try:
        await store.complete_multipart(upload.object_key, upload.storage_upload_id, parts)
    except PartMismatch as error:
        message = f"{str(error).capitalize()}. Send that part again, and complete with the ETag the store answers."
        raise Refused(_mismatch(message, "input", "parts")) from error
    except UploadMissing as error:
        raise Refused(
            InvalidState(
                message="The store has thrown the parts of this upload away. Start a new one.",
                path=("input", "uploadId"),
                current_state=UploadStatus.EXPIRED,
                allowed_states=[UploadStatus.OPEN],
            )
        ) from error


def _wrong_sizes(upload: UploadSession, held: dict[int, Part], parts: Sequence[tuple[int, str]]) -> list[Refusal]:
    """Parts of another size than they have to have; those that were sent again meanwhile are left to the ETag."""
    wrong: list[Refusal] = []
    for place, (number, etag) in enumerate(parts):
        due = min(upload.part_size_bytes, upload.size_bytes - (number - 1) * upload.part_size_bytes)
        part = held[number]
        if part.size_bytes != due and same_etag(part.etag, etag):
            message = f"Part {number} has {part.size_bytes} bytes; it has to have {due}. Send it again."
            wrong.append(Invalid(message=message, path=("input", "parts", str(place)), allowed={"sizeBytes": due}))
    return wrong


def _incomplete(missing: Sequence[int], where: str) -> Invalid:
    shown = ", ".join(map(str, missing[:_NAMED])) + (f" and {len(missing) - _NAMED} more" if missing[_NAMED:] else "")
    return Invalid(
        code=ErrorCode.UPLOAD_INCOMPLETE,
        message=f"Not all parts are {where}: {shown}.",
        path=("input", "parts"),
        allowed={"missingPartNumbers": list(missing[:1000])},
    )


def _mismatch(message: str, *path: str) -> Invalid:
    return Invalid(code=ErrorCode.CHECKSUM_MISMATCH, message=message, path=path)


def _over(upload: UploadSession, wanted: str) -> InvalidState:
    return InvalidState(
        message=f"This upload is {upload.status}: it is too late to {wanted}.",
        path=("input", "uploadId"),
        current_state=upload.status,
        allowed_states=[UploadStatus.OPEN],
    )
