"""A process of the API that has to end: readiness goes first, what runs is finished, clients come back elsewhere."""

import asyncio
import json
import signal
import socket
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import websockets

from headai.leaving import Leaving
from tests.serving import served

WATCH = """
subscription ($after: String) {
  events(filter: { types: [PROJECT_CREATED] }, after: $after) {
    ... on Event { cursor subject { ... on Project { slug } } }
    ... on StreamCaughtUp { cursor }
  }
}
"""
CREATE = """
mutation ($slug: String!) { createProject(input: { slug: $slug, name: "x" }) { project { slug } errors { code } } }
"""


class Api:
    """A server, and how one of its users speaks to it."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._headers = {"authorization": f"Bearer {token}"}
        self._token = token

    async def ready(self) -> int:
        async with httpx.AsyncClient(timeout=30) as http:
            return (await http.get(f"{self.url}/readyz")).status_code

    async def post(self, query, **variables):
        async with httpx.AsyncClient(timeout=60) as http:
            answer = await http.post(
                f"{self.url}/graphql", json={"query": query, "variables": variables}, headers=self._headers
            )
        return answer.json()["data"]

    @asynccontextmanager
    async def stream(self, query, headers=None):
        async with (
            httpx.AsyncClient(timeout=60) as http,
            http.stream(
                "POST",
                f"{self.url}/graphql/stream",
                json={"query": query},
                headers={**self._headers, **(headers or {})},
            ) as answer,
        ):
            yield answer.aiter_lines()

    @asynccontextmanager
    async def connected(self):
        address = f"{self.url.replace('http://', 'ws://')}/graphql"
        async with websockets.connect(address, subprotocols=["graphql-transport-ws"]) as opened:
            await opened.send(
                json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {self._token}"}})
            )
            assert await receive(opened) == {"type": "connection_ack"}
            yield opened


async def receive(opened):
    async with asyncio.timeout(60):
        return json.loads(await opened.recv())


async def ask(opened, id_, query, **variables):
    await opened.send(json.dumps({"id": id_, "type": "subscribe", "payload": {"query": query, "variables": variables}}))


async def closed(opened):
    async with asyncio.timeout(60):
        await opened.wait_closed()
    return opened.close_code


async def until(condition, seconds=60):
    """Until an asynchronous condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  (another process rings no event)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def projects_locked(db):
    """Whoever creates a project waits until the block ends; yields how many wait."""
    async with db.transaction() as session:
        await session.connection.execute("LOCK TABLE projects IN EXCLUSIVE MODE")

        async def waiting() -> int:
            return await session.connection.fetchval(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'projects'::regclass"
            )

        yield waiting


async def slugs(db):
    async with db.reading() as session:
        return [slug for (slug,) in await session.connection.fetch("SELECT slug FROM projects ORDER BY slug")]


@pytest.fixture
async def leaves(settings, services, admin, token_of):
    """A server in this process that can be told to leave, and how it is told."""
    leaving = Leaving()
    async with served(settings, leaving=leaving) as url:
        told: list[asyncio.Task[None]] = []

        def leave(seconds: float = 0) -> None:
            told.append(asyncio.create_task(leaving.end_connections(seconds, hurry=lambda: False)))

        yield Api(url, token_of(admin)), leave
        await asyncio.gather(*told)


@pytest.fixture
def elsewhere(server, admin, token_of):
    return Api(server, token_of(admin))


async def test_readiness_goes_first_and_the_process_still_answers(leaves):
    api, leave = leaves
    async with api.connected() as idle:
        assert await api.ready() == 200
        leave(2)
        assert await closed(idle) == 1012
        assert idle.close_reason == "This server is going away. Connect again."
    assert await api.ready() == 503
    assert await api.post(CREATE, slug="late") == {"createProject": {"project": {"slug": "late"}, "errors": []}}


async def test_a_socket_that_is_opened_now_is_sent_elsewhere(leaves):
    api, leave = leaves
    leave()
    address = f"{api.url.replace('http://', 'ws://')}/graphql"
    async with websockets.connect(address, subprotocols=["graphql-transport-ws"]) as late:
        assert await closed(late) == 1012


async def test_a_subscription_goes_on_at_another_process_with_no_gap_and_no_repeat(leaves, elsewhere):
    api, leave = leaves
    async with api.connected() as watching, api.stream(WATCH) as lines:
        await ask(watching, "1", WATCH)
        assert (await receive(watching))["type"] == "next"
        assert (await anext(lines)).startswith("id: ")
        await elsewhere.post(CREATE, slug="one")
        seen = (await receive(watching))["payload"]["data"]["events"]
        assert seen["subject"] == {"slug": "one"}
        async with asyncio.timeout(30):
            while (line := await anext(lines)) != f"id: {seen['cursor']}":
                pass

        leave()
        assert await closed(watching) == 1012
        rest = [line async for line in lines]
    assert "event: complete" not in rest
    assert not [line for line in rest if line.startswith("id: ")]
    await elsewhere.post(CREATE, slug="two")

    last = {"last-event-id": line.removeprefix("id: ")}
    async with elsewhere.connected() as watching, elsewhere.stream(WATCH, last) as lines:
        await ask(watching, "1", WATCH, after=seen["cursor"])
        assert (await receive(watching))["payload"]["data"]["events"]["subject"] == {"slug": "two"}
        data = [await anext(lines) for _ in range(3)][-1]
        assert json.loads(data.removeprefix("data: "))["data"]["events"]["subject"] == {"slug": "two"}


async def test_what_runs_on_a_socket_is_finished_and_nothing_more_begins(leaves, db):
    api, leave = leaves
    async with api.connected() as busy, api.connected() as idle:
        async with projects_locked(db) as waiting:
            await ask(busy, "1", CREATE, slug="sent")

            async def one_waits() -> bool:
                return await waiting() == 1

            await until(one_waits)
            leave()
            assert await closed(idle) == 1012
            await ask(busy, "2", CREATE, slug="too-late")
        assert (await receive(busy))["payload"]["data"]["createProject"]["project"] == {"slug": "sent"}
        assert await receive(busy) == {"id": "1", "type": "complete"}
        assert await closed(busy) == 1012
    assert await slugs(db) == ["sent"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("number", "drain_time"), [(signal.SIGTERM, "PT1S"), (signal.SIGINT, "PT10M")])
async def test_a_process_ends_by_a_signal_after_what_runs(settings, services, admin, token_of, db, number, drain_time):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headai", "api"),
        env=settings.environment() | {"HEADAI_PORT": str(port), "HEADAI_DRAIN_TIME": drain_time},
        cwd=Path(__file__).parents[1],
    )
    try:
        api = Api(f"http://127.0.0.1:{port}", token_of(admin))

        async def is_ready() -> bool:
            with suppress(httpx.TransportError):
                return await api.ready() == 200
            return False

        await until(is_ready, seconds=240)
        async with api.connected() as idle:
            async with projects_locked(db) as waiting:
                posted = asyncio.create_task(api.post(CREATE, slug="posted"))

                async def one_waits() -> bool:
                    return await waiting() == 1

                await until(one_waits)
                process.send_signal(number)
                assert await closed(idle) == 1012
            assert (await posted)["createProject"]["project"] == {"slug": "posted"}
        async with asyncio.timeout(60):
            await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_connections_end_one_after_the_other():
    leaving, loop = Leaving(), asyncio.get_running_loop()
    ended: list[float] = []

    def leave() -> None:
        ended.append(loop.time())

    with leaving.connected(leave), leaving.connected(lambda: leave()):
        ending = asyncio.create_task(leaving.end_connections(0.4, hurry=lambda: False))
        while len(ended) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await ending

    assert ended[1] - ended[0] >= 0.15


async def test_a_second_signal_ends_all_connections_at_once():
    leaving = Leaving()
    async with asyncio.timeout(30):
        with leaving.connected(lambda: None):
            ending = asyncio.create_task(leaving.end_connections(600, hurry=lambda: True))
            await asyncio.sleep(0)
        await ending
