"""Processing uploads: the worker's job in process, on real files, a real store and real child processes."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from sklearn.datasets import load_breast_cancer

from db import datasets
from db.database import Database
from db.ids import Kind, key_of, new_id
from db.jobs import Job
from domain.uploads import ask_for_processing
from tests.uploading import VERSION, complete, put, start, upload
from workers.datasets import process_version, requeue_stranded
from workers.worker import Worker

CSV = b"name,size,when,good\nrose,1.5,2026-01-31,true\ntulip,,2026-02-01,false\n,3.5,2026-02-02,true\n"
WATCH = """
subscription ($id: ID!, $after: String) {
  datasetVersionUpdated(id: $id, after: $after) {
    cursor kind datasetVersion { status progress { phase fraction } rowCount }
  }
}
"""
PREVIEW = """
query ($id: ID!, $mode: PreviewMode, $limit: Int, $columns: [String!]) {
  datasetVersion(id: $id) { preview(mode: $mode, limit: $limit, columns: $columns) { columns rows truncated } }
}
"""


def key(version_id: str) -> UUID:
    found = key_of(version_id, Kind.DATASET_VERSION)
    assert found is not None
    return found


async def events_about(db: Database, version_id: str) -> list[tuple[str, str | None]]:
    async with db.reading() as session:
        found = await session.connection.fetch(
            "SELECT type, actor FROM events WHERE subject_id = $1 ORDER BY number", version_id
        )
    return [(type, actor and actor.split("_")[0]) for type, actor in found]


async def processed(execute: Any, hand: Worker, principal: Any, dataset: str, data: bytes, **given: Any) -> Any:
    """The version that a file has become."""
    id = await upload(execute, principal, dataset, data, **given)
    await process_version(hand, key(id))
    return (await execute(VERSION, principal=principal, id=id))["data"]["datasetVersion"]


async def test_a_csv_file_becomes_a_version_with_typed_columns(execute, hand, scientist, dataset, db, tmp_path):
    id = await upload(execute, scientist, dataset, CSV)
    await process_version(hand, key(id))
    version = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]

    assert version == {
        "number": 1,
        "status": "READY",
        "digest": hashlib.sha256(CSV).hexdigest(),
        "sizeBytes": str(len(CSV)),
        "rowCount": "3",
        "columnCount": 4,
        "progress": {"phase": "ready", "fraction": 1.0},
        "failure": None,
        "columns": {
            "nodes": [
                {"name": "name", "position": 0, "type": "STRING", "nullable": True, "role": "FEATURE"},
                {"name": "size", "position": 1, "type": "FLOAT", "nullable": True, "role": "FEATURE"},
                {"name": "when", "position": 2, "type": "DATE", "nullable": False, "role": "FEATURE"},
                {"name": "good", "position": 3, "type": "BOOLEAN", "nullable": False, "role": "FEATURE"},
            ]
        },
    }
    assert await events_about(db, id) == [
        ("DATASET_VERSION_CREATED", "user"),
        ("DATASET_VERSION_READY", "system:worker"),
    ]
    assert list(tmp_path.iterdir()) == [], "nothing is left in the worker's folder"


async def test_columns_tell_what_their_values_look_like(execute, hand, scientist, dataset):
    id = await upload(execute, scientist, dataset, CSV)
    await process_version(hand, key(id))

    found = await execute(
        """query ($id: ID!) { datasetVersion(id: $id) {
          columns(filter: {types: [FLOAT, STRING]}) { totalCount nodes { profile {
            count nullCount distinctCount distinctCountIsEstimate
            numeric { min max mean stddev zeroCount nonFiniteCount quantiles { q value } histogram { counts } }
            text { minLength maxLength meanLength } topValues { value count }
          } } }
          named: columns(filter: {name: {startsWith: "w"}}) { nodes { name } }
        } }""",
        principal=scientist,
        id=id,
    )

    name, size = [node["profile"] for node in found["data"]["datasetVersion"]["columns"]["nodes"]]
    assert name == {
        "count": "2",
        "nullCount": "1",
        "distinctCount": "2",
        "distinctCountIsEstimate": False,
        "numeric": None,
        "text": {"minLength": 4, "maxLength": 5, "meanLength": 4.5},
        "topValues": [{"value": "rose", "count": "1"}, {"value": "tulip", "count": "1"}],
    }
    numeric = size["numeric"]
    assert (numeric["min"], numeric["max"], numeric["mean"]) == (1.5, 3.5, 2.5)
    assert (numeric["zeroCount"], numeric["nonFiniteCount"]) == ("0", "0")
    assert sum(numeric["histogram"]["counts"]) == 2
    assert {"q": 0.5, "value": 2.5} in numeric["quantiles"]
    assert found["data"]["datasetVersion"]["columns"]["totalCount"] == 2
    assert found["data"]["datasetVersion"]["named"]["nodes"] == [{"name": "when"}]


async def test_real_data_as_parquet(execute, hand, scientist, dataset):
    cancer = load_breast_cancer(as_frame=False)
    frame = pl.DataFrame(cancer.data, schema=[str(name) for name in cancer.feature_names], orient="row")
    file = io.BytesIO()
    frame.with_columns(target=pl.Series(cancer.target)).write_parquet(file)

    version = await processed(
        execute, hand, scientist, dataset, file.getvalue(), format="PARQUET", fileName="cancer.parquet"
    )

    assert (version["status"], version["rowCount"], version["columnCount"]) == ("READY", "569", 31)


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ({"format": "JSONL"}, b'{"x": 1}\n{"x": 2}\n'),
        ({"format": "CSV"}, b"x\n1\n2\n"),
        ({"format": "CSV", "csv": {"delimiter": ";", "encoding": "latin-1"}}, "x;é\n1;ü\n2;ß\n".encode("latin-1")),
    ],
)
async def test_other_formats_and_options(execute, hand, scientist, dataset, given, data):
    version = await processed(execute, hand, scientist, dataset, data, **given)

    assert (version["status"], version["rowCount"], version["failure"]) == ("READY", "2", None)


@pytest.mark.parametrize(
    ("data", "given", "words"),
    [
        (b"", {}, ["empty"]),
        (b" \n\n", {}, ["white space"]),
        (b"x,y\n1,2\n3,4,5\n", {}, ["Line 3", "3 values"]),
        (b"x,y\n1,2\n3\n", {}, ["Line 3"]),
        (b"x,x\n1,2\n", {}, ["'x'", "more than once"]),
        (b"x,y\n1,\x00\n", {}, ["Line 2", "NUL"]),
        ("x,y\n1,é\n".encode("latin-1"), {"csv": {"encoding": "utf-8"}}, ["encoded", "line 2"]),
        (b"PAR1 and nothing else", {"format": "PARQUET"}, ["Parquet"]),
        (b"x,y\n1,2\n", {"format": "PARQUET"}, ["Parquet"]),
        (b"\x1f\x8b\x08\x00", {}, ["gzip"]),
        (b"x,y\n1,2\n", {"sha256": "ab" * 32}, ["ab" * 32, hashlib.sha256(b"x,y\n1,2\n").hexdigest()]),
    ],
)
async def test_a_file_that_is_not_what_it_says_fails_and_says_where(
    execute, hand, scientist, dataset, db, store, data, given, words
):
    id = await upload(execute, scientist, dataset, data, **given)
    await process_version(hand, key(id))
    version = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]

    assert version["status"] == "FAILED"
    assert version["failure"]["code"] == "INVALID_DATA"
    assert version["failure"]["retryable"] is False
    assert all(word in version["failure"]["message"] for word in words), version["failure"]["message"]
    assert version["columns"]["nodes"] == []
    assert (version["rowCount"], version["columnCount"]) == (None, None)
    assert await events_about(db, id) == [
        ("DATASET_VERSION_CREATED", "user"),
        ("DATASET_VERSION_FAILED", "system:worker"),
    ]


async def test_a_digest_given_at_the_end_is_checked_too(execute, hand, scientist, dataset):
    digest = hashlib.sha256(CSV).hexdigest()
    statuses = []
    for sha256 in (digest, "ab" * 32):
        started = await start(execute, scientist, dataset, len(CSV))
        etag = await put(started["parts"][0], CSV)
        completed = await complete(execute, scientist, started["upload"]["id"], {1: etag}, sha256=sha256)
        await process_version(hand, key(completed["datasetVersion"]["id"]))
        version = await execute(VERSION, principal=scientist, id=completed["datasetVersion"]["id"])
        statuses.append((version["data"]["datasetVersion"]["status"], version["data"]["datasetVersion"]["digest"]))

    assert statuses == [("READY", digest), ("FAILED", digest)]


async def test_a_header_alone_is_a_version_without_rows(execute, hand, scientist, dataset):
    version = await processed(execute, hand, scientist, dataset, b"x,y\n")

    assert (version["status"], version["rowCount"], version["columnCount"]) == ("READY", "0", 2)


async def test_a_job_that_comes_twice_changes_nothing(execute, hand, scientist, dataset, db):
    id = await upload(execute, scientist, dataset, CSV)
    await asyncio.gather(process_version(hand, key(id)), process_version(hand, key(id)))
    await process_version(hand, key(id))
    await process_version(hand, new_id())

    version = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]
    assert (version["status"], len(version["columns"]["nodes"])) == ("READY", 4)
    assert [type for type, _ in await events_about(db, id)] == ["DATASET_VERSION_CREATED", "DATASET_VERSION_READY"]


async def test_a_worker_that_lost_its_lease_writes_nothing(execute, hand, scientist, dataset, db):
    id = await upload(execute, scientist, dataset, CSV)
    old, new = new_id(), new_id()
    async with db.transaction() as session:
        first = await datasets.claim(session, key(id), old, {})
        again = await datasets.claim(session, key(id), old, {})
        second = await datasets.claim(session, key(id), new, {})
        assert first is not None
        assert again is not None
        assert second is not None
        assert (first.attempt, again.attempt, second.attempt) == (1, 1, 2)
    async with db.transaction() as session:
        wrote = [
            await datasets.note_progress(session, key(id), old, {"phase": "late"}),
            await datasets.fail(session, key(id), old, {}, digest=None),
            await datasets.finish(
                session, key(id), old, data_key="k", digest="d", row_count=1, described=[{"name": "x"}]
            ),
            await datasets.release(session, key(id), old),
        ]
    version = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]

    assert wrote == [False, None, None, None]
    assert (version["status"], version["columns"]["nodes"]) == ("PROCESSING", [])


async def test_a_version_whose_workers_are_killed_again_and_again_fails(execute, hand, scientist, dataset, db):
    id = await upload(execute, scientist, dataset, CSV)
    async with db.transaction() as session:
        for _ in range(4):
            await datasets.claim(session, key(id), new_id(), {})

    await process_version(hand, key(id))
    version = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]

    assert (version["status"], version["failure"]["code"]) == ("FAILED", "WORKER_LOST")


async def test_a_worker_that_is_stopped_lets_go_of_the_version(execute, hand, scientist, dataset, db):
    id = await upload(execute, scientist, dataset, CSV)
    working = asyncio.create_task(process_version(hand, key(id)))
    await until(lambda: is_claimed(db))
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working

    assert await attempt_and_lease(db) == (0, None)
    version = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]
    assert version["status"] == "PROCESSING"


@pytest.mark.slow
async def test_another_worker_takes_over_from_one_that_was_killed(execute, start_worker, scientist, dataset, db):
    rows = b"".join(b"%d,%d.5,word %d\n" % (i, i, i) for i in range(100_000))
    data = b"a,b,c\n" + rows * 15
    started = await start(execute, scientist, dataset, len(data), partSizeBytes=64 << 20)
    etag = await put(started["parts"][0], data)
    id = started["upload"]["version"]["id"]
    first = await start_worker()
    await complete(execute, scientist, started["upload"]["id"], {1: etag})
    await until(lambda: is_claimed(db))
    first.kill()
    await first.wait()
    assert await status(db) == "PROCESSING"
    await start_worker()
    await until(lambda: is_done(db))
    version = (await execute(VERSION, principal=scientist, id=id))["data"]["datasetVersion"]

    assert (version["status"], version["rowCount"]) == ("READY", "1500000")
    assert (await attempt_and_lease(db))[0] == 2
    assert [type for type, _ in await events_about(db, id)] == ["DATASET_VERSION_CREATED", "DATASET_VERSION_READY"]


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await happened():
                return
            await asyncio.sleep(0.01)


async def status(db: Database) -> str:
    async with db.reading() as session:
        found: str = await session.connection.fetchval("SELECT status FROM dataset_versions")
    return found


async def is_done(db: Database) -> bool:
    return await status(db) != "PROCESSING"


async def is_claimed(db: Database) -> bool:
    return await attempt_and_lease(db) != (0, None)


async def attempt_and_lease(db: Database) -> tuple[int, UUID | None]:
    async with db.reading() as session:
        attempt, lease = await session.connection.fetchrow("SELECT attempt, lease FROM dataset_versions")
    return attempt, lease


async def test_a_version_without_a_job_gets_one_and_only_one(execute, hand, scientist, dataset, db):
    id = await upload(execute, scientist, dataset, CSV)
    async with db.transaction() as session:
        await session.connection.execute("DELETE FROM pgqueuer")

    await requeue_stranded(hand)
    await requeue_stranded(hand)
    async with db.transaction() as session:
        await ask_for_processing(session, key(id))

    async with db.reading() as session:
        assert await session.connection.fetchval("SELECT count(*) FROM pgqueuer") == 1


async def test_a_file_that_needs_too_much_memory_fails_and_says_so(execute, hand, scientist, dataset):
    wide = ",".join(f"c{i}" for i in range(3000)).encode() + b"\n" + (b"1.5," * 2999 + b"1.5\n") * 300
    small = replace(hand, run_memory_limit_mb=64)

    version = await processed(execute, small, scientist, dataset, wide)

    assert (version["status"], version["failure"]["code"]) == ("FAILED", "OUT_OF_MEMORY")
    assert version["failure"]["message"] == "The file needs more than the 64 MB that a worker may use for it."


async def test_a_disk_without_room_fails_and_says_so(execute, hand, scientist, dataset, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    version = await processed(execute, replace(hand, scratch=tmp_path / "file"), scientist, dataset, CSV)

    assert (version["status"], version["failure"]["code"], version["failure"]["retryable"]) == (
        "FAILED",
        "INTERNAL",
        True,
    )


async def watched(stream: Callable[..., Any], id: str, after: str | None = None) -> list[dict[str, Any]]:
    return [response["data"]["datasetVersionUpdated"] async for response in stream(WATCH, id=id, after=after)]


@pytest.fixture
def stream(context_of, scientist) -> Callable[..., Any]:
    from schema.execution import stream as run

    async def responses(query: str, **variables: Any) -> AsyncIterator[dict[str, Any]]:
        async for response, _ in run(query, variables, None, context_of(scientist)):
            yield response

    return responses


async def test_a_version_is_watched_until_it_is_ready(execute, stream, hand, scientist, dataset):
    id = await upload(execute, scientist, dataset, CSV)
    watching = stream(WATCH, id=id)
    items = [(await anext(watching))["data"]["datasetVersionUpdated"]]
    working = asyncio.create_task(process_version(hand, key(id)))
    items += [response["data"]["datasetVersionUpdated"] async for response in watching]
    await working

    assert items[0]["kind"] == "SNAPSHOT"
    assert items[0]["datasetVersion"] == {
        "status": "PROCESSING",
        "progress": {"phase": "queued", "fraction": 0.0},
        "rowCount": None,
    }
    assert {item["kind"] for item in items[1:]} == {"UPDATED"}
    assert items[-1]["datasetVersion"] == {
        "status": "READY",
        "progress": {"phase": "ready", "fraction": 1.0},
        "rowCount": "3",
    }
    cursors = [item["cursor"] for item in items]
    assert cursors == sorted(set(cursors))
    assert await watched(stream, id, after=cursors[-1]) == []
    assert await watched(stream, id, after=cursors[0]) == [items[-1] | {"kind": "UPDATED"}]
    assert await watched(stream, id) == [items[-1] | {"kind": "SNAPSHOT"}]


async def test_progress_is_told_on_the_way_and_only_grows(execute, stream, hand, scientist, dataset, monkeypatch):
    monkeypatch.setattr("workers.datasets.REPORT_SECONDS", 0.001)
    data = b"a,b\n" + b"".join(b"%d,word %d\n" % (i, i) for i in range(200_000))
    id = await upload(execute, scientist, dataset, data)
    working = asyncio.create_task(process_version(hand, key(id)))
    progress = [item["datasetVersion"]["progress"] for item in await watched(stream, id)]
    await working

    fractions = [one["fraction"] for one in progress]
    phases = list(dict.fromkeys(one["phase"] for one in progress))
    order = ["queued", "read", "inspect", "convert", "profile", "store", "ready"]
    assert fractions == sorted(fractions)
    assert phases == [phase for phase in order if phase in phases]
    assert {"inspect", "ready"} <= set(phases)


async def test_nothing_is_lost_when_an_older_transaction_commits_last(execute, stream, scientist, dataset, db):
    """A transaction that took its number first and changes the version last: a reader of `changed > last` misses it."""
    id = await upload(execute, scientist, dataset, CSV)
    lease = new_id()
    async with db.transaction() as older:
        await older.connection.fetchval("SELECT pg_current_xact_id()")
        async with db.transaction() as newer:
            await datasets.claim(newer, key(id), lease, {"phase": "newer"})
        watching = stream(WATCH, id=id)
        first = asyncio.ensure_future(anext(watching))
        await asyncio.wait({first}, timeout=0.3)
        await datasets.note_progress(older, key(id), lease, {"phase": "older"})
    phases = [(await first)["data"]["datasetVersionUpdated"]["datasetVersion"]["progress"]["phase"]]
    if phases == ["newer"]:
        phases.append((await anext(watching))["data"]["datasetVersionUpdated"]["datasetVersion"]["progress"]["phase"])
    await watching.aclose()

    assert phases[-1] == "older"


async def test_watching_what_is_not_there_is_refused(stream, dataset):
    for id in (f"datasetversion_{'0' * 32}", dataset, "nonsense"):
        responses = [response async for response in stream(WATCH, id=id)]
        assert [error["extensions"] for response in responses for error in response["errors"]] == [
            {"code": "BAD_REQUEST", "userCode": "NOT_FOUND"}
        ]


async def test_previews(execute, hand, scientist, dataset):
    id = await upload(execute, scientist, dataset, b"x,y\n" + b"".join(b"%d,a%d\n" % (i, i) for i in range(10)))
    unfinished = await execute(PREVIEW, principal=scientist, id=id)
    await process_version(hand, key(id))

    head = await execute(PREVIEW, principal=scientist, id=id, limit=2)
    tail = await execute(PREVIEW, principal=scientist, id=id, limit=2, mode="TAIL", columns=["y"])
    unknown = await execute(PREVIEW, principal=scientist, id=id, columns=["z"])

    assert unfinished["data"]["datasetVersion"] == {"preview": None}
    assert head["data"]["datasetVersion"]["preview"] == {
        "columns": ["x", "y"],
        "rows": [[0, "a0"], [1, "a1"]],
        "truncated": True,
    }
    assert tail["data"]["datasetVersion"]["preview"] == {"columns": ["y"], "rows": [["a8"], ["a9"]], "truncated": True}
    assert unknown["data"]["datasetVersion"] == {"preview": None}
    assert [(error["message"], error["extensions"]) for error in unknown["errors"]] == [
        ("There is no column 'z'.", {"code": "BAD_REQUEST", "userCode": "INVALID"})
    ]


async def test_a_job_is_done_when_it_was_asked_for_only(execute, scientist, dataset, db):
    started = await start(execute, scientist, dataset, len(CSV))
    etag = await put(started["parts"][0], CSV)
    async with db.reading() as session:
        assert await session.connection.fetchval("SELECT count(*) FROM pgqueuer") == 0

    await complete(execute, scientist, started["upload"]["id"], {1: etag})

    async with db.reading() as session:
        jobs = await session.connection.fetch("SELECT entrypoint, payload FROM pgqueuer")
    assert [tuple(job) for job in jobs] == [(Job.PROCESS_VERSION, key(started["upload"]["version"]["id"]).bytes)]
