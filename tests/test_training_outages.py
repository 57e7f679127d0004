"""PostgreSQL, the store and Redis are killed while a worker process trains: the run waits, and loses nothing."""

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from db.tables import artifacts
from domain.training import LOST_AFTER
from embedded.server import Server
from embedded.servers import EmbeddedStack
from headai.services import open_services
from headai.settings import Settings
from resolvers.context import Services
from tests.at_work import bell_of, look_at, queued_run
from tests.serving import kill, settings_for
from tests.test_training import key, steps_of

pytestmark = pytest.mark.slow

ROUNDS = 200
Find = Callable[[str], Server]


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    """Servers of our own, so that nobody else misses them."""
    async with EmbeddedStack(tmp_path_factory.mktemp("outages")) as stack:
        yield stack


@pytest.fixture(scope="module")
async def settings(stack: EmbeddedStack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return await settings_for(stack, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
async def shared_services(settings: Settings) -> AsyncIterator[Services]:
    async with open_services(settings) as services:
        yield services


@pytest.fixture
def server(stack: EmbeddedStack) -> Find:
    return lambda title: next(server for server in stack.servers if server.title == title)


@pytest.fixture
async def id(db: Any, store: Any, execute: Any, scientist: Any, project: Any, tmp_path: Any) -> str:
    """A queued run."""
    return await queued_run(db, store, execute, scientist, project, tmp_path, rounds=ROUNDS)


@pytest.fixture
def look(execute: Any, scientist: Any) -> Any:
    return partial(look_at, execute, scientist)


@pytest.fixture
def over(look: Any, id: str) -> Any:
    """The run once it is over."""

    async def is_over() -> Any:
        run = await look(id)
        return run if run and run["finishedAt"] else None

    return is_over


@pytest.fixture
def check(db: Any, store: Any, id: str) -> Any:
    """The run succeeded at its first attempt; every step, line, transition and file is there exactly once."""

    async def check(run: dict[str, Any]) -> None:
        assert (run["status"], run["failure"]) == ("SUCCEEDED", None)
        assert [(a["status"], a["failure"]) for a in run["attempts"]] == [("SUCCEEDED", None)]
        assert [t["to"] for t in run["transitions"]] == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
        for name in ("train.auc", "train.binary_logloss", "valid.auc", "valid.binary_logloss"):
            assert await steps_of(db, id, name) == list(range(ROUNDS))
        lines = run["logs"]["nodes"]
        assert [int(line["number"]) for line in lines] == list(range(1, len(lines) + 1))
        assert len({line["text"] for line in lines}) == len(lines)
        async with db.reading() as session:
            files = await session.records(
                select(artifacts.c.path, artifacts.c.object_key, artifacts.c.sha256)
                .where(artifacts.c.run_id == key(id))
                .order_by(artifacts.c.path)
            )
        assert [path for path, _, _ in files] == ["manifest.json", "model.txt", "model_card.md"]
        for _, object_key, sha256 in files:
            assert hashlib.sha256(await store.read(object_key)).hexdigest() == sha256

    return check


async def test_the_database_is_killed_and_comes_back(services, db, start_worker, id, over, check, server):
    await start_worker()
    async with bell_of(services, id) as until:
        before = await until(lambda: steps_of(db, id, "valid.auc"))
        await kill(server("PostgreSQL"))
        await server("PostgreSQL").start()
        run = await until(over)

    assert len(before) < ROUNDS
    await check(run)


async def test_the_database_stands_still_for_longer_than_a_lease(services, db, start_worker, id, over, check, server):
    await start_worker()
    await start_worker()
    async with bell_of(services, id) as until:
        before = await until(lambda: steps_of(db, id, "valid.auc"))
        paused = await asyncio.to_thread(_signal_all, server("PostgreSQL"), signal.SIGSTOP)
        await asyncio.sleep(LOST_AFTER.total_seconds() + 2)
        await asyncio.to_thread(_resume, paused)
        run = await until(over)

    assert len(before) < ROUNDS
    await check(run)


def _signal_all(server: Server, number: signal.Signals) -> list[psutil.Process]:
    """Send a signal to a server and all its processes, so that none of them answers."""
    postmaster = psutil.Process(server.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    return processes


def _resume(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()


async def test_the_store_is_away_when_the_data_is_fetched_and_when_the_model_is_put_there(
    services, db, start_worker, id, look, over, check, server
):
    async def fetches() -> bool:
        return any(line["text"] == "Fetching the data." for line in (await look(id))["logs"]["nodes"])

    async def is_trained() -> bool:
        return len(await steps_of(db, id, "valid.auc")) == ROUNDS

    await kill(server("SeaweedFS"))
    await start_worker()
    async with bell_of(services, id) as until:
        await until(fetches)
        waiting = await look(id)
        await server("SeaweedFS").start()
        await until(lambda: steps_of(db, id, "valid.auc"))
        await kill(server("SeaweedFS"))
        await until(is_trained)
        trained = await look(id)
        await server("SeaweedFS").start()
        run = await until(over)

    assert (waiting["status"], trained["status"], trained["artifacts"]["nodes"]) == ("STARTING", "RUNNING", [])
    await check(run)


async def test_redis_is_killed_and_stays_away(services, db, start_worker, id, over, check, server):
    await start_worker()
    async with bell_of(services, id) as until:
        await until(lambda: steps_of(db, id, "valid.auc"))
        await kill(server("Valkey"))
        run = await until(over)
    await server("Valkey").start()

    await check(run)
