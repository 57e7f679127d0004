"""Points of metrics as the API shows them: as columns, and one by one."""

from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import NamedTuple
from uuid import UUID

from db.rows import MetricSeries
from db.snapshots import Snapshot
from db.vocabulary import DownsampleMethod
from ml.downsampling import History, Method, Thinned


class MetricPoint(NamedTuple):
    step: int | None
    milliseconds: int
    value: float | None
    non_finite: str | None

    @property
    def at(self) -> datetime:
        return moment(self.milliseconds)


class ColumnData(NamedTuple):
    """Points as the API shows them; NaN stands where there is no finite value."""

    step: list[int] | None
    at: list[int]
    value: list[float]
    min: list[float] | None = None
    max: list[float] | None = None
    count: list[int] | None = None  # type: ignore[assignment]

    @classmethod
    def of(cls, history: History) -> "ColumnData":
        return cls(
            None if history.stepless.any() else history.steps.tolist(), history.at.tolist(), history.values.tolist()
        )


class SeriesData(NamedTuple):
    """The history of one series, perhaps thinned, as a snapshot of the database saw it."""

    series_id: UUID
    total_points: int
    thinned: Thinned
    snapshot: Snapshot

    @property
    def columns(self) -> ColumnData:
        kept = self.thinned
        return ColumnData.of(kept.history)._replace(
            min=None if kept.low is None else kept.low.tolist(),
            max=None if kept.high is None else kept.high.tolist(),
            count=None if kept.counts is None else kept.counts.tolist(),
        )

    @property
    def returned_points(self) -> int:
        return len(self.thinned.history.at)

    @property
    def downsampled(self) -> bool:
        return self.thinned.method is not Method.NONE

    @property
    def method(self) -> DownsampleMethod:
        return DownsampleMethod(self.thinned.method)

    @property
    def resolution(self) -> timedelta | None:
        return None if self.thinned.width is None else timedelta(milliseconds=self.thinned.width)

    def points(self, limit: int) -> list[MetricPoint]:
        steps, stepless, at, values = (column[:limit].tolist() for column in self.thinned.history)
        return [
            point(None if without else step, moment, value)
            for step, without, moment, value in zip(steps, stepless, at, values, strict=True)
        ]


class SeriesOfRun(NamedTuple):
    series: MetricSeries
    data: SeriesData


class NewPoints(NamedTuple):
    """Points of one series that a stream hands on."""

    series_id: UUID
    name: str
    run_id: UUID | None
    labels: list[dict[str, str]]
    columns: ColumnData


def point(step: int | None, at: int, value: float) -> MetricPoint:
    if isfinite(value):
        return MetricPoint(step, at, value, None)
    word = "NAN" if value != value else f"{'POSITIVE' if value > 0 else 'NEGATIVE'}_INFINITY"
    return MetricPoint(step, at, None, word)


def moment(at: int) -> datetime:
    """A time in epoch milliseconds as a datetime, exact to the millisecond."""
    return datetime.fromtimestamp(at // 1000, UTC) + timedelta(milliseconds=at % 1000)


def milliseconds(at: datetime) -> int:
    """The whole epoch milliseconds of a moment."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
