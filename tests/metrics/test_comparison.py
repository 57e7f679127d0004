"""Runs side by side, and in the order of their metrics."""

import pytest
from sqlalchemy import update

from db.ids import new_id
from db.tables import training_runs
from tests.metrics.documents import curve, gid

COMPARE = """
query ($ids: [ID!]!, $names: [String!], $all: Boolean, $downsample: DownsampleInput) {
  compareRuns(runIds: $ids, metricNames: $names, downsample: $downsample) {
    runs { name }
    params(onlyDifferent: $all) { name values }
    metrics {
      name bestRun { name }
      series { series { name run { name } } data { columns { step value } method } }
      summaries { name count best { value } }
    }
    datasets { run { name } datasetVersion { id } }
  }
}
"""
ORDERED = """
query ($metric: String, $direction: OrderDirection!, $of: SummaryValue = BEST,
  $first: Int, $after: String, $last: Int, $before: String) {
  trainingRuns(
    orderBy: {field: METRIC, metric: $metric, direction: $direction, of: $of}
    first: $first, after: $after, last: $last, before: $before
  ) { totalCount nodes { name } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } }
}
"""


@pytest.fixture
def compare(execute, admin):
    async def ask(*runs, principal=admin, **variables):
        return await execute(
            COMPARE, principal=principal, ids=[gid("run", getattr(run, "id", run)) for run in runs], **variables
        )

    return ask


async def with_params(db, run, **params):
    given = [{"name": name, "value": value} for name, value in params.items()]
    async with db.transaction() as session:
        await session.run(update(training_runs).where(training_runs.c.id == run.id).values(params=given))


async def test_runs_side_by_side(ingest, compare, db, make_run):
    one, other = await make_run("one"), await make_run("other")
    await with_params(db, one, num_leaves=31, seed=1, bagging=True)
    await with_params(db, other, num_leaves=63, seed=1, bagging=1, extra="x")
    await ingest(curve(one), curve(other, values=[0.25, 0.5, 0.875]), curve(other, name="valid.logloss"))

    found = (await compare(other, one))["data"]["compareRuns"]

    assert found["runs"] == [{"name": "other"}, {"name": "one"}]
    assert found["params"] == [
        {"name": "bagging", "values": [1, True]},
        {"name": "extra", "values": ["x", None]},
        {"name": "num_leaves", "values": [63, 31]},
    ]
    auc, logloss = found["metrics"]
    assert auc == {
        "name": "valid.auc",
        "bestRun": {"name": "other"},
        "series": [
            {
                "series": {"name": "valid.auc", "run": {"name": "other"}},
                "data": {"columns": {"step": [0, 1, 2], "value": [0.25, 0.5, 0.875]}, "method": "NONE"},
            },
            {
                "series": {"name": "valid.auc", "run": {"name": "one"}},
                "data": {"columns": {"step": [0, 1, 2], "value": [0.5, 0.75, 0.625]}, "method": "NONE"},
            },
        ],
        "summaries": [
            {"name": "valid.auc", "count": "3", "best": {"value": 0.875}},
            {"name": "valid.auc", "count": "3", "best": {"value": 0.75}},
        ],
    }
    assert (logloss["name"], logloss["bestRun"], logloss["summaries"][0]["best"]) == (
        "valid.logloss",
        {"name": "other"},
        {"value": 0.5},
    )
    assert found["datasets"] == [
        {"run": {"name": "other"}, "datasetVersion": None},
        {"run": {"name": "one"}, "datasetVersion": None},
    ]


async def test_all_parameters_some_metrics_thinned(ingest, compare, db, make_run):
    one, other = await make_run("one"), await make_run("other")
    await with_params(db, one, seed=1)
    await with_params(db, other, seed=1)
    await ingest(curve(one), curve(one, name="train.auc"))

    wanted = {"names": ["train.*"], "all": False, "downsample": {"maxPoints": 2, "method": "LAST"}}
    found = (await compare(one, other, **wanted))["data"]["compareRuns"]

    assert found["params"] == [{"name": "seed", "values": [1, 1]}]
    (train,) = found["metrics"]
    assert (train["name"], train["bestRun"]) == ("train.auc", {"name": "one"})
    assert train["series"][0]["data"] == {"columns": {"step": [1, 2], "value": [0.75, 0.625]}, "method": "LAST"}


async def test_a_run_that_is_not_there_is_told(compare, caller, run):
    missing = new_id()

    unknown = await compare(run, missing)
    unseen = await compare(run, run, principal=await caller(None))

    assert unknown["data"]["compareRuns"] is None
    assert [(error["message"], error["path"]) for error in unknown["errors"]] == [
        ("There is no training run with this ID.", ["compareRuns"])
    ]
    assert [error["message"] for error in unseen["errors"]] == ["There is no training run with this ID."]


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_runs_in_the_order_of_a_metric_page_by_page(ingest, execute, admin, make_run, direction):
    values = {"a": 0.5, "b": 0.25, "c": 0.75, "d": 0.5, "e": None, "f": None, "g": 0.125}
    for name, value in values.items():
        run = await make_run(name)
        if value is not None:
            await ingest(curve(run, steps=[0], at=[0], values=[value]))

    async def pages(size, cursor):
        found, args = [], {cursor[0]: size}
        while True:
            page = (await execute(ORDERED, principal=admin, metric="valid.auc", direction=direction, **args))["data"][
                "trainingRuns"
            ]
            assert page["totalCount"] == 7
            names = [node["name"] for node in page["nodes"]]
            found = found + names if cursor[0] == "first" else names + found
            more = page["pageInfo"]["hasNextPage" if cursor[0] == "first" else "hasPreviousPage"]
            if not more:
                return found
            args[cursor[1]] = page["pageInfo"]["endCursor" if cursor[0] == "first" else "startCursor"]

    wanted = ["g", "b", "a", "d", "c", "e", "f"] if direction == "ASC" else ["c", "d", "a", "b", "g", "f", "e"]
    for size in (1, 2, 3, 7):
        assert await pages(size, ("first", "after")) == wanted
    assert await pages(2, ("last", "before")) == wanted


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_runs_whose_last_value_is_no_number_have_their_place_and_page(
    ingest, execute, admin, make_run, direction
):
    told = {"nan": "NAN", "up": "POSITIVE_INFINITY", "down": "NEGATIVE_INFINITY"}
    for name, value in {"down": None, "half": 0.5, "up": None, "nan": None}.items():
        strange = [{"index": 0, "value": told[name]}] if name in told else None
        await ingest(curve(await make_run(name), steps=[0], at=[0], values=[value], nonFinite=strange))
    await make_run("none")

    names, after = [], None
    for _ in range(5):
        answer = await execute(
            ORDERED, principal=admin, metric="valid.auc", direction=direction, of="LAST", first=1, after=after
        )
        page = answer["data"]["trainingRuns"]
        names += [node["name"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]

    assert not page["pageInfo"]["hasNextPage"]
    order = ["down", "half", "up", "nan"]
    assert names == [*(order if direction == "ASC" else reversed(order)), "none"]
