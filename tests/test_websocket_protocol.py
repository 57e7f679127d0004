"""Every MUST of graphql-transport-ws, as a table of conversations.

Source: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

import asyncio
import json

import pytest
import websockets
from websockets.frames import Frame, Opcode

from headai import websocket

PROTOCOL = "graphql-transport-ws"
ACK, PONG = {"type": "connection_ack"}, {"type": "pong"}
PING, INIT = {"type": "ping"}, {"type": "connection_init"}
WATCH = "subscription { events { __typename } }"
CREATE = 'mutation { createProject(input: { slug: "lab-two", name: "P" }) { project { slug } } }'
CAUGHT_UP = {"events": {"__typename": "StreamCaughtUp"}}


def subscribe(id_, query="{ __typename }", **more):
    return {"id": id_, "type": "subscribe", "payload": {"query": query, **more}}


def following(id_, data):
    return {"id": id_, "type": "next", "payload": {"data": data}}


def complete(id_):
    return {"id": id_, "type": "complete"}


def error(id_, message):
    return {"id": id_, "type": "error", "payload": [message]}


class Says:
    """What a client sends: a message, or text or bytes as they are."""

    def __init__(self, *messages):
        self.messages = [m if isinstance(m, (str, bytes)) else json.dumps(m) for m in messages]


SIGN_IN = object()
"""`connection_init` of somebody who may do everything, and its `connection_ack`."""

CONVERSATIONS = {
    "connection_init is acknowledged": [Says(INIT), ACK],
    "connection_init may have a payload": [Says({**INIT, "payload": {"any": "thing"}}), ACK],
    "connection_init may have the payload null": [Says({**INIT, "payload": None}), ACK],
    "a second connection_init is one too many": [Says(INIT), ACK, Says(INIT), 4429],
    "so is one before the first is acknowledged": [Says(INIT, INIT), ACK, 4429],
    "credentials that do not count are forbidden": [Says({**INIT, "payload": {"authorization": "Bearer x"}}), 4403],
    "nothing runs before connection_init": [Says(subscribe("1")), 4401],
    "ping is answered before connection_init": [Says(PING), PONG, Says(INIT), ACK],
    "ping is answered after it": [Says(INIT), ACK, Says(PING, {**PING, "payload": {"a": 1}}), PONG, PONG],
    "pong is taken unasked and not answered": [Says({"type": "pong"}, INIT), ACK, Says({"type": "pong"}, PING), PONG],
    "a query has one next and complete": [
        Says(INIT), ACK, Says(subscribe("1")), following("1", {"__typename": "Query"}), complete("1"),
    ],
    "a mutation has one next and complete": [
        SIGN_IN, Says(subscribe("1", CREATE)), following("1", {"createProject": {"project": {"slug": "lab-two"}}}),
        complete("1"),
    ],
    "operationName and variables may be null": [
        Says(INIT), ACK, Says(subscribe("1", operationName=None, variables=None, extensions=None)),
        following("1", {"__typename": "Query"}), complete("1"),
    ],
    "a subscription goes on until the client completes it, and then says nothing": [
        SIGN_IN, Says(subscribe("1", WATCH)), following("1", CAUGHT_UP), Says(complete("1"), PING), PONG,
    ],
    "an id is free again once its operation is complete": [
        SIGN_IN, Says(subscribe("1", WATCH)), following("1", CAUGHT_UP), Says(complete("1"), subscribe("1", WATCH)),
        following("1", CAUGHT_UP),
    ],
    "an id that is in use closes": [
        SIGN_IN, Says(subscribe("1", WATCH)), following("1", CAUGHT_UP), Says(subscribe("1", WATCH)), 4409,
    ],
    "an error ends its operation, with no complete, and the others go on": [
        SIGN_IN, Says(subscribe("1", WATCH)), following("1", CAUGHT_UP), Says(subscribe("2", "{ nothing }")),
        error("2", "Cannot query field 'nothing' on type 'Query'."), Says(subscribe("2")),
        following("2", {"__typename": "Query"}), complete("2"), Says(PING), PONG,
    ],
    "an empty document is an error": [
        Says(INIT), ACK, Says(subscribe("1", " ")), error("1", "`query` has to be the text of a GraphQL document."),
    ],
    "an operation that is not there is an error": [
        Says(INIT), ACK, Says(subscribe("1", "query A { __typename }", operationName="B")),
        error("1", "The document has no operation named `B`."),
    ],
    "complete of nothing is not noticed": [Says(INIT), ACK, Says(complete("9"), PING), PONG],
}  # fmt: skip

NO_MESSAGES = [
    "", "5", "null", "true", '"x"', "[]", "{}", "{", "\x00", '{"type": NaN}', "[" * 10_000,
    '{"type": null}', '{"type": "start"}', '{"type": "Ping"}', '{"type": "connection_ack"}',
    '{"type": "connection_error"}',
    b'{"type": "ping"}',
    {"id": "1", "type": "next", "payload": {}},
    {"id": "1", "type": "error", "payload": []},
    {"type": "ping", "payload": 5}, {"type": "ping", "payload": []}, {"type": "pong", "payload": "x"},
    {"type": "ping", "payload": {"authorization": 5}},
    {"type": "complete"}, {"id": 1, "type": "complete"}, {"id": "", "type": "complete"},
    {"type": "subscribe", "payload": {"query": "{ __typename }"}},
    {"id": None, "type": "subscribe", "payload": {"query": "{ __typename }"}},
    {"id": "x" * 129, "type": "subscribe", "payload": {"query": "{ __typename }"}},
    {"id": "1", "type": "subscribe"},
    {"id": "1", "type": "subscribe", "payload": "{ __typename }"},
    {"id": "1", "type": "subscribe", "payload": [{"query": "{ __typename }"}]},
    {"id": "1", "type": "subscribe", "payload": {}},
    subscribe("1", None), subscribe("1", 5), subscribe("1", ["{ __typename }"]),
    subscribe("1", variables=[]), subscribe("1", variables="{}"), subscribe("1", operationName=5),
    subscribe("1", extensions=[]),
]  # fmt: skip


@pytest.fixture
def connect(server):
    address = server.replace("http://", "ws://") + "/graphql"
    return lambda protocols=(PROTOCOL,): websockets.connect(address, subprotocols=list(protocols) or None)


@pytest.fixture
def converse(connect, admin, token_of):
    async def hold(conversation):
        async with connect() as socket, asyncio.timeout(60):
            for turn in conversation:
                if turn is SIGN_IN:
                    await socket.send(json.dumps({**INIT, "payload": {"authorization": f"Bearer {token_of(admin)}"}}))
                    assert bare(await socket.recv()) == ACK
                elif isinstance(turn, Says):
                    for message in turn.messages:
                        await socket.send(message)
                elif isinstance(turn, int):
                    await socket.wait_closed()
                    assert socket.close_code == turn
                else:
                    assert bare(await socket.recv()) == turn

    return hold


def bare(text):
    """A message without what the protocol leaves open: what it cost, and all of an error but its message."""
    message = json.loads(text)
    if message["type"] == "next":
        message["payload"].pop("extensions", None)
    if message["type"] == "error":
        message["payload"] = [error["message"] for error in message["payload"]]
    return message


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_a_conversation(converse, name):
    await converse(CONVERSATIONS[name])


async def test_what_is_no_message_closes_with_4400_at_once(converse):
    for message in NO_MESSAGES:
        await converse([Says(INIT), ACK, Says(message), 4400])


async def test_text_that_is_not_utf_8_closes_with_1007(connect, db):
    async with connect() as socket:
        await socket.send(json.dumps(INIT))
        assert json.loads(await socket.recv()) == ACK
        broken = Frame(Opcode.TEXT, b'{"type": "ping", "payload": {"a": "\xff"}}')
        socket.transport.write(broken.serialize(mask=True))
        async with asyncio.timeout(60):
            await socket.wait_closed()
        assert socket.close_code == 1007


async def test_a_socket_without_connection_init_closes_with_4408(connect, db, monkeypatch):
    monkeypatch.setattr(websocket, "INIT_SECONDS", 0.05)
    async with connect() as socket, asyncio.timeout(60):
        await socket.wait_closed()
        assert socket.close_code == 4408


@pytest.mark.parametrize("protocols", [(), ("graphql-ws",), ("graphql-transport-ws2",)])
async def test_another_protocol_closes_with_4406(connect, db, protocols):
    async with connect(protocols) as socket, asyncio.timeout(60):
        await socket.wait_closed()
        assert socket.close_code == 4406


async def test_the_protocol_is_chosen_among_those_a_client_speaks(connect, db):
    async with connect(("graphql-ws", PROTOCOL)) as socket:
        assert socket.subprotocol == PROTOCOL
