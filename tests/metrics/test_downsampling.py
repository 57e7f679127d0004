"""Thinned histories: what each method keeps, for any history."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.downsampling import Axis, History, Method, thinned

FLOATS = st.floats(width=64)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def history(values, steps=None, at=None):
    size = len(values)
    return History(
        np.arange(size, dtype=np.int64) if steps is None else np.array(steps, np.int64),
        np.zeros(size, np.bool_),
        np.arange(size, dtype=np.int64) * 1000 if at is None else np.array(at, np.int64),
        np.array(values, np.float64),
    )


def points(thin):
    kept = thin.history
    return list(zip(kept.steps.tolist(), kept.at.tolist(), [_bits(value) for value in kept.values], strict=True))


def _bits(value):
    return np.float64(value).tobytes()


@st.composite
def histories(draw, values=FLOATS):
    drawn = draw(st.lists(values, min_size=1, max_size=200))
    gaps = draw(st.lists(st.integers(1, 10**9), min_size=len(drawn), max_size=len(drawn)))
    steps = np.cumsum(gaps)
    return history(drawn, steps, steps * 7)


@given(histories(), st.integers(2, 50), st.sampled_from(Method), st.sampled_from(Axis))
def test_never_more_points_than_asked_for_and_always_the_same(given, most, method, axis):
    first = thinned(given, max_points=most, method=method, axis=axis)
    again = thinned(given, max_points=most, method=method, axis=axis)

    assert points(first) == points(again)
    if method is Method.NONE or len(given.at) <= most:
        assert first.method is Method.NONE
        assert points(first) == points(thinned(given, max_points=10**6, method=Method.NONE, axis=axis))
    else:
        assert first.method is method
        assert 1 <= len(first.history.at) <= most


@given(histories(), st.integers(2, 50), st.sampled_from([Method.MIN_MAX, Method.LTTB, Method.LAST]))
def test_points_are_those_of_the_history_in_its_order(given, most, method):
    whole = points(thinned(given, max_points=10**6, method=Method.NONE, axis=Axis.STEP))

    kept = points(thinned(given, max_points=most, method=method, axis=Axis.STEP))

    places = [whole.index(point) for point in kept]
    assert places == sorted(set(places))
    assert kept[-1] == whole[-1]
    if method is not Method.LAST:
        assert kept[0] == whole[0]


@given(histories(FINITE), st.integers(4, 50))
def test_min_max_keeps_the_extremes(given, most):
    kept = thinned(given, max_points=most, method=Method.MIN_MAX, axis=Axis.STEP).history.values

    assert kept.min() == given.values.min()
    assert kept.max() == given.values.max()


@given(histories(FINITE), st.integers(2, 50), st.sampled_from(Axis))
def test_a_bucket_counts_every_point_once_and_knows_its_range(given, most, axis):
    thin = thinned(given, max_points=most, method=Method.AVG, axis=axis)
    if thin.counts is None:
        assert len(given.at) <= most
        return

    assert thin.counts.sum() == len(given.at)
    assert thin.low.min() == given.values.min()
    assert thin.high.max() == given.values.max()
    assert np.isfinite(thin.history.values).all()


def test_every_buckets_extremes_are_there():
    values = [0, 5, -5, 1, 2, 9, -9, 3, 4, 4, 4, 4, 7]

    thin = thinned(history(values), max_points=8, method=Method.MIN_MAX, axis=Axis.STEP)

    # Three buckets of five steps: 0..4, 5..9, 10..12, and the ends.
    assert thin.history.steps.tolist() == [0, 1, 2, 5, 6, 10, 12]


def test_values_that_are_not_finite_do_not_hide_the_others():
    values = [0.0, math.nan, 3.0, math.inf, 1.0, math.nan, math.nan, math.nan, -math.inf, 2.0]

    kept = thinned(history(values), max_points=6, method=Method.MIN_MAX, axis=Axis.STEP)
    mean = thinned(history(values), max_points=2, method=Method.AVG, axis=Axis.STEP)

    assert kept.history.steps.tolist() == [0, 2, 9]
    assert mean.history.values.tolist() == [4 / 3, 2.0]
    assert (mean.low.tolist(), mean.high.tolist(), mean.counts.tolist()) == ([0.0, 2.0], [3.0, 2.0], [5, 5])


def test_a_bucket_of_nothing_finite_stays_visible():
    thin = thinned(history([1.0, 1.0, math.nan, math.nan]), max_points=2, method=Method.AVG, axis=Axis.STEP)

    assert thin.history.steps.tolist() == [0, 2]
    assert thin.history.values[0] == 1.0
    assert math.isnan(thin.history.values[1])
    assert math.isnan(thin.low[1])


def test_means_of_the_largest_doubles_do_not_overflow():
    thin = thinned(history([1.7e308] * 4), max_points=2, method=Method.AVG, axis=Axis.STEP)

    assert thin.history.values.tolist() == [1.7e308, 1.7e308]


def test_lttb_keeps_the_corners_of_a_shape():
    values = [0.0] * 20
    values[10] = 5.0

    thin = thinned(history(values), max_points=5, method=Method.LTTB, axis=Axis.STEP)

    assert len(thin.history.at) == 5
    assert 10 in thin.history.steps.tolist()


def test_buckets_of_time_line_up_across_histories():
    one = thinned(history([1.0] * 10, at=range(3, 103, 10)), max_points=6, method=Method.LAST, axis=Axis.TIME)
    other = thinned(history([1.0] * 10, at=range(7, 107, 10)), max_points=6, method=Method.LAST, axis=Axis.TIME)

    assert one.width == other.width == 19
    assert [at // 19 for at in one.history.at.tolist()] == [0, 1, 2, 3, 4]
    assert [at // 19 for at in other.history.at.tolist()] == [0, 1, 2, 3, 4, 5]


def test_along_time_points_come_in_the_order_of_time():
    thin = thinned(history([3.0, 1.0, 2.0], at=[30, 10, 20]), max_points=2, method=Method.LTTB, axis=Axis.TIME)

    assert thin.history.at.tolist() == [10, 30]


@pytest.mark.parametrize("axis", [Axis.STEP, Axis.TIME])
def test_without_steps_the_axis_is_time(axis):
    given = history([float(value) for value in range(10)])._replace(stepless=np.ones(10, np.bool_))

    thin = thinned(given, max_points=5, method=Method.AVG, axis=axis)

    assert thin.width == (1801 if axis is Axis.STEP else 2251)
