"""What can be done with a run that is there: rename, try again, clone, delete."""

from db.rows import TrainingRun
from domain import reruns
from resolvers.context import Info
from resolvers.inputs.reruns import (
    CloneTrainingRunInput,
    DeleteTrainingRunInput,
    RetryTrainingRunInput,
    UpdateTrainingRunInput,
)


async def update_training_run(info: Info, input: UpdateTrainingRunInput) -> TrainingRun:
    async with info.context.db.transaction() as session:
        return await reruns.update_run(
            session,
            info.context.caller,
            id=input.id,
            expected_revision=input.expected_revision,
            name=input.name,
            description=input.description,
        )


async def retry_training_run(info: Info, input: RetryTrainingRunInput) -> TrainingRun:
    async with info.context.db.transaction() as session:
        return await reruns.retry_run(session, info.context.caller, id=input.id, resume=input.resume)


async def clone_training_run(info: Info, input: CloneTrainingRunInput) -> TrainingRun:
    async with info.context.db.transaction() as session:
        return await reruns.clone_run(
            session,
            info.context.caller,
            id=input.id,
            name=input.name,
            dataset_version_id=input.dataset_version_id,
            params=input.params,
            num_rounds=input.num_rounds,
            idempotency_key=input.idempotency_key,
        )


async def delete_training_run(info: Info, input: DeleteTrainingRunInput) -> TrainingRun:
    async with info.context.db.transaction() as session:
        return await reruns.delete_run(session, info.context.caller, id=input.id)
