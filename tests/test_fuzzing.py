"""Anything at all, sent to every way in: it is answered, never with a fault of ours, and the next caller is served.

    pytest tests/test_fuzzing.py --fuzz-examples 20000

looks longer, each time elsewhere. What is known to be hard, and what was found once, is in the lists `HARD_…`.
"""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
import websockets
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schema.execution import respond

FEW = 60
CODES = {"BAD_REQUEST", "UNAUTHENTICATED", "FORBIDDEN", "COST_LIMIT", "RATE_LIMITED"}
ASYNCPG_CANCELED = "unexpected connection_lost() call"
"""What asyncpg leaves to the loop when a task that opens a connection is canceled: its socket was closed."""
LEAKS = ("Traceback", "site-packages", "sqlalchemy", "asyncpg", "graphql-core", ".py")

texts = st.text(max_size=12)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)

# Documents: mostly of the right form, of fields that are there and fields that are not, with fragments that meet.
names = st.sampled_from(
    ["viewer", "user", "projects", "nodes", "id", "name", "events", "serviceInfo", "limits", "__typename", "__schema",
     "datasets", "node", "edges", "cursor", "totalCount", "rateLimit", "x"]
)  # fmt: skip
types = st.sampled_from(["Query", "Project", "Dataset", "Node", "Event", "ProjectConnection", "Nothing", "Int", "ID"])
fragments = st.sampled_from(["A", "B", "C"])
literals = st.recursive(
    st.one_of(
        st.sampled_from(["1", "-1", "0", "1e9", "1e999", "9" * 30, "null", "true", "NAME", "$v", "$w", '""', '"x"']),
        texts.map(lambda text: json.dumps(text)),
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(inner, max_size=2).map(
            lambda items: "{" + ", ".join(f"a{n}: {i}" for n, i in enumerate(items)) + "}"
        )
    ),
    max_leaves=4,
)
arguments = st.one_of(
    st.just(""),
    st.tuples(st.sampled_from(["first", "last", "after", "id", "filter", "input", "x"]), literals).map(
        lambda given: f"({given[0]}: {given[1]})"
    ),
)
directives = st.sampled_from(["", "", " @skip(if: true)", " @include(if: $v)", " @x", " @skip(if: true)" * 9])
aliases = st.sampled_from(["", "", "", "a: ", "b: "])


def selections(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = st.one_of(
        st.tuples(aliases, names, arguments, directives, inner).map("".join),
        st.tuples(fragments, directives).map(lambda spread: f"...{spread[0]}{spread[1]}"),
        st.tuples(types, directives, inner).map(lambda given: f"... on {given[0]}{given[1]} {given[2] or '{ id }'}"),
    )
    return st.lists(one, min_size=1, max_size=4).map(lambda parts: " { " + " ".join(parts) + " }")


bodies = st.recursive(st.just(""), selections, max_leaves=8).map(lambda body: body or " { __typename }")
definitions = st.one_of(
    st.tuples(
        st.sampled_from(
            ["", "query", "query Q", "query ($v: Boolean!)", "mutation", "subscription", "query ($v: Int = 5)"]
        ),
        bodies,
    ).map(" ".join),
    st.tuples(fragments, types, bodies).map(lambda given: f"fragment {given[0]} on {given[1]} {given[2]}"),
)
documents = st.one_of(
    st.lists(definitions, min_size=1, max_size=5).map(" ".join),
    st.text(max_size=60),
    st.text(alphabet='{}()[]:!$@|&=.,"\\#\n ab1-', max_size=80),
)

operations = st.one_of(
    st.fixed_dictionaries(
        {"query": documents | values},
        optional={"variables": values, "operationName": scalars, "extensions": values},
    ),
    values,
)
requests = st.one_of(
    operations.map(lambda given: json.dumps(given).encode()),
    st.binary(max_size=200),
    st.tuples(operations, st.integers(0, 200), st.binary(max_size=3)).map(
        lambda given: cut_in(json.dumps(given[0]).encode(), given[1], given[2])
    ),
)
content_types = st.one_of(
    st.sampled_from(["application/json"] * 6 + ["application/json; charset=utf-8", "application/json;charset=latin-1"]),
    st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
)
messages = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["subscribe"] * 6 + ["ping", "pong", "complete", "connection_init", "next"])},
        optional={"id": st.sampled_from(["1", "2", "3", "", 5]), "payload": operations},
    ).map(json.dumps),
    st.tuples(st.sampled_from(["1", "2"]), documents).map(
        lambda given: json.dumps({"id": given[0], "type": "subscribe", "payload": {"query": given[1]}})
    ),
    values.map(json.dumps),
    texts,
    st.binary(max_size=20),
)
CLOSES = {4400, 4403, 4409, 4429}

HARD_DOCUMENTS = [
    "{" + "... { " * 320 + "__typename" + "}" * 321,
    "{ node(id: " + "[" * 480 + "]" * 480 + ") { id } }",
    "{ node(id: " + "{a:" * 240 + "1" + "}" * 240 + ") { id } }",
    "query ($a: " + "[" * 480 + "Int" + "]" * 480 + ") { __typename }",
    "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
    '{ node(id: "' + "\\u0041" * 40_000 + '") { id } }',
    "{ projects(first: " + "9" * 200_000 + ") { totalCount } }",
    "{ projects(first: 1." + "9" * 200_000 + ") { totalCount } }",
    '{ node(id: "\\ud800") { id } }',
    "\ufeff{ __typename }",
]
HARD_REQUESTS = [
    (body, "application/json")
    for body in (
        b"5", b"null", b'"x"', b"[]", b"[" * 100_000, b'{"query": "\xff"}',
        b'{"query": "{ __typename }", "variables": NaN}',
        b'{"query": "query ($a: Int) { users(first: $a) { totalCount } }", "variables": {"a": ' + b"9" * 5000 + b"}}",
        b'{"query": "{ __typename }", "variables": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b'{"query": "query ($a: JSON!) { node(id: $a) { id } }", "variables": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"query": "{ __typename }", "operationName": "\\ud800"}', b"\xef\xbb\xbf{}",
    )
]  # fmt: skip
HARD_CONVERSATIONS: list[list[str | bytes]] = [
    ["5"], [b"{}"], ["[" * 50_000], [json.dumps({"id": "1", "type": "subscribe", "payload": {"query": "{ viewer "}})],
    ['{"id": "1", "type": "subscribe", "payload": {"query": "subscription { events(after: 5) { __typename } }"}}'],
    ['{"id": "\\ud800", "type": "subscribe", "payload": {"query": "{ __typename }"}}'],
]  # fmt: skip


def cut_in(text: bytes, place: int, instead: bytes) -> bytes:
    return text[:place] + instead + text[place + len(instead) :]


@pytest.fixture
def explore(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Any:
    """`await explore(check, examples, found)`: await `check` of many of them, and of all that were found before."""
    number = request.config.getoption("--fuzz-examples")

    async def run(check: Any, examples: st.SearchStrategy[Any], found: list[Any]) -> None:
        loop = asyncio.get_running_loop()

        def one(drawn: Any) -> None:
            caplog.clear()
            asyncio.run_coroutine_threadsafe(check(drawn), loop).result(timeout=60)
            said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
            assert [message for message in said if ASYNCPG_CANCELED not in message] == []

        test = given(examples)(one)
        for known in found:
            test = example(known)(test)
        test = settings(
            max_examples=number,
            derandomize=number == FEW,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )(test)
        await asyncio.to_thread(test)

    return run


def assert_clean(response: dict[str, Any]) -> None:
    for error in response.get("errors", ()):
        assert error["extensions"]["code"] in CODES, error
        assert not any(leak in error["message"] for leak in LEAKS), error


@pytest.mark.timeout(3600)
async def test_documents(explore, context_of, admin):
    async def check(document: str) -> None:
        response, _ = await respond(document, {"v": True, "w": [1]}, None, context_of(admin))
        assert_clean(response)
        assert response.get("errors") or response["data"] is not None

    await explore(check, documents.filter(str.strip), HARD_DOCUMENTS)


@pytest.mark.timeout(3600)
async def test_requests(explore, server, admin, token_of):
    async with httpx.AsyncClient(base_url=server, timeout=60) as client:
        headers = {"authorization": f"Bearer {token_of(admin)}"}

        async def check(sent: tuple[bytes, str]) -> None:
            body, content_type = sent
            answer = await client.post("/graphql", content=body, headers={**headers, "content-type": content_type})
            assert answer.status_code in (200, 400, 413, 415), answer.text
            assert_clean(answer.json())

        await explore(check, st.tuples(requests, content_types), HARD_REQUESTS)
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.timeout(3600)
async def test_raw_bytes(explore, server, db):
    host, port = server.removeprefix("http://").split(":")
    heads = st.one_of(
        st.binary(max_size=200),
        st.tuples(st.sampled_from(["GET", "POST", "PUT", "X"]), texts, st.binary(max_size=40)).map(
            lambda given: f"{given[0]} /graphql{given[1]} HTTP/1.1\r\nhost: a\r\n".encode() + given[2] + b"\r\n\r\n"
        ),
    )

    async def check(sent: bytes) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        writer.write_eof()
        try:
            async with asyncio.timeout(60):
                answer = await reader.read()
        except ConnectionError:
            answer = b""
        writer.close()
        assert not answer.startswith(b"HTTP/1.1 5"), answer
        assert b"Traceback" not in answer

    await explore(check, heads, [])
    async with httpx.AsyncClient(base_url=server) as client:
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.timeout(3600)
async def test_conversations(explore, server, admin, token_of):
    address = server.replace("http://", "ws://") + "/graphql"
    init = json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token_of(admin)}"}})

    async def check(conversation: list[str | bytes]) -> None:
        async with (
            asyncio.timeout(60),
            websockets.connect(address, subprotocols=["graphql-transport-ws"], compression=None) as socket,
        ):
            await socket.send(init)
            assert json.loads(await socket.recv()) == {"type": "connection_ack"}
            try:
                for message in conversation:
                    await socket.send(message)
                await socket.send('{"type": "ping"}')
                while (answer := json.loads(await socket.recv()))["type"] != "pong":
                    payload = answer.get("payload", {})
                    assert_clean({"errors": payload} if isinstance(payload, list) else payload)
            except websockets.ConnectionClosed:
                assert socket.close_code in CLOSES

    await explore(check, st.lists(messages, max_size=6), HARD_CONVERSATIONS)
    async with httpx.AsyncClient(base_url=server) as client:
        assert (await client.get("/healthz")).status_code == 200
