"""Aggregated histories: each way to aggregate against plain Python, for any points."""

import math
import statistics
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.aggregation import Aggregate, aggregated
from ml.downsampling import History

POINT = st.tuples(st.integers(0, 100), st.one_of(st.integers(-1000, 1000).map(float), st.just(math.nan)))
WAYS = {
    Aggregate.MIN: min,
    Aggregate.MAX: max,
    Aggregate.SUM: sum,
    Aggregate.AVG: statistics.fmean,
    Aggregate.P50: lambda values: float(np.percentile(values, 50)),
    Aggregate.P90: lambda values: float(np.percentile(values, 90)),
    Aggregate.P95: lambda values: float(np.percentile(values, 95)),
    Aggregate.P99: lambda values: float(np.percentile(values, 99)),
}


def history(*points):
    size = len(points)
    at = np.array([at for at, _ in points], np.int64)
    return History(np.zeros(size, np.int64), np.ones(size, np.bool_), at, np.array([v for _, v in points], np.float64))


def shown(thin):
    values = [None if math.isnan(value) else value for value in thin.history.values.tolist()]
    return list(zip(thin.history.at.tolist(), values, strict=True))


@given(st.lists(st.lists(POINT, max_size=30), max_size=4), st.sampled_from(list(WAYS)), st.integers(1, 60))
def test_the_finite_values_of_a_bucket(given_series, how, width):
    buckets = defaultdict(list)
    for at, value in (point for series in given_series for point in series):
        buckets[at // width * width].append(value)

    thin = aggregated([history(*series) for series in given_series], how=how, width=width)

    expected = []
    for at, values in sorted(buckets.items()):
        finite = [value for value in values if math.isfinite(value)]
        expected.append((at, pytest.approx(WAYS[how](finite), rel=1e-12, abs=1e-9) if finite else None))
    assert shown(thin) == expected
    assert thin.counts is not None
    assert thin.counts.tolist() == [len(values) for _, values in sorted(buckets.items())]


def test_count_and_last_take_every_point():
    given_series = [history((0, 1.0), (9, 2.0)), history((5, math.nan), (11, math.nan))]

    assert shown(aggregated(given_series, how=Aggregate.COUNT, width=10)) == [(0, 3.0), (10, 1.0)]
    assert shown(aggregated(given_series, how=Aggregate.LAST, width=10)) == [(0, 2.0), (10, None)]
    assert shown(aggregated(given_series, how=Aggregate.COUNT, width=None)) == [(0, 4.0)]


def test_the_rate_of_counters_adds_up_and_a_fall_is_a_start_from_zero():
    one, other = history((0, 5.0), (1000, 8.0), (2500, 2.0)), history((500, 0.0), (1500, 1.0))

    assert shown(aggregated([one, other], how=Aggregate.RATE, width=1000)) == [(0, None), (1000, 4.0), (2000, 2.0)]
    assert shown(aggregated([one], how=Aggregate.RATE, width=None)) == [(0, 2.0)]
    assert shown(aggregated([history((7, 3.0))], how=Aggregate.RATE, width=None)) == [(7, None)]
