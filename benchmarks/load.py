"""Closed-loop load: a number of clients, each with one connection, each sending its next request after an answer.

The client is as thin as it can be, since it runs on the machine of the server it measures: one prepared request,
one comparison of the answer with the one that was checked.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import httptools


class WrongAnswer(Exception):
    """A server answered something else than what was checked before the measurement."""


@dataclass(frozen=True, slots=True)
class Target:
    """One request to one server."""

    port: int
    request: bytes


def post_graphql(port: int, body: bytes, token: str | None = None) -> Target:
    authorization = f"authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"accept: application/json\r\n{authorization}content-length: {len(body)}\r\n\r\n"
    )
    return Target(port, head.encode() + body)


def get(port: int, path: str) -> Target:
    return Target(port, f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: application/json\r\n\r\n".encode())


class Connection(asyncio.Protocol):
    """One keep-alive connection that carries one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []

    @classmethod
    async def open(cls, port: int) -> "Connection":
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """The body of the answer; raises `WrongAnswer` for any status but 200."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._settle(WrongAnswer(f"The connection was closed: {error}"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._parts = []

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._parts)
        status = self._parser.get_status_code()
        self._settle(body if status == 200 else WrongAnswer(f"{status}: {body[:500].decode(errors='replace')}"))

    def _settle(self, outcome: bytes | WrongAnswer) -> None:
        if self._answer is None or self._answer.done():
            return
        if isinstance(outcome, WrongAnswer):
            self._answer.set_exception(outcome)
        else:
            self._answer.set_result(outcome)


async def answer(target: Target) -> bytes:
    """The answer to one request on a connection of its own."""
    connection = await Connection.open(target.port)
    try:
        return await connection.ask(target.request)
    finally:
        connection.close()


async def drive(target: Target, *, expected: bytes, clients: int, requests: int) -> tuple[float, list[float]]:
    """Send `requests` requests through `clients` connections: the seconds it took, and those of each request.

    Raises `WrongAnswer` when an answer is not `expected`; what its `extensions` say is told anew each time.
    """
    data = expected.rpartition(b',"extensions":')[0] or expected
    connections = [await Connection.open(target.port) for _ in range(clients)]
    left, seconds = requests, []

    async def client(connection: Connection) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            body = await connection.ask(target.request)
            seconds.append(time.perf_counter() - began)
            if not body.startswith(data):
                raise WrongAnswer(body[:500].decode(errors="replace"))

    try:
        began = time.perf_counter()
        await asyncio.gather(*(client(connection) for connection in connections))
        return time.perf_counter() - began, seconds
    finally:
        for connection in connections:
            connection.close()


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest of the values that at least the share `q` of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * q) - 1)]
