"""Evaluations through the API, held against scikit-learn on the predictions of the same model."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from sqlalchemy import func, select

from db.ids import Kind, global_id
from db.jobs import Job, serve
from db.tables import evaluations, model_versions
from db.tables import operations as operations_table
from domain import evaluations as rules
from ml.curves import MOST_POINTS
from ml.processes import Template
from ml.spec import Task
from tests.ready import ready_version
from tests.registered import Registered, real_table, registered
from workers.main import OPERATIONS
from workers.operations import operate
from workers.worker import Worker

ERRORS = """
errors {
  __typename code message path
  ... on ValidationError { allowed } ... on InvalidStateError { currentState }
}
"""
FIELDS = """
id split modelVersion { id } datasetVersion { id } createdBy { ... on User { username } }
metrics { name value higherIsBetter } confusionMatrix { labels counts } curves { kind label x y area }
"""
EVALUATE = f"""
mutation ($input: EvaluateModelVersionInput!) {{
  evaluateModelVersion(input: $input) {{ evaluation {{ {FIELDS} }} {ERRORS} }}
}}
"""
LATEST = f"""
query ($id: ID!, $alias: String!) {{ modelVersion(id: $id) {{
  latestEvaluation {{ {FIELDS} }}
  evaluations {{ totalCount nodes {{ split metrics {{ name baseline(alias: $alias) }} }} }}
}} }}
"""


@pytest.fixture
async def at_work(services, settings, template: Template, tmp_path: Path) -> AsyncIterator[Worker]:
    """The jobs of a worker process that look at models, done in this one."""
    worker = Worker(
        db=services.db,
        store=services.store,
        wakeups=services.wakeups,
        name="test",
        scratch=tmp_path,
        run_memory_limit_mb=2048,
        children=template,
        threads=2,
    )
    stop = asyncio.Event()
    do = partial(operate, OPERATIONS, worker)
    serving = asyncio.create_task(serve(settings.database_url, Job.EXAMINE_MODEL, do, at_once=2, stop=stop))
    yield worker
    stop.set()
    await serving


@pytest.fixture
def register(db, store, execute, scientist, project, tmp_path: Path) -> Callable[..., Any]:
    return partial(registered, db, store, execute, scientist, project, tmp_path)


@pytest.fixture
def evaluate(execute, scientist) -> Callable[..., Any]:
    async def ask(model: Registered, data: str | None = None, **more: Any) -> dict[str, Any]:
        wanted = {"modelVersionId": model.version_id, "datasetVersionId": data or model.data_id, **more}
        async with asyncio.timeout(90):
            answer = await execute(EVALUATE, principal=scientist, input=wanted)
        assert "errors" not in answer, answer
        return dict(answer["data"]["evaluateModelVersion"])

    return ask


@pytest.fixture
def ready(db, store, project, tmp_path: Path) -> Callable[..., Any]:
    async def make(table: pa.Table, **how: Any) -> str:
        return global_id(Kind.DATASET_VERSION, await ready_version(db, store, project, tmp_path, table, **how))

    return make


def half(table: pa.Table) -> pa.Table:
    """Every second row: other data than a model was trained on."""
    return table.take(pa.array(range(0, len(table), 2)))


def named(evaluation: dict[str, Any]) -> dict[str, float]:
    return {metric["name"]: metric["value"] for metric in evaluation["metrics"]}


def curve(evaluation: dict[str, Any], kind: str, label: str) -> tuple[list[float], list[float], float | None]:
    (found,) = [one for one in evaluation["curves"] if (one["kind"], one["label"]) == (kind, label)]
    return found["x"], found["y"], found["area"]


def check_curves(evaluation: dict[str, Any], label: str, y: Any, score: Any) -> None:
    """Points and areas are scikit-learn's, up to the last places of a float64."""
    x, height, area = curve(evaluation, "ROC", label)
    false, true, _ = sk.roc_curve(y, score, drop_intermediate=False)
    np.testing.assert_allclose((x, height), (false, true), rtol=1e-12)
    assert area == pytest.approx(sk.roc_auc_score(y, score), rel=1e-12)
    x, height, area = curve(evaluation, "PRECISION_RECALL", label)
    precision, recall, _ = sk.precision_recall_curve(y, score)
    np.testing.assert_allclose((x, height), (recall[::-1], precision[::-1]), rtol=1e-12)
    assert area == pytest.approx(sk.average_precision_score(y, score), rel=1e-12)
    x, height, area = curve(evaluation, "CALIBRATION", label)
    share, mean = calibration_curve(y, score, n_bins=10)
    np.testing.assert_allclose((x, height), (mean, share), rtol=1e-12)
    assert area is None
    x, height, area = curve(evaluation, "LIFT", label)
    thresholds = np.unique(score)[::-1]
    chosen = np.array([(score >= threshold).mean() for threshold in thresholds])
    found = np.array([y[score >= threshold].mean() for threshold in thresholds]) / y.mean()
    np.testing.assert_allclose((x, height), (chosen, found), rtol=1e-12)
    assert area is None


async def test_a_binary_model_is_found_as_scikit_learn_finds_it(register, evaluate, ready, at_work):
    model = await register()
    table = half(model.table)
    data = await ready(table)

    found = (await evaluate(model, data))["evaluation"]

    y = np.array([target == "malignant" for target in table["target"].to_pylist()]).astype(float)
    score = model.booster.predict(model.matrix(table))
    chosen = (score > 0.5).astype(float)
    assert (found["split"], found["modelVersion"]["id"], found["datasetVersion"]["id"]) == (
        "all", model.version_id, data
    )  # fmt: skip
    assert found["createdBy"] == {"username": "sam"}
    assert named(found) == pytest.approx(
        {
            "auc": sk.roc_auc_score(y, score),
            "binary_logloss": sk.log_loss(y, score),
            "average_precision": sk.average_precision_score(y, score),
            "accuracy": sk.accuracy_score(y, chosen),
            "f1": sk.f1_score(y, chosen),
        },
        rel=1e-12,
    )
    assert {m["name"] for m in found["metrics"] if not m["higherIsBetter"]} == {"binary_logloss"}
    assert found["confusionMatrix"] == {
        "labels": ["benign", "malignant"], "counts": [int(n) for n in sk.confusion_matrix(y, chosen).ravel()]
    }  # fmt: skip
    check_curves(found, "malignant", y, score)
    assert len(found["curves"]) == 4


async def test_a_multiclass_model_has_curves_of_each_label(register, evaluate, ready, at_work):
    model = await register(task=Task.MULTICLASS_CLASSIFICATION, num_rounds=5)
    table = half(model.table)

    found = (await evaluate(model, await ready(table)))["evaluation"]

    y, shares = table["target"].to_numpy(), model.booster.predict(model.matrix(table))
    assert named(found) == pytest.approx(
        {
            "multi_logloss": sk.log_loss(y, shares),
            "accuracy": sk.accuracy_score(y, shares.argmax(axis=1)),
            "f1": sk.f1_score(y, shares.argmax(axis=1), average="macro"),
        },
        rel=1e-12,
    )
    assert found["confusionMatrix"]["counts"] == [
        int(n) for n in sk.confusion_matrix(y, shares.argmax(axis=1)).ravel()
    ]  # fmt: skip
    for label in range(3):
        check_curves(found, str(label), (y == label).astype(float), shares[:, label])


async def test_a_regression_model_has_the_metrics_that_were_asked_for(register, evaluate, ready, at_work):
    model = await register(task=Task.REGRESSION)
    table = half(model.table)

    found = (await evaluate(model, await ready(table), metrics=["R2_score", "mae", "mape", "mse"]))["evaluation"]

    y, predicted = table["target"].to_numpy(), model.booster.predict(model.matrix(table))
    assert [metric["name"] for metric in found["metrics"]] == ["r2", "mae", "mape", "mse"]
    assert named(found) == pytest.approx(
        {
            "r2": sk.r2_score(y, predicted),
            "mae": sk.mean_absolute_error(y, predicted),
            "mape": sk.mean_absolute_percentage_error(y, predicted),
            "mse": sk.mean_squared_error(y, predicted),
        },
        rel=1e-12,
    )
    assert (found["confusionMatrix"], found["curves"]) == (None, [])


async def test_rows_count_by_the_weights_that_the_model_was_trained_with(register, evaluate, ready, at_work):
    table = real_table(Task.BINARY_CLASSIFICATION)
    weights = np.arange(len(table)) % 5
    model = await register(table=table.append_column("importance", pa.array(weights)), weight_column="importance")
    rows = half(model.table)

    found = (await evaluate(model, await ready(rows)))["evaluation"]

    y = np.array([target == "malignant" for target in rows["target"].to_pylist()]).astype(float)
    score, weight = model.booster.predict(model.matrix(rows)), rows["importance"].to_numpy()
    assert named(found)["auc"] == pytest.approx(sk.roc_auc_score(y, score, sample_weight=weight), rel=1e-12)
    assert named(found)["f1"] == pytest.approx(sk.f1_score(y, score > 0.5, sample_weight=weight), rel=1e-12)
    x, height, _ = curve(found, "ROC", "malignant")
    kept = weight > 0
    false, true, _ = sk.roc_curve(y[kept], score[kept], sample_weight=weight[kept], drop_intermediate=False)
    np.testing.assert_allclose((x, height), (false, true), rtol=1e-12)


async def test_long_curves_keep_their_ends_and_their_area(register, evaluate, ready, at_work):
    model = await register()
    random = np.random.default_rng(7)
    table = pa.concat_tables([model.table] * 4)
    for place, name in enumerate(table.column_names[:30]):
        table = table.set_column(place, name, pa.array(table[name].to_numpy() * random.normal(1, 0.2, len(table))))

    found = (await evaluate(model, await ready(table)))["evaluation"]

    y = np.array([target == "malignant" for target in table["target"].to_pylist()]).astype(float)
    score = model.booster.predict(model.matrix(table))
    assert len(np.unique(score)) > MOST_POINTS
    x, height, area = curve(found, "ROC", "malignant")
    assert area == pytest.approx(sk.roc_auc_score(y, score), rel=1e-12)
    assert len(x) <= MOST_POINTS + 2
    assert (x[0], height[0], x[-1], height[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(height, x) == pytest.approx(area, abs=0.002)


async def test_rows_without_a_target_are_left_out_and_what_is_not_defined_is_null(register, evaluate, ready, at_work):
    model = await register()
    rows = model.table.slice(0, 40).to_pylist()
    rows = [row for row in rows if row["target"] == "malignant"]
    for row in rows[:3]:
        row["target"] = None

    found = (await evaluate(model, await ready(pa.Table.from_pylist(rows, schema=model.table.schema))))["evaluation"]

    assert sum(found["confusionMatrix"]["counts"]) == len(rows) - 3
    assert named(found)["auc"] is None
    assert found["curves"] == []


async def test_the_baseline_is_the_version_that_holds_the_alias(register, evaluate, execute, scientist, ready, at_work):
    model = await register(num_rounds=2)
    better = await register(table=model.table, num_rounds=60)
    copied = await execute(
        "mutation ($input: CreateModelVersionInput!) { createModelVersion(input: $input) { modelVersion { id } } }",
        principal=scientist,
        input={"modelId": model.model_id, "from": {"copyOfVersionId": better.version_id}},
    )
    second = copied["data"]["createModelVersion"]["modelVersion"]["id"]
    moved = await execute(
        "mutation ($input: SetModelAliasInput!) { setModelAlias(input: $input) { errors { message } } }",
        principal=scientist,
        input={"modelId": model.model_id, "alias": "champion", "versionId": model.version_id},
    )
    assert moved["data"]["setModelAlias"]["errors"] == []
    data = await ready(half(model.table))
    first = (await evaluate(model, data, metrics=["auc"]))["evaluation"]
    await evaluate(model._replace(version_id=second), data, metrics=["auc", "f1"])

    shown = (await execute(LATEST, principal=scientist, id=second, alias="champion"))["data"]["modelVersion"]

    newest = shown["evaluations"]["nodes"][0]
    assert newest["split"] == "all"
    assert newest["metrics"] == [
        {"name": "auc", "baseline": named(first)["auc"]},
        {"name": "f1", "baseline": None},
    ]
    assert named(shown["latestEvaluation"])["auc"] > named(first)["auc"]


async def test_what_training_found_out_has_curves_and_goes_with_a_copy(register, execute, scientist):
    model = await register()
    shown = (await execute(LATEST, principal=scientist, id=model.version_id, alias="x"))["data"]["modelVersion"]
    copied = await execute(
        "mutation ($input: CreateModelVersionInput!) { createModelVersion(input: $input) { modelVersion { id } } }",
        principal=scientist,
        input={"modelId": model.model_id, "from": {"copyOfVersionId": model.version_id}},
    )
    other = copied["data"]["createModelVersion"]["modelVersion"]["id"]
    of_copy = (await execute(LATEST, principal=scientist, id=other, alias="x"))["data"]["modelVersion"]

    manifest = model.run.result.manifest
    assert manifest is not None
    found = shown["latestEvaluation"]
    assert (found["split"], found["curves"]) == ("validation", manifest["evaluations"][0]["curves"])
    assert [c["kind"] for c in found["curves"]] == ["ROC", "PRECISION_RECALL", "CALIBRATION", "LIFT"]
    assert of_copy["latestEvaluation"]["curves"] == found["curves"]
    assert of_copy["evaluations"]["totalCount"] == shown["evaluations"]["totalCount"] == 1


async def test_what_cannot_be_evaluated_is_refused_and_nothing_is_written(
    register, evaluate, execute, caller, ready, db
):
    model = await register()

    async def written() -> tuple[int, int]:
        async with db.reading() as session:
            tables = (operations_table, evaluations)
            one, other = [await session.scalar(select(func.count()).select_from(table)) for table in tables]
            return one, other

    before = await written()
    without_target = await ready(model.table.drop_columns(["target"]))
    unready = await ready(model.table, status="FAILED")
    short = await ready(model.table.drop_columns(["mean radius"]))
    for data, code, path in (
        (without_target, "INVALID", ["input", "datasetVersionId"]),
        (unready, "INVALID_STATE", ["input", "datasetVersionId"]),
        (short, "SCHEMA_MISMATCH", ["input", "datasetVersionId"]),
        (f"datasetversion_{'0' * 32}", "NOT_FOUND", ["input", "datasetVersionId"]),
    ):
        assert [(e["code"], e["path"]) for e in (await evaluate(model, data))["errors"]] == [(code, path)]
    strange = (await evaluate(model, metrics=["auc", "rmse", "auc_mu"]))["errors"]
    assert [(e["code"], e["path"]) for e in strange] == [
        ("INVALID", ["input", "metrics", "1"]), ("INVALID", ["input", "metrics", "2"])
    ]  # fmt: skip
    assert strange[0]["allowed"] == [
        "auc", "average_precision", "binary_logloss", "binary_error", "accuracy", "f1"
    ]  # fmt: skip
    operator = await caller("Operator")
    denied = await execute(
        EVALUATE, principal=operator, input={"modelVersionId": model.version_id, "datasetVersionId": model.data_id}
    )
    assert denied["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await written() == before


async def test_labels_that_the_model_does_not_know_are_told(register, evaluate, ready, at_work, db):
    model = await register()
    rows = model.table.slice(0, 5).to_pylist()
    rows[3]["target"] = "unclear"
    table = pa.Table.from_pylist(rows, schema=model.table.schema)

    failed = (await evaluate(model, await ready(table)))["errors"]

    assert [(e["__typename"], e["message"]) for e in failed] == [
        ("ValidationError", "The data have values of 'target' that the model does not know.")
    ]
    async with db.reading() as session:
        assert await session.scalar(select(func.count()).select_from(evaluations)) == 1


async def test_a_column_with_the_role_target_stands_in(register, evaluate, execute, scientist, ready, at_work):
    model = await register()
    renamed = [name if name != "target" else "diagnosis" for name in model.table.column_names]
    data = await ready(model.table.rename_columns(renamed))
    columns = await execute(
        "query ($id: ID!) { datasetVersion(id: $id) { columns(first: 100) { nodes { id name } } } }",
        principal=scientist,
        id=data,
    )
    (column,) = [c for c in columns["data"]["datasetVersion"]["columns"]["nodes"] if c["name"] == "diagnosis"]
    marked = await execute(
        "mutation ($input: UpdateColumnInput!) { updateColumn(input: $input) { errors { message } } }",
        principal=scientist,
        input={"id": column["id"], "role": "TARGET"},
    )
    assert marked["data"]["updateColumn"]["errors"] == []

    found = (await evaluate(model, data))["evaluation"]

    assert sum(found["confusionMatrix"]["counts"]) == len(model.table)


async def test_without_a_worker_the_question_waits_and_is_asked_once(register, evaluate, db, monkeypatch):
    model = await register()
    monkeypatch.setattr(rules, "WAIT_SECONDS", 0.0)
    for _ in range(2):
        assert [(e["code"], e["currentState"]) for e in (await evaluate(model))["errors"]] == [
            ("INVALID_STATE", "RUNNING")
        ]

    async with db.reading() as session:
        waiting = await session.records(select(operations_table.c.kind, operations_table.c.status))
        kept = await session.scalar(select(func.count()).select_from(model_versions))
    assert [tuple(one) for one in waiting] == [("EVALUATION", "QUEUED")]
    assert kept == 1
