"""A project is deleted with everything in it and nothing else, in the database and in the store."""

import asyncio
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from db.database import Collided
from db.ids import Kind, global_id, key_of, new_id
from db.tables import grants, metadata, training_runs, users
from domain.projects import create_project, delete_project
from domain.uploads import sweep
from ml.spec import Task
from schema.execution import stream
from tests.ready import cancer, ready_version
from tests.test_grants import CREATE as GRANT
from tests.test_grants import again
from tests.trained import Run, succeeded_run
from tests.uploading import CREATE_DATASET, START, create_dataset

DELETE = """
mutation ($input: DeleteProjectInput!) {
  deleteProject(input: $input) {
    project { id slug }
    errors { code message path ... on InUseError { dependents { __typename id } } }
  }
}
"""
MODEL = "mutation ($input: CreateModelInput!) { createModel(input: $input) { model { id } errors { message } } }"
VERSION = """
mutation ($input: CreateModelVersionInput!) {
  createModelVersion(input: $input) { modelVersion { id } errors { message } }
}
"""
POINTS = """
mutation ($input: IngestMetricsInput!) { ingestMetrics(input: $input) { accepted errors { message } } }
"""
PATIENT = "SET LOCAL idle_in_transaction_session_timeout = 0"
NODE = "query ($id: ID!) { node(id: $id) { id } }"


@pytest.fixture
async def full(execute, admin, db, store, project, tmp_path) -> SimpleNamespace:
    """The project with a dataset, a run with its model, points, an open upload and a grant; and another one like it."""
    strange = await keys(store)
    async with db.transaction() as session:
        other = await create_project(session, admin, slug="other", name="Other", description=None, tags=[])
    made: dict[str, Any] = {}
    for name, of in (("lab", project), ("other", other)):
        made[name] = await _filled(execute, admin, db, store, of, tmp_path)
    return SimpleNamespace(**made, strange=strange)


async def _filled(execute: Any, admin: Any, db: Any, store: Any, project: Any, folder: Any) -> SimpleNamespace:
    id = global_id(Kind.PROJECT, project.id)
    dataset_version = await ready_version(db, store, project, folder, cancer())
    run: Run = await succeeded_run(db, store, project, folder, task=Task.REGRESSION)
    async with db.transaction() as session:
        await session.run(update(training_runs).values(finished_at=func.now()))
    model = await execute(MODEL, principal=admin, input={"projectId": id, "name": "m", "task": "REGRESSION"})
    model_id = model["data"]["createModel"]["model"]["id"]
    version = await execute(VERSION, principal=admin, input={"modelId": model_id, "from": {"runId": run.id}})
    assert version["data"]["createModelVersion"]["errors"] == []
    points = {"projectId": id, "series": [{"runId": run.id, "name": "loss", "steps": [0, 1], "values": [1, 0.5]}]}
    assert (await execute(POINTS, principal=admin, input=points))["data"]["ingestMetrics"]["accepted"] == 2
    dataset = await create_dataset(execute, admin, project)
    upload = {"datasetId": dataset, "fileName": "a.csv", "sizeBytes": 9, "format": "CSV"}
    started = await execute(START, principal=admin, input=upload)
    assert started["data"]["startUpload"]["errors"] == []
    return SimpleNamespace(
        id=id,
        project=project,
        run=run,
        model=model_id,
        version=version["data"]["createModelVersion"]["modelVersion"]["id"],
        dataset_version=global_id(Kind.DATASET_VERSION, dataset_version),
        upload=started["data"]["startUpload"]["upload"]["id"],
        uploading=started["data"]["startUpload"]["upload"]["version"]["id"],
    )


async def counted(db: Any) -> dict[str, int]:
    """How many rows every table has that is not about what happened."""
    async with db.reading() as session:
        return {
            name: await session.scalar(select(func.count()).select_from(table))
            for name, table in metadata.tables.items()
            if name not in ("events", "audit_events", "unowned_objects", "idempotency_keys", "workers")
        }


async def keys(store: Any) -> set[str]:
    found = {found.key async for found in store.list("")}
    uploads = await store._client.list_multipart_uploads(Bucket=store._bucket)
    return found | {one["Key"] for one in uploads.get("Uploads", ())}


async def test_a_project_is_gone_with_everything_in_it_and_nothing_else(execute, admin, caller, db, store, full):
    objects, rows = await keys(store) - full.strange, await counted(db)
    guest = await caller(None)
    given = {"principalId": global_id(Kind.USER, guest.user_id), "what": {"permissions": ["PROJECT_READ"]}}
    await execute(GRANT, principal=admin, input=given | {"scopeId": full.lab.id})

    deleted = await execute(DELETE, principal=admin, input={"id": full.lab.id, "confirmation": "lab"})
    await sweep(db, store)

    assert deleted["data"]["deleteProject"] == {"project": {"id": full.lab.id, "slug": "lab"}, "errors": []}
    halves = {name: number for name, number in (await counted(db)).items() if number != rows[name]}
    assert halves.pop("users") == halves.pop("sessions") == 2, "the guest"
    assert halves == {name: rows[name] // 2 for name in halves}, "as much is left as there was of each"
    assert {"datasets", "training_runs", "models", "model_versions", "metric_points", "upload_sessions"} < set(halves)
    left = await keys(store) - full.strange
    assert left < objects
    assert len(left) == len(objects) // 2, "the other project's objects are there"
    async with db.reading() as session:
        assert (
            await session.scalar(select(func.count()).select_from(grants).where(grants.c.project_id.is_not(None))) == 0
        )
    seen = full.lab
    for id in (seen.id, seen.run.id, seen.model, seen.version, seen.dataset_version, seen.upload):
        assert (await execute(NODE, principal=admin, id=id))["data"] == {"node": None}
    for id in (full.other.id, full.other.run.id, full.other.version, full.other.dataset_version, full.other.upload):
        assert (await execute(NODE, principal=admin, id=id))["data"] == {"node": {"id": id}}
    told = await execute(
        "{ events(last: 5) { nodes { type subjectId changes } } "
        "auditEvents(first: 1) { nodes { action resourceName before } } }",
        principal=admin,
    )
    events = told["data"]["events"]["nodes"]
    changes = {"name": ["Lab", None], "slug": ["lab", None]}
    assert events[0] == {"type": "PROJECT_DELETED", "subjectId": full.lab.id, "changes": changes}
    assert [event["type"] for event in events[1:]] == ["DATASET_DELETED"] * 3 + ["MODEL_DELETED"]
    assert events[-1] == {"type": "MODEL_DELETED", "subjectId": full.lab.model, "changes": {"name": ["m", None]}}
    assert told["data"]["auditEvents"]["nodes"] == [
        {"action": "PROJECT_DELETE", "resourceName": "Lab", "before": {"name": "Lab", "slug": "lab"}}
    ]
    assert (await again(db, guest)).grants == ()


async def test_streams_of_what_is_in_a_project_end_with_it(execute, admin, context_of, full):
    watched = {"modelUpdated": full.lab.model, "datasetVersionUpdated": full.lab.uploading}

    async def told(field: str, id: str, ready: asyncio.Event) -> list[str]:
        document = f'subscription {{ {field}(id: "{id}") {{ kind }} }}'
        kinds = []
        async with asyncio.timeout(60), aclosing(stream(document, None, None, context_of(admin))) as items:
            async for response, *_ in items:
                kinds.append(response["data"][field]["kind"])
                ready.set()
        return kinds

    started = [asyncio.Event() for _ in watched]
    telling = [
        asyncio.create_task(told(field, id, ready)) for (field, id), ready in zip(watched.items(), started, strict=True)
    ]
    for ready in started:
        await ready.wait()
    deleted = await execute(DELETE, principal=admin, input={"id": full.lab.id, "confirmation": "lab"})

    assert deleted["data"]["deleteProject"]["errors"] == []
    assert [(await kinds)[-1] for kinds in telling] == ["DELETED", "DELETED"]


async def test_a_slug_that_is_not_typed_again_deletes_nothing(execute, admin, db, project):
    before = await counted(db)

    refused = await execute(
        DELETE, principal=admin, input={"id": global_id(Kind.PROJECT, project.id), "confirmation": "Lab"}
    )

    assert refused["data"]["deleteProject"] == {
        "project": None,
        "errors": [
            {
                "code": "CONFIRMATION_MISMATCH",
                "message": "Type the slug of the project again to confirm.",
                "path": ["input", "confirmation"],
            }
        ],
    }
    assert await counted(db) == before


async def test_work_that_is_not_over_and_versions_elsewhere_are_in_the_way(execute, admin, db, full):
    """A run here, a run elsewhere on data from here, and a copy elsewhere of a version that was made here."""
    input = {"id": full.lab.id, "confirmation": "lab"}
    copy = await execute(
        VERSION, principal=admin, input={"modelId": full.other.model, "from": {"copyOfVersionId": full.lab.version}}
    )
    copied = (await execute(DELETE, principal=admin, input=input))["data"]["deleteProject"]
    elsewhere = new_id()
    async with db.transaction() as session:
        values = {"project_id": full.other.project.id, "name": "user", "status": "QUEUED", "progress": {}}
        values |= {"task": "REGRESSION", "algorithm": "LIGHTGBM", "spec": {}, "params": []}
        data = key_of(full.lab.dataset_version, Kind.DATASET_VERSION)
        await session.run(insert(training_runs).values(id=elsewhere, dataset_version_id=data, **values))
        own = update(training_runs).where(training_runs.c.id == full.lab.run.key)
        await session.run(own.values(status="RUNNING", finished_at=None))
    before = await counted(db)
    working = (await execute(DELETE, principal=admin, input=input))["data"]["deleteProject"]

    version = copy["data"]["createModelVersion"]["modelVersion"]["id"]
    assert copied["errors"] == [
        {
            "code": "IN_USE",
            "message": "Versions of models in other projects were made of runs in this one. Delete them first.",
            "path": ["input", "id"],
            "dependents": [{"__typename": "ModelVersion", "id": version}],
        }
    ]
    (error,) = working["errors"]
    assert error["message"] == (
        "Runs or other work that is not over needs what is in this project: cancel it, or wait for its end."
    )
    assert sorted((node["__typename"], node["id"]) for node in error["dependents"]) == sorted(
        [("ModelVersion", version)] + [("TrainingRun", id) for id in (full.lab.run.id, global_id(Kind.RUN, elsewhere))]
    )
    assert await counted(db) == before


async def test_who_makes_something_in_a_project_that_is_being_deleted_is_told_to_try_again(execute, admin, db, project):
    id = global_id(Kind.PROJECT, project.id)
    input = {"projectId": id, "name": "late"}
    async with db.transaction() as session:
        await session.connection.execute(PATIENT)
        await delete_project(session, admin, id=id, confirmation="lab")
        late = asyncio.create_task(execute(CREATE_DATASET, principal=admin, input=input))
        await _somebody_waits(db)
    answer = await late
    again = await execute(CREATE_DATASET, principal=admin, input=input)

    assert answer["data"] == {"createDataset": None}
    assert answer["errors"][0]["message"] == "Something else was changed at the same moment. Try again."
    assert answer["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
    assert [error["code"] for error in again["data"]["createDataset"]["errors"]] == ["NOT_FOUND"]


async def test_of_two_that_wait_for_each_other_one_is_told_to_try_again(db, admin, caller):
    """PostgreSQL ends one of them after a second; what that one did is undone."""
    other = await caller(None, username="other")

    async def rename(first: Any, second: Any, name: str, meet: asyncio.Barrier) -> None:
        async with db.transaction() as session:
            await session.connection.execute(PATIENT)
            await session.run(update(users).where(users.c.id == first).values(display_name=name))
            await meet.wait()
            await session.run(update(users).where(users.c.id == second).values(display_name=name))

    meet, pair = asyncio.Barrier(2), (admin.user_id, other.user_id)
    ended = await asyncio.gather(rename(*pair, "one", meet), rename(*pair[::-1], "two", meet), return_exceptions=True)

    assert sorted(type(outcome) for outcome in ended if outcome is not None) == [Collided]
    async with db.reading() as session:
        names = {record[0] for record in await session.records(select(users.c.display_name))}
    assert names == {"one" if ended[0] is None else "two"}


async def _somebody_waits(db: Any) -> None:
    """Until another transaction waits for a lock."""
    async with asyncio.timeout(30), db.reading() as session:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while not await session.connection.fetchval(waiting):  # noqa: ASYNC110  (PostgreSQL offers no event for it)
            await asyncio.sleep(0.02)


async def test_a_project_is_deleted_by_those_who_may_and_out_of_sight_is_as_if_not_there(execute, caller, db, project):
    maintainer = await caller("Maintainer")
    before = await counted(db)

    answers = [
        await execute(DELETE, principal=maintainer, input={"id": id, "confirmation": "lab"})
        for id in (global_id(Kind.PROJECT, project.id), global_id(Kind.PROJECT, new_id()))
    ]

    assert answers[0] == answers[1]
    assert answers[0]["errors"][0]["extensions"] == {"code": "FORBIDDEN"}
    assert await counted(db) == before
