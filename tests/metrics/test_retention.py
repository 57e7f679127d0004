"""Points of metrics that belong to no run are deleted when they are as old as is kept."""

import time
from datetime import timedelta

import pytest
from sqlalchemy import func, literal, select, update

from db.tables import metric_batches
from ml.processes import Template
from tests.metrics.documents import curve
from workers.sweeping import forget_once
from workers.worker import Worker

HOUR = 3_600_000
COUNTS = """
query ($scope: MetricScope!) {
  metricSeries(filter: {scope: $scope}) { nodes { name pointCount firstAt data { columns { value } } } }
}
"""


@pytest.fixture
def worker(services, tmp_path):
    def make(keep):
        return Worker(
            db=services.db,
            store=services.store,
            wakeups=services.wakeups,
            name="here:1",
            scratch=tmp_path,
            run_memory_limit_mb=2048,
            children=Template(),
            metric_retention=keep,
        )

    return make


@pytest.fixture
def series(execute, admin):
    async def ask(scope):
        found = await execute(COUNTS, principal=admin, scope=scope)
        return {
            one["name"]: (int(one["pointCount"]), one["data"]["columns"]["value"])
            for one in found["data"]["metricSeries"]["nodes"]
        }

    return ask


def hourly(name, hours, **more):
    """A point an hour, the newest now; its value is how many hours ago it was."""
    now = time.time_ns() // 1_000_000
    ages = list(range(hours, -1, -1))
    return {"scope": "APPLICATION", "name": name, "at": [now - age * HOUR for age in ages], "values": ages, **more}


async def test_points_as_old_as_is_kept(ingest, series, worker, run):
    await ingest(hourly("rows", 5), curve(run))
    await ingest(hourly("gone", 300))
    before = await series("RUN")

    await forget_once(worker(timedelta(hours=2, minutes=30)))

    left = await series("APPLICATION")
    assert left["rows"] == (3, [2, 1, 0])
    assert left["gone"][0] == 301, "a chunk goes when all of it is old"
    assert await series("RUN") == before


async def test_whole_chunks_go_and_what_is_left_is_summed_up(ingest, series, worker, execute, admin):
    now = time.time_ns() // 1_000_000
    long_ago, lately = ([now - hours * HOUR + number for number in range(200)] for hours in (100, 1))
    old = {"scope": "BUSINESS", "name": "sales", "at": long_ago, "values": [9.0] * 200}
    new = {**old, "at": lately, "values": [1.0] * 200}
    await ingest(old, {**old, "name": "ended"})
    await ingest(new)

    await forget_once(worker(timedelta(hours=2)))

    assert await series("BUSINESS") == {"sales": (200, [1.0] * 200)}
    again = await ingest(old)
    assert again["accepted"] == 200


async def test_without_a_retention_points_stay(ingest, series, worker):
    await ingest(hourly("rows", 5))

    await forget_once(worker(None))

    assert (await series("APPLICATION"))["rows"][0] == 6


async def test_batches_of_thirty_days_ago_are_forgotten(ingest, worker, db, run):
    for batch in ("old", "new"):
        await ingest(curve(run), batch=batch)
    ago = func.clock_timestamp() - literal(timedelta(days=31))
    async with db.transaction() as session:
        await session.run(update(metric_batches).where(metric_batches.c.batch_id == "old").values(created_at=ago))

    await forget_once(worker(None))

    async with db.reading() as session:
        assert [record[0] for record in await session.records(select(metric_batches.c.batch_id))] == ["new"]
