"""Request ids and the line each request leaves."""

import httpx
import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from structlog.testing import capture_logs

from monitoring.requests import RequestLog, current_request_id


async def tell_id(request: Request) -> PlainTextResponse:
    return PlainTextResponse(current_request_id() or "none", status_code=201)


async def fail(request: Request) -> PlainTextResponse:
    raise RuntimeError("broken")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(current_request_id() or "none")
    await socket.close(4403)


APP = RequestLog(
    Starlette(
        routes=[
            Route("/graphql", tell_id, methods=["GET", "POST"]),
            Route("/fail", fail),
            Route("/healthz", tell_id),
            WebSocketRoute("/graphql", talk),
        ]
    )
)


@pytest.fixture
async def client():
    transport = httpx.ASGITransport(APP, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://headai") as client:
        yield client


async def test_a_sane_inbound_id_is_taken_over(client):
    answer = await client.post("/graphql", headers={"X-Request-Id": "trace-1.a_B"})
    assert (answer.text, answer.headers["x-request-id"]) == ("trace-1.a_B", "trace-1.a_B")
    assert current_request_id() is None


@pytest.mark.parametrize("bad", ["", "a b", "-x", "x" * 65, "a\tb", "{}"])
async def test_any_other_id_is_replaced(client, bad):
    answer = await client.get("/graphql", headers={"X-Request-Id": bad})
    assert answer.headers["x-request-id"] == answer.text
    assert answer.text != bad
    assert len(answer.text) == 32


async def test_each_request_leaves_one_line_without_its_query(client):
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as written:
        await client.get("/graphql?token=secret", headers={"X-Request-Id": "r1"})
        await client.get("/healthz", headers={"X-Request-Id": "r2"})
        await client.get("/fail", headers={"X-Request-Id": "r3"})
    for line in written:
        assert line.pop("ms") >= 0
    same = {"event": "request", "method": "GET"}
    assert written == [
        {**same, "path": "/graphql", "status": 201, "request_id": "r1", "log_level": "info"},
        {**same, "path": "/healthz", "status": 201, "request_id": "r2", "log_level": "debug"},
        {**same, "path": "/fail", "status": 500, "request_id": "r3", "log_level": "error"},
    ]


async def test_a_websocket_gets_its_id_at_accept_and_its_line_when_it_ends():
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/graphql",
        "query_string": b"",
        "headers": [(b"x-request-id", b"r4")],
        "subprotocols": [],
    }
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as written:
        await APP(scope, receive, send)
    assert (b"x-request-id", b"r4") in sent[0]["headers"]
    assert [message.get("text") for message in sent] == [None, "r4", None]
    (line,) = written
    assert (line["method"], line["status"], line["request_id"]) == ("WEBSOCKET", 4403, "r4")
