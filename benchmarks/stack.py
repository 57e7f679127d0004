"""A Head AI of the benchmark's own, in a temporary folder: servers, API, worker; and the peers beside it.

The user's data, settings and ports are never touched; everything ends with the block that started it.
"""

import asyncio
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson

from db.migrate import upgrade
from embedded.server import launched
from embedded.servers import EmbeddedStack
from headai.administration import FIRST, ensure_administrator
from headai.settings import ENV_PREFIX, Settings
from storage.objects import ObjectStore

_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_PORTS = range(20_000, 50_000)


class DoesNotStart(Exception):
    """A process of the benchmark ended, or did not become ready; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """`api` and `worker` are process IDs; `password` is that of `admin`."""

    url: str
    password: str
    api: int
    worker: int
    settings: Settings

    async def token(self) -> str:
        """A fresh access token of the administrator; it lives 15 minutes."""
        document = "mutation Login($input: LoginInput!) { login(input: $input) { tokens { accessToken } } }"
        given = {"input": {"username": FIRST, "password": self.password}}
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{self.url}/graphql", json={"query": document, "variables": given})
        token: str = answer.json()["data"]["login"]["tokens"]["accessToken"]
        return token


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    """Head AI with its embedded servers, as `headai up` puts it together; raises `DoesNotStart`."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headai-bench-")))
        servers = await stack.enter_async_context(EmbeddedStack(home))
        settings = _settings(home, servers)
        async with ObjectStore.open(settings.store()) as store:
            await store.ensure_bucket()
        await asyncio.to_thread(upgrade, settings.database_url)
        password = secrets.token_urlsafe(15)
        await ensure_administrator(settings, password)
        processes = []
        for command in ("api", "worker"):
            started = process("headai", command, log=home / f"{command}.log", environment=settings.environment())
            processes.append(await stack.enter_async_context(started))
        url = f"http://127.0.0.1:{settings.port}"
        await until_ready(f"{url}/readyz", processes[0], home / "api.log")
        await _until_worker_is_seen(url)
        yield Running(url, password, processes[0].pid, processes[1].pid, settings)


@asynccontextmanager
async def another(head_ai: Running, *, executor: str) -> AsyncIterator[tuple[int, int]]:
    """One more API process of a Head AI, with this executor: its port and process ID. Raises `DoesNotStart`."""
    port, log = free_port(), Path(head_ai.settings.home) / f"api-{executor}.log"
    environment = head_ai.settings.environment() | {"HEADAI_PORT": str(port), "HEADAI_EXECUTOR": executor}
    async with process("headai", "api", log=log, environment=environment) as started:
        await until_ready(f"http://127.0.0.1:{port}/readyz", started, log)
        yield port, started.pid


def _settings(home: Path, servers: EmbeddedStack) -> Settings:
    """Those of a new installation: what the caller's environment says about Head AI does not count."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        del os.environ[name]
    return Settings.load(
        home=home,
        port=free_port(),
        drain_time=timedelta(0),
        database_url=servers.database_url,
        redis_url=servers.redis_url,
        s3_endpoint_url=servers.s3.endpoint_url,
        s3_region=servers.s3.region,
        s3_access_key=servers.s3.access_key,
        s3_secret_key=servers.s3.secret_key,
    )


async def _until_worker_is_seen(url: str) -> None:
    document = "{ health { status } }"
    async with httpx.AsyncClient(trust_env=False) as http:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            answer = (await http.post(f"{url}/graphql", json={"query": document})).json()
            if answer["data"]["health"]["status"] == "OK":
                return
            await asyncio.sleep(0.2)
    raise DoesNotStart(f"Health is {answer['data']['health']['status']} and does not become OK.")


@asynccontextmanager
async def peer(name: str, *, database_url: str, viewer: str, run: str, log: Path) -> AsyncIterator[tuple[int, int]]:
    """A peer of `benchmarks.peers`: its port and process ID. Raises `DoesNotStart`."""
    port = free_port()
    told = {"peer": name, "port": port, "database_url": database_url, "viewer": viewer, "run": run}
    async with process("benchmarks.peers.serve", log=log, environment=os.environ, told=told) as started:
        await _until_listening(port, started, log)
        yield port, started.pid


@asynccontextmanager
async def process(
    module: str, *arguments: str, log: Path, environment: Mapping[str, str], told: Any = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python module as a process that ends with this one; `told` goes to its standard input as one line of JSON."""
    with log.open("ab") as output:
        started = await asyncio.create_subprocess_exec(
            *launched("same", signal.SIGTERM, (sys.executable, "-m", module, *arguments)),
            stdin=subprocess.DEVNULL if told is None else subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=dict(environment),
        )
    try:
        if started.stdin is not None:
            started.stdin.write(orjson.dumps(told) + b"\n")
            started.stdin.close()
        yield started
    finally:
        for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 10.0)):
            with suppress(ProcessLookupError):
                started.send_signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(started.wait(), seconds)
                break


async def until_ready(url: str, started: asyncio.subprocess.Process, log: Path) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        async for _ in _attempts(started, log):
            with suppress(httpx.HTTPError):
                if (await http.get(url)).status_code == 200:
                    return


async def _until_listening(port: int, started: asyncio.subprocess.Process, log: Path) -> None:
    async for _ in _attempts(started, log):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return


async def _attempts(started: asyncio.subprocess.Process, log: Path) -> AsyncIterator[None]:
    deadline = time.monotonic() + _START_SECONDS
    while started.returncode is None and time.monotonic() < deadline:
        yield
        await asyncio.sleep(0.1)
    raise DoesNotStart(_end_of(log))


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])


def free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
