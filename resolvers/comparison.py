"""Runs side by side: what they were given, what they were trained on, how they did."""

from typing import Any, NamedTuple
from uuid import UUID

import strawberry
from strawberry import UNSET

from dataloaders import loaders
from db.ids import Kind, key_of
from db.metrics.comparison import Compared
from db.metrics.selection import RunMetrics
from db.rows import TrainingRun
from db.vocabulary import MetricScope
from domain.refusals import Refused, not_found
from resolvers.context import Info
from resolvers.inputs.limits import argument
from resolvers.inputs.metrics import DownsampleInput
from resolvers.metrics import wanted_of

USUAL = DownsampleInput(max_points=500)


class RunComparison(NamedTuple):
    runs: list[TrainingRun]
    compared: Compared

    @property
    def datasets(self) -> list["DatasetComparison"]:
        return [DatasetComparison(run, run.dataset_version_id) for run in self.runs]


class ParamComparison(NamedTuple):
    name: str
    values: list[Any]


class DatasetComparison(NamedTuple):
    run: TrainingRun
    dataset_version_id: UUID | None


async def compare_runs(
    info: Info,
    run_ids: argument(list[strawberry.ID], min_items=2, max_items=50),  # type: ignore[valid-type]
    metric_names: list[str] | None = UNSET,
    downsample: DownsampleInput | None = USUAL,
) -> RunComparison:
    """Raises `Refused` for a run that is not there or out of sight."""
    runs: list[TrainingRun] = []
    for number, text in enumerate(run_ids):
        key = key_of(text, Kind.RUN)
        run: TrainingRun | None = await loaders.run.load(info.context, key) if key else None
        if run is None:
            raise Refused(not_found("training run", text, "runIds", str(number)))
        runs.append(run)
    names = None if metric_names is None else tuple(metric_names)
    wanted = RunMetrics(MetricScope.RUN, names, wanted_of(None, downsample))
    return RunComparison(runs, Compared(tuple(run.id for run in runs), wanted))


def params(root: RunComparison, only_different: bool | None = True) -> list[ParamComparison]:
    """By name; null for a run that has no such parameter."""
    given = [{param["name"]: param["value"] for param in run.params} for run in root.runs]
    names = sorted({name for one in given for name in one})
    found = [ParamComparison(name, [one.get(name) for one in given]) for name in names]
    if only_different is False:
        return found
    return [one for one in found if any(_told_apart(value, one.values[0]) for value in one.values)]


def _told_apart(one: Any, other: Any) -> bool:
    """JSON tells true from 1, which Python does not."""
    return one != other or isinstance(one, bool) != isinstance(other, bool)
