"""Inputs about training runs."""

from datetime import timedelta
from enum import auto

import strawberry
from strawberry import UNSET

from db.vocabulary import (
    Algorithm,
    LogLevel,
    LogStream,
    MLTask,
    OrderDirection,
    SplitStrategy,
    SummaryValue,
    TrainingRunStatus,
    Word,
)
from resolvers.inputs.filters import DateTimeFilter, FloatFilter, StringFilter, TagFilter, TagInput, TimeRangeInput
from resolvers.inputs.limits import limited, optional
from resolvers.inputs.scalars import JSON, JSONObject


@strawberry.enum
class TrainingRunOrderField(Word):
    CREATED_AT = auto()
    UPDATED_AT = auto()
    STARTED_AT = auto()
    FINISHED_AT = auto()
    DURATION = auto()
    NAME = auto()
    METRIC = auto()


@strawberry.input
class MetricValueFilter:
    name: str
    of: SummaryValue = strawberry.field(default=SummaryValue.LAST, description="Which value of the summary.")
    value: FloatFilter


@strawberry.input
class ParamFilter:
    name: str
    eq: JSON | None = UNSET
    in_: list[JSON] | None = optional("in")
    number: FloatFilter | None = UNSET


@strawberry.input
class TrainingRunFilter:
    name: StringFilter | None = UNSET
    statuses: list[TrainingRunStatus] | None = UNSET
    algorithms: list[Algorithm] | None = UNSET
    tasks: list[MLTask] | None = UNSET
    tags: list[TagFilter] | None = UNSET
    created_by_id: strawberry.ID | None = UNSET
    created_at: DateTimeFilter | None = UNSET
    finished_at: DateTimeFilter | None = UNSET
    dataset_id: strawberry.ID | None = UNSET
    dataset_version_id: strawberry.ID | None = UNSET
    parent_run_id: strawberry.ID | None = UNSET
    metrics: list[MetricValueFilter] | None = UNSET
    params: list[ParamFilter] | None = UNSET
    search: str | None = UNSET
    and_: list["TrainingRunFilter"] | None = optional("and")
    or_: list["TrainingRunFilter"] | None = optional("or")
    not_: "TrainingRunFilter | None" = optional("not")


@strawberry.input
class TrainingRunOrder:
    field: TrainingRunOrderField
    direction: OrderDirection = OrderDirection.DESC
    metric: str | None = strawberry.field(default=UNSET, description="Required when field is METRIC.")
    of: SummaryValue | None = SummaryValue.BEST


@strawberry.input
class LogFilter:
    levels: list[LogLevel] | None = UNSET
    streams: list[LogStream] | None = UNSET
    contains: str | None = UNSET
    attempt: int | None = UNSET
    time: TimeRangeInput | None = UNSET


@strawberry.input
class SplitSpecInput:
    strategy: SplitStrategy = SplitStrategy.RANDOM
    validation_fraction: float | None = 0.2
    test_fraction: float | None = 0.0
    folds: int | None = UNSET
    time_column: str | None = UNSET


@strawberry.input
class TrainingSpecInput:
    task: MLTask
    algorithm: Algorithm = Algorithm.LIGHTGBM
    target: str | None = UNSET
    features: list[str] | None = UNSET
    weight_column: str | None = UNSET
    group_column: str | None = UNSET
    params: JSONObject | None = UNSET
    num_rounds: int = limited(default=1000, min=1, max=100000)
    early_stopping_rounds: int | None = 50
    evaluation_metrics: list[str] | None = UNSET
    split: SplitSpecInput | None = UNSET
    seed: int = 42
    timeout: timedelta | None = UNSET
    max_attempts: int = limited(default=1, min=1, max=10)


@strawberry.input
class RegisterAsInput:
    model_id: strawberry.ID
    alias: str | None = UNSET


@strawberry.input
class CreateTrainingRunInput:
    project_id: strawberry.ID
    name: str | None = UNSET
    description: str | None = UNSET
    tags: list[TagInput] | None = UNSET
    dataset_version_id: strawberry.ID | None = UNSET
    validation_dataset_version_id: strawberry.ID | None = UNSET
    spec: TrainingSpecInput
    parent_run_id: strawberry.ID | None = UNSET
    register_as: RegisterAsInput | None = strawberry.field(
        default=UNSET, description="On success: register the model here, and set this alias."
    )
    idempotency_key: str | None = UNSET


@strawberry.input
class CancelTrainingRunInput:
    id: strawberry.ID
    reason: str | None = UNSET
    force: bool = strawberry.field(default=False, description="Kill at once instead of at the next round.")
    keep_best: bool = strawberry.field(default=True, description="Keep the best model so far.")
