"""Sessions: seen, ended one by one, ended by another password, and what ends with them."""

import asyncio
import json

import httpx
import pytest

from auth import passwords
from db import presence, users
from db.ids import Kind, global_id, new_id
from events.wakeups import Wakeups
from tests.serving import served
from tests.test_api_tokens import watching

OLD, NEW = "several words of mine", "other words than these"
LOGIN = """
mutation ($input: LoginInput!) { login(input: $input) { viewer { session { id } } errors { code } } }
"""
MINE = "{ viewer { session { id current user { username } ipAddress userAgent revokedAt } } }"
ALL = """
query ($id: ID!, $first: Int, $after: String) {
  user(id: $id) {
    sessions(first: $first, after: $after) {
      nodes { id current revokedAt } totalCount pageInfo { endCursor hasNextPage }
    }
  }
}
"""
REVOKE = """
mutation ($id: ID!) {
  revokeSession(input: {id: $id}) { session { id revokedAt } errors { __typename code message path } }
}
"""
CHANGE = """
mutation ($input: ChangePasswordInput!) {
  changePassword(input: $input) { revokedSessions errors { code path } }
}
"""


def session_id(principal):
    return global_id(Kind.SESSION, principal.session_id)


@pytest.fixture
async def ada(admin, db):
    async with db.transaction() as session:
        await users.set_password(session, admin.user_id, passwords.digest(OLD))
    return admin


@pytest.fixture
def sign_in(execute):
    async def login(password):
        answer = await execute(LOGIN, input={"username": "ada", "password": password})
        return answer["data"]["login"]

    return login


async def test_shows_ones_own_session(execute, scientist):
    shown = await execute(MINE, principal=scientist)

    assert shown["data"]["viewer"]["session"] == {
        "id": session_id(scientist),
        "current": True,
        "user": {"username": "sam"},
        "ipAddress": None,
        "userAgent": None,
        "revokedAt": None,
    }


async def test_lists_the_sessions_of_a_user_by_page_newest_first(execute, ada, sign_in):
    opened = [(await sign_in(OLD))["viewer"]["session"]["id"] for _ in range(2)]
    asked = {"principal": ada, "id": global_id(Kind.USER, ada.user_id), "first": 2}

    first = (await execute(ALL, **asked))["data"]["user"]["sessions"]
    rest = (await execute(ALL, **asked, after=first["pageInfo"]["endCursor"]))["data"]["user"]["sessions"]

    nodes = first["nodes"] + rest["nodes"]
    assert [(node["id"], node["current"]) for node in nodes] == [
        (opened[1], False),
        (opened[0], False),
        (session_id(ada), True),
    ]
    assert (first["totalCount"], rest["pageInfo"]["hasNextPage"]) == (3, False)


async def test_the_sessions_of_others_are_for_those_who_manage_sessions(execute, caller, ada):
    maintainer = await caller("Maintainer")

    listed = await execute(ALL, principal=maintainer, id=global_id(Kind.USER, ada.user_id))
    node = await execute("query ($id: ID!) { node(id: $id) { id } }", principal=maintainer, id=session_id(ada))

    assert listed["data"] == {"user": {"sessions": None}}
    assert listed["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
    assert node["data"] == {"node": None}


async def test_a_session_is_revoked_once_and_then_lets_nobody_in(execute, ada, sign_in, token_of, server):
    other = (await sign_in(OLD))["viewer"]["session"]["id"]

    first = (await execute(REVOKE, principal=ada, id=other))["data"]["revokeSession"]
    again = (await execute(REVOKE, principal=ada, id=other))["data"]["revokeSession"]
    own = (await execute(REVOKE, principal=ada, id=session_id(ada)))["data"]["revokeSession"]

    assert first["errors"] == own["errors"] == []
    assert first["session"]["revokedAt"] is not None
    assert again == first
    async with httpx.AsyncClient(base_url=server) as client:
        answer = await client.post(
            "/graphql", json={"query": MINE}, headers={"authorization": f"Bearer {token_of(ada)}"}
        )
    assert answer.json()["errors"][0]["message"] == "This session has ended. Sign in again."


async def test_the_session_of_another_is_not_there_to_revoke(execute, ada, scientist):
    foreign = (await execute(REVOKE, principal=scientist, id=session_id(ada)))["data"]["revokeSession"]
    nonsense = (await execute(REVOKE, principal=scientist, id="nonsense"))["data"]["revokeSession"]

    assert foreign == nonsense
    assert foreign["errors"] == [
        {
            "__typename": "NotFoundError",
            "code": "NOT_FOUND",
            "message": "There is no session with this ID.",
            "path": ["input", "id"],
        }
    ]
    assert (await execute(MINE, principal=ada))["data"]["viewer"]["session"]["revokedAt"] is None


async def test_another_password_ends_the_other_sessions_and_keeps_this_one(execute, ada, sign_in):
    await sign_in(OLD)
    await sign_in(OLD)

    changed = await execute(CHANGE, principal=ada, input={"currentPassword": OLD, "newPassword": NEW})

    assert changed["data"]["changePassword"] == {"revokedSessions": 2, "errors": []}
    listed = await execute(ALL, principal=ada, id=global_id(Kind.USER, ada.user_id))
    assert [node["revokedAt"] is None for node in listed["data"]["user"]["sessions"]["nodes"]] == [False, False, True]
    assert (await sign_in(OLD))["errors"] == [{"code": "INVALID_CREDENTIALS"}]
    assert (await sign_in(NEW))["errors"] == []


@pytest.mark.parametrize(
    ("current", "new", "code", "place"),
    [
        ("not it at all", NEW, "INVALID_CREDENTIALS", "currentPassword"),
        (OLD, "password1234", "WEAK_PASSWORD", "newPassword"),
        (OLD, OLD, "WEAK_PASSWORD", "newPassword"),
        (OLD, "short", "OUT_OF_RANGE", "newPassword"),
    ],
)
async def test_a_password_that_cannot_be_changed_stays_and_ends_nothing(
    execute, ada, sign_in, current, new, code, place
):
    other = (await sign_in(OLD))["viewer"]["session"]["id"]

    refused = await execute(CHANGE, principal=ada, input={"currentPassword": current, "newPassword": new})

    assert refused["data"]["changePassword"] == {
        "revokedSessions": 0,
        "errors": [{"code": code, "path": ["input", place]}],
    }
    listed = await execute(ALL, principal=ada, id=global_id(Kind.USER, ada.user_id))
    assert {node["id"]: node["revokedAt"] for node in listed["data"]["user"]["sessions"]["nodes"]} == {
        other: None,
        session_id(ada): None,
    }
    assert (await sign_in(OLD))["errors"] == []


async def test_who_comes_back_after_a_minute_was_last_seen_then(ada, token_of, server, db):
    async def times():
        async with db.reading() as session:
            return await session.connection.fetchrow(
                "SELECT s.last_seen_at AS session, u.last_seen_at AS user"
                " FROM sessions s JOIN users u ON u.id = s.user_id"
            )

    async def come():
        async with httpx.AsyncClient(base_url=server, timeout=30) as client:
            await client.post("/graphql", json={"query": MINE}, headers={"authorization": f"Bearer {token_of(ada)}"})

    await come()
    assert (await times())["user"] is None, "a request within the minute writes nothing"
    async with db.transaction() as session:
        await session.connection.execute("UPDATE sessions SET last_seen_at = now() - interval '2 minutes'")
    before = await times()
    await come()
    after = await times()
    assert after["session"] > before["session"]
    assert after["user"] > before["session"]

    async with db.transaction() as session:
        await session.connection.execute("UPDATE sessions SET last_seen_at = now() - interval '2 minutes'")
    async with db.transaction() as session:  # somebody else holds the account: nobody waits for that
        await session.connection.execute("SELECT 1 FROM users FOR UPDATE")
        async with asyncio.timeout(60):
            await come()


async def test_open_connections_are_counted_over_all_processes(
    execute, ada, token_of, settings, services, db, monkeypatch
):
    shown = "{ viewer { session { openConnections } } }"

    async def until(number):
        async with asyncio.timeout(30):
            while True:
                found = (await execute(shown, principal=ada))["data"]["viewer"]["session"]["openConnections"]
                if found == number:
                    return
                await asyncio.sleep(0.05)

    monkeypatch.setattr("events.callers._SIGN_OF_LIFE_SECONDS", 0.1)
    monkeypatch.setattr(Wakeups, "patience", 0.1)
    await until(0)
    async with served(settings) as one, served(settings) as two:
        async with watching(one, token_of(ada)):
            await until(1)
            async with watching(two, token_of(ada)), watching(two, token_of(ada)):
                await until(3)
                async with db.transaction() as session:  # as if the others had taken both for dead
                    await session.connection.execute("DELETE FROM api_processes")
                await until(3)
            await until(1)
        await until(0)
    async with db.reading() as session:
        assert await session.connection.fetchval("SELECT count(*) FROM api_processes") == 0


async def test_what_a_process_counted_that_died_does_not_count(db, ada):
    dead, alive = new_id(), new_id()
    async with db.transaction() as session:
        for process, age in ((dead, "1 minute"), (alive, "0")):
            await presence.write(session, process, {ada.session_id: 2})
            await session.connection.execute(
                f"UPDATE api_processes SET seen_at = now() - interval '{age}' WHERE id = $1", process
            )

    async with db.transaction() as session:
        assert await presence.of_sessions(session, [ada.session_id]) == {ada.session_id: 2}
        assert await presence.sign_of_life(session, alive)
        assert not await presence.sign_of_life(session, dead)


async def test_a_session_that_ends_ends_its_event_stream(execute, ada, token_of, server):
    headers = {"authorization": f"Bearer {token_of(ada)}"}
    body = {"query": "subscription { events { __typename } }"}
    async with (
        httpx.AsyncClient(base_url=server, timeout=20) as client,
        client.stream("POST", "/graphql/stream", json=body, headers=headers) as stream,
        asyncio.timeout(20),
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == "event: next"
        assert "StreamCaughtUp" in await anext(lines)
        await execute(REVOKE, principal=ada, id=session_id(ada))
        told = [line async for line in lines]

    data = [json.loads(line.removeprefix("data: ")) for line in told if line.startswith("data: ")]
    assert data[-1]["errors"][0]["message"] == "This session has ended. Sign in again."
    assert data[-1]["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    assert "event: complete" in told
