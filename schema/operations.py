"""Work that outlives the request, and the batch predictions that are such work."""

from datetime import datetime

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import OperationStatus, UpdateKind
from resolvers import operations as resolve
from resolvers.inputs.scalars import BigInt
from schema.access import requires, viewer
from schema.datasets import DatasetVersion
from schema.directives import PAGED
from schema.fields import identity, mutation, query, relation, shows, subscription
from schema.identity import Actor
from schema.models import ModelVersion
from schema.nodes import Connection, Failure, Node, Progress
from schema.projects import Project
from schema.refusals import UserError


@strawberry.interface(description="Work that outlives the request. Follow it with `operationUpdated`.")
class Operation(Node):
    status: OperationStatus
    progress: Progress
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    created_by: Actor | None = relation(loaders.user, by="created_by")
    failure: Failure | None


@strawberry.type
class BatchPrediction(Operation):
    id: strawberry.ID = identity(Kind.BATCH_PREDICTION)
    project: Project = relation(loaders.project, by="project_id")
    model_version: ModelVersion = relation(loaders.model_version, by="model_version_id")
    input: DatasetVersion = relation(loaders.dataset_version, by="dataset_version_id")
    output: DatasetVersion | None = relation(
        loaders.dataset_version, by="output_version_id", description="Null until it has succeeded."
    )
    rows_scored: BigInt
    rows_failed: BigInt
    is_type_of = shows(rows.BatchPrediction)


@strawberry.type
class CreateBatchPredictionPayload:
    batch_prediction: BatchPrediction | None
    errors: list[UserError]


@strawberry.type
class CancelOperationPayload:
    operation: Operation | None
    errors: list[UserError]


@strawberry.type
class OperationUpdate:
    cursor: str
    kind: UpdateKind
    operation: Operation | None


@strawberry.type
class OperationQueries:
    batch_predictions: Connection[BatchPrediction] = query(resolve.batch_predictions, guard=viewer, directives=[PAGED])
    operation: Operation | None = query(resolve.operation, guard=viewer)


@strawberry.type
class OperationMutations:
    create_batch_prediction: CreateBatchPredictionPayload | None = mutation(
        resolve.create_batch_prediction,
        guard=requires(Permission.PREDICTION_CREATE, resource="input.model.id", otherwise="input.model.alias.modelId"),
        returns="batch_prediction",
        cost=50,
    )
    cancel_operation: CancelOperationPayload | None = mutation(
        resolve.cancel_operation, guard=viewer, returns="operation"
    )


@strawberry.type
class OperationSubscriptions:
    operation_updated: OperationUpdate = subscription(
        resolve.operation_updated,
        guard=viewer,
        description="Work that outlives the request; so far, batch predictions.",
    )
