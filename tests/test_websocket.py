"""The protocol graphql-transport-ws at /graphql, message by message."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from auth.tokens import TokenIssuer
from events.wakeups import Wakeups
from headai.signing_key import signing_key_pem
from tests.serving import served

VIEWER = "{ viewer { user { username } } }"


@pytest.fixture
def connect(server):
    @asynccontextmanager
    async def opened(*, protocol: str = "graphql-transport-ws") -> AsyncIterator[ClientConnection]:
        address = server.replace("http://", "ws://") + "/graphql"
        async with websockets.connect(address, subprotocols=[protocol]) as socket:
            yield socket

    return opened


async def send(socket, **message):
    await socket.send(json.dumps(message))


async def receive(socket):
    async with asyncio.timeout(10):
        return json.loads(await socket.recv())


async def close_code(socket):
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await receive(socket)
    return closed.value.rcvd.code


async def initialised(socket, token=None):
    payload = {"authorization": f"Bearer {token}"} if token else None
    await send(socket, type="connection_init", payload=payload)
    assert await receive(socket) == {"type": "connection_ack"}


async def test_runs_a_query_for_the_caller_of_the_init_payload(connect, admin, token_of):
    async with connect() as socket:
        await initialised(socket, token_of(admin))
        await send(socket, id="1", type="subscribe", payload={"query": VIEWER})

        answer = await receive(socket)
        assert (answer["id"], answer["type"]) == ("1", "next")
        assert answer["payload"]["data"] == {"viewer": {"user": {"username": "ada"}}}
        assert answer["payload"]["extensions"]["cost"]["requested"] == 2
        assert await receive(socket) == {"id": "1", "type": "complete"}


async def test_without_credentials_the_socket_opens_and_the_operation_is_unauthenticated(connect, db):
    async with connect() as socket:
        await initialised(socket)
        await send(socket, id="1", type="subscribe", payload={"query": VIEWER})

        answer = await receive(socket)
        assert answer["payload"]["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_a_syntax_error_ends_the_operation_and_not_the_socket(connect, admin, token_of):
    async with connect() as socket:
        await initialised(socket, token_of(admin))
        await send(socket, id="1", type="subscribe", payload={"query": "{ viewer "})
        refused = await receive(socket)
        await send(socket, id="1", type="subscribe", payload={"query": VIEWER})
        answered = await receive(socket)

    assert (refused["type"], refused["id"]) == ("error", "1")
    assert refused["payload"][0]["extensions"] == {"code": "BAD_REQUEST"}
    assert answered["type"] == "next"


async def test_ping_is_answered_with_pong(connect, db):
    async with connect() as socket:
        await initialised(socket)
        await send(socket, type="ping", payload={"any": "thing"})
        assert await receive(socket) == {"type": "pong"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("5", 4400),
        ("[]", 4400),
        ("not json", 4400),
        ('{"type": 5}', 4400),
        ('{"type": "start"}', 4400),
        ('{"type": "connection_init"}', 4429),
        ('{"type": "subscribe", "payload": {"query": "{ viewer { user { id } } }"}}', 4400),
        ('{"id": "", "type": "subscribe", "payload": {"query": "{ viewer { user { id } } }"}}', 4400),
    ],
)
async def test_what_is_no_message_of_the_protocol_closes_the_socket(connect, db, text, code):
    async with connect() as socket:
        await initialised(socket)
        await socket.send(text)
        assert await close_code(socket) == code


async def test_an_operation_before_the_init_is_4401(connect, db):
    async with connect() as socket:
        await send(socket, id="1", type="subscribe", payload={"query": VIEWER})
        assert await close_code(socket) == 4401


async def test_a_token_that_is_not_ours_is_4403(connect, db):
    async with connect() as socket:
        await send(socket, type="connection_init", payload={"authorization": "Bearer no.such.token"})
        assert await close_code(socket) == 4403


async def test_a_message_of_more_than_a_mebibyte_is_1009_and_a_smaller_one_is_read(connect, db):
    async with connect() as socket:
        await initialised(socket)
        await send(socket, type="ping", payload={"room": "x" * (1 << 19)})
        assert await receive(socket) == {"type": "pong"}
        await send(socket, type="ping", payload={"room": "x" * (1 << 20)})
        assert await close_code(socket) == 1009


async def test_a_caller_has_so_many_sockets_and_others_have_theirs(settings, services, admin, scientist, token_of):
    def connect():
        return websockets.connect(address, subprotocols=["graphql-transport-ws"])

    async with served(settings.model_copy(update={"max_sockets_per_caller": 2})) as url:
        address = url.replace("http://", "ws://") + "/graphql"
        async with connect() as one, connect() as two, connect() as three, connect() as other:
            await initialised(one, token_of(admin))
            await initialised(two, token_of(admin))
            await send(three, type="connection_init", payload={"authorization": f"Bearer {token_of(admin)}"})
            assert await close_code(three) == 4429
            await initialised(other, token_of(scientist))
            await two.close()
            async with connect() as four:
                await initialised(four, token_of(admin))


async def test_an_operation_more_than_a_socket_takes_is_refused_and_the_others_go_on(
    settings, services, admin, token_of
):
    watch = {"query": "subscription { events { __typename } }"}
    async with served(settings.model_copy(update={"max_operations_per_socket": 1})) as url:
        address = url.replace("http://", "ws://") + "/graphql"
        async with websockets.connect(address, subprotocols=["graphql-transport-ws"]) as socket:
            await initialised(socket, token_of(admin))
            await send(socket, id="1", type="subscribe", payload=watch)
            assert (await receive(socket))["payload"]["data"] == {"events": {"__typename": "StreamCaughtUp"}}
            await send(socket, id="2", type="subscribe", payload={"query": VIEWER})
            refused = await receive(socket)
            assert (refused["id"], refused["type"]) == ("2", "error")
            assert refused["payload"][0]["message"] == "At most 1 operations run on one connection."
            await send(socket, id="1", type="complete")
            await send(socket, id="3", type="subscribe", payload={"query": VIEWER})
            assert (await receive(socket))["payload"]["data"] == {"viewer": {"user": {"username": "ada"}}}


async def test_another_subprotocol_is_4406(connect, db):
    async with connect(protocol="graphql-ws") as socket:
        assert await close_code(socket) == 4406


async def test_a_session_that_ended_elsewhere_closes_the_silent_socket_with_4403(
    connect, admin, token_of, execute, monkeypatch
):
    monkeypatch.setattr(Wakeups, "patience", 3600.0)  # so that only a wake-up can do it
    async with connect() as socket:
        await initialised(socket, token_of(admin))
        await send(socket, id="1", type="subscribe", payload={"query": "subscription { events { __typename } }"})
        assert (await receive(socket))["payload"]["data"] == {"events": {"__typename": "StreamCaughtUp"}}
        await execute("mutation { logout(input: {}) { revokedSessions } }", principal=admin)

        with suppress(websockets.ConnectionClosed):
            while True:  # what was on its way already
                assert (await receive(socket))["payload"]["data"] == {"events": {"__typename": "Event"}}
        assert (socket.close_code, socket.close_reason) == (4403, "This session has ended. Sign in again.")


async def test_a_token_is_renewed_on_the_living_socket_and_what_runs_goes_on(
    connect, settings, admin, token_of, execute
):
    short = TokenIssuer.from_pem(signing_key_pem(settings), timedelta(seconds=5))
    async with connect() as renewed, connect() as forgotten:
        for socket in (renewed, forgotten):
            await initialised(socket, short.issue(admin.user_id, admin.session_id)[0])
        await send(renewed, id="1", type="subscribe", payload={"query": "subscription { events { __typename } }"})
        assert (await receive(renewed))["payload"]["data"] == {"events": {"__typename": "StreamCaughtUp"}}
        await send(renewed, type="ping", payload={"authorization": f"Bearer {token_of(admin)}"})
        assert await receive(renewed) == {"type": "pong"}

        assert await close_code(forgotten) == 4403
        assert (
            forgotten.close_reason == "The access token has expired. Renew it with `refreshTokens`, or sign in again."
        )
        await execute(
            'mutation { createProject(input: { slug: "next", name: "n" }) { errors { code } } }', principal=admin
        )
        assert (await receive(renewed))["payload"]["data"] == {"events": {"__typename": "Event"}}


async def test_a_token_that_does_not_count_or_is_of_somebody_else_closes_the_socket(
    connect, admin, scientist, token_of
):
    for token, reason in (
        ("no.such.token", "The access token is not one of this server. Sign in again."),
        (token_of(scientist), "A socket stays with the user who opened it. Open another one."),
    ):
        async with connect() as socket:
            await initialised(socket, token_of(admin))
            await send(socket, type="ping", payload={"authorization": f"Bearer {token}"})
            assert await close_code(socket) == 4403
            assert socket.close_reason == reason


async def test_a_session_of_another_person_stays_when_one_ends(connect, admin, caller, token_of, execute):
    vera = await caller("Viewer", username="vera")
    async with connect() as hers, connect() as his:
        await initialised(hers, token_of(vera))
        await initialised(his, token_of(admin))
        await execute("mutation { logout(input: {}) { revokedSessions } }", principal=admin)
        assert await close_code(his) == 4403

        await send(hers, id="1", type="subscribe", payload={"query": VIEWER})
        assert (await receive(hers))["payload"]["data"] == {"viewer": {"user": {"username": "vera"}}}
