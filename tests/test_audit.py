"""The audit log: what each mutation leaves in it, and how a log that was tampered with is found out."""

import asyncio

import pytest

from db.ids import Kind, global_id

ENTRIES = """
query ($filter: AuditEventFilter, $first: Int, $after: String) {
  auditEvents(filter: $filter, first: $first, after: $after) {
    nodes {
      action outcome actor { ... on User { username } } actorName project { slug } resourceId resourceName
      operationName requestId before after previousHash hash
    }
    pageInfo { endCursor hasNextPage }
  }
}
"""
VERIFY = "query ($range: TimeRangeInput) { verifyAuditLog(range: $range) { intact checkedCount firstBroken { id } } }"
CREATE_PROJECT = "mutation Make($input: CreateProjectInput!) { createProject(input: $input) { errors { code } } }"
CREATE_USER = "mutation ($input: CreateUserInput!) { createUser(input: $input) { errors { code } } }"
WORDS = "several words of mine"


@pytest.fixture
def entries(execute, admin):
    async def read(**filter):
        found = await execute(ENTRIES, principal=admin, filter=filter)
        return found["data"]["auditEvents"]["nodes"]

    return read


@pytest.fixture
def verified(execute, admin):
    async def verify(**variables):
        return (await execute(VERIFY, principal=admin, **variables))["data"]["verifyAuditLog"]

    return verify


@pytest.fixture
async def five(execute, admin, db):
    """A log of five entries, oldest first, by their keys."""
    for number in range(5):
        await execute(CREATE_PROJECT, principal=admin, input={"slug": f"lab{number}", "name": "Lab"})
    async with db.reading() as session:
        return [row["id"] for row in await session.connection.fetch("SELECT id FROM audit_events ORDER BY number")]


async def edit(db, statement, *arguments):
    async with db.transaction() as session:
        await session.connection.execute(statement, *arguments)


async def test_an_entry_tells_who_did_what_to_what(execute, entries, admin):
    await execute(CREATE_PROJECT, principal=admin, input={"slug": "lab", "name": "Lab"})

    (entry,) = await entries()
    project_id = (await execute("{ projects { nodes { id } } }", principal=admin))["data"]["projects"]["nodes"][0]["id"]
    assert entry.pop("hash") != entry.pop("previousHash") == "0" * 64
    assert entry == {
        "action": "PROJECT_CREATE",
        "outcome": "SUCCEEDED",
        "actor": {"username": "ada"},
        "actorName": "ada",
        "project": {"slug": "lab"},
        "resourceId": project_id,
        "resourceName": "Lab",
        "operationName": "Make",
        "requestId": "test",
        "before": None,
        "after": {"slug": "lab", "name": "Lab"},
    }


async def test_a_secret_of_the_input_is_not_kept(execute, entries, admin, db):
    account = {"username": "grace", "email": "grace@example.com", "password": WORDS}
    await execute(CREATE_USER, principal=admin, input=account)

    assert [(e["action"], e["after"], e["resourceName"]) for e in await entries()] == [
        ("USER_CREATE", account | {"password": "[secret]"}, "grace")
    ]
    async with db.reading() as session:
        assert not await session.connection.fetchval(
            "SELECT count(*) FROM audit_events e WHERE e::text LIKE $1", f"%{WORDS}%"
        )


async def test_what_was_refused_is_kept_with_what_was_asked(execute, entries, admin, project):
    await execute(CREATE_PROJECT, principal=admin, input={"slug": "lab", "name": "Again"})
    await execute(CREATE_PROJECT, principal=admin, input={"slug": "No slug", "name": "Bad"})

    assert [(e["action"], e["outcome"], e["after"]["name"]) for e in await entries()] == [
        ("PROJECT_CREATE", "REFUSED", "Bad"),
        ("PROJECT_CREATE", "REFUSED", "Again"),
    ]


async def test_what_a_guard_forbids_is_kept_and_a_stranger_without_credentials_is_not(execute, entries, caller):
    viewer = await caller("Viewer", username="vera")
    await execute(CREATE_PROJECT, principal=viewer, input={"slug": "lab", "name": "Lab"})
    await execute(CREATE_PROJECT, input={"slug": "lab", "name": "Lab"})

    assert [(e["action"], e["outcome"], e["actorName"], e["after"]) for e in await entries()] == [
        ("ACCESS_DENIED", "REFUSED", "vera", {"slug": "lab", "name": "Lab", "deniedMutation": "createProject"})
    ]


async def test_a_fault_of_ours_is_kept_as_failed(execute, entries, admin, monkeypatch):
    async def broken(*_, **__):
        raise RuntimeError("out of order")

    monkeypatch.setattr("domain.projects.create_project", broken)
    await execute(CREATE_PROJECT, principal=admin, input={"slug": "lab", "name": "Lab"})

    assert [(e["action"], e["outcome"]) for e in await entries()] == [("PROJECT_CREATE", "FAILED")]


async def test_without_its_entry_the_effect_is_not_there_either(execute, admin, db, monkeypatch):
    async def broken(*_):
        raise RuntimeError("no room for entries")

    monkeypatch.setattr("db.audit.append", broken)
    answer = await execute(CREATE_PROJECT, principal=admin, input={"slug": "lab", "name": "Lab"})

    assert answer["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert (await execute("{ projects { totalCount } }", principal=admin))["data"]["projects"]["totalCount"] == 0


async def test_filters_and_pages_newest_first(execute, entries, admin, five, caller):
    viewer = await caller("Viewer", username="vera")
    await execute(CREATE_PROJECT, principal=viewer, input={"slug": "lab", "name": "Lab"})
    ada, vera = (global_id(Kind.USER, who.user_id) for who in (admin, viewer))

    first = (await execute(ENTRIES, principal=admin, first=4))["data"]["auditEvents"]
    rest = await execute(ENTRIES, principal=admin, first=4, after=first["pageInfo"]["endCursor"])
    names = [e["after"]["slug"] for e in first["nodes"] + rest["data"]["auditEvents"]["nodes"]]
    assert names == ["lab", "lab4", "lab3", "lab2", "lab1", "lab0"]

    assert len(await entries(actorId=ada, actions=["PROJECT_CREATE"], outcomes=["SUCCEEDED"])) == 5
    assert [e["actorName"] for e in await entries(actorId=vera)] == ["vera"]
    assert [e["actorName"] for e in await entries(actions=["ACCESS_DENIED"])] == ["vera"]
    about = (await entries())[2]["resourceId"]
    assert [e["after"]["slug"] for e in await entries(resourceId=about)] == ["lab3"]
    assert [e["after"]["slug"] for e in await entries(projectId=about)] == ["lab3"]
    assert await entries(requestId="another") == await entries(at={"lt": "2020-01-01T00:00:00Z"}) == []

    of_user = await execute(
        "query ($id: ID!) { user(id: $id) { auditEvents(first: 2) { nodes { after } } } }", principal=admin, id=ada
    )
    assert [e["after"]["slug"] for e in of_user["data"]["user"]["auditEvents"]["nodes"]] == ["lab4", "lab3"]


async def test_the_log_is_for_those_who_may_read_it(execute, caller, five):
    maintainer = await caller("Maintainer")
    asked = await execute(
        "query ($id: ID!) { auditEvents { nodes { id } } verifyAuditLog { intact } node(id: $id) { id } }",
        principal=maintainer,
        id=global_id(Kind.AUDIT_EVENT, five[0]),
    )

    assert asked["data"] == {"auditEvents": None, "verifyAuditLog": None, "node": None}
    assert [error["extensions"]["code"] for error in asked["errors"]] == ["FORBIDDEN", "FORBIDDEN"]


async def test_a_log_that_nobody_touched_is_intact(verified, five, execute, admin):
    assert await verified() == {"intact": True, "checkedCount": "5", "firstBroken": None}
    future = {"from": "2100-01-01T00:00:00Z"}
    assert await verified(range=future) == {"intact": True, "checkedCount": "0", "firstBroken": None}


@pytest.mark.parametrize(
    ("tampering", "broken"),
    [
        ("UPDATE audit_events SET actor_name = 'eve' WHERE number = 3", 3),
        ('UPDATE audit_events SET after = after || \'{"name": "x"}\' WHERE number = 3', 3),
        ("UPDATE audit_events SET at = at - interval '1 microsecond' WHERE number = 3", 3),
        ("UPDATE audit_events SET hash = repeat('0', 64) WHERE number = 3", 3),
        ("DELETE FROM audit_events WHERE number = 1", 2),
        ("DELETE FROM audit_events WHERE number = 3", 4),
        ("UPDATE audit_events SET number = CASE number WHEN 2 THEN 30 ELSE number END", 3),
    ],
)
async def test_an_entry_that_was_changed_or_removed_is_found(verified, db, five, tampering, broken):
    await edit(db, tampering)

    verdict = await verified()
    assert verdict["intact"] is False
    assert verdict["firstBroken"] == {"id": global_id(Kind.AUDIT_EVENT, five[broken - 1])}


async def test_entries_that_changed_places_are_found(verified, db, five):
    await edit(db, "UPDATE audit_events SET number = -number WHERE number IN (2, 4)")
    await edit(db, "UPDATE audit_events SET number = CASE number WHEN -2 THEN 4 ELSE 2 END WHERE number < 0")

    verdict = await verified()
    assert (verdict["intact"], verdict["firstBroken"]) == (False, {"id": global_id(Kind.AUDIT_EVENT, five[3])})


@pytest.mark.parametrize("removed", ["number = 5", "true"])
async def test_an_end_that_was_cut_off_is_found(verified, db, five, removed):
    await edit(db, f"DELETE FROM audit_events WHERE {removed}")

    verdict = await verified()
    assert (verdict["intact"], verdict["firstBroken"]) == (False, None)


async def test_writers_at_the_same_time_make_one_chain(execute, verified, admin):
    made = await asyncio.gather(
        *(
            execute(CREATE_PROJECT, principal=admin, input={"slug": f"lab{number % 20}", "name": "Lab"})
            for number in range(40)
        )
    )

    assert sum(not answer["data"]["createProject"]["errors"] for answer in made) == 20
    assert await verified() == {"intact": True, "checkedCount": "40", "firstBroken": None}
