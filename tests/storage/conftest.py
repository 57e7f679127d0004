"""One SeaweedFS for the tests of storage, and a store opened on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from embedded.home import Home
from embedded.seaweed import Seaweed
from storage.objects import ObjectStore, StoreSettings


@asynccontextmanager
async def running_seaweed(folder: Path) -> AsyncIterator[Seaweed]:
    home = Home(folder)
    home.lock()
    server = Seaweed(home)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
        home.unlock()


def settings_of(server: Seaweed) -> StoreSettings:
    access = server.access
    return StoreSettings(
        endpoint_url=access.endpoint_url,
        public_url=None,
        region=access.region,
        access_key=access.access_key,
        secret_key=access.secret_key,
        bucket="headai-tests",
    )


@pytest.fixture(scope="session")
async def settings(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StoreSettings]:
    async with running_seaweed(tmp_path_factory.mktemp("storage")) as server:
        yield settings_of(server)


@pytest.fixture(scope="session")
async def store(settings: StoreSettings) -> AsyncIterator[ObjectStore]:
    async with ObjectStore.open(settings) as opened:
        await opened.ensure_bucket()
        yield opened


@pytest.fixture
async def wrong_key(settings: StoreSettings) -> AsyncIterator[ObjectStore]:
    async with ObjectStore.open(replace(settings, secret_key="another secret")) as opened:
        yield opened


@pytest.fixture(scope="session")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who knows no credentials, only the URLs they are given."""
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


@pytest.fixture
def key() -> str:
    return f"tests/{uuid4().hex}"
