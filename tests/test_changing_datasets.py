"""Datasets through the API: rename, describe, delete with all that is stored, process again."""

import asyncio
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest

from db import unowned
from db.database import Database
from db.ids import Kind, global_id, key_of, new_id
from domain import uploads
from schema.execution import stream
from storage.keys import data_prefix
from storage.objects import MIB, ObjectStore, StoreUnavailable
from tests.at_work import queued_run
from tests.test_datasets import seed
from tests.uploading import VERSION, put, start, upload
from workers.datasets import delete_unowned_objects, process_version

CSV = b"x,y\n1,a\n2,b\n"
UPDATE = """
mutation ($input: UpdateDatasetInput!) {
  updateDataset(input: $input) {
    dataset { name description revision }
    errors {
      __typename code message path
      ... on StaleRevisionError { currentRevision current { id } } ... on AlreadyExistsError { existing { id } }
    }
  }
}
"""
DELETE = """
mutation ($input: DeleteDatasetInput!) {
  deleteDataset(input: $input) {
    dataset { id name }
    errors { __typename code message path ... on InUseError { dependents { id __typename } } }
  }
}
"""
COLUMN = """
mutation ($input: UpdateColumnInput!) {
  updateColumn(input: $input) { column { id name role description } errors { __typename code path } }
}
"""
AGAIN = """
mutation ($input: ReprocessDatasetVersionInput!) {
  reprocessDatasetVersion(input: $input) {
    datasetVersion { status failure { code } }
    errors { __typename code message path ... on InvalidStateError { currentState allowedStates } }
  }
}
"""
TABLES = ("datasets", "dataset_versions", "dataset_columns", "dataset_aliases", "upload_sessions", "events")


def key(id: str, kind: Kind = Kind.DATASET_VERSION) -> UUID:
    found = key_of(id, kind)
    assert found is not None
    return found


async def everything(db: Database) -> list[list[Any]]:
    async with db.reading() as session:
        return [list(await session.connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")) for table in TABLES]


async def stored(store: ObjectStore, dataset_id: str) -> list[str]:
    """The keys of every object of a dataset, and of every upload to it that was not joined."""
    hex = key(dataset_id, Kind.DATASET).hex
    found = [item.key for prefix in ("uploads", "datasets") async for item in store.list(f"{prefix}/{hex}")]
    open_uploads = await store._client.list_multipart_uploads(Bucket=store._bucket, Prefix=f"uploads/{hex}")
    return found + [one["Key"] for one in open_uploads.get("Uploads", ())]


async def waiting(db: Database) -> list[str]:
    async with db.reading() as session:
        return await unowned.due(session)


async def changes(db: Database, type: str) -> list[Any]:
    async with db.reading() as session:
        found = await session.connection.fetch("SELECT changes FROM events WHERE type = $1 ORDER BY number", type)
    return [changes for (changes,) in found]


async def test_renames_and_describes(execute, scientist, dataset, db):
    answers = [
        (await execute(UPDATE, principal=scientist, input={"id": dataset, **given}))["data"]["updateDataset"]
        for given in (
            {"name": "trees", "description": "All of them.", "expectedRevision": 1},
            {"name": "trees"},
            {"description": ""},
        )
    ]

    assert answers == [
        {"dataset": {"name": "trees", "description": "All of them.", "revision": 2}, "errors": []},
        {"dataset": {"name": "trees", "description": "All of them.", "revision": 2}, "errors": []},
        {"dataset": {"name": "trees", "description": None, "revision": 3}, "errors": []},
    ]
    assert await changes(db, "DATASET_UPDATED") == [
        {"name": ["flowers", "trees"], "description": [None, "All of them."]},
        {"description": ["All of them.", None]},
    ]


@pytest.mark.parametrize(
    ("given", "kind", "code", "path"),
    [
        ({"name": "new", "expectedRevision": 7}, "StaleRevisionError", "STALE_REVISION", ["input", "expectedRevision"]),
        ({"name": "set00"}, "AlreadyExistsError", "ALREADY_EXISTS", ["input", "name"]),
        ({"name": " "}, "ValidationError", "REQUIRED", ["input", "name"]),
        ({"name": "x" * 201}, "ValidationError", "TOO_LONG", ["input", "name"]),
        ({"name": "new", "description": " "}, "ValidationError", "REQUIRED", ["input", "description"]),
        ({"id": f"dataset_{'0' * 32}", "name": "new"}, "NotFoundError", "NOT_FOUND", ["input", "id"]),
    ],
)
async def test_a_change_that_cannot_be_is_refused(execute, scientist, project, dataset, db, given, kind, code, path):
    (other,) = await seed(db, scientist, project)
    before = await everything(db)

    refused = (await execute(UPDATE, principal=scientist, input={"id": dataset, **given}))["data"]["updateDataset"]

    assert refused["dataset"] is None
    (error,) = refused["errors"]
    assert (error["__typename"], error["code"], error["path"]) == (kind, code, path)
    if code == "ALREADY_EXISTS":
        assert error["existing"] == {"id": global_id(Kind.DATASET, other.id)}
    if code == "STALE_REVISION":
        assert (error["currentRevision"], error["current"]) == (1, {"id": dataset})
    assert await everything(db) == before


async def test_of_two_that_want_one_name_one_gets_it(execute, scientist, project, db):
    sets = await seed(db, scientist, project, count=2)

    answers = await asyncio.gather(
        *(
            execute(UPDATE, principal=scientist, input={"id": global_id(Kind.DATASET, one.id), "name": "best"})
            for one in sets
        )
    )

    codes = [[error["code"] for error in answer["data"]["updateDataset"]["errors"]] for answer in answers]
    assert sorted(codes) == [[], ["ALREADY_EXISTS"]]


async def test_deleting_takes_rows_and_objects(execute, hand, admin, dataset, db, store):
    ready = await upload(execute, admin, dataset, CSV)
    await process_version(hand, key(ready))
    failed = await upload(execute, admin, dataset, b"")
    await process_version(hand, key(failed))
    started = await start(execute, admin, dataset, 6 * MIB, partSizeBytes=5 * MIB)
    await put(started["parts"][0], b"x" * 5 * MIB)
    assert len(await stored(store, dataset)) == 4

    deleted = await execute(DELETE, principal=admin, input={"id": dataset})
    again = await execute(DELETE, principal=admin, input={"id": dataset})

    assert deleted["data"]["deleteDataset"] == {"dataset": {"id": dataset, "name": "flowers"}, "errors": []}
    assert [error["code"] for error in again["data"]["deleteDataset"]["errors"]] == ["NOT_FOUND"]
    assert [len(rows) for rows in (await everything(db))[:5]] == [0, 0, 0, 0, 0]
    assert await changes(db, "DATASET_DELETED") == [{"name": ["flowers", None]}]
    await delete_unowned_objects(hand)
    assert await stored(store, dataset) == []
    assert await waiting(db) == []


async def test_a_sweep_that_is_cut_off_is_done_again(execute, hand, admin, dataset, db, store, monkeypatch):
    await upload(execute, admin, dataset, CSV)
    async with db.transaction() as session:
        await session.connection.execute("UPDATE dataset_versions SET status = 'FAILED'")
    await execute(DELETE, principal=admin, input={"id": dataset})

    async def away(key: str) -> None:
        raise StoreUnavailable("killed")

    with monkeypatch.context() as patched:
        patched.setattr(store, "remove", away)
        await delete_unowned_objects(hand)
    assert (len(await stored(store, dataset)), len(await waiting(db))) == (1, 1)

    async def die(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(uploads.unowned, "forget", die)
        with pytest.raises(ZeroDivisionError):
            await delete_unowned_objects(hand)
    assert (len(await stored(store, dataset)), len(await waiting(db))) == (0, 1)

    await delete_unowned_objects(hand)
    assert (await stored(store, dataset), await waiting(db)) == ([], [])


async def test_an_upload_that_is_aborted_is_swept_too(execute, hand, scientist, dataset, db, store):
    started = await start(execute, scientist, dataset, len(CSV))
    await put(started["parts"][0], CSV)
    abort = "mutation ($id: ID!) { abortUpload(input: {uploadId: $id}) { errors { code } } }"

    await execute(abort, principal=scientist, id=started["upload"]["id"])
    await delete_unowned_objects(hand)

    assert (await stored(store, dataset), await waiting(db)) == ([], [])


async def test_a_dataset_that_a_run_needs_stays(execute, hand, admin, project, db, store, tmp_path):
    run_id = await queued_run(db, store, execute, admin, project, tmp_path, rounds=5, repeat=1)
    async with db.reading() as session:
        dataset = global_id(Kind.DATASET, await session.connection.fetchval("SELECT id FROM datasets"))
    before = await everything(db)

    refused = (await execute(DELETE, principal=admin, input={"id": dataset}))["data"]["deleteDataset"]

    assert refused["dataset"] is None
    (error,) = refused["errors"]
    assert (error["code"], error["path"]) == ("IN_USE", ["input", "id"])
    assert error["dependents"] == [{"id": run_id, "__typename": "TrainingRun"}]
    assert await everything(db) == before

    cancel = "mutation ($id: ID!) { cancelTrainingRun(input: {id: $id}) { trainingRun { status } errors { code } } }"
    canceled = await execute(cancel, principal=admin, id=run_id)
    assert canceled["data"]["cancelTrainingRun"]["trainingRun"] == {"status": "CANCELED"}
    deleted = await execute(DELETE, principal=admin, input={"id": dataset})
    run = await execute(
        "query ($id: ID!) { trainingRun(id: $id) { status datasetVersion { id } } }", principal=admin, id=run_id
    )
    await delete_unowned_objects(hand)

    assert deleted["data"]["deleteDataset"]["errors"] == []
    assert run["data"]["trainingRun"] == {"status": "CANCELED", "datasetVersion": None}
    assert await stored(store, dataset) == []


async def test_a_dataset_deleted_while_it_is_processed_leaves_nothing(
    execute, hand, admin, dataset, db, store, context_of, monkeypatch
):
    id = await upload(execute, admin, dataset, CSV)
    send = store.upload_file

    async def delete_first(*args: Any) -> None:
        deleted = await execute(DELETE, principal=admin, input={"id": dataset})
        assert deleted["data"]["deleteDataset"]["errors"] == []
        await delete_unowned_objects(hand)
        await send(*args)

    monkeypatch.setattr(store, "upload_file", delete_first)
    watch = "subscription ($id: ID!) { datasetVersionUpdated(id: $id) { kind datasetVersion { status } } }"
    async with asyncio.timeout(60), aclosing(stream(watch, {"id": id}, None, context_of(admin))) as items:
        told = [(await anext(items))[0]["data"]["datasetVersionUpdated"]]
        await process_version(hand, key(id))
        told += [response["data"]["datasetVersionUpdated"] async for response, *_ in items]

    (left,) = await stored(store, dataset)
    assert left.startswith(f"{data_prefix(key(dataset, Kind.DATASET), key(id))}/")
    await delete_unowned_objects(hand)
    assert (await stored(store, dataset), await waiting(db)) == ([], [])
    assert told[0] == {"kind": "SNAPSHOT", "datasetVersion": {"status": "PROCESSING"}}
    assert told[-1] == {"kind": "DELETED", "datasetVersion": None}


async def test_deleting_takes_its_permission(execute, scientist, dataset, db):
    before = await everything(db)

    refused = await execute(DELETE, principal=scientist, input={"id": dataset})

    assert refused["data"] == {"deleteDataset": None}
    assert [error["extensions"]["code"] for error in refused["errors"]] == ["FORBIDDEN"]
    assert await everything(db) == before


async def test_columns_get_roles_and_descriptions(execute, scientist, project, db):
    (dataset,) = await seed(db, scientist, project, versions=1, columns=2)
    async with db.reading() as session:
        id = await session.connection.fetchval("SELECT id FROM dataset_columns WHERE name = 'c1'")
    column = global_id(Kind.COLUMN, id)

    answers = [
        (await execute(COLUMN, principal=scientist, input={"id": column, **given}))["data"]["updateColumn"]
        for given in (
            {"role": "TARGET", "description": "What counts."},
            {"description": ""},
            {"id": f"column_{'0' * 32}"},
        )
    ]
    found = await execute(
        "query ($id: ID!) { dataset(id: $id) { revision latestVersion { columns(filter: {roles: [TARGET]}) "
        "{ nodes { name role } } } } }",
        principal=scientist,
        id=global_id(Kind.DATASET, dataset.id),
    )

    assert answers == [
        {"column": {"id": column, "name": "c1", "role": "TARGET", "description": "What counts."}, "errors": []},
        {"column": {"id": column, "name": "c1", "role": "TARGET", "description": None}, "errors": []},
        {"column": None, "errors": [{"__typename": "NotFoundError", "code": "NOT_FOUND", "path": ["input", "id"]}]},
    ]
    assert found["data"]["dataset"] == {
        "revision": 3,
        "latestVersion": {"columns": {"nodes": [{"name": "c1", "role": "TARGET"}]}},
    }
    assert await changes(db, "DATASET_UPDATED") == [
        {
            "versions.1.columns.c1.role": ["FEATURE", "TARGET"],
            "versions.1.columns.c1.description": [None, "What counts."],
        },
        {"versions.1.columns.c1.description": ["What counts.", None]},
    ]


async def test_a_version_that_failed_is_processed_again(execute, hand, scientist, dataset, db):
    id = await upload(execute, scientist, dataset, CSV)
    async with db.transaction() as session:
        await session.connection.execute("UPDATE dataset_versions SET attempt = 4, lease = $1", new_id())
    await process_version(hand, key(id))
    failed = await execute(VERSION, principal=scientist, id=id)
    async with db.transaction() as session:
        await session.connection.execute("DELETE FROM pgqueuer")

    again = (await execute(AGAIN, principal=scientist, input={"id": id}))["data"]["reprocessDatasetVersion"]
    async with db.reading() as session:
        jobs = await session.connection.fetchval("SELECT count(*) FROM pgqueuer")
    await process_version(hand, key(id))
    ready = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]
    refused = (await execute(AGAIN, principal=scientist, input={"id": id}))["data"]["reprocessDatasetVersion"]

    assert failed["data"]["datasetVersion"]["failure"]["code"] == "WORKER_LOST"
    assert again == {"datasetVersion": {"status": "PROCESSING", "failure": None}, "errors": []}
    assert jobs == 1
    assert (ready["status"], ready["rowCount"], ready["failure"]) == ("READY", "2", None)
    assert refused["datasetVersion"] is None
    assert refused["errors"] == [
        {
            "__typename": "InvalidStateError",
            "code": "INVALID_STATE",
            "message": "This version is READY; only one that FAILED is processed again; a READY version is immutable.",
            "path": ["input", "id"],
            "currentState": "READY",
            "allowedStates": ["FAILED"],
        }
    ]


async def test_bytes_that_never_arrived_cannot_be_processed(execute, scientist, dataset, db):
    started = await start(execute, scientist, dataset, len(CSV))
    abort = "mutation ($id: ID!) { abortUpload(input: {uploadId: $id}) { errors { code } } }"
    await execute(abort, principal=scientist, id=started["upload"]["id"])
    before = await everything(db)

    for id in (started["upload"]["version"]["id"], f"datasetversion_{'0' * 32}"):
        refused = (await execute(AGAIN, principal=scientist, input={"id": id}))["data"]["reprocessDatasetVersion"]
        assert [error["code"] for error in refused["errors"]] in (["INVALID_STATE"], ["NOT_FOUND"])
    assert await everything(db) == before
