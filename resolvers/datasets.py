"""Datasets: list, find, make, upload, watch, look inside."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import NamedTuple

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from dataloaders import loaders
from db import datasets as queries
from db.datasets import VersionRef
from db.ids import Kind, key_of
from db.paging import EMPTY, Page, PageArgs
from db.rows import Column, Dataset, DatasetVersion, Json, UploadSession
from db.vocabulary import DatasetFormat, DatasetVersionStatus, PreviewMode, UpdateKind
from domain import datasets, uploads
from domain.idempotency import made_before, recall, remember
from domain.refusals import ErrorCode, Invalid, Refused
from ml.formats import CsvOptions
from ml.preview import Preview, UnknownColumns
from ml.processes import ChildFailure
from resolvers.context import Context, Info
from resolvers.downloads import USUAL, Download, signed
from resolvers.inputs.datasets import (
    AbortUploadInput,
    ColumnFilter,
    CompleteUploadInput,
    CreateDatasetInput,
    CsvOptionsInput,
    DatasetFilter,
    DatasetOrder,
    DatasetOrderField,
    DatasetVersionFilter,
    DatasetVersionRef,
    DeleteDatasetInput,
    ReprocessDatasetVersionInput,
    RequestUploadPartsInput,
    SetDatasetAliasInput,
    StartUploadInput,
    UpdateColumnInput,
    UpdateDatasetInput,
)
from resolvers.inputs.limits import argument
from resolvers.paging import ordering, tags_of
from resolvers.streams import followed

LAST_UPDATED = DatasetOrder(field=DatasetOrderField.UPDATED_AT)
DEEPEST_FILTER = 8
PREVIEW_SECONDS = 20.0
_FINAL = (DatasetVersionStatus.READY, DatasetVersionStatus.FAILED)


class VersionUpdate(NamedTuple):
    cursor: str
    kind: UpdateKind
    dataset_version: DatasetVersion | None


# Lists


def dataset_args(
    filter: DatasetFilter | None = UNSET,
    order_by: DatasetOrder | None = LAST_UPDATED,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> PageArgs:
    _check_depth(filter, DEEPEST_FILTER)
    return PageArgs.of(first, after, last, before, filter=filter, order=ordering(order_by or LAST_UPDATED))


def version_args(
    filter: DatasetVersionFilter | None = UNSET,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> PageArgs:
    return PageArgs.of(first, after, last, before, filter=filter)


def column_args(filter: ColumnFilter | None = UNSET, first: int | None = UNSET, after: str | None = UNSET) -> PageArgs:
    return PageArgs.of(first, after, filter=filter)


def version_ref(by: DatasetVersionRef) -> VersionRef:
    return VersionRef(by.number, by.alias, by.digest)


async def all_datasets(
    info: Info,
    filter: DatasetFilter | None = UNSET,
    order_by: DatasetOrder | None = LAST_UPDATED,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[Dataset]:
    args = dataset_args(filter, order_by, first, after, last, before)
    if not info.context.sees(Permission.DATASET_READ):
        return EMPTY
    async with info.context.db.reading() as session:
        return await queries.listed(session, args)


def _check_depth(filter: DatasetFilter | None, left: int) -> None:
    if filter is None:
        return
    if left == 0:
        message = f"A filter nests `and`, `or` and `not` at most {DEEPEST_FILTER} deep."
        raise Refused(Invalid(code=ErrorCode.OUT_OF_RANGE, message=message, path=("filter",)))
    for part in (*(filter.and_ or ()), *(filter.or_ or ()), filter.not_):
        _check_depth(part, left - 1)


# One


async def dataset(info: Info, id: strawberry.ID) -> Dataset | None:
    key = key_of(id, Kind.DATASET)
    found: Dataset | None = await loaders.dataset.load(info.context, key) if key else None
    return found


async def dataset_version(info: Info, id: strawberry.ID) -> DatasetVersion | None:
    key = key_of(id, Kind.DATASET_VERSION)
    found: DatasetVersion | None = await loaders.dataset_version.load(info.context, key) if key else None
    return found


async def upload_session(info: Info, id: strawberry.ID) -> UploadSession | None:
    key = key_of(id, Kind.UPLOAD)
    found: UploadSession | None = await loaders.upload.load(info.context, key) if key else None
    return found


# What is inside


async def preview(
    root: DatasetVersion,
    info: Info,
    limit: argument(int | None, min=1, max=500) = 50,  # type: ignore[valid-type]
    mode: PreviewMode | None = PreviewMode.HEAD,
    columns: list[str] | None = UNSET,
) -> Preview | None:
    """Rows of a READY version, read by a child process straight from the store; None of any other.

    The store is asked first whether it is there: the child would wait for it for long.
    """
    if root.status != DatasetVersionStatus.READY or root.data_key is None:
        return None
    context: Context = info.context
    store = context.services.store
    await store.ping()
    try:
        found: Preview = await context.services.children.call(
            "ml.preview:preview_in_child",
            store.uri(root.data_key),
            store.storage_options(),
            str(mode or PreviewMode.HEAD),
            limit or 50,
            columns,
            timeout=PREVIEW_SECONDS,
        )
    except UnknownColumns as error:
        raise Refused(Invalid(message=str(error), path=("columns",))) from error
    except ChildFailure:
        await store.ping()
        raise
    return found


async def download(root: DatasetVersion, info: Info, expires_in: timedelta | None = USUAL) -> Download | None:
    """A link to the bytes as they were uploaded; None while they are not there."""
    if root.upload_key is None:
        return None
    format = DatasetFormat(root.format)
    return signed(
        info.context,
        root.upload_key,
        expires_in,
        file_name=root.source.get("uploaded_file_name") or f"data.{format.lower()}",
        content_type=uploads.CONTENT_TYPES[format],
        sha256=root.digest,
        size_bytes=root.size_bytes,
    )


async def completed_parts(root: UploadSession, info: Info) -> list[Json]:
    held = await uploads.held_parts(info.context.services.store, root)
    return [{"part_number": part.number, "etag": part.etag, "size_bytes": part.size_bytes} for part in held]


def progress(root: DatasetVersion) -> Json:
    finish = root.progress.get("estimated_finish_at")
    return root.progress | {"estimated_finish_at": finish and datetime.fromisoformat(finish)}


def csv_found(root: DatasetVersion) -> Json | None:
    return root.csv_found


# Changes


async def create_dataset(info: Info, input: CreateDatasetInput) -> Dataset:
    caller = info.context.caller
    async with info.context.db.transaction() as session:
        known = await recall(session, caller, "createDataset", input.idempotency_key, input)
        if known is not None:
            return made_before(await queries.by_ids(session, [known]), known)
        made = await datasets.create_dataset(
            session,
            caller,
            project_id=input.project_id,
            name=input.name,
            description=input.description,
            tags=tags_of(input.tags),
            tolerated_rejects=input.tolerated_rejects,
        )
        await remember(session, caller, "createDataset", input.idempotency_key, input, made.id)
        return made


async def update_dataset(info: Info, input: UpdateDatasetInput) -> Dataset:
    async with info.context.db.transaction() as session:
        return await datasets.update_dataset(
            session,
            info.context.caller,
            id=input.id,
            expected_revision=input.expected_revision,
            name=input.name,
            description=input.description,
            tolerated_rejects=input.tolerated_rejects,
        )


async def delete_dataset(info: Info, input: DeleteDatasetInput) -> Dataset:
    async with info.context.db.transaction() as session:
        return await datasets.delete_dataset(session, info.context.caller, id=input.id)


async def update_column(info: Info, input: UpdateColumnInput) -> Column:
    async with info.context.db.transaction() as session:
        return await datasets.update_column(
            session, info.context.caller, id=input.id, role=input.role, description=input.description
        )


async def reprocess_dataset_version(info: Info, input: ReprocessDatasetVersionInput) -> DatasetVersion:
    async with info.context.db.transaction() as session:
        return await datasets.reprocess_version(session, info.context.caller, id=input.id)


async def start_upload(info: Info, input: StartUploadInput) -> Json:
    store = info.context.services.store
    upload = await uploads.start(
        info.context.db,
        store,
        info.context.caller,
        dataset_id=input.dataset_id,
        file_name=input.file_name,
        size_bytes=input.size_bytes,
        format=input.format,
        sha256=input.sha256,
        part_size_bytes=input.part_size_bytes,
        csv=_csv(input.csv),
        note=input.note,
        idempotency_key=input.idempotency_key,
        request=input,
    )
    return {"upload": upload, "parts": uploads.targets(store, upload, uploads.first_parts(upload))}


async def request_upload_parts(info: Info, input: RequestUploadPartsInput) -> Json:
    async with info.context.db.reading() as session:
        upload = await uploads.open_upload(
            session, info.context.caller, upload_id=input.upload_id, part_numbers=input.part_numbers
        )
    return {"upload": upload, "parts": uploads.targets(info.context.services.store, upload, input.part_numbers)}


async def complete_upload(info: Info, input: CompleteUploadInput) -> Json:
    upload = await uploads.complete(
        info.context.db,
        info.context.services.store,
        info.context.caller,
        upload_id=input.upload_id,
        parts=[(part.part_number, part.etag) for part in input.parts],
        sha256=input.sha256,
    )
    return {"upload": upload, "dataset_version": await loaders.dataset_version.load(info.context, upload.version_id)}


async def abort_upload(info: Info, input: AbortUploadInput) -> UploadSession:
    return await uploads.abort(
        info.context.db, info.context.services.store, info.context.caller, upload_id=input.upload_id
    )


async def set_dataset_alias(info: Info, input: SetDatasetAliasInput) -> Dataset:
    async with info.context.db.transaction() as session:
        return await datasets.set_alias(
            session,
            info.context.caller,
            dataset_id=input.dataset_id,
            alias=input.alias,
            version_id=input.version_id,
        )


def _csv(given: CsvOptionsInput | None) -> CsvOptions | None:
    if given is None:
        return None
    return CsvOptions(
        delimiter=given.delimiter,
        quote=given.quote,
        has_header=given.has_header,
        encoding=given.encoding,
        null_values=tuple(given.null_values or ()),
    )


# Watching


async def dataset_version_updated(
    info: Info, id: strawberry.ID, after: str | None = UNSET
) -> AsyncIterator[VersionUpdate]:
    """The version as it is now, then as it changes, until it is READY, FAILED or gone.

    `after` leaves out what was seen.
    """
    updates = followed(
        info.context,
        id,
        what="dataset version",
        kind=Kind.DATASET_VERSION,
        reads=Permission.DATASET_READ,
        topic=queries.version_topic,
        read=queries.state_of,
        is_over=lambda version: version.status in _FINAL,
        after=after,
    )
    async with aclosing(updates):
        async for update in updates:
            yield VersionUpdate(*update)
