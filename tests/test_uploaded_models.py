"""Versions of models from uploaded files: what LightGBM saved is served as it is, and damaged files harm nobody."""

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.metrics import roc_auc_score
from sqlalchemy import func, select, update

from db.ids import Kind, global_id
from db.jobs import Job, serve
from db.tables import dataset_columns, events, model_versions
from db.tables import operations as operations_table
from ml.admission import read
from ml.messages import AdmitJob, Admitted, ModelUnreadable
from ml.processes import ChildFailure, Template
from tests import uploading
from tests.ml_training import targets
from tests.ready import ready_version
from workers import examining
from workers.main import OPERATIONS
from workers.operations import operate
from workers.worker import Worker

CREATE_MODEL = "mutation ($input: CreateModelInput!) { createModel(input: $input) { model { id } } }"
CREATE = """
mutation ($input: CreateModelVersionInput!) {
  createModelVersion(input: $input) {
    modelVersion {
      id number status description sha256 sizeBytes download { url } params { name value explicit }
      run { id } trainedOn { id }
      signature { inputs { name type nullable categories } outputs { name type categories } }
      gain: featureImportance(kind: GAIN, top: 1) { feature importance rank }
    }
    errors { __typename code message path ... on InvalidStateError { currentState } }
  }
}
"""
PREDICT = """
mutation ($input: PredictInput!) {
  predict(input: $input) {
    prediction { outputs { value probabilities { label probability } } } errors { code message }
  }
}
"""
DAMAGES = 120


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
    )
    stop = asyncio.Event()
    do = partial(operate, OPERATIONS, worker)
    serving = asyncio.create_task(serve(settings.database_url, Job.EXAMINE_MODEL, do, at_once=2, stop=stop))
    yield worker
    stop.set()
    await serving


@pytest.fixture
async def dataset(execute, scientist, project) -> str:
    return await uploading.create_dataset(execute, scientist, project, "models from elsewhere")


@pytest.fixture
def uploaded(execute, scientist, dataset) -> Callable[..., Any]:
    async def send(content: bytes) -> str:
        """The ID of a completed upload."""
        started = await uploading.start(execute, scientist, dataset, len(content), fileName="model.txt")
        etag = await uploading.put(started["parts"][0], content)
        completed = await uploading.complete(execute, scientist, started["upload"]["id"], {1: etag})
        assert completed["errors"] == []
        return str(started["upload"]["id"])

    return send


@pytest.fixture
def registered(execute, scientist, project, uploaded, monkeypatch) -> Callable[..., Any]:
    monkeypatch.setattr("resolvers.models.CHECK_SECONDS", 60.0)

    async def make(content: bytes, *, task: str = "BINARY_CLASSIFICATION", **more: Any) -> dict[str, Any]:
        named = {"projectId": f"project_{project.id.hex}", "name": f"model {random.random()}", "task": task}
        model = await execute(CREATE_MODEL, principal=scientist, input=named)
        model_id = model["data"]["createModel"]["model"]["id"]
        source = {"uploadId": more.pop("upload_id", None) or await uploaded(content)}
        answer = await execute(CREATE, principal=scientist, input={"modelId": model_id, "from": source, **more})
        assert "errors" not in answer, answer
        return dict(answer["data"]["createModelVersion"])

    return make


def trained(objective: str = "binary", *, rounds: int = 15, **params: Any) -> tuple[lgb.Booster, NDArray[np.float64]]:
    """A model that was trained by somebody else, and the rows it was trained on."""
    load = {"binary": load_breast_cancer, "multiclass": load_wine}.get(objective, load_diabetes)
    x, y = load(return_X_y=True)
    given = {"objective": objective, "verbosity": -1, "num_threads": 1, "seed": 3, "deterministic": True, **params}
    return lgb.train(given, lgb.Dataset(x, y), rounds), x


def rows_of(booster: lgb.Booster, x: NDArray[np.float64]) -> list[dict[str, float]]:
    return [dict(zip(booster.feature_name(), row, strict=True)) for row in x.tolist()]


async def test_what_lightgbm_saved_is_served_as_it_is(registered, execute, scientist, at_work):
    booster, x = trained(learning_rate=0.2)
    content = booster.model_to_string().encode()

    made = await registered(content, description="From the notebook")

    version = made["modelVersion"]
    assert made["errors"] == []
    assert (version["status"], version["description"]) == ("READY", "From the notebook")
    assert (version["sha256"], version["sizeBytes"]) == (hashlib.sha256(content).hexdigest(), str(len(content)))
    assert (version["run"], version["trainedOn"]) == (None, None)
    assert version["signature"]["inputs"][0] == {
        "name": "Column_0", "type": "FLOAT", "nullable": True, "categories": None
    }  # fmt: skip
    assert version["signature"]["outputs"] == [{"name": "value", "type": "INTEGER", "categories": ["0", "1"]}]
    assert {"name": "learning_rate", "value": 0.2, "explicit": True} in version["params"]
    gain = booster.feature_importance("gain")
    assert version["gain"] == [
        {"feature": f"Column_{gain.argmax()}", "importance": gain.max(), "rank": 1}
    ]  # fmt: skip
    async with httpx.AsyncClient() as client:
        assert (await client.get(version["download"]["url"])).content == content
    asked = {"model": {"id": version["id"]}, "rows": rows_of(booster, x[:50]), "includeProbabilities": True}
    answer = (await execute(PREDICT, principal=scientist, input=asked))["data"]["predict"]
    shares = booster.predict(x[:50])
    assert [o["probabilities"][1]["probability"] for o in answer["prediction"]["outputs"]] == shares.tolist()
    assert [o["value"] for o in answer["prediction"]["outputs"]] == (shares > 0.5).astype(int).tolist()


@pytest.mark.parametrize(
    ("objective", "task", "params"),
    [
        ("multiclass", "MULTICLASS_CLASSIFICATION", {"num_class": 3}),
        ("regression", "REGRESSION", {}),
        ("regression", "REGRESSION", {"linear_tree": True}),
        ("poisson", "REGRESSION", {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}),
    ],
)
async def test_models_of_every_kind(objective, task, params, registered, execute, scientist, at_work):
    booster, x = trained(objective, **params)
    version = (await registered(booster.model_to_string().encode(), task=task))["modelVersion"]

    asked = {"model": {"id": version["id"]}, "rows": rows_of(booster, x[:40])}
    answer = (await execute(PREDICT, principal=scientist, input=asked))["data"]["predict"]

    predicted = booster.predict(x[:40])
    expected = predicted.argmax(axis=1) if predicted.ndim == 2 else predicted
    assert version["status"] == "READY", version["description"]
    assert [output["value"] for output in answer["prediction"]["outputs"]] == expected.tolist()


async def test_categories_that_pandas_kept_with_the_model_are_names(registered, execute, scientist, at_work):
    x, y = load_breast_cancer(return_X_y=True)
    x = np.column_stack([x[:, :3], np.digitize(x[:, 0], [12, 16])])
    booster = lgb.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_per_group": 5, "cat_smooth": 1},
        lgb.Dataset(x, y, categorical_feature=[3], feature_name=["a", "b", "c", "size"]),
        10,
    )
    text = booster.model_to_string()
    assert "\npandas_categorical:" in text
    text = re.sub(r"\npandas_categorical:.*", '\npandas_categorical:[["small", "medium", "large"]]', text)

    version = (await registered(text.encode()))["modelVersion"]

    assert version["signature"]["inputs"][3] == {
        "name": "size", "type": "CATEGORY", "nullable": True, "categories": ["small", "medium", "large"]
    }  # fmt: skip
    sizes = ["small", "medium", "large"]
    rows = [{"a": r[0], "b": r[1], "c": r[2], "size": sizes[int(r[3])]} for r in x[:60].tolist()]
    asked = {"model": {"id": version["id"]}, "rows": rows, "includeProbabilities": True}
    answer = (await execute(PREDICT, principal=scientist, input=asked))["data"]["predict"]
    assert [o["probabilities"][1]["probability"] for o in answer["prediction"]["outputs"]] == (
        booster.predict(x[:60]).tolist()
    )


IMPORTANCE = """
query ($id: ID!) { modelVersion(id: $id) {
  shap: featureImportance(kind: SHAP) { feature importance rank }
  permutation: featureImportance(kind: PERMUTATION) { feature rank }
  gain: featureImportance(kind: GAIN) { rank }
} }
"""
EVALUATE = """
mutation ($input: EvaluateModelVersionInput!) {
  evaluateModelVersion(input: $input) { evaluation { metrics { name value } } errors { message } }
}
"""


async def test_an_uploaded_model_is_evaluated_and_its_importance_known_by_every_kind(
    registered, execute, scientist, db, store, project, tmp_path, at_work
):
    booster, x = trained()
    version = (await registered(booster.model_to_string().encode()))["modelVersion"]
    y = load_breast_cancer(return_X_y=True)[1]
    columns = {name: x[:, place] for place, name in enumerate(booster.feature_name())}
    data = await ready_version(db, store, project, tmp_path, pa.table(columns | {"is benign": y}))
    async with db.transaction() as session:
        await session.run(update(dataset_columns).where(dataset_columns.c.name == "is benign").values(role="TARGET"))
    before = (await execute(IMPORTANCE, principal=scientist, id=version["id"]))["data"]["modelVersion"]

    asked = {"modelVersionId": version["id"], "datasetVersionId": global_id(Kind.DATASET_VERSION, data)}
    found = (await execute(EVALUATE, principal=scientist, input=asked))["data"]["evaluateModelVersion"]

    after = (await execute(IMPORTANCE, principal=scientist, id=version["id"]))["data"]["modelVersion"]
    assert found["errors"] == []
    named = {metric["name"]: metric["value"] for metric in found["evaluation"]["metrics"]}
    assert named["auc"] == pytest.approx(roc_auc_score(y, booster.predict(x)), rel=1e-12)
    assert (before["shap"], before["permutation"], after["gain"]) == ([], [], before["gain"])
    told = {one["feature"]: one["importance"] for one in after["shap"]}
    sample = np.sort(np.random.default_rng(0).choice(len(x), len(x), replace=False))[:500]
    expected = np.abs(booster.predict(x[sample], pred_contrib=True))[:, :30].mean(axis=0)
    assert told == pytest.approx(dict(zip(booster.feature_name(), expected, strict=True)), rel=1e-12)
    assert [one["rank"] for one in after["permutation"]] == list(range(1, 31))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda text: b"id,name\n1,rose\n", "The file is not whole: it has no trees, or ends before their end."),
        (lambda text: text[: len(text) // 2], "The file is not whole: it has no trees, or ends before their end."),
        (lambda text: b"\xff\xfe" + text, "The file is not text: give the file that Booster.save_model wrote."),
        (
            lambda text: re.sub(rb"\nleft_child=\S+", b"\nleft_child=0", text, count=1),
            "Tree 0 is no tree: node 0 leads to 0.",
        ),
        (
            lambda text: re.sub(rb"\nsplit_feature=\S+", b"\nsplit_feature=99", text, count=1),
            "Tree 0 splits by a feature that there is not.",
        ),
        (
            lambda text: re.sub(rb"\nleaf_value=\S+", b"\nleaf_value=nan", text, count=1),
            "Tree 0: leaf_value holds a number that is not finite.",
        ),
    ],
)
async def test_a_damaged_file_is_told_and_its_version_is_failed(damage, why, registered, execute, scientist, at_work):
    booster, x = trained()
    made = await registered(damage(booster.model_to_string().encode()))

    version = made["modelVersion"]
    assert (version["status"], version["description"]) == ("FAILED", f"Not usable: {why}")
    assert (version["sha256"], version["download"], version["gain"]) == (None, None, [])
    asked = {"model": {"id": version["id"]}, "rows": rows_of(booster, x[:1])}
    answer = (await execute(PREDICT, principal=scientist, input=asked))["data"]["predict"]
    assert [error["code"] for error in answer["errors"]] == ["INVALID_STATE"]


async def test_a_model_for_another_task_is_told(registered, at_work):
    booster, _ = trained("regression")
    version = (await registered(booster.model_to_string().encode()))["modelVersion"]
    assert (version["status"], version["description"]) == (
        "FAILED",
        "Not usable: The file is a model for REGRESSION, and this model is for BINARY_CLASSIFICATION.",
    )


async def test_what_is_no_completed_upload_is_refused_and_nothing_is_written(
    registered, execute, scientist, caller, dataset, uploaded, db
):
    started = await uploading.start(execute, scientist, dataset, 10)
    model = await registered(b"", upload_id=f"upload_{'0' * 32}")
    open_one = await registered(b"", upload_id=started["upload"]["id"])

    assert [(e["code"], e["path"]) for e in model["errors"]] == [("NOT_FOUND", ["input", "from", "uploadId"])]
    assert [(e["code"], e["currentState"]) for e in open_one["errors"]] == [("INVALID_STATE", "OPEN")]
    async with db.reading() as session:
        for table in (model_versions, operations_table):
            assert await session.scalar(select(func.count()).select_from(table)) == 0


async def test_a_child_that_dies_of_a_file_ends_neither_worker_nor_the_next_one(
    registered, at_work, template, monkeypatch, db
):
    booster, _ = trained()
    template_pid = template.pid
    monkeypatch.setattr(examining, "ADMIT", f"{targets.__name__}:crash")
    crashed = (await registered(booster.model_to_string().encode()))["modelVersion"]
    monkeypatch.undo()
    monkeypatch.setattr("resolvers.models.CHECK_SECONDS", 60.0)
    sound = (await registered(booster.model_to_string().encode()))["modelVersion"]

    assert (crashed["status"], crashed["description"]) == (
        "FAILED",
        "Not usable: LightGBM crashed when it read the file: it is damaged. Save the model again, and upload that.",
    )
    assert sound["status"] == "READY"
    assert template.pid == template_pid
    async with db.reading() as session:
        told = await session.records(select(events.c.changes).where(events.c.type == "MODEL_UPDATED"))
    assert [change for (change,) in told] == [
        {"version 1 status": ["PENDING", "FAILED"]}, {"version 1 status": ["PENDING", "READY"]}
    ]  # fmt: skip


def damaged(text: bytes, chance: random.Random) -> bytes:
    """The text cut, with bytes turned over, or with a number changed."""
    kind = chance.randrange(3)
    if kind == 0:
        return text[: chance.randrange(len(text))]
    if kind == 1:
        content = bytearray(text)
        for _ in range(chance.randrange(1, 6)):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        return bytes(content)
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e[+-]?\d+)?", text))
    place = chance.choice(numbers)
    other = chance.choice([b"-1", b"0", b"7", b"99999999", b"4294967296", b"1e400", b"nan", b"-inf", b"0x10", b""])
    return text[: place.start()] + other + text[place.end() :]


async def test_damaged_files_cost_a_child_at_the_most(template, tmp_path):
    """Whatever is let in predicts; the process that children are forked from is the same afterwards."""
    chance = random.Random(5)
    x, y = load_breast_cancer(return_X_y=True)
    x = np.column_stack([x[:, [1, 4, 8]], np.digitize(x[:, 0], [10, 12, 14, 16, 18])])
    given = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_per_group": 5, "cat_smooth": 1}
    booster = lgb.train(given, lgb.Dataset(x, y, categorical_feature=[3]), 8)
    text = booster.model_to_string().encode()
    assert re.search(rb"num_cat=[1-9]", text)
    template.start()
    pid = template.pid
    let_in, refused, died = 0, 0, 0
    for number in range(DAMAGES):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "model.txt").write_bytes(damaged(text, chance))
        job = AdmitJob(path=str(folder / "model.txt"), task="BINARY_CLASSIFICATION")
        try:
            run = await template.run(examining.ADMIT, job, controlled=True, memory_limit_mb=1024, wall_timeout=30)
            found: Admitted = await run.result()
        except ModelUnreadable:
            refused += 1
        except ChildFailure:
            died += 1
        else:
            let_in += 1
            names = [field["name"] for field in found.signature["inputs"]]
            rows = [dict(zip(names, row, strict=True)) for row in x[:20].tolist()]
            rows = [{**row, names[3]: int(row[names[3]])} for row in rows]
            scoring = await template.run("ml.scoring:score", str(folder), found.sha256, rows, True, True)
            assert len(await scoring.result()) == 20
    assert template.pid == pid
    assert let_in + refused + died == DAMAGES
    assert refused > DAMAGES / 2
    assert died <= 3, "the text is checked before LightGBM sees it"
    assert read(text.decode()).task == "BINARY_CLASSIFICATION"
