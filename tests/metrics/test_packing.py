"""Chunks and rollups: everything comes back as it was, and an envelope from rollups is the envelope."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import packing
from ml.downsampling import Axis, History, Method, cell_width, thinned
from ml.packing import (
    Stored,
    contained,
    in_order,
    joined,
    pack_integers,
    pieces,
    roll_up,
    rolled,
    taken,
    unpack_integers,
)

INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-200, 200))
PLACES = st.tuples(st.one_of(st.none(), st.integers(-20, 20)), st.integers(0, 5))


def history(places, values=None):
    return History(
        np.array([step or 0 for step, _ in places], np.int64),
        np.array([step is None for step, _ in places], np.bool_),
        np.array([at for _, at in places], np.int64),
        np.array(values if values is not None else [0.0] * len(places), np.float64),
    )


def listed(points):
    return [
        (None if stepless else step, at, value.tobytes())
        for step, stepless, at, value in zip(
            points.steps.tolist(), points.stepless.tolist(), points.at.tolist(), points.values, strict=True
        )
    ]


@given(st.lists(INTEGERS, min_size=1, max_size=50))
def test_integers_come_back(numbers):
    packed = pack_integers(np.array(numbers, np.int64))

    assert unpack_integers(packed, len(numbers)).tolist() == numbers


def test_integers_take_no_more_bytes_than_their_differences_need():
    regular = np.arange(1000, dtype=np.int64) * 7 + 2**40
    jittered = regular.copy()
    jittered[500] += 3

    assert (len(pack_integers(regular)), len(pack_integers(jittered))) == (17, 9 + 999)


@given(st.lists(PLACES, min_size=1, max_size=40, unique=True), st.lists(PLACES, max_size=40, unique=True))
def test_which_points_are_there_already(some, others):
    found = contained(history(some), history(others))

    assert found.tolist() == [place in others for place in some]


@given(st.lists(PLACES, min_size=1, max_size=60))
def test_points_of_one_place_stay_in_the_order_they_came_in(places):
    given = history(places, [float(number) for number in range(len(places))])

    order = in_order(given)

    found = given if order is None else taken(given, order)
    wanted = sorted(range(len(places)), key=lambda i: (places[i][0] is None, places[i][0] or 0, places[i][1]))
    assert found.values.tolist() == [float(number) for number in wanted]


@st.composite
def curves(draw):
    """A history along steps, or along time alone, with gaps, cut into chunks of various lengths."""
    values = draw(st.lists(st.floats(width=64), min_size=40, max_size=400))
    gaps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 3, 50, 4000]), min_size=len(values), max_size=len(values)))
    along = np.cumsum(gaps) + draw(st.sampled_from([0, -150, 2**40 + 7]))
    stepless = draw(st.booleans())
    size = len(values)
    whole = History(
        np.zeros(size, np.int64) if stepless else along,
        np.full(size, stepless),
        along if stepless else along * 3 % 1009,
        np.array(values),
    )
    cuts = sorted(draw(st.sets(st.integers(1, size - 1), max_size=6)))
    return whole, [slice(low, high) for low, high in zip([0, *cuts], [*cuts, size], strict=True)]


@given(curves(), st.integers(6, 39), st.sampled_from([0, 4]))
@settings(max_examples=200)
def test_an_envelope_of_rollups_is_the_envelope(curve, most, coarser):
    whole, cuts = curve
    axis = Axis.TIME if whole.stepless[0] else Axis.STEP
    along = whole.at if whole.stepless[0] else whole.steps
    width = cell_width(int(along[0]), int(along[-1]), max_points=most)
    parts = []
    for cut in cuts:
        rollup = roll_up(taken(whole, cut))
        fits = 1 << (rollup.cell + coarser) <= width
        packed = rollup.coarse if coarser else rollup.fine
        parts.append(rolled(packed, stepless=bool(whole.stepless[0])) if fits else taken(whole, cut))

    found = thinned(joined(parts), max_points=most, method=Method.MIN_MAX, axis=axis, size=len(along))

    wanted = thinned(whole, max_points=most, method=Method.MIN_MAX, axis=axis)
    assert listed(found.history) == listed(wanted.history)
    assert (found.width, found.method, wanted.method) == (wanted.width, Method.MIN_MAX, Method.MIN_MAX)


def test_chunks_are_about_equally_long_and_do_not_mix_points_with_and_without_steps():
    places = [(step, 0) for step in range(packing.CHUNK + 2)] + [(None, at) for at in range(3)]
    points = Stored(history(places), np.zeros(len(places), np.int64))

    cut = list(pieces(points))

    assert [len(piece) for piece in cut] == [packing.CHUNK // 2 + 1, packing.CHUNK // 2 + 1, 3]
    assert [listed(piece.history)[0][0] for piece in cut] == [0, packing.CHUNK // 2 + 1, None]


def test_a_whole_chunk_has_rollups_of_a_few_kilobytes():
    size = packing.CHUNK
    rollup = roll_up(history([(step, step) for step in range(size)], np.random.default_rng(7).normal(size=size)))

    assert rollup.cell == 7
    assert (len(rollup.fine), len(rollup.coarse)) == (24 * 258, 24 * 18)
