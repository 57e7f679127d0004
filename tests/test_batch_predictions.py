"""Batch predictions through the API: a dataset version in, a dataset version out, whatever dies in between."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select

from db import operations
from db.ids import Kind, global_id, identify, new_id
from db.tables import dataset_versions, events, unowned_objects
from db.tables import operations as operations_table
from ml.processes import Template
from ml.spec import Task
from storage.keys import data_key
from tests import uploading
from tests.ready import ready_version
from tests.registered import Registered, real_table, registered
from workers.datasets import delete_unowned_objects
from workers.main import OPERATIONS
from workers.operations import MOST_ATTEMPTS, operate, requeue_stranded
from workers.worker import Worker

ERRORS = """
errors {
  __typename code message path
  ... on ValidationError { allowed } ... on InvalidStateError { currentState allowedStates }
  ... on SchemaMismatchError { missingColumns unexpectedColumns typeMismatches { column expected actual } }
}
"""
FIELDS = """
id status progress { phase fraction completed total unit } failure { code message retryable }
startedAt finishedAt rowsScored rowsFailed createdBy { ... on User { username } }
... on BatchPrediction {
  project { slug } modelVersion { id } input { id }
  output {
    id number status format rowCount columnCount digest sizeBytes note source { kind }
    dataset { id } columns(first: 100) { nodes { name type position nullable role profile { count nullCount } } }
  }
}
""".replace("rowsScored rowsFailed ", "")
CREATE = f"""
mutation ($input: CreateBatchPredictionInput!) {{
  createBatchPrediction(input: $input) {{ batchPrediction {{ {FIELDS} rowsScored rowsFailed }} {ERRORS} }}
}}
"""
OPERATION = f"""
query ($id: ID!) {{
  operation(id: $id) {{ __typename {FIELDS} ... on BatchPrediction {{ rowsScored rowsFailed }} }}
}}
"""
CANCEL = f"""
mutation ($input: CancelOperationInput!) {{
  cancelOperation(input: $input) {{ operation {{ id status }} {ERRORS} }}
}}
"""
WATCH = """
subscription ($id: ID!, $after: String) {
  operationUpdated(id: $id, after: $after) {
    cursor kind operation { status progress { phase fraction } ... on BatchPrediction { rowsScored } }
  }
}
"""


@pytest.fixture
def at_work(services, template: Template, tmp_path: Path) -> Worker:
    """What a worker process has, in this one; every batch of rows is a part of its own."""
    return Worker(
        db=services.db,
        store=services.store,
        wakeups=services.wakeups,
        name="test",
        scratch=tmp_path,
        run_memory_limit_mb=2048,
        children=template,
        threads=2,
        checkpoint_seconds=0.0,
    )


@pytest.fixture
async def output(execute, scientist, project) -> str:
    return await uploading.create_dataset(execute, scientist, project, "predictions")


@pytest.fixture
def register(db, store, execute, scientist, project, tmp_path: Path) -> Callable[..., Any]:
    async def make(**how: Any) -> Registered:
        return await registered(db, store, execute, scientist, project, tmp_path, **how)

    return make


@pytest.fixture
def ask(execute, scientist, output) -> Callable[..., Any]:
    async def ask(model: Registered, input: str | None = None, **more: Any) -> dict[str, Any]:
        wanted = {"inputVersionId": input or model.data_id, "outputDatasetId": output, **more}
        wanted.setdefault("model", {"id": model.version_id})
        answer = await execute(CREATE, principal=more.pop("principal", scientist), input=wanted)
        assert "errors" not in answer, answer
        return dict(answer["data"]["createBatchPrediction"])

    return ask


@pytest.fixture
def look(execute, scientist) -> Callable[..., Any]:
    async def look(id: str) -> dict[str, Any]:
        return dict((await execute(OPERATION, principal=scientist, id=id))["data"]["operation"])

    return look


@pytest.fixture
def fetched(db, store, tmp_path: Path) -> Callable[..., Any]:
    """The rows of a dataset version, read from the store as whoever downloads it does."""

    async def fetch(version_id: str) -> pa.Table:
        async with db.reading() as session:
            found = select(dataset_versions.c.data_key).where(dataset_versions.c.id == key(version_id))
            path = tmp_path / f"{new_id().hex}.parquet"
            await store.download_file(await session.scalar(found), path)
        return pq.read_table(path)

    return fetch


def key(id: str) -> UUID:
    found = identify(id)
    assert found is not None
    return found.key


async def done(worker: Worker, id: str) -> None:
    async with asyncio.timeout(120):
        await operate(OPERATIONS, worker, key(id))


async def rows_of(db: Any, table: Any) -> int:
    async with db.reading() as session:
        return int(await session.scalar(select(func.count()).select_from(table)))


async def test_every_row_gets_the_prediction_of_lightgbm(register, ask, at_work, look, fetched, output, db):
    model = await register()
    asked = (await ask(model, includeProbabilities=True))["batchPrediction"]
    assert (asked["status"], asked["output"], asked["startedAt"]) == ("QUEUED", None, None)
    assert asked["progress"] == {"phase": "queued", "fraction": 0, "completed": None, "total": None, "unit": None}

    await done(at_work, asked["id"])

    found = await look(asked["id"])
    version = found["output"]
    columns = version.pop("columns")["nodes"]
    table = await fetched(version["id"])
    shares = model.booster.predict(model.matrix())
    assert {name: found[name] for name in ("__typename", "status", "failure", "rowsScored", "rowsFailed")} == {
        "__typename": "BatchPrediction", "status": "SUCCEEDED", "failure": None, "rowsScored": "569", "rowsFailed": "0",
    }  # fmt: skip
    assert found["progress"] == {
        "phase": "finished", "fraction": 1.0, "completed": "569", "total": "569", "unit": "rows"
    }  # fmt: skip
    assert (found["project"], found["createdBy"]) == ({"slug": "lab"}, {"username": "sam"})
    assert (found["modelVersion"]["id"], found["input"]["id"]) == (model.version_id, model.data_id)
    assert (version["number"], version["status"], version["format"], version["rowCount"]) == (
        1,
        "READY",
        "PARQUET",
        "569",
    )
    assert (version["dataset"]["id"], version["source"]) == (output, {"kind": "DERIVED"})
    assert table.select(model.table.column_names).equals(model.table)
    assert table["prediction"].to_pylist() == ["malignant" if share > 0.5 else "benign" for share in shares]
    np.testing.assert_array_equal(table["probability_malignant"].to_numpy(), shares)
    np.testing.assert_array_equal(table["probability_benign"].to_numpy(), 1.0 - shares)
    assert [column["name"] for column in columns] == table.column_names
    assert [(c["name"], c["type"], c["role"], c["nullable"]) for c in columns[-3:]] == [
        ("prediction", "STRING", "IGNORED", False),
        ("probability_benign", "FLOAT", "IGNORED", False),
        ("probability_malignant", "FLOAT", "IGNORED", False),
    ]
    assert columns[0]["profile"] == {"count": "569", "nullCount": "0"}
    async with db.reading() as session:
        told = await session.records(select(events.c.type, events.c.changes).order_by(events.c.number))
    assert [tuple(event) for event in told][-3:] == [
        ("DATASET_VERSION_CREATED", None),
        ("DATASET_VERSION_READY", None),
        ("BATCH_PREDICTION_FINISHED", {"status": ["RUNNING", "SUCCEEDED"]}),
    ]


@pytest.mark.parametrize("task", [Task.MULTICLASS_CLASSIFICATION, Task.REGRESSION])
async def test_other_tasks_too(task, register, ask, at_work, look, fetched):
    model = await register(task=task)
    asked = (await ask(model, includeProbabilities=True))["batchPrediction"]
    await done(at_work, asked["id"])

    table = await fetched((await look(asked["id"]))["output"]["id"])
    predicted = model.booster.predict(model.matrix())
    if task is Task.REGRESSION:
        assert table.column_names[-1] == "prediction"
        np.testing.assert_array_equal(table["prediction"].to_numpy(), predicted)
    else:
        assert table["prediction"].to_pylist() == predicted.argmax(axis=1).tolist()
        for label in range(3):
            np.testing.assert_array_equal(table[f"probability_{label}"].to_numpy(), predicted[:, label])


async def test_missing_values_are_scored_and_categories_never_met_are_not(
    register, ask, at_work, look, fetched, db, store, project, tmp_path
):
    table = real_table(Task.BINARY_CLASSIFICATION)
    size = pa.array(["large" if radius > 14 else "small" for radius in table["mean radius"].to_pylist()])
    table = table.append_column("size", size).append_column("prediction", pa.array(range(len(table))))
    model = await register(table=table, features=("mean radius", "mean texture", "size"))
    rows = table.slice(0, 5).to_pylist()
    rows[1]["size"], rows[2]["size"], rows[3]["mean radius"] = "enormous", None, None
    input = await ready_version(db, store, project, tmp_path, pa.Table.from_pylist(rows, schema=table.schema))
    asked = (await ask(model, global_id(Kind.DATASET_VERSION, input), includeProbabilities=True))["batchPrediction"]
    await done(at_work, asked["id"])

    found = await look(asked["id"])
    scored = await fetched(found["output"]["id"])
    codes = {"large": 0.0, "small": 1.0}
    values = [[row["mean radius"], row["mean texture"], codes.get(row["size"])] for row in rows]
    shares = model.booster.predict(np.array(values, dtype=np.float64)).tolist()
    shares[1] = None
    assert (found["status"], found["rowsScored"], found["rowsFailed"]) == ("SUCCEEDED", "4", "1")
    assert scored["probability_malignant"].to_pylist() == shares
    assert scored["prediction_2"].to_pylist() == [s if s is None else ["benign", "malignant"][s > 0.5] for s in shares]
    assert scored["prediction"].to_pylist() == list(range(5)), "the data's own column of that name"


async def test_no_rows_are_no_predictions(register, ask, at_work, look, fetched, db, store, project, tmp_path):
    model = await register()
    empty = await ready_version(db, store, project, tmp_path, model.table.slice(0, 0))
    asked = (await ask(model, global_id(Kind.DATASET_VERSION, empty)))["batchPrediction"]
    await done(at_work, asked["id"])

    found = await look(asked["id"])
    assert (found["status"], found["rowsScored"], found["output"]["rowCount"]) == ("SUCCEEDED", "0", "0")
    assert (await fetched(found["output"]["id"])).column_names == [*model.table.column_names, "prediction"]


async def test_what_cannot_be_scored_is_refused_and_nothing_is_written(
    register, ask, execute, caller, output, db, store, project, tmp_path
):
    model = await register()
    before = await rows_of(db, operations_table), await rows_of(db, events)
    short = await ready_version(
        db, store, project, tmp_path,
        model.table.drop_columns(["mean radius"]).set_column(
            0, "mean texture", pa.array(["rough"] * len(model.table))
        ),
    )  # fmt: skip
    unready = await ready_version(db, store, project, tmp_path, model.table, status="PROCESSING")
    nobody = f"datasetversion_{'0' * 32}"

    misfit = (await ask(model, global_id(Kind.DATASET_VERSION, short)))["errors"]
    assert [(e["__typename"], e["path"], e["missingColumns"], e["typeMismatches"]) for e in misfit] == [
        (
            "SchemaMismatchError",
            ["input", "inputVersionId"],
            ["mean radius"],
            [{"column": "mean texture", "expected": "FLOAT", "actual": "STRING"}],
        )
    ]
    assert misfit[0]["message"] == (
        "The data do not fit the model: the version has no column 'mean radius'; "
        "has 'mean texture' as STRING, not FLOAT."
    )
    early = (await ask(model, global_id(Kind.DATASET_VERSION, unready)))["errors"]
    assert [(e["code"], e["path"], e["currentState"]) for e in early] == [
        ("INVALID_STATE", ["input", "inputVersionId"], "PROCESSING")
    ]
    for more, path in (
        ({"input": nobody}, "inputVersionId"),
        ({"outputDatasetId": f"dataset_{'0' * 32}"}, "outputDatasetId"),
    ):
        missing = (await ask(model, **more))["errors"]
        assert [(e["code"], e["path"]) for e in missing] == [("NOT_FOUND", ["input", path])]
    operator = await caller("Operator")
    may_not_write = await execute(
        CREATE, principal=operator,
        input={"model": {"id": model.version_id}, "inputVersionId": model.data_id, "outputDatasetId": output},
    )  # fmt: skip
    assert [(e["code"], e["path"]) for e in may_not_write["data"]["createBatchPrediction"]["errors"]] == [
        ("INVALID", ["input", "outputDatasetId"])
    ]
    viewer = await caller("Viewer")
    denied = await execute(
        CREATE, principal=viewer,
        input={"model": {"id": model.version_id}, "inputVersionId": model.data_id, "outputDatasetId": output},
    )  # fmt: skip
    assert denied["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert (await rows_of(db, operations_table), await rows_of(db, events)) == before


async def test_a_key_asks_once(register, ask, db):
    model = await register()
    first = (await ask(model, idempotencyKey="once"))["batchPrediction"]
    again = (await ask(model, idempotencyKey="once"))["batchPrediction"]
    other = (await ask(model, idempotencyKey="once", includeProbabilities=True))["errors"]

    assert again["id"] == first["id"]
    assert [e["code"] for e in other] == ["IDEMPOTENCY_MISMATCH"]
    assert await rows_of(db, operations_table) == 1


LIST = "query ($p: ID, $n: Int) { batchPredictions(projectId: $p, first: $n) { totalCount nodes { id } } }"


async def test_they_are_listed_newest_first_to_those_who_see_model_and_data(register, ask, execute, scientist, caller):
    model = await register()
    ids = [(await ask(model))["batchPrediction"]["id"] for _ in range(3)]
    stranger = await caller(None)

    async def listed(principal: Any, **variables: Any) -> Any:
        return (await execute(LIST, principal=principal, **variables))["data"]["batchPredictions"]

    assert await listed(scientist, n=2) == {"totalCount": 3, "nodes": [{"id": id} for id in ids[:0:-1]]}
    assert await listed(scientist, p=f"project_{'0' * 32}", n=2) == {"totalCount": 0, "nodes": []}
    assert (await listed(stranger, n=2))["nodes"] == []
    assert (await execute(OPERATION, principal=stranger, id=ids[0]))["data"] == {"operation": None}
    node = await execute("query ($id: ID!) { node(id: $id) { __typename id } }", principal=scientist, id=ids[0])
    assert node["data"]["node"] == {"__typename": "BatchPrediction", "id": ids[0]}


# Following and canceling


@pytest.fixture
def stream(context_of, scientist) -> Callable[..., Any]:
    from schema.execution import stream as run

    async def responses(query: str, **variables: Any) -> AsyncIterator[dict[str, Any]]:
        async for response, _ in run(query, variables, None, context_of(scientist)):
            yield response

    return responses


async def test_an_operation_is_followed_to_its_end(register, ask, stream, at_work):
    model = await register()
    id = (await ask(model))["batchPrediction"]["id"]
    following = stream(WATCH, id=id)
    items = [(await anext(following))["data"]["operationUpdated"]]
    working = asyncio.create_task(done(at_work, id))
    async with asyncio.timeout(60):
        items += [response["data"]["operationUpdated"] async for response in following]
    await working

    assert (items[0]["kind"], items[0]["operation"]["status"]) == ("SNAPSHOT", "QUEUED")
    assert {item["kind"] for item in items[1:]} == {"UPDATED"}
    assert items[-1]["operation"] == {
        "status": "SUCCEEDED", "progress": {"phase": "finished", "fraction": 1.0}, "rowsScored": "569"
    }  # fmt: skip
    fractions = [item["operation"]["progress"]["fraction"] for item in items]
    assert fractions == sorted(fractions)
    last = [response async for response in stream(WATCH, id=id, after=items[-1]["cursor"])]
    assert last == []
    refused = [response async for response in stream(WATCH, id=f"batchprediction_{'0' * 32}")]
    assert [e["extensions"] for r in refused for e in r["errors"]] == [{"code": "BAD_REQUEST", "userCode": "NOT_FOUND"}]


async def test_one_that_waits_is_canceled_at_once(register, ask, execute, scientist, caller, look, at_work, db):
    model = await register()
    id = (await ask(model))["batchPrediction"]["id"]
    refused = await execute(CANCEL, principal=await caller("Viewer"), input={"id": id})
    stranger = await execute(CANCEL, principal=await caller(None), input={"id": id})
    assert (await look(id))["status"] == "QUEUED"

    canceled = (await execute(CANCEL, principal=scientist, input={"id": id}))["data"]["cancelOperation"]
    again = (await execute(CANCEL, principal=scientist, input={"id": id}))["data"]["cancelOperation"]
    await done(at_work, id)

    assert [e["code"] for e in refused["data"]["cancelOperation"]["errors"]] == ["INVALID"]
    assert [(e["code"], e["path"]) for e in stranger["data"]["cancelOperation"]["errors"]] == [
        ("NOT_FOUND", ["input", "id"])
    ]
    assert canceled == {"operation": {"id": id, "status": "CANCELED"}, "errors": []}
    assert [(e["code"], e["currentState"]) for e in again["errors"]] == [("INVALID_STATE", "CANCELED")]
    found = await look(id)
    assert (found["status"], found["output"], found["failure"]) == ("CANCELED", None, None)
    assert await rows_of(db, dataset_versions) == 1


# What dies


async def many_rows(db: Any, store: Any, project: Any, folder: Path, model: Registered, times: int) -> tuple[str, Any]:
    table = pa.concat_tables([model.table] * times)
    version = await ready_version(db, store, project, folder, table)
    return global_id(Kind.DATASET_VERSION, version), table


async def until(check: Callable[[], Any]) -> Any:
    """Look until it answers something."""
    async with asyncio.timeout(90):
        while not (found := await check()):  # noqa: ASYNC110  (what is waited for is in another process)
            await asyncio.sleep(0.05)
    return found


async def kept_parts(db: Any, id: str) -> list[dict[str, Any]]:
    async with db.reading() as session:
        kept = await session.scalar(select(operations_table.c.kept).where(operations_table.c.id == key(id)))
    return list(kept.get("parts", []))


async def test_it_is_canceled_while_a_worker_is_at_it(
    register, ask, execute, scientist, look, start_worker, db, store, project, tmp_path
):
    model = await register(num_rounds=300)
    input, _ = await many_rows(db, store, project, tmp_path, model, 150)
    id = (await ask(model, input))["batchPrediction"]["id"]
    await start_worker()
    await until(lambda: kept_parts(db, id))
    answer = (await execute(CANCEL, principal=scientist, input={"id": id}))["data"]["cancelOperation"]

    async def is_over() -> Any:
        found = await look(id)
        return found if found["finishedAt"] else None

    found = await until(is_over)
    assert answer["operation"]["status"] in ("CANCELING", "CANCELED")
    assert (found["status"], found["output"]) == ("CANCELED", None)


@pytest.mark.slow
async def test_it_goes_on_after_kill_9_and_is_the_same(
    register, ask, look, start_worker, fetched, db, store, project, tmp_path
):
    model = await register(num_rounds=300)
    input, table = await many_rows(db, store, project, tmp_path, model, 150)
    id = (await ask(model, input, includeProbabilities=True))["batchPrediction"]["id"]
    worker = await start_worker()
    before = await until(lambda: kept_parts(db, id))
    worker.kill()
    await worker.wait()
    await start_worker()

    async def is_over() -> Any:
        found = await look(id)
        return found if found["finishedAt"] else None

    found = await until(is_over)
    scored = await fetched(found["output"]["id"])
    assert (found["status"], found["rowsScored"]) == ("SUCCEEDED", str(len(table)))
    assert sum(part["rows"] for part in before) < len(table)
    np.testing.assert_array_equal(
        scored["probability_malignant"].to_numpy(), model.booster.predict(model.matrix(table))
    )
    assert await rows_of(db, dataset_versions) == 3


async def test_a_lost_child_costs_a_retry_from_the_last_part(
    register, ask, look, at_work, template, fetched, db, store, project, tmp_path
):
    model = await register(num_rounds=300)
    input, table = await many_rows(db, store, project, tmp_path, model, 150)
    id = (await ask(model, input))["batchPrediction"]["id"]
    working = asyncio.create_task(done(at_work, id))
    await until(lambda: kept_parts(db, id))
    assert template.pid is not None
    killed = [os.kill(child.pid, signal.SIGKILL) for child in psutil.Process(template.pid).children()]
    await working

    found = await look(id)
    assert len(killed) == 1
    assert (found["status"], found["rowsScored"]) == ("SUCCEEDED", str(len(table)))
    expected = ["malignant" if share > 0.5 else "benign" for share in model.booster.predict(model.matrix(table))]
    assert (await fetched(found["output"]["id"]))["prediction"].to_pylist() == expected


async def test_who_lost_the_lease_writes_nothing(register, ask, look, at_work, db):
    model = await register()
    id = (await ask(model))["batchPrediction"]["id"]
    async with db.transaction() as session:
        lost = await operations.claim(session, key(id), new_id())
    assert lost is not None
    await done(at_work, id)
    before = await look(id)

    from domain import operations as steps

    for step, values in (
        (steps.note, {"progress": {"phase": "late"}}),
        (steps.keep_part, {"part": {"key": "x", "sha256": "", "rows": 1}, "scored": 1, "failed": 0}),
        (steps.canceled, {}),
        (steps.finish_batch, {"digest": "", "size_bytes": 1, "row_count": 1, "described": []}),
    ):
        with pytest.raises(steps.LeaseLost):
            async with db.transaction() as session:
                await step(session, lost, **values)
    assert await look(id) == before
    assert before["status"] == "SUCCEEDED"


async def test_it_is_given_up_after_workers_that_got_nowhere(register, ask, look, at_work, db):
    model = await register()
    id = (await ask(model))["batchPrediction"]["id"]
    for _ in range(MOST_ATTEMPTS):
        async with db.transaction() as session:
            await operations.claim(session, key(id), new_id())
    await done(at_work, id)

    found = await look(id)
    assert (found["status"], found["output"]) == ("FAILED", None)
    assert found["failure"] == {
        "code": "WORKER_LOST",
        "message": "4 workers in turn were lost before they got any further with this.",
        "retryable": False,
    }


async def test_one_without_a_job_gets_one(register, ask, db, at_work):
    model = await register()
    id = (await ask(model))["batchPrediction"]["id"]
    async with db.transaction() as session:
        await session.connection.execute("DELETE FROM pgqueuer")
    await requeue_stranded(at_work)
    await requeue_stranded(at_work)

    async with db.reading() as session:
        queued = await session.connection.fetch("SELECT entrypoint, payload FROM pgqueuer")
    assert [tuple(job) for job in queued] == [("predict_batch", key(id).bytes)]


async def test_what_was_stored_on_the_way_is_swept(register, ask, at_work, store, look, output, db):
    model = await register()
    id = (await ask(model))["batchPrediction"]["id"]
    await done(at_work, id)
    await delete_unowned_objects(at_work)

    async def stored(prefix: str) -> list[str]:
        return [found.key async for found in store.list(prefix)]

    assert await stored(f"operations/{key(id).hex}") == []
    assert await stored(f"datasets/{key(output).hex}") == [data_key(key(output), key(id), key(id))]
    assert await rows_of(db, unowned_objects) == 0


async def test_a_model_that_was_changed_in_the_store_is_not_loaded(register, ask, at_work, store, look, db):
    model = await register()
    id = (await ask(model))["batchPrediction"]["id"]
    from storage.keys import artifact_key

    await store.write(artifact_key(model.run.key, 1, "model.txt"), b"tree\nversion=v4\n", "text/plain")
    await done(at_work, id)

    found = await look(id)
    assert (found["status"], found["failure"]["code"], found["failure"]["retryable"]) == (
        "FAILED",
        "INVALID_DATA",
        False,
    )
    assert await rows_of(db, dataset_versions) == 1


async def test_it_goes_with_the_data_it_reads(
    register, ask, execute, admin, scientist, at_work, db, store, project, tmp_path
):
    model = await register()
    input, _ = await many_rows(db, store, project, tmp_path, model, 1)
    id = (await ask(model, input))["batchPrediction"]["id"]
    dataset = await execute(
        "query ($id: ID!) { datasetVersion(id: $id) { dataset { id } } }", principal=scientist, id=input
    )
    gone = await execute(
        "mutation ($input: DeleteDatasetInput!) { deleteDataset(input: $input) { errors { message } } }",
        principal=admin,
        input={"id": dataset["data"]["datasetVersion"]["dataset"]["id"]},
    )
    assert gone["data"]["deleteDataset"]["errors"] == []

    await done(at_work, id)

    assert (await execute(OPERATION, principal=scientist, id=id))["data"] == {"operation": None}
    assert (await rows_of(db, operations_table), await rows_of(db, dataset_versions)) == (0, 1)
