"""Inputs about models, their versions and aliases, and predictions."""

from enum import auto

import strawberry
from strawberry import UNSET

from db.vocabulary import MLTask, ModelVersionStatus, OrderDirection, Word
from resolvers.inputs.filters import DateTimeFilter, StringFilter, TagFilter, TagInput
from resolvers.inputs.limits import limited
from resolvers.inputs.scalars import JSONObject


@strawberry.enum
class ModelOrderField(Word):
    NAME = auto()
    CREATED_AT = auto()
    UPDATED_AT = auto()


@strawberry.enum
class ModelVersionOrderField(Word):
    NUMBER = auto()
    CREATED_AT = auto()
    METRIC = auto()


@strawberry.input
class ModelFilter:
    name: StringFilter | None = UNSET
    tasks: list[MLTask] | None = UNSET
    tags: list[TagFilter] | None = UNSET
    alias: str | None = UNSET
    created_at: DateTimeFilter | None = UNSET
    search: str | None = UNSET


@strawberry.input
class ModelOrder:
    field: ModelOrderField
    direction: OrderDirection = OrderDirection.DESC


@strawberry.input
class ModelVersionFilter:
    statuses: list[ModelVersionStatus] | None = UNSET
    alias: str | None = UNSET
    run_id: strawberry.ID | None = UNSET
    tags: list[TagFilter] | None = UNSET


@strawberry.input
class ModelVersionOrder:
    field: ModelVersionOrderField
    direction: OrderDirection = OrderDirection.DESC
    metric: str | None = UNSET


@strawberry.input(one_of=True)
class ModelVersionRef:
    number: int | None = UNSET
    alias: str | None = UNSET
    id: strawberry.ID | None = UNSET


@strawberry.input
class CreateModelInput:
    project_id: strawberry.ID
    name: str
    description: str | None = UNSET
    task: MLTask
    tags: list[TagInput] | None = UNSET


@strawberry.input
class UpdateModelInput:
    id: strawberry.ID
    expected_revision: int | None = UNSET
    name: str | None = UNSET
    description: str | None = UNSET


@strawberry.input
class DeleteModelInput:
    id: strawberry.ID


@strawberry.input(one_of=True)
class ModelVersionSourceInput:
    run_id: strawberry.ID | None = UNSET
    upload_id: strawberry.ID | None = UNSET
    copy_of_version_id: strawberry.ID | None = UNSET


@strawberry.input
class CreateModelVersionInput:
    model_id: strawberry.ID
    from_: ModelVersionSourceInput = strawberry.field(name="from")
    description: str | None = UNSET
    tags: list[TagInput] | None = UNSET
    idempotency_key: str | None = UNSET


@strawberry.input
class UpdateModelVersionInput:
    id: strawberry.ID
    expected_revision: int | None = UNSET
    description: str | None = UNSET
    status: ModelVersionStatus | None = UNSET


@strawberry.input
class DeleteModelVersionInput:
    id: strawberry.ID


@strawberry.input
class SetModelAliasInput:
    model_id: strawberry.ID
    alias: str = limited(pattern="^[a-z][a-z0-9_-]*$")
    version_id: strawberry.ID
    expected_version_id: strawberry.ID | None = UNSET
    reason: str | None = UNSET


@strawberry.input
class RemoveModelAliasInput:
    model_id: strawberry.ID
    alias: str
    reason: str | None = UNSET


@strawberry.input
class EvaluateModelVersionInput:
    model_version_id: strawberry.ID
    dataset_version_id: strawberry.ID
    metrics: list[str] | None = UNSET


@strawberry.input
class ModelAliasInput:
    model_id: strawberry.ID
    alias: str


@strawberry.input(one_of=True)
class ModelTargetInput:
    id: strawberry.ID | None = strawberry.field(default=UNSET, description="A model version.")
    alias: ModelAliasInput | None = UNSET


@strawberry.input
class PredictInput:
    model: ModelTargetInput
    rows: list[JSONObject] = limited(min_items=1, max_items=1000, description="One object per row, by feature name.")
    include_probabilities: bool = False
    include_contributions: bool = False


@strawberry.input
class CreateBatchPredictionInput:
    model: ModelTargetInput
    input_version_id: strawberry.ID
    output_dataset_id: strawberry.ID
    include_probabilities: bool = False
    idempotency_key: str | None = UNSET


@strawberry.input
class CancelOperationInput:
    id: strawberry.ID
