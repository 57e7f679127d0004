"""API tokens: what they may do, from where and until when, on every transport; made, rotated and ended."""

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import httpx
import pytest
import websockets

from auth.api_tokens import secret_digest
from auth.permissions import Permission
from auth.principals import Place
from db import access, api_tokens
from db.grants import CALLERS
from db.ids import Kind, global_id, new_id
from domain.projects import create_project
from events.wakeups import Wakeups
from tests.serving import served

CREATE = """
mutation ($input: CreateApiTokenInput!) {
  createApiToken(input: $input) {
    apiToken {
      id name prefix permissions allowedNetworks expiresAt lastUsedAt lastUsedFrom revokedAt
      owner { ... on User { username } } projects { slug }
    }
    secret
    errors { __typename code message path }
  }
}
"""
ROTATE = """
mutation ($input: RotateApiTokenInput!) {
  rotateApiToken(input: $input) {
    apiToken { id prefix } secret oldSecretValidUntil
    errors { __typename code message path ... on InvalidStateError { currentState } }
  }
}
"""
REVOKE = """
mutation ($id: ID!) { revokeApiToken(input: {id: $id}) { apiToken { id revokedAt } errors { code path } } }
"""
VIEWER = """
{ viewer { user { username } session { id } apiToken { id name } permissions can(permission: RUN_READ) { allowed } } }
"""
MINE = "{ viewer { user { apiTokens { nodes { id name revokedAt lastUsedFrom } totalCount } } } }"
MAKE_PROJECT = 'mutation { createProject(input: {slug: "other", name: "Other"}) { project { slug } errors { code } } }'
SEEN = "{ projects { nodes { slug } totalCount } }"


@pytest.fixture
def make(execute):
    async def create(principal, **input):
        answer = await execute(CREATE, principal=principal, input={"name": "robot", **input})
        return answer["data"]["createApiToken"]

    return create


@pytest.fixture
def post(server):
    """Send an operation over HTTP with a token, and read its answer."""

    async def ask(secret, query, **variables):
        async with httpx.AsyncClient(base_url=server, timeout=30) as client:
            body = {"query": query, "variables": variables}
            answer = (await client.post("/graphql", json=body, headers={"authorization": f"Bearer {secret}"})).json()
        answer.pop("extensions", None)
        return answer

    return ask


async def by(db, secret, address="127.0.0.1"):
    async with db.reading() as session:
        found = await api_tokens.principal(session, secret_digest(secret), ip_address=address)
    return found and found[0]


async def test_a_token_shows_its_secret_once_and_only_its_digest_is_kept(make, execute, admin, db, project):
    made = await make(
        admin,
        permissions=["RUN_READ", "PROJECT_READ"],
        projectIds=[global_id(Kind.PROJECT, project.id)],
        allowedNetworks=["127.0.0.0/8", "2001:db8::/32"],
        expiresIn="P1D",
    )

    secret, token = made["secret"], made["apiToken"]
    assert secret.startswith("headai_")
    assert secret.startswith(token["prefix"])
    assert token | {"id": "", "expiresAt": "", "prefix": ""} == {
        "id": "",
        "name": "robot",
        "prefix": "",
        "permissions": ["PROJECT_READ", "RUN_READ"],
        "allowedNetworks": ["127.0.0.0/8", "2001:db8::/32"],
        "expiresAt": "",
        "lastUsedAt": None,
        "lastUsedFrom": None,
        "revokedAt": None,
        "owner": {"username": "ada"},
        "projects": [{"slug": "lab"}],
    }
    async with db.reading() as session:
        for table in ("api_tokens", "api_token_secrets", "audit_events", "events"):
            kept = await session.connection.fetch(f"SELECT t::text AS row FROM {table} t")
            assert not any(secret in row["row"] for row in kept)
        digests = await session.connection.fetch("SELECT digest FROM api_token_secrets")
    assert [row["digest"] for row in digests] == [secret_digest(secret)]


async def test_a_token_does_no_more_than_its_permissions_and_no_more_than_its_owner(make, post, admin, execute, db):
    made = await make(admin, permissions=["RUN_READ"])

    shown = await post(made["secret"], VIEWER)
    refused = await post(made["secret"], MAKE_PROJECT)

    assert shown["data"]["viewer"] == {
        "user": {"username": "ada"},
        "session": None,
        "apiToken": {"id": made["apiToken"]["id"], "name": "robot"},
        "permissions": ["RUN_READ"],
        "can": {"allowed": True},
    }
    assert refused["data"] == {"createProject": None}
    assert refused["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
    assert (await execute(SEEN, principal=admin))["data"]["projects"]["totalCount"] == 0

    async with db.transaction() as session:
        await session.connection.execute("DELETE FROM grants")
    assert (await post(made["secret"], VIEWER))["data"]["viewer"]["permissions"] == []


async def test_a_token_of_one_project_is_nowhere_else(make, post, admin, project, db):
    async with db.transaction() as session:
        other = await create_project(session, admin, slug="other", name="Other", description=None, tags=[])
    here = global_id(Kind.PROJECT, project.id)
    permissions = ["PROJECT_READ", "DATASET_CREATE", "DATASET_READ", "USER_READ"]
    made = await make(admin, permissions=permissions, projectIds=[here])
    create = 'mutation ($id: ID!) { createDataset(input: {projectId: $id, name: "d"}) { dataset { name } } }'

    assert (await post(made["secret"], SEEN))["data"] == {"projects": {"nodes": [{"slug": "lab"}], "totalCount": 1}}
    assert (await post(made["secret"], create, id=here))["data"] == {"createDataset": {"dataset": {"name": "d"}}}
    elsewhere = await post(made["secret"], create, id=global_id(Kind.PROJECT, other.id))
    people = await post(made["secret"], "{ users { totalCount } }")
    for refused in (elsewhere, people):
        assert refused["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
    async with db.reading() as session:
        assert await session.connection.fetchval("SELECT count(*) FROM datasets") == 1


async def test_a_token_is_taken_from_its_networks_only(make, post, admin):
    elsewhere = await make(admin, permissions=["RUN_READ"], allowedNetworks=["10.0.0.0/8"])
    here = await make(admin, permissions=["RUN_READ"], allowedNetworks=["10.0.0.0/8", "127.0.0.1"])

    refused = await post(elsewhere["secret"], VIEWER)
    assert refused["data"] is None
    assert refused["errors"][0]["message"] == "This API token is not taken from your address."
    assert refused["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    assert (await post(here["secret"], VIEWER))["data"]["viewer"]["user"] == {"username": "ada"}


async def test_networks_of_both_families_are_told_apart(make, db, admin):
    made = await make(admin, permissions=["RUN_READ"], allowedNetworks=["10.1.0.0/16", "2001:db8::/32"])
    limits = (await by(db, made["secret"])).token.limits

    taken = ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::5"]
    refused = ["10.2.0.1", "::ffff:10.2.0.1", "2001:db9::5", "testclient", None]
    assert [limits.admit(address) for address in taken] == [True] * 3
    assert [limits.admit(address) for address in refused] == [False] * 5


async def test_a_token_that_is_over_lets_nobody_in(make, post, admin, db, execute):
    expired, revoked = [await make(admin, permissions=["RUN_READ"]) for _ in range(2)]
    async with db.transaction() as session:
        await session.connection.execute(
            "UPDATE api_tokens SET expires_at = now() WHERE prefix = $1", expired["apiToken"]["prefix"]
        )
    first = (await execute(REVOKE, principal=admin, id=revoked["apiToken"]["id"]))["data"]["revokeApiToken"]
    again = (await execute(REVOKE, principal=admin, id=revoked["apiToken"]["id"]))["data"]["revokeApiToken"]

    assert first["apiToken"]["revokedAt"] is not None
    assert first == again
    for secret in (expired["secret"], revoked["secret"], "headai_nothing-of-ours", expired["secret"][:-1]):
        refused = await post(secret, VIEWER)
        assert refused["errors"][0]["message"] == "This API token does not count, or not any more."
        assert refused["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    rotated = await execute(ROTATE, principal=admin, input={"id": revoked["apiToken"]["id"]})
    assert rotated["data"]["rotateApiToken"]["errors"][0]["currentState"] == "REVOKED"
    assert rotated["data"]["rotateApiToken"]["secret"] is None


@pytest.mark.parametrize(
    ("input", "code", "path"),
    [
        ({"permissions": []}, "OUT_OF_RANGE", ["permissions"]),
        ({"permissions": ["USER_READ"]}, "INVALID", ["permissions"]),
        ({"permissions": ["RUN_READ"], "name": " "}, "REQUIRED", ["name"]),
        ({"permissions": ["RUN_READ"], "expiresIn": "PT0S"}, "OUT_OF_RANGE", ["expiresIn"]),
        ({"permissions": ["RUN_READ"], "projectIds": []}, "OUT_OF_RANGE", ["projectIds"]),
        ({"permissions": ["RUN_READ"], "projectIds": ["project_x"]}, "NOT_FOUND", ["projectIds", "0"]),
        ({"permissions": ["RUN_READ"], "allowedNetworks": []}, "OUT_OF_RANGE", ["allowedNetworks"]),
        ({"permissions": ["RUN_READ"], "allowedNetworks": ["10.0.0.1/8"]}, "INVALID", ["allowedNetworks", "0"]),
        ({"permissions": ["RUN_READ"], "allowedNetworks": ["home"]}, "INVALID", ["allowedNetworks", "0"]),
        ({"permissions": ["RUN_READ"], "ownerId": global_id(Kind.USER, new_id())}, "NOT_FOUND", ["ownerId"]),
    ],
)
async def test_a_token_that_cannot_be_is_not_made(make, scientist, db, input, code, path):
    made = await make(scientist, **input)

    assert (made["apiToken"], made["secret"]) == (None, None)
    assert [(error["code"], error["path"]) for error in made["errors"]] == [(code, ["input", *path])]
    async with db.reading() as session:
        assert await session.connection.fetchval("SELECT count(*) FROM api_tokens") == 0


async def test_who_manages_tokens_makes_them_for_others_and_passes_on_only_own_rights(
    make, execute, db, admin, scientist, caller, project
):
    vera = await caller("Viewer", username="vera")
    his = global_id(Kind.USER, scientist.user_id)
    for_him = await make(admin, permissions=["RUN_CREATE", "RUN_READ"], ownerId=his)
    wider = await make(admin, permissions=["USER_READ"], ownerId=his)
    by_vera = await make(vera, permissions=["RUN_READ"], ownerId=his)

    assert for_him["apiToken"]["owner"] == {"username": "sam"}
    assert (await by(db, for_him["secret"])).user_id == scientist.user_id
    assert wider["errors"][0]["message"] == "The owner does not hold USER_READ anywhere."
    assert [(error["code"], error["path"]) for error in by_vera["errors"]] == [("NOT_FOUND", ["input", "ownerId"])]

    role = "INSERT INTO grants (id, user_id, permissions, scope) VALUES ($1, $2, '{TOKEN_MANAGE}', 'GLOBAL')"
    async with db.transaction() as session:
        await session.connection.execute(role, new_id(), vera.user_id)
        vera = await access.principal(session, session_id=vera.session_id, user_id=vera.user_id)
    more = await make(vera, permissions=["RUN_CREATE", "RUN_READ"], ownerId=his)
    turned = await execute(ROTATE, principal=vera, input={"id": for_him["apiToken"]["id"]})
    ended = await execute(REVOKE, principal=vera, id=for_him["apiToken"]["id"])
    assert more["errors"][0]["message"] == "You do not hold RUN_CREATE there yourself."
    assert turned["data"]["rotateApiToken"]["errors"][0]["path"] == ["input", "id"]
    assert turned["data"]["rotateApiToken"]["secret"] is None
    assert ended["data"]["revokeApiToken"]["errors"] == []


async def test_a_token_passes_on_no_more_than_it_has(make, execute, db, admin, project):
    here = [global_id(Kind.PROJECT, project.id)]
    input = {"permissions": ["RUN_READ", "TOKEN_MANAGE"], "projectIds": here, "allowedNetworks": ["10.0.0.0/8"]}
    held = await by(db, (await make(admin, **input, expiresIn="P2D"))["secret"])
    wide = await make(admin, permissions=["RUN_READ", "PROJECT_CREATE"])
    part = {"permissions": ["RUN_READ"], "projectIds": here, "allowedNetworks": ["10.5.0.0/16"], "expiresIn": "P1D"}

    assert (await make(held, **part))["errors"] == []
    for change, place in (
        ({"permissions": ["PROJECT_CREATE"]}, "permissions"),
        ({"projectIds": None}, "projectIds"),
        ({"expiresIn": "P3D"}, "expiresIn"),
        ({"allowedNetworks": None}, "expiresIn"),
        ({"allowedNetworks": ["11.0.0.0/8"]}, "expiresIn"),
    ):
        refused = await make(held, **{**part, **change})
        assert refused["secret"] is None
        assert place in [error["path"][1] for error in refused["errors"]]
    turned = await execute(ROTATE, principal=held, input={"id": wide["apiToken"]["id"]})
    assert turned["data"]["rotateApiToken"]["errors"][0]["code"] == "NOT_FOUND"


async def test_a_token_that_manages_tokens_gets_no_secret_of_a_wider_one(make, execute, db, admin):
    held = await by(db, (await make(admin, permissions=["TOKEN_MANAGE", "RUN_READ"]))["secret"])
    wide = await make(admin, permissions=["RUN_READ", "PROJECT_CREATE", "PROJECT_READ"])

    turned = await execute(ROTATE, principal=held, input={"id": wide["apiToken"]["id"]})

    assert turned["data"]["rotateApiToken"]["secret"] is None
    assert turned["data"]["rotateApiToken"]["errors"][0]["message"] == (
        "This token may do more than you: you can revoke it, and nothing else."
    )
    assert (await by(db, wide["secret"])).may(Permission.PROJECT_CREATE)


async def test_what_is_of_the_person_is_not_of_the_token(make, execute, db, admin, scientist):
    held = await by(db, (await make(scientist, permissions=["RUN_READ"]))["secret"])
    other = await make(scientist, permissions=["RUN_READ"])
    session = global_id(Kind.SESSION, scientist.session_id)

    passwords = '{currentPassword: "x", newPassword: "several words of mine"}'
    change = f"mutation {{ changePassword(input: {passwords}) {{ errors {{ code }} }} }}"
    for mutation in (change, "mutation { logout(input: {everywhere: true}) { revokedSessions } }"):
        answer = await execute(mutation, principal=held)
        assert answer["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
        assert answer["errors"][0]["message"] == "An API token does not do this: sign in."
    revoke = "mutation ($id: ID!) { revokeSession(input: {id: $id}) { errors { code } } }"
    assert (await execute(revoke, principal=held, id=session))["data"]["revokeSession"]["errors"] == [
        {"code": "NOT_FOUND"}
    ]
    assert (await execute(REVOKE, principal=held, id=other["apiToken"]["id"]))["data"]["revokeApiToken"]["errors"] == [
        {"code": "NOT_FOUND", "path": ["input", "id"]}
    ]
    listed = await execute(MINE, principal=held)
    assert listed["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
    nodes = await execute(
        "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }",
        principal=held,
        ids=[session, other["apiToken"]["id"], global_id(Kind.API_TOKEN, held.token_id)],
    )
    assert nodes["data"]["nodes"] == [None, None, {"id": global_id(Kind.API_TOKEN, held.token_id)}]
    assert not held.may(Permission.SESSION_MANAGE, Place(None, held.user_id))
    async with db.reading() as reading:
        assert await reading.connection.fetchval("SELECT count(*) FROM sessions WHERE revoked_at IS NOT NULL") == 0


async def test_everybody_lists_and_ends_the_own_tokens_and_no_others(make, execute, scientist, caller):
    vera = await caller("Viewer", username="vera")
    mine = (await make(scientist, permissions=["RUN_READ"]))["apiToken"]["id"]

    assert (await execute(MINE, principal=scientist))["data"]["viewer"]["user"]["apiTokens"] == {
        "nodes": [{"id": mine, "name": "robot", "revokedAt": None, "lastUsedFrom": None}],
        "totalCount": 1,
    }
    assert (await execute("query ($id: ID!) { node(id: $id) { id } }", principal=vera, id=mine))["data"]["node"] is None
    foreign = await execute(REVOKE, principal=vera, id=mine)
    nonsense = await execute(REVOKE, principal=vera, id="nonsense")
    assert foreign == nonsense
    assert foreign["data"]["revokeApiToken"]["errors"] == [{"code": "NOT_FOUND", "path": ["input", "id"]}]
    assert (await execute(MINE, principal=scientist))["data"]["viewer"]["user"]["apiTokens"]["nodes"][0][
        "revokedAt"
    ] is None


async def test_the_old_secret_works_beside_the_new_one_for_the_overlap(make, post, execute, admin, db):
    made = await make(admin, permissions=["RUN_READ"])
    id = made["apiToken"]["id"]

    turned = (await execute(ROTATE, principal=admin, input={"id": id, "overlap": "PT1H"}))["data"]["rotateApiToken"]
    again = (await execute(ROTATE, principal=admin, input={"id": id, "overlap": "P1D"}))["data"]["rotateApiToken"]

    assert len({made["secret"], turned["secret"], again["secret"]}) == 3
    assert turned["apiToken"]["prefix"] == turned["secret"][: len(turned["apiToken"]["prefix"])]
    for secret in (made["secret"], turned["secret"], again["secret"]):
        assert (await post(secret, VIEWER))["data"]["viewer"]["apiToken"]["id"] == id
    async with db.transaction() as session:
        until = await session.connection.fetchval(
            "SELECT valid_until - now() FROM api_token_secrets WHERE digest = $1", secret_digest(made["secret"])
        )
        assert timedelta(minutes=50) < until <= timedelta(hours=1), "a second rotation makes no overlap longer"
        await session.connection.execute(
            "UPDATE api_token_secrets SET valid_until = now() WHERE valid_until < now() + interval '2 hours'"
        )
    assert (await post(made["secret"], VIEWER))["data"] is None
    assert (await post(turned["secret"], VIEWER))["data"]["viewer"]["apiToken"]["id"] == id

    now = await execute(ROTATE, principal=admin, input={"id": id, "overlap": "PT0S"})
    assert (await post(again["secret"], VIEWER))["data"] is None
    assert (await post(now["data"]["rotateApiToken"]["secret"], VIEWER))["data"]["viewer"]["apiToken"]["id"] == id


async def test_an_overlap_ends_with_the_token(make, execute, admin, db):
    made = await make(admin, permissions=["RUN_READ"], expiresIn="P1D")

    turned = await execute(ROTATE, principal=admin, input={"id": made["apiToken"]["id"], "overlap": "P30D"})

    assert turned["data"]["rotateApiToken"]["oldSecretValidUntil"] == made["apiToken"]["expiresAt"]


async def test_a_use_is_noted_with_its_address(make, post, execute, admin):
    made = await make(admin, permissions=["RUN_READ"])
    await post(made["secret"], VIEWER)

    (shown,) = (await execute(MINE, principal=admin))["data"]["viewer"]["user"]["apiTokens"]["nodes"]
    assert shown["lastUsedFrom"] == "127.0.0.1"


async def test_the_audit_log_names_the_token(make, post, execute, admin):
    made = await make(admin, permissions=["PROJECT_CREATE", "PROJECT_READ"])
    await post(made["secret"], MAKE_PROJECT)

    found = await execute(
        "{ auditEvents { nodes { action actorName viaToken { name } resourceName after } } }", principal=admin
    )
    assert found["data"]["auditEvents"]["nodes"] == [
        {
            "action": "PROJECT_CREATE",
            "actorName": "ada",
            "viaToken": {"name": "robot"},
            "resourceName": "Other",
            "after": {"slug": "other", "name": "Other"},
        },
        {
            "action": "TOKEN_CREATE",
            "actorName": "ada",
            "viaToken": None,
            "resourceName": "robot",
            "after": {
                "name": "robot",
                "permissions": ["PROJECT_CREATE", "PROJECT_READ"],
                "expiresIn": "P90D",
            },
        },
    ]


@asynccontextmanager
async def watching(url, secret):
    """A socket with a subscription that has begun."""
    address = url.replace("http://", "ws://") + "/graphql"
    async with websockets.connect(address, subprotocols=["graphql-transport-ws"]) as socket, asyncio.timeout(30):
        await socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {secret}"}}))
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        subscribe = {"query": "subscription { events { __typename } }"}
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": subscribe}))
        assert "StreamCaughtUp" in await socket.recv()
        yield socket


async def told_at_the_end(socket):
    with suppress(websockets.ConnectionClosed):
        async for _ in socket:
            pass
    return socket.close_code, socket.close_reason


@pytest.mark.parametrize("end", ["revoke", "rotate", "suspend"])
async def test_what_ends_a_token_closes_its_sockets_on_every_node_and_no_others(
    make, execute, admin, settings, services, db, end, monkeypatch
):
    monkeypatch.setattr(Wakeups, "patience", 3600.0)  # so that only a wake-up can do it
    made, other = [await make(admin, permissions=["RUN_READ"]) for _ in range(2)]
    async with (
        served(settings) as one,
        served(settings) as two,
        watching(one, made["secret"]) as here,
        watching(two, made["secret"]) as there,
        watching(two, other["secret"]) as unharmed,
    ):
        match end:
            case "revoke":
                await execute(REVOKE, principal=admin, id=made["apiToken"]["id"])
            case "rotate":
                await execute(ROTATE, principal=admin, input={"id": made["apiToken"]["id"], "overlap": "PT0S"})
            case "suspend":
                async with db.transaction() as session:
                    await session.connection.execute("UPDATE users SET status = 'SUSPENDED'")
                    session.topics.add(CALLERS)
        gone = (4403, "This API token does not count, or not any more.")
        assert [await told_at_the_end(socket) for socket in (here, there)] == [gone, gone]
        if end != "suspend":
            await unharmed.send(json.dumps({"type": "ping"}))
            assert json.loads(await unharmed.recv()) == {"type": "pong"}


async def test_a_token_reads_an_event_stream_until_it_is_revoked(make, execute, admin, server):
    made = await make(admin, permissions=["RUN_READ"])
    async with (
        httpx.AsyncClient(base_url=server, timeout=30) as client,
        client.stream(
            "POST",
            "/graphql/stream",
            json={"query": "subscription { events { __typename } }"},
            headers={"authorization": f"Bearer {made['secret']}"},
        ) as stream,
        asyncio.timeout(30),
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == "event: next"
        assert "StreamCaughtUp" in await anext(lines)
        await execute(REVOKE, principal=admin, id=made["apiToken"]["id"])
        told = [line async for line in lines]

    data = [json.loads(line.removeprefix("data: ")) for line in told if line.startswith("data: ")]
    assert data[-1]["errors"][0]["message"] == "This API token does not count, or not any more."
    assert data[-1]["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_secrets_that_do_not_count_any_more_are_forgotten(make, execute, admin, db):
    kept, revoked, turned = [await make(admin, permissions=["RUN_READ"]) for _ in range(3)]
    await execute(REVOKE, principal=admin, id=revoked["apiToken"]["id"])
    await execute(ROTATE, principal=admin, input={"id": turned["apiToken"]["id"], "overlap": "PT0S"})

    async with db.transaction() as session:
        assert await api_tokens.forget_old_secrets(session, limit=100) == 2
    assert (await by(db, kept["secret"])) is not None
