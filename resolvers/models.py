"""Models: list, find, make, version, promote."""

import time
from datetime import datetime, timedelta
from typing import Any

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from dataloaders import loaders
from db import models as queries
from db.ids import Kind, key_of
from db.models import VersionRef
from db.operations import check_of, operation_topic
from db.paging import EMPTY, Page, PageArgs
from db.rows import Evaluation, Model, ModelVersion
from db.vocabulary import ImportanceKind, ModelVersionStatus
from domain import evaluations, models
from domain.refusals import Refused
from resolvers.context import Context, Info
from resolvers.downloads import USUAL, Download, signed
from resolvers.inputs.limits import argument
from resolvers.inputs.models import (
    CreateModelInput,
    CreateModelVersionInput,
    DeleteModelInput,
    DeleteModelVersionInput,
    EvaluateModelVersionInput,
    ModelFilter,
    ModelOrder,
    ModelOrderField,
    ModelVersionFilter,
    ModelVersionOrder,
    ModelVersionOrderField,
    ModelVersionRef,
    RemoveModelAliasInput,
    SetModelAliasInput,
    UpdateModelInput,
    UpdateModelVersionInput,
)
from resolvers.paging import ordering, tags_of

CHECK_SECONDS = 10.0
"""How long the answer to an uploaded model waits for a worker to have looked at it."""
NEWEST_FIRST = ModelOrder(field=ModelOrderField.UPDATED_AT)
BY_NUMBER = ModelVersionOrder(field=ModelVersionOrderField.NUMBER)


def model_args(
    filter: ModelFilter | None = UNSET,
    order_by: ModelOrder | None = NEWEST_FIRST,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> PageArgs:
    return PageArgs.of(first, after, last, before, filter=filter, order=ordering(order_by or NEWEST_FIRST))


def version_args(
    filter: ModelVersionFilter | None = UNSET,
    order_by: ModelVersionOrder | None = BY_NUMBER,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> PageArgs:
    order = order_by or BY_NUMBER
    return PageArgs.of(first, after, last, before, filter=filter, order=(*ordering(order), order.metric or None))


def version_ref(by: ModelVersionRef) -> VersionRef:
    if by.id is not None:
        return VersionRef(id=key_of(by.id, Kind.MODEL_VERSION))
    return VersionRef(number=by.number, alias=by.alias)


def alias_moment(alias: str, at: datetime) -> tuple[str, datetime]:
    return alias, at


def history_args(alias: str | None = UNSET, first: int | None = UNSET, after: str | None = UNSET) -> PageArgs:
    return PageArgs.of(first, after, filter=alias)


def importance_args(
    kind: ImportanceKind | None = ImportanceKind.GAIN,
    top: argument(int | None, min=1, max=1000) = 50,  # type: ignore[valid-type]
) -> tuple[ImportanceKind, int]:
    return kind or ImportanceKind.GAIN, top or 50


def baseline_alias(alias: str) -> str:
    return alias


async def all_models(
    info: Info,
    filter: ModelFilter | None = UNSET,
    order_by: ModelOrder | None = NEWEST_FIRST,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[Model]:
    args = model_args(filter, order_by, first, after, last, before)
    if not info.context.sees(Permission.MODEL_READ):
        return EMPTY
    async with info.context.db.reading() as session:
        return await queries.listed(session, args)


async def model(info: Info, id: strawberry.ID) -> Model | None:
    key = key_of(id, Kind.MODEL)
    found: Model | None = await loaders.model.load(info.context, key) if key else None
    return found


async def model_version(info: Info, id: strawberry.ID) -> ModelVersion | None:
    key = key_of(id, Kind.MODEL_VERSION)
    found: ModelVersion | None = await loaders.model_version.load(info.context, key) if key else None
    return found


def metrics_of(root: Evaluation) -> list[dict[str, Any]]:
    """The metrics of an evaluation, each with what its baseline is found by."""
    return [{**metric, "key": (root.id, metric["name"])} for metric in root.metrics]


async def download(root: ModelVersion, info: Info, expires_in: timedelta | None = USUAL) -> Download | None:
    """A link to the model's text; None of an upload that is not known to be a model."""
    if root.sha256 is None:
        return None
    return signed(
        info.context,
        root.model_key,
        expires_in,
        file_name="model.txt",
        content_type="text/plain",
        sha256=root.sha256,
        size_bytes=root.size_bytes,
    )


async def create_model(info: Info, input: CreateModelInput) -> Model:
    async with info.context.db.transaction() as session:
        return await models.create_model(
            session,
            info.context.caller,
            project_id=input.project_id,
            name=input.name,
            description=input.description,
            task=input.task,
            tags=tags_of(input.tags),
        )


async def update_model(info: Info, input: UpdateModelInput) -> Model:
    async with info.context.db.transaction() as session:
        return await models.update_model(
            session,
            info.context.caller,
            id=input.id,
            expected_revision=input.expected_revision,
            name=input.name,
            description=input.description,
        )


async def delete_model(info: Info, input: DeleteModelInput) -> Model:
    async with info.context.db.transaction() as session:
        return await models.delete_model(session, info.context.caller, id=input.id)


async def create_model_version(info: Info, input: CreateModelVersionInput) -> ModelVersion:
    async with info.context.db.transaction() as session:
        version = await models.create_version(
            session,
            info.context.caller,
            model_id=input.model_id,
            run_id=input.from_.run_id,
            upload_id=input.from_.upload_id,
            copy_of_version_id=input.from_.copy_of_version_id,
            description=input.description,
            tags=tags_of(input.tags),
            idempotency_key=input.idempotency_key,
        )
    return await _looked_at(info.context, version) if version.status == ModelVersionStatus.PENDING else version


async def _looked_at(context: Context, version: ModelVersion) -> ModelVersion:
    """The version once a worker has looked at its file, or after a few seconds as it is then."""
    deadline = time.monotonic() + CHECK_SECONDS
    async with context.db.reading() as session:
        check = await check_of(session, version.id)
    if check is None:
        return version
    with context.services.wakeups.watching(operation_topic(check)) as bell:
        while True:
            async with context.db.reading() as session:
                now = (await queries.versions_by_ids(session, [version.id])).get(version.id, version)
            left = deadline - time.monotonic()
            if now.status != ModelVersionStatus.PENDING or left <= 0:
                return now
            await bell.wait(min(left, context.services.wakeups.patience))


async def update_model_version(info: Info, input: UpdateModelVersionInput) -> ModelVersion:
    async with info.context.db.transaction() as session:
        return await models.update_version(
            session,
            info.context.caller,
            id=input.id,
            expected_revision=input.expected_revision,
            description=input.description,
            status=input.status,
        )


async def delete_model_version(info: Info, input: DeleteModelVersionInput) -> ModelVersion:
    async with info.context.db.transaction() as session:
        return await models.delete_version(session, info.context.caller, id=input.id)


async def evaluate_model_version(info: Info, input: EvaluateModelVersionInput) -> Evaluation:
    """Have a worker compare the version with the data, and wait for it; what takes longer goes on without us."""
    context = info.context
    async with context.db.transaction() as session:
        asked = await evaluations.ask(
            session,
            context.caller,
            model_version_id=input.model_version_id,
            dataset_version_id=input.dataset_version_id,
            metrics=input.metrics,
        )
    deadline = time.monotonic() + evaluations.WAIT_SECONDS
    with context.services.wakeups.watching(operation_topic(asked)) as bell:
        while True:
            async with context.db.reading() as session:
                made = await evaluations.outcome(session, asked)
            if made is not None:
                return made
            left = deadline - time.monotonic()
            if left <= 0:
                raise Refused(evaluations.still_at_work())
            await bell.wait(min(left, context.services.wakeups.patience))


async def set_model_alias(info: Info, input: SetModelAliasInput) -> dict[str, Any]:
    async with info.context.db.transaction() as session:
        moved, change = await models.set_alias(
            session,
            info.context.caller,
            model_id=input.model_id,
            alias=input.alias,
            version_id=input.version_id,
            expected_version_id=input.expected_version_id,
            reason=input.reason,
        )
    return {"model": moved, "change": change}


async def remove_model_alias(info: Info, input: RemoveModelAliasInput) -> dict[str, Any]:
    async with info.context.db.transaction() as session:
        moved, change = await models.remove_alias(
            session, info.context.caller, model_id=input.model_id, alias=input.alias, reason=input.reason
        )
    return {"model": moved, "change": change}
