"""Metrics through the API: points in, histories out, and new points live."""

import asyncio
import itertools
import math
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from db.ids import new_id
from db.tables import metric_points, metric_series
from db.vocabulary import MetricScope
from domain.metrics import record_points
from schema.execution import stream
from tests.metrics.documents import EVERYTHING, INGEST, LIVE, QUERY, SERIES, SUMMARY, WHOLE, curve, gid


async def counts(db):
    async with db.reading() as session:
        return (
            await session.scalar(select(func.count()).select_from(metric_series)),
            await session.scalar(select(func.count()).select_from(metric_points)),
        )


STORED = {"accepted": 3, "duplicates": 0, "rejected": [], "errors": []}


async def test_points_come_back_as_they_went_in(ingest, ask, run):
    assert await ingest(curve(run, labels=[{"name": "b", "value": "2"}, {"name": "a", "value": "1"}])) == STORED

    found = await ask()

    assert found["truncated"] is False
    assert found["groups"] == [
        {
            "name": "valid.auc",
            "labels": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}],
            "run": {"id": gid("run", run.id), "name": "first"},
            "data": {
                "columns": {
                    "step": [0, 1, 2],
                    "at": [1_700_000_000_000, 1_700_000_001_000, 1_700_000_002_000],
                    "value": [0.5, 0.75, 0.625],
                    "min": None,
                    "max": None,
                    "count": None,
                },
                "totalPoints": "3",
                "returnedPoints": 3,
                "downsampled": False,
                "method": "NONE",
                "resolution": None,
            },
        }
    ]


async def test_a_repeated_point_is_a_duplicate_and_changes_nothing(ingest, ask, execute, admin, run):
    await ingest(curve(run))

    again = await ingest(curve(run, values=[9.0, 9.0, 9.0]))
    partly = await ingest(curve(run, steps=[2, 3], at=[1_700_000_002_000, 1_700_000_003_000], values=[9.0, 0.25]))

    assert again == {"accepted": 0, "duplicates": 3, "rejected": [], "errors": []}
    assert partly == {"accepted": 1, "duplicates": 1, "rejected": [], "errors": []}
    (group,) = (await ask())["groups"]
    assert group["data"]["columns"]["value"] == [0.5, 0.75, 0.625, 0.25]
    summary = (await execute(SUMMARY, principal=admin, id=gid("run", run.id)))["data"]["trainingRun"]["summary"]
    assert (summary[0]["count"], summary[0]["min"], summary[0]["max"]) == ("4", 0.25, 0.75)


async def test_a_batch_sent_twice_is_stored_once_and_answered_alike(ingest, db, run):
    point_without_time = {"runId": gid("run", run.id), "name": "loss", "steps": [0], "values": [1.0]}

    first = await ingest(point_without_time, batch="b1")
    again = await ingest(point_without_time, batch="b1")
    another = await ingest({**point_without_time, "steps": [1]}, batch="b2")

    assert first == again == another == {"accepted": 1, "duplicates": 0, "rejected": [], "errors": []}
    assert await counts(db) == (1, 2)


async def test_values_that_are_not_finite_are_told_beside_them(ingest, execute, admin, run):
    told = [
        {"index": 0, "value": "NAN"},
        {"index": 1, "value": "POSITIVE_INFINITY"},
        {"index": 2, "value": "NEGATIVE_INFINITY"},
    ]

    assert await ingest(curve(run, values=[None, None, None], nonFinite=told)) == STORED

    found = await execute(
        """query ($input: MetricQueryInput!) {
          metricQuery(input: $input) { groups { data { columns { value } points { step at value nonFinite } } } }
        }""",
        principal=admin,
        input={"selector": EVERYTHING, "range": WHOLE},
    )
    (group,) = found["data"]["metricQuery"]["groups"]
    assert group["data"] == {
        "columns": {"value": [None, None, None]},
        "points": [
            {"step": "0", "at": "2023-11-14T22:13:20.000Z", "value": None, "nonFinite": "NAN"},
            {"step": "1", "at": "2023-11-14T22:13:21.000Z", "value": None, "nonFinite": "POSITIVE_INFINITY"},
            {"step": "2", "at": "2023-11-14T22:13:22.000Z", "value": None, "nonFinite": "NEGATIVE_INFINITY"},
        ],
    }


async def test_points_that_cannot_be_stored_are_rejected_alone(ingest, ask, run):
    at = [0, 253_402_300_799_999, 253_402_300_800_000, 4]

    made = await ingest(curve(run, steps=[0, 1, 2, 3], at=at, values=[None, 2.0, 3.0, 10**400]))

    assert made == {
        "accepted": 1,
        "duplicates": 0,
        "rejected": [
            {
                "series": 0,
                "index": 0,
                "code": "INVALID",
                "message": "The value is null, and `nonFinite` does not say what it was.",
            },
            {"series": 0, "index": 2, "code": "OUT_OF_RANGE", "message": "The time is after the year 9999."},
            {
                "series": 0,
                "index": 3,
                "code": "OUT_OF_RANGE",
                "message": "The value is beyond the largest double, 1.8e308.",
            },
        ],
        "errors": [],
    }
    (group,) = (await ask())["groups"]
    assert group["data"]["columns"]["at"] == [253_402_300_799_999]


@pytest.mark.parametrize(
    ("change", "path", "code"),
    [
        ({"steps": [0, 1]}, ["steps"], "INVALID"),
        ({"at": [0, 1, 2, 3]}, ["at"], "INVALID"),
        ({"steps": None, "at": None}, ["steps"], "REQUIRED"),
        ({"runId": None}, ["runId"], "REQUIRED"),
        ({"runId": gid("run", new_id())}, ["runId"], "NOT_FOUND"),
        ({"runId": gid("model", new_id())}, ["runId"], "NOT_FOUND"),
        ({"name": "a*b"}, ["name"], "INVALID"),
        ({"name": " "}, ["name"], "INVALID"),
        ({"name": "a\x00b"}, ["name"], "INVALID"),
        ({"name": "x" * 251}, ["name"], "OUT_OF_RANGE"),
        ({"unit": "\ud800"}, ["unit"], "INVALID"),
        ({"labels": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}, ["labels"], "INVALID"),
        ({"labels": [{"name": "a", "value": "x" * 2000}]}, ["labels"], "TOO_LONG"),
        ({"labels": [{"name": "", "value": "1"}]}, ["labels"], "INVALID"),
        ({"nonFinite": [{"index": 3, "value": "NAN"}]}, ["nonFinite", "0", "index"], "OUT_OF_RANGE"),
        ({"nonFinite": [{"index": 0, "value": "NAN"}]}, ["nonFinite", "0", "index"], "INVALID"),
    ],
)
async def test_a_call_that_cannot_be_meant_is_refused_whole(ingest, db, run, change, path, code):
    good = curve(run, name="good")

    made = await ingest(good, curve(run, **change))

    assert (made["accepted"], made["duplicates"], made["rejected"]) == (0, 0, [])
    assert [(error["path"], error["code"]) for error in made["errors"]] == [(["input", "series", "1", *path], code)]
    assert await counts(db) == (0, 0)


async def test_the_same_series_twice_in_a_call_is_refused(ingest, db, run):
    made = await ingest(curve(run), curve(run, steps=[5, 6, 7]))

    assert [(error["path"], error["message"]) for error in made["errors"]] == [
        (["input", "series", "1"], "This is the series of entry 0 again: put its points together.")
    ]
    assert await counts(db) == (0, 0)


async def test_a_gauge_does_not_become_a_counter(ingest, db, run):
    await ingest(curve(run))

    made = await ingest(curve(run, kind="COUNTER", steps=[5, 6, 7]), batch="b")

    assert [(error["path"], error["allowed"]) for error in made["errors"]] == [
        (["input", "series", "0", "kind"], ["GAUGE"])
    ]
    assert await counts(db) == (1, 3)
    assert (await ingest(curve(run, steps=[5, 6, 7]), batch="b"))["accepted"] == 3, "a refused batch may come again"


async def test_a_call_has_at_most_a_hundred_thousand_values(ingest, db, run):
    most = 100_000
    made = await ingest(curve(run, steps=list(range(most + 1)), at=[0] * (most + 1), values=[0.0] * (most + 1)))

    assert [(error["code"], error["path"], error["allowed"]) for error in made["errors"]] == [
        ("OUT_OF_RANGE", ["input", "series"], {"max": most})
    ]
    assert await counts(db) == (0, 0)
    whole = await ingest(curve(run, steps=list(range(most)), at=[0] * most, values=[0.0] * most))
    assert whole["accepted"] == most


async def test_a_run_of_another_project_is_not_there(ingest, db, admin, make_run):
    from domain.projects import create_project

    async with db.transaction() as session:
        other = await create_project(session, admin, slug="other", name="Other", description=None, tags=[])
    elsewhere = await make_run("elsewhere", of=other)

    made = await ingest(curve(elsewhere))

    assert [error["path"] for error in made["errors"]] == [["input", "series", "0", "runId"]]
    assert await counts(db) == (0, 0)


async def test_a_project_that_is_not_there(execute, admin):
    missing = gid("project", new_id())
    series = [{"scope": "BUSINESS", "name": "sales", "at": [0], "values": [1]}]

    made = await execute(INGEST, principal=admin, input={"projectId": missing, "series": series})

    assert made["data"]["ingestMetrics"]["errors"] == [
        {
            "__typename": "NotFoundError",
            "code": "NOT_FOUND",
            "message": "There is no project with this ID.",
            "path": ["input", "projectId"],
            "id": missing,
        }
    ]


async def test_who_may_write_and_read(execute, caller, db, ingest, ask, run, live, project, context_of):
    viewer, stranger = await caller("Viewer"), await caller(None)
    await ingest(curve(run))

    made = await execute(
        INGEST, principal=viewer, input={"projectId": gid("project", project.id), "series": [curve(run, name="x")]}
    )

    assert made["data"]["ingestMetrics"] is None
    assert [error["extensions"] for error in made["errors"]] == [{"code": "FORBIDDEN"}]
    assert await counts(db) == (1, 3)
    assert len((await ask(principal=viewer))["groups"]) == 1
    assert (await ask(principal=stranger))["groups"] == []
    assert (await execute(SERIES, principal=stranger))["data"]["metricSeries"]["totalCount"] == 0
    names = "{ metricNames(scope: RUN) }"
    assert (await execute(names, principal=viewer))["data"]["metricNames"] == ["valid.auc"]
    assert (await execute(names, principal=stranger))["data"]["metricNames"] == []
    responses = [item async for item, _ in stream(LIVE, {"selector": EVERYTHING}, None, context_of(stranger))]
    assert [error["extensions"] for error in responses[0]["errors"]] == [{"code": "FORBIDDEN"}]
    assert len(responses) == 1


async def test_series_are_listed_by_name_in_pages(ingest, execute, admin, run):
    await ingest(
        curve(run, name="b", unit="%"),
        curve(run, name="a"),
        {"scope": "BUSINESS", "name": "c", "at": [5], "values": [1], "kind": "COUNTER"},
    )

    first = (await execute(SERIES, principal=admin, first=2))["data"]["metricSeries"]
    rest = await execute(SERIES, principal=admin, first=2, after=first["pageInfo"]["endCursor"])

    assert [node["name"] for node in first["nodes"]] == ["a", "b"]
    assert first["nodes"][1] == {
        "id": first["nodes"][1]["id"],
        "name": "b",
        "scope": "RUN",
        "kind": "GAUGE",
        "unit": "%",
        "labels": [],
        "pointCount": "3",
        "firstAt": "2023-11-14T22:13:20.000Z",
        "lastAt": "2023-11-14T22:13:22.000Z",
        "lastPoint": {"step": "2", "at": "2023-11-14T22:13:22.000Z", "value": 0.625, "nonFinite": None},
        "project": {"slug": "lab"},
        "run": {"name": "first"},
    }
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"]) == (3, True)
    assert [node["name"] for node in rest["data"]["metricSeries"]["nodes"]] == ["c"]
    node = await execute(
        "query ($id: ID!) { node(id: $id) { ... on MetricSeries { name data { columns { value } } } } }",
        principal=admin,
        id=first["nodes"][0]["id"],
    )
    assert node["data"]["node"] == {"name": "a", "data": {"columns": {"value": [0.5, 0.75, 0.625]}}}


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        ({"scope": "SYSTEM"}, ["cpu", "mem"]),
        ({"name": {"startsWith": "c"}}, ["cpu"]),
        ({"labels": [{"name": "host", "eq": "a"}]}, ["cpu"]),
        ({"labels": [{"name": "host", "in": ["a", "b"]}]}, ["cpu", "mem"]),
        ({"labels": [{"name": "host", "notEq": "a"}]}, ["loss", "mem"]),
        ({"labels": [{"name": "host", "regex": "[ab]"}]}, ["cpu", "mem"]),
        ({"labels": [{"name": "host", "regex": "ab"}]}, []),
        ({"labels": [{"name": "host"}]}, ["cpu", "mem"]),
        ({"lastAt": {"gte": "1970-01-01T00:00:00.020Z"}}, ["loss", "mem"]),
        ({"lastAt": {"lt": "1970-01-01T00:00:00.020Z"}}, ["cpu"]),
        ({"runId": "nonsense"}, []),
        ({"runId": gid("run", new_id())}, []),
        ({"projectId": gid("project", new_id())}, []),
    ],
)
async def test_a_filter_of_series(ingest, execute, admin, run, filter, names):
    host = lambda name: [{"name": "host", "value": name}]  # noqa: E731
    await ingest(
        {"scope": "SYSTEM", "name": "cpu", "labels": host("a"), "at": [10], "values": [1]},
        {"scope": "SYSTEM", "name": "mem", "labels": host("b"), "at": [20], "values": [1]},
        curve(run, name="loss", at=[30, 31, 32]),
    )

    listed = await execute(SERIES, principal=admin, filter=filter)

    assert [node["name"] for node in listed["data"]["metricSeries"]["nodes"]] == names


async def test_a_broken_regular_expression_is_told(execute, admin):
    listed = await execute(SERIES, principal=admin, filter={"labels": [{"name": "host", "regex": "["}]})

    assert listed["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": "INVALID"}
    assert listed["errors"][0]["message"].startswith("`regex` is no regular expression")


async def test_names_with_globs_and_underscores(ingest, ask, execute, admin, run):
    await ingest(*(curve(run, name=name) for name in ("train.auc", "valid.auc", "valid_auc", "valid%auc")))

    async def named(*names):
        return [group["name"] for group in (await ask({"scope": "RUN", "names": list(names)}))["groups"]]

    assert await named("valid.*") == ["valid.auc"]
    assert await named("valid_auc") == ["valid_auc"]
    assert await named("*auc") == ["train.auc", "valid%auc", "valid.auc", "valid_auc"]
    assert await named("train.auc", "valid%auc") == ["train.auc", "valid%auc"]
    prefixed = await execute('{ metricNames(scope: RUN, prefix: "valid.") }', principal=admin)
    assert prefixed["data"]["metricNames"] == ["valid.auc"]


async def test_a_query_says_when_there_are_more_series(ingest, ask, run):
    await ingest(*(curve(run, name=name) for name in "abc"))

    found = await ask(limitSeries=2)

    assert ([group["name"] for group in found["groups"]], found["truncated"]) == (["a", "b"], True)


@pytest.mark.parametrize(
    ("range", "steps"),
    [
        ({"steps": {"from": 1, "to": 2}}, [1, 2]),
        ({"steps": {"from": 2}}, [2]),
        ({"time": {"from": "2023-11-14T22:13:20Z", "to": "2023-11-14T22:13:21Z"}}, [0, 1]),
        ({"time": {"from": "2023-11-14T22:13:20.001Z"}}, [1, 2]),
        ({"last": "PT1H"}, []),
        ({"last": "P5000W"}, [0, 1, 2]),
    ],
)
async def test_a_range_includes_both_ends(ingest, ask, run, range, steps):
    await ingest(curve(run))

    (group,) = (await ask(range=range))["groups"]

    assert group["data"]["columns"]["step"] == (steps)
    assert group["data"]["totalPoints"] == str(len(steps))


async def test_a_long_history_is_thinned_and_says_so(ingest, ask, run):
    size = 1000
    values = [0.0] * size
    values[123], values[456] = 7.0, -7.0
    await ingest(curve(run, steps=list(range(size)), at=[step * 1000 for step in range(size)], values=values))

    async def thinned(method, axis="STEP", points=12):
        (group,) = (await ask(downsample={"maxPoints": points, "method": method, "axis": axis}))["groups"]
        return group["data"]

    spikes = await thinned("MIN_MAX")
    assert {0, 123, 456, 999} <= set(spikes["columns"]["step"])
    assert (spikes["totalPoints"], spikes["returnedPoints"], spikes["downsampled"], spikes["method"]) == (
        "1000",
        len(spikes["columns"]["step"]),
        True,
        "MIN_MAX",
    )
    assert spikes["resolution"] is None
    assert (await thinned("AVG", points=10))["columns"] == {
        "step": [0, 100, 200, 300, 400, 500, 600, 700, 800, 900],
        "at": [step * 1000 for step in range(0, 1000, 100)],
        "value": [0.0, 0.07, 0.0, 0.0, -0.07, 0.0, 0.0, 0.0, 0.0, 0.0],
        "min": [0.0, 0.0, 0.0, 0.0, -7.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "max": [0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "count": [100] * 10,
    }
    last = await thinned("LAST", "RELATIVE_TIME", points=10)
    assert last["columns"]["step"][0:2] == [99, 199]
    assert last["resolution"] == "PT1M39.901S"
    assert (await thinned("LTTB"))["returnedPoints"] == 12
    assert (await thinned("NONE"))["returnedPoints"] == 1000


async def test_a_summary_follows_the_direction_of_its_metric(ingest, execute, admin, run):
    await ingest(
        curve(run, name="custom", higherIsBetter=False, unit="s"),
        curve(run, name="valid.auc"),
        curve(run, name="valid.rmse", values=[3.0, None, 4.0], nonFinite=[{"index": 1, "value": "NAN"}]),
    )

    found = await execute(SUMMARY, principal=admin, id=gid("run", run.id))

    at = [f"2023-11-14T22:13:2{second}.000Z" for second in range(3)]
    assert found["data"]["trainingRun"] == {
        "metricNames": ["custom", "valid.auc", "valid.rmse"],
        "summary": [
            {
                "name": "custom",
                "unit": "s",
                "count": "3",
                "min": 0.5,
                "max": 0.75,
                "mean": 0.625,
                "last": {"step": "2", "at": at[2], "value": 0.625, "nonFinite": None},
                "best": {"step": "0", "at": at[0], "value": 0.5, "nonFinite": None},
            },
            {
                "name": "valid.auc",
                "unit": None,
                "count": "3",
                "min": 0.5,
                "max": 0.75,
                "mean": 0.625,
                "last": {"step": "2", "at": at[2], "value": 0.625, "nonFinite": None},
                "best": {"step": "1", "at": at[1], "value": 0.75, "nonFinite": None},
            },
            {
                "name": "valid.rmse",
                "unit": None,
                "count": "3",
                "min": 3.0,
                "max": 4.0,
                "mean": 3.5,
                "last": {"step": "2", "at": at[2], "value": 4.0, "nonFinite": None},
                "best": {"step": "0", "at": at[0], "value": 3.0, "nonFinite": None},
            },
        ],
    }
    # A direction declared later turns the best around, without reading the history again.
    await ingest(curve(run, name="custom", higherIsBetter=True))
    turned = await execute(SUMMARY, principal=admin, id=gid("run", run.id), names=["custom"])
    assert turned["data"]["trainingRun"]["summary"][0]["best"]["value"] == 0.75


async def test_what_is_trained_again_replaces_what_was_there(db, execute, admin, project, run):
    async def record(steps, at, values, **more):
        async with db.transaction() as session:
            await record_points(
                session,
                project_id=project.id,
                run_id=run.id,
                scope=MetricScope.RUN,
                points={"valid.auc": (steps, at, values)},
                **more,
            )

    await record([0, 1, 2, 3], [10, 11, 12, 13], [0.1, 0.9, 0.2, math.nan])
    await record([1, 2], [20, 21], [0.3, 0.4], replace=True)

    found = await execute(
        """query ($id: ID!) { trainingRun(id: $id) {
          summary { count min max mean last { step value } best { step value } }
          metrics(names: ["valid.*"]) { series { name pointCount } data { columns { step at value } } } } }""",
        principal=admin,
        id=gid("run", run.id),
    )

    assert found["data"]["trainingRun"] == {
        "summary": [
            {
                "count": "3",
                "min": 0.1,
                "max": 0.4,
                "mean": (0.1 + 0.3 + 0.4) / 3,
                "last": {"step": "2", "value": 0.4},
                "best": {"step": "2", "value": 0.4},
            }
        ],
        "metrics": [
            {
                "series": {"name": "valid.auc", "pointCount": "3"},
                "data": {"columns": {"step": [0, 1, 2], "at": [10, 20, 21], "value": [0.1, 0.3, 0.4]}},
            }
        ],
    }


async def test_metrics_of_many_runs_are_one_statement_a_level(make_run, db, execute, admin, project, statements):
    for number in range(5):
        made = await make_run(f"run {number}")
        async with db.transaction() as session:
            for scope, name in ((MetricScope.RUN, "loss"), (MetricScope.SYSTEM, "cpu")):
                await record_points(
                    session,
                    project_id=project.id,
                    run_id=made.id,
                    scope=scope,
                    points={name: ([0, 1], [10, 20], [float(number), 0.0])},
                )

    with statements() as seen:
        found = await execute(
            """{ trainingRuns { nodes { name metricNames summary { max } metrics { data { columns { value } } }
                systemMetrics { series { name } data { columns { value } } } } } }""",
            principal=admin,
        )

    nodes = {node["name"]: node for node in found["data"]["trainingRuns"]["nodes"]}
    assert nodes["run 3"] == {
        "name": "run 3",
        "metricNames": ["loss"],
        "summary": [{"max": 3.0}],
        "metrics": [{"data": {"columns": {"value": [3.0, 0.0]}}}],
        "systemMetrics": [{"series": {"name": "cpu"}, "data": {"columns": {"value": [3.0, 0.0]}}}],
    }
    assert len(seen) == 7, "runs, names, summaries; series and points, twice"


async def test_a_batch_of_many_series_is_three_statements(db, project, run, statements):
    points = {f"metric {number}": ([0], [10], [1.0]) for number in range(50)}
    with statements() as seen:
        async with db.transaction() as session:
            await record_points(session, project_id=project.id, run_id=run.id, scope=MetricScope.RUN, points=points)

    assert len(seen) == 3, "the series, their points, their summaries"


# ── Aggregated ──────────────────────────────────────────────────────────────────────────────────────────────────────

REQUESTS = {"scope": "APPLICATION", "names": ["requests"]}


def counter(host, path, at, values, **more):
    labels = [{"name": "host", "value": host}, {"name": "path", "value": path}]
    return {"scope": "APPLICATION", "name": "requests", "labels": labels, "at": at, "values": values, **more}


async def test_series_are_aggregated_by_step_and_label(ingest, ask):
    await ingest(
        counter("a", "/", [0, 1000, 2000], [0, 10, 20], kind="COUNTER"),
        counter("a", "/x", [0, 1000, 2000], [5, 5, 7], kind="COUNTER"),
        counter("b", "/", [500, 1500], [3, 1], kind="COUNTER"),
    )

    async def aggregated(aggregation, **more):
        found = await ask(REQUESTS, {"time": {"from": "1970-01-01T00:00:00Z"}}, aggregation=aggregation, **more)
        return [
            (
                {label["name"]: label["value"] for label in group["labels"]},
                group["data"]["columns"]["at"],
                group["data"]["columns"]["value"],
            )
            for group in found["groups"]
        ]

    a, b = {"host": "a"}, {"host": "b"}
    assert await aggregated("SUM", step="PT1S", groupBy=["host"]) == [
        (a, [0, 1000, 2000], [5.0, 15.0, 27.0]),
        (b, [0, 1000], [3.0, 1.0]),
    ]
    assert await aggregated("RATE", step="PT1S", groupBy=["host"]) == [
        (a, [0, 1000, 2000], [None, 10.0, 12.0]),
        (b, [0, 1000], [None, 1.0]),
    ]
    assert await aggregated("P50", groupBy=[]) == [({}, [0], [5.0])]
    assert await aggregated("MAX", step="PT2S") == [
        ({"host": "a", "path": "/"}, [0, 2000], [10.0, 20.0]),
        ({"host": "a", "path": "/x"}, [0, 2000], [5.0, 7.0]),
        ({"host": "b", "path": "/"}, [0], [3.0]),
    ]
    (group,) = (await ask(REQUESTS, aggregation="COUNT", step="PT2S", groupBy=[]))["groups"]
    assert group["data"] == {
        "columns": {"step": [], "at": [], "value": [], "min": [], "max": [], "count": []},
        "totalPoints": "0",
        "returnedPoints": 0,
        "downsampled": False,
        "method": "NONE",
        "resolution": "PT2S",
    }, "no point has a step, so a range of steps has none"


async def test_what_is_aggregated_can_be_thinned(ingest, ask):
    at = [1000 * second for second in range(100)]
    await ingest(counter("a", "/", at, [float(second) for second in range(100)]))

    (group,) = (
        await ask(
            REQUESTS,
            {"time": {"from": "1970-01-01T00:00:00Z"}},
            aggregation="AVG",
            step="PT2S",
            downsample={"maxPoints": 4, "method": "LTTB"},
        )
    )["groups"]

    data = group["data"]
    assert (data["totalPoints"], data["returnedPoints"], data["downsampled"], data["method"]) == (
        "100",
        4,
        True,
        "LTTB",
    )
    assert (data["columns"]["value"][0], data["columns"]["value"][-1]) == (0.5, 98.5)


async def test_curves_of_many_runs_have_no_run_together(ingest, ask, make_run):
    first, second = await make_run("one"), await make_run("two")
    await ingest(curve(first), curve(second, name="other"))
    (alone, other) = (await ask(aggregation="AVG", groupBy=[]))["groups"]
    assert [alone["run"]["name"], other["run"]["name"]] == ["two", "one"]

    await ingest(curve(second, values=[1.0, 1.0, 1.0]))
    found = (await ask({"scope": "RUN", "names": ["valid.auc"]}, aggregation="AVG", step="PT1S", groupBy=[]))["groups"]

    assert [(group["run"], group["data"]["columns"]["value"]) for group in found] == [(None, [0.75, 0.875, 0.8125])]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"step": "PT1S"}, "REQUIRED"),
        ({"groupBy": ["host"]}, "REQUIRED"),
        ({"aggregation": "AVG", "step": "PT0S"}, "OUT_OF_RANGE"),
        ({"aggregation": "RATE"}, "INVALID"),
    ],
)
async def test_an_aggregation_that_cannot_be_meant(ingest, execute, admin, more, code):
    await ingest(counter("a", "/", [0], [1]))

    found = await execute(QUERY, principal=admin, input={"selector": REQUESTS, "range": WHOLE, **more})

    assert found["data"]["metricQuery"] is None
    assert found["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": code}


# ── Deleted ─────────────────────────────────────────────────────────────────────────────────────────────────────────

DELETE = """
mutation ($input: DeleteMetricSeriesInput!) {
  deleteMetricSeries(input: $input) { series points errors { __typename code path } }
}
"""


@pytest.fixture
def forget(execute, admin, project):
    async def send(principal=admin, **input):
        input = {"projectId": gid("project", project.id), **input}
        response = await execute(DELETE, principal=principal, input=input)
        return response["data"]["deleteMetricSeries"]

    return send


async def test_series_are_deleted_with_their_points_once_it_is_meant(ingest, forget, db, run):
    await ingest(curve(run), curve(run, name="valid.rmse"), curve(run, name="train.auc"))
    selector = {"scope": "RUN", "names": ["valid.*"]}

    told = await forget(selector=selector)
    assert await counts(db) == (3, 9)
    done = await forget(selector=selector, dryRun=False)
    again = await forget(selector=selector, dryRun=False)

    assert told == done == {"series": 2, "points": "6", "errors": []}
    assert again == {"series": 0, "points": "0", "errors": []}
    assert await counts(db) == (1, 3)


async def test_series_are_deleted_by_id(ingest, forget, execute, admin, db, run):
    await ingest(curve(run), curve(run, name="valid.rmse"))
    ids = [one["id"] for one in (await execute(SERIES, principal=admin))["data"]["metricSeries"]["nodes"]]
    missing = gid("series", new_id())

    refused = await forget(ids=[ids[0], missing, "nonsense"], dryRun=False)
    assert refused == {
        "series": 0,
        "points": "0",
        "errors": [
            {"__typename": "NotFoundError", "code": "NOT_FOUND", "path": ["input", "ids", place]} for place in "12"
        ],
    }
    assert await counts(db) == (2, 6)
    assert await forget(ids=ids[:1], dryRun=False) == {"series": 1, "points": "3", "errors": []}
    assert await counts(db) == (1, 3)


async def test_a_deletion_that_cannot_be_meant_deletes_nothing(ingest, forget, caller, db, run):
    await ingest(curve(run))
    elsewhere = {"scope": "RUN", "names": ["*"], "projectId": gid("project", new_id())}
    broken = {"scope": "RUN", "names": ["*"], "labels": [{"name": "host", "regex": "["}]}

    async def problems(**input):
        return [(error["code"], error["path"]) for error in (await forget(dryRun=False, **input))["errors"]]

    assert await problems() == [("REQUIRED", ["input", "ids"])]
    assert await problems(ids=[], selector=EVERYTHING) == [("INVALID", ["input", "ids"])]
    assert await problems(selector=elsewhere) == [("INVALID", ["input", "selector", "projectId"])]
    assert await problems(selector=broken) == [("INVALID", ["input", "selector", "labels"])]
    assert await forget(principal=await caller("Viewer"), selector=EVERYTHING, dryRun=False) is None
    assert await counts(db) == (1, 3)


# ── Live ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_subscription_begins_with_what_is_there_and_goes_on(ingest, live, run):
    await ingest(curve(run))

    async with live(rate=10) as batches:
        snapshot = await anext(batches)
        await ingest(curve(run, steps=[3], at=[3], values=[1.0]))
        update = await anext(batches)

    assert (snapshot["kind"], snapshot["droppedPoints"]) == ("SNAPSHOT", "0")
    (series,) = snapshot["series"]
    assert (series["name"], series["runId"], series["labels"]) == ("valid.auc", gid("run", run.id), [])
    assert series["columns"]["value"] == [0.5, 0.75, 0.625]
    assert (update["kind"], update["series"]) == (
        "UPDATED",
        [{**series, "columns": {"step": [3], "at": [3], "value": [1.0], "min": None, "max": None, "count": None}}],
    )
    assert update["cursor"] > snapshot["cursor"]


async def test_a_snapshot_holds_of_each_series_its_own_points(ingest, live, run, make_run):
    other = await make_run("other")
    await ingest(curve(run), curve(run, name="train.auc", steps=[7], at=[7], values=[7.0]))
    await ingest(curve(other, steps=[9], at=[9], values=[9.0]))

    async with live({"scope": "RUN", "names": ["*"], "runIds": [gid("run", run.id)]}) as batches:
        snapshot = await anext(batches)

    assert [(series["name"], series["columns"]["step"]) for series in snapshot["series"]] == [
        ("train.auc", [7]),
        ("valid.auc", [0, 1, 2]),
    ]


async def test_series_that_come_later_are_picked_up(ingest, live, run):
    async with live({"scope": "RUN", "names": ["valid.*"], "runIds": [gid("run", run.id)]}, rate=10) as batches:
        assert (await anext(batches))["series"] == []
        await ingest(curve(run, name="train.auc"), curve(run))
        update = await anext(batches)

    assert [(series["name"], series["columns"]["step"]) for series in update["series"]] == [("valid.auc", [0, 1, 2])]


async def test_a_snapshot_holds_the_newest_thousand_points(ingest, live, run):
    size = 1500
    await ingest(curve(run, steps=list(range(size)), at=list(range(size)), values=[0.0] * size))

    async with live() as batches:
        snapshot = await anext(batches)

    assert snapshot["series"][0]["columns"]["step"] == list(range(500, 1500))


async def test_a_reader_goes_on_after_its_cursor_without_loss_or_repeat(ingest, live, run):
    await ingest(curve(run))
    async with live(rate=10) as batches:
        cursor = (await anext(batches))["cursor"]
    await ingest(curve(run, steps=[3], at=[3], values=[1.0]))
    await ingest(curve(run, steps=[4], at=[4], values=[1.0]))

    async with live(after=cursor, rate=10) as batches:
        missed = await anext(batches)
        await ingest(curve(run, steps=[5], at=[5], values=[1.0]))
        update = await anext(batches)

    assert [batch["series"][0]["columns"]["step"] for batch in (missed, update)] == [[3, 4], [5]]
    assert {missed["kind"], update["kind"]} == {"UPDATED"}


async def test_a_query_continues_as_a_subscription_whatever_else_is_running(ingest, ask, live, db, project, run):
    async def slow_writer(begun, go_on):
        async with db.transaction() as session:
            await record_points(
                session,
                project_id=project.id,
                run_id=run.id,
                scope=MetricScope.RUN,
                points={"slow": ([0], [1], [1.0])},
            )
            begun.set()
            await go_on.wait()

    begun, go_on = asyncio.Event(), asyncio.Event()
    writing = asyncio.create_task(slow_writer(begun, go_on))
    await begun.wait()
    await ingest(curve(run))

    found = await ask()
    assert [group["name"] for group in found["groups"]] == ["valid.auc"], "seen though another is still writing"
    async with live(after=found["cursor"], rate=10) as batches:
        await ingest(curve(run, steps=[3], at=[3], values=[1.0]))
        first = await anext(batches)
        go_on.set()
        await writing
        second = await anext(batches)

    assert [(one["name"], one["columns"]["step"]) for one in first["series"]] == [("valid.auc", [3])]
    assert [(one["name"], one["columns"]["step"]) for one in second["series"]] == [("slow", [0])]


async def test_what_comes_between_two_updates_comes_together(ingest, live, run):
    async with live(rate=1) as batches:
        await anext(batches)
        await ingest(curve(run, steps=[0], at=[0], values=[1.0]))
        first = await anext(batches)
        for step in range(1, 6):
            await ingest(curve(run, steps=[step], at=[step], values=[1.0]))
        second = await anext(batches)

    assert first["series"][0]["columns"]["step"] == [0], "the first is handed on at once"
    assert second["series"][0]["columns"]["step"] == [1, 2, 3, 4, 5], "the others together, none is dropped"


async def test_a_long_backlog_comes_in_parts(ingest, live, run):
    size = 60_000
    async with live() as batches:
        cursor = (await anext(batches))["cursor"]
    for part in range(3):
        steps = list(range(part * size, (part + 1) * size))
        await ingest(curve(run, steps=steps, at=[0] * size, values=[0.0] * size))

    async with live(after=cursor, rate=10) as batches:
        parts = [(await anext(batches))["series"][0]["columns"]["step"] for _ in range(2)]

    assert [len(part) for part in parts] == [120_000, 60_000]
    assert parts[0] + parts[1] == list(range(180_000))


@pytest.mark.parametrize("after", ["HEAD", "", "x" * 40, "0" * 39 + "1", "0" * 40 + "~"])
async def test_what_is_no_cursor_is_refused(live, context_of, admin, after):
    (response,) = [
        item async for item, _ in stream(LIVE, {"selector": EVERYTHING, "after": after}, None, context_of(admin))
    ]

    code = response["errors"][0]["extensions"]["userCode"]
    assert (response["errors"][0]["extensions"]["code"], code) == (
        "BAD_REQUEST",
        "CURSOR_EXPIRED" if after.startswith("0") else "CURSOR_INVALID",
    )


# ── Exactness ───────────────────────────────────────────────────────────────────────────────────────────────────────

STEP = st.integers(-(2**53) + 1, 2**53 - 1)
_numbers = itertools.count()
AT = st.integers(0, 253_402_300_799_999)


@given(points=st.dictionaries(st.tuples(STEP, AT), st.floats(), min_size=1, max_size=50))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_every_double_and_every_integer_comes_back_bit_for_bit(ingest, ask, run, points):
    name = f"series {next(_numbers)}"
    places, values = list(points), list(points.values())
    not_finite = {math.inf: "POSITIVE_INFINITY", -math.inf: "NEGATIVE_INFINITY"}

    made = await ingest(
        {
            "runId": gid("run", run.id),
            "name": name,
            "steps": [step for step, _ in places],
            "at": [at for _, at in places],
            "values": [value if math.isfinite(value) else None for value in values],
            "nonFinite": [
                {"index": index, "value": not_finite.get(value, "NAN")}
                for index, value in enumerate(values)
                if not math.isfinite(value)
            ],
        }
    )

    assert made == {"accepted": len(points), "duplicates": 0, "rejected": [], "errors": []}
    everything = {"time": {"from": "1970-01-01T00:00:00Z"}}
    (group,) = (await ask({"scope": "RUN", "names": [name]}, range=everything))["groups"]
    columns = group["data"]["columns"]
    assert list(zip(columns["step"], columns["at"], strict=True)) == sorted(points)
    assert [None if value is None else struct.pack("<d", value) for value in columns["value"]] == [
        struct.pack("<d", points[place]) if math.isfinite(points[place]) else None for place in sorted(points)
    ]
