"""Datasets through the API: make, find, list, name versions."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from auth.principals import Principal
from db import datasets as queries
from db.database import Database
from db.ids import Kind, global_id, new_id
from db.rows import Dataset, Project
from db.vocabulary import DatasetFormat
from tests.uploading import CREATE_DATASET

LIST = """
query ($filter: DatasetFilter, $orderBy: DatasetOrder, $first: Int, $after: String, $last: Int, $before: String) {
  datasets(filter: $filter, orderBy: $orderBy, first: $first, after: $after, last: $last, before: $before) {
    nodes { name } totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
ALIAS = """
mutation ($input: SetDatasetAliasInput!) {
  setDatasetAlias(input: $input) {
    dataset { revision aliases { name version { number } setBy { ... on User { username } } } }
    errors { __typename code message path ... on NotFoundError { id } }
  }
}
"""


async def seed(
    db: Database, maker: Principal, project: Project, *, count: int = 1, versions: int = 0, columns: int = 0
) -> list[Dataset]:
    """Datasets `set00`, `set01`, ... with READY versions of so many columns."""
    made = []
    for number in range(count):
        async with db.transaction() as session:
            dataset = await queries.insert_unless_taken(
                session,
                project_id=project.id,
                name=f"set{number:02}",
                description=f"data of day {number}",
                tags=[{"key": "day", "value": str(number)}],
                created_by=maker.user_id,
            )
            assert dataset is not None
            for _ in range(versions):
                await ready(db, session, dataset.id, maker, columns)
        made.append(dataset)
    return made


async def ready(db: Database, session: Any, dataset_id: UUID, maker: Principal, columns: int) -> UUID:
    id, lease = new_id(), new_id()
    await queries.insert_version(
        session,
        id=id,
        dataset_id=dataset_id,
        format=DatasetFormat.CSV,
        csv_options=None,
        source={"kind": "UPLOAD", "uploaded_file_name": "a.csv"},
        note=None,
        created_by=maker.user_id,
    )
    await queries.uploaded(session, id, upload_key=f"uploads/{id.hex}", size_bytes=1)
    await queries.claim(session, id, lease, {})
    described = [
        {"name": f"c{n}", "position": n, "type": "FLOAT", "nullable": False, "role": "FEATURE"} for n in range(columns)
    ]
    await queries.finish(
        session, id, lease, data_key=f"datasets/{id.hex}", digest=id.hex * 2, row_count=1, described=described
    )
    return id


@pytest.fixture
async def datasets(db, scientist, project) -> list[Dataset]:
    return await seed(db, scientist, project, count=5)


def names(response: Any) -> list[str]:
    return [node["name"] for node in response["data"]["datasets"]["nodes"]]


async def test_makes_a_dataset(execute, scientist, project):
    made = await execute(
        CREATE_DATASET,
        principal=scientist,
        input={
            "projectId": f"project_{project.id.hex}",
            "name": "Flowers",
            "tags": [{"key": "season", "value": "spring"}],
        },
    )

    payload = made["data"]["createDataset"]
    assert payload == {
        "dataset": {
            "id": payload["dataset"]["id"],
            "name": "Flowers",
            "project": {"slug": "lab"},
            "tags": [{"key": "season", "value": "spring"}],
            "createdBy": {"username": "sam"},
            "revision": 1,
        },
        "errors": [],
    }
    node = await execute(
        "query ($id: ID!) { node(id: $id) { ... on Dataset { name } } dataset(id: $id) { name } }",
        principal=scientist,
        id=payload["dataset"]["id"],
    )
    assert node["data"] == {"node": {"name": "Flowers"}, "dataset": {"name": "Flowers"}}


@pytest.mark.parametrize(
    ("given", "kind", "code", "path"),
    [
        ({"name": "set00"}, "AlreadyExistsError", "ALREADY_EXISTS", ["input", "name"]),
        ({"name": "   "}, "ValidationError", "REQUIRED", ["input", "name"]),
        ({"name": ""}, "ValidationError", "OUT_OF_RANGE", ["input", "name"]),
        ({"name": "x" * 201}, "ValidationError", "OUT_OF_RANGE", ["input", "name"]),
        ({"name": "a\x00"}, "ValidationError", "INVALID", ["input", "name"]),
        ({"description": "\ud800"}, "ValidationError", "INVALID", ["input", "description"]),
        ({"tags": [{"key": "a", "value": "1"}] * 2}, "ValidationError", "INVALID", ["input", "tags", "1", "key"]),
        ({"projectId": f"project_{'0' * 32}"}, "NotFoundError", "NOT_FOUND", ["input", "projectId"]),
        ({"projectId": f"dataset_{'0' * 32}"}, "NotFoundError", "NOT_FOUND", ["input", "projectId"]),
    ],
)
async def test_a_dataset_that_cannot_be_is_refused(execute, scientist, project, datasets, db, given, kind, code, path):
    wanted = {"projectId": f"project_{project.id.hex}", "name": "new", "idempotencyKey": "k", **given}

    refused = (await execute(CREATE_DATASET, principal=scientist, input=wanted))["data"]["createDataset"]

    assert refused["dataset"] is None
    assert [(error["__typename"], error["code"], error["path"]) for error in refused["errors"]] == [(kind, code, path)]
    if kind == "AlreadyExistsError":
        assert refused["errors"][0]["existing"] == {"id": global_id(Kind.DATASET, datasets[0].id)}
    async with db.reading() as session:
        assert await session.connection.fetchval("SELECT count(*) FROM datasets") == 5
        assert await session.connection.fetchval("SELECT count(*) FROM idempotency_keys") == 0


async def test_an_idempotency_key_makes_one_dataset(execute, scientist, project, db):
    wanted = {"projectId": f"project_{project.id.hex}", "name": "new", "idempotencyKey": "k"}

    both = await asyncio.gather(*(execute(CREATE_DATASET, principal=scientist, input=wanted) for _ in range(3)))
    other = await execute(CREATE_DATASET, principal=scientist, input={**wanted, "name": "other"})
    async with db.transaction() as session:
        await session.connection.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    later = await execute(CREATE_DATASET, principal=scientist, input={**wanted, "name": "other"})

    assert len({answer["data"]["createDataset"]["dataset"]["id"] for answer in both}) == 1
    assert [error["code"] for error in other["data"]["createDataset"]["errors"]] == ["IDEMPOTENCY_MISMATCH"]
    assert later["data"]["createDataset"]["errors"] == []


async def test_a_viewer_may_not_make_one(execute, caller, project):
    refused = await execute(
        CREATE_DATASET,
        principal=await caller("Viewer"),
        input={"projectId": f"project_{project.id.hex}", "name": "new"},
    )

    assert refused["data"] == {"createDataset": None}
    assert [error["extensions"]["code"] for error in refused["errors"]] == ["FORBIDDEN"]


async def test_a_stranger_sees_no_dataset(execute, caller, datasets):
    stranger = await caller(None)
    id = global_id(Kind.DATASET, datasets[0].id)

    listed = await execute(LIST, principal=stranger)
    found = await execute(
        "query ($id: ID!) { dataset(id: $id) { id } node(id: $id) { id } }", principal=stranger, id=id
    )

    assert listed["data"]["datasets"] == {
        "nodes": [],
        "totalCount": 0,
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }
    assert found["data"] == {"dataset": None, "node": None}


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (None, ["set00", "set01", "set02", "set03", "set04"]),
        ({"name": {"eq": "set03"}}, ["set03"]),
        ({"name": {"in": ["set03", "set01", "none"]}}, ["set01", "set03"]),
        ({"name": {"contains": "T0", "startsWith": "set"}}, ["set00", "set01", "set02", "set03", "set04"]),
        ({"name": {"contains": "%"}}, []),
        ({"search": "day 2"}, ["set02"]),
        ({"search": "SET04 data"}, ["set04"]),
        ({"tags": [{"key": "day"}]}, ["set00", "set01", "set02", "set03", "set04"]),
        ({"tags": [{"key": "day", "value": {"eq": "1"}}]}, ["set01"]),
        ({"tags": [{"key": "day", "value": {"eq": "1"}}, {"key": "night"}]}, []),
        ({"or": [{"name": {"eq": "set00"}}, {"search": "4"}]}, ["set00", "set04"]),
        ({"or": []}, []),
        ({"and": []}, ["set00", "set01", "set02", "set03", "set04"]),
        ({"not": {"or": [{"name": {"eq": "set00"}}, {"name": {"eq": "set01"}}]}}, ["set02", "set03", "set04"]),
        ({"and": [{"name": {"startsWith": "set"}}, {"not": {"search": "3"}}], "search": "0"},
         ["set00", "set01", "set02", "set04"]),
        ({"createdAt": {"lt": "2020-01-01T00:00:00Z"}}, []),
        ({"createdById": f"user_{'0' * 32}"}, []),
        ({"createdById": "nonsense"}, []),
    ],
)  # fmt: skip
async def test_filters(execute, scientist, datasets, filter, found):
    listed = await execute(LIST, principal=scientist, filter=filter, orderBy={"field": "NAME", "direction": "ASC"})

    assert names(listed) == found
    assert listed["data"]["datasets"]["totalCount"] == len(found)


async def test_the_maker_is_a_filter(execute, scientist, admin, datasets):
    mine = await execute(LIST, principal=scientist, filter={"createdById": global_id(Kind.USER, scientist.user_id)})
    theirs = await execute(LIST, principal=scientist, filter={"createdById": global_id(Kind.USER, admin.user_id)})

    assert (len(names(mine)), names(theirs)) == (5, [])


async def test_a_filter_that_nests_too_deep_is_refused(execute, scientist, datasets):
    filter: dict[str, Any] = {"search": "x"}
    for _ in range(9):
        filter = {"not": filter}

    refused = await execute(LIST, principal=scientist, filter=filter)

    assert [error["extensions"] for error in refused["errors"]] == [{"code": "BAD_REQUEST", "userCode": "OUT_OF_RANGE"}]


async def test_pages_in_both_directions_and_orders(execute, scientist, datasets, db):
    async with db.transaction() as session:
        await queries.lock(session, datasets[1].id, revised=False)

    newest = await execute(LIST, principal=scientist)
    first = await execute(LIST, principal=scientist, first=2)
    second = await execute(LIST, principal=scientist, first=2, after=first["data"]["datasets"]["pageInfo"]["endCursor"])
    back = await execute(
        LIST, principal=scientist, last=2, before=second["data"]["datasets"]["pageInfo"]["startCursor"]
    )
    strange = await execute(
        LIST,
        principal=scientist,
        orderBy={"field": "NAME"},
        after=first["data"]["datasets"]["pageInfo"]["endCursor"],
    )

    assert names(newest) == ["set01", "set04", "set03", "set02", "set00"]
    assert (names(first), names(second), names(back)) == (["set01", "set04"], ["set03", "set02"], ["set01", "set04"])
    assert strange["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": "CURSOR_INVALID"}


async def test_a_project_lists_its_datasets(execute, scientist, datasets):
    found = await execute(
        '{ project(slug: "lab") { datasets(first: 2, orderBy: {field: NAME, direction: ASC}) '
        "{ nodes { name } totalCount } } }",
        principal=scientist,
    )

    assert found["data"]["project"]["datasets"] == {
        "nodes": [{"name": "set00"}, {"name": "set01"}],
        "totalCount": 5,
    }


async def test_one_statement_a_level(execute, scientist, project, db, statements):
    await seed(db, scientist, project, count=4, versions=3, columns=2)

    with statements() as seen:
        found = await execute(
            """{ datasets(first: 4, orderBy: {field: NAME, direction: ASC}) { nodes {
              name createdBy { ... on User { username } } latestVersion { number } version(by: {number: 2}) { number }
              aliases { name }
              versions(first: 2) { nodes { number dataset { name } columns(first: 5) { nodes { name } } } }
              uploads(first: 1) { nodes { id } }
            } } }""",
            principal=scientist,
        )

    assert [node["name"] for node in found["data"]["datasets"]["nodes"]] == ["set00", "set01", "set02", "set03"]
    for node in found["data"]["datasets"]["nodes"]:
        assert node["latestVersion"] == {"number": 3}
        assert node["version"] == {"number": 2}
        assert node["versions"]["nodes"] == [
            {"number": n, "dataset": {"name": node["name"]}, "columns": {"nodes": [{"name": "c0"}, {"name": "c1"}]}}
            for n in (3, 2)
        ]
    assert len(seen) == 9, "datasets, makers, latest, by number, aliases, versions, uploads; columns, datasets"


async def test_versions_by_number_alias_and_digest(execute, scientist, project, db):
    (dataset,) = await seed(db, scientist, project, versions=2)
    id = global_id(Kind.DATASET, dataset.id)
    async with db.reading() as session:
        second = (await queries.latest_versions(session, [dataset.id]))[dataset.id]
    named = await execute(
        ALIAS,
        principal=scientist,
        input={"datasetId": id, "alias": "prod", "versionId": global_id(Kind.DATASET_VERSION, second.id)},
    )

    found = await execute(
        """query ($id: ID!, $digest: SHA256!) { dataset(id: $id) {
          number: version(by: {number: 1}) { number } alias: version(by: {alias: "prod"}) { number }
          digest: version(by: {digest: $digest}) { number } none: version(by: {alias: "dev"}) { number }
          late: versions(filter: {createdAt: {lt: "2020-01-01T00:00:00Z"}}) { totalCount }
          failed: versions(filter: {statuses: [FAILED]}) { totalCount }
          full: versions(filter: {statuses: [READY], rowCount: {gte: 1}}) { totalCount }
        } }""",
        principal=scientist,
        id=id,
        digest=second.digest,
    )
    freed = await execute(ALIAS, principal=scientist, input={"datasetId": id, "alias": "prod"})

    assert named["data"]["setDatasetAlias"] == {
        "dataset": {
            "revision": 2,
            "aliases": [{"name": "prod", "version": {"number": 2}, "setBy": {"username": "sam"}}],
        },
        "errors": [],
    }
    assert found["data"]["dataset"] == {
        "number": {"number": 1},
        "alias": {"number": 2},
        "digest": {"number": 2},
        "none": None,
        "late": {"totalCount": 0},
        "failed": {"totalCount": 0},
        "full": {"totalCount": 2},
    }
    assert freed["data"]["setDatasetAlias"] == {"dataset": {"revision": 3, "aliases": []}, "errors": []}


async def test_an_alias_is_for_a_version_of_the_dataset(execute, scientist, project, db):
    first, second = await seed(db, scientist, project, count=2, versions=1)
    async with db.reading() as session:
        foreign = (await queries.latest_versions(session, [second.id]))[second.id]
    id = global_id(Kind.DATASET, first.id)

    for version_id in (global_id(Kind.DATASET_VERSION, foreign.id), id):
        refused = await execute(
            ALIAS, principal=scientist, input={"datasetId": id, "alias": "prod", "versionId": version_id}
        )
        assert refused["data"]["setDatasetAlias"] == {
            "dataset": None,
            "errors": [
                {
                    "__typename": "NotFoundError",
                    "code": "NOT_FOUND",
                    "message": "There is no version of this dataset with this ID.",
                    "path": ["input", "versionId"],
                    "id": version_id,
                }
            ],
        }
    found = await execute(
        "query ($id: ID!) { dataset(id: $id) { revision aliases { name } } }", principal=scientist, id=id
    )
    assert found["data"]["dataset"] == {"revision": 1, "aliases": []}


async def test_versions_columns_and_uploads_are_nodes(execute, scientist, project, db):
    (dataset,) = await seed(db, scientist, project, versions=1, columns=1)
    async with db.reading() as session:
        version = (await queries.latest_versions(session, [dataset.id]))[dataset.id]
        (column,) = await queries.columns_of_version(session, version.id)

    found = await execute(
        "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }",
        principal=scientist,
        ids=[global_id(Kind.DATASET_VERSION, version.id), global_id(Kind.COLUMN, column.id)],
    )

    assert [node["__typename"] for node in found["data"]["nodes"]] == ["DatasetVersion", "Column"]
