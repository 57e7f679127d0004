"""Roles of one's own: made, changed, deleted, and what their holders may do the moment after."""

import pytest
from sqlalchemy import select

from auth.permissions import BUILT_IN_ROLES
from db import roles as queries
from db.ids import Kind, global_id
from db.tables import roles
from tests.test_grants import CREATE as GRANT
from tests.test_grants import REVOKE, again, role_id

CREATE = """
mutation ($input: CreateRoleInput!) {
  createRole(input: $input) {
    role { id name description builtIn permissions revision }
    errors { __typename code path ... on AlreadyExistsError { existing { ... on Role { name builtIn } } } }
  }
}
"""
UPDATE = """
mutation ($input: UpdateRoleInput!) {
  updateRole(input: $input) {
    role { name description permissions revision }
    errors { code message path ... on StaleRevisionError { currentRevision current { ... on Role { name } } } }
  }
}
"""
DELETE = """
mutation ($id: ID!) {
  deleteRole(input: {id: $id}) { deletedId errors { code message path ... on InUseError { dependents { id } } } }
}
"""
CAN = "query ($id: ID!) { viewer { can(permission: DATASET_CREATE, resourceId: $id) { allowed } } }"
HOLDERS = """
query ($id: ID!) {
  role(id: $id) { grants(first: 1) { nodes { id principal { ... on User { username } } } totalCount } }
}
"""


@pytest.fixture
def create(execute, admin):
    async def made(name, *permissions):
        input = {"name": name, "permissions": list(permissions)}
        answer = (await execute(CREATE, principal=admin, input=input))["data"]["createRole"]
        assert answer["errors"] == []
        return answer["role"]["id"]

    return made


@pytest.fixture
def grant(execute, admin):
    async def made(principal, what, place=None):
        input = {"principalId": global_id(Kind.USER, principal.user_id), "what": what, "scopeId": place}
        answer = (await execute(GRANT, principal=admin, input=input))["data"]["createGrant"]
        assert answer["errors"] == []
        return answer["grant"]["id"]

    return made


async def stored(db):
    """The roles of one's own, as they are in the database."""
    async with db.reading() as session:
        statement = select(roles.c.name, roles.c.permissions, roles.c.revision).where(~roles.c.built_in)
        return [tuple(record) for record in await session.records(statement)]


async def test_a_role_is_made_of_permissions(execute, admin, db):
    made = await execute(
        CREATE,
        principal=admin,
        input={"name": "Curator", "description": "Tidies", "permissions": ["RUN_READ", "DATASET_READ", "RUN_READ"]},
    )

    role = made["data"]["createRole"]["role"]
    assert role | {"id": ""} == {
        "id": "",
        "name": "Curator",
        "description": "Tidies",
        "builtIn": False,
        "permissions": ["DATASET_READ", "RUN_READ"],
        "revision": 1,
    }
    told = await execute(
        "{ events(last: 1) { nodes { type subjectId changes } } "
        "auditEvents(first: 1) { nodes { action resourceName } } }",
        principal=admin,
    )
    assert told["data"] == {
        "events": {
            "nodes": [
                {
                    "type": "ROLE_CHANGED",
                    "subjectId": role["id"],
                    "changes": {"name": [None, "Curator"], "permissions": [[], ["DATASET_READ", "RUN_READ"]]},
                }
            ]
        },
        "auditEvents": {"nodes": [{"action": "ROLE_CHANGE", "resourceName": "Curator"}]},
    }


@pytest.mark.parametrize(
    ("input", "error"),
    [
        ({"name": "Viewer", "permissions": ["RUN_READ"]}, ("ALREADY_EXISTS", ["input", "name"])),
        ({"name": "Curator", "permissions": []}, ("OUT_OF_RANGE", ["input", "permissions"])),
        ({"name": "", "permissions": ["RUN_READ"]}, ("REQUIRED", ["input", "name"])),
        ({"name": "x" * 101, "permissions": ["RUN_READ"]}, ("TOO_LONG", ["input", "name"])),
    ],
)
async def test_what_is_no_role_is_not_made(execute, admin, db, input, error):
    made = (await execute(CREATE, principal=admin, input=input))["data"]["createRole"]

    assert made["role"] is None
    assert [(e["code"], e["path"]) for e in made["errors"]] == [error]
    assert await stored(db) == []


async def test_what_a_role_becomes_its_holders_may_at_once(execute, admin, caller, db, create, grant, project):
    here = global_id(Kind.PROJECT, project.id)
    role = await create("Curator", "DATASET_READ")
    bob = await caller(None, username="bob")
    await grant(bob, {"roleId": role}, here)
    assert not (await execute(CAN, principal=await again(db, bob), id=here))["data"]["viewer"]["can"]["allowed"]

    input = {"id": role, "expectedRevision": 1, "permissions": ["DATASET_READ", "DATASET_CREATE"]}
    more = await execute(UPDATE, principal=admin, input=input)
    may = (await execute(CAN, principal=await again(db, bob), id=here))["data"]["viewer"]["can"]["allowed"]
    input = {"id": role, "name": "Reader", "description": "Reads", "permissions": ["DATASET_READ"]}
    less = await execute(UPDATE, principal=admin, input=input)

    assert more["data"]["updateRole"] == {
        "role": {
            "name": "Curator",
            "description": None,
            "permissions": ["DATASET_CREATE", "DATASET_READ"],
            "revision": 2,
        },
        "errors": [],
    }
    assert may
    assert less["data"]["updateRole"]["role"] == {
        "name": "Reader",
        "description": "Reads",
        "permissions": ["DATASET_READ"],
        "revision": 3,
    }
    assert not (await execute(CAN, principal=await again(db, bob), id=here))["data"]["viewer"]["can"]["allowed"]


async def test_a_role_that_does_not_change_keeps_its_revision(execute, admin, db, create):
    role = await create("Curator", "DATASET_READ")

    same = await execute(UPDATE, principal=admin, input={"id": role, "permissions": ["DATASET_READ"]})

    assert same["data"]["updateRole"]["role"]["revision"] == 1


async def test_an_old_revision_a_taken_name_and_nothing_at_all_change_nothing(execute, admin, db, create):
    await create("Reader", "RUN_READ")
    role = await create("Curator", "DATASET_READ")
    before = await stored(db)
    inputs = [{"expectedRevision": 4, "name": "New"}, {"name": "Reader"}, {"permissions": []}, {"name": "Viewer"}]

    refused = [
        (await execute(UPDATE, principal=admin, input={"id": role, **input}))["data"]["updateRole"] for input in inputs
    ]

    assert [answer["role"] for answer in refused] == [None] * 4
    assert refused[0]["errors"] == [
        {
            "code": "STALE_REVISION",
            "message": "The role has been changed: its revision is 1. Read it again.",
            "path": ["input", "expectedRevision"],
            "currentRevision": 1,
            "current": {"name": "Curator"},
        }
    ]
    assert [answer["errors"][0]["code"] for answer in refused[1:]] == ["ALREADY_EXISTS", "REQUIRED", "ALREADY_EXISTS"]
    assert await stored(db) == before


async def test_built_in_roles_stay_as_they_are(execute, admin, db):
    """And with them the last administrator: the role Administrator neither shrinks nor goes."""
    for built_in in BUILT_IN_ROLES:
        id = await role_id(db, built_in.name)

        changed = (await execute(UPDATE, principal=admin, input={"id": id, "permissions": ["RUN_READ"]}))["data"]
        deleted = (await execute(DELETE, principal=admin, id=id))["data"]

        assert changed["updateRole"]["errors"] == [
            {
                "code": "INVALID",
                "message": "A built-in role cannot be edited: make one of your own with its permissions.",
                "path": ["input", "id"],
            }
        ]
        assert deleted["deleteRole"]["errors"] == [
            {"code": "INVALID", "message": "A built-in role cannot be deleted.", "path": ["input", "id"]}
        ]
        async with db.reading() as session:
            assert set((await queries.by_name(session, built_in.name)).permissions) == built_in.permissions


async def test_a_role_that_is_held_is_not_deleted_and_its_grants_are_named(
    execute, admin, caller, db, create, grant, project
):
    role = await create("Curator", "DATASET_READ")
    bob = await caller(None, username="bob")
    granted = await grant(bob, {"roleId": role}, global_id(Kind.PROJECT, project.id))
    manager = await caller(None, username="manager")
    await grant(manager, {"permissions": ["ROLE_MANAGE", "ROLE_READ"]})

    refused = (await execute(DELETE, principal=admin, id=role))["data"]["deleteRole"]
    blind = (await execute(DELETE, principal=await again(db, manager), id=role))["data"]["deleteRole"]
    still = await stored(db)
    await execute(REVOKE, principal=admin, input={"id": granted})
    deleted = (await execute(DELETE, principal=await again(db, manager), id=role))["data"]["deleteRole"]

    error = {"code": "IN_USE", "message": "There are grants of this role. Revoke them first.", "path": ["input", "id"]}
    assert refused == {"deletedId": None, "errors": [error | {"dependents": [{"id": granted}]}]}
    assert blind == {"deletedId": None, "errors": [error | {"dependents": []}]}
    assert still == [("Curator", ["DATASET_READ"], 1)]
    assert deleted == {"deletedId": role, "errors": []}
    assert await stored(db) == []
    gone = (await execute(DELETE, principal=admin, id=role))["data"]["deleteRole"]
    assert [error["code"] for error in gone["errors"]] == ["NOT_FOUND"]


async def test_nobody_puts_into_a_role_that_is_held_what_they_do_not_hold_there(
    execute, admin, caller, db, create, grant, project
):
    """ROLE_MANAGE alone is no way to more rights, one's own or another's."""
    manager = await caller(None, username="manager")
    await grant(manager, {"permissions": ["ROLE_MANAGE", "ROLE_READ", "DATASET_READ"]})
    role = await create("Curator", "DATASET_READ")
    manager = await again(db, manager)
    unheld = await execute(UPDATE, principal=manager, input={"id": role, "permissions": ["DATASET_READ", "RUN_READ"]})
    await execute(UPDATE, principal=manager, input={"id": role, "permissions": ["DATASET_READ"]})
    await grant(manager, {"roleId": role}, global_id(Kind.PROJECT, project.id))

    held = await execute(UPDATE, principal=manager, input={"id": role, "permissions": ["DATASET_READ", "AUDIT_READ"]})

    assert unheld["data"]["updateRole"]["errors"] == [], "nobody holds it"
    assert held["data"]["updateRole"] == {
        "role": None,
        "errors": [
            {
                "code": "INVALID",
                "message": "Holders of this role would get AUDIT_READ where you do not hold that yourself.",
                "path": ["input", "permissions"],
            }
        ],
    }
    assert [permissions for _, permissions, _ in await stored(db)] == [["DATASET_READ"]]


async def test_roles_are_for_those_who_manage_them(execute, caller, db, create):
    maintainer = await caller("Maintainer")
    role = await create("Curator", "DATASET_READ")

    answers = [
        await execute(CREATE, principal=maintainer, input={"name": "Mine", "permissions": ["RUN_READ"]}),
        await execute(UPDATE, principal=maintainer, input={"id": role, "name": "Mine"}),
        await execute(DELETE, principal=maintainer, id=role),
    ]

    assert [answer["errors"][0]["extensions"] for answer in answers] == [{"code": "FORBIDDEN"}] * 3
    assert await stored(db) == [("Curator", ["DATASET_READ"], 1)]


async def test_a_role_lists_the_grants_in_force_that_give_it(execute, admin, caller, db, create, grant, project):
    role = await create("Curator", "DATASET_READ")
    for name in ("bob", "carol"):
        await grant(await caller(None, username=name), {"roleId": role}, global_id(Kind.PROJECT, project.id))
    reader = await caller(None, username="reader")
    await grant(reader, {"permissions": ["ROLE_READ"]})

    listed = (await execute(HOLDERS, principal=admin, id=role))["data"]["role"]["grants"]
    refused = await execute(HOLDERS, principal=await again(db, reader), id=role)

    assert [node["principal"] for node in listed["nodes"]] == [{"username": "carol"}]
    assert listed["totalCount"] == 2
    assert refused["data"] == {"role": {"grants": None}}
    assert refused["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
