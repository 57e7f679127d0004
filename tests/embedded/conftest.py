"""Writing to each embedded server and reading it back, and a home that leaves no process behind."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from embedded.processes import with_environment, working_in
from embedded.servers import EmbeddedStack
from storage.objects import ObjectStore, StoreSettings

PROGRAMS = ("postgres", "initdb", "valkey-server", "weed")


@dataclass(frozen=True)
class Written:
    """What a client put into the three servers."""

    row: str
    key: str
    content: bytes


WRITTEN = Written(row="a row", key="a key", content=b"an object" * 1000)
NOTHING = Written(row="", key="", content=b"")


async def write(servers: EmbeddedStack, wanted: Written = WRITTEN) -> None:
    connection = await asyncpg.connect(servers.database_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (word text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", wanted.row)
    await connection.close()
    async with Redis.from_url(servers.redis_url, decode_responses=True) as redis:
        await redis.set("kept", wanted.key)
    async with ObjectStore.open(store_settings(servers)) as store:
        await store.ensure_bucket()
        await store.write("kept", wanted.content, "text/plain")


async def read(servers: EmbeddedStack) -> Written:
    connection = await asyncpg.connect(servers.database_url)
    row = await connection.fetchval("SELECT word FROM kept")
    await connection.close()
    async with Redis.from_url(servers.redis_url, decode_responses=True) as redis:
        key = await redis.get("kept")
    async with ObjectStore.open(store_settings(servers)) as store:
        content = await store.read("kept")
    return Written(row=row, key=key, content=content)


def store_settings(servers: EmbeddedStack) -> StoreSettings:
    return StoreSettings(
        endpoint_url=servers.s3.endpoint_url,
        public_url=None,
        region=servers.s3.region,
        access_key=servers.s3.access_key,
        secret_key=servers.s3.secret_key,
        bucket="headai",
    )


def running_in(home: Path) -> list[int]:
    """Processes of embedded servers that work anywhere below `home`."""
    return [pid for folder in home.glob("*/data*") for pid in working_in(folder, PROGRAMS)]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "a home with spaces"
    yield path
    assert running_in(path) == []
    assert with_environment("HEADAI_STACK", str(path)) == []
