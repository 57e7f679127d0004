"""Operations over server-sent events: graphql-sse in its mode of distinct connections."""

import asyncio
import json

import httpx
import pytest

from domain.projects import create_project
from headai import sse

WATCH = """
subscription ($after: String) {
  events(filter: { types: [PROJECT_CREATED] }, after: $after) {
    __typename
    ... on Event { cursor subject { ... on Project { slug } } }
    ... on StreamCaughtUp { cursor }
  }
}
"""


@pytest.fixture
async def client(server, admin, token_of):
    headers = {"authorization": f"Bearer {token_of(admin)}"}
    async with httpx.AsyncClient(base_url=server, headers=headers, timeout=60) as opened:
        yield opened


@pytest.fixture
def create(db, admin):
    async def one(slug):
        async with db.transaction() as session:
            await create_project(session, admin, slug=slug, name=slug, description=None, tags=[])

    return one


def stream(client, query, headers=None, **variables):
    body = {"query": query, "variables": variables}
    return client.stream("POST", "/graphql/stream", json=body, headers=headers)


async def event(lines):
    """The next event: its fields by name."""
    fields = {}
    async with asyncio.timeout(60):
        async for line in lines:
            if not line and fields:
                return fields
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.strip()
    return fields


def answer(fields):
    body = json.loads(fields["data"])
    body.pop("extensions", None)
    return body


async def test_a_query_is_one_event_and_complete(client):
    async with stream(client, "{ viewer { user { username } } }") as opened:
        lines = opened.aiter_lines()
        first, last = await event(lines), await event(lines)
        rest = [line async for line in lines]

    assert opened.status_code == 200
    assert opened.headers["content-type"].startswith("text/event-stream")
    assert (opened.headers["cache-control"], opened.headers["x-accel-buffering"]) == ("no-store", "no")
    assert (first["event"], answer(first)) == ("next", {"data": {"viewer": {"user": {"username": "ada"}}}})
    assert "id" not in first
    assert last == {"event": "complete", "data": ""}
    assert rest == []


async def test_a_mutation_runs(client):
    async with stream(
        client, 'mutation { createProject(input: { slug: "lab-two", name: "P" }) { project { slug } } }'
    ) as sent:
        first = await event(sent.aiter_lines())

    assert answer(first) == {"data": {"createProject": {"project": {"slug": "lab-two"}}}}


async def test_the_cursor_is_the_id_and_last_event_id_goes_on_after_it(client, create):
    async with stream(client, WATCH) as opened:
        lines = opened.aiter_lines()
        caught_up = await event(lines)
        await create("one")
        one = await event(lines)
    await create("two")
    async with stream(client, WATCH, headers={"last-event-id": one["id"]}) as opened:
        lines = opened.aiter_lines()
        two, again = await event(lines), await event(lines)

    assert caught_up["id"] == answer(caught_up)["data"]["events"]["cursor"]
    assert answer(one)["data"]["events"] == {"__typename": "Event", "cursor": one["id"], "subject": {"slug": "one"}}
    assert answer(two)["data"]["events"] == {"__typename": "Event", "cursor": two["id"], "subject": {"slug": "two"}}
    assert answer(again)["data"]["events"]["__typename"] == "StreamCaughtUp"


async def test_get_takes_the_operation_from_the_query_string(client):
    async with client.stream("GET", "/graphql/stream", params={"query": WATCH}) as opened:
        assert answer(await event(opened.aiter_lines()))["data"]["events"]["__typename"] == "StreamCaughtUp"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ viewer ", "Syntax Error: Expected Name, found <EOF>."),
        ("{ nothing }", "Cannot query field 'nothing' on type 'Query'."),
        ("query ($a: Int!) { users(first: $a) { totalCount } }",
         "Variable '$a' has invalid value: Expected a value of non-null type 'Int!' to be provided."),
    ],
)  # fmt: skip
async def test_what_is_refused_before_it_runs_is_an_event_with_errors_and_no_data(client, query, message):
    async with stream(client, query) as opened:
        lines = opened.aiter_lines()
        first, last = await event(lines), await event(lines)

    assert opened.status_code == 200
    assert answer(first).keys() == {"errors"}
    assert [error["message"] for error in answer(first)["errors"]] == [message]
    assert last["event"] == "complete"


async def test_silence_is_broken_by_comments(client, monkeypatch):
    monkeypatch.setattr(sse, "SIGN_OF_LIFE_SECONDS", 0.05)
    async with stream(client, WATCH) as opened:
        lines = opened.aiter_lines()
        await event(lines)
        async with asyncio.timeout(60):
            assert await anext(lines) == ":"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"accept": "application/json"}, b'{"query": "{ __typename }"}', 406),
        ({"content-type": "text/plain"}, b'{"query": "{ __typename }"}', 415),
        ({}, b"5", 400),
        ({}, b'{"query": 5}', 400),
        ({}, b'{"query": "\xff"}', 400),
    ],
)
async def test_what_is_no_request_is_a_4xx(client, headers, body, status):
    sent = await client.post("/graphql/stream", content=body, headers={"content-type": "application/json", **headers})

    assert sent.status_code == status
    assert [error["extensions"]["code"] for error in sent.json()["errors"]] == ["BAD_REQUEST"]


async def test_without_credentials_the_event_says_so(client):
    async with stream(client, WATCH, headers={"authorization": ""}) as opened:
        first = await event(opened.aiter_lines())

    assert [error["extensions"] for error in answer(first)["errors"]] == [{"code": "UNAUTHENTICATED"}]
