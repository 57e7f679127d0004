"""Teams: who is in them, what they hold, and that both count at once."""

import pytest
from sqlalchemy import func, select

from db import access
from db.ids import Kind, global_id, new_id
from db.tables import grants, team_members, teams
from tests.test_grants import CREATE as GRANT
from tests.test_grants import REVOKE, again, role_id

CREATE = """
mutation ($input: CreateTeamInput!) {
  createTeam(input: $input) {
    team { id name description revision members { nodes { username } totalCount } }
    errors { __typename code path ... on AlreadyExistsError { existing { id } } }
  }
}
"""
UPDATE = """
mutation ($input: UpdateTeamInput!) {
  updateTeam(input: $input) {
    team { name description revision members { nodes { username } } }
    errors { code message path ... on StaleRevisionError { currentRevision current { ... on Team { name } } } }
  }
}
"""
DELETE = """
mutation ($id: ID!) { deleteTeam(input: {id: $id}) { deletedId errors { code path } } }
"""
SEE = "query ($id: ID!) { node(id: $id) { id } }"
PROJECTS = "{ projects { nodes { slug } totalCount } }"
AUDIT = """
{ auditEvents { nodes { action outcome resourceName resourceId resource { ... on Team { name } } before after } } }
"""
EVENTS = "{ events(last: 3) { nodes { type subjectId changes } } }"


def user(principal):
    return global_id(Kind.USER, principal.user_id)


@pytest.fixture
def create(execute, admin):
    async def made(name, *members):
        input = {"name": name, "memberIds": [user(member) for member in members]}
        answer = (await execute(CREATE, principal=admin, input=input))["data"]["createTeam"]
        assert answer["errors"] == []
        return answer["team"]["id"]

    return made


@pytest.fixture
def grant(execute, admin, db):
    async def made(holder, role, place=None, principal=admin):
        input = {"principalId": holder, "what": {"roleId": await role_id(db, role)}, "scopeId": place}
        answer = (await execute(GRANT, principal=principal, input=input))["data"]["createGrant"]
        assert answer["errors"] == []
        return answer["grant"]["id"]

    return made


async def test_a_team_is_made_with_its_members(execute, admin, caller):
    bob, carol = await caller(None, username="bob"), await caller(None, username="carol")

    made = await execute(
        CREATE,
        principal=admin,
        input={"name": "Vision", "description": "Looks", "memberIds": [user(carol), user(bob), user(bob)]},
    )

    team = made["data"]["createTeam"]["team"]
    assert team | {"id": ""} == {
        "id": "",
        "name": "Vision",
        "description": "Looks",
        "revision": 1,
        "members": {"nodes": [{"username": "bob"}, {"username": "carol"}], "totalCount": 2},
    }
    events = (await execute(EVENTS, principal=admin))["data"]["events"]["nodes"]
    told = {"type": "USER_UPDATED", "changes": {"teams.Vision": [False, True]}}
    assert sorted(events[-2:], key=lambda event: event["subjectId"]) == [
        told | {"subjectId": user(who)} for who in (bob, carol)
    ]
    (entry,) = (await execute(AUDIT, principal=admin))["data"]["auditEvents"]["nodes"]
    assert entry["after"]["memberIds"] == [user(carol), user(bob), user(bob)]
    assert [entry[key] for key in ("action", "outcome", "resourceName", "resourceId", "resource")] == [
        "TEAM_CHANGE",
        "SUCCEEDED",
        "Vision",
        team["id"],
        {"name": "Vision"},
    ]


async def test_a_taken_name_and_members_who_are_nobody_make_no_team(execute, admin, create, db):
    first = await create("Vision")

    taken = await execute(CREATE, principal=admin, input={"name": "Vision"})
    nobody = await execute(
        CREATE, principal=admin, input={"name": "Other", "memberIds": [user(admin), global_id(Kind.USER, new_id())]}
    )
    blank = await execute(CREATE, principal=admin, input={"name": " "})

    assert taken["data"]["createTeam"]["errors"] == [
        {
            "__typename": "AlreadyExistsError",
            "code": "ALREADY_EXISTS",
            "path": ["input", "name"],
            "existing": {"id": first},
        }
    ]
    refused = [answer["data"]["createTeam"]["errors"][0] for answer in (nobody, blank)]
    assert [(error["code"], error["path"]) for error in refused] == [
        ("NOT_FOUND", ["input", "memberIds", "1"]),
        ("REQUIRED", ["input", "name"]),
    ]
    async with db.reading() as session:
        assert await session.scalar(select(func.count()).select_from(teams)) == 1


async def test_what_a_team_holds_its_members_hold_from_their_next_request_on(
    execute, db, admin, caller, create, grant, project
):
    bob, carol = await caller(None, username="bob"), await caller(None, username="carol")
    team = await create("Vision", bob)
    nothing = {"projects": {"nodes": [], "totalCount": 0}}
    assert (await execute(PROJECTS, principal=await again(db, bob)))["data"] == nothing

    granted = await grant(team, "Viewer", global_id(Kind.PROJECT, project.id))
    seen = {"projects": {"nodes": [{"slug": "lab"}], "totalCount": 1}}
    assert (await execute(PROJECTS, principal=await again(db, bob)))["data"] == seen
    assert (await execute(PROJECTS, principal=await again(db, carol)))["data"] == nothing

    changed = await execute(
        UPDATE, principal=admin, input={"id": team, "addMemberIds": [user(carol)], "removeMemberIds": [user(bob)]}
    )
    assert changed["data"]["updateTeam"] == {
        "team": {"name": "Vision", "description": None, "revision": 2, "members": {"nodes": [{"username": "carol"}]}},
        "errors": [],
    }
    assert (await execute(PROJECTS, principal=await again(db, bob)))["data"] == nothing
    assert (await execute(PROJECTS, principal=await again(db, carol)))["data"] == seen

    await execute(REVOKE, principal=admin, input={"id": granted})
    assert (await execute(PROJECTS, principal=await again(db, carol)))["data"] == nothing


async def test_a_team_that_is_deleted_takes_its_grants_along(execute, db, admin, caller, create, grant, project):
    bob = await caller(None, username="bob")
    team = await create("Vision", bob)
    granted = await grant(team, "Viewer", global_id(Kind.PROJECT, project.id))

    deleted = await execute(DELETE, principal=admin, id=team)
    events = (await execute(EVENTS, principal=admin))["data"]["events"]["nodes"]

    assert deleted["data"]["deleteTeam"] == {"deletedId": team, "errors": []}
    assert [(event["type"], event["subjectId"]) for event in events[-2:]] == [
        ("GRANT_REVOKED", granted),
        ("USER_UPDATED", user(bob)),
    ]
    assert (await execute(SEE, principal=admin, id=team))["data"] == {"node": None}
    assert (await execute(PROJECTS, principal=await again(db, bob)))["data"]["projects"]["totalCount"] == 0
    gone = await execute(DELETE, principal=admin, id=team)
    assert gone["data"]["deleteTeam"] == {"deletedId": None, "errors": [{"code": "NOT_FOUND", "path": ["input", "id"]}]}


async def test_an_old_revision_a_taken_name_and_a_contradiction_change_nothing(execute, db, admin, create):
    await create("Sound")
    team = await create("Vision")
    inputs = [
        {"expectedRevision": 7, "name": "Sight"},
        {"name": "Sound"},
        {"addMemberIds": [user(admin)], "removeMemberIds": [user(admin)]},
    ]

    refused = [
        (await execute(UPDATE, principal=admin, input={"id": team, **input}))["data"]["updateTeam"] for input in inputs
    ]

    assert [answer["team"] for answer in refused] == [None, None, None]
    assert refused[0]["errors"] == [
        {
            "code": "STALE_REVISION",
            "message": "The team has been changed: its revision is 1. Read it again.",
            "path": ["input", "expectedRevision"],
            "currentRevision": 1,
            "current": {"name": "Vision"},
        }
    ]
    assert [answer["errors"][0]["code"] for answer in refused[1:]] == ["ALREADY_EXISTS", "INVALID"]
    async with db.reading() as session:
        assert await session.scalar(select(func.count()).select_from(team_members)) == 0
        assert set(await session.records(select(teams.c.name, teams.c.revision))) == {("Sound", 1), ("Vision", 1)}


async def test_nobody_joins_or_fills_a_team_that_holds_more_than_they_do(execute, db, admin, caller, create, grant):
    """USER_UPDATE alone is no way to become an administrator."""
    manager = await caller(None, username="manager")
    input = {
        "principalId": user(manager),
        "what": {"permissions": ["USER_READ", "USER_UPDATE", "USER_CREATE"]},
        "scopeId": None,
    }
    await execute(GRANT, principal=admin, input=input)
    manager = await again(db, manager)
    team = await create("Root")
    await grant(team, "Viewer")

    joined = await execute(UPDATE, principal=manager, input={"id": team, "addMemberIds": [user(manager)]})
    account = {"username": "eve", "email": "eve@example.com", "teamIds": [team, "nonsense"]}
    made = await execute(
        "mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id } errors { code path } } }",
        principal=manager,
        input=account,
    )

    assert joined["data"]["updateTeam"]["errors"] == [
        {
            "code": "INVALID",
            "message": "This gives DATASET_PREVIEW, DATASET_READ, METRIC_READ, MODEL_READ, PROJECT_READ, RUN_READ "
            "where you do not hold that yourself.",
            "path": ["input", "addMemberIds"],
        }
    ]
    assert made["data"]["createUser"] == {
        "user": None,
        "errors": [
            {"code": "INVALID", "path": ["input", "teamIds", "0"]},
            {"code": "NOT_FOUND", "path": ["input", "teamIds", "1"]},
        ],
    }
    async with db.reading() as session:
        assert await session.scalar(select(func.count()).select_from(team_members)) == 0
    renamed = await execute(UPDATE, principal=manager, input={"id": team, "name": "Rooted"})
    assert renamed["data"]["updateTeam"]["team"]["name"] == "Rooted"


async def test_a_new_account_joins_its_teams(execute, db, admin, create):
    team = await create("Vision")
    account = {"username": "eve", "email": "eve@example.com", "teamIds": [team]}

    made = await execute(
        "mutation ($input: CreateUserInput!) { createUser(input: $input) { user { teams { name } } errors { code } } }",
        principal=admin,
        input=account,
    )
    inside = await execute(
        "query ($id: ID) { users(filter: {teamId: $id}) { nodes { username } totalCount } }", principal=admin, id=team
    )
    nowhere = await execute('{ users(filter: {teamId: "nonsense"}) { totalCount } }', principal=admin)

    assert made["data"]["createUser"] == {"user": {"teams": [{"name": "Vision"}]}, "errors": []}
    assert inside["data"]["users"] == {"nodes": [{"username": "eve"}], "totalCount": 1}
    assert nowhere["data"]["users"] == {"totalCount": 0}


async def test_the_last_administrator_through_a_team_stays(execute, db, admin, create, grant):
    """Alone in a team that is Administrator: not removed from it, the team not deleted, its grant not revoked."""
    team = await create("Root", admin)
    granted = await grant(team, "Administrator")
    (own,) = [held.id for held in admin.grants]
    first = await execute(REVOKE, principal=admin, input={"id": global_id(Kind.GRANT, own)})
    assert first["data"]["revokeGrant"]["errors"] == [], "the team's grant is enough"
    admin = await again(db, admin)

    removed = await execute(UPDATE, principal=admin, input={"id": team, "removeMemberIds": [user(admin)]})
    deleted = await execute(DELETE, principal=admin, id=team)
    revoked = await execute(REVOKE, principal=admin, input={"id": granted})

    errors = [
        removed["data"]["updateTeam"]["errors"][0],
        deleted["data"]["deleteTeam"]["errors"][0],
        revoked["data"]["revokeGrant"]["errors"][0],
    ]
    assert [(error["code"], error["path"]) for error in errors] == [
        ("LAST_ADMIN", ["input", "removeMemberIds"]),
        ("LAST_ADMIN", ["input", "id"]),
        ("LAST_ADMIN", ["input", "id"]),
    ]
    async with db.reading() as session:
        assert await session.scalar(select(func.count()).select_from(team_members)) == 1
        assert await session.scalar(select(func.count()).select_from(grants)) == 1
        assert (await access.principal(session, session_id=admin.session_id, user_id=admin.user_id)) is not None


async def test_the_same_role_everywhere_is_given_to_a_team_once(create, grant):
    team = await create("Vision")

    assert await grant(team, "Viewer") == await grant(team, "Viewer")


async def test_a_team_is_there_for_its_members_and_for_those_who_read_users(execute, db, admin, caller, create):
    bob, carol = await caller(None, username="bob"), await caller(None, username="carol")
    vision, sound = await create("Vision", bob), await create("Sound", bob, carol)
    asked = """
    query ($ids: [ID!]!) { viewer { user { teams { name members { nodes { username teams { name } } } } } } nodes(ids: $ids) { id } }
    """  # noqa: E501

    seen = (await execute(asked, principal=carol, ids=[vision, sound]))["data"]
    listed = await execute("{ teams { nodes { name } totalCount } }", principal=admin)
    refused = await execute("{ teams { nodes { name } } }", principal=bob)

    assert seen["nodes"] == [None, {"id": sound}]
    assert seen["viewer"]["user"]["teams"] == [
        {
            "name": "Sound",
            "members": {
                "nodes": [
                    {"username": "bob", "teams": [{"name": "Sound"}]},
                    {"username": "carol", "teams": [{"name": "Sound"}]},
                ]
            },
        }
    ]
    assert listed["data"]["teams"] == {"nodes": [{"name": "Sound"}, {"name": "Vision"}], "totalCount": 2}
    assert refused["data"] == {"teams": None}
    assert [error["extensions"]["code"] for error in refused["errors"]] == ["FORBIDDEN"]


async def test_the_teams_of_a_page_of_users_cost_one_statement(execute, admin, caller, create, statements):
    members = [await caller(None, username=name) for name in ("bob", "carol", "dave")]
    await create("Vision", *members)

    with statements() as seen:
        await execute("{ users { nodes { username teams { name } } } }", principal=admin)

    assert len(seen) == 2


async def test_a_team_is_the_principal_of_its_grant(execute, admin, create, grant, project):
    granted = await grant(await create("Vision"), "Viewer", global_id(Kind.PROJECT, project.id))

    found = await execute(
        "query ($id: ID!) { node(id: $id) { ... on Grant { principal { __typename ... on Team { name } } } } }",
        principal=admin,
        id=granted,
    )

    assert found["data"]["node"] == {"principal": {"__typename": "Team", "name": "Vision"}}
