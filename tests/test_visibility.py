"""What a caller may not see is not there, and a grant in one project or on one dataset reaches no further."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from auth.permissions import NEEDS, READS, Permission
from auth.principals import HeldGrant, Place, Principal
from db import access, datasets, models, roles
from db.ids import Kind, global_id, new_id
from db.rows import KnownProject
from db.tables import datasets as dataset_table
from db.tables import grants, model_aliases
from domain.datasets import create_dataset
from domain.models import create_model
from domain.projects import create_project
from tests.at_work import queued_run

SEEN = """
{
  projects { nodes { slug } totalCount }
  datasets(first: 1) { nodes { name } totalCount pageInfo { hasNextPage } }
  models { nodes { name } totalCount }
  trainingRuns { totalCount }
  events(first: 100) { nodes { type subjectId } }
}
"""
NODE = "query ($id: ID!) { node(id: $id) { __typename id } }"
CREATE = """
mutation ($input: CreateDatasetInput!) { createDataset(input: $input) { dataset { name } errors { __typename code } } }
"""
DELETE = """
mutation ($input: DeleteDatasetInput!) {
  deleteDataset(input: $input) { errors { code message ... on InUseError { dependents { id } } } }
}
"""
ALIAS = """
mutation ($input: SetModelAliasInput!) { setModelAlias(input: $input) { errors { __typename code path } } }
"""


@pytest.fixture
async def two(db: Any, admin: Principal) -> SimpleNamespace:
    """Two projects with two datasets and a model each: ours, and theirs."""
    made: dict[str, Any] = {}
    async with db.transaction() as session:
        for slug in ("ours", "theirs"):
            project = await create_project(session, admin, slug=slug, name=slug.title(), description="D", tags=[])
            of = {"project_id": global_id(Kind.PROJECT, project.id), "description": None, "tags": []}
            first = await create_dataset(session, admin, name=f"{slug}-1", **of)
            second = await create_dataset(session, admin, name=f"{slug}-2", **of)
            model = await create_model(session, admin, name=f"{slug}-model", task="REGRESSION", **of)
            made[slug] = SimpleNamespace(project=project, first=first, second=second, model=model)
    return SimpleNamespace(**made)


@pytest.fixture
def granted(db: Any, caller: Any) -> Any:
    """`await granted("Data Scientist", project=…, resource=…)`: a user with one grant there, as the database has it."""

    async def make(role: str, *, project: Any, resource: Any = None, expired: bool = False) -> Principal:
        user = await caller(None)
        async with db.transaction() as session:
            known = await roles.by_name(session, role)
            await session.run(
                insert(grants).values(
                    id=new_id(),
                    user_id=user.user_id,
                    role_id=known.id,
                    scope="PROJECT" if resource is None else "RESOURCE",
                    project_id=project.id,
                    resource_id=None if resource is None else resource.id,
                    resource_kind=None if resource is None else Kind.DATASET,
                    expires_at=func.now() if expired else None,
                )
            )
            found = await access.principal(session, session_id=user.session_id, user_id=user.user_id)
        assert found is not None
        return found

    return make


def project_id(of: Any) -> str:
    return global_id(Kind.PROJECT, of.project.id)


def dataset_id(dataset: Any) -> str:
    return global_id(Kind.DATASET, dataset.id)


async def test_of_another_project_nothing_is_there(execute, granted, two):
    scientist = await granted("Data Scientist", project=two.ours.project)

    seen = (await execute(SEEN, principal=scientist))["data"]

    assert seen["projects"] == {"nodes": [{"slug": "ours"}], "totalCount": 1}
    assert seen["datasets"] == {"nodes": [{"name": "ours-2"}], "totalCount": 2, "pageInfo": {"hasNextPage": True}}
    assert seen["models"] == {"nodes": [{"name": "ours-model"}], "totalCount": 1}
    assert [event["subjectId"] for event in seen["events"]["nodes"]] == [
        project_id(two.ours),
        dataset_id(two.ours.first),
        dataset_id(two.ours.second),
        global_id(Kind.MODEL, two.ours.model.id),
    ]
    for id in (project_id(two.theirs), dataset_id(two.theirs.first), global_id(Kind.MODEL, two.theirs.model.id)):
        assert await execute(NODE, principal=scientist, id=id) == {"data": {"node": None}}


async def test_a_list_costs_one_statement_whoever_asks(execute, granted, two, statements):
    scientist = await granted("Data Scientist", project=two.ours.project)

    with statements() as seen:
        await execute("{ datasets { nodes { name project { slug } } } }", principal=scientist)

    assert len(seen) == 2, "datasets, their projects"


async def test_a_grant_on_one_dataset_shows_it_and_of_its_project_the_name(execute, granted, two):
    guest = await granted("Viewer", project=two.ours.project, resource=two.ours.first)

    seen = (await execute(SEEN, principal=guest))["data"]
    inside = await execute("{ datasets { nodes { project { id name description } } } }", principal=guest)
    slug = await execute("query ($id: ID!) { project(id: $id) { slug } }", principal=guest, id=project_id(two.ours))

    assert seen["projects"] == {"nodes": [], "totalCount": 0}
    assert seen["datasets"] == {"nodes": [{"name": "ours-1"}], "totalCount": 1, "pageInfo": {"hasNextPage": False}}
    assert seen["models"] == {"nodes": [], "totalCount": 0}
    assert [event["subjectId"] for event in seen["events"]["nodes"]] == [dataset_id(two.ours.first)]
    project = {"id": project_id(two.ours), "name": "Ours", "description": None}
    assert inside == {"data": {"datasets": {"nodes": [{"project": project}]}}}
    assert slug["data"] == {"project": None}
    assert [error["extensions"]["code"] for error in slug["errors"]] == ["FORBIDDEN"]


async def test_what_is_out_of_sight_is_refused_like_what_does_not_exist(execute, granted, two, db):
    scientist = await granted("Data Scientist", project=two.ours.project)
    viewer = await granted("Viewer", project=two.ours.project)
    answers = [
        await execute(CREATE, principal=principal, input={"projectId": id, "name": "new"})
        for principal, id in (
            (scientist, project_id(two.theirs)),
            (scientist, global_id(Kind.PROJECT, new_id())),
            (scientist, "nonsense"),
            (viewer, project_id(two.ours)),
        )
    ]

    assert answers[0]["data"] == {"createDataset": None}
    assert [error["extensions"] for error in answers[0]["errors"]] == [{"code": "FORBIDDEN"}]
    assert answers == [answers[0]] * 4
    async with db.reading() as session:
        assert await session.scalar(select(func.count()).select_from(dataset_table)) == 4

    made = await execute(CREATE, principal=scientist, input={"projectId": project_id(two.ours), "name": "new"})
    assert made["data"]["createDataset"] == {"dataset": {"name": "new"}, "errors": []}


async def test_a_reference_out_of_sight_reads_as_one_to_nothing(execute, granted, two, db):
    scientist = await granted("Data Scientist", project=two.ours.project)
    other_scientist = await granted("Data Scientist", project=two.theirs.project)

    answers = [
        await execute(
            ALIAS,
            principal=scientist,
            input={"modelId": global_id(Kind.MODEL, two.ours.model.id), "alias": "a", "versionId": version},
        )
        for version in (global_id(Kind.MODEL_VERSION, new_id()), global_id(Kind.MODEL, two.theirs.model.id))
    ]
    other = await execute(
        ALIAS,
        principal=other_scientist,
        input={"modelId": global_id(Kind.MODEL, two.ours.model.id), "alias": "a", "versionId": "x"},
    )

    for answer in answers:
        assert answer["data"]["setModelAlias"]["errors"] == [
            {"__typename": "NotFoundError", "code": "NOT_FOUND", "path": ["input", "versionId"]}
        ]
    assert [error["extensions"]["code"] for error in other["errors"]] == ["FORBIDDEN"]
    async with db.reading() as session:
        assert await session.scalar(select(func.count()).select_from(model_aliases)) == 0


async def test_a_refusal_does_not_name_what_is_out_of_sight(execute, admin, project, db, store, tmp_path):
    await queued_run(db, store, execute, admin, project, tmp_path, rounds=5, repeat=1)
    async with db.reading() as session:
        dataset = await session.scalar(select(dataset_table.c.id))
    cleaner = Principal.of(
        admin.user_id,
        admin.session_id,
        [HeldGrant(new_id(), frozenset({Permission.DATASET_READ, Permission.DATASET_DELETE}), project.id)],
    )

    refused = await execute(DELETE, principal=cleaner, input={"id": global_id(Kind.DATASET, dataset)})

    assert refused["data"]["deleteDataset"]["errors"] == [
        {
            "code": "IN_USE",
            "message": "Runs that are not over use this dataset. Cancel them, or wait for their end.",
            "dependents": [],
        }
    ]
    async with db.reading() as session:
        assert await session.scalar(select(func.count()).select_from(dataset_table)) == 1


async def test_a_grant_that_is_over_gives_nothing(execute, granted, two):
    late = await granted("Administrator", project=two.ours.project, expired=True)

    assert (await execute(NODE, principal=late, id=project_id(two.ours)))["data"] == {"node": None}


async def test_viewer_can_agrees_with_the_guard(execute, granted, two):
    scientist = await granted("Data Scientist", project=two.ours.project)
    maintainer = await granted("Maintainer", project=two.ours.project)
    asked = """
    query ($id: ID!) {
      project(id: $id) { viewerCan(permission: DATASET_CREATE) { allowed decidedBy { scope } } }
      viewer { can(permission: DATASET_CREATE, resourceId: $id) { allowed } everywhere: can(permission: DATASET_CREATE) { allowed } }
    }
    """  # noqa: E501

    own = (await execute(asked, principal=scientist, id=project_id(two.ours)))["data"]
    named = (await execute(asked, principal=maintainer, id=project_id(two.ours)))["data"]
    other = (await execute(asked, principal=scientist, id=project_id(two.theirs)))["data"]

    assert own["project"]["viewerCan"] == {"allowed": True, "decidedBy": []}, "a scientist may not read grants"
    assert named["project"]["viewerCan"] == {"allowed": True, "decidedBy": [{"scope": "PROJECT"}]}
    assert own["viewer"] == {"can": {"allowed": True}, "everywhere": {"allowed": False}}
    assert other == {"project": None, "viewer": {"can": {"allowed": False}, "everywhere": {"allowed": False}}}


async def test_without_seeing_nothing_is_changed():
    """Reading and writing are two permissions, and the second is worth nothing alone, whichever grants they are in."""
    project, dataset, other = new_id(), new_id(), new_id()
    write = HeldGrant(new_id(), frozenset({Permission.DATASET_UPDATE}), project)
    read = HeldGrant(new_id(), frozenset({Permission.DATASET_READ}), project, dataset)
    alone = Principal.of(new_id(), new_id(), [write])
    both = Principal.of(new_id(), new_id(), [write, read])

    assert not alone.may(Permission.DATASET_UPDATE, Place(project, dataset))
    assert both.may(Permission.DATASET_UPDATE, Place(project, dataset))
    assert both.deciding(Permission.DATASET_UPDATE, Place(project, dataset)) == (write.id,)
    assert not both.may(Permission.DATASET_UPDATE, Place(project, other))
    assert not both.may(Permission.DATASET_UPDATE)
    assert set(NEEDS.values()) <= READS


async def test_the_rule_and_the_statements_agree(db, two):
    """Every pair of two grants: what `may` says of each object is what a look-up by its key finds."""
    places: list[tuple[Any, Any]] = [(None, None)]
    for of in (two.ours, two.theirs):
        places += [(of.project.id, None), (of.project.id, of.first.id), (of.project.id, of.model.id)]
    shown = (frozenset({Permission.DATASET_READ}), frozenset({Permission.MODEL_READ, Permission.PROJECT_READ}))
    held = [HeldGrant(new_id(), permissions, *place) for place in places for permissions in shown]
    sets = [two.ours.first, two.ours.second, two.theirs.first, two.theirs.second]
    kinds = [two.ours.model, two.theirs.model]
    for one in held:
        for other in held:
            reader = Principal.of(new_id(), new_id(), [one, other])
            async with db.seen_by(reader).reading() as session:
                found = {*await datasets.by_ids(session, [row.id for row in sets])}
                found |= {*await models.by_ids(session, [row.id for row in kinds])}
            assert found == {
                row.id
                for permission, rows in ((Permission.DATASET_READ, sets), (Permission.MODEL_READ, kinds))
                for row in rows
                if reader.may(permission, Place(row.project_id, row.id))
            }


async def test_nobody_sees_nothing_and_the_service_everything(db, two):
    async with db.seen_by(None).reading() as session:
        assert await datasets.by_ids(session, [two.ours.first.id]) == {}
    async with db.reading() as session:
        assert [*await datasets.by_ids(session, [two.ours.first.id])] == [two.ours.first.id]


def test_a_known_project_tells_its_name_only():
    known = KnownProject(new_id(), "Lab")

    assert (known.name, known.description, known.created_by) == ("Lab", None, None)
    with pytest.raises(AttributeError):
        _ = known.colour
