"""What readers of live metrics saw, held against what was written, while everything is killed and comes back.

`--faults 1000` is the long form (`make chaos`). A fault is a reader that loses its connection, a `kill -9` of an API
process, of Redis or of PostgreSQL. Afterwards every reader has to have every point of every series once, in order.
"""

import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import websockets
from sqlalchemy import select

from db.tables import metric_points
from db.vocabulary import MetricScope
from domain.metrics import record_points
from embedded.servers import EmbeddedStack
from headai.administration import ensure_administrator
from tests.metrics.documents import INGEST
from tests.serving import kill, settings_for

PASSWORD = "correct horse battery"
LOGIN = """
mutation ($password: String!) { login(input: {username: "admin", password: $password}) { tokens { accessToken } } }
"""
PROJECT = 'mutation { createProject(input: {slug: "lab", name: "Lab"}) { project { id } } }'
RUN = """
mutation ($project: ID!) {
  createTrainingRun(input: {projectId: $project, spec: {task: REGRESSION, algorithm: EXTERNAL}}) { trainingRun { id } }
}
"""
LIVE = """
subscription ($selector: MetricSelectorInput!, $after: String) {
  metricPoints(selector: $selector, after: $after, maxUpdatesPerSecond: 10) { cursor series { name columns { step } } }
}
"""
TOKEN_SECONDS = 300
SILENCE_SECONDS = 20
READY_SECONDS = 60
LAST_SECONDS = 90
MOST_SECONDS_A_FAULT = 60

History = dict[str, list[int]]


def differences(written: dict[str, int], seen: History) -> Iterator[str]:
    """What is wrong with a history; `written` is how many steps, from 0 on, each series has."""
    for name, size in written.items():
        steps = seen.get(name, [])
        lost = set(range(size)) - set(steps)
        if lost:
            yield f"{name}: {len(lost)} lost, the first is {min(lost)}"
        if len(set(steps)) < len(steps):
            yield f"{name}: {len(steps) - len(set(steps))} repeated"
        if steps != sorted(steps):
            yield f"{name}: out of order"
        if set(steps) - set(range(size)):
            yield f"{name}: {len(set(steps) - set(range(size)))} that were never written"


def test_the_checker_tells_what_is_wrong():
    seen = {"a": [0, 1, 2], "b": [0, 2], "c": [0, 1, 1], "d": [1, 0], "e": [0, 1]}

    assert list(differences({"a": 3, "b": 3, "c": 2, "d": 2, "e": 1, "f": 1}, seen)) == [
        "b: 1 lost, the first is 1",
        "c: 1 repeated",
        "d: out of order",
        "e: 1 that were never written",
        "f: 1 lost, the first is 0",
    ]


async def test_the_checker_finds_what_a_naive_cursor_loses(db, project, run):
    """The newest transaction that was seen is no cursor: an older one may still be writing."""
    seen: History = {}
    last = 0

    async def write(session, name, step):
        points = {name: ([step], [step], [0.0])}
        await record_points(session, project_id=project.id, run_id=run.id, scope=MetricScope.RUN, points=points)

    async def look():
        nonlocal last
        async with db.reading() as session:
            rows = await session.records(select(metric_points.c.changed, metric_points.c.step, metric_points.c.at))
        for changed, step, at in sorted(tuple(row) for row in rows):
            if changed > last:
                seen.setdefault("slow" if at == 100 else "fast", []).append(step)
        last = max([last, *(row[0] for row in rows)])

    async with db.transaction() as slow:
        points = {"slow": ([0], [100], [0.0])}
        await record_points(slow, project_id=project.id, run_id=run.id, scope=MetricScope.RUN, points=points)
        async with db.transaction() as fast:
            await write(fast, "fast", 0)
        await look()
    await look()

    assert list(differences({"slow": 1, "fast": 1}, seen)) == ["slow: 1 lost, the first is 0"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


# ── Nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Node:
    """A process of the API on a port of its own; `url` is None while it is away."""

    def __init__(self, settings, port: int, log: Path) -> None:
        self.port, self.url, self._log = port, None, log
        self._environment = settings.environment() | {
            "HEADAI_PORT": str(port),
            "HEADAI_MAX_SOCKETS_PER_CALLER": "1000",
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "headai", "api", env=self._environment, stdout=output, stderr=output
            )
        url = f"http://127.0.0.1:{self.port}"
        async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(trust_env=False) as http:
            while True:
                assert self._process.returncode is None, self._log.read_text()[-3000:]
                with suppress(httpx.HTTPError):
                    if (await http.get(f"{url}/healthz")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
        self.url = url

    async def kill(self) -> None:
        self.url = None
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)
            await self._process.wait()


class Cluster:
    def __init__(self, stack: EmbeddedStack, nodes: list[Node], chance: random.Random) -> None:
        self.stack, self.nodes, self.chance = stack, nodes, chance
        self._http = httpx.AsyncClient(trust_env=False, timeout=SILENCE_SECONDS)
        self._token, self._until = "", 0.0

    async def url(self) -> str:
        """One of the nodes that are there."""
        while not (there := [node.url for node in self.nodes if node.url]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return self.chance.choice(there)

    async def token(self) -> str:
        while time.monotonic() > self._until:
            answer = await self.ask(LOGIN, signed_in=False, password=PASSWORD)
            self._token, self._until = answer["login"]["tokens"]["accessToken"], time.monotonic() + TOKEN_SECONDS
        return self._token

    async def ask(self, query: str, *, signed_in: bool = True, **variables: object) -> dict:
        """The data of an answer; asked again, of any node, until there is one."""
        while True:
            headers = {"authorization": f"Bearer {await self.token()}"} if signed_in else {}
            with suppress(httpx.HTTPError, KeyError):
                posted = await self._http.post(
                    f"{await self.url()}/graphql", json={"query": query, "variables": variables}, headers=headers
                )
                answer = posted.json()
                if "errors" not in answer:
                    return answer["data"]
                codes = {error["extensions"]["code"] for error in answer["errors"]}
                assert codes <= {"UNAVAILABLE", "INTERNAL", "TIMEOUT"}, answer
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self._http.aclose()


@pytest.fixture
async def cluster(tmp_path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(EmbeddedStack(tmp_path / "servers"))
        settings = await settings_for(stack, tmp_path / "home")
        await ensure_administrator(settings, PASSWORD)
        nodes = [Node(settings, free_port(), tmp_path / f"node-{number}.log") for number in range(2)]
        for node in nodes:
            exits.push_async_callback(node.kill)
        await asyncio.gather(*(node.start() for node in nodes))
        made = Cluster(stack, nodes, random.Random(5))
        exits.push_async_callback(made.close)
        yield made


# ── Writers and readers ─────────────────────────────────────────────────────────────────────────────────────────────


async def write(cluster: Cluster, project: str, run: str, name: str, written: dict[str, int], stop: asyncio.Event):
    """Steps of one series, in batches of all sizes; each is sent until it is answered."""
    chance = random.Random(name)
    number = 0
    while not stop.is_set():
        size = chance.choice([1, 1, 3, 20, 150, 600])
        steps = list(range(written[name], written[name] + size))
        series = {"runId": run, "name": name, "steps": steps, "at": steps, "values": [step / 7 for step in steps]}
        input = {"projectId": project, "batchId": f"{name}-{number}", "series": [series]}
        answer = await cluster.ask(INGEST, input=input)
        assert answer["ingestMetrics"]["accepted"] == size, answer
        written[name] += size
        number += 1
        await asyncio.sleep(chance.uniform(0, 0.05))


class Reader:
    """Follows all series of a run over one transport, and goes on after its cursor whenever the connection is lost."""

    def __init__(self, cluster: Cluster, run: str, transport: str) -> None:
        self._cluster = cluster
        self._selector = {"scope": "RUN", "names": ["*"], "runIds": [run]}
        self._connected = {"WebSocket": self._socket, "SSE": self._events}[transport]
        self._cursor: str | None = None
        self._drop = asyncio.Event()
        self.seen: History = {}
        self.began = asyncio.Event()
        self.connections = 0

    def drop(self) -> None:
        self._drop.set()

    async def read(self) -> None:
        while True:
            self._drop.clear()
            reading = asyncio.create_task(self._once())
            dropped = asyncio.create_task(self._drop.wait())
            try:
                await asyncio.wait({reading, dropped}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (reading, dropped):
                    task.cancel()
                await asyncio.gather(reading, dropped, return_exceptions=True)
            if reading.done() and not reading.cancelled() and isinstance(reading.exception(), AssertionError):
                raise reading.exception()
            await asyncio.sleep(self._cluster.chance.uniform(0, 0.2))

    async def _once(self) -> None:
        with suppress(OSError, httpx.HTTPError, websockets.WebSocketException, TimeoutError, _Over):
            url, token = await self._cluster.url(), await self._cluster.token()
            variables = {"selector": self._selector, "after": self._cursor}
            async with self._connected(url, token, {"query": LIVE, "variables": variables}) as items:
                self.connections += 1
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        self._take(await anext(items))

    def _take(self, item: dict) -> None:
        if "errors" in item:
            raise _Over
        batch = item["data"]["metricPoints"]
        for series in batch["series"]:
            self.seen.setdefault(series["name"], []).extend(series["columns"]["step"])
        self._cursor = batch["cursor"]
        self.began.set()

    @asynccontextmanager
    async def _socket(self, url: str, token: str, payload: dict) -> AsyncIterator[AsyncIterator[dict]]:
        async with websockets.connect(
            f"{url.replace('http', 'ws')}/graphql",
            subprotocols=["graphql-transport-ws"],
            max_size=None,
            proxy=None,
            close_timeout=0.1,
        ) as connection:
            await connection.send(
                json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}})
            )
            await connection.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))

            async def items():
                async for text in connection:
                    message = json.loads(text)
                    if message["type"] == "next":
                        yield message["payload"]
                    elif message["type"] in ("error", "complete"):
                        raise _Over
                raise _Over

            async with aclosing(items()) as found:
                yield found

    @asynccontextmanager
    async def _events(self, url: str, token: str, payload: dict) -> AsyncIterator[AsyncIterator[dict]]:
        headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
        async with (
            httpx.AsyncClient(trust_env=False, timeout=SILENCE_SECONDS) as http,
            http.stream("POST", f"{url}/graphql/stream", json=payload, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise _Over

            async def items():
                kind = ""
                async for line in response.aiter_lines():
                    field, _, value = line.partition(": ")
                    if field == "event":
                        kind = value
                    elif field == "data" and kind == "next":
                        yield json.loads(value)
                    elif kind == "complete":
                        raise _Over
                raise _Over

            async with aclosing(items()) as found:
                yield found


class _Over(Exception):
    """The server ended the stream, or could not begin it."""


async def disturb(cluster: Cluster, readers: list[Reader], fault: str) -> None:
    match fault:
        case "reader":
            cluster.chance.choice(readers).drop()
        case "node":
            node = cluster.chance.choice(cluster.nodes)
            await node.kill()
            await node.start()
        case "Valkey" | "PostgreSQL":
            server = next(server for server in cluster.stack.servers if server.title == fault)
            await kill(server)
            await server.start()


def faults(count: int, chance: random.Random) -> Iterator[str]:
    """One of each kind, and then mostly readers that lose their connection."""
    first = ["reader", "reader", "Valkey", "reader", "node", "reader", "PostgreSQL", "reader"]
    yield from first[:count]
    for _ in range(len(first), count):
        yield chance.choices(["reader", "node", "Valkey", "PostgreSQL"], [85, 8, 4, 3])[0]


@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_every_reader_has_every_point_once_and_in_order(cluster, pytestconfig):
    count = pytestconfig.getoption("--faults")
    transports = ["WebSocket", "SSE"] * (3 if count < 100 else 25)
    project = (await cluster.ask(PROJECT))["createProject"]["project"]["id"]
    run = (await cluster.ask(RUN, project=project))["createTrainingRun"]["trainingRun"]["id"]
    written, stop = {f"series {number}": 0 for number in range(3)}, asyncio.Event()
    readers = [Reader(cluster, run, transport) for transport in transports]
    reading = [asyncio.create_task(reader.read()) for reader in readers]
    writing = []
    try:
        async with asyncio.timeout(READY_SECONDS):
            await asyncio.gather(*(reader.began.wait() for reader in readers))
        writing = [asyncio.create_task(write(cluster, project, run, name, written, stop)) for name in written]
        async with asyncio.timeout(MOST_SECONDS_A_FAULT * count):
            for fault in faults(count, random.Random(7)):
                await disturb(cluster, readers, fault)
                await asyncio.sleep(cluster.chance.uniform(0, 0.2))
            stop.set()
            await asyncio.gather(*writing)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                while any(sum(map(len, reader.seen.values())) < sum(written.values()) for reader in readers):
                    done = [task for task in reading if task.done()]
                    assert not done, done
                    await asyncio.sleep(0.1)
    finally:
        for task in (*reading, *writing):
            task.cancel()
        await asyncio.gather(*reading, *writing, return_exceptions=True)

    assert [list(differences(written, reader.seen)) for reader in readers] == [[] for _ in readers]
    assert min(written.values()) > 0
    assert sum(reader.connections for reader in readers) > len(readers)
