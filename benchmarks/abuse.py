"""What those who mean ill can do to the others: hard documents, sockets that say nothing, slow headers.

Slow headers are a gateway's to stop. The one measured is nginx with the configuration of docs/operations.md, word for
word but for its two addresses; without `nginx` on PATH that figure is left out.
"""

import asyncio
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import orjson
import websockets
from rich.console import Console

from benchmarks import compiling
from benchmarks.load import Connection, Target, answer, drive, post_graphql, quantile
from benchmarks.machine import wait_until_idle
from benchmarks.report import Figure
from benchmarks.stack import DoesNotStart, Running, free_port

SILENT, SLOW = 300, 400
WORST_SECONDS, MOST_TIMES = 0.4, 2.0
_REQUESTS, _PAIRS = 400, 3
_OTHERS = b'{"query": "query Others { viewer { user { username } } }"}'
_OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"


def battery() -> dict[str, str]:
    """Documents within the limits of length and tokens, each hard in its own way."""
    names = [f"F{n}" for n in range(19)]
    return {
        "250,000 characters of comment": "{ __typename } #" + "x" * 250_000,
        "40,000 escapes in a string": '{ node(id: "' + "\\u0041" * 40_000 + '") { id } }',
        "60,000 lines in a block string": '{ node(id: """' + "\n  x" * 60_000 + '""") { id } }',
        "a number of 200,000 digits": "{ projects(first: " + "9" * 200_000 + ") { totalCount } }",
        "990 fields that do not exist": "{ " + " ".join(f"f{n}" for n in range(990)) + " }",
        "325 arguments of one name": "{ node(" + "id: 1 " * 325 + ") { id } }",
        "245 variables that are not used": "query (" + " ".join(f"$v{n}: Int" for n in range(245)) + ") { __typename }",
        "480 lists in each other": "{ node(id: " + "[" * 480 + "]" * 480 + ") { id } }",
        "320 inline fragments in each other": "{" + "... { " * 320 + "__typename" + "}" * 321,
        "19 fragments that spread all later ones": "{ projects { nodes { id "
        + " ".join(f"...{name}" for name in names)
        + " } } } "
        + " ".join(
            f"fragment {name} on Project {{ id " + " ".join(f"...{other}" for other in names[n + 1 :]) + " }"
            for n, name in enumerate(names)
        ),
        "20 fragments that double": "{ ...F0 } "
        + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(20))
        + " fragment F20 on Query { a: __typename }",
        "a cycle of 100 fragments": "{ ...F0 } "
        + " ".join(f"fragment F{n} on Query {{ ...F{(n + 1) % 100} }}" for n in range(100)),
        "the whole schema, two types deep": "{ __schema { types { name fields { name args { name type { name } } "
        "type { ofType { ofType { fields { name description type { ofType { name } } } } } } } } } }",
    }


async def measure(head_ai: Running, *, quick: bool, patience: float, console: Console) -> AsyncGenerator[Figure, None]:
    token = await head_ai.token()
    port = head_ai.settings.port
    yield await _worst_document(port, token, patience, console)
    yield await compiling.measure(head_ai)
    others = post_graphql(port, _OTHERS, token)
    requests = _REQUESTS // 4 if quick else _REQUESTS
    console.print(f"{SILENT} sockets that say nothing …", highlight=False)
    yield await _times(
        f"p99 of others beside {SILENT} silent sockets", others, lambda: silent(port), requests, patience
    )
    if shutil.which("nginx") is None:
        console.print("There is no nginx on PATH: slow headers are left out.", highlight=False)
        return
    console.print(f"{SLOW} connections that send their headers byte by byte …", highlight=False)
    async with gateway(port) as through:
        yield await _times(
            f"p99 of others beside {SLOW} slow headers, through nginx",
            post_graphql(through, _OTHERS, token),
            lambda: slow_headers(through),
            requests,
            patience,
        )


async def _worst_document(port: int, token: str, patience: float, console: Console) -> Figure:
    """Each document three times, each time with another text, so that none is remembered; the median of each."""
    console.print("Documents that are hard to read …", highlight=False)
    seconds: dict[str, float] = {}
    await wait_until_idle(patience)
    for name, document in battery().items():
        times = []
        for spaces in range(3):
            target = post_graphql(port, orjson.dumps({"query": document + " " * spaces}), token)
            began = time.perf_counter()
            await answer(target)
            times.append(time.perf_counter() - began)
        seconds[name] = statistics.median(times)
    worst = max(seconds, key=seconds.__getitem__)
    return Figure(
        name="worst document of the abuse battery",
        value=seconds[worst],
        unit="s",
        target=WORST_SECONDS,
        detail=f"{len(seconds)} documents; the worst: {worst}",
    )


async def _times(
    name: str,
    others: Target,
    abuse: Callable[[], AbstractAsyncContextManager[None]],
    requests: int,
    patience: float,
) -> Figure:
    """How many times as long the slowest hundredth of others' requests takes during the abuse, in turns with calm."""
    expected = await answer(others)
    calm: list[float] = []
    abused: list[float] = []
    busy = 0.0
    for _ in range(_PAIRS):
        busy = max(busy, await wait_until_idle(patience))
        calm += (await drive(others, expected=expected, clients=1, requests=requests))[1]
        async with abuse():
            abused += (await drive(others, expected=expected, clients=1, requests=requests))[1]
    before, during = quantile(calm, 0.99), quantile(abused, 0.99)
    return Figure(
        name=name,
        value=during / before,
        unit="×",
        target=MOST_TIMES,
        detail=f"{before * 1e3:.1f} ms without, {during * 1e3:.1f} ms with; {len(calm)} requests each; "
        f"busy before: {busy:.0%}",
    )


@asynccontextmanager
async def silent(port: int) -> AsyncIterator[None]:
    """WebSockets that were acknowledged and then say nothing."""
    async with AsyncExitStack() as stack:
        for _ in range(SILENT):
            address = f"ws://127.0.0.1:{port}/graphql"
            socket = await stack.enter_async_context(
                websockets.connect(address, subprotocols=[websockets.Subprotocol("graphql-transport-ws")])
            )
            await socket.send('{"type": "connection_init"}')
            await socket.recv()
        yield


@asynccontextmanager
async def slow_headers(port: int) -> AsyncIterator[None]:
    """Connections that send a header byte by byte, one a second, and come back when they are closed."""

    async def one(number: int) -> None:
        await asyncio.sleep(number / SLOW)
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"POST /graphql HTTP/1.1\r\nhost: a\r\nx-slow: ")
                while not reader.at_eof():
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(1)
                writer.close()

    tasks = [asyncio.create_task(one(number)) for number in range(SLOW)]
    await asyncio.sleep(1.5)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def documented_gateway(*, listen: int, api: int, scratch: Path) -> str:
    """The configuration in docs/operations.md, for these ports and with its files in `scratch`."""
    block = re.search(r"```nginx\n(.*?)```", _OPERATIONS.read_text(), re.DOTALL)
    assert block is not None
    here = [f"{kind}_temp_path {scratch}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    return (
        block[1]
        .replace("listen 8080;", f"listen 127.0.0.1:{listen};")
        .replace("server 127.0.0.1:8000;", f"server 127.0.0.1:{api};")
        .replace("http {", "\n".join(["http {", "access_log off;", *here]), 1)
    )


@asynccontextmanager
async def gateway(api: int) -> AsyncIterator[int]:
    """nginx in front of the API; the port it listens on. Raises `DoesNotStart`."""
    with tempfile.TemporaryDirectory(prefix="headai-bench-nginx-") as folder:
        scratch, port = Path(folder), free_port()
        (scratch / "nginx.conf").write_text(documented_gateway(listen=port, api=api, scratch=scratch))
        user = "user root root;" if os.geteuid() == 0 else ""
        log = (scratch / "nginx.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            *("nginx", "-p", folder, "-c", str(scratch / "nginx.conf"), "-e", "stderr"),
            *("-g", f"daemon off; pid {scratch}/nginx.pid; {user}"),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            for _ in range(200):
                with suppress(OSError):
                    (await Connection.open(port)).close()
                    break
                if process.returncode is not None:
                    raise DoesNotStart((scratch / "nginx.log").read_text())
                await asyncio.sleep(0.05)
            yield port
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await process.wait()
            log.close()
