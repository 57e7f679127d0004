"""Predictions through the API, held against what LightGBM itself says of the same rows."""

import asyncio
import hashlib
import math
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import func, select, text, update

from auth.principals import Principal
from db.ids import Kind, key_of, new_id
from db.predictions import forget_old
from db.rows import Prediction
from db.tables import model_versions, predictions
from domain.predictions import by_version
from domain.refusals import Refused
from ml.spec import Task
from resolvers.context import Services
from tests.registered import Registered, real_table, registered
from tests.trained import Run, succeeded_run

PREDICT = """
mutation ($input: PredictInput!) { predict(input: $input) {
  prediction { id latencyMs modelVersion { number } createdBy { ... on User { username } }
    outputs { value probabilities { label probability } contributions { feature contribution } } }
  errors { __typename code message path ... on NotFoundError { id } ... on InvalidStateError { currentState }
    ... on ValidationError { allowed }
    ... on SchemaMismatchError { missingColumns unexpectedColumns typeMismatches { column expected actual } } }
} }
"""
CREATE = "mutation ($input: CreateModelInput!) { createModel(input: $input) { model { id } } }"
CREATE_VERSION = """
mutation ($input: CreateModelVersionInput!) {
  createModelVersion(input: $input) { modelVersion { id } errors { message } }
}
"""
SET_ALIAS = "mutation ($input: SetModelAliasInput!) { setModelAlias(input: $input) { errors { message } } }"
REMOVE_ALIAS = "mutation ($input: RemoveModelAliasInput!) { removeModelAlias(input: $input) { errors { message } } }"
Served = tuple[str, Run]
LABELS = ["benign", "malignant"]


@pytest.fixture
def served(db, store, execute, scientist, project, tmp_path: Path) -> Callable[..., Awaitable[Served]]:
    """`await served(task)`: a model version, and the run it was made of."""

    async def make(task: Task = Task.BINARY_CLASSIFICATION, **how: Any) -> Served:
        run = await succeeded_run(db, store, project, tmp_path, task=task, **how)
        model = await execute(
            CREATE,
            principal=scientist,
            input={"projectId": f"project_{project.id.hex}", "name": f"model-{run.key.hex}", "task": task},
        )
        model_id = model["data"]["createModel"]["model"]["id"]
        made = await execute(
            CREATE_VERSION, principal=scientist, input={"modelId": model_id, "from": {"runId": run.id}}
        )
        version_id = made["data"]["createModelVersion"]["modelVersion"]["id"]
        await execute(
            SET_ALIAS, principal=scientist, input={"modelId": model_id, "alias": "live", "versionId": version_id}
        )
        return version_id, run

    return make


@pytest.fixture
def predict(execute, scientist) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def ask(version_id: str, rows: list[Any], **more: Any) -> dict[str, Any]:
        answer = await execute(PREDICT, principal=scientist, input={"model": {"id": version_id}, "rows": rows, **more})
        assert "errors" not in answer, answer
        payload: dict[str, Any] = answer["data"]["predict"]
        return payload

    return ask


def booster_of(run: Run) -> lgb.Booster:
    return lgb.Booster(model_file=str(run.folder / "model.txt"))


def matrix_of(rows: list[dict[str, Any]]) -> Any:
    return np.array([list(row.values()) for row in rows])


async def kept(db) -> int:
    async with db.reading() as session:
        return await session.scalar(select(func.count()).select_from(predictions))


async def test_a_classifier_answers_exactly_as_lightgbm(served, predict):
    version_id, run = await served()
    rows = run.rows[:300]

    answer = (await predict(version_id, rows, includeProbabilities=True))["prediction"]

    shares = booster_of(run).predict(matrix_of(rows))
    assert answer["outputs"] == [
        {
            "value": LABELS[int(share > 0.5)],
            "probabilities": [
                {"label": LABELS[0], "probability": 1.0 - share},
                {"label": LABELS[1], "probability": share},
            ],
            "contributions": None,
        }
        for share in shares.tolist()
    ]
    assert (answer["modelVersion"], answer["createdBy"]) == ({"number": 1}, {"username": "sam"})
    assert answer["latencyMs"] > 0


async def test_several_classes_answer_exactly_as_lightgbm(served, predict):
    version_id, run = await served(Task.MULTICLASS_CLASSIFICATION)

    answer = (await predict(version_id, run.rows, includeProbabilities=True))["prediction"]

    shares = np.asarray(booster_of(run).predict(matrix_of(run.rows)))
    assert [output["value"] for output in answer["outputs"]] == shares.argmax(axis=1).tolist()
    assert [[p["probability"] for p in output["probabilities"]] for output in answer["outputs"]] == shares.tolist()
    assert [p["label"] for p in answer["outputs"][0]["probabilities"]] == ["0", "1", "2"]


async def test_a_number_is_predicted_exactly_as_lightgbm(served, predict):
    version_id, run = await served(Task.REGRESSION)

    answer = (await predict(version_id, run.rows[:100]))["prediction"]

    assert [output["value"] for output in answer["outputs"]] == booster_of(run).predict(
        matrix_of(run.rows[:100])
    ).tolist()
    assert {(output["probabilities"], output["contributions"]) for output in answer["outputs"]} == {(None, None)}


@pytest.mark.parametrize("task", [Task.BINARY_CLASSIFICATION, Task.MULTICLASS_CLASSIFICATION, Task.REGRESSION])
async def test_contributions_sum_to_the_raw_score(served, predict, task):
    version_id, run = await served(task)
    rows = run.rows[::40]

    answer = (await predict(version_id, rows, includeContributions=True))["prediction"]

    raw = np.asarray(booster_of(run).predict(matrix_of(rows), raw_score=True))
    best = raw.max(axis=1) if raw.ndim == 2 else raw
    for output, wanted in zip(answer["outputs"], best.tolist(), strict=True):
        assert [c["feature"] for c in output["contributions"]] == [*rows[0], "<base>"]
        assert sum(c["contribution"] for c in output["contributions"]) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


async def test_an_alias_names_the_version(execute, scientist, served):
    version_id, run = await served()
    shown = await execute(
        "query ($id: ID!) { modelVersion(id: $id) { model { id } } }", principal=scientist, id=version_id
    )
    model_id = shown["data"]["modelVersion"]["model"]["id"]

    async def ask(alias: str) -> Any:
        model = {"alias": {"modelId": model_id, "alias": alias}}
        answer = await execute(PREDICT, principal=scientist, input={"model": model, "rows": run.rows[:1]})
        return answer["data"]["predict"]

    assert (await ask("live"))["prediction"]["modelVersion"] == {"number": 1}
    assert [(e["code"], e["message"], e["path"]) for e in (await ask("gone"))["errors"]] == [
        ("NOT_FOUND", "There is no model of this ID with this alias.", ["input", "model", "alias"])
    ]


async def test_an_alias_that_moved_answers_with_its_new_version_at_once(execute, scientist, served, db):
    version_id, run = await served()
    shown = await execute(
        "query ($id: ID!) { modelVersion(id: $id) { model { id } } }", principal=scientist, id=version_id
    )
    model_id = shown["data"]["modelVersion"]["model"]["id"]
    model = {"alias": {"modelId": model_id, "alias": "live"}}

    async def ask() -> Any:
        answer = await execute(PREDICT, principal=scientist, input={"model": model, "rows": run.rows[:1]})
        return answer["data"]["predict"]

    assert [(await ask())["prediction"]["modelVersion"] for _ in range(2)] == [{"number": 1}] * 2
    made = await execute(
        CREATE_VERSION, principal=scientist, input={"modelId": model_id, "from": {"copyOfVersionId": version_id}}
    )
    second = made["data"]["createModelVersion"]["modelVersion"]["id"]
    await execute(SET_ALIAS, principal=scientist, input={"modelId": model_id, "alias": "live", "versionId": second})
    assert (await ask())["prediction"]["modelVersion"] == {"number": 2}
    await execute(REMOVE_ALIAS, principal=scientist, input={"modelId": model_id, "alias": "live"})
    gone = await ask()

    assert (gone["prediction"], [error["code"] for error in gone["errors"]]) == (None, ["NOT_FOUND"])
    assert await kept(db) == 3


async def test_a_version_that_was_used_is_not_used_when_it_is_archived(served, predict, db):
    version_id, run = await served()
    assert (await predict(version_id, run.rows[:1]))["errors"] == []
    async with db.transaction() as session:
        await session.run(update(model_versions).values(status="ARCHIVED"))

    for rows in (run.rows[:1], [{}]):
        refused = await predict(version_id, rows)
        assert [(e["code"], e["currentState"]) for e in refused["errors"]] == [("INVALID_STATE", "ARCHIVED")]
    assert await kept(db) == 1


async def test_a_version_that_was_used_is_not_found_when_the_right_is_lost(scientist, served, services, db):
    """Even when nothing else has asked for the right before: the rule itself is called here."""
    version_id, run = await served()
    elsewhere = replace(scientist, grants=tuple(replace(grant, project_id=new_id()) for grant in scientist.grants))

    async def ask(reader: Principal, rows: list[Any]) -> Prediction:
        return await services.predictor.predict(
            db.seen_by(reader), reader, by_version(version_id), rows=rows, probabilities=False, contributions=False
        )

    for _ in range(2):
        assert len((await ask(scientist, run.rows[:1])).outputs) == 1
    for rows in (run.rows[:1], [{}]):
        with pytest.raises(Refused) as refused:
            await ask(elsewhere, rows)
        assert [(refusal.code, refusal.id) for refusal in refused.value.refusals] == [("NOT_FOUND", version_id)]
    assert await kept(db) == 2


async def test_a_missing_value_is_null(served, predict):
    version_id, run = await served()
    row = dict.fromkeys(run.rows[0])

    answer = (await predict(version_id, [row], includeProbabilities=True))["prediction"]

    share = booster_of(run).predict(np.full((1, len(row)), math.nan))[0]
    assert answer["outputs"][0]["probabilities"][1]["probability"] == share


def nested(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


async def test_a_row_that_does_not_fit_is_refused(served, predict, db):
    version_id, run = await served()
    good = run.rows[0]
    first, second = list(good)[:2]
    missing = {name: value for name, value in good.items() if name != second}

    for row, columns in (
        (missing, {"missingColumns": [second]}),
        ({**good, "colour": 1}, {"unexpectedColumns": ["colour"]}),
        ({}, {"missingColumns": list(good)}),
        ({**good, first: "much"}, {"typeMismatches": [(first, "FLOAT", "STRING")]}),
        ({**good, first: True}, {"typeMismatches": [(first, "FLOAT", "BOOLEAN")]}),
        ({**good, first: [1]}, {"typeMismatches": [(first, "FLOAT", "LIST")]}),
        ({**good, first: nested(900)}, {"typeMismatches": [(first, "FLOAT", "LIST")]}),
        ({**good, first: math.nan}, {"typeMismatches": [(first, "FLOAT", "UNKNOWN")]}),
        ({**good, first: math.inf}, {"typeMismatches": [(first, "FLOAT", "UNKNOWN")]}),
        ({**good, first: 10**400}, {"typeMismatches": [(first, "FLOAT", "UNKNOWN")]}),
        ({**missing, "\0": 1}, {"missingColumns": [second], "unexpectedColumns": ["\0"]}),
    ):
        refused = await predict(version_id, [good, good, row, good])
        assert refused["prediction"] is None
        [error] = refused["errors"]
        assert (error["__typename"], error["code"]) == ("SchemaMismatchError", "SCHEMA_MISMATCH")
        assert error["path"] == ["input", "rows", "2"]
        assert error["message"].startswith("Row 2 ")
        assert {
            "missingColumns": error["missingColumns"],
            "unexpectedColumns": error["unexpectedColumns"],
            "typeMismatches": [tuple(mismatch.values()) for mismatch in error["typeMismatches"]],
        } == {"missingColumns": [], "unexpectedColumns": [], "typeMismatches": [], **columns}
    assert await kept(db) == 0


@pytest.mark.parametrize("count", [0, 1001])
async def test_between_one_and_a_thousand_rows_are_predicted(served, predict, db, count):
    version_id, run = await served()

    refused = await predict(version_id, run.rows[:1] * count)

    assert [(e["code"], e["path"]) for e in refused["errors"]] == [("OUT_OF_RANGE", ["input", "rows"])]
    assert await kept(db) == 0


@pytest.mark.parametrize("version_id", ["modelversion_" + "0" * 32, "model_" + "0" * 32, "nonsense", ""])
async def test_an_unknown_version_is_not_found(predict, db, version_id):
    refused = await predict(version_id, [{}])

    assert [(e["code"], e["path"], e["id"]) for e in refused["errors"]] == [
        ("NOT_FOUND", ["input", "model", "id"], version_id)
    ]
    assert await kept(db) == 0


async def test_a_version_that_is_not_ready_does_not_predict(served, predict, db):
    version_id, run = await served()
    async with db.transaction() as session:
        await session.run(update(model_versions).values(status="ARCHIVED"))

    refused = await predict(version_id, run.rows[:1])

    assert [(e["code"], e["currentState"]) for e in refused["errors"]] == [("INVALID_STATE", "ARCHIVED")]
    assert await kept(db) == 0


async def test_a_viewer_may_not_predict(execute, caller, served, db):
    version_id, run = await served()
    viewer = await caller("Viewer")

    answer = await execute(PREDICT, principal=viewer, input={"model": {"id": version_id}, "rows": run.rows[:1]})

    assert answer["data"] == {"predict": None}
    assert [error["extensions"] for error in answer["errors"]] == [{"code": "FORBIDDEN"}]
    assert await kept(db) == 0


async def test_a_prediction_can_be_fetched_for_a_day(execute, scientist, caller, served, predict, db):
    version_id, run = await served()
    made = (await predict(version_id, run.rows[:3], includeProbabilities=True, includeContributions=True))["prediction"]
    query = """query ($id: ID!) { node(id: $id) { id ... on Prediction { latencyMs modelVersion { number }
      createdBy { ... on User { username } }
      outputs { value probabilities { label probability } contributions { feature contribution } } } } }"""

    fetched = await execute(query, principal=scientist, id=made["id"])
    unseen = await execute(query, principal=await caller(None), id=made["id"])
    async with db.transaction() as session:
        await session.run(update(predictions).values(created_at=func.now() - text("interval '1 day'")))
    gone = await execute(query, principal=scientist, id=made["id"])

    assert fetched == {"data": {"node": made}}
    assert unseen == gone == {"data": {"node": None}}


async def test_predictions_of_yesterday_are_deleted(served, predict, db):
    version_id, run = await served()
    for _ in range(3):
        await predict(version_id, run.rows[:1])
    async with db.transaction() as session:
        await session.run(update(predictions).values(created_at=func.now() - text("interval '1 day'")))
    await predict(version_id, run.rows[:1])

    async with db.transaction() as session:
        deleted = [await forget_old(session, limit=2) for _ in range(3)]

    assert deleted == [2, 1, 0]
    assert await kept(db) == 1


async def test_a_prediction_is_one_statement(served, predict, execute, scientist, statements):
    version_id, run = await served()
    await predict(version_id, run.rows[:1])

    with statements() as seen:
        await execute(
            "mutation ($input: PredictInput!) { predict(input: $input) { prediction { outputs { value } } } }",
            principal=scientist,
            input={"model": {"id": version_id}, "rows": run.rows[:1]},
        )

    assert [statement.split()[0] for statement in seen] == ["WITH"]


async def test_a_damaged_object_is_never_loaded(served, predict, store, db):
    version_id, run = await served(num_rounds=7)
    key = await model_key(db, version_id)
    whole = await store.read(key)
    await store.write(key, whole.replace(b"leaf_value=", b"leaf_valu3=", 1), "text/plain")

    refused = await predict(version_id, run.rows[:1])

    assert [(e["__typename"], e["code"], e["path"]) for e in refused["errors"]] == [
        ("ValidationError", "CHECKSUM_MISMATCH", ["input", "model"])
    ]
    assert await kept(db) == 0
    await store.delete([key])
    gone = await predict(version_id, run.rows[:1])
    assert [e["code"] for e in gone["errors"]] == ["CHECKSUM_MISMATCH"]

    await store.write(key, whole, "text/plain")
    assert (await predict(version_id, run.rows[:1]))["errors"] == []


async def test_a_text_that_lightgbm_cannot_read_is_refused(served, predict, store, db):
    """Its digest is right: it was registered damaged."""
    version_id, run = await served()
    damaged = b"tree\nversion=v4\nnum_class=1\n"
    await store.write(await model_key(db, version_id), damaged, "text/plain")
    async with db.transaction() as session:
        await session.run(update(model_versions).values(sha256=hashlib.sha256(damaged).hexdigest()))

    refused = await predict(version_id, run.rows[:1])

    assert [(e["__typename"], e["path"]) for e in refused["errors"]] == [("ValidationError", ["input", "model"])]
    assert await kept(db) == 0


async def test_a_copy_on_disk_that_was_changed_is_fetched_again(served, predict, settings, services):
    version_id, run = await served()
    digest = hashlib.sha256((run.folder / "model.txt").read_bytes()).hexdigest()
    wanted = (await predict(version_id, run.rows[:1], includeProbabilities=True))["prediction"]["outputs"]
    [copy] = [
        path
        for path in (settings.home / "models").glob("*/model.txt")
        if hashlib.sha256(path.read_bytes()).hexdigest() == digest
    ]
    copy.write_bytes(b"tree\n")
    await services.children.close()

    answer = await predict(version_id, run.rows[:1], includeProbabilities=True)

    assert answer["prediction"]["outputs"] == wanted
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == digest


async def children_of(services: Services) -> set[int]:
    """The processes that score; there are two at the most, and both are asked."""
    return set(await asyncio.gather(*(services.children.call("os:getpid") for _ in range(2))))


async def test_children_that_are_killed_cost_no_answer(execute, scientist, served, predict, services, db):
    version_id, run = await served()
    await predict(version_id, run.rows[:1])
    killed = await children_of(services)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    answers = await asyncio.gather(
        *(
            execute(PREDICT, principal=scientist, input={"model": {"id": version_id}, "rows": run.rows[:1]})
            for _ in range(10)
        )
    )

    assert [answer for answer in answers if "errors" in answer] == []
    assert await kept(db) == 11
    assert (await predict(version_id, run.rows[:1]))["errors"] == []
    assert not killed & await children_of(services)


async def test_a_child_that_dies_while_scoring_is_an_error_with_a_code(execute, scientist, served, db, services):
    """The model text makes LightGBM end the process; its digest is right, so it is handed over."""
    version_id, run = await served()
    text = (run.folder / "model.txt").read_bytes()
    deadly = text.replace(b"left_child=", b"left_child=99999999 ", 1)
    await services.store.write(await model_key(db, version_id), deadly, "text/plain")
    async with db.transaction() as session:
        await session.run(update(model_versions).values(sha256=hashlib.sha256(deadly).hexdigest()))

    answer = await execute(PREDICT, principal=scientist, input={"model": {"id": version_id}, "rows": run.rows[:1]})

    assert answer["data"] == {"predict": None}
    assert [error["extensions"] for error in answer["errors"]] == [{"code": "UNAVAILABLE"}]
    assert await kept(db) == 0


async def test_many_at_once_are_all_answered(served, predict, execute, scientist):
    version_id, run = await served()
    wanted = booster_of(run).predict(matrix_of(run.rows[:40])).tolist()

    answers = await asyncio.gather(*(predict(version_id, [row], includeProbabilities=True) for row in run.rows[:40]))

    found = [answer["prediction"]["outputs"][0]["probabilities"][1]["probability"] for answer in answers]
    assert found == wanted


async def model_key(db, version_id: str) -> str:
    async with db.reading() as session:
        found: str = await session.scalar(
            select(model_versions.c.model_key).where(model_versions.c.id == key_of(version_id, Kind.MODEL_VERSION))
        )
    return found


# Categories, and children that are lost


@pytest.fixture
async def sized(db, store, execute, scientist, project, tmp_path: Path) -> Registered:
    """A model of breast cancer by texture and a size, which is a category."""
    table = real_table(Task.BINARY_CLASSIFICATION)
    sizes = ["large" if radius > 14 else "small" for radius in table["mean radius"].to_pylist()]
    table = table.select(["mean texture", "target"]).append_column("size", pa.array(sizes))
    return await registered(db, store, execute, scientist, project, tmp_path, table=table)


async def test_a_category_that_the_model_has_not_met_is_refused(sized, predict, db):
    rows = [{"mean texture": 20.0, "size": size} for size in ("small", None, "enormous")]

    refused = await predict(sized.version_id, rows)
    answer = await predict(sized.version_id, rows[:2], includeProbabilities=True)

    assert [(e["__typename"], e["code"], e["path"], e["message"], e["allowed"]) for e in refused["errors"]] == [
        (
            "ValidationError",
            "OUT_OF_RANGE",
            ["input", "rows", "2", "size"],
            "Row 2: 'size' is 'enormous', a category that the model has not met. "
            "Send null where the value is not known.",
            ["large", "small"],
        )
    ]
    shares = sized.booster.predict(np.array([[20.0, 1.0], [20.0, math.nan]]))
    outputs = answer["prediction"]["outputs"]
    assert [output["probabilities"][1]["probability"] for output in outputs] == shares.tolist()
    assert await kept(db) == 1


async def test_a_value_of_another_type_is_told_before_a_category(sized, predict):
    refused = await predict(sized.version_id, [{"mean texture": "rough", "size": "enormous"}])
    assert [e["code"] for e in refused["errors"]] == ["SCHEMA_MISMATCH"]


async def test_contributions_of_linear_trees_are_refused(db, store, execute, scientist, project, tmp_path, predict):
    model = await registered(
        db, store, execute, scientist, project, tmp_path, task=Task.REGRESSION, params={"linear_tree": True}
    )
    row = model.table.drop_columns(["target"]).slice(0, 1).to_pylist()

    refused = await predict(model.version_id, row, includeContributions=True)
    plain = await predict(model.version_id, row)

    assert [(e["code"], e["path"]) for e in refused["errors"]] == [("INVALID", ["input", "includeContributions"])]
    assert plain["prediction"]["outputs"][0]["value"] == model.booster.predict(model.matrix())[0]
