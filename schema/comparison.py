"""Runs side by side."""

import strawberry

from dataloaders import loaders
from db.metrics import comparison as rows
from resolvers import comparison as resolve
from resolvers.inputs.scalars import JSON
from schema.access import viewer
from schema.datasets import DatasetVersion
from schema.directives import ListSize
from schema.fields import computed, query, relation, shows
from schema.metrics import MetricSeriesData, MetricSummary
from schema.training import TrainingRun


@strawberry.type
class ParamComparison:
    name: str
    values: list[JSON | None] = strawberry.field(description="In the order of `runs`.")
    is_type_of = shows(resolve.ParamComparison)


@strawberry.type
class MetricComparison:
    name: str
    series: list[MetricSeriesData]
    summaries: list[MetricSummary]
    best_run: TrainingRun | None = relation(loaders.run, by="best_run_id")
    is_type_of = shows(rows.MetricComparison)


@strawberry.type
class DatasetComparison:
    run: TrainingRun
    dataset_version: DatasetVersion | None = relation(loaders.dataset_version, by="dataset_version_id")
    is_type_of = shows(resolve.DatasetComparison)


@strawberry.type
class RunComparison:
    runs: list[TrainingRun]
    params: list[ParamComparison] = computed(
        resolve.params, description="Only the parameters that differ, unless all are asked for."
    )
    metrics: list[MetricComparison] = relation(loaders.metrics_of_comparison, by="compared")
    datasets: list[DatasetComparison]
    is_type_of = shows(resolve.RunComparison)


@strawberry.type
class ComparisonQueries:
    compare_runs: RunComparison | None = query(
        resolve.compare_runs, guard=viewer, cost=20, directives=[ListSize.by("runIds")]
    )
