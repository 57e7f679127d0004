"""Giving and taking rights through the API."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from db import access, roles
from db.ids import Kind, global_id, new_id
from db.tables import grants

CREATE = """
mutation ($input: CreateGrantInput!) {
  createGrant(input: $input) {
    grant { id scope permissions role { name } project { name } resource { id } reason createdBy { ... on User { username } } }
    errors { __typename code message path }
  }
}
"""  # noqa: E501
REVOKE = """
mutation ($input: RevokeGrantInput!) { revokeGrant(input: $input) { revokedId errors { __typename code path } } }
"""
DATASET = "mutation ($input: CreateDatasetInput!) { createDataset(input: $input) { dataset { id } errors { code } } }"
SEE = "query ($id: ID!) { node(id: $id) { id } }"


async def role_id(db, name):
    async with db.reading() as session:
        return global_id(Kind.ROLE, (await roles.by_name(session, name)).id)


async def again(db, principal):
    """The caller with the rights of the next request."""
    async with db.reading() as session:
        return await access.principal(session, session_id=principal.session_id, user_id=principal.user_id)


async def count(db):
    async with db.reading() as session:
        return await session.scalar(select(func.count()).select_from(grants))


async def test_a_role_in_a_project_is_given_and_taken_back(execute, db, admin, caller, project):
    guest = await caller(None)
    here = global_id(Kind.PROJECT, project.id)
    input = {
        "principalId": global_id(Kind.USER, guest.user_id),
        "what": {"roleId": await role_id(db, "Data Scientist")},
        "scopeId": here,
        "reason": "joins",
    }
    assert (await execute(SEE, principal=guest, id=here))["data"] == {"node": None}

    made = (await execute(CREATE, principal=admin, input=input))["data"]["createGrant"]
    guest = await again(db, guest)
    dataset = await execute(DATASET, principal=guest, input={"projectId": here, "name": "d"})
    revoked = await execute(REVOKE, principal=admin, input={"id": made["grant"]["id"]})

    assert made["errors"] == []
    assert made["grant"] | {"id": ""} == {
        "id": "",
        "scope": "PROJECT",
        "permissions": [],
        "role": {"name": "Data Scientist"},
        "project": {"name": "Lab"},
        "resource": None,
        "reason": "joins",
        "createdBy": {"username": "ada"},
    }
    assert dataset["data"]["createDataset"]["errors"] == []
    assert revoked["data"]["revokeGrant"] == {"revokedId": made["grant"]["id"], "errors": []}
    assert (await execute(SEE, principal=await again(db, guest), id=here))["data"] == {"node": None}


async def test_single_permissions_on_one_dataset(execute, db, admin, caller, project):
    guest = await caller(None)
    here = global_id(Kind.PROJECT, project.id)
    made = await execute(DATASET, principal=admin, input={"projectId": here, "name": "d"})
    dataset = made["data"]["createDataset"]["dataset"]["id"]
    input = {
        "principalId": global_id(Kind.USER, guest.user_id),
        "what": {"permissions": ["DATASET_READ"]},
        "scopeId": dataset,
    }

    grant = (await execute(CREATE, principal=admin, input=input))["data"]["createGrant"]["grant"]

    assert (grant["scope"], grant["permissions"], grant["resource"]) == ("RESOURCE", ["DATASET_READ"], {"id": dataset})
    assert (await execute(SEE, principal=await again(db, guest), id=dataset))["data"] == {"node": {"id": dataset}}


async def test_nobody_gives_away_what_is_not_theirs_or_to_nobody(execute, db, admin, caller, project):
    here = global_id(Kind.PROJECT, project.id)
    manager = await caller(None)
    given = {
        "principalId": global_id(Kind.USER, manager.user_id),
        "what": {"permissions": ["GRANT_MANAGE", "GRANT_READ", "DATASET_READ"]},
        "scopeId": here,
    }
    assert (await execute(CREATE, principal=admin, input=given))["data"]["createGrant"]["errors"] == []
    manager = await again(db, manager)
    before = await count(db)

    more = await execute(CREATE, principal=manager, input=given | {"what": {"permissions": ["RUN_READ"]}})
    nobody = await execute(CREATE, principal=admin, input=given | {"principalId": global_id(Kind.USER, new_id())})
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    late = await execute(CREATE, principal=admin, input=given | {"expiresAt": past})
    everywhere = await execute(CREATE, principal=manager, input=given | {"scopeId": None})

    assert more["data"]["createGrant"]["errors"] == [
        {
            "__typename": "ValidationError",
            "code": "INVALID",
            "message": "You do not hold RUN_READ there yourself.",
            "path": ["input", "what", "permissions"],
        }
    ]
    paths = [answer["data"]["createGrant"]["errors"][0]["path"] for answer in (nobody, late)]
    assert paths == [["input", "principalId"], ["input", "expiresAt"]]
    assert [error["extensions"]["code"] for error in everywhere["errors"]] == ["FORBIDDEN"]
    assert await count(db) == before


async def test_the_last_administrator_stays(execute, db, admin, caller):
    (id,) = [grant.id for grant in admin.grants]
    last = await execute(REVOKE, principal=admin, input={"id": global_id(Kind.GRANT, id)})

    assert last["data"]["revokeGrant"] == {
        "revokedId": None,
        "errors": [{"__typename": "ValidationError", "code": "LAST_ADMIN", "path": ["input", "id"]}],
    }
    assert await count(db) == 1
    await caller("Administrator")
    one = await execute(REVOKE, principal=admin, input={"id": global_id(Kind.GRANT, id)})
    assert one["data"]["revokeGrant"]["errors"] == []
