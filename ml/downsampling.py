"""Thinning a metric's history to what a chart can show, without hiding what happened.

A history is three columns of equal length: steps (or none), times in epoch milliseconds, values. Buckets are of equal
width along an axis; extremes and means are those of the finite values. Everything here is deterministic.

LTTB is Largest-Triangle-Three-Buckets: Sveinn Steinarsson, Downsampling Time Series for Visual Representation, 2013,
section 4.2.
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_NARROW = 64

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Method(StrEnum):
    """MIN_MAX keeps the first and the last point and every bucket's extremes; LTTB keeps the shape, the first and the
    last; AVG and LAST put one point in the place of a bucket."""

    MIN_MAX = "MIN_MAX"
    LTTB = "LTTB"
    AVG = "AVG"
    LAST = "LAST"
    NONE = "NONE"


class Axis(StrEnum):
    """Along what buckets are of equal width. TIME: buckets begin at multiples of their width, so that histories line
    up; RELATIVE_TIME: they begin at the history's own first point. Without steps STEP is RELATIVE_TIME.

    MIN_MAX lines its buckets up along STEP, too, and makes wide ones two or three times a power of two wide, so that
    they are made of the cells of rollups (`ml.packing`)."""

    STEP = "STEP"
    TIME = "TIME"
    RELATIVE_TIME = "RELATIVE_TIME"


class History(NamedTuple):
    """Points of one metric; `stepless` marks those without a step (their entry in `steps` means nothing)."""

    steps: Ints
    stepless: NDArray[np.bool_]
    at: Ints
    values: Floats


class Thinned(NamedTuple):
    """What is left of a history. `width` is that of a bucket in milliseconds, when buckets are of time.

    `low`, `high` and `counts` are given when a point stands for a bucket: the range of its finite values (NaN when it
    has none) and the number of its points.
    """

    history: History
    method: Method
    width: int | None = None
    low: Floats | None = None
    high: Floats | None = None
    counts: Ints | None = None


class _Buckets(NamedTuple):
    """Where each bucket that holds a point begins, in points sorted along the axis."""

    starts: Ints
    lengths: Ints


def thinned(history: History, *, max_points: int, method: Method, axis: Axis, size: int | None = None) -> Thinned:
    """At most `max_points` (two or more) points of a history, in the order of the axis.

    A history that is short enough comes back whole, with the method NONE. MIN_MAX gives the same of a history of
    `size` points in which cells of `cell_width` or less have been thinned to their extremes before, and its ends kept.
    """
    if method is Method.NONE or (size or len(history.at)) <= max_points:
        return Thinned(history, Method.NONE)
    by_step = axis is Axis.STEP and not history.stepless.any()
    along = history.steps if by_step else history.at
    if not by_step and (np.diff(along) < 0).any():
        order = np.argsort(along, kind="stable")
        history, along = _taken(history, order), along[order]
    if method is Method.LTTB:
        return Thinned(_taken(history, _largest_triangles(along, history.values, max_points)), method)
    most = _min_max_buckets(max_points) if method is Method.MIN_MAX else max_points
    if not most:
        return Thinned(_taken(history, np.array([0, len(along) - 1])), method)
    first, last = int(along[0]), int(along[-1])
    if method is Method.MIN_MAX and _of_cells(axis, most):
        width, origin = _width_of_cells(first, last, most), 0
    elif axis is Axis.TIME and most > 1:
        width, origin = -(-(last - first + 1) // (most - 1)), 0
    else:
        width, origin = -(-(last - first + 1) // most), first
    buckets = _buckets(along, width, origin)
    if method is Method.MIN_MAX:
        return Thinned(_taken(history, _ends_and_extremes(history.values, buckets)), method, None if by_step else width)
    lowest, highest = _extremes(history.values, buckets)
    if method is Method.LAST:
        represented = _taken(history, buckets.starts + buckets.lengths - 1)
    else:
        represented = _taken(history, buckets.starts)._replace(values=_means(history.values, buckets))
    return Thinned(
        represented,
        method,
        None if by_step else width,
        low=_finite_or_nan(history.values[lowest]),
        high=_finite_or_nan(history.values[highest]),
        counts=buckets.lengths,
    )


def _taken(history: History, which: Ints) -> History:
    return History(history.steps[which], history.stepless[which], history.at[which], history.values[which])


def cell_width(first: int, last: int, *, max_points: int) -> int:
    """The widest cells, a power of two, that fit into the buckets of MIN_MAX along STEP or TIME from `first` to `last`;
    zero when there are no such buckets."""
    most = _min_max_buckets(max_points)
    if not _of_cells(Axis.STEP, most):
        return 0
    width = _width_of_cells(first, last, most)
    return width & -width


def of_cells(along: Ints, values: Floats, width: int) -> Ints:
    """The indexes of the first and the last point and of the extremes of each cell; cells begin at multiples of
    `width`."""
    return _ends_and_extremes(values, _buckets(along, width, 0))


def _min_max_buckets(max_points: int) -> int:
    return (max_points - 2) // 2


def _of_cells(axis: Axis, most: int) -> bool:
    return axis is not Axis.RELATIVE_TIME and most > 1


def _width_of_cells(first: int, last: int, most: int) -> int:
    """How wide at most `most` buckets are that begin at multiples of their width and hold everything."""
    width = _round(-(-(last - first + 1) // most))
    while last // width - first // width + 1 > most:
        width = _round(width + 1)
    return width


def _round(width: int) -> int:
    """The next width from this one on that is narrow, or two or three times a power of two."""
    zeros = max(0, width.bit_length() - 2) if width > _NARROW else 0
    return -(-width >> zeros) << zeros


def _buckets(along: Ints, width: int, origin: int) -> _Buckets:
    """Buckets over sorted positions; the first begins at `origin`."""
    starts = np.flatnonzero(np.concatenate((np.array([True]), np.diff((along - origin) // width) != 0)))
    return _Buckets(starts, np.diff(np.append(starts, len(along))))


def _ends_and_extremes(values: Floats, buckets: _Buckets) -> Ints:
    lowest, highest = _extremes(values, buckets)
    return np.unique(np.concatenate((np.array([0, len(values) - 1]), lowest, highest)))


def _extremes(values: Floats, buckets: _Buckets) -> tuple[Ints, Ints]:
    """The index of each bucket's lowest and highest finite value, the first of equals; without one, its first point."""
    finite = np.isfinite(values)
    lows, highs = np.where(finite, values, np.inf), np.where(finite, values, -np.inf)
    return _first_equal(lows, np.minimum.reduceat(lows, buckets.starts), buckets), _first_equal(
        highs, np.maximum.reduceat(highs, buckets.starts), buckets
    )


def _first_equal(values: Floats, wanted: Floats, buckets: _Buckets) -> Ints:
    hits = np.flatnonzero(values == np.repeat(wanted, buckets.lengths))
    return hits[np.searchsorted(hits, buckets.starts)]


def _means(values: Floats, buckets: _Buckets) -> Floats:
    """The mean of each bucket's finite values; NaN without one."""
    finite = np.isfinite(values)
    counts = np.add.reduceat(finite.astype(np.int64), buckets.starts)
    kept = np.where(finite, values, 0.0)
    with np.errstate(all="ignore"):
        means = np.add.reduceat(kept, buckets.starts) / counts
        if not np.isfinite(means[counts > 0]).all():  # the sum is beyond the largest double, the mean is not
            means = np.add.reduceat(kept / np.repeat(counts, buckets.lengths), buckets.starts)
    return np.where(counts > 0, means, np.nan)


def _finite_or_nan(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


def _largest_triangles(along: Ints, values: Floats, max_points: int) -> Ints:
    """The indexes that LTTB keeps: the first, the last, and of each bucket between them the point that spans the
    largest triangle with the one kept before and the mean of the next bucket. Points that are not finite are passed
    over."""
    last = len(values) - 1
    inner = np.flatnonzero(np.isfinite(values[1:-1])) + 1
    if max_points == 2 or len(inner) <= max_points - 2:
        return np.concatenate((np.array([0]), inner[: max(0, max_points - 2)], np.array([last])))
    x = (along - along[0]).astype(np.float64)
    y = values.copy()
    for end, nearest in ((0, inner[0]), (last, inner[-1])):
        if not np.isfinite(y[end]):
            y[end] = y[nearest]
    y /= max(1.0, float(np.abs(y[inner]).max()), abs(float(y[0])), abs(float(y[last])))
    edges = np.linspace(0, len(inner), max_points - 1).astype(np.int64)
    counts = np.diff(edges)
    mean_x = np.append(np.add.reduceat(x[inner], edges[:-1]) / counts, x[last])
    mean_y = np.append(np.add.reduceat(y[inner], edges[:-1]) / counts, y[last])
    kept = np.empty(max_points, np.int64)
    kept[0], kept[-1] = 0, last
    before = 0
    for bucket in range(max_points - 2):
        mine = inner[edges[bucket] : edges[bucket + 1]]
        next_x, next_y = mean_x[bucket + 1], mean_y[bucket + 1]
        areas = np.abs((x[before] - next_x) * (y[mine] - y[before]) - (x[before] - x[mine]) * (next_y - y[before]))
        before = int(mine[np.argmax(areas)])
        kept[bucket + 1] = before
    return kept
