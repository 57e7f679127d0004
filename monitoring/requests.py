"""Ties every log line to the request it is about, and writes one line for each request that ends.

A caller may send `X-Request-Id`; the same id, or a new one, is in the answer and in every line logged between.
"""

import re
import time
from collections.abc import Awaitable, Callable, Container, MutableMapping
from typing import Any
from uuid import uuid4

import structlog

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = b"x-request-id"
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_SANE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

log = structlog.get_logger("headai.requests")


def current_request_id() -> str | None:
    """The id of the request that is being answered; None outside one."""
    return structlog.contextvars.get_contextvars().get("request_id")


class RequestLog:
    """ASGI middleware; put it outermost. Lines about `quiet` paths (the probes) are of level debug.

    The line of a WebSocket comes when it ends, with its close code as status. The query string is never logged.
    """

    def __init__(self, app: App, *, quiet: Container[str] = PROBES) -> None:
        self.app = app
        self.quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        request_id = _inbound_id(scope) or uuid4().hex
        status: int | None = None

        async def noting(message: Message) -> None:
            nonlocal status
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    status = message["status"]
                    _echo(message, request_id)
                case "websocket.accept":
                    _echo(message, request_id)
                case "websocket.close":
                    status = message.get("code", 1000)
            await send(message)

        async def hearing() -> Message:
            nonlocal status
            message = await receive()
            if message["type"] == "websocket.disconnect" and status is None:
                status = message.get("code", 1005)
            return message

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, hearing, noting)
            except Exception:
                status = 500 if scope["type"] == "http" else 1011
                raise
            finally:
                self._write_line(scope, status, (time.perf_counter() - started) * 1000)

    def _write_line(self, scope: Scope, status: int | None, ms: float) -> None:
        failed = status is not None and (500 <= status < 600 or status == 1011)
        write = log.error if failed else log.debug if scope["path"] in self.quiet else log.info
        method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
        write("request", method=method, path=scope["path"], status=status, ms=round(ms, 1))


def _inbound_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == HEADER and _SANE.fullmatch(value):
            return str(value, "ascii")
    return None


def _echo(message: Message, request_id: str) -> None:
    message["headers"] = [*message.get("headers", ()), (HEADER, request_id.encode())]
