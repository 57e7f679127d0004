"""Training runs: what was asked for, how it goes, and what it leaves."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import (
    Algorithm,
    AuditAction,
    LogLevel,
    LogStream,
    MLTask,
    SplitStrategy,
    TrainingRunStatus,
    UpdateKind,
)
from resolvers import metrics as resolve_metrics
from resolvers import training as resolve
from resolvers.inputs.scalars import JSON, SHA256, BigInt, JSONObject
from resolvers.paging import first_args
from schema.access import requires, viewer
from schema.datasets import DatasetVersion
from schema.directives import PAGED
from schema.fields import computed, identity, mutation, query, relation, shows, subscription
from schema.identity import Actor
from schema.metrics import MetricSeriesData, MetricSummary
from schema.nodes import Connection, Failure, Node, Progress, SignedUrl, UncountedConnection
from schema.projects import ProjectResource
from schema.refusals import UserError

if TYPE_CHECKING:
    from schema.models import ModelVersion

Run = Annotated["TrainingRun", strawberry.lazy("schema.training")]


@strawberry.type
class RunTransition:
    from_: TrainingRunStatus | None = strawberry.field(name="from", resolver=resolve.from_status)
    to: TrainingRunStatus = strawberry.field(resolver=resolve.to_status)
    at: datetime
    actor: Actor | None = relation(loaders.actor, by="actor")
    reason: str | None
    attempt: int


@strawberry.type
class RunAttempt:
    number: int
    status: TrainingRunStatus
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    failure: Failure | None


@strawberry.type
class RunEnvironment:
    head_ai_version: str
    python_version: str
    packages: JSONObject
    git_commit: str | None
    git_dirty: bool | None
    cpu_count: int | None
    memory_bytes: BigInt | None


@strawberry.type
class Param:
    name: str
    value: JSON
    explicit: bool = strawberry.field(description="Set by the caller, or a default of the algorithm.")


@strawberry.type
class SplitSpec:
    strategy: SplitStrategy
    validation_fraction: float | None
    test_fraction: float | None
    folds: int | None
    time_column: str | None


@strawberry.type
class TrainingSpec:
    task: MLTask
    algorithm: Algorithm
    target: str | None
    features: list[str] | None
    weight_column: str | None
    group_column: str | None
    params: JSONObject
    num_rounds: int
    early_stopping_rounds: int | None
    evaluation_metrics: list[str]
    split: SplitSpec
    seed: int
    timeout: timedelta | None
    max_attempts: int


@strawberry.type
class LogLine:
    number: BigInt
    at: datetime
    level: LogLevel
    stream: LogStream
    attempt: int
    text: str


@strawberry.type
class Artifact(Node):
    id: strawberry.ID = identity(Kind.ARTIFACT)
    path: str
    size_bytes: BigInt
    sha256: SHA256 | None
    content_type: str | None
    created_at: datetime
    download: SignedUrl | None = computed(resolve.download, guard=requires(Permission.MODEL_DOWNLOAD, resource="id"))
    is_type_of = shows(rows.Artifact)


@strawberry.type
class TrainingRun(ProjectResource):
    id: strawberry.ID = identity(Kind.RUN)
    name: str = strawberry.field(description="Unique in the project; made up when not given.")
    status: TrainingRunStatus
    status_reason: str | None
    transitions: list[RunTransition] = relation(
        loaders.transitions_of_run, by="id", description="Every change of state, with when, who and why."
    )
    progress: Progress = computed(resolve.progress)
    failure: Failure | None
    spec: TrainingSpec
    params: list[Param]
    dataset_version: DatasetVersion | None = relation(
        loaders.dataset_version, by="dataset_version_id", description="Exact versions: the run can be repeated."
    )
    validation_dataset_version: DatasetVersion | None = relation(
        loaders.dataset_version, by="validation_dataset_version_id"
    )
    environment: RunEnvironment | None
    attempts: list[RunAttempt] = relation(loaders.attempts_of_run, by="id")
    heartbeat_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    duration: timedelta | None = computed(resolve.duration)
    summary: list[MetricSummary] = relation(
        loaders.summaries_of_run,
        by="id",
        args=resolve_metrics.summary_args,
        description="Last, best and range of every metric; kept apart from the history, so a list of runs is cheap.",
    )
    metric_names: list[str] = relation(loaders.metric_names_of_run, by="id")
    metrics: list[MetricSeriesData] = relation(
        loaders.metrics_of_run, by="id", args=resolve_metrics.run_metrics_args, cost=10
    )
    system_metrics: list[MetricSeriesData] = relation(
        loaders.metrics_of_run, by="id", args=resolve_metrics.system_metrics_args, cost=10
    )
    logs: UncountedConnection[LogLine] = relation(
        loaders.logs_of_run, by="id", args=resolve.log_args, directives=[PAGED]
    )
    artifacts: Connection[Artifact] = relation(loaders.artifacts_of_run, by="id", args=resolve.artifact_args)
    model_versions: list[Annotated["ModelVersion", strawberry.lazy("schema.models")]] = relation(
        loaders.versions_of_run, by="id"
    )
    parent_run: Run | None = relation(loaders.run, by="parent_run_id")
    child_runs: Connection[Run] = relation(loaders.child_runs, by="id", args=first_args)
    is_type_of = shows(rows.TrainingRun)


@strawberry.type
class ValidateTrainingRunPayload:
    valid: bool
    resolved_spec: TrainingSpec | None
    estimated_duration: timedelta | None = strawberry.field(
        description="The rounds asked for times the median time that a round took the last runs that succeeded on this "
        "dataset version, or else on other versions of its dataset; null when there were none."
    )
    warnings: list[str] | None
    errors: list[UserError]


@strawberry.type
class CreateTrainingRunPayload:
    training_run: TrainingRun | None
    errors: list[UserError]


@strawberry.type
class CancelTrainingRunPayload:
    training_run: TrainingRun | None
    errors: list[UserError]


@strawberry.type
class TrainingRunUpdate:
    cursor: str
    kind: UpdateKind
    training_run: TrainingRun | None
    changed_fields: list[str]


@strawberry.type
class LogBatch:
    cursor: str
    kind: UpdateKind
    lines: list[LogLine]
    has_more_past: bool = strawberry.field(description="More of the past is on its way.")
    dropped_lines: BigInt
    finished: bool


@strawberry.type
class TrainingQueries:
    training_runs: Connection[TrainingRun] = query(resolve.training_runs, guard=viewer, directives=[PAGED])
    training_run: TrainingRun | None = query(resolve.training_run, guard=viewer)
    algorithm_schema: JSONObject = query(resolve.algorithm_schema, guard=viewer)


@strawberry.type
class TrainingMutations:
    validate_training_run: ValidateTrainingRunPayload | None = mutation(
        resolve.validate_training_run,
        guard=requires(Permission.RUN_CREATE, resource="input.projectId"),
        returns=None,
        refused={"valid": False},
    )
    create_training_run: CreateTrainingRunPayload | None = mutation(
        resolve.create_training_run,
        guard=requires(Permission.RUN_CREATE, resource="input.projectId"),
        returns="training_run",
        audited=AuditAction.RUN_CREATE,
        cost=50,
    )
    cancel_training_run: CancelTrainingRunPayload | None = mutation(
        resolve.cancel_training_run,
        guard=requires(Permission.RUN_CANCEL, resource="input.id"),
        returns="training_run",
        audited=AuditAction.RUN_CANCEL,
    )


@strawberry.type
class TrainingSubscriptions:
    training_run_updated: TrainingRunUpdate = subscription(
        resolve.training_run_updated,
        guard=viewer,
        cost=2,
        description="State and progress of one run, or of every run a filter matches.",
    )
    training_run_logs: LogBatch = subscription(
        resolve.training_run_logs,
        guard=viewer,
        cost=5,
        description="Lines in batches, at most ten a second; `after` is the cursor of the last batch or the number "
        "of a line.",
    )
