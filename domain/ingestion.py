"""Metrics from outside: what is checked before points are stored, and the answer that a repeated batch gets again."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from auth.principals import Principal
from db import projects, runs
from db.database import Session
from db.ids import Kind, key_of
from db.metrics import batches
from db.metrics import series as metric_series
from db.metrics.series import SeriesPoints
from db.vocabulary import MetricKind, MetricScope, NonFiniteValue
from domain.external import signs_of_life
from domain.metrics import write
from domain.refusals import ErrorCode, Invalid, Refusal, Refused, not_found
from domain.texts import checked_text, storable
from ml.algorithm import higher_is_better as usually_higher_is_better
from ml.downsampling import History
from ml.packing import taken

MAX_LABELS = 16
MAX_LABEL_BYTES = 1_400
MAX_UNIT = 64
MAX_BATCH_ID = 200
LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999, in epoch milliseconds."""

NON_FINITE = {
    NonFiniteValue.NAN: math.nan,
    NonFiniteValue.POSITIVE_INFINITY: math.inf,
    NonFiniteValue.NEGATIVE_INFINITY: -math.inf,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSeries:
    """Points of one series as a caller sends them; null in `values` is told by `non_finite`, by index."""

    scope: MetricScope
    run_id: str | None
    name: str
    labels: Sequence[tuple[str, str]]
    unit: str | None
    kind: MetricKind
    higher_is_better: bool | None
    steps: Sequence[int] | None
    at: Sequence[int] | None
    values: Sequence[float | None]
    non_finite: Sequence[tuple[int, NonFiniteValue]]


async def ingest(
    session: Session,
    actor: Principal,
    *,
    project_id: str,
    batch_id: str | None,
    series: Sequence[GivenSeries],
    max_points: int,
) -> dict[str, Any]:
    """Store points; `{accepted, duplicates, rejected: [{series, index, code, message}]}`.

    A point that cannot be stored is rejected alone. Raises `Refused`, with nothing stored, when the call as a whole
    cannot be meant: columns of unequal length, a run that is not there, too many values.
    """
    project = key_of(project_id, Kind.PROJECT)
    if project is None or project not in await projects.by_ids(session, [project]):
        raise Refused(not_found("project", project_id, "input", "projectId"))
    total = sum(len(one.values) for one in series)
    if total > max_points:
        raise Refused(
            Invalid(
                code=ErrorCode.OUT_OF_RANGE,
                message=f"This call has {total} values; send at most {max_points} in one call.",
                path=("input", "series"),
                allowed={"max": max_points},
            )
        )
    checked_text(batch_id, "input", "batchId", max_length=MAX_BATCH_ID)
    known_runs = await _runs_of(session, actor, project, series)
    refusals = [refusal for number, one in enumerate(series) for refusal in _problems(one, number, known_runs)]
    if refusals:
        raise Refused(*refusals)
    now = time.time_ns() // 1_000_000
    rejected: list[dict[str, Any]] = []
    batch = [_storable(one, number, known_runs, now, rejected) for number, one in enumerate(series)]
    _refuse_twice_given(batch)
    filled = {number: points for number, points in enumerate(batch) if len(points.points.at)}

    if batch_id is not None:
        before = await batches.begin(session, project, batch_id)
        if before is not None:
            return before
    await signs_of_life(session, list(known_runs.values()))
    kept = await metric_series.keep(session, project, list(filled.values())) if filled else []
    for there, (number, points) in zip(kept, filled.items(), strict=True):
        if there.kind != points.kind:
            message = f"The series {points.name!r} is a {there.kind}; it cannot become a {points.kind}."
            raise Refused(Invalid(message=message, path=("input", "series", str(number), "kind"), allowed=[there.kind]))
    written = await write(session, kept, list(filled.values()))
    answer = {"accepted": written.accepted, "duplicates": written.duplicates, "rejected": rejected}
    if batch_id is not None:
        await batches.remember(session, project, batch_id, answer)
    return answer


async def _runs_of(
    session: Session, actor: Principal, project: UUID, series: Sequence[GivenSeries]
) -> Mapping[str, UUID]:
    """The runs of this project that the series name and the caller may see, by their global IDs."""
    asked = {one.run_id: key_of(one.run_id, Kind.RUN) for one in series if one.run_id is not None}
    if not asked:
        return {}
    known = await runs.by_ids(session, [key for key in asked.values() if key is not None])
    return {
        text: key
        for text, key in asked.items()
        if key is not None and key in known and known[key].project_id == project
    }


def _problems(one: GivenSeries, number: int, known_runs: Mapping[str, UUID]) -> list[Refusal]:
    """Why a series cannot be taken at all."""
    here = ("input", "series", str(number))
    found: list[Refusal] = []

    def invalid(message: str, *path: str, code: ErrorCode = ErrorCode.INVALID, allowed: Any = None) -> None:
        found.append(Invalid(code=code, message=message, path=(*here, *path), allowed=allowed))

    if not one.name or one.name != one.name.strip() or not one.name.isprintable() or "*" in one.name:
        invalid("A name has printable characters, no `*`, and no blank at its ends.", "name")
    elif not storable(one.name):
        invalid("This text cannot be stored.", "name")
    if one.unit is not None and (not storable(one.unit) or len(one.unit) > MAX_UNIT):
        invalid(f"A unit has at most {MAX_UNIT} characters.", "unit", allowed={"maxLength": MAX_UNIT})
    labels = [name for name, _ in one.labels]
    if len(set(labels)) < len(labels):
        invalid("A label is given twice.", "labels")
    elif len(labels) > MAX_LABELS or len(json.dumps(list(one.labels), ensure_ascii=False).encode(errors="replace")) > (
        MAX_LABEL_BYTES
    ):
        invalid(
            f"A series has at most {MAX_LABELS} labels, together at most {MAX_LABEL_BYTES} bytes.",
            "labels",
            code=ErrorCode.TOO_LONG,
            allowed={"maxItems": MAX_LABELS},
        )
    elif not all(storable(text) for label in one.labels for text in label) or not all(labels):
        invalid("A label has a name, and texts that can be stored.", "labels")
    if one.run_id is None and one.scope is MetricScope.RUN:
        invalid("A series of the scope RUN belongs to a run.", "runId", code=ErrorCode.REQUIRED)
    elif one.run_id is not None and one.run_id not in known_runs:
        found.append(not_found("training run", one.run_id, *here, "runId"))
    size = len(one.values)
    for name, column in (("steps", one.steps), ("at", one.at)):
        if column is not None and len(column) != size:
            invalid(f"`{name}` has {len(column)} entries and `values` has {size}: give one for each.", name)
    if one.steps is None and one.at is None and size > 1:
        invalid("Several values need `steps` or `at` to tell them apart.", "steps", code=ErrorCode.REQUIRED)
    seen: set[int] = set()
    for place, (index, _) in enumerate(one.non_finite):
        path = ("nonFinite", str(place), "index")
        if not 0 <= index < size:
            invalid(f"There is no value {index}: `values` has {size}.", *path, code=ErrorCode.OUT_OF_RANGE)
        elif one.values[index] is not None:
            invalid(f"The value {index} is a number, not null.", *path)
        elif index in seen:
            invalid(f"The value {index} is told twice.", *path)
        seen.add(index)
    return found


def _storable(
    one: GivenSeries, number: int, known_runs: Mapping[str, UUID], now: int, rejected: list[dict[str, Any]]
) -> SeriesPoints:
    """The points that can be stored; the others go to `rejected`."""
    size = len(one.values)
    numbers = _doubles(one.values)
    told = np.zeros(size, np.bool_)
    for index, word in one.non_finite:
        numbers[index], told[index] = NON_FINITE[word], True
    moments = np.full(size, now) if one.at is None else np.array(one.at, np.int64)
    null, late = np.isnan(numbers) & ~told, moments > LATEST
    refused = null | late | (np.isinf(numbers) & ~told)
    for index in np.flatnonzero(refused).tolist():
        if null[index]:
            code, message = ErrorCode.INVALID, "The value is null, and `nonFinite` does not say what it was."
        elif late[index]:
            code, message = ErrorCode.OUT_OF_RANGE, "The time is after the year 9999."
        else:
            code, message = ErrorCode.OUT_OF_RANGE, "The value is beyond the largest double, 1.8e308."
        rejected.append({"series": number, "index": index, "code": code.value, "message": message})
    kept = ~refused
    steps = np.zeros(size, np.int64) if one.steps is None else np.array(one.steps, np.int64)
    points = History(steps, np.full(size, one.steps is None), moments, numbers)
    return SeriesPoints(
        scope=one.scope,
        name=one.name,
        run_id=None if one.run_id is None else known_runs[one.run_id],
        labels=[{"name": name, "value": value} for name, value in sorted(one.labels)],
        kind=one.kind,
        unit=one.unit,
        higher_is_better=one.higher_is_better,
        rises=usually_higher_is_better(one.name) if one.higher_is_better is None else one.higher_is_better,
        points=points if kept.all() else taken(points, kept),
    )


def _doubles(values: Sequence[float | None]) -> NDArray[np.float64]:
    """The values as doubles: NaN for null, an infinity for what is beyond the largest double."""
    try:
        return np.array(values, np.float64)
    except OverflowError:  # an integer of more than 308 digits
        beyond = 2**1024
        return np.array(
            [
                (math.inf if v > 0 else -math.inf) if isinstance(v, int) and abs(v) >= beyond - 2**970 else v
                for v in values
            ],
            np.float64,
        )


def _refuse_twice_given(batch: Sequence[SeriesPoints]) -> None:
    first: dict[Any, int] = {}
    for number, one in enumerate(batch):
        before = first.setdefault(metric_series.key_of(one), number)
        if before != number:
            message = f"This is the series of entry {before} again: put its points together."
            raise Refused(Invalid(message=message, path=("input", "series", str(number))))
