"""Metrics: series of points, their history as columns, and new points live."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.metrics import data as read
from db.vocabulary import AuditAction, DownsampleMethod, MetricKind, MetricScope, NonFiniteValue, UpdateKind
from domain.refusals import ErrorCode
from resolvers import metrics as resolve
from resolvers.inputs.scalars import BigInt, FloatVector, IntVector, TimestampVector
from schema.access import requires, viewer
from schema.directives import PAGED
from schema.fields import computed, identity, mutation, query, relation, shows, subscription
from schema.nodes import Connection, Node
from schema.projects import Project
from schema.refusals import UserError

if TYPE_CHECKING:
    from schema.training import TrainingRun


@strawberry.type
class Label:
    name: str
    value: str


@strawberry.type
class MetricPoint:
    step: BigInt | None
    at: datetime
    value: float | None = strawberry.field(description="Null when not finite.")
    non_finite: NonFiniteValue | None
    is_type_of = shows(read.MetricPoint)


@strawberry.type
class MetricSummary:
    name: str
    unit: str | None
    last: MetricPoint | None = computed(resolve.last_point)
    min: float | None = computed(lambda root: root.min_value)
    max: float | None = computed(lambda root: root.max_value)
    mean: float | None = computed(resolve.mean)
    count: BigInt = computed(lambda root: root.point_count)
    best: MetricPoint | None = computed(resolve.best_point, description="By the direction declared for the metric.")


@strawberry.type
class MetricColumns:
    step: IntVector | None
    at: TimestampVector
    value: FloatVector
    min: FloatVector | None = strawberry.field(description="Present when a point stands for a bucket.")
    max: FloatVector | None
    count: IntVector | None


@strawberry.type(
    description="One series as columns of equal length. Says plainly whether and how it was thinned.",
)
class MetricData:
    columns: MetricColumns
    points: list[MetricPoint] = computed(
        resolve.points, cost=20, description="The same as objects; at most 500, for a quick look in the explorer."
    )
    total_points: BigInt
    returned_points: int
    downsampled: bool
    method: DownsampleMethod
    resolution: timedelta | None
    cursor: str = computed(
        resolve.data_cursor, description="Pass it as `after` to `metricPoints` to go on live with no gap and no repeat."
    )


@strawberry.type
class MetricSeries(Node):
    id: strawberry.ID = identity(Kind.SERIES)
    project: Project | None = relation(loaders.project, by="project_id")
    scope: MetricScope
    name: str
    kind: MetricKind
    unit: str | None
    description: str | None
    labels: list[Label]
    run: Annotated["TrainingRun", strawberry.lazy("schema.training")] | None = relation(loaders.run, by="run_id")
    point_count: BigInt
    first_at: datetime | None = computed(resolve.first_at)
    last_at: datetime | None = computed(resolve.last_at)
    last_point: MetricPoint | None = computed(resolve.last_point)
    data: MetricData = relation(loaders.series_data, by="sized", args=resolve.data_args, cost=10)
    is_type_of = shows(rows.MetricSeries)


@strawberry.type
class MetricSeriesData:
    series: MetricSeries
    data: MetricData


@strawberry.type
class MetricGroup:
    name: str
    labels: list[Label]
    run: Annotated["TrainingRun", strawberry.lazy("schema.training")] | None = relation(loaders.run, by="run_id")
    data: MetricData


@strawberry.type
class MetricQueryResult:
    groups: list[MetricGroup]
    truncated: bool
    execution_ms: float
    cursor: str


@strawberry.type
class RejectedPoint:
    series: int
    index: int
    code: ErrorCode
    message: str


@strawberry.type
class IngestMetricsPayload:
    accepted: int
    duplicates: int
    rejected: list[RejectedPoint]
    errors: list[UserError]


@strawberry.type
class DeleteMetricSeriesPayload:
    series: int
    points: BigInt
    errors: list[UserError]


@strawberry.type
class MetricBatchSeries:
    series_id: strawberry.ID = computed(resolve.series_id)
    name: str
    run_id: strawberry.ID | None = computed(resolve.run_id)
    labels: list[Label]
    columns: MetricColumns


@strawberry.type
class MetricBatch:
    cursor: str
    kind: UpdateKind
    series: list[MetricBatchSeries]
    dropped_points: BigInt


@strawberry.type
class MetricQueries:
    metric_series: Connection[MetricSeries] = query(resolve.all_series, guard=viewer, directives=[PAGED])
    metric_query: MetricQueryResult | None = query(resolve.metric_query, guard=viewer, cost=20)
    metric_names: list[str] = query(resolve.metric_names, guard=viewer)


@strawberry.type
class MetricMutations:
    ingest_metrics: IngestMetricsPayload | None = mutation(
        resolve.ingest_metrics,
        guard=requires(Permission.METRIC_WRITE, resource="input.projectId"),
        returns=None,
        refused={"accepted": 0, "duplicates": 0, "rejected": []},
    )
    delete_metric_series: DeleteMetricSeriesPayload | None = mutation(
        resolve.delete_metric_series,
        guard=requires(Permission.METRIC_DELETE, resource="input.projectId"),
        returns=None,
        refused={"series": 0, "points": 0},
        audited=AuditAction.METRIC_DELETE,
    )


@strawberry.type
class MetricSubscriptions:
    metric_points: MetricBatch = subscription(
        resolve.metric_points,
        guard=viewer,
        cost=5,
        description="New points of the selected series, in columns, at most `maxUpdatesPerSecond` times a second.",
    )
