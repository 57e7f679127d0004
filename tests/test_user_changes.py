"""Accounts that change: renamed, suspended, deleted; what ends with them, and who takes over."""

import asyncio
from contextlib import suppress

import pytest
import websockets

from auth import passwords
from db import users
from db.ids import Kind, global_id, new_id
from events.wakeups import Wakeups
from tests.test_api_tokens import watching

UPDATE = """
mutation ($input: UpdateUserInput!) {
  updateUser(input: $input) {
    user { username displayName email status revision teams { name } }
    errors { __typename code message path ... on StaleRevisionError { currentRevision } }
  }
}
"""
DELETE = """
mutation ($input: DeleteUserInput!) {
  deleteUser(input: $input) { user { username } errors { __typename code message path } }
}
"""
MYSELF = """
mutation ($input: UpdateViewerInput!) {
  updateViewer(input: $input) {
    viewer { user { displayName email revision } } errors { code path ... on AlreadyExistsError { existing { id } } }
  }
}
"""
LOGIN = "mutation ($input: LoginInput!) { login(input: $input) { errors { code message } } }"
TOKEN = "mutation ($input: CreateApiTokenInput!) { createApiToken(input: $input) { secret errors { message } } }"
WORDS = "several words of mine"


def id_of(principal):
    return global_id(Kind.USER, principal.user_id)


@pytest.fixture
def row(db):
    async def read(principal):
        async with db.reading() as session:
            return (await users.by_ids(session, [principal.user_id])).get(principal.user_id)

    return read


async def test_an_account_is_changed_and_the_log_says_what(execute, admin, scientist):
    changed = await execute(
        UPDATE,
        principal=admin,
        input={"id": id_of(scientist), "expectedRevision": 1, "displayName": "Samuel", "email": "s@example.com"},
    )

    assert changed["data"]["updateUser"] == {
        "user": {
            "username": "sam",
            "displayName": "Samuel",
            "email": "s@example.com",
            "status": "ACTIVE",
            "revision": 2,
            "teams": [],
        },
        "errors": [],
    }
    log = await execute("{ auditEvents { nodes { action resourceName before after } } }", principal=admin)
    assert log["data"]["auditEvents"]["nodes"] == [
        {
            "action": "USER_UPDATE",
            "resourceName": "sam",
            "before": {"displayName": "sam", "email": "sam@example.com"},
            "after": {
                "id": id_of(scientist),
                "expectedRevision": 1,
                "displayName": "Samuel",
                "email": "s@example.com",
            },
        }
    ]


@pytest.mark.parametrize(
    ("input", "code", "path"),
    [
        ({"email": "ADA@example.com"}, "ALREADY_EXISTS", ["email"]),
        ({"email": "nowhere"}, "INVALID", ["email"]),
        ({"displayName": " "}, "REQUIRED", ["displayName"]),
        ({"displayName": "S", "expectedRevision": 7}, "STALE_REVISION", ["expectedRevision"]),
        ({"status": "SUSPENDED", "teamIds": [global_id(Kind.TEAM, new_id())]}, "NOT_FOUND", ["teamIds", "0"]),
        ({"id": global_id(Kind.USER, new_id())}, "NOT_FOUND", ["id"]),
    ],
)
async def test_what_cannot_be_changed_stays(execute, admin, scientist, row, input, code, path):
    before = await row(scientist)

    refused = await execute(UPDATE, principal=admin, input={"id": id_of(scientist), **input})

    assert refused["data"]["updateUser"]["user"] is None
    assert [(e["code"], e["path"]) for e in refused["data"]["updateUser"]["errors"]] == [(code, ["input", *path])]
    assert await row(scientist) == before


async def test_others_may_not_and_learn_nothing(execute, admin, scientist, row):
    before = await row(admin)
    answers = [
        await execute(UPDATE, principal=scientist, input={"id": id, "status": "SUSPENDED"})
        for id in (id_of(admin), id_of(scientist), global_id(Kind.USER, new_id()))
    ] + [
        await execute(DELETE, principal=scientist, input={"id": id})
        for id in (id_of(admin), id_of(scientist), global_id(Kind.USER, new_id()))
    ]

    assert [answer["errors"][0]["extensions"]["code"] for answer in answers] == ["FORBIDDEN"] * 6
    assert await row(admin) == before


async def test_team_ids_are_all_the_teams_one_is_in(execute, admin, scientist):
    make = "mutation ($name: String!) { createTeam(input: {name: $name}) { team { id } } }"
    ids = [
        (await execute(make, principal=admin, name=name))["data"]["createTeam"]["team"]["id"]
        for name in ("a", "b", "c")
    ]

    async def put(wanted):
        answer = await execute(UPDATE, principal=admin, input={"id": id_of(scientist), "teamIds": wanted})
        return [team["name"] for team in answer["data"]["updateUser"]["user"]["teams"]]

    assert await put(ids[:2]) == ["a", "b"]
    assert await put(ids[1:]) == ["b", "c"]
    assert await put([]) == []


@pytest.mark.parametrize("status", ["SUSPENDED", "DEACTIVATED"])
async def test_a_suspension_ends_everything_at_once_and_can_be_taken_back(
    execute, db, admin, scientist, token_of, server, status, monkeypatch
):
    monkeypatch.setattr(Wakeups, "patience", 3600.0)  # so that only a wake-up can do it
    async with db.transaction() as session:
        await users.set_password(session, scientist.user_id, passwords.digest(WORDS))
    made = await execute(TOKEN, principal=scientist, input={"name": "robot", "permissions": ["RUN_READ"]})
    secret = made["data"]["createApiToken"]["secret"]
    async with (
        watching(server, token_of(scientist)) as his,
        watching(server, secret) as robots,
        watching(server, token_of(admin)) as unharmed,
    ):
        await execute(UPDATE, principal=admin, input={"id": id_of(scientist), "status": status})
        for socket in (his, robots):
            with suppress(websockets.ConnectionClosed):
                async for _ in socket:
                    pass
            assert socket.close_code == 4403
        await unharmed.send('{"type": "ping"}')
        while "pong" not in await unharmed.recv():
            pass
    out = (await execute(LOGIN, input={"username": "sam", "password": WORDS}))["data"]["login"]["errors"]
    assert out == [{"code": "INVALID_CREDENTIALS", "message": "Username or password is wrong."}]

    await execute(UPDATE, principal=admin, input={"id": id_of(scientist), "status": "ACTIVE"})
    assert (await execute(LOGIN, input={"username": "sam", "password": WORDS}))["data"]["login"]["errors"] == []
    async with db.reading() as session:
        over = await session.connection.fetchrow(
            "SELECT (SELECT revoked_at IS NOT NULL FROM sessions WHERE id = $1) AS session,"
            " (SELECT revoked_at IS NOT NULL FROM api_tokens) AS token",
            scientist.session_id,
        )
    assert (over["session"], over["token"]) == (True, status == "DEACTIVATED")


@pytest.mark.parametrize("end", ["SUSPENDED", "DEACTIVATED", "delete"])
async def test_the_last_administrator_stays(execute, admin, caller, row, end):
    async def finish(principal, whom):
        if end == "delete":
            return (await execute(DELETE, principal=principal, input={"id": id_of(whom)}))["data"]["deleteUser"]
        input = {"id": id_of(whom), "status": end}
        return (await execute(UPDATE, principal=principal, input=input))["data"]["updateUser"]

    refused = await finish(admin, admin)
    assert [(error["code"], error["path"][1]) for error in refused["errors"]] == [
        ("LAST_ADMIN", "id" if end == "delete" else "status")
    ]
    assert (await row(admin)).status == "ACTIVE"
    second = await caller("Administrator", username="eve")
    assert (await finish(admin, second))["errors"] == []
    assert (await finish(admin, admin))["errors"][0]["code"] == "LAST_ADMIN"


async def test_of_two_administrators_who_suspend_each_other_at_once_one_stays(execute, admin, caller, db):
    eve = await caller("Administrator", username="eve")
    answers = await asyncio.gather(
        execute(UPDATE, principal=admin, input={"id": id_of(eve), "status": "SUSPENDED"}),
        execute(UPDATE, principal=eve, input={"id": id_of(admin), "status": "SUSPENDED"}),
    )

    codes = [error["code"] for answer in answers for error in answer["data"]["updateUser"]["errors"]]
    async with db.reading() as session:
        active = await session.connection.fetchval("SELECT count(*) FROM users WHERE status = 'ACTIVE'")
    assert (codes, active) == (["LAST_ADMIN"], 1)


async def test_who_is_deleted_leaves_what_they_made_to_the_heir(execute, db, admin, scientist, caller, project):
    make = "mutation ($input: CreateDatasetInput!) { createDataset(input: $input) { dataset { id } } }"
    here = global_id(Kind.PROJECT, project.id)
    made = await execute(make, principal=scientist, input={"projectId": here, "name": "d"})
    dataset = made["data"]["createDataset"]["dataset"]["id"]
    await execute(TOKEN, principal=scientist, input={"name": "robot", "permissions": ["RUN_READ"]})
    vera = await caller("Viewer", username="vera")

    gone = await execute(DELETE, principal=admin, input={"id": id_of(scientist), "transferOwnershipTo": id_of(vera)})

    assert gone["data"]["deleteUser"] == {"user": {"username": "sam"}, "errors": []}
    shown = await execute(
        "query ($ids: [ID!]!) { nodes(ids: $ids) { ... on User { id } ... on Dataset { createdBy { ... on User "
        "{ username } } } } auditEvents(first: 1) { nodes { action resourceName actorName } } "
        "events(filter: {types: [USER_DELETED]}) { nodes { subjectId subject { id } } } }",
        principal=admin,
        ids=[id_of(scientist), dataset],
    )
    assert shown["data"] == {
        "nodes": [None, {"createdBy": {"username": "vera"}}],
        "auditEvents": {"nodes": [{"action": "USER_DELETE", "resourceName": "sam", "actorName": "ada"}]},
        "events": {"nodes": [{"subjectId": id_of(scientist), "subject": None}]},
    }
    async with db.reading() as session:
        for table in ("sessions", "grants"):
            left = f"SELECT count(*) FROM {table} WHERE user_id = $1"
            assert await session.connection.fetchval(left, scientist.user_id) == 0
        assert await session.connection.fetchval("SELECT count(*) FROM api_tokens") == 0


async def test_without_an_heir_nobody_made_it(execute, admin, scientist, project):
    make = "mutation ($input: CreateDatasetInput!) { createDataset(input: $input) { dataset { id } } }"
    made = await execute(
        make, principal=scientist, input={"projectId": global_id(Kind.PROJECT, project.id), "name": "d"}
    )
    await execute(DELETE, principal=admin, input={"id": id_of(scientist)})

    shown = await execute(
        "query ($id: ID!) { dataset(id: $id) { name createdBy { __typename } } }",
        principal=admin,
        id=made["data"]["createDataset"]["dataset"]["id"],
    )
    assert shown["data"] == {"dataset": {"name": "d", "createdBy": None}}


async def test_an_heir_is_another_active_account(execute, db, admin, scientist, caller, row):
    vera = await caller("Viewer", username="vera")
    async with db.transaction() as session:
        await session.connection.execute("UPDATE users SET status = 'SUSPENDED' WHERE username = 'vera'")

    for heir, code in ((id_of(scientist), "INVALID"), (id_of(vera), "INVALID"), ("nobody", "NOT_FOUND")):
        refused = await execute(DELETE, principal=admin, input={"id": id_of(scientist), "transferOwnershipTo": heir})
        assert [(e["code"], e["path"]) for e in refused["data"]["deleteUser"]["errors"]] == [
            (code, ["input", "transferOwnershipTo"])
        ]
    assert await row(scientist) is not None


async def test_who_deletes_the_own_account_is_named_in_the_log(execute, admin, caller):
    eve = await caller("Administrator", username="eve")
    assert (await execute(DELETE, principal=eve, input={"id": id_of(eve)}))["data"]["deleteUser"]["errors"] == []

    log = await execute("{ auditEvents { nodes { actor { __typename } actorName resourceName } } }", principal=admin)
    assert log["data"]["auditEvents"]["nodes"] == [{"actor": None, "actorName": "eve", "resourceName": "eve"}]


async def test_everybody_changes_the_own_name_and_address(execute, scientist, admin, row):
    changed = await execute(MYSELF, principal=scientist, input={"displayName": "Samuel"})
    taken = await execute(MYSELF, principal=scientist, input={"email": "ada@example.com"})
    wrong = await execute(MYSELF, principal=scientist, input={"email": "nowhere", "displayName": "S"})

    assert changed["data"]["updateViewer"] == {
        "viewer": {"user": {"displayName": "Samuel", "email": "sam@example.com", "revision": 2}},
        "errors": [],
    }
    assert taken["data"]["updateViewer"]["errors"] == [
        {"code": "ALREADY_EXISTS", "path": ["input", "email"], "existing": None}
    ]
    assert wrong["data"]["updateViewer"] == {
        "viewer": None,
        "errors": [{"code": "INVALID", "path": ["input", "email"]}],
    }
    assert ((await row(scientist)).display_name, (await row(scientist)).email) == ("Samuel", "sam@example.com")
