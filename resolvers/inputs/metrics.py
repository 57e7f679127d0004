"""Inputs about metrics: points on their way in, and which history is wanted how."""

from datetime import timedelta

import strawberry
from strawberry import UNSET

from db.vocabulary import Aggregation, DownsampleMethod, MetricAxis, MetricKind, MetricScope, NonFiniteValue
from resolvers.inputs.filters import DateTimeFilter, StepRangeInput, StringFilter, TimeRangeInput
from resolvers.inputs.limits import limited, optional
from resolvers.inputs.scalars import FloatVector, IntVector, TimestampVector


@strawberry.input(one_of=True)
class MetricRangeInput:
    time: TimeRangeInput | None = UNSET
    steps: StepRangeInput | None = UNSET
    last: timedelta | None = UNSET


@strawberry.input
class DownsampleInput:
    max_points: int = limited(default=1000, min=2, max=10000)
    method: DownsampleMethod = DownsampleMethod.MIN_MAX
    axis: MetricAxis = MetricAxis.STEP


@strawberry.input
class LabelMatcherInput:
    name: str
    eq: str | None = UNSET
    in_: list[str] | None = optional("in")
    regex: str | None = UNSET
    not_eq: str | None = UNSET


@strawberry.input
class MetricSelectorInput:
    project_id: strawberry.ID | None = UNSET
    scope: MetricScope
    names: list[str] = limited(min_items=1, max_items=50)
    labels: list[LabelMatcherInput] | None = UNSET
    run_ids: list[strawberry.ID] | None = optional(max_items=100)


@strawberry.input
class MetricQueryInput:
    selector: MetricSelectorInput
    range: MetricRangeInput
    aggregation: Aggregation | None = UNSET
    step: timedelta | None = UNSET
    group_by: list[str] | None = UNSET
    downsample: DownsampleInput | None = UNSET
    limit_series: int = limited(default=50, min=1, max=500)


@strawberry.input
class MetricSeriesFilter:
    project_id: strawberry.ID | None = UNSET
    scope: MetricScope | None = UNSET
    name: StringFilter | None = UNSET
    labels: list[LabelMatcherInput] | None = UNSET
    run_id: strawberry.ID | None = UNSET
    last_at: DateTimeFilter | None = UNSET


@strawberry.input
class LabelInput:
    name: str
    value: str


@strawberry.input
class NonFiniteAtInput:
    index: int
    value: NonFiniteValue


@strawberry.input(description="Columns of equal length; at most 100 000 values in one call.")
class SeriesPointsInput:
    scope: MetricScope = MetricScope.RUN
    run_id: strawberry.ID | None = UNSET
    name: str = limited(max_length=250)
    labels: list[LabelInput] | None = UNSET
    unit: str | None = UNSET
    kind: MetricKind = MetricKind.GAUGE
    higher_is_better: bool | None = UNSET
    steps: IntVector | None = UNSET
    at: TimestampVector | None = UNSET
    values: FloatVector
    non_finite: list[NonFiniteAtInput] | None = strawberry.field(
        default=UNSET, description="Where `values` holds null: what it was."
    )


@strawberry.input
class IngestMetricsInput:
    project_id: strawberry.ID
    batch_id: str | None = strawberry.field(default=UNSET, description="The same batch sent twice is stored once.")
    series: list[SeriesPointsInput] = limited(min_items=1, max_items=500)


@strawberry.input
class DeleteMetricSeriesInput:
    project_id: strawberry.ID
    ids: list[strawberry.ID] | None = UNSET
    selector: MetricSelectorInput | None = UNSET
    dry_run: bool = True
