"""The store against the database: what `headai storage check` finds and repairs, and that nothing is left to find when
workers are killed."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from db.database import Database
from db.ids import Kind, key_of, new_id
from domain.stock import Stock, check, repair
from headai.settings import Settings
from resolvers.context import Context, Request, Services
from schema.execution import respond
from storage.keys import data_prefix, upload_key
from storage.objects import MIB, ObjectStore
from tests.dying_worker import POINTS
from tests.uploading import VERSION, put, start, upload
from workers.datasets import delete_unowned_objects, process_version

CSV = b"x,y\n1,2\n3,4\n"
AT_ONCE = timedelta(0)
AGAIN = """
mutation ($input: ReprocessDatasetVersionInput!) {
  reprocessDatasetVersion(input: $input) { datasetVersion { status } errors { code message } }
}
"""


@pytest.fixture
async def bucket() -> str:
    return f"stock-{new_id().hex}"


@pytest.fixture
async def services(services: Services, bucket: str) -> AsyncIterator[Services]:
    """A bucket of our own, so that everything in it is of the test."""
    async with ObjectStore.open(replace(services.store._settings, bucket=bucket)) as store:
        await store.ensure_bucket()
        yield replace(services, store=store)


@pytest.fixture
def execute(services: Services) -> Any:
    async def run(query: str, *, principal: Any = None, **variables: Any) -> Any:
        context = Context(services=services, request=Request(request_id="test"), principal=principal)
        response, _ = await respond(query, variables, None, context)
        return response

    return run


def key(version_id: str, kind: Kind = Kind.DATASET_VERSION) -> UUID:
    found = key_of(version_id, kind)
    assert found is not None
    return found


async def keys_of(db: Database, version_id: str) -> tuple[str, str]:
    async with db.reading() as session:
        found = await session.connection.fetchrow(
            "SELECT upload_key, data_key FROM dataset_versions WHERE id = $1", key(version_id)
        )
    return tuple(found)  # type: ignore[return-value]


def found(stock: Stock) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    return (
        [(pointer.what, pointer.key) for pointer in stock.missing],
        list(stock.strays),
        [upload.key for upload in stock.stray_uploads],
    )


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_worker_leaves_nothing(
    execute, hand, settings: Settings, bucket, scientist, dataset, db, store, tmp_path, point
):
    chance = np.random.default_rng(1)
    rows = "".join(f"{a},{b}\n" for a, b in chance.random((400_000, 2)))
    id = await upload(execute, scientist, dataset, b"a,b\n" + rows.encode(), partSizeBytes=64 * MIB)
    scratch = tmp_path / "dying"
    await asyncio.to_thread(scratch.mkdir)
    dying = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.dying_worker", point, key(id).hex, str(scratch),
        env=settings.environment() | {"HEADAI_S3_BUCKET": bucket}, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    async with asyncio.timeout(120):
        assert await dying.wait() == -signal.SIGKILL
    killed = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]
    then = await check(db, store, may_be_new=AT_ONCE)

    await process_version(hand, key(id))
    await delete_unowned_objects(hand)
    ready = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]
    now = await check(db, store, may_be_new=AT_ONCE)

    assert killed["status"] == "PROCESSING"
    assert (ready["number"], ready["status"], ready["rowCount"]) == (1, "READY", "400000")
    assert found(then) == found(now) == ([], [], [])
    assert sorted([item.key async for item in store.list("")]) == sorted(await keys_of(db, id))
    assert [open async for open in store.open_uploads()] == []


async def test_what_no_row_knows_of_is_found_and_swept(execute, scientist, dataset, db, store):
    opened = await start(execute, scientist, dataset, 6 * MIB, partSizeBytes=5 * MIB)
    await put(opened["parts"][0], b"x" * 5 * MIB)
    stray, unknown = data_prefix(new_id(), new_id()), upload_key(new_id(), new_id())
    await store.write(stray, b"stray", "text/plain")
    upload_id = await store.start_multipart(unknown, "text/csv")
    new = await check(db, store)
    stock = await check(db, store, may_be_new=AT_ONCE)
    lost = await repair(db, store, stock)
    after = await check(db, store, may_be_new=AT_ONCE)

    assert found(new) == ([], [], [])
    assert found(stock) == ([], [stray], [unknown])
    assert (stock.stray_uploads[0].upload_id, stock.objects, stock.awaited) == (upload_id, 1, 1)
    assert (lost, found(after), after.objects) == ([], ([], [], []), 0)
    session = await execute("query ($id: ID!) { uploadSession(id: $id) { completedParts { partNumber } } }",
                            principal=scientist, id=opened["upload"]["id"])  # fmt: skip
    assert session["data"]["uploadSession"]["completedParts"] == [{"partNumber": 1}]


async def test_a_version_whose_parquet_is_gone_fails_and_is_made_again(execute, hand, scientist, dataset, db, store):
    id = await upload(execute, scientist, dataset, CSV)
    await process_version(hand, key(id))
    _, data = await keys_of(db, id)
    await store.delete([data])
    stock = await check(db, store)
    lost = await repair(db, store, stock)
    failed = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]
    repaired = await check(db, store)
    again = await execute(AGAIN, principal=scientist, input={"id": id})
    await process_version(hand, key(id))
    ready = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]

    assert found(stock) == ([("data", data)], [], [])
    assert (lost, found(repaired)) == ([], ([], [], []))
    assert (failed["status"], failed["rowCount"], failed["columns"]["nodes"]) == ("FAILED", None, [])
    assert failed["failure"] == {
        "code": "STORAGE_UNAVAILABLE",
        "message": "The data of this version is not in the object store any more. "
        "Process it again, or upload it again.",
        "retryable": True,
        "detail": None,
    }
    assert again["data"]["reprocessDatasetVersion"]["errors"] == []
    assert (ready["status"], ready["rowCount"]) == ("READY", "2")


async def test_a_version_whose_upload_is_gone_forgets_it_and_stays(execute, hand, scientist, dataset, db, store):
    id = await upload(execute, scientist, dataset, CSV)
    await process_version(hand, key(id))
    sent, data = await keys_of(db, id)
    await store.delete([sent])
    stock = await check(db, store)
    await repair(db, store, stock)

    assert found(stock) == ([("upload", sent)], [], [])
    assert await keys_of(db, id) == (None, data)
    assert found(await check(db, store)) == ([], [], [])


async def test_the_command_tells_and_repairs(execute, hand, settings, bucket, scientist, dataset, db, store):
    id = await upload(execute, scientist, dataset, CSV)
    await process_version(hand, key(id))
    _, data = await keys_of(db, id)

    clean = await command(settings, bucket)
    await store.delete([data])
    finding = await command(settings, bucket)
    repairing = await command(settings, bucket, "--repair")

    assert clean == (0, "2 objects, all of them with a record; every record has its object.\n")
    assert finding == (
        1,
        f"Record without its object: data {key(id)} at {data}\n"
        "1 object, 1 finding. Run it with --repair to put right what can be.\n",
    )
    assert repairing == (
        0,
        f"Record without its object: data {key(id)} at {data}\n1 object, 1 finding, all put right.\n",
    )
    assert (await command(settings, bucket))[0] == 0


async def command(settings: Settings, bucket: str, *options: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headai", "storage", "check", *options,
        env=settings.environment() | {"HEADAI_S3_BUCKET": bucket}, cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()
