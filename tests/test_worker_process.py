"""The worker process: it signs on and off, takes jobs again after PostgreSQL was away, and is small when idle."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from db.ids import new_id
from db.jobs import Job, enqueue, serve
from db.tables import workers

MOST_MEMORY_MB = 250


async def signed_on(db: Any, pid: int) -> bool:
    async with db.reading() as session:
        names = [record[0] for record in await session.records(select(workers.c.name))]
    return any(name.endswith(f":{pid}") for name in names)


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Look until it is so; fails after half a minute."""
    async with asyncio.timeout(30):
        while not await check():  # noqa: ASYNC110  (what is waited for is in another process)
            await asyncio.sleep(0.1)


async def test_signs_on_and_off_and_is_small(db, start_worker):
    process = await start_worker()
    await until(lambda: signed_on(db, process.pid))
    (template,) = psutil.Process(process.pid).children()
    preloading = template.cpu_percent

    async def is_warm() -> bool:
        return "lib_lightgbm" in _mapped(template) and await asyncio.to_thread(preloading, 0.3) == 0

    await until(is_warm)
    used = [one.memory_full_info().pss for one in (psutil.Process(process.pid), template)]
    process.terminate()

    assert await process.wait() == 0
    assert sum(used) / 2**20 < MOST_MEMORY_MB
    assert not await signed_on(db, process.pid)
    assert not psutil.pid_exists(template.pid)


def _mapped(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/maps").read_text()


@pytest.fixture
def queue(settings: Any, db: Any) -> Any:
    """Serve jobs in this process; `done` lists them."""

    class Served:
        def __init__(self) -> None:
            self.done: asyncio.Queue[Any] = asyncio.Queue()
            self.stop = asyncio.Event()

        def start(self, do: Any) -> asyncio.Task[None]:
            return asyncio.create_task(serve(settings.database_url, Job.TRAIN_RUN, do, at_once=2, stop=self.stop))

        async def ask(self) -> Any:
            key = new_id()
            async with db.transaction() as session:
                await enqueue(session, Job.TRAIN_RUN, key)
            return key

        async def left(self) -> list[tuple[str, bytes]]:
            async with db.reading() as session:
                found = await session.connection.fetch("SELECT status, payload FROM pgqueuer")
            return [(record["status"], record["payload"]) for record in found]

        async def is_taken_by_one(self) -> bool:
            """Whether all that is at work was taken over the connection of the present."""
            async with db.reading() as session:
                takers = await session.connection.fetchval("SELECT count(DISTINCT queue_manager_id) FROM pgqueuer")
            return bool(takers == 1)

        async def is_empty(self) -> bool:
            return not await self.left()

    return Served()


async def test_jobs_go_on_over_a_lost_connection_and_new_ones_are_taken_after_it(queue, db):
    begun: asyncio.Queue[Any] = asyncio.Queue()
    go_on = asyncio.Event()

    async def do(key: Any) -> None:
        await begun.put(key)
        await go_on.wait()
        await queue.done.put(key)

    serving = queue.start(do)
    async with asyncio.timeout(60):
        first = await queue.ask()
        assert await begun.get() == first
        async with db.reading() as session:
            await session.connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headai jobs'"
            )
        second = await queue.ask()
        assert await begun.get() == second
        await until(queue.is_taken_by_one)
        go_on.set()
        assert {await queue.done.get(), await queue.done.get()} == {first, second}
    await until(queue.is_empty)
    queue.stop.set()
    await serving

    assert begun.empty(), "the job that was at work was joined, not begun again"


async def test_a_job_that_is_stopped_waits_for_the_next_worker(queue):
    begun: asyncio.Queue[Any] = asyncio.Queue()

    async def do(key: Any) -> None:
        await begun.put(key)
        await asyncio.Event().wait()

    serving = queue.start(do)
    key = await queue.ask()
    assert await begun.get() == key
    queue.stop.set()
    await serving

    assert await queue.left() == [("queued", key.bytes)]


async def test_a_job_that_raises_is_dropped(queue, caplog):
    async def do(key: Any) -> None:
        await queue.done.put(key)
        raise ValueError("broken")

    serving = queue.start(do)
    key = await queue.ask()
    assert await queue.done.get() == key
    await until(queue.is_empty)
    queue.stop.set()
    await serving
