"""Operations: ask for a batch prediction, list, follow and cancel what outlives its request."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import NamedTuple

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from dataloaders import loaders
from db import operations as queries
from db.ids import Kind, key_of
from db.operations import operation_topic
from db.paging import EMPTY, Page
from db.rows import BatchPrediction
from db.vocabulary import OperationStatus, UpdateKind
from domain import operations
from resolvers.context import Info
from resolvers.inputs.models import CancelOperationInput, CreateBatchPredictionInput
from resolvers.paging import page_args
from resolvers.predictions import ref_of
from resolvers.streams import followed

_FINAL = (OperationStatus.SUCCEEDED, OperationStatus.FAILED, OperationStatus.CANCELED)


class OperationUpdate(NamedTuple):
    cursor: str
    kind: UpdateKind
    operation: BatchPrediction | None


async def batch_predictions(
    info: Info,
    project_id: strawberry.ID | None = UNSET,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[BatchPrediction]:
    """The newest first."""
    args = page_args(first, after, last, before)
    project = None if project_id is None else key_of(project_id, Kind.PROJECT)
    if not info.context.sees(Permission.MODEL_READ) or (project_id is not None and project is None):
        return EMPTY
    async with info.context.db.reading() as session:
        return await queries.batches(session, project, args)


async def operation(info: Info, id: strawberry.ID) -> BatchPrediction | None:
    key = key_of(id, Kind.BATCH_PREDICTION)
    found: BatchPrediction | None = await loaders.batch_prediction.load(info.context, key) if key else None
    return found


async def create_batch_prediction(info: Info, input: CreateBatchPredictionInput) -> BatchPrediction:
    async with info.context.db.transaction() as session:
        return await operations.predict_batch(
            session,
            info.context.caller,
            ref=ref_of(input.model),
            input_version_id=input.input_version_id,
            output_dataset_id=input.output_dataset_id,
            probabilities=input.include_probabilities,
            idempotency_key=input.idempotency_key,
        )


async def cancel_operation(info: Info, input: CancelOperationInput) -> BatchPrediction:
    async with info.context.db.transaction() as session:
        return await operations.cancel(session, info.context.caller, id=input.id)


async def operation_updated(info: Info, id: strawberry.ID, after: str | None = UNSET) -> AsyncIterator[OperationUpdate]:
    """The operation as it is now, then as it changes, until it is over or gone. `after` leaves out what was seen."""
    updates = followed(
        info.context,
        id,
        what="operation",
        kind=Kind.BATCH_PREDICTION,
        reads=Permission.MODEL_READ,
        topic=operation_topic,
        read=queries.state_of,
        is_over=lambda operation: operation.status in _FINAL,
        after=after,
    )
    async with aclosing(updates):
        async for update in updates:
            yield OperationUpdate(*update)
