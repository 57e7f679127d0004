"""An API of our schema whose answers a test decides: sessions that end in seconds, a stream that a test feeds.

It exists for what the real server cannot be made to do within a test; the main job is tested against the real one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from graphql import ExecutionResult, GraphQLSchema, build_schema, execute, parse, subscribe
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from headai.explorer import explorer_assets, explorer_page

SCHEMA = Path(__file__).parents[2] / "schema.graphql"
ADMIN = {"id": f"user_{'1' * 32}", "username": "admin", "displayName": "Ada Admin"}
PUBLIC = {"login", "refreshTokens", "health", "serviceInfo"}
PASSWORD = "correct horse battery"

Answer = Callable[..., Any]


class ScriptedApi:
    def __init__(self) -> None:
        self.url = ""
        self.lifetime = timedelta(minutes=15)
        self.refreshes = 0
        """How often tokens were renewed; `refusing` ends that."""
        self.refusing = False
        self.received: list[tuple[str, Any]] = []
        """The root field and the variables of every operation that was let in."""
        self.sockets = 0
        self.renewed_on_the_socket = asyncio.Event()
        self.items: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        """What the subscription metricPoints yields next."""
        self.answers: dict[str, Answer] = {
            "login": self._login,
            "refreshTokens": self._refresh,
            "logout": lambda input: self._end_sessions(),
        }
        self._access: dict[str, datetime] = {}
        self._refresh_tokens: set[str] = set()
        self._numbers = count(1)
        self._streams: set[asyncio.Task[None]] = set()
        self._open: set[WebSocket] = set()
        self.schema: GraphQLSchema = build_schema(SCHEMA.read_text(encoding="utf-8"))
        errors = self.schema.get_type("UserError")
        assert errors is not None
        errors.resolve_type = lambda value, *_: value["__typename"]  # type: ignore[attr-defined]
        stream = self.schema.subscription_type
        assert stream is not None
        stream.fields["metricPoints"].subscribe = self._metric_points
        self.app = Starlette(
            routes=[
                Route("/graphql", self._http, methods=["GET", "POST"]),
                WebSocketRoute("/graphql", self._websocket),
                explorer_assets,
            ]
        )

    def stop(self) -> None:
        for task in self._streams:
            task.cancel()

    async def close_sockets(self, code: int) -> None:
        for socket in tuple(self._open):
            await socket.close(code)

    def _login(self, input: dict[str, str]) -> dict[str, Any]:
        if input["password"] != PASSWORD:
            return {"errors": [_error("AuthenticationError", "INVALID_CREDENTIALS", "Wrong user name or password.")]}
        return {"tokens": self._tokens(), "viewer": {"user": ADMIN}, "errors": []}

    def _refresh(self, input: dict[str, str]) -> dict[str, Any]:
        if self.refusing or input["refreshToken"] not in self._refresh_tokens:
            return {"errors": [_error("AuthenticationError", "TOKEN_EXPIRED", "The session was revoked.")]}
        self._refresh_tokens.remove(input["refreshToken"])
        self.refreshes += 1
        return {"tokens": self._tokens(), "errors": []}

    def _tokens(self) -> dict[str, Any]:
        number = next(self._numbers)
        ends = datetime.now(UTC) + self.lifetime
        self._access[f"access{number}"] = ends
        self._refresh_tokens.add(f"refresh{number}")
        return {
            "accessToken": f"access{number}",
            "accessTokenExpiresAt": ends.isoformat(),
            "refreshToken": f"refresh{number}",
            "tokenType": "Bearer",
        }

    def _end_sessions(self) -> dict[str, Any]:
        self._access.clear()
        self._refresh_tokens.clear()
        return {"revokedSessions": 1, "errors": []}

    def _lets_in(self, authorization: str | None) -> bool:
        ends = self._access.get((authorization or "").removeprefix("Bearer "))
        return ends is not None and ends > datetime.now(UTC)

    async def _http(self, request: Request) -> Response:
        if request.method == "GET":
            return await explorer_page(request)
        body = await request.json()
        document = parse(body["query"])
        field = _root_field(document)
        if field not in PUBLIC and not self._lets_in(request.headers.get("authorization")):
            return JSONResponse({"data": None, "errors": [UNAUTHENTICATED]})
        self.received.append((field, body.get("variables")))
        result = execute(
            self.schema,
            document,
            root_value={name: _resolver(answer) for name, answer in self.answers.items()},
            variable_values=body.get("variables"),
            operation_name=body.get("operationName"),
        )
        assert isinstance(result, ExecutionResult)
        return JSONResponse(result.formatted)

    async def _metric_points(self, root: Any, info: Any, **arguments: Any) -> AsyncIterator[dict[str, Any]]:
        self.received.append(("metricPoints", arguments))
        while True:
            yield {"metricPoints": await self.items.get()}

    async def _websocket(self, socket: WebSocket) -> None:
        """The part of graphql-transport-ws that a browser needs."""
        await socket.accept(subprotocol="graphql-transport-ws")
        self.sockets += 1
        self._open.add(socket)
        allowed = False
        running: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                message = await socket.receive_json()
                match message["type"]:
                    case "connection_init":
                        allowed = self._lets_in((message.get("payload") or {}).get("authorization"))
                        await socket.send_json({"type": "connection_ack"})
                    case "subscribe" if allowed:
                        task = asyncio.create_task(self._stream(socket, message["id"], message["payload"]))
                        running[message["id"]] = task
                        self._streams.add(task)
                    case "subscribe":
                        await socket.send_json({"type": "error", "id": message["id"], "payload": [UNAUTHENTICATED]})
                    case "ping":
                        allowed = self._lets_in((message.get("payload") or {}).get("authorization"))
                        if allowed:
                            self.renewed_on_the_socket.set()
                        await socket.send_json({"type": "pong"})
                    case "complete":
                        running.pop(message["id"]).cancel()
        except WebSocketDisconnect:
            pass
        finally:
            self._open.discard(socket)
            for task in running.values():
                task.cancel()

    async def _stream(self, socket: WebSocket, id: str, payload: dict[str, Any]) -> None:
        started = subscribe(self.schema, parse(payload["query"]), variable_values=payload.get("variables"))
        events = await started if asyncio.iscoroutine(started) else started
        assert not isinstance(events, ExecutionResult), events
        async for result in events:  # type: ignore[union-attr]
            await socket.send_json({"type": "next", "id": id, "payload": result.formatted})


UNAUTHENTICATED = {"message": "Sign in first.", "extensions": {"code": "UNAUTHENTICATED"}}


def _error(kind: str, code: str, message: str) -> dict[str, Any]:
    return {"__typename": kind, "code": code, "message": message, "path": ["input"]}


def _resolver(answer: Answer) -> Answer:
    return lambda info, **arguments: answer(**arguments)


def _root_field(document: Any) -> str:
    return str(document.definitions[0].selection_set.selections[0].name.value)
