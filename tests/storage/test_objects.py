"""Objects that our own processes read and write."""

import asyncio
import hashlib
import os
import tracemalloc
from dataclasses import replace

import polars as pl
import pytest

from storage.objects import ObjectMissing, ObjectStore, StoreUnavailable
from tests.storage.conftest import running_seaweed, settings_of

TWENTY_MB = 20_000_000


async def test_what_is_written_is_read(store, key):
    await store.write(key, b"first", "text/plain")
    await store.write(key, b"0123456789", "text/plain")
    assert await store.read(key) == b"0123456789"
    found = await store.head(key)
    assert (found.size_bytes, found.etag) == (10, '"781e5e245d69b566979b86e28d23f2c7"')
    assert found.modified_at.utcoffset().total_seconds() == 0


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 4, b"0123"), (3, 4, b"3"), (8, 99, b"89"), (10, 11, b""), (99, 100, b""), (5, 5, b"")],
)
async def test_ranges_read_as_slices_do(store, key, start, stop, expected):
    await store.write(key, b"0123456789", "text/plain")
    assert await store.read_range(key, start, stop) == expected


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2)])
async def test_a_range_that_is_none_is_an_error(store, key, start, stop):
    with pytest.raises(ValueError, match="no range"):
        await store.read_range(key, start, stop)


async def test_a_missing_object_is_told_by_its_key(store, key, tmp_path):
    assert await store.head(key) is None
    for reading in (store.read(key), store.read_range(key, 0, 1), store.download_file(key, tmp_path / "f")):
        with pytest.raises(ObjectMissing, match=key):
            await reading
    assert list(tmp_path.iterdir()) == []


async def test_empty_objects_and_files(store, key, tmp_path):
    source = tmp_path / "empty"
    source.touch()
    await store.upload_file(source, key, "text/plain")
    assert await store.read(key) == b""
    assert await store.download_file(key, tmp_path / "back") == hashlib.sha256(b"").hexdigest()
    assert (tmp_path / "back").read_bytes() == b""


async def test_a_large_file_goes_up_and_comes_back_in_bounded_memory(store, key, tmp_path):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(TWENTY_MB))
    back.write_bytes(b"what was there before")
    await store.upload_file(source, key, "application/octet-stream")
    assert (await store.head(key)).size_bytes == TWENTY_MB
    tracemalloc.start()
    try:
        digest = await store.download_file(key, back)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    with source.open("rb") as file:
        assert digest == hashlib.file_digest(file, "sha256").hexdigest()
    assert back.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "source"]
    assert peak < TWENTY_MB / 2


async def test_a_canceled_upload_leaves_neither_object_nor_parts(store, key, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(bytes(TWENTY_MB))
    task = asyncio.create_task(store.upload_file(source, key, "application/octet-stream"))
    while not (open_uploads := await uploads(store, key)):
        assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(open_uploads) == 1
    assert await uploads(store, key) == []
    assert await store.head(key) is None


async def uploads(store: ObjectStore, key: str) -> list[str]:
    answer = await store._client.list_multipart_uploads(Bucket=store._bucket, Prefix=key)
    return [upload["UploadId"] for upload in answer.get("Uploads", ())]


async def test_objects_are_listed_by_prefix_and_deleted(store, key):
    for name in ("b", "a", "c/d"):
        await store.write(f"{key}/{name}", name.encode(), "text/plain")
    assert [(o.key, o.size_bytes) async for o in store.list(f"{key}/")] == [
        (f"{key}/a", 1),
        (f"{key}/b", 1),
        (f"{key}/c/d", 3),
    ]
    await store.delete([f"{key}/a", f"{key}/c/d", f"{key}/never-there"])
    assert [o.key async for o in store.list(f"{key}/")] == [f"{key}/b"]
    await store.delete([])


async def test_polars_reads_and_writes_with_our_options(store, key):
    frame = pl.DataFrame({"step": [0, 1, 2], "auc": [0.5, 0.75, None]})
    where, options = store.uri(f"{key}.parquet"), store.storage_options()
    frame.lazy().sink_parquet(where, storage_options=options)
    assert pl.scan_parquet(where, storage_options=options).collect().equals(frame)


async def test_the_bucket_is_made_once_and_keeps_its_cors_rules(settings):
    async with ObjectStore.open(replace(settings, bucket="headai-another")) as store:
        with pytest.raises(StoreUnavailable, match="there is no bucket 'headai-another'"):
            await store.ping()
        await store.ensure_bucket()
        rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["https://ours.example"]}
        await store._client.put_bucket_cors(Bucket="headai-another", CORSConfiguration={"CORSRules": [rule]})
        await store.ensure_bucket()
        kept = await store._client.get_bucket_cors(Bucket="headai-another")
        assert kept["CORSRules"][0]["AllowedOrigins"] == ["https://ours.example"]
        assert await store.ping() > 0


async def test_wrong_credentials_are_told_as_such(wrong_key, key):
    with pytest.raises(StoreUnavailable, match="the secret key is wrong"):
        await wrong_key.read(key)
    with pytest.raises(StoreUnavailable, match="HEADAI_S3_"):
        await wrong_key.ping()


async def test_a_store_that_dies_is_unavailable_and_then_works_again(tmp_path, http):
    async with running_seaweed(tmp_path / "home") as server, ObjectStore.open(settings_of(server)) as store:
        await store.ensure_bucket()
        await store.write("kept", b"kept", "text/plain")
        server_pid = server.pid
        os.kill(server_pid, 9)
        await server.exited()
        for asking in (
            store.ping(),
            store.head("kept"),
            store.read("kept"),
            store.write("new", b"", "text/plain"),
            store.start_multipart("new", "text/plain"),
            store.list_parts("new", "upload"),
            store.download_file("kept", tmp_path / "file"),
        ):
            async with asyncio.timeout(20):
                with pytest.raises(StoreUnavailable, match="check that it runs and that HEADAI_S3_ENDPOINT_URL"):
                    await asking
        assert not (tmp_path / "file").exists()
        await server.start()
        assert server.pid != server_pid
        assert await store.read("kept") == b"kept"
        await store.write("new", b"new", "text/plain")
        assert await store.read("new") == b"new"


async def test_a_store_that_accepts_and_never_answers_is_unavailable(settings):
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with ObjectStore.open(replace(settings, endpoint_url=url)) as store:
            with pytest.raises(StoreUnavailable, match="did not answer in time"):
                await store.ping()
        ended.set()
