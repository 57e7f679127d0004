"""Tags are set and taken away on everything that has them, and by nobody who may not change it."""

import pytest
from sqlalchemy import insert, select

from db.ids import Kind, global_id, new_id
from db.tables import model_versions, projects
from tests.test_visibility import granted, two  # noqa: F401  (fixtures)

SET = """
mutation ($input: SetTagsInput!) {
  setTags(input: $input) {
    resource { id ... on Project { revision } ... on Dataset { revision } ... on TrainingRun { revision }
      ... on Model { revision } ... on ModelVersion { revision } }
    tags { key value }
    errors { __typename code message path }
  }
}
"""
READ = """
query ($id: ID!) {
  node(id: $id) {
    ... on Project { tags { key value } } ... on Dataset { tags { key value } }
    ... on TrainingRun { tags { key value } } ... on Model { tags { key value } }
    ... on ModelVersion { tags { key value } }
  }
}
"""
EVENT = "{ events(last: 1) { nodes { type subjectId changes } } }"
RUN = """
mutation ($project: ID!) {
  createTrainingRun(input: {projectId: $project, name: "r", spec: {task: REGRESSION, algorithm: EXTERNAL}}) {
    trainingRun { id } errors { message }
  }
}
"""


def tags(**given):
    return [{"key": key, "value": value} for key, value in given.items()]


@pytest.fixture
async def ids(execute, admin, db, two):  # noqa: F811
    """One of each, without tags, in the project `ours`."""
    run = await execute(RUN, principal=admin, project=global_id(Kind.PROJECT, two.ours.project.id))
    version = new_id()
    values = {"number": 1, "status": "READY", "signature": {}, "params": [], "importance": {}, "size_bytes": 1}
    keys = {"model_key": "m", "manifest_key": "m", "manifest_sha256": "0", "sha256": "0"}
    async with db.transaction() as session:
        await session.run(insert(model_versions).values(id=version, model_id=two.ours.model.id, **values, **keys))
    return {
        "PROJECT": global_id(Kind.PROJECT, two.ours.project.id),
        "DATASET": global_id(Kind.DATASET, two.ours.first.id),
        "RUN": run["data"]["createTrainingRun"]["trainingRun"]["id"],
        "MODEL": global_id(Kind.MODEL, two.ours.model.id),
        "MODEL_VERSION": global_id(Kind.MODEL_VERSION, version),
    }


async def test_tags_are_set_replaced_and_taken_away_on_everything_that_has_them(execute, admin, ids):
    for kind, id in ids.items():
        await execute(SET, principal=admin, input={"resourceId": id, "set": tags(stage="lab", owner="ada")})

        changed = await execute(
            SET,
            principal=admin,
            input={"resourceId": id, "set": tags(stage="field", season="autumn"), "remove": ["owner", "nothing"]},
        )

        wanted = tags(stage="field", season="autumn")
        payload = changed["data"]["setTags"]
        assert payload == {"resource": {"id": id, "revision": 3}, "tags": wanted, "errors": []}, kind
        assert (await execute(READ, principal=admin, id=id))["data"]["node"] == {"tags": wanted}


async def test_an_event_tells_what_the_tags_were_and_are(execute, admin, ids):
    told = {}
    for kind, id in ids.items():
        await execute(SET, principal=admin, input={"resourceId": id, "set": tags(a="1")})
        (event,) = (await execute(EVENT, principal=admin))["data"]["events"]["nodes"]
        told[kind] = event

    def of(kind, type, field="tags"):
        return {"type": type, "subjectId": ids[kind], "changes": {field: [[], tags(a="1")]}}

    assert told["PROJECT"] == of("PROJECT", "PROJECT_UPDATED")
    assert told["DATASET"] == told["RUN"] == of("DATASET", "DATASET_UPDATED"), "runs have streams of their own"
    assert told["MODEL"] == of("MODEL", "MODEL_UPDATED")
    assert told["MODEL_VERSION"] == of("MODEL", "MODEL_UPDATED", "version 1 tags")


async def test_tags_that_are_so_already_change_nothing(execute, admin, ids):
    for id in ids.values():
        same = await execute(SET, principal=admin, input={"resourceId": id, "remove": ["nothing"]})
        assert same["data"]["setTags"] == {"resource": {"id": id, "revision": 1}, "tags": [], "errors": []}


async def test_what_contradicts_itself_or_cannot_be_stored_is_refused(execute, admin, ids, db):
    inputs = {
        "both": {"set": tags(a="1"), "remove": ["a"]},
        "twice": {"set": tags(a="1") + tags(a="2")},
        "nul": {"set": tags(a="\x00")},
        "long": {"set": [{"key": "k" * 129, "value": ""}]},
    }

    paths = {}
    for name, input in inputs.items():
        answer = await execute(SET, principal=admin, input={"resourceId": ids["PROJECT"], **input})
        paths[name] = answer["data"]["setTags"]["errors"][0]["path"]

    assert paths == {
        "both": ["input", "remove"],
        "twice": ["input", "set", "1", "key"],
        "nul": ["input", "set", "0", "value"],
        "long": ["input", "set", "0", "key"],
    }
    async with db.reading() as session:
        assert {record[0] for record in await session.records(select(projects.c.revision))} == {1}


async def test_nobody_sets_tags_on_what_they_may_not_change_or_do_not_see(execute, admin, granted, two, ids):  # noqa: F811
    viewer = await granted("Viewer", project=two.ours.project)
    stranger = await granted("Administrator", project=two.theirs.project)

    for kind, id in ids.items():
        input = {"resourceId": id, "set": tags(a="1")}
        refused = (await execute(SET, principal=viewer, input=input))["data"]["setTags"]
        unseen = (await execute(SET, principal=stranger, input=input))["data"]["setTags"]

        permission = "MODEL_UPDATE" if kind == "MODEL_VERSION" else f"{kind}_UPDATE"
        assert refused["errors"] == [
            {
                "__typename": "ValidationError",
                "code": "INVALID",
                "message": f"Setting tags of this needs the permission {permission}.",
                "path": ["input", "resourceId"],
            }
        ]
        assert [error["code"] for error in unseen["errors"]] == ["NOT_FOUND"]
        assert (await execute(READ, principal=admin, id=id))["data"]["node"] == {"tags": []}
    for id in (global_id(Kind.DATASET, new_id()), global_id(Kind.USER, admin.user_id), "nonsense"):
        nothing = await execute(SET, principal=admin, input={"resourceId": id, "set": tags(a="1")})
        assert nothing["data"]["setTags"]["errors"] == unseen["errors"]
