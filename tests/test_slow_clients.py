"""Clients that stop reading: their subscriptions end with the cursor to go on from, and nothing else does."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
import pytest
import websockets

from db.ids import new_id
from db.vocabulary import EventType
from events.log import publish, user_actor
from monitoring.metrics import METRICS
from tests.serving import served

SEVERAL = 60
"""Events of 64 KiB each: more than the buffers of a connection take."""
BUFFER = 65536
WATCH = """
subscription ($after: String) {
  events(filter: { types: [RUN_STARTED] }, after: $after) { ... on Event { cursor subjectId changes } }
}
"""


@pytest.fixture
async def impatient(settings, services):
    """A server that waits a moment only."""
    quick = settings.model_copy(update={"slow_client_timeout": timedelta(seconds=0.5)})
    async with served(quick, send_buffer=BUFFER) as url:
        yield url


@pytest.fixture
def many(db, admin):
    async def publish_them() -> list[str]:
        """The subjects of large events, in their order."""
        subjects = [new_id() for _ in range(SEVERAL)]
        for subject in subjects:
            async with db.transaction() as session:
                await publish(
                    session,
                    EventType.RUN_STARTED,
                    subject,
                    project_id=None,
                    actor=user_actor(admin.user_id),
                    changes={"weight": "x" * 65536},
                )
        return [f"run_{subject.hex}" for subject in subjects]

    return publish_them


def slow_connection(url):
    """A connection that takes little before it is full."""
    address = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    connection.connect((address.hostname, address.port))
    return connection


def ended(transport):
    return METRICS.registry.get_sample_value("headai_slow_consumers_ended_total", {"transport": transport}) or 0


async def until_one_more(transport, before):
    async with asyncio.timeout(60):
        while ended(transport) == before:  # noqa: ASYNC110  (a counter has no event)
            await asyncio.sleep(0.05)


class Client:
    """One client of the WebSocket, which reads only when it is told to."""

    def __init__(self, connected):
        self._connected = connected

    async def receive(self):
        async with asyncio.timeout(30):
            return json.loads(await self._connected.recv())

    async def subscribe(self, id_, query, **variables):
        payload = {"query": query, "variables": variables}
        await self._connected.send(json.dumps({"id": id_, "type": "subscribe", "payload": payload}))


@asynccontextmanager
async def connected(url, token):
    async with websockets.connect(
        url.replace("http://", "ws://") + "/graphql",
        subprotocols=["graphql-transport-ws"],
        sock=slow_connection(url),
        max_queue=1,
        compression=None,
    ) as opened:
        await opened.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}))
        client = Client(opened)
        assert await client.receive() == {"type": "connection_ack"}
        yield client
        opened.transport.abort()  # what is still to be read would hold up a polite end


async def test_a_socket_that_is_not_read_loses_the_stream_with_news_and_no_other(
    impatient, server, admin, token_of, many, db
):
    before = ended("websocket")
    async with connected(impatient, token_of(admin)) as client:
        await client.subscribe("quiet", "subscription { events(filter: { types: [RUN_FAILED] }) { __typename } }")
        assert (await client.receive())["id"] == "quiet"
        await client.subscribe("busy", WATCH)
        assert (await client.receive())["id"] == "busy"

        subjects = await many()
        await until_one_more("websocket", before)

        seen, message = [], await client.receive()
        while message["type"] == "next":
            seen.append(message["payload"]["data"]["events"])
            message = await client.receive()
        assert (message["id"], message["type"]) == ("busy", "error")
        assert message["payload"] == [
            {
                "message": "The client reads too slowly, so this stream ends. "
                "Subscribe again with `after` as in `cursor`.",
                "extensions": {"code": "SLOW_CONSUMER", "cursor": seen[-1]["cursor"]},
            }
        ]
        assert len(seen) < SEVERAL

        async with db.transaction() as session:
            await publish(session, EventType.RUN_FAILED, new_id(), project_id=None, actor=user_actor(admin.user_id))
        message = await client.receive()
        assert (message["id"], message["payload"]["data"]) == ("quiet", {"events": {"__typename": "Event"}})

    async with connected(server, token_of(admin)) as client:
        await client.subscribe("again", WATCH, after=seen[-1]["cursor"])
        while len(seen) < SEVERAL:
            seen.append((await client.receive())["payload"]["data"]["events"])
    assert [event["subjectId"] for event in seen] == subjects


async def test_an_event_stream_that_is_not_read_ends_with_its_cursor(impatient, server, admin, token_of, many):
    before = ended("sse")
    narrow = httpx.AsyncHTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)])
    async with httpx.AsyncClient(transport=narrow, timeout=30) as client:

        def watching(url, **headers):
            return client.stream(
                "POST",
                f"{url}/graphql/stream",
                json={"query": WATCH},
                headers={"authorization": f"Bearer {token_of(admin)}", **headers},
            )

        async with watching(impatient) as stream:
            events = items(stream)
            await anext(events)
            subjects = await many()
            await until_one_more("sse", before)
            seen = [event async for event in events]
        (refusal,) = seen.pop()[1]["errors"]
        cursor = seen[-1][0]
        assert refusal["extensions"] == {"code": "SLOW_CONSUMER", "cursor": cursor}
        assert len(seen) < SEVERAL

        async with watching(server, **{"last-event-id": cursor}) as stream:
            async for event in items(stream):
                seen.append(event)
                if len(seen) == SEVERAL:
                    break
    assert [answer["data"]["events"]["subjectId"] for _, answer in seen] == subjects


async def items(stream):
    """The events of a stream: their id and what they say, until it is complete."""
    id_ = None
    async for line in stream.aiter_lines():
        name, _, value = line.partition(": ")
        if line == "event: complete":
            return
        if name == "id":
            id_ = value
        if name == "data":
            yield id_, json.loads(value)
