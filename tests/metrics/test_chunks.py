"""Points in chunks: whatever order they come in, they are there once, exactly, and are handed on once."""

import asyncio
import itertools
import math
import random
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from db.database import DatabaseUnavailable
from db.metrics import histories, points, stream
from db.metrics.selection import Selector
from db.tables import metric_chunks, metric_points
from db.vocabulary import MetricScope
from domain.metrics import record_points
from ml import packing
from ml.downsampling import Axis, History, Method, thinned
from tests.metrics.documents import SUMMARY, curve, gid

ALL_TIMES = {"time": {"from": "1970-01-01T00:00:00Z"}}


@pytest.fixture
def small(monkeypatch):
    """Chunks of 16 points, so that everything that happens to chunks happens to a few points."""
    monkeypatch.setattr(packing, "CHUNK", 16)
    monkeypatch.setattr(packing, "_CELLS", 4)
    monkeypatch.setattr(points, "AT_ONCE", 4)
    monkeypatch.setattr(points, "FOLDED_FROM", 8)
    monkeypatch.setattr(points, "_SMALL", 8)
    monkeypatch.setattr(points, "_MANY_SMALL", 3)
    monkeypatch.setattr(points, "_WRITTEN_TOGETHER", 2)
    monkeypatch.setattr(histories, "_LONG", 6)
    monkeypatch.setattr(stream, "_MOST_IN_A_BATCH", 20)


@pytest.fixture
def record(db, project, run):
    async def write(name, places, values, **more):
        steps = [step for step, _ in places]
        async with db.transaction() as session:
            await record_points(
                session,
                project_id=project.id,
                run_id=run.id,
                scope=MetricScope.RUN,
                points={name: (None if None in steps else steps, [at for _, at in places], values)},
                **more,
            )

    return write


async def stored(db):
    """How many points stand as rows, and how many each chunk has, in the order of their series."""
    order = (metric_chunks.c.first_step, metric_chunks.c.first_at)
    async with db.reading() as session:
        rows = await session.scalar(select(func.count()).select_from(metric_points))
        chunks = await session.records(select(metric_chunks.c.points).order_by(*order))
    return rows, [record[0] for record in chunks]


def straight(run, first, size, **more):
    steps = list(range(first, first + size))
    return curve(run, steps=steps, at=[1000 * step for step in steps], values=[step / 8 for step in steps], **more)


async def test_a_long_batch_becomes_chunks_and_reads_as_it_was_written(ingest, ask, db, run):
    size = 40_000

    made = await ingest(straight(run, 0, size))
    again = await ingest(straight(run, size - 100, 200))

    assert (made["accepted"], again["accepted"], again["duplicates"]) == (size, 100, 100)
    assert await stored(db) == (100, [13_333, 13_333, 13_334])
    (group,) = (await ask())["groups"]
    columns = group["data"]["columns"]
    assert columns["step"] == list(range(size + 100))
    assert columns["at"] == [1000 * step for step in range(size + 100)]
    assert columns["value"] == [step / 8 for step in range(size + 100)]


async def test_short_batches_are_rows_until_there_are_many(ingest, db, run):
    for part in range(10):
        await ingest(straight(run, part * 100, 100))
    before = await stored(db)
    await ingest(straight(run, 1000, 100))

    assert before == (1000, [])
    assert await stored(db) == (0, [1100])


async def test_many_small_chunks_become_one(ingest, ask, db, run):
    for part in range(15):
        await ingest(straight(run, part * 200, 200))
    before = await stored(db)
    await ingest(straight(run, 3000, 200))

    assert before == (0, [200] * 15)
    assert await stored(db) == (0, [3200])
    (group,) = (await ask())["groups"]
    assert group["data"]["columns"]["value"] == [step / 8 for step in range(3200)]


async def test_a_batch_that_came_before_is_known_in_chunks(ingest, db, run):
    await ingest(straight(run, 0, 2000))

    again = await ingest(straight(run, 500, 1000))
    few = await ingest(straight(run, 700, 3))
    other_times = await ingest(curve(run, steps=[5, 700], at=[1, 700_000], values=[9.0, 9.0]))

    assert [(one["accepted"], one["duplicates"]) for one in (again, few, other_times)] == [(0, 1000), (0, 3), (1, 1)]
    assert await stored(db) == (1, [2000])


async def test_points_come_and_go_with_their_series(ingest, execute, admin, project, db, run):
    await ingest(straight(run, 0, 2000))

    deleted = await execute(
        """mutation ($input: DeleteMetricSeriesInput!) {
          deleteMetricSeries(input: $input) { series points errors { code } }
        }""",
        principal=admin,
        input={
            "projectId": gid("project", project.id),
            "selector": {"scope": "RUN", "names": ["*"]},
            "dryRun": False,
        },
    )

    assert deleted["data"]["deleteMetricSeries"] == {"series": 1, "points": "2000", "errors": []}
    assert await stored(db) == (0, [])


@pytest.mark.parametrize(
    ("range", "first", "last"),
    [
        ({"steps": {"from": 1_000}}, 1_000, 99_999),
        ({"steps": {"from": 20_000, "to": 90_001}}, 20_000, 90_001),
        ({"time": {"from": "1970-01-01T02:46:40Z", "to": "1970-01-02T03:46:39.999Z"}}, 10_000, 99_999),
    ],
)
async def test_an_envelope_of_a_long_history_comes_from_rollups(ingest, ask, statements, run, range, first, last):
    values = np.random.default_rng(3).normal(size=100_000).cumsum()
    steps = np.arange(100_000)
    await ingest(curve(run, steps=steps.tolist(), at=(steps * 1000).tolist(), values=values.tolist()))

    with statements() as seen:
        (group,) = (await ask(range=range, downsample={"maxPoints": 500}))["groups"]

    data = group["data"]
    kept = slice(first, last + 1)
    whole = History(steps[kept], np.zeros(last + 1 - first, np.bool_), steps[kept] * 1000, values[kept])
    wanted = thinned(whole, max_points=500, method=Method.MIN_MAX, axis=Axis.STEP)
    assert (data["totalPoints"], data["method"]) == (str(last + 1 - first), "MIN_MAX")
    assert data["columns"]["step"] == wanted.history.steps.tolist()
    assert data["columns"]["value"] == wanted.history.values.tolist()
    assert 300 < data["returnedPoints"] <= 500
    assert any("string_agg" in statement for statement in seen)


async def test_what_a_snapshot_did_not_see_is_not_in_an_envelope(db, project, run, record, small):
    await record("a", [(step, step) for step in range(40)], [float(step) for step in range(40)])
    async with db.reading() as session:
        as_of = await histories.snapshot(session)
        await record("a", [(step, step) for step in range(40, 60)], [99.0] * 20)
        (series,) = await histories.series.selected(session, Selector(), limit=1)
        wanted = histories.Wanted(method="MIN_MAX", max_points=8)
        seen = await histories.of_series(session, [series.sized], wanted, as_of=as_of)
        now = await histories.of_series(session, [series.sized], wanted)

    seen, now = seen[series.sized], now[series.sized]
    assert (seen.total_points, seen.thinned.history.steps[-1], seen.thinned.history.values.max()) == (40, 39, 39.0)
    assert (now.total_points, now.thinned.history.steps[-1], now.thinned.history.values.max()) == (60, 59, 99.0)


async def test_what_is_trained_again_replaces_chunks(execute, admin, ask, run, record, small, db):
    await record("valid.auc", [(step, step) for step in range(40)], [float(step) for step in range(40)])

    await record("valid.auc", [(20, 100), (21, 101)], [0.5, -1.0], replace=True)

    (group,) = (await ask())["groups"]
    assert group["data"]["columns"]["step"] == list(range(22))
    assert group["data"]["columns"]["at"] == [*range(20), 100, 101]
    found = await execute(SUMMARY, principal=admin, id=gid("run", run.id))
    (summary,) = found["data"]["trainingRun"]["summary"]
    assert (summary["count"], summary["min"], summary["max"]) == ("22", -1.0, 19.0)
    assert summary["mean"] == (sum(range(20)) - 0.5) / 22
    assert summary["last"]["value"] == -1.0


# ── Whatever comes in whatever order ────────────────────────────────────────────────────────────────────────────────

_numbers = itertools.count()
PLACE = st.tuples(st.one_of(st.integers(-30, 200), st.none()), st.integers(0, 3))
BATCH = st.one_of(
    st.lists(st.tuples(PLACE, st.floats()), min_size=1, max_size=12),
    st.builds(
        lambda first, size, value: [((step, 1), value) for step in range(first, first + size)],
        st.integers(-30, 300),
        st.integers(1, 40),
        st.floats(),
    ),
    st.builds(
        lambda first, size, value: [((None, at), value) for at in range(first, first + size)],
        st.integers(0, 100),
        st.integers(1, 20),
        st.floats(),
    ),
)


def _bits(value):
    return struct.pack("<d", value) if not math.isnan(value) else b"nan"


def _order(place):
    return place[0] is None, place[0] or 0, place[1]


@given(batches=st.lists(BATCH, min_size=1, max_size=12), most=st.integers(6, 20))
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
async def test_points_are_there_once_bit_for_bit_and_are_handed_on_once(db, project, run, small, batches, most):
    name = f"series {next(_numbers)}"
    selector = Selector(names=(name,), run_ids=(run.id,))
    model, handed_on = {}, []
    async with db.reading() as session:
        cursor = await histories.snapshot(session)
    for number, batch in enumerate(batches):
        with_steps = [one for one in batch if one[0][0] is not None]
        for some in (with_steps, [one for one in batch if one not in with_steps]):
            if some:
                columns = [step for (step, _), _ in some], [at for (_, at), _ in some], [value for _, value in some]
                await _record(db, project, run, name, columns if some is with_steps else (None, *columns[1:]))
            for place, value in some:
                model.setdefault(place, value)
        if number % 3 == 0:
            cursor = await _hand_on(db, selector, cursor, handed_on)
    await _hand_on(db, selector, cursor, handed_on)

    wanted = [(place, _bits(model[place])) for place in sorted(model, key=_order)]
    assert sorted(handed_on) == sorted((at, value) for (_, at), value in wanted)
    async with db.reading() as session:
        (series,) = await histories.series.selected(session, selector, limit=1)
        whole = (await histories.of_series(session, [series.sized], histories.Wanted()))[series.sized]
        envelope = await histories.of_series(
            session, [series.sized], histories.Wanted(method="MIN_MAX", max_points=most)
        )
        (last,), _ = await stream.newest(session, selector)
        chunks = await histories.chunks.bounds(session, [series.id])
    assert _points(whole.thinned.history) == wanted
    alone = thinned(whole.thinned.history, max_points=most, method=Method.MIN_MAX, axis=Axis.STEP)
    assert _points(envelope[series.sized].thinned.history) == _points(alone.history)
    assert (envelope[series.sized].total_points, whole.total_points) == (len(model), len(model))
    assert last.columns.at == [at for (_, at), _ in wanted[-stream.NEWEST :]]
    assert all(one.last < other.first for one, other in itertools.pairwise(chunks))
    finite = [value for value in model.values() if math.isfinite(value)]
    assert (series.point_count, series.finite_count) == (len(model), len(finite))
    assert (series.min_value, series.max_value) == ((min(finite), max(finite)) if finite else (None, None))


async def _hand_on(db, selector, cursor, handed_on):
    """What a reader gets from its cursor on, until there is nothing more; where it stands then."""
    while True:
        async with db.reading() as session:
            fresh, cursor = await stream.unseen(session, selector, cursor)
        if not fresh:
            return cursor
        (series,) = fresh
        handed_on += zip(series.columns.at, map(_bits, series.columns.value), strict=True)


async def _record(db, project, run, name, columns):
    async with db.transaction() as session:
        await record_points(
            session, project_id=project.id, run_id=run.id, scope=MetricScope.RUN, points={name: columns}
        )


def _points(history):
    return [
        ((None if stepless else step, at), _bits(value))
        for step, stepless, at, value in zip(*(column.tolist() for column in history), strict=True)
    ]


# ── Killed in the middle ────────────────────────────────────────────────────────────────────────────────────────────


AT_WORK = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'headai' AND xact_start IS NOT NULL AND pid != pg_backend_pid()
"""


async def test_a_compaction_that_is_killed_at_random_loses_and_repeats_nothing(db, project, run, small, ask):
    chance = random.Random(11)
    written, killed = {"a": {}, "b": {}}, 0

    async def write(name):
        for first in range(0, 300, 6):
            values = {}
            for step in range(first, first + 6):
                values.setdefault(step + chance.choice([0, 0, -30]), step / 3)
            columns = (list(values), [7] * len(values), list(values.values()))
            while True:
                try:
                    await _record(db, project, run, name, columns)
                    break
                except DatabaseUnavailable:
                    pass  # nobody knows whether it is there: write it again
            for step, value in values.items():
                written[name].setdefault(step, value)

    async def kill():
        nonlocal killed
        while killed < 30:
            await asyncio.sleep(chance.uniform(0, 0.05))
            with suppress(DatabaseUnavailable):
                async with db.reading() as session:
                    killed += await session.scalar(text(AT_WORK))

    killer = asyncio.create_task(kill())
    try:
        await asyncio.gather(write("a"), write("b"))
    finally:
        killer.cancel()

    assert killed > 5
    for group in (await ask(range=ALL_TIMES))["groups"]:
        columns = group["data"]["columns"]
        assert dict(zip(columns["step"], columns["value"], strict=True)) == written[group["name"]]
        assert len(columns["step"]) == len(written[group["name"]])
    rows, chunks = await stored(db)
    assert rows + sum(chunks) == len(written["a"]) + len(written["b"])
    assert chunks
