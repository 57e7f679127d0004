"""Open streams and the rights of their readers: what is lost ends or narrows them, on every server, at once."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import websockets
from sqlalchemy import delete, func, text, update

from db.grants import CALLERS
from db.ids import Kind, global_id, key_of
from db.tables import grants
from events.wakeups import Wakeups
from resolvers.streams import followed
from schema.build import SUBSCRIPTIONS
from tests.serving import served
from tests.test_grants import CREATE as GRANT
from tests.test_grants import REVOKE, again, role_id
from tests.test_visibility import two  # noqa: F401  (a fixture)

RUN = """
mutation ($project: ID!, $name: String!) {
  createTrainingRun(input: {projectId: $project, name: $name, spec: {task: REGRESSION, algorithm: EXTERNAL}}) {
    trainingRun { id } errors { message }
  }
}
"""
RENAME = "mutation ($id: ID!, $name: String) { updateTrainingRun(input: {id: $id, name: $name}) { errors { code } } }"
WATCH_RUN = """
subscription ($id: ID!, $after: String) {
  trainingRunUpdated(id: $id, after: $after) { kind cursor trainingRun { name } }
}
"""
WATCH_RUNS = "subscription { trainingRunUpdated { kind cursor trainingRun { name } } }"
WATCH_LOGS = "subscription ($id: ID!) { trainingRunLogs(id: $id) { kind cursor } }"
WATCH_METRICS = """
subscription ($id: ID!) { metricPoints(selector: {scope: RUN, names: ["*"], runIds: [$id]}) { kind cursor } }
"""
WATCH_EVENTS = """
subscription {
  events {
    __typename
    ... on Event { type subjectId cursor } ... on StreamCaughtUp { cursor }
    ... on StreamGap { reason from: fromCursor toCursor missedAtLeast }
  }
}
"""
VIEWER = "{ viewer { user { username } } }"
FORBIDDEN = "FORBIDDEN"


class Socket:
    """A signed-in socket. `next(name)` is the next message about one operation, whatever comes for others meanwhile."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._waiting: dict[str, list[dict[str, Any]]] = {}

    async def subscribe(self, name: str, query: str, /, **variables: Any) -> None:
        payload = {"query": query, "variables": variables}
        await self._connection.send(json.dumps({"id": name, "type": "subscribe", "payload": payload}))

    async def next(self, name: str) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while not self._waiting.get(name):
                message = json.loads(await self._connection.recv())
                self._waiting.setdefault(message["id"], []).append(message)
        return self._waiting[name].pop(0)

    async def item(self, name: str) -> dict[str, Any]:
        message = await self.next(name)
        assert message["type"] == "next", message
        (value,) = message["payload"]["data"].values()
        return value

    async def until(self, name: str, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The items up to the first one that is wanted."""
        items = [await self.item(name)]
        while not wanted(items[-1]):
            items.append(await self.item(name))
        return items

    async def forbidden(self, name: str) -> dict[str, Any]:
        """The extensions of the error with which a stream ends, after what was on its way already."""
        message = await self.next(name)
        while message["type"] == "next" and "errors" not in message["payload"]:
            message = await self.next(name)
        errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
        if message["type"] == "next":
            assert (await self.next(name))["type"] == "complete"
        (error,) = errors
        assert error["extensions"]["code"] == FORBIDDEN
        return error["extensions"]


@pytest.fixture
def connect(token_of):
    @asynccontextmanager
    async def opened(url: str, principal: Any) -> AsyncIterator[Socket]:
        address = url.replace("http://", "ws://") + "/graphql"
        async with websockets.connect(address, subprotocols=["graphql-transport-ws"]) as connection:
            payload = {"authorization": f"Bearer {token_of(principal)}"}
            await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
            async with asyncio.timeout(30):
                assert json.loads(await connection.recv()) == {"type": "connection_ack"}
            yield Socket(connection)

    return opened


@pytest.fixture
def grant(execute, admin, db):
    async def made(holder, what, place=None):
        given = {"roleId": await role_id(db, what)} if isinstance(what, str) else {"permissions": what}
        input = {"principalId": holder, "what": given, "scopeId": place}
        answer = (await execute(GRANT, principal=admin, input=input))["data"]["createGrant"]
        assert answer["errors"] == []
        return answer["grant"]["id"]

    return made


@pytest.fixture
def revoke(execute, admin):
    async def made(id):
        answer = await execute(REVOKE, principal=admin, input={"id": id})
        assert answer["data"]["revokeGrant"]["errors"] == []

    return made


@pytest.fixture
def run_in(execute, admin):
    async def made(place, name="r"):
        answer = await execute(RUN, principal=admin, project=place, name=name)
        return answer["data"]["createTrainingRun"]["trainingRun"]["id"]

    return made


@pytest.fixture
def ours(two):  # noqa: F811
    return global_id(Kind.PROJECT, two.ours.project.id)


@pytest.fixture
def theirs(two):  # noqa: F811
    return global_id(Kind.PROJECT, two.theirs.project.id)


def test_every_subscription_waits_on_a_bell_that_its_rights_ring():
    resolvers = [
        inspect.getmodule(field.base_resolver.wrapped_func)
        for root in SUBSCRIPTIONS
        for field in root.__strawberry_definition__.fields
    ]

    assert "context.watching(" in inspect.getsource(followed)
    waits = ("context.watching(", "followed(")
    sources = {module.__name__: inspect.getsource(module) for module in resolvers}
    assert {name for name, source in sources.items() if not any(wait in source for wait in waits)} == set()
    assert {module.__name__ for module in resolvers if "wakeups.watching(" in inspect.getsource(module)} == set()


async def test_a_grant_that_is_lost_ends_the_streams_it_carried_on_every_server(
    execute, admin, settings, server, connect, caller, grant, revoke, run_in, ours, theirs, monkeypatch
):
    monkeypatch.setattr(Wakeups, "patience", 3600.0)  # so that only a wake-up can do it
    bob = await caller(None, username="bob")
    user = global_id(Kind.USER, bob.user_id)
    lost, run = await grant(user, "Viewer", ours), await run_in(ours)
    await grant(user, "Viewer", theirs)
    other = await run_in(theirs, "other")
    watched = {"run": WATCH_RUN, "logs": WATCH_LOGS, "metrics": WATCH_METRICS}
    async with (
        served(settings) as second,
        connect(server, bob) as here,
        connect(second, bob) as there,
    ):
        for socket in (here, there):
            for name, query in watched.items():
                await socket.subscribe(name, query, id=run)
                assert (await socket.item(name))["kind"] == "SNAPSHOT"
            await socket.subscribe("kept", WATCH_RUN, id=other)
            await socket.item("kept")

        await revoke(lost)

        for socket in (here, there):
            for name in watched:
                assert (await socket.forbidden(name))["cursor"]
            await socket.subscribe("alive", VIEWER)
            assert (await socket.item("alive"))["user"] == {"username": "bob"}
            await socket.subscribe("again", WATCH_RUN, id=run)
            (error,) = (await socket.next("again"))["payload"]
            assert error["extensions"] == {"code": "BAD_REQUEST", "userCode": "NOT_FOUND"}

        await execute(RENAME, principal=admin, id=other, name="still seen")
        assert [(await socket.item("kept"))["trainingRun"]["name"] for socket in (here, there)] == ["still seen"] * 2


async def test_who_sees_a_run_again_goes_on_where_the_stream_ended(
    execute, admin, server, connect, caller, grant, revoke, run_in, ours
):
    bob = await caller(None, username="bob")
    user = global_id(Kind.USER, bob.user_id)
    lost, run = await grant(user, "Viewer", ours), await run_in(ours)
    async with connect(server, bob) as socket:
        await socket.subscribe("run", WATCH_RUN, id=run)
        seen = await socket.item("run")
        await revoke(lost)
        cursor = (await socket.forbidden("run"))["cursor"]
        await execute(RENAME, principal=admin, id=run, name="renamed meanwhile")
        await grant(user, "Viewer", ours)
        await socket.subscribe("on", WATCH_RUN, id=run, after=cursor)
        item = await socket.item("on")

    assert cursor == seen["cursor"]
    assert (item["kind"], item["trainingRun"]) == ("UPDATED", {"name": "renamed meanwhile"})


async def test_streams_of_many_things_tell_that_rights_changed_and_go_on_with_the_rest(
    execute, admin, server, connect, caller, grant, revoke, run_in, ours, theirs, monkeypatch
):
    monkeypatch.setattr(Wakeups, "patience", 3600.0)
    bob = await caller(None, username="bob")
    user = global_id(Kind.USER, bob.user_id)
    lost = await grant(user, "Viewer", ours)
    await grant(user, "Viewer", theirs)
    run, other = await run_in(ours, "ours"), await run_in(theirs, "theirs")
    async with connect(server, bob) as socket:
        await socket.subscribe("events", WATCH_EVENTS)
        await socket.subscribe("runs", WATCH_RUNS)
        await socket.until("events", lambda item: item["__typename"] == "StreamCaughtUp")
        named = set()
        while not named >= {"ours", "theirs"}:
            run_seen = (await socket.item("runs"))["trainingRun"]
            named.add(run_seen and run_seen["name"])

        await revoke(lost)
        gap = (await socket.until("events", lambda item: item["__typename"] == "StreamGap"))[-1]
        await socket.until("runs", lambda item: item["kind"] == "GAP" and item["trainingRun"] is None)
        await execute(RENAME, principal=admin, id=run, name="unseen")
        await execute(RENAME, principal=admin, id=other, name="seen")
        await run_in(ours, "unseen too")
        created = await run_in(theirs, "seen too")
        events = await socket.until("events", lambda item: item["subjectId"] == created)
        updates = await socket.until("runs", lambda item: item["trainingRun"]["name"] == "seen too")

    assert (gap["reason"], gap["missedAtLeast"]) == ("PERMISSION_CHANGED", None)
    assert gap["from"] == gap["toCursor"]
    assert [event["type"] for event in events] == ["RUN_CREATED"]
    assert [item["trainingRun"]["name"] for item in updates] == ["seen", "seen too"]


async def test_streams_of_many_things_end_with_the_last_of_the_rights(
    execute, admin, server, connect, caller, grant, revoke, run_in, ours, monkeypatch
):
    monkeypatch.setattr(Wakeups, "patience", 3600.0)
    bob = await caller(None, username="bob")
    lost = await grant(global_id(Kind.USER, bob.user_id), "Viewer", ours)
    await run_in(ours)
    async with connect(server, bob) as socket:
        for name, query in (("events", WATCH_EVENTS), ("runs", WATCH_RUNS)):
            await socket.subscribe(name, query)
            await socket.item(name)
        await revoke(lost)

        assert [bool((await socket.forbidden(name))["cursor"]) for name in ("events", "runs")] == [True, True]


async def test_more_rights_reach_an_open_stream(server, connect, caller, grant, run_in, ours, monkeypatch):
    monkeypatch.setattr(Wakeups, "patience", 3600.0)
    bob = await caller(None, username="bob")
    async with connect(server, bob) as socket:
        await socket.subscribe("runs", WATCH_RUNS)
        assert (await socket.item("runs"))["trainingRun"] is None
        await grant(global_id(Kind.USER, bob.user_id), "Viewer", ours)
        gap = await socket.item("runs")
        await run_in(ours, "new")
        item = await socket.item("runs")

    assert (gap["kind"], item["trainingRun"]) == ("GAP", {"name": "new"})


async def test_whatever_takes_a_right_away_ends_the_stream(
    execute, admin, server, connect, caller, grant, run_in, ours, db, monkeypatch
):
    """Leaving a team, a team that is deleted, a role that gives less, and a grant whose time is over."""
    monkeypatch.setattr(Wakeups, "patience", 3600.0)
    bob = await caller(None, username="bob")
    user, run = global_id(Kind.USER, bob.user_id), await run_in(ours)

    async def team(name: str) -> str:
        made = "mutation ($input: CreateTeamInput!) { createTeam(input: $input) { team { id } } }"
        input = {"name": name, "memberIds": [user]}
        id = (await execute(made, principal=admin, input=input))["data"]["createTeam"]["team"]["id"]
        await grant(id, "Viewer", ours)
        return id

    async def role() -> str:
        made = "mutation ($input: CreateRoleInput!) { createRole(input: $input) { role { id } } }"
        input = {"name": "Watcher", "permissions": ["RUN_READ", "MODEL_READ"]}
        id = (await execute(made, principal=admin, input=input))["data"]["createRole"]["role"]["id"]
        input = {"principalId": user, "what": {"roleId": id}, "scopeId": ours}
        await execute(GRANT, principal=admin, input=input)
        return id

    async def directly() -> str:
        return await grant(user, "Viewer", ours)

    async def soon_over(id: str) -> None:
        async with db.transaction() as session:
            soon = func.now() + text("interval '0.5 seconds'")
            await session.run(update(grants).where(grants.c.id == key_of(id, Kind.GRANT)).values(expires_at=soon))
            session.topics.add(CALLERS)

    leave = "mutation ($id: ID!) { updateTeam(input: {id: $id, removeMemberIds: [%s]}) { errors { code } } }"
    disband = "mutation ($id: ID!) { deleteTeam(input: {id: $id}) { errors { code } } }"
    less = "mutation ($id: ID!) { updateRole(input: {id: $id, permissions: [MODEL_READ]}) { errors { code } } }"
    ways = (
        (lambda: team("Vision"), leave % f'"{user}"'),
        (lambda: team("Sound"), disband),
        (role, less),
        (directly, None),
    )
    async with connect(server, bob) as socket:
        for number, (given, taken) in enumerate(ways):
            id = await given()
            await socket.subscribe(str(number), WATCH_RUN, id=run)
            await socket.item(str(number))
            if taken is None:
                await soon_over(id)
            else:
                assert "errors" not in await execute(taken, principal=admin, id=id)
            await socket.forbidden(str(number))


async def test_an_event_stream_ends_with_the_error_and_the_cursor(
    server, token_of, caller, grant, revoke, run_in, ours, monkeypatch
):
    monkeypatch.setattr(Wakeups, "patience", 3600.0)
    bob = await caller(None, username="bob")
    lost, run = await grant(global_id(Kind.USER, bob.user_id), "Viewer", ours), await run_in(ours)
    headers = {"authorization": f"Bearer {token_of(bob)}"}
    body = {"query": WATCH_RUN, "variables": {"id": run}}
    async with (
        httpx.AsyncClient(base_url=server, timeout=30) as client,
        client.stream("POST", "/graphql/stream", json=body, headers=headers) as stream,
        asyncio.timeout(60),
    ):
        lines = stream.aiter_lines()
        identified = await anext(lines)
        assert identified.startswith("id: ")
        await revoke(lost)
        told = [line async for line in lines]

    data = [json.loads(line.removeprefix("data: ")) for line in told if line.startswith("data: ")]
    (error,) = data[-1]["errors"]
    assert error["extensions"] == {"code": "FORBIDDEN", "cursor": identified.removeprefix("id: ")}
    assert "event: complete" in told


async def test_a_stream_that_begins_with_rights_that_are_gone_by_then_is_told_at_once(
    services, db, caller, grant, ours, monkeypatch
):
    monkeypatch.setattr(Wakeups, "patience", 3600.0)
    bob = await caller(None, username="bob")
    await grant(global_id(Kind.USER, bob.user_id), "Viewer", ours)
    before = await again(db, bob)
    async with db.transaction() as session:
        await session.run(delete(grants).where(grants.c.user_id == bob.user_id))
    told: asyncio.Queue[Any] = asyncio.Queue()

    with services.callers.following(before, told.put_nowait):
        async with asyncio.timeout(30):
            principal = await told.get()

    assert len(before.grants) == 1
    assert (principal.user_id, principal.grants) == (bob.user_id, ())


async def test_what_rings_nobody_is_noticed_all_the_same(server, connect, caller, grant, run_in, ours, db):
    bob = await caller(None, username="bob")
    await grant(global_id(Kind.USER, bob.user_id), "Viewer", ours)
    run = await run_in(ours)
    async with connect(server, bob) as socket:
        await socket.subscribe("run", WATCH_RUN, id=run)
        await socket.item("run")
        async with db.transaction() as session:
            await session.run(delete(grants).where(grants.c.user_id == bob.user_id))

        assert (await socket.forbidden("run"))["cursor"]
