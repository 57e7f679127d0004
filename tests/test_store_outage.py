"""The object store is killed while files are on their way: nothing is half written, and all goes on afterwards."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from db.ids import Kind, key_of
from domain.stock import check
from embedded.servers import EmbeddedStack
from ml.processes import Template
from resolvers.context import Context, Request, Services
from schema.execution import respond
from storage.objects import ObjectStore
from tests import uploading
from tests.uploading import COMPLETE, START, VERSION, complete, put, start
from workers.datasets import delete_unowned_objects, process_version
from workers.worker import Worker

CSV = b"x,y\n1,2\n3,4\n"
PARTS = """
mutation ($input: RequestUploadPartsInput!) {
  requestUploadParts(input: $input) { parts { partNumber } errors { code } }
}
"""
SESSION = "query ($id: ID!) { uploadSession(id: $id) { status completedParts { partNumber } } }"
ABORT = "mutation ($input: AbortUploadInput!) { abortUpload(input: $input) { upload { status } errors { code } } }"
PREVIEW = "query ($id: ID!) { datasetVersion(id: $id) { preview { rows } } }"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[EmbeddedStack]:
    """A store of our own, so that nobody else misses it."""
    async with EmbeddedStack(tmp_path / "store", want_postgres=False, want_valkey=False) as stack:
        yield stack


@pytest.fixture
async def services(services: Services, stack: EmbeddedStack) -> AsyncIterator[Services]:
    settings = replace(
        services.store._settings,
        endpoint_url=stack.s3.endpoint_url,
        region=stack.s3.region,
        access_key=stack.s3.access_key,
        secret_key=stack.s3.secret_key,
    )
    async with ObjectStore.open(settings) as store:
        await store.ensure_bucket()
        yield replace(services, store=store)


@pytest.fixture
def execute(services: Services) -> Any:
    async def run(query: str, *, principal: Any = None, **variables: Any) -> Any:
        context = Context(services=services, request=Request(request_id="test"), principal=principal)
        response, _ = await respond(query, variables, None, context)
        return response

    return run


async def written(services: Services) -> list[tuple[Any, ...]]:
    """Everything an upload writes."""
    tables = ("dataset_versions", "upload_sessions", "pgqueuer", "events")
    async with services.db.reading() as session:
        return [tuple(row) for table in tables for row in await session.connection.fetch(f"SELECT * FROM {table}")]


@pytest.mark.slow
async def test_uploads_outlive_the_store(execute, services, stack, scientist, project, tmp_path):
    dataset = await uploading.create_dataset(execute, scientist, project)
    started = await start(execute, scientist, dataset, len(CSV))
    id, version_id = started["upload"]["id"], started["upload"]["version"]["id"]
    etags = {1: await put(started["parts"][0], CSV)}
    before = await written(services)
    (server,) = stack.servers
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.exited()

    wanted = {"datasetId": dataset, "fileName": "a.csv", "sizeBytes": 1, "format": "CSV"}
    parts = [{"partNumber": 1, "etag": etags[1]}]
    refused = [
        await execute(START, principal=scientist, input=wanted),
        await execute(COMPLETE, principal=scientist, input={"uploadId": id, "parts": parts}),
        await execute(ABORT, principal=scientist, input={"uploadId": id}),
        await execute(SESSION, principal=scientist, id=id),
    ]
    signed = await execute(PARTS, principal=scientist, input={"uploadId": id, "partNumbers": [1]})

    assert [[error["extensions"]["code"] for error in answer["errors"]] for answer in refused] == [["UNAVAILABLE"]] * 4
    assert signed["data"]["requestUploadParts"] == {"parts": [{"partNumber": 1}], "errors": []}
    assert await written(services) == before

    await server.start()
    told = await execute(SESSION, principal=scientist, id=id)
    completed = await complete(execute, scientist, id, etags)

    assert told["data"]["uploadSession"] == {"status": "OPEN", "completedParts": [{"partNumber": 1}]}
    assert completed["datasetVersion"]["status"] == "PROCESSING"

    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.exited()
    template = Template()
    worker = Worker(
        db=services.db,
        store=services.store,
        wakeups=services.wakeups,
        name="test",
        scratch=tmp_path,
        run_memory_limit_mb=2048,
        children=template,
    )
    key = key_of(version_id, Kind.DATASET_VERSION)
    assert key is not None
    working = asyncio.create_task(process_version(worker, key))
    await asyncio.wait({working}, timeout=1)
    waiting = await execute(VERSION, principal=scientist, id=version_id)
    await server.start()
    await working
    await template.close()
    ready = await execute(VERSION, principal=scientist, id=version_id)
    preview = await execute(PREVIEW, principal=scientist, id=version_id)
    await delete_unowned_objects(worker)
    stock = await check(services.db, services.store, may_be_new=timedelta(0))

    assert waiting["data"]["datasetVersion"]["status"] == "PROCESSING"
    assert ready["data"]["datasetVersion"]["status"] == "READY"
    assert preview["data"]["datasetVersion"]["preview"] == {"rows": [[1, 2], [3, 4]]}
    assert (stock.is_clean, stock.objects, stock.awaited) == (True, 2, 0)

    os.kill(server.pid, signal.SIGKILL)
    await server.exited()
    gone = await execute(PREVIEW, principal=scientist, id=version_id)
    assert [error["extensions"]["code"] for error in gone["errors"]] == ["UNAVAILABLE"]
