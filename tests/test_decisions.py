"""Who holds what, and what that allows: lists of grants, `permissionCheck` and `whoCan`."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, update

from db.ids import Kind, global_id, new_id
from db.tables import grants, users
from tests.test_grants import CREATE as GRANT
from tests.test_grants import again, role_id
from tests.test_visibility import two  # noqa: F401  (a fixture)

GRANTS = """
query ($filter: GrantFilter, $first: Int, $after: String) {
  grants(filter: $filter, first: $first, after: $after) {
    nodes { reason } totalCount pageInfo { hasNextPage endCursor }
  }
}
"""
CHECK = """
query ($who: ID!, $what: Permission!, $where: ID) {
  permissionCheck(principalId: $who, permission: $what, resourceId: $where) {
    permission allowed reason decidedBy { reason }
  }
}
"""
WHO = """
query ($what: Permission!, $where: ID, $first: Int, $after: String) {
  whoCan(permission: $what, resourceId: $where, first: $first, after: $after) {
    nodes { reason principal { ... on User { username } ... on Team { name } } }
    totalCount
    pageInfo { hasNextPage endCursor }
  }
}
"""
TEAM = "mutation ($input: CreateTeamInput!) { createTeam(input: $input) { team { id } errors { code } } }"


def user(principal):
    return global_id(Kind.USER, principal.user_id)


@pytest.fixture
def grant(execute, admin, db):
    """`await grant("why", holder, "Viewer" or ["RUN_READ"], place)`: a grant that its reason names."""

    async def made(reason, holder, what, place=None, **more):
        given = {"roleId": await role_id(db, what)} if isinstance(what, str) else {"permissions": what}
        input = {"principalId": holder, "what": given, "scopeId": place, "reason": reason, **more}
        answer = (await execute(GRANT, principal=admin, input=input))["data"]["createGrant"]
        assert answer["errors"] == []
        return answer["grant"]["id"]

    return made


@pytest.fixture
def places(two):  # noqa: F811
    """The global IDs of two projects and of what is in the first."""
    return {
        "ours": global_id(Kind.PROJECT, two.ours.project.id),
        "theirs": global_id(Kind.PROJECT, two.theirs.project.id),
        "dataset": global_id(Kind.DATASET, two.ours.first.id),
        "sibling": global_id(Kind.DATASET, two.ours.second.id),
        "model": global_id(Kind.MODEL, two.ours.model.id),
    }


@pytest.fixture
async def world(execute, admin, caller, grant, places):
    """Bob and carol, a team with carol in it, and seven grants. The administrator's own has no reason."""
    bob, carol = await caller(None, username="bob"), await caller(None, username="carol")
    team = await execute(TEAM, principal=admin, input={"name": "Vision", "memberIds": [user(carol)]})
    team = team["data"]["createTeam"]["team"]["id"]
    await grant("bob looks everywhere", user(bob), "Viewer")
    await grant("bob curates one dataset", user(bob), ["DATASET_READ", "DATASET_UPDATE"], places["dataset"])
    await grant("the team works in ours", team, "Data Scientist", places["ours"])
    await grant("the team writes in theirs", team, ["DATASET_UPDATE"], places["theirs"])
    await grant("carol reads in theirs", user(carol), ["DATASET_READ"], places["theirs"])
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await grant("carol for a day", user(carol), "Viewer", places["ours"], expiresAt=soon)
    return {"bob": bob, "carol": carol, "team": team}


async def listed(execute, principal, **filter):
    answer = await execute(GRANTS, principal=principal, filter=filter or None)
    return [node["reason"] for node in answer["data"]["grants"]["nodes"]]


async def test_grants_are_listed_newest_first_by_page(execute, admin, world):
    first = (await execute(GRANTS, principal=admin, first=2))["data"]["grants"]
    after = first["pageInfo"]["endCursor"]
    second = (await execute(GRANTS, principal=admin, first=100, after=after))["data"]["grants"]

    assert [node["reason"] for node in first["nodes"] + second["nodes"]] == [
        "carol for a day",
        "carol reads in theirs",
        "the team writes in theirs",
        "the team works in ours",
        "bob curates one dataset",
        "bob looks everywhere",
        None,
    ]
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"], second["pageInfo"]["hasNextPage"]) == (
        7,
        True,
        False,
    )


async def test_grants_are_filtered(execute, admin, db, world, places):
    by = {
        "principal": await listed(execute, admin, principalId=user(world["bob"])),
        "team": await listed(execute, admin, principalId=world["team"]),
        "role": await listed(execute, admin, roleId=await role_id(db, "Viewer")),
        "scope": await listed(execute, admin, scope="RESOURCE"),
        "project": await listed(execute, admin, projectId=places["theirs"]),
        "resource": await listed(execute, admin, resourceId=places["dataset"]),
        "permission": await listed(execute, admin, permission="DATASET_UPDATE"),
        "nothing": await listed(execute, admin, principalId=places["ours"]),
        "both": await listed(execute, admin, permission="DATASET_READ", principalId=user(world["carol"])),
    }

    assert by == {
        "principal": ["bob curates one dataset", "bob looks everywhere"],
        "team": ["the team writes in theirs", "the team works in ours"],
        "role": ["carol for a day", "bob looks everywhere"],
        "scope": ["bob curates one dataset"],
        "project": ["carol reads in theirs", "the team writes in theirs"],
        "resource": ["bob curates one dataset"],
        "permission": ["the team writes in theirs", "the team works in ours", "bob curates one dataset", None],
        "nothing": [],
        "both": ["carol for a day", "carol reads in theirs"],
    }


async def test_grants_that_are_over_are_listed_when_asked_for(execute, admin, db, caller, grant, places):
    bob = await caller(None, username="bob")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await grant("over", user(bob), "Viewer", places["ours"], expiresAt=later)
    async with db.transaction() as session:
        await session.run(update(grants).values(expires_at=func.now()).where(grants.c.expires_at.is_not(None)))

    assert await listed(execute, admin, principalId=user(bob)) == []
    assert await listed(execute, admin, principalId=user(bob), includeExpired=True) == ["over"]
    check = await execute(CHECK, principal=admin, who=user(bob), what="DATASET_READ", where=places["ours"])
    assert not check["data"]["permissionCheck"]["allowed"]


async def test_the_grants_of_a_project_are_for_those_who_read_grants_there(
    execute, admin, db, caller, grant, world, places
):
    keeper = await caller(None, username="keeper")
    await grant("keeper", user(keeper), ["GRANT_READ", "PROJECT_READ"], places["ours"])
    keeper = await again(db, keeper)
    asked = """
    query ($ours: ID!) {
      project(id: $ours) { grants(first: 2) { nodes { reason } totalCount } }
      grants(filter: {projectId: $ours}) { totalCount }
    }
    """

    own = await execute(asked, principal=keeper, ours=places["ours"])
    everywhere = await execute("{ grants { totalCount } }", principal=keeper)
    other = await execute(GRANTS, principal=keeper, filter={"projectId": places["theirs"]})
    scientist = await execute(asked, principal=await again(db, world["carol"]), ours=places["ours"])

    assert own["data"] == {
        "project": {"grants": {"nodes": [{"reason": "keeper"}, {"reason": "carol for a day"}], "totalCount": 4}},
        "grants": {"totalCount": 4},
    }
    assert [answer["data"] for answer in (everywhere, other)] == [{"grants": None}] * 2
    assert scientist["data"] == {"project": {"grants": None}, "grants": None}
    refused = [error["extensions"]["code"] for answer in (everywhere, other, scientist) for error in answer["errors"]]
    assert refused == ["FORBIDDEN"] * 4


async def test_the_grants_of_a_user_are_those_held_directly_and_through_teams(execute, admin, world, statements):
    asked = """
    query ($scope: GrantScopeType) {
      users { nodes { username grants(scope: $scope, first: 3) { nodes { reason } totalCount pageInfo { hasNextPage } } } }
    }
    """  # noqa: E501

    with statements() as seen:
        found = (await execute(asked, principal=admin))["data"]["users"]["nodes"]
    some = (await execute(asked, principal=admin, scope="RESOURCE"))["data"]["users"]["nodes"]
    refused = await execute("{ viewer { user { grants { totalCount } } } }", principal=world["bob"])

    carol = ["carol for a day", "carol reads in theirs", "the team writes in theirs"]
    assert {node["username"]: [grant["reason"] for grant in node["grants"]["nodes"]] for node in found} == {
        "ada": [None],
        "bob": ["bob curates one dataset", "bob looks everywhere"],
        "carol": carol,
    }
    assert [node["grants"]["totalCount"] for node in found] == [1, 2, 4]
    assert len(seen) == 3, "users, their grants, the counts"
    assert [node["grants"]["totalCount"] for node in some] == [0, 1, 0]
    assert refused["errors"][0]["extensions"] == {"code": "FORBIDDEN"}


async def test_a_check_names_the_grants_that_decide(execute, admin, world, places):
    """The team alone may not write in theirs, where it does not read; carol, who does, may."""
    expected = {
        ("bob", "DATASET_READ", None): ["bob looks everywhere"],
        ("bob", "DATASET_READ", "dataset"): ["bob curates one dataset", "bob looks everywhere"],
        ("bob", "DATASET_UPDATE", "dataset"): ["bob curates one dataset"],
        ("bob", "DATASET_UPDATE", "sibling"): [],
        ("bob", "DATASET_UPDATE", None): [],
        ("carol", "DATASET_UPDATE", "dataset"): ["the team works in ours"],
        ("carol", "DATASET_UPDATE", "theirs"): ["the team writes in theirs"],
        ("carol", "DATASET_UPDATE", None): [],
        ("team", "DATASET_UPDATE", "ours"): ["the team works in ours"],
        ("team", "DATASET_UPDATE", "theirs"): [],
    }

    found = {}
    for who, what, where in expected:
        principal = world[who] if who == "team" else user(world[who])
        check = await execute(CHECK, principal=admin, who=principal, what=what, where=places.get(where))
        answer = check["data"]["permissionCheck"]
        found[who, what, where] = sorted(grant["reason"] for grant in answer["decidedBy"])
        assert answer["allowed"] == bool(found[who, what, where])

    assert found == expected


async def test_a_check_says_why(execute, admin, db, world, places):
    asked = {
        "everywhere": (user(world["bob"]), "RUN_READ", "ours"),
        "here": (world["team"], "RUN_CREATE", "ours"),
        "none": (user(world["bob"]), "RUN_CREATE", "ours"),
        "blind": (world["team"], "DATASET_UPDATE", "theirs"),
    }

    said = {}
    for name, (who, what, where) in asked.items():
        answer = await execute(CHECK, principal=admin, who=who, what=what, where=places[where])
        said[name] = answer["data"]["permissionCheck"]["reason"]

    assert said == {
        "everywhere": "The user holds RUN_READ everywhere.",
        "here": "The team holds RUN_CREATE here.",
        "none": "This needs the permission RUN_CREATE, which none of the user's grants gives.",
        "blind": "DATASET_UPDATE is worth nothing without DATASET_READ, which none of the team's grants gives here.",
    }


async def test_there_is_no_check_of_nobody(execute, admin, places):
    for nobody in (global_id(Kind.USER, new_id()), global_id(Kind.TEAM, new_id()), places["ours"], "nonsense"):
        check = await execute(CHECK, principal=admin, who=nobody, what="RUN_READ", where=None)
        assert check == {"data": {"permissionCheck": None}}


async def test_who_is_suspended_may_nothing(execute, admin, db, world, places):
    async with db.transaction() as session:
        await session.run(update(users).where(users.c.username == "bob").values(status="SUSPENDED"))

    check = await execute(CHECK, principal=admin, who=user(world["bob"]), what="DATASET_READ", where=places["dataset"])
    who = await execute(WHO, principal=admin, what="DATASET_READ", where=places["dataset"])

    assert not check["data"]["permissionCheck"]["allowed"]
    holders = [node["principal"] for node in who["data"]["whoCan"]["nodes"]]
    assert holders == [{"username": "carol"}, {"name": "Vision"}, {"username": "ada"}]


async def test_who_can_lists_everyone_and_through_what(execute, admin, world, places):
    asked = {"principal": admin, "what": "DATASET_UPDATE"}

    dataset = (await execute(WHO, **asked, where=places["dataset"], first=2))["data"]["whoCan"]
    after = dataset["pageInfo"]["endCursor"]
    rest = (await execute(WHO, **asked, where=places["dataset"], first=2, after=after))["data"]["whoCan"]
    theirs = (await execute(WHO, **asked, where=places["theirs"]))["data"]["whoCan"]
    everywhere = (await execute(WHO, **asked, where=None))["data"]["whoCan"]

    assert [(node["principal"], node["reason"]) for node in dataset["nodes"] + rest["nodes"]] == [
        ({"name": "Vision"}, "the team works in ours"),
        ({"username": "bob"}, "bob curates one dataset"),
        ({"username": "ada"}, None),
    ]
    assert (dataset["totalCount"], dataset["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (
        3,
        True,
        False,
    )
    assert [node["reason"] for node in theirs["nodes"]] == ["the team writes in theirs", None], "carol reads there"
    assert [node["reason"] for node in everywhere["nodes"]] == [None]


async def test_who_can_and_checks_are_for_those_who_read_grants_there(execute, admin, db, caller, grant, places):
    keeper = await caller(None, username="keeper")
    await grant("keeper", user(keeper), ["GRANT_READ"], places["ours"])
    keeper = await again(db, keeper)

    inside = await execute(WHO, principal=keeper, what="GRANT_READ", where=places["dataset"])
    outside = [
        await execute(WHO, principal=keeper, what="GRANT_READ", where=where)
        for where in (None, places["theirs"], global_id(Kind.DATASET, new_id()))
    ]
    check = await execute(CHECK, principal=keeper, who=user(admin), what="RUN_READ", where=places["theirs"])

    assert [node["reason"] for node in inside["data"]["whoCan"]["nodes"]] == ["keeper", None]
    assert [answer["errors"][0]["extensions"]["code"] for answer in (*outside, check)] == ["FORBIDDEN"] * 4
    assert outside[1] == outside[2], "what is out of sight reads like what does not exist"
