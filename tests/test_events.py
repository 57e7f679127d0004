"""Events through the API: the same stream by page and live."""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from db.ids import new_id
from db.tables import events as table
from db.vocabulary import EventType
from domain import events as log
from domain.projects import create_project
from events.log import publish, system_actor, user_actor
from schema.execution import stream

PAGE = """
query ($filter: EventFilter, $first: Int, $after: String, $last: Int, $before: String) {
  events(filter: $filter, first: $first, after: $after, last: $last, before: $before) {
    nodes {
      id cursor type subjectId changes requestId
      project { slug }
      actor { __typename ... on User { username } ... on SystemActor { component } }
      subject { __typename id }
    }
    edges { cursor }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
LIVE = """
subscription ($filter: EventFilter, $after: String) {
  events(filter: $filter, after: $after) {
    __typename
    ... on Event { cursor type subjectId subject { id } }
    ... on StreamCaughtUp { cursor }
    ... on StreamGap { fromCursor toCursor reason missedAtLeast }
  }
}
"""


@pytest.fixture
def happen(db, admin):
    async def publish_one(type=EventType.RUN_STARTED, subject=None, project=None, actor=None, **more):
        async with db.transaction() as session:
            await publish(
                session,
                type,
                subject or new_id(),
                project_id=None if project is None else project.id,
                actor=actor or user_actor(admin.user_id),
                **more,
            )

    return publish_one


@pytest.fixture
def pages(execute, admin):
    async def ask(principal=admin, **variables):
        response = await execute(PAGE, principal=principal, **variables)
        assert "errors" not in response, response
        return response["data"]["events"]

    return ask


@pytest.fixture
def live(context_of, admin):
    def subscribe(principal=admin, **variables):
        return aclosing(_items(stream(LIVE, variables, None, context_of(principal))))

    return subscribe


async def _items(responses):
    async with aclosing(responses):
        async for response, _ in responses:
            if "errors" in response:
                raise AssertionError(response["errors"])
            yield response["data"]["events"]


def types(page):
    return [node["type"] for node in page["nodes"]]


async def test_an_event_tells_what_happened_to_what_by_whom(pages, happen, admin, project):
    await happen(
        EventType.DATASET_UPDATED,
        project=project,
        actor=system_actor("scheduler"),
        changes={"status": ["RUNNING", "SUCCEEDED"]},
    )

    made, updated = (await pages())["nodes"]

    assert made == {
        "id": made["id"],
        "cursor": made["cursor"],
        "type": "PROJECT_CREATED",
        "subjectId": f"project_{project.id.hex}",
        "changes": None,
        "requestId": None,
        "project": {"slug": "lab"},
        "actor": {"__typename": "User", "username": "ada"},
        "subject": {"__typename": "Project", "id": f"project_{project.id.hex}"},
    }
    assert (updated["changes"], updated["actor"], updated["subject"]) == (
        {"status": ["RUNNING", "SUCCEEDED"]},
        {"__typename": "SystemActor", "component": "scheduler"},
        None,
    )
    assert updated["cursor"] > made["cursor"]


async def test_an_event_is_a_node(pages, execute, caller, admin, happen):
    await happen(EventType.RUN_STARTED)
    (event,) = (await pages())["nodes"]
    ask = "query ($id: ID!) { node(id: $id) { __typename id } }"

    assert (await execute(ask, principal=admin, id=event["id"]))["data"]["node"] == {
        "__typename": "Event",
        "id": event["id"],
    }
    assert (await execute(ask, principal=await caller(None), id=event["id"]))["data"]["node"] is None


async def test_pages_begin_with_the_oldest_and_go_both_ways(pages, happen):
    wanted = ["RUN_CREATED", "RUN_STARTED", "RUN_LOST", "RUN_RETRIED", "RUN_SUCCEEDED"]
    for type in wanted:
        await happen(EventType(type))

    first = await pages(first=2)
    second = await pages(first=2, after=first["pageInfo"]["endCursor"])
    end = await pages(last=2)
    back = await pages(last=2, before=end["pageInfo"]["startCursor"])

    assert [types(page) for page in (first, second, end, back)] == [
        wanted[:2],
        wanted[2:4],
        wanted[3:],
        wanted[1:3],
    ]
    flags = [(page["pageInfo"]["hasPreviousPage"], page["pageInfo"]["hasNextPage"]) for page in (first, second, end)]
    assert flags == [(False, True), (True, True), (True, False)]
    assert [edge["cursor"] for edge in first["edges"]] == [node["cursor"] for node in first["nodes"]]


async def test_a_filter(pages, happen, project, admin, scientist):
    run = new_id()
    await happen(EventType.RUN_STARTED, subject=run, project=project, actor=user_actor(scientist.user_id))
    await happen(EventType.RUN_LOST, actor=system_actor("watchdog"))

    async def matching(**filter):
        return types(await pages(filter=filter))

    assert await matching(types=["RUN_LOST", "RUN_STARTED"]) == ["RUN_STARTED", "RUN_LOST"]
    assert await matching(projectIds=[f"project_{project.id.hex}"]) == ["PROJECT_CREATED", "RUN_STARTED"]
    assert await matching(subjectIds=[f"run_{run.hex}"]) == ["RUN_STARTED"]
    assert await matching(actorIds=[user_actor(scientist.user_id)]) == ["RUN_STARTED"]
    assert await matching(actorIds=["system:watchdog"]) == ["RUN_LOST"]
    assert await matching(types=["RUN_LOST"], projectIds=[f"project_{project.id.hex}"]) == []
    assert await matching(projectIds=["nonsense"]) == []
    assert await matching(subjectIds=["\ud800"]) == []
    assert await matching(types=[]) == []


async def test_what_one_may_not_read_did_not_happen(pages, happen, caller, live):
    await happen(EventType.USER_CREATED)
    await happen(EventType.RUN_STARTED)
    viewer, operator, stranger = await caller("Viewer"), await caller("Operator"), await caller(None)

    assert types(await pages(viewer)) == ["RUN_STARTED"]
    assert types(await pages(operator)) == ["USER_CREATED", "RUN_STARTED"]
    assert types(await pages(viewer, filter={"types": ["USER_CREATED"]})) == []
    assert types(await pages(stranger)) == []
    beginning = (await pages(operator))["nodes"][0]["cursor"]
    async with live(viewer, after=f"{beginning[:8]}{'0' * 32}") as items:
        assert [(await anext(items)).get("type") for _ in range(2)] == ["RUN_STARTED", None]


async def test_subjects_of_one_kind_are_one_statement(db, admin, execute, statements):
    async with db.transaction() as session:
        for number in range(10):
            await create_project(session, admin, slug=f"lab{number}", name="Lab", description=None, tags=[])

    with statements() as seen:
        found = await execute(
            """{ events(first: 20) { nodes { subject { ... on Project { slug } } project { name }
                actor { ... on User { username } } } } }""",
            principal=admin,
        )

    assert [node["subject"]["slug"] for node in found["data"]["events"]["nodes"]] == [f"lab{n}" for n in range(10)]
    assert len(seen) == 3, "the events, their projects and subjects, their actors"


@pytest.mark.parametrize(
    ("after", "code"), [("nonsense", "CURSOR_INVALID"), ("0" * 40, "CURSOR_EXPIRED"), ("f" * 40, "CURSOR_EXPIRED")]
)
async def test_a_cursor_of_something_else_is_refused(execute, admin, context_of, after, code):
    page = await execute(PAGE, principal=admin, after=after)
    (item,) = [response async for response, _ in stream(LIVE, {"after": after}, None, context_of(admin))]

    for response in (page, item):
        assert response["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": code}


async def test_a_cursor_of_the_future_is_refused(execute, admin, context_of, services):
    after = f"{services.epoch.hex[:8]}{2**62:016x}{0:016x}"

    page = await execute(PAGE, principal=admin, after=after)
    (item,) = [response async for response, _ in stream(LIVE, {"after": after}, None, context_of(admin))]

    for response in (page, item):
        assert response["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": "CURSOR_INVALID"}


async def test_from_now_on(happen, live):
    await happen(EventType.RUN_CREATED)

    async with live() as items:
        caught_up = await anext(items)
        await happen(EventType.RUN_STARTED)
        event = await anext(items)

    assert caught_up["__typename"] == "StreamCaughtUp"
    assert (event["__typename"], event["type"]) == ("Event", "RUN_STARTED")
    assert event["cursor"] > caught_up["cursor"]


async def test_from_a_cursor_the_backlog_then_caught_up_then_live(happen, live, pages):
    for type in ("RUN_CREATED", "RUN_STARTED", "RUN_SUCCEEDED"):
        await happen(EventType(type))
    cursor = (await pages(first=1))["pageInfo"]["endCursor"]

    async with live(after=cursor) as items:
        backlog = [await anext(items) for _ in range(3)]
        await happen(EventType.MODEL_CREATED)
        new = await anext(items)

    assert [item.get("type", item["__typename"]) for item in (*backlog, new)] == [
        "RUN_STARTED",
        "RUN_SUCCEEDED",
        "StreamCaughtUp",
        "MODEL_CREATED",
    ]
    async with live(after=backlog[2]["cursor"]) as items:
        assert (await anext(items))["type"] == "MODEL_CREATED", "the cursor of having caught up resumes too"
        assert (await anext(items))["__typename"] == "StreamCaughtUp"


async def test_a_long_backlog_comes_whole(happen, live, db, admin):
    async with live() as items:
        start = (await anext(items))["cursor"]
    async with db.transaction() as session:
        for _ in range(450):
            await publish(session, EventType.RUN_STARTED, new_id(), project_id=None, actor=None)

    async with live(after=start) as items:
        seen = [await anext(items) for _ in range(451)]

    assert len({item["subjectId"] for item in seen[:450]}) == 450
    assert seen[450]["__typename"] == "StreamCaughtUp"


async def test_old_events_are_forgotten_and_readers_learn_of_the_gap(happen, live, pages, db, execute, admin):
    async with live() as items:
        before = (await anext(items))["cursor"]
    for type in ("RUN_CREATED", "RUN_STARTED", "RUN_LOST"):
        await happen(EventType(type))
    created, started, _ = (await pages())["nodes"]
    old = datetime.now(UTC) - timedelta(days=31)
    async with db.transaction() as session:
        await session.run(update(table).where(table.c.type != "RUN_LOST").values(at=old))
        assert await log.forget_old_events(session, keep=timedelta(days=30)) == 2
        assert await log.forget_old_events(session, keep=timedelta(days=30)) == 0

    assert types(await pages()) == ["RUN_LOST"]
    async with live(after=before) as items:
        gap, event, caught_up = [await anext(items) for _ in range(3)]
    assert gap == {
        "__typename": "StreamGap",
        "fromCursor": before,
        "toCursor": started["cursor"],
        "reason": "RETENTION",
        "missedAtLeast": None,
    }
    assert (event["type"], caught_up["__typename"]) == ("RUN_LOST", "StreamCaughtUp")
    async with live(after=gap["toCursor"]) as items:
        assert (await anext(items))["type"] == "RUN_LOST", "nothing is missing after the last one forgotten"
    refused = await execute(PAGE, principal=admin, after=created["cursor"])
    assert refused["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": "CURSOR_EXPIRED"}


async def test_without_credentials_there_are_no_events(context_of):
    (item,) = [response async for response, _ in stream(LIVE, {}, None, context_of(None))]

    assert item["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
