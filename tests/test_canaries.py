"""Twenty secrets are planted, wherever a client may have one to send and whatever goes wrong then; nobody tells them.

The watch looks on over the whole suite (`tests/conftest.py`); here it is shown that it sees.
"""

import asyncio
import json
from contextlib import suppress

import httpx
import pytest
import structlog
import websockets

from auth import passwords
from auth.api_tokens import secret_digest
from db import users
from tests import canaries
from tests.canaries import MARK, PLANTED, WATCH, Watch
from tests.conftest import OWN_SECRETS

LOGIN = (
    "mutation ($input: LoginInput!) { login(input: $input) { viewer { user { username } } errors { code message } } }"
)
TOKEN = """
mutation ($input: CreateApiTokenInput!) { createApiToken(input: $input) { apiToken { id } errors { message } } }
"""


def test_there_are_twenty():
    assert len(PLANTED) + len(OWN_SECRETS) >= 20
    assert all(MARK in secret for secret in PLANTED.values())


async def test_the_watch_sees_what_answers_and_logs_say(monkeypatch):
    watch = Watch()
    monkeypatch.setattr(canaries, "WATCH", watch)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "headers": [(b"x-told", MARK.encode())]})
        await send({"type": "http.response.body", "body": b'{"password": "' + MARK.encode() + b'"}'})

    async def send(message):
        pass

    await canaries.watched(app)({"type": "http"}, None, send)
    structlog.get_logger("tests").info("said", words=f"once {MARK}")

    assert [told.partition(":")[0] for told in watch.seen] == [
        "planted by a client in a header",
        "planted by a client in an answer",
        "planted by a client in a log line",
    ]


@pytest.fixture
async def told(server, db, admin, execute):
    """Send everything that is secret, in every way, over every transport."""
    async with db.transaction() as session:
        await users.set_password(session, admin.user_id, passwords.digest(PLANTED["right-password"]))
    made = await execute(TOKEN, principal=admin, input={"name": "t", "permissions": ["RUN_READ"]})
    async with db.transaction() as session:
        await session.connection.execute(
            "UPDATE api_token_secrets SET digest = $1", secret_digest(PLANTED["api-token"])
        )
    answers = []
    async with httpx.AsyncClient(base_url=server, timeout=60) as client:

        async def post(body, token=None):
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            answer = await client.post("/graphql", json=body, headers=headers)
            answers.append(answer.text)
            return answer.json()

        async def login(password, **more):
            return await post(
                {"query": LOGIN, "variables": {"input": {"username": "ada", "password": password, **more}}}
            )

        yield post, login, answers, client, made["data"]["createApiToken"]["apiToken"]["id"]


async def test_no_answer_and_no_log_line_tells_a_secret(told, server, admin, execute, token_of, db, monkeypatch):
    post, login, answers, client, token_id = told
    assert (await login(PLANTED["right-password"]))["data"]["login"]["errors"] == []
    assert (await login(PLANTED["wrong-password"]))["data"]["login"]["errors"][0]["code"] == "INVALID_CREDENTIALS"
    assert "errors" in await login([PLANTED["password-of-a-wrong-type"]])
    assert "errors" in await login({"is": PLANTED["password-of-a-wrong-type"]})
    assert "errors" in await login(PLANTED["password-beside-an-unknown-field"], more=1)
    for whole in ([[PLANTED["wrong-password"]]], {"password": PLANTED["wrong-password"]}, PLANTED["wrong-password"]):
        assert "errors" in await post({"query": LOGIN, "variables": {"input": whole}})
    literal = '{ login(input: {username: "ada", password: "%s"}) { errors { code } } }'
    for name, query in (
        ("password-in-a-broken-document", "mutation " + literal + "}"),
        ("password-in-an-invalid-document", "mutation " + literal.replace("errors", "nonsense")),
        ("password-in-an-invalid-document", "mutation " + literal.replace("username", "user")),
        ("password-as-a-literal", "mutation " + literal),
        ("password-of-a-wrong-type", "mutation " + literal.replace('"%s"', '["%s"]')),
    ):
        await post({"query": query % PLANTED[name]})
    answers.append(
        (await client.get("/graphql", params={"query": literal % PLANTED["password-in-a-query-string"]})).text
    )
    make = "mutation ($input: CreateUserInput!) { createUser(input: $input) { errors { code message } } }"
    for name in ("password-of-another", "weak-password"):
        password = PLANTED[name] if name != "weak-password" else PLANTED[name].ljust(2000, "x")
        input = {"username": f"u-{name}", "email": f"{name}@example.com", "password": password}
        await post({"query": make, "variables": {"input": input}}, token_of(admin))
    change = "mutation ($input: ChangePasswordInput!) { changePassword(input: $input) { errors { code message } } }"
    input = {"currentPassword": PLANTED["wrong-password"], "newPassword": PLANTED["new-password"]}
    await post({"query": change, "variables": {"input": input}}, token_of(admin))
    refresh = "mutation ($token: String!) { refreshTokens(input: {refreshToken: $token}) { errors { code message } } }"
    await post({"query": refresh, "variables": {"token": PLANTED["refresh-token"]}})
    for token in (PLANTED["access-token"], PLANTED["api-token"]):
        await post({"query": "{ viewer { user { id } apiToken { id name prefix } } }"}, token)
        headers = {"authorization": f"Bearer {token}"}
        body = {"query": "{ viewer { user { id } } }"}
        answers.append((await client.post("/graphql/stream", json=body, headers=headers)).text)
    await execute(
        "mutation ($id: ID!) { revokeApiToken(input: {id: $id}) { errors { code } } }", principal=admin, id=token_id
    )
    await post({"query": "{ viewer { user { id } } }"}, PLANTED["api-token"])
    for token in (PLANTED["access-token-on-a-socket"], PLANTED["api-token"]):
        address = server.replace("http://", "ws://") + "/graphql"
        async with websockets.connect(address, subprotocols=["graphql-transport-ws"]) as socket, asyncio.timeout(30):
            await socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}))
            with suppress(websockets.ConnectionClosed):
                async for message in socket:
                    answers.append(message)
            assert socket.close_code == 4403

    async def broken(*_, **__):
        raise RuntimeError("out of order")

    with monkeypatch.context() as fault:
        fault.setattr("domain.sessions.check_password", broken)
        failed = await login(PLANTED["password-while-we-fail"])
    assert failed["errors"][0]["extensions"]["code"] == "INTERNAL"
    entries = "auditEvents(first: 100) { nodes { action actorName after before operationName } }"
    log = f"{{ {entries} events(first: 100) {{ nodes {{ changes }} }} }}"
    answers.append(json.dumps(await execute(log, principal=admin)))

    assert not [answer for answer in answers if MARK in answer]
    assert not [told for told in WATCH.seen if MARK in told]
    assert WATCH.looked["an answer"] > 20
    assert WATCH.looked["a log line"] > 20
    async with db.reading() as session:
        for table in ("audit_events", "events", "users", "sessions", "api_tokens", "idempotency_keys"):
            kept = await session.connection.fetchval(f"SELECT string_agg(t::text, ' ') FROM {table} t")
            assert MARK not in (kept or "").replace(f"headai_{MARK}", "")
