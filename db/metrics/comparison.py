"""Metrics of runs side by side."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from db.database import Session
from db.metrics import histories
from db.metrics.data import SeriesOfRun
from db.metrics.selection import RunMetrics
from db.rows import MetricSeries


class MetricComparison(NamedTuple):
    """One metric of several runs, in the order in which they were given; a run without it is left out."""

    name: str
    series: list[SeriesOfRun]

    @property
    def summaries(self) -> list[MetricSeries]:
        return [one.series for one in self.series]

    @property
    def best_run_id(self) -> UUID | None:
        """The run with the best value, of equals the first; better is what the first of the series calls better."""
        known = [(one.best_value, one.run_id) for one in self.summaries if one.best_value is not None]
        better = max if self.summaries[0].rises else min
        return better(known, key=lambda one: one[0])[1] if known else None


class Compared(NamedTuple):
    """Which runs, and what of their metrics."""

    run_ids: tuple[UUID, ...]
    wanted: RunMetrics


async def of_runs(session: Session, keys: Sequence[Compared]) -> Mapping[Compared, list[MetricComparison]]:
    """The metrics of each group of runs, by name."""
    found = {}
    for key in keys:
        known = await histories.of_runs(session, key.run_ids, key.wanted)
        series = [one for run_id in key.run_ids for one in known[run_id]]
        names = sorted({one.series.name for one in series})
        found[key] = [MetricComparison(name, [one for one in series if one.series.name == name]) for name in names]
    return found
