"""Operations: ask for a batch prediction, list, follow and cancel what outlives its request."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from dataloaders import loaders
from db import operations as queries
from db.events import Position
from db.ids import Kind, key_of
from db.operations import operation_topic
from db.paging import EMPTY, Page
from db.rows import BatchPrediction
from db.vocabulary import OperationStatus, UpdateKind
from domain import operations
from domain.refusals import Refused, not_found
from events import cursors
from resolvers.context import Context, Info
from resolvers.events import place_after
from resolvers.inputs.models import CancelOperationInput, CreateBatchPredictionInput
from resolvers.paging import page_args
from resolvers.predictions import ref_of
from resolvers.streams import place_in_sight

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
    context: Context = info.context
    epoch = context.services.epoch
    key = key_of(id, Kind.BATCH_PREDICTION) if context.sees(Permission.MODEL_READ) else None
    seen = await place_after(context, after)
    kind = UpdateKind.SNAPSHOT if seen is None else UpdateKind.UPDATED
    if key is None:
        raise Refused(not_found("operation", id, "id"))
    place = await place_in_sight(context, Permission.MODEL_READ, Kind.BATCH_PREDICTION, key)
    with context.watching(operation_topic(key)) as bell:
        while True:
            if place:
                here = None if seen is None else cursors.encode(epoch, seen)
                context.require(Permission.MODEL_READ, *place, cursor=here)
            async with context.db.reading() as session:
                state = await queries.state_of(session, key)
            if state is None:
                if seen is None:
                    raise Refused(not_found("operation", id, "id"))
                yield OperationUpdate(cursors.encode(epoch, seen), UpdateKind.DELETED, None)
                return
            if state.is_settled:
                if seen is None or state.changed > seen.changed:
                    seen = Position(state.changed, 0)
                    yield OperationUpdate(cursors.encode(epoch, seen), kind, state.operation)
                    kind = UpdateKind.UPDATED
                if state.operation.status in _FINAL:
                    return
            await bell.until_next_look(unsettled=not state.is_settled)
