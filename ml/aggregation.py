"""Many histories made into one: what the points of a span of time say together.

A bucket is as wide as asked for and begins at a multiple of that since 1970, so that the buckets of different answers
line up; only buckets that hold a point are there. Averages, sums, extremes and percentiles are those of the finite
values, NaN without one. Everything here is deterministic.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from ml.downsampling import Floats, History, Ints, Method, Thinned


class Aggregate(StrEnum):
    """COUNT counts every point; LAST is the value of the latest one. RATE is the growth of counters in a second, a fall
    being a start from zero; percentiles are interpolated between the two nearest values."""

    AVG = "AVG"
    MIN = "MIN"
    MAX = "MAX"
    SUM = "SUM"
    COUNT = "COUNT"
    LAST = "LAST"
    RATE = "RATE"
    P50 = "P50"
    P90 = "P90"
    P95 = "P95"
    P99 = "P99"


_QUANTILES = {Aggregate.P50: 0.5, Aggregate.P90: 0.9, Aggregate.P95: 0.95, Aggregate.P99: 0.99}


def aggregated(histories: Sequence[History], *, how: Aggregate, width: int | None) -> Thinned:
    """One value for each `width` milliseconds of all histories together, at the beginning of its bucket.

    Without a width there is one bucket, at the time of the first point. `low` and `high` are the range of a bucket's
    finite values, `counts` how many points it has.
    """
    whole = [history for history in histories if len(history.at)]
    if not whole:
        return Thinned(_at(np.array([], np.int64), np.array([])), Method.NONE, width, np.array([]), np.array([]),
                       np.array([], np.int64))  # fmt: skip
    at = np.concatenate([history.at for history in whole])
    values = np.concatenate([history.values for history in whole])
    growth = np.concatenate([_growth(history) for history in whole]) if how is Aggregate.RATE else values
    order = np.argsort(at, kind="stable")
    at, values, growth = at[order], values[order], growth[order]
    buckets = at // width if width is not None else np.zeros(len(at), np.int64)
    starts = np.flatnonzero(np.concatenate((np.array([True]), np.diff(buckets) != 0)))
    counts = np.diff(np.append(starts, len(at)))
    finite = np.isfinite(values)
    some = np.add.reduceat(finite.astype(np.int64), starts) > 0
    low = np.where(some, np.minimum.reduceat(np.where(finite, values, np.inf), starts), np.nan)
    high = np.where(some, np.maximum.reduceat(np.where(finite, values, -np.inf), starts), np.nan)
    match how:
        case Aggregate.MIN:
            result = low
        case Aggregate.MAX:
            result = high
        case Aggregate.COUNT:
            result = counts.astype(np.float64)
        case Aggregate.LAST:
            result = values[starts + counts - 1]
        case Aggregate.SUM | Aggregate.AVG:
            with np.errstate(all="ignore"):
                sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
                if how is Aggregate.AVG:
                    sums = sums / np.add.reduceat(finite.astype(np.int64), starts)
            result = np.where(some, sums, np.nan)
        case Aggregate.RATE:
            span = width if width is not None else int(at[-1]) - int(at[0])
            known = np.isfinite(growth)
            with np.errstate(all="ignore"):
                rates = np.add.reduceat(np.where(known, growth, 0.0), starts) / (np.float64(span) / 1000)
            result = np.where(np.add.reduceat(known.astype(np.int64), starts) > 0, rates, np.nan)
        case _:
            result = _quantile(values, np.repeat(np.arange(len(starts)), counts), len(starts), _QUANTILES[how])
    where = buckets[starts] * width if width is not None else at[starts]
    return Thinned(_at(where, result), Method.NONE, width, low, high, counts)


def _at(at: Ints, values: Floats) -> History:
    return History(np.zeros(len(at), np.int64), np.ones(len(at), np.bool_), at, values)


def _growth(counter: History) -> Floats:
    """By how much a counter had grown at each of its points since the one before; NaN where that is not known."""
    growth = np.full(len(counter.at), np.nan)
    order = np.argsort(counter.at, kind="stable")
    order = order[np.isfinite(counter.values[order])]
    values = counter.values[order]
    with np.errstate(over="ignore"):
        risen = np.diff(values)
    growth[order[1:]] = np.where(risen < 0, values[1:], risen)
    return growth


def _quantile(values: Floats, buckets: Ints, size: int, quantile: float) -> Floats:
    finite = np.isfinite(values)
    values, buckets = values[finite], buckets[finite]
    values = values[np.lexsort((values, buckets))]
    counts = np.bincount(buckets, minlength=size)
    ends = np.cumsum(counts)
    place = quantile * np.maximum(counts - 1, 0)
    below = np.floor(place).astype(np.int64)
    share = place - below
    result = np.full(size, np.nan)
    some = counts > 0
    first = (ends - counts)[some]
    lower = values[first + below[some]]
    upper = values[first + np.minimum(below + 1, counts - 1)[some]]
    result[some] = lower * (1 - share[some]) + upper * share[some]
    return result
