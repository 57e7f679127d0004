"""Models, their versions, the aliases that point at versions, and how good versions were found to be."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import AuditAction, ColumnType, CurveKind, MLTask, ModelVersionStatus, UpdateKind
from resolvers import model_updates
from resolvers import models as resolve
from resolvers.inputs.scalars import SHA256, BigInt, FloatVector, IntVector
from resolvers.paging import first_args
from schema.access import requires, viewer
from schema.directives import PAGED
from schema.fields import computed, identity, mutation, query, relation, shows, subscription
from schema.identity import Actor
from schema.nodes import Connection, Node, SignedUrl, Tag
from schema.projects import ProjectResource
from schema.refusals import UserError

if TYPE_CHECKING:
    from schema.datasets import DatasetVersion
    from schema.training import Param, TrainingRun


@strawberry.type
class SignatureField:
    name: str
    type: ColumnType
    nullable: bool
    categories: list[str] | None


@strawberry.type
class ModelSignature:
    inputs: list[SignatureField]
    outputs: list[SignatureField]


@strawberry.type
class FeatureImportance:
    feature: str
    importance: float
    share: float = strawberry.field(description="Share of the whole, 0 to 1.")
    rank: int


@strawberry.type
class EvaluationMetric:
    name: str
    value: float | None
    higher_is_better: bool
    baseline: float | None = relation(
        loaders.baseline,
        by="key",
        args=resolve.baseline_alias,
        description="Against the version that holds the given alias.",
    )


@strawberry.type
class ConfusionMatrix:
    labels: list[str]
    counts: IntVector = strawberry.field(description="Row by row: actual, then predicted.")


@strawberry.type
class EvaluationCurve:
    kind: CurveKind
    label: str | None
    x: FloatVector
    y: FloatVector
    area: float | None


@strawberry.type
class Evaluation(Node):
    id: strawberry.ID = identity(Kind.EVALUATION)
    model_version: Annotated["ModelVersion", strawberry.lazy("schema.models")] = relation(
        loaders.model_version, by="model_version_id"
    )
    dataset_version: Annotated["DatasetVersion", strawberry.lazy("schema.datasets")] = relation(
        loaders.dataset_version, by="dataset_version_id"
    )
    split: str
    metrics: list[EvaluationMetric] = computed(resolve.metrics_of)
    confusion_matrix: ConfusionMatrix | None
    curves: list[EvaluationCurve] = relation(loaders.curves_of_evaluation, by="id")
    created_at: datetime
    created_by: Actor | None = relation(loaders.user, by="created_by")
    is_type_of = shows(rows.Evaluation)


@strawberry.type
class ModelVersion(Node):
    id: strawberry.ID = identity(Kind.MODEL_VERSION)
    model: Annotated["Model", strawberry.lazy("schema.models")] = relation(loaders.model, by="model_id")
    number: int
    status: ModelVersionStatus
    description: str | None
    tags: list[Tag]
    aliases: list[str] = relation(loaders.alias_names_of_version, by="id")
    run: Annotated["TrainingRun", strawberry.lazy("schema.training")] | None = relation(
        loaders.run, by="run_id", description="Null for an imported model."
    )
    trained_on: Annotated["DatasetVersion", strawberry.lazy("schema.datasets")] | None = relation(
        loaders.dataset_version, by="trained_on_id"
    )
    signature: ModelSignature = relation(loaders.signature_of_version, by="id")
    params: list[Annotated["Param", strawberry.lazy("schema.training")]]
    feature_importance: list[FeatureImportance] = relation(
        loaders.importance_of_version, by="id", args=resolve.importance_args
    )
    evaluations: Connection[Evaluation] = relation(loaders.evaluations_of_version, by="id", args=first_args)
    latest_evaluation: Evaluation | None = relation(loaders.latest_evaluation_of_version, by="id")
    size_bytes: BigInt | None
    sha256: SHA256 | None
    download: SignedUrl | None = computed(resolve.download, guard=requires(Permission.MODEL_DOWNLOAD, resource="id"))
    created_at: datetime
    created_by: Actor | None = relation(loaders.user, by="created_by")
    revision: int
    is_type_of = shows(rows.ModelVersion)


@strawberry.type
class ModelAlias:
    name: str
    version: ModelVersion = relation(loaders.model_version, by="version_id")
    set_at: datetime
    set_by: Actor | None = relation(loaders.user, by="set_by")


@strawberry.type
class AliasChange:
    alias: str
    from_: ModelVersion | None = relation(loaders.model_version, by="from_id", name="from")
    to: ModelVersion | None = relation(loaders.model_version, by="to_id")
    at: datetime
    actor: Actor | None = relation(loaders.actor, by="actor")
    reason: str | None


@strawberry.type
class Model(ProjectResource):
    id: strawberry.ID = identity(Kind.MODEL)
    task: MLTask
    latest_version: ModelVersion | None = relation(loaders.latest_version_of_model, by="id")
    version: ModelVersion | None = relation(loaders.model_version_by_ref, by="id", args=resolve.version_ref)
    versions: Connection[ModelVersion] = relation(
        loaders.versions_of_model, by="id", args=resolve.version_args, directives=[PAGED]
    )
    aliases: list[ModelAlias] = relation(loaders.aliases_of_model, by="id")
    alias_at: ModelVersion | None = relation(
        loaders.model_version_by_alias_at,
        by="id",
        args=resolve.alias_moment,
        description="Which version an alias pointed at, at any moment in the past.",
    )
    alias_history: Connection[AliasChange] = relation(
        loaders.alias_history_of_model, by="id", args=resolve.history_args
    )
    is_type_of = shows(rows.Model)


@strawberry.type
class CreateModelPayload:
    model: Model | None
    errors: list[UserError]


@strawberry.type
class CreateModelVersionPayload:
    model_version: ModelVersion | None
    errors: list[UserError]


@strawberry.type
class UpdateModelPayload:
    model: Model | None
    errors: list[UserError]


@strawberry.type
class DeleteModelPayload:
    model: Model | None
    errors: list[UserError]


@strawberry.type
class UpdateModelVersionPayload:
    model_version: ModelVersion | None
    errors: list[UserError]


@strawberry.type
class DeleteModelVersionPayload:
    model_version: ModelVersion | None
    errors: list[UserError]


@strawberry.type
class EvaluateModelVersionPayload:
    evaluation: Evaluation | None
    errors: list[UserError]


@strawberry.type
class SetModelAliasPayload:
    model: Model | None
    change: AliasChange | None
    errors: list[UserError]


@strawberry.type
class RemoveModelAliasPayload:
    model: Model | None
    change: AliasChange | None
    errors: list[UserError]


@strawberry.type
class ModelQueries:
    models: Connection[Model] = query(resolve.all_models, guard=viewer, directives=[PAGED])
    model: Model | None = query(resolve.model, guard=viewer)
    model_version: ModelVersion | None = query(resolve.model_version, guard=viewer)


@strawberry.type
class ModelMutations:
    create_model: CreateModelPayload | None = mutation(
        resolve.create_model,
        guard=requires(Permission.MODEL_CREATE, resource="input.projectId"),
        returns="model",
        audited=AuditAction.MODEL_CREATE,
    )
    create_model_version: CreateModelVersionPayload | None = mutation(
        resolve.create_model_version,
        guard=requires(Permission.MODEL_UPDATE, resource="input.modelId"),
        returns="model_version",
        audited=AuditAction.MODEL_UPDATE,
    )
    update_model: UpdateModelPayload | None = mutation(
        resolve.update_model,
        guard=requires(Permission.MODEL_UPDATE, resource="input.id"),
        returns="model",
        audited=AuditAction.MODEL_UPDATE,
    )
    delete_model: DeleteModelPayload | None = mutation(
        resolve.delete_model,
        guard=requires(Permission.MODEL_DELETE, resource="input.id"),
        returns="model",
        audited=AuditAction.MODEL_DELETE,
    )
    update_model_version: UpdateModelVersionPayload | None = mutation(
        resolve.update_model_version,
        guard=requires(Permission.MODEL_UPDATE, resource="input.id"),
        returns="model_version",
        audited=AuditAction.MODEL_UPDATE,
    )
    delete_model_version: DeleteModelVersionPayload | None = mutation(
        resolve.delete_model_version,
        guard=requires(Permission.MODEL_DELETE, resource="input.id"),
        returns="model_version",
        audited=AuditAction.MODEL_DELETE,
    )
    evaluate_model_version: EvaluateModelVersionPayload | None = mutation(
        resolve.evaluate_model_version,
        guard=requires(Permission.MODEL_UPDATE, resource="input.modelVersionId"),
        returns="evaluation",
        cost=50,
    )
    set_model_alias: SetModelAliasPayload | None = mutation(
        resolve.set_model_alias,
        guard=requires(Permission.MODEL_UPDATE, resource="input.modelId"),
        returns=None,
        audited=AuditAction.MODEL_PROMOTE,
        description="Moves an alias in one step. `expectedVersionId` makes it compare-and-swap.",
    )
    remove_model_alias: RemoveModelAliasPayload | None = mutation(
        resolve.remove_model_alias,
        guard=requires(Permission.MODEL_UPDATE, resource="input.modelId"),
        returns=None,
        audited=AuditAction.MODEL_PROMOTE,
    )


@strawberry.type
class ModelUpdate:
    cursor: str
    kind: UpdateKind
    model: Model | None
    alias_change: AliasChange | None
    is_type_of = shows(model_updates.ModelUpdate)


@strawberry.type
class ModelSubscriptions:
    model_updated: ModelUpdate = subscription(model_updates.model_updated, guard=viewer)
