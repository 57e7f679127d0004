"""What no caller should send, through every shared way in: each is refused in words, nowhere a fault of ours."""

from base64 import urlsafe_b64encode
from contextlib import aclosing

import orjson
import pytest
from httpx import AsyncClient

from db import events
from db.ids import Kind, global_id, new_id
from schema.execution import respond, stream

BIG = "9" * 5000
UNSTORABLE = "holds a character that cannot be stored: NUL, or half of a surrogate pair."


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("query ($t: String!) { users(filter: { username: { eq: $t } }) { nodes { id } } }", "filter.username.eq"),
        ("query ($t: String!) { datasets(filter: { name: { in: [$t] } }) { nodes { id } } }", "filter.name.in.0"),
        ("query ($t: String!) { models(filter: { tags: [{ key: $t }] }) { nodes { id } } }", "filter.tags.0.key"),
        ("query ($t: String!) { project(slug: $t) { id } }", "slug"),
        ("query ($t: String!) { user(username: $t) { id } }", "username"),
        ("query ($t: String!) { role(name: $t) { id } }", "name"),
        ("query ($t: String!) { metricNames(scope: RUN, prefix: $t) }", "prefix"),
        (
            'query ($t: JSON!) { trainingRuns(filter: { not: { params: [{ name: "a", eq: { a: [$t] } }] } }) '
            "{ nodes { id } } }",
            "filter.not.params.0.eq",
        ),
        (
            'query ($t: JSON!) { trainingRuns(filter: { params: [{ name: "a", in: [1, $t] }] }) { nodes { id } } }',
            "filter.params.0.in.1",
        ),
    ],
)
async def test_a_text_that_cannot_be_stored_is_refused_where_it_is(execute, admin, query, path, text):
    refused = await execute(query, principal=admin, t=text)

    (error,) = refused["errors"]
    assert error["message"] == f"`{path}` {UNSTORABLE}"
    assert error["extensions"] == {"code": "BAD_REQUEST", "userCode": "INVALID"}


@pytest.mark.parametrize(
    ("mutation", "type", "given", "path"),
    [
        ("login", "LoginInput", {"username": "a\0", "password": "x"}, ["username"]),
        ("refreshTokens", "RefreshTokensInput", {"refreshToken": "\0"}, ["refreshToken"]),
        ("createUser", "CreateUserInput", {"username": "bob", "email": "b@x.org", "displayName": "\0"},
         ["displayName"]),
        ("createProject", "CreateProjectInput", {"slug": "p2", "name": "p", "tags": [{"key": "\0", "value": ""}]},
         ["tags", "0", "key"]),
        ("removeModelAlias", "RemoveModelAliasInput", {"modelId": "x", "alias": "\0"}, ["alias"]),
        ("predict", "PredictInput", {"model": {"alias": {"modelId": "x", "alias": "\0"}}, "rows": [{}]},
         ["model", "alias", "alias"]),
    ],
)  # fmt: skip
async def test_a_mutation_names_the_text_that_cannot_be_stored(execute, admin, mutation, type, given, path):
    query = f"mutation ($i: {type}!) {{ {mutation}(input: $i) {{ errors {{ __typename code message path }} }} }}"

    payload = (await execute(query, principal=admin, i=given))["data"][mutation]

    assert payload["errors"] == [
        {"__typename": "ValidationError", "code": "INVALID", "message": f"{path[-1]} {UNSTORABLE}",
         "path": ["input", *path]}
    ]  # fmt: skip


async def test_an_id_that_cannot_be_stored_names_nothing(execute, admin):
    assert (await execute("query ($id: ID!) { node(id: $id) { id } }", principal=admin, id="a\0"))["data"] == {
        "node": None
    }


@pytest.mark.parametrize("ending", ["\n", " ", "\u2028"])
async def test_a_pattern_binds_the_whole_text(execute, admin, ending):
    query = "mutation ($i: CreateUserInput!) { createUser(input: $i) { user { id } errors { code path } } }"

    payload = (await execute(query, principal=admin, i={"username": f"bob{ending}", "email": "b@x.org"}))["data"]

    assert payload["createUser"] == {"user": None, "errors": [{"code": "OUT_OF_RANGE", "path": ["input", "username"]}]}


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00", "2026-01-01", ""]
)
async def test_an_instant_outside_of_the_calendar_is_refused(execute, admin, moment):
    query = "query ($at: DateTime!) { datasets(filter: { createdAt: { gte: $at } }) { nodes { id } } }"

    (error,) = (await execute(query, principal=admin, at=moment))["errors"]

    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert "A DateTime is written as RFC 3339 has it, with a time zone: 2026-01-31T12:00:00Z." in error["message"]


@pytest.mark.parametrize("number", [BIG, f"-{BIG}"])
async def test_an_integer_of_thousands_of_digits_is_refused(execute, admin, number):
    refused = await execute(f"{{ datasets(first: {number}) {{ nodes {{ id }} }} }}", principal=admin)

    (error,) = refused["errors"]
    assert error["message"] == "This value cannot be read as its type: it is too large."
    assert error["extensions"] == {"code": "BAD_REQUEST"}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("9" * 30, "holds an integer of more than 64 bits."),
        ("{ a: [-1e999] }", "holds a number that is not finite."),
    ],
)
async def test_a_number_in_json_that_cannot_be_stored_is_refused(execute, admin, project, number, message):
    project_id = global_id(Kind.PROJECT, project.id)
    listed = await execute(
        f'{{ trainingRuns(filter: {{ params: [{{ name: "a", eq: {number} }}] }}) {{ nodes {{ id }} }} }}',
        principal=admin,
    )
    created = await execute(
        f'mutation {{ createTrainingRun(input: {{ projectId: "{project_id}", spec: {{ task: REGRESSION, '
        f"params: {{ alpha: {number} }} }} }}) {{ errors {{ code message path }} }} }}",
        principal=admin,
    )

    assert [error["message"] for error in listed["errors"]] == [f"`filter.params.0.eq` {message}"]
    assert created["data"]["createTrainingRun"]["errors"] == [
        {"code": "INVALID", "message": f"params {message}", "path": ["input", "spec", "params"]}
    ]


@pytest.mark.parametrize(
    ("order", "keys"),
    [
        ("NAME", ["a\0", str(new_id())]),
        ("NAME", ["a", 5]),
        ("NAME", ["a", {}]),
        ("NAME", [None, str(new_id())]),
        ("CREATED_AT", [5, str(new_id())]),
        ("CREATED_AT", ["2026-01-01T00:00:00", str(new_id())]),
        ("CREATED_AT", ["0001-01-01T00:00:00+14:00", str(new_id())]),
        ("CREATED_AT", ["9999-12-31T23:59:59-14:00", str(new_id())]),
    ],
)
async def test_a_made_up_cursor_is_no_cursor(execute, admin, order, keys):
    page = f"projects(orderBy: {{ field: {order} }}, first: 1, after: $after)"
    query = f"query ($after: String!) {{ {page} {{ nodes {{ id }} }} }}"

    refused = await execute(query, principal=admin, after=cursor_of(f"{order}:asc", *keys))

    assert [error["extensions"] for error in refused["errors"]] == [
        {"code": "BAD_REQUEST", "userCode": "CURSOR_INVALID"}
    ]


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**63, True, 1.5])
async def test_a_made_up_number_in_a_cursor_is_no_cursor(execute, admin, project, number):
    made = await execute(
        "mutation ($i: CreateModelInput!) { createModel(input: $i) { model { id } } }",
        principal=admin,
        i={"projectId": global_id(Kind.PROJECT, project.id), "name": "m", "task": "REGRESSION"},
    )
    query = (
        "query ($id: ID!, $after: String!) { model(id: $id) { versions(first: 1, after: $after) { nodes { id } } } }"
    )

    refused = await execute(
        query,
        principal=admin,
        id=made["data"]["createModel"]["model"]["id"],
        after=cursor_of("NUMBER:desc", number, str(new_id())),
    )

    assert [error["extensions"] for error in refused["errors"]] == [
        {"code": "BAD_REQUEST", "userCode": "CURSOR_INVALID"}
    ]


STREAMS = [
    'metricPoints(selector: {{ scope: RUN, names: ["*"] }}, after: {after}) {{ kind }}',
    "trainingRunUpdated(after: {after}) {{ kind }}",
    'datasetVersionUpdated(id: "x", after: {after}) {{ kind }}',
    "events(after: {after}) {{ __typename }}",
]


@pytest.mark.parametrize("field", STREAMS)
@pytest.mark.parametrize("place", ["7" + "f" * 31, f"{2**62:016x}" + "0" * 16, "f" * 32, "", "HEAD "])
async def test_a_stream_does_not_go_on_from_a_place_it_never_had(services, context_of, admin, field, place):
    query = f"subscription {{ {field.format(after=orjson.dumps(services.epoch.hex[:8] + place).decode())} }}"

    async with aclosing(stream(query, None, None, context_of(admin))) as answers:
        response, _ = await anext(answers)

    assert [error["extensions"] for error in response["errors"]] == [
        {"code": "BAD_REQUEST", "userCode": "CURSOR_INVALID"}
    ]


@pytest.mark.parametrize("place", ["0" * 32, "{now}~ffffffffffff~5"])
async def test_a_moment_that_never_was_is_no_cursor_of_points(services, db, context_of, admin, place):
    async with db.reading() as session:
        now = f"{(await events.head(session)).changed:016x}" + "0" * 16
    field = STREAMS[0].format(after=orjson.dumps(services.epoch.hex[:8] + place.format(now=now)).decode())

    async with aclosing(stream(f"subscription {{ {field} }}", None, None, context_of(admin))) as answers:
        response, _ = await anext(answers)

    assert [error["extensions"]["userCode"] for error in response["errors"]] == ["CURSOR_INVALID"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("C", "The document has no operation named `C`."),
        (None, "The document has several operations: name the one to run by `operationName`."),
    ],
)
async def test_the_operation_to_run_has_to_be_said(context_of, admin, name, message):
    query = "query A { __typename } mutation B { logout(input: {}) { revokedSessions } }"
    refusal = {"message": message, "extensions": {"code": "BAD_REQUEST"}}

    at_once, _ = await respond(query, None, name, context_of(admin))
    async with aclosing(stream(query, None, name, context_of(admin))) as answers:
        streamed = [response async for response, _ in answers]

    assert at_once == {"data": None, "errors": [refusal]}
    assert streamed == [at_once]


async def test_the_largest_batch_of_points_fits_into_a_request(server, admin, project, token_of):
    several = 100_000
    series = {
        "scope": "BUSINESS",
        "name": "load",
        "steps": list(range(several)),
        "at": list(range(1_800_000_000_000, 1_800_000_000_000 + several)),
        "values": [number / 3 for number in range(several)],
    }
    async with AsyncClient(base_url=server, timeout=60) as client:
        answer = await client.post(
            "/graphql",
            json={
                "query": "mutation ($i: IngestMetricsInput!) "
                "{ ingestMetrics(input: $i) { accepted errors { message } } }",
                "variables": {"i": {"projectId": global_id(Kind.PROJECT, project.id), "series": [series]}},
            },
            headers={"authorization": f"Bearer {token_of(admin)}"},
        )

    assert answer.json()["data"]["ingestMetrics"] == {"accepted": several, "errors": []}


async def test_json_is_nested_only_so_deep(execute, admin, project):
    deep = 1
    for _ in range(500):
        deep = {"a": deep}
    query = 'query ($j: JSON!) { trainingRuns(filter: { params: [{ name: "a", eq: $j }] }) { nodes { id } } }'

    refused = await execute(query, principal=admin, j=deep)

    assert [error["message"] for error in refused["errors"]] == ["`filter.params.0.eq` is nested more than 32 deep."]
    given = {"projectId": global_id(Kind.PROJECT, project.id), "spec": {"task": "REGRESSION", "params": {"a": deep}}}
    create = "mutation ($i: CreateTrainingRunInput!) { createTrainingRun(input: $i) { errors { message path } } }"
    assert (await execute(create, principal=admin, i=given))["data"]["createTrainingRun"]["errors"] == [
        {"message": "params is nested more than 32 deep.", "path": ["input", "spec", "params"]}
    ]


async def test_a_filter_has_only_so_many_conditions(execute, admin):
    query = "query ($f: TrainingRunFilter!) { trainingRuns(filter: $f) { nodes { id } } }"

    refused = await execute(query, principal=admin, f={"metrics": [{"name": "a", "value": {"gt": 1}}] * 101})

    assert refused["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": "OUT_OF_RANGE"}


def cursor_of(*parts: object) -> str:
    return urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")
