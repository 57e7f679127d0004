"""What can be done with a run that is there: rename, try again, clone, delete."""

import strawberry

from auth.permissions import Permission
from db.vocabulary import AuditAction
from resolvers import reruns as resolve
from schema.access import requires
from schema.fields import mutation
from schema.refusals import UserError
from schema.training import TrainingRun


@strawberry.type
class UpdateTrainingRunPayload:
    training_run: TrainingRun | None
    errors: list[UserError]


@strawberry.type
class RetryTrainingRunPayload:
    training_run: TrainingRun | None
    errors: list[UserError]


@strawberry.type
class CloneTrainingRunPayload:
    training_run: TrainingRun | None
    errors: list[UserError]


@strawberry.type
class DeleteTrainingRunPayload:
    training_run: TrainingRun | None
    errors: list[UserError]


@strawberry.type
class RerunMutations:
    update_training_run: UpdateTrainingRunPayload | None = mutation(
        resolve.update_training_run,
        guard=requires(Permission.RUN_UPDATE, resource="input.id"),
        returns="training_run",
    )
    retry_training_run: RetryTrainingRunPayload | None = mutation(
        resolve.retry_training_run,
        guard=requires(Permission.RUN_CREATE, resource="input.id"),
        returns="training_run",
        audited=AuditAction.RUN_RETRY,
        description="A new attempt of the same run: same spec, same data, same ID.",
    )
    clone_training_run: CloneTrainingRunPayload | None = mutation(
        resolve.clone_training_run,
        guard=requires(Permission.RUN_CREATE, resource="input.id"),
        returns="training_run",
        audited=AuditAction.RUN_CREATE,
        description="A new run from an old one, with changes.",
    )
    delete_training_run: DeleteTrainingRunPayload | None = mutation(
        resolve.delete_training_run,
        guard=requires(Permission.RUN_DELETE, resource="input.id"),
        returns="training_run",
        audited=AuditAction.RUN_DELETE,
    )
