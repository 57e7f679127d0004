"""GraphQL over HTTP, and signing in over it."""

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from auth.passwords import digest
from db import grants, roles, users
from resolvers.context import Context, Request
from schema.execution import respond

LOGIN = """
mutation ($input: LoginInput!) {
  login(input: $input) {
    tokens { accessToken accessTokenExpiresAt refreshToken tokenType }
    viewer { user { username email } permissions can(permission: RUN_CREATE) { allowed reason decidedBy { id } } }
    errors { __typename code message path }
  }
}
"""
REFRESH = """
mutation ($input: RefreshTokensInput!) {
  refreshTokens(input: $input) { tokens { accessToken refreshToken } errors { code path } }
}
"""
PASSWORD = "correct horse battery"
STANDARD = "application/graphql-response+json"


@pytest.fixture
async def client(server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server) as client:
        yield client


@pytest.fixture
async def ada(db):
    async with db.transaction() as session:
        user = await users.insert_unless_taken(
            session, username="ada", email="ada@example.com", display_name="Ada", password_digest=digest(PASSWORD)
        )
        role = await roles.by_name(session, "Viewer")
        await grants.grant_role(session, user_id=user.id, role_id=role.id, created_by=None)
    return user


async def post(client, query, token=None, **variables):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = await client.post("/graphql", json={"query": query, "variables": variables}, headers=headers)
    assert answer.status_code == 200
    body = answer.json()
    body.pop("extensions", None)
    return body


async def test_signing_in_and_reading_who_one_is(client, ada):
    signed_in = (await post(client, LOGIN, input={"username": "ada", "password": PASSWORD}))["data"]["login"]

    assert signed_in["errors"] == []
    assert signed_in["tokens"]["tokenType"] == "Bearer"
    assert signed_in["viewer"] == {
        "user": {"username": "ada", "email": "ada@example.com"},
        "permissions": ["DATASET_PREVIEW", "DATASET_READ", "METRIC_READ", "MODEL_READ", "PROJECT_READ", "RUN_READ"],
        "can": {
            "allowed": False,
            "reason": "This needs the permission RUN_CREATE, which none of your grants gives.",
            "decidedBy": [],
        },
    }
    me = await post(client, "{ viewer { user { username } } }", signed_in["tokens"]["accessToken"])
    assert me == {"data": {"viewer": {"user": {"username": "ada"}}}}


async def test_a_wrong_password_and_an_unknown_user_read_the_same(client, ada):
    wrong = await post(client, LOGIN, input={"username": "ada", "password": "not it at all"})
    unknown = await post(client, LOGIN, input={"username": "nobody", "password": "not it at all"})

    assert wrong == unknown
    assert wrong["data"]["login"] == {
        "tokens": None,
        "viewer": None,
        "errors": [
            {
                "__typename": "AuthenticationError",
                "code": "INVALID_CREDENTIALS",
                "message": "Username or password is wrong.",
                "path": ["input", "username"],
            }
        ],
    }


async def test_the_audit_log_has_who_signed_in_and_not_the_password(client, ada, db):
    await post(client, LOGIN, input={"username": "ada", "password": PASSWORD})
    await post(client, LOGIN, input={"username": "ada", "password": "not it at all"})

    async with db.reading() as session:
        entries = await session.connection.fetch(
            "SELECT action, outcome, actor_name, after FROM audit_events ORDER BY id"
        )
    assert [tuple(entry) for entry in entries] == [
        ("LOGIN", "SUCCEEDED", "ada", {"username": "ada", "password": "[secret]"}),
        ("LOGIN_FAILED", "REFUSED", "ada", {"username": "ada", "password": "[secret]"}),
    ]


async def test_a_refresh_token_works_once_and_its_second_use_ends_the_session(client, ada):
    tokens = (await post(client, LOGIN, input={"username": "ada", "password": PASSWORD}))["data"]["login"]["tokens"]

    renewed = await post(client, REFRESH, input={"refreshToken": tokens["refreshToken"]})
    again = await post(client, REFRESH, input={"refreshToken": tokens["refreshToken"]})
    newer = await post(
        client, REFRESH, input={"refreshToken": renewed["data"]["refreshTokens"]["tokens"]["refreshToken"]}
    )
    me = await client.post(
        "/graphql",
        json={"query": "{ viewer { user { username } } }"},
        headers={"authorization": f"Bearer {tokens['accessToken']}"},
    )

    refused = {"tokens": None, "errors": [{"code": "TOKEN_EXPIRED", "path": ["input", "refreshToken"]}]}
    assert renewed["data"]["refreshTokens"]["errors"] == []
    assert again["data"]["refreshTokens"] == refused
    assert newer["data"]["refreshTokens"] == refused
    assert me.json()["errors"][0]["message"] == "This session has ended. Sign in again."


async def test_signing_out_ends_the_session_at_once(client, admin, token_of):
    token = token_of(admin)

    out = await post(client, "mutation { logout(input: {}) { revokedSessions errors { code } } }", token)
    after = await post(client, "{ viewer { user { username } } }", token)

    assert out["data"]["logout"] == {"revokedSessions": 1, "errors": []}
    assert after["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}


async def test_a_token_of_somebody_else_is_not_accepted(client, admin, token_of):
    token = token_of(admin)
    head, claims, signature = token.split(".")

    answer = await post(client, "{ viewer { user { username } } }", f"{head}.{claims}.{signature[::-1]}")

    assert answer["errors"][0]["message"] == "The access token is not one of this server. Sign in again."


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"5", "application/json", 400),
        (b"null", "application/json", 400),
        (b'"x"', "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"query": ""}', "application/json", 400),
        (b'{"query": 5}', "application/json", 400),
        (b'{"query": "{ viewer { user { id } } }", "variables": []}', "application/json", 400),
        (b'{"query": "\xff"}', "application/json", 400),
        (b'{"query": "{ serviceInfo { schemaHash } }', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"query": "{ serviceInfo { schemaHash } }"}', "text/plain", 415),
        (b'{"query": "{ serviceInfo { schemaHash } }"}', "application/jsonx", 415),
        (b"query=%7B+viewer+%7D", "application/x-www-form-urlencoded", 415),
        (b" " * (8 << 20) + b"{}", "application/json", 413),
        (b'{"query": "' + b" " * (1 << 18) + b'{ x }"}', "application/json", 413),
    ],
)
async def test_what_is_no_graphql_request_is_a_clear_4xx(client, body, content_type, status):
    answer = await client.post("/graphql", content=body, headers={"content-type": content_type})

    assert answer.status_code == status
    assert [error["extensions"]["code"] for error in answer.json()["errors"]] == ["BAD_REQUEST"]


async def test_the_answer_comes_in_the_type_that_was_asked_for(client):
    query = {"query": "{ serviceInfo { limits { maxPageSize } } }"}

    plain = await client.post("/graphql", json=query, headers={"accept": "application/json"})
    standard = await client.post("/graphql", json=query, headers={"accept": STANDARD})
    neither = await client.post("/graphql", json=query, headers={"accept": "image/png"})

    assert plain.headers["content-type"] == "application/json; charset=utf-8"
    assert standard.headers["content-type"] == f"{STANDARD}; charset=utf-8"
    assert plain.json()["data"] == standard.json()["data"] == {"serviceInfo": {"limits": {"maxPageSize": 100}}}
    assert neither.status_code == 406


async def test_a_document_that_is_not_valid_is_a_400_in_the_standard_type_only(client):
    query = {"query": "{ nothing }"}

    plain = await client.post("/graphql", json=query, headers={"accept": "application/json"})
    standard = await client.post("/graphql", json=query, headers={"accept": STANDARD})

    assert (plain.status_code, standard.status_code) == (200, 400)
    assert "data" not in plain.json()
    assert "data" not in standard.json()
    assert standard.json()["errors"][0]["extensions"] == {"code": "BAD_REQUEST"}


async def test_get_runs_queries_and_no_mutation(client, db):
    query = await client.get("/graphql", params={"query": "{ serviceInfo { limits { maxDepth } } }"})
    mutation = await client.get("/graphql", params={"query": "mutation { logout(input: {}) { revokedSessions } }"})

    assert query.json()["data"] == {"serviceInfo": {"limits": {"maxDepth": 12}}}
    assert mutation.json()["errors"][0]["message"] == "A mutation is sent by POST."


async def test_the_schema_is_for_those_who_signed_in(client, admin, token_of):
    query = "{ __schema { queryType { name } } }"

    outside = await post(client, query)
    inside = await post(client, query, token_of(admin))

    assert outside["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    assert inside == {"data": {"__schema": {"queryType": {"name": "Query"}}}}


@pytest.mark.parametrize(
    ("introspection", "outside", "viewer", "admin_"),
    [
        ("public", None, None, None),
        ("signed-in", "UNAUTHENTICATED", None, None),
        ("system-read", "UNAUTHENTICATED", "FORBIDDEN", None),
        ("off", "FORBIDDEN", "FORBIDDEN", "FORBIDDEN"),
    ],
)
async def test_who_may_introspect_is_a_setting_and_a_permission(
    services, caller, admin, introspection, outside, viewer, admin_
):
    services = replace(services, introspection=introspection)
    query = '{ __type(name: "Query") { name } }'
    for principal, code in ((None, outside), (await caller("Viewer"), viewer), (admin, admin_)):
        response, _ = await respond(
            query, None, None, Context(services=services, request=Request(request_id="test"), principal=principal)
        )
        if code is None:
            assert response["data"] == {"__type": {"name": "Query"}}
        else:
            assert response["data"] is None
            assert [error["extensions"]["code"] for error in response["errors"]] == [code]


async def test_health_tells_everybody_the_status_and_operators_the_parts(client, admin, caller, token_of):
    query = "{ health { status version components { name status } } }"

    outside = await post(client, query)
    inside = await post(client, query, token_of(admin))

    assert outside["data"]["health"] == {"status": "DEGRADED", "version": None, "components": None}
    assert {part["name"]: part["status"] for part in inside["data"]["health"]["components"]} == {
        "database": "OK",
        "redis": "OK",
        "storage": "OK",
        "worker": "DEGRADED",
    }
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).status_code == 200


async def test_every_answer_carries_the_id_of_its_request(client):
    answer = await client.post(
        "/graphql", json={"query": "{ serviceInfo { schemaHash } }"}, headers={"x-request-id": "mine-1"}
    )

    assert answer.headers["x-request-id"] == "mine-1"


async def test_a_browser_gets_the_explorer_and_a_program_does_not(client):
    page = await client.get("/graphql", headers={"accept": "text/html,application/xhtml+xml"})
    program = await client.get("/graphql", headers={"accept": "application/json"})

    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert program.status_code == 400


async def test_metrics_tell_each_operation_with_its_statements(client, admin, token_of):
    def statements(lines):
        return sum(float(line.split()[-1]) for line in lines if line.startswith("headai_operation_statements_sum"))

    before = statements((await client.get("/metrics")).text.splitlines())
    await post(client, "query Projects { projects { nodes { slug } totalCount } }", token_of(admin))

    lines = (await client.get("/metrics")).text.splitlines()

    assert 'headai_operations_total{kind="query",name="Projects",outcome="ok"} 1.0' in lines
    assert statements(lines) - before == 2
