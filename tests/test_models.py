"""Models, versions and aliases through the API, on models that were really trained."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from db.ids import Kind, key_of
from db.tables import alias_changes, evaluations, events, model_versions, models, training_runs
from ml.spec import Split, Task
from tests.trained import Run, succeeded_run

ERRORS = """
errors {
  __typename code message path ... on AlreadyExistsError { existing { id } } ... on ValidationError { allowed }
  ... on InvalidStateError { currentState allowedStates } ... on NotFoundError { id }
  ... on StaleRevisionError { currentRevision current { ... on ModelVersion { number } } }
}
"""


def _asking(mutation: str) -> str:
    return mutation.replace("$errors", ERRORS)


CREATE = _asking(
    "mutation ($input: CreateModelInput!) { createModel(input: $input) "
    "{ model { id name task description tags { key value } project { slug } "
    "createdBy { ... on User { username } } revision } $errors } }"
)
CREATE_VERSION = _asking(
    "mutation ($input: CreateModelVersionInput!) { createModelVersion(input: $input) "
    "{ modelVersion { id number status description sizeBytes sha256 aliases model { name } } $errors } }"
)
SET_ALIAS = _asking(
    "mutation ($input: SetModelAliasInput!) { setModelAlias(input: $input) { model { revision } "
    "change { alias from { number } to { number } reason actor { ... on User { username } } at } $errors } }"
)
REMOVE_ALIAS = _asking(
    "mutation ($input: RemoveModelAliasInput!) { removeModelAlias(input: $input) "
    "{ model { aliases { name } } change { alias from { number } to { number } } $errors } }"
)

Make = Callable[..., Awaitable[Any]]


@pytest.fixture
def run_of(db, store, project, tmp_path: Path) -> Callable[..., Awaitable[Run]]:
    async def make(task: Task = Task.BINARY_CLASSIFICATION, **how: Any) -> Run:
        return await succeeded_run(db, store, how.pop("project", project), tmp_path, task=task, **how)

    return make


@pytest.fixture
def model_of(execute, scientist, project) -> Make:
    async def make(name: str = "cancer", task: str = "BINARY_CLASSIFICATION") -> str:
        made = await execute(
            CREATE, principal=scientist, input={"projectId": f"project_{project.id.hex}", "name": name, "task": task}
        )
        assert made["data"]["createModel"]["errors"] == []
        return made["data"]["createModel"]["model"]["id"]

    return make


@pytest.fixture
def version_of(execute, scientist) -> Make:
    async def make(model_id: str, run: Run, **more: Any) -> str:
        made = await execute(
            CREATE_VERSION, principal=scientist, input={"modelId": model_id, "from": {"runId": run.id}, **more}
        )
        assert made["data"]["createModelVersion"]["errors"] == [], made
        return made["data"]["createModelVersion"]["modelVersion"]["id"]

    return make


async def counted(db, table) -> int:
    async with db.reading() as session:
        return await session.scalar(select(func.count()).select_from(table))


async def told(db) -> list[str]:
    async with db.reading() as session:
        return [record[0] for record in await session.records(select(events.c.type).order_by(events.c.number))]


async def test_makes_a_model(execute, scientist, project, db):
    made = await execute(
        CREATE,
        principal=scientist,
        input={
            "projectId": f"project_{project.id.hex}",
            "name": "cancer",
            "task": "BINARY_CLASSIFICATION",
            "description": "Finds it",
            "tags": [{"key": "team", "value": "lab"}],
        },
    )

    model = made["data"]["createModel"]["model"]
    assert model.pop("id").startswith("model_")
    assert made["data"]["createModel"] == {
        "model": {
            "name": "cancer",
            "task": "BINARY_CLASSIFICATION",
            "description": "Finds it",
            "tags": [{"key": "team", "value": "lab"}],
            "project": {"slug": "lab"},
            "createdBy": {"username": "sam"},
            "revision": 1,
        },
        "errors": [],
    }
    assert (await told(db))[-1] == "MODEL_CREATED"


async def test_a_name_is_unique_in_its_project(execute, scientist, project, model_of, db):
    first = await model_of("cancer")

    made = await execute(
        CREATE,
        principal=scientist,
        input={"projectId": f"project_{project.id.hex}", "name": "cancer", "task": "REGRESSION"},
    )

    assert made["data"]["createModel"]["model"] is None
    assert made["data"]["createModel"]["errors"] == [
        {
            "__typename": "AlreadyExistsError",
            "code": "ALREADY_EXISTS",
            "message": "The project has a model named 'cancer' already.",
            "path": ["input", "name"],
            "existing": {"id": first},
        }
    ]
    assert await counted(db, models) == 1


@pytest.mark.parametrize("project_id", ["project_" + "0" * 32, "model_" + "0" * 32, "nonsense", ""])
async def test_a_model_needs_a_project(execute, scientist, db, project_id):
    made = await execute(
        CREATE, principal=scientist, input={"projectId": project_id, "name": "cancer", "task": "REGRESSION"}
    )

    assert [(e["code"], e["path"], e["id"]) for e in made["data"]["createModel"]["errors"]] == [
        ("NOT_FOUND", ["input", "projectId"], project_id)
    ]
    assert await counted(db, models) == 0


@pytest.mark.parametrize(
    ("name", "code"), [("", "REQUIRED"), (" ", "REQUIRED"), ("n" * 201, "TOO_LONG"), ("a\0b", "INVALID")]
)
async def test_a_name_that_cannot_be_kept_is_refused(execute, scientist, project, db, name, code):
    made = await execute(
        CREATE,
        principal=scientist,
        input={"projectId": f"project_{project.id.hex}", "name": name, "task": "REGRESSION"},
    )

    assert [(e["code"], e["path"]) for e in made["data"]["createModel"]["errors"]] == [(code, ["input", "name"])]
    assert await counted(db, models) == 0


async def test_a_version_is_made_of_what_a_run_trained(execute, scientist, run_of, model_of, db):
    run, model_id = await run_of(), await model_of()

    made = await execute(
        CREATE_VERSION,
        principal=scientist,
        input={"modelId": model_id, "from": {"runId": run.id}, "description": "The first"},
    )

    text = (run.folder / "model.txt").read_bytes()
    version = made["data"]["createModelVersion"]["modelVersion"]
    assert version.pop("id").startswith("modelversion_")
    assert made["data"]["createModelVersion"] == {
        "modelVersion": {
            "number": 1,
            "status": "READY",
            "description": "The first",
            "sizeBytes": str(len(text)),
            "sha256": hashlib.sha256(text).hexdigest(),
            "aliases": [],
            "model": {"name": "cancer"},
        },
        "errors": [],
    }
    assert (await told(db))[-1] == "MODEL_VERSION_CREATED"


async def test_a_version_tells_its_signature_importance_and_evaluation(
    execute, scientist, run_of, model_of, version_of
):
    run = await run_of(split=Split(validation_fraction=0.2, test_fraction=0.1))
    version_id = await version_of(await model_of(), run)

    shown = await execute(
        """query ($id: ID!) { modelVersion(id: $id) {
          signature { inputs { name type nullable categories } outputs { name type nullable categories } }
          gain: featureImportance { feature importance share rank }
          split: featureImportance(kind: SPLIT, top: 2) { feature importance share rank }
          shap: featureImportance(kind: SHAP, top: 1) { feature importance share rank }
          permutation: featureImportance(kind: PERMUTATION, top: 1000) { feature importance share rank }
          trainedOn { id } run { id modelVersions { id } } params { name value explicit } latestEvaluation { split }
          evaluations { totalCount nodes { id split datasetVersion { id } modelVersion { id }
            metrics { name value higherIsBetter } confusionMatrix { labels counts } } }
        } }""",
        principal=scientist,
        id=version_id,
    )

    assert "errors" not in shown
    version, manifest = shown["data"]["modelVersion"], run.result.manifest
    assert manifest is not None
    assert version["signature"] == manifest["signature"]
    assert version["gain"] == manifest["importance"]["GAIN"]
    assert version["split"] == manifest["importance"]["SPLIT"][:2]
    assert version["shap"] == manifest["importance"]["SHAP"][:1]
    assert version["permutation"] == manifest["importance"]["PERMUTATION"]
    assert version["trainedOn"] == {"id": run.dataset_version_id}
    assert version["run"] == {"id": run.id, "modelVersions": [{"id": version_id}]}
    assert version["params"] == [{"name": "num_rounds", "value": 20, "explicit": True}]
    assert version["latestEvaluation"] == {"split": "validation"}
    assert version["evaluations"]["totalCount"] == 2
    found = version["evaluations"]["nodes"]
    assert [evaluation["split"] for evaluation in found] == ["validation", "test"]
    for evaluation, wanted in zip(found, manifest["evaluations"], strict=True):
        assert evaluation["split"] == wanted["split"]
        assert evaluation["datasetVersion"] == {"id": run.dataset_version_id}
        assert evaluation["modelVersion"] == {"id": version_id}
        assert evaluation["confusionMatrix"] == wanted["confusion_matrix"]
        assert evaluation["metrics"] == [
            {"name": m["name"], "value": m["value"], "higherIsBetter": m["higher_is_better"]} for m in wanted["metrics"]
        ]


async def test_importance_beyond_its_limits_is_refused(execute, scientist, run_of, model_of, version_of):
    version_id = await version_of(await model_of(), await run_of())

    shown = await execute(
        "query ($id: ID!) { modelVersion(id: $id) { featureImportance(top: 0) { feature } } }",
        principal=scientist,
        id=version_id,
    )

    assert shown["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": "OUT_OF_RANGE"}


async def test_a_version_downloads_as_the_bytes_that_were_trained(execute, admin, run_of, model_of, version_of):
    run = await run_of()
    version_id = await version_of(await model_of(), run)

    shown = await execute(
        'query ($id: ID!) { modelVersion(id: $id) { download(expiresIn: "PT1M") { url sha256 sizeBytes } } }',
        principal=admin,
        id=version_id,
    )

    link = shown["data"]["modelVersion"]["download"]
    async with httpx.AsyncClient() as client:
        got = await client.get(link["url"])
    assert got.content == (run.folder / "model.txt").read_bytes()
    assert hashlib.sha256(got.content).hexdigest() == link["sha256"]
    assert len(got.content) == int(link["sizeBytes"])


@pytest.mark.parametrize(("status", "code"), [("FAILED", "INVALID_STATE"), ("CANCELED", None), ("SUCCEEDED", None)])
async def test_only_a_run_with_a_model_becomes_a_version(execute, scientist, run_of, model_of, db, status, code):
    run, model_id = await run_of(status=status), await model_of()

    made = await execute(CREATE_VERSION, principal=scientist, input={"modelId": model_id, "from": {"runId": run.id}})

    found = made["data"]["createModelVersion"]["errors"]
    assert [error["code"] for error in found] == ([] if code is None else [code])
    if code is not None:
        assert found[0]["path"] == ["input", "from", "runId"]
        assert (found[0]["currentState"], found[0]["allowedStates"]) == ("FAILED", ["SUCCEEDED", "CANCELED"])
    assert await counted(db, model_versions) == (0 if code else 1)
    assert await counted(db, evaluations) == (0 if code else 1)


async def test_a_run_of_another_task_or_project_is_refused(execute, scientist, admin, run_of, model_of, db):
    other = (
        await execute(
            'mutation { createProject(input: {slug: "other", name: "Other"}) { project { id } } }', principal=admin
        )
    )["data"]["createProject"]["project"]["id"]
    model_id = await model_of()
    regression = await run_of(Task.REGRESSION)
    elsewhere = await execute(
        CREATE, principal=scientist, input={"projectId": other, "name": "cancer", "task": "REGRESSION"}
    )

    wrong_task = await execute(
        CREATE_VERSION, principal=scientist, input={"modelId": model_id, "from": {"runId": regression.id}}
    )
    wrong_project = await execute(
        CREATE_VERSION,
        principal=scientist,
        input={"modelId": elsewhere["data"]["createModel"]["model"]["id"], "from": {"runId": regression.id}},
    )

    assert wrong_task["data"]["createModelVersion"]["errors"] == [
        {
            "__typename": "ValidationError",
            "code": "INVALID",
            "message": "This was trained for REGRESSION, and the model 'cancer' is for BINARY_CLASSIFICATION.",
            "path": ["input", "from", "runId"],
            "allowed": "BINARY_CLASSIFICATION",
        }
    ]
    assert [e["code"] for e in wrong_project["data"]["createModelVersion"]["errors"]] == ["NOT_FOUND"]
    assert await counted(db, model_versions) == 0


async def test_exactly_one_source_is_named(execute, scientist, model_of, run_of):
    run = await run_of()

    made = await execute(
        CREATE_VERSION,
        principal=scientist,
        input={"modelId": await model_of(), "from": {"runId": run.id, "uploadId": "upload_" + "0" * 32}},
    )

    assert [error["extensions"]["code"] for error in made["errors"]] == ["BAD_REQUEST"]


async def test_a_copy_has_the_files_and_evaluations_of_its_source(execute, scientist, run_of, model_of, version_of):
    run = await run_of()
    source = await version_of(await model_of("research"), run)

    made = await execute(
        CREATE_VERSION,
        principal=scientist,
        input={"modelId": await model_of("live"), "from": {"copyOfVersionId": source}},
    )

    copy = made["data"]["createModelVersion"]["modelVersion"]
    shown = await execute(
        """query ($ids: [ID!]!) { nodes(ids: $ids) { ... on ModelVersion {
          sha256 sizeBytes signature { inputs { name } } featureImportance { feature importance } trainedOn { id }
          evaluations { nodes { split metrics { name value } confusionMatrix { counts } } } } } }""",
        principal=scientist,
        ids=[source, copy["id"]],
    )
    assert shown["data"]["nodes"][0] == shown["data"]["nodes"][1]
    assert (copy["number"], copy["model"]) == (1, {"name": "live"})


async def test_a_repeated_call_with_the_same_key_makes_one_version(execute, scientist, run_of, model_of, db):
    run, model_id = await run_of(), await model_of()
    asked = {"modelId": model_id, "from": {"runId": run.id}, "idempotencyKey": "once"}

    first = await execute(CREATE_VERSION, principal=scientist, input=asked)
    again = await execute(CREATE_VERSION, principal=scientist, input=asked)
    other = await execute(CREATE_VERSION, principal=scientist, input={**asked, "description": "Another"})

    assert first == again
    assert [e["code"] for e in other["data"]["createModelVersion"]["errors"]] == ["IDEMPOTENCY_MISMATCH"]
    assert await counted(db, model_versions) == 1


async def test_an_alias_moves_in_one_step_and_keeps_its_history(execute, scientist, run_of, model_of, version_of, db):
    run, model_id = await run_of(), await model_of()
    first, second = [await version_of(model_id, run) for _ in range(2)]
    before = datetime.now(UTC)

    moves = []
    for version, reason in ((first, "Good"), (second, None), (second, "Again")):
        moved = await execute(
            SET_ALIAS,
            principal=scientist,
            input={"modelId": model_id, "alias": "production", "versionId": version, "reason": reason},
        )
        assert moved["data"]["setModelAlias"]["errors"] == []
        moves.append(moved["data"]["setModelAlias"])

    changes = [move["change"] for move in moves]
    times = [change.pop("at") for change in changes[:2]]
    assert changes == [
        {"alias": "production", "from": None, "to": {"number": 1}, "reason": "Good", "actor": {"username": "sam"}},
        {
            "alias": "production",
            "from": {"number": 1},
            "to": {"number": 2},
            "reason": None,
            "actor": {"username": "sam"},
        },
        None,
    ]
    assert [move["model"]["revision"] for move in moves] == [2, 3, 3]
    assert (await told(db))[-2:] == ["MODEL_ALIAS_CHANGED"] * 2

    shown = await execute(
        """query ($id: ID!, $before: DateTime!, $between: DateTime!, $after: DateTime!) { model(id: $id) {
          aliases { name version { number aliases } setBy { ... on User { username } } }
          before: aliasAt(alias: "production", at: $before) { number }
          between: aliasAt(alias: "production", at: $between) { number }
          after: aliasAt(alias: "production", at: $after) { number }
          other: aliasAt(alias: "other", at: $after) { number }
          byAlias: version(by: {alias: "production"}) { number }
          byNumber: version(by: {number: 1}) { number }
          unknown: version(by: {number: 9}) { number }
          latestVersion { number }
          aliasHistory(alias: "production", first: 1) { totalCount nodes { to { number } }
            pageInfo { hasNextPage } }
        } }""",
        principal=scientist,
        id=model_id,
        before=before.isoformat(),
        between=await exact_time(db, 1),
        after=datetime.now(UTC).isoformat(),
    )
    assert len(set(times)) <= 2
    assert shown == {
        "data": {
            "model": {
                "aliases": [
                    {
                        "name": "production",
                        "version": {"number": 2, "aliases": ["production"]},
                        "setBy": {"username": "sam"},
                    }
                ],
                "before": None,
                "between": {"number": 1},
                "after": {"number": 2},
                "other": None,
                "byAlias": {"number": 2},
                "byNumber": {"number": 1},
                "unknown": None,
                "latestVersion": {"number": 2},
                "aliasHistory": {
                    "totalCount": 2,
                    "nodes": [{"to": {"number": 2}}],
                    "pageInfo": {"hasNextPage": True},
                },
            }
        }
    }


async def exact_time(db, number: int) -> str:
    """When the alias was changed for the nth time."""
    async with db.reading() as session:
        found = await session.records(select(alias_changes.c.at).order_by(alias_changes.c.at))
    return found[number - 1][0].isoformat()


async def test_an_alias_is_swapped_only_when_it_points_where_expected(
    execute, scientist, run_of, model_of, version_of, db
):
    run, model_id = await run_of(), await model_of()
    first, second = [await version_of(model_id, run) for _ in range(2)]
    asked = {"modelId": model_id, "alias": "production", "versionId": second}
    never_set = await execute(SET_ALIAS, principal=scientist, input={**asked, "expectedVersionId": first})
    await execute(SET_ALIAS, principal=scientist, input={**asked, "versionId": first})

    stale = await execute(SET_ALIAS, principal=scientist, input={**asked, "expectedVersionId": second})
    swapped = await execute(SET_ALIAS, principal=scientist, input={**asked, "expectedVersionId": first})

    assert [e["current"] for e in never_set["data"]["setModelAlias"]["errors"]] == [None]
    assert stale["data"]["setModelAlias"] == {
        "model": None,
        "change": None,
        "errors": [
            {
                "__typename": "StaleRevisionError",
                "code": "STALE_REVISION",
                "message": "The alias 'production' points at version 1 by now, not at the one expected.",
                "path": ["input", "expectedVersionId"],
                "currentRevision": 2,
                "current": {"number": 1},
            }
        ],
    }
    assert swapped["data"]["setModelAlias"]["errors"] == []
    assert await counted(db, alias_changes) == 2


async def test_of_concurrent_swaps_exactly_one_wins(execute, scientist, run_of, model_of, version_of, db):
    run, model_id = await run_of(), await model_of()
    versions = [await version_of(model_id, run) for _ in range(9)]
    asked = {"modelId": model_id, "alias": "production"}
    await execute(SET_ALIAS, principal=scientist, input={**asked, "versionId": versions[0]})

    moved = await asyncio.gather(
        *(
            execute(
                SET_ALIAS,
                principal=scientist,
                input={**asked, "versionId": version, "expectedVersionId": versions[0]},
            )
            for version in versions[1:]
        )
    )

    codes = [[e["code"] for e in answer["data"]["setModelAlias"]["errors"]] for answer in moved]
    assert sorted(codes) == [[]] + [["STALE_REVISION"]] * 7
    assert await counted(db, alias_changes) == 2


async def test_an_alias_is_for_versions_of_its_model(execute, scientist, run_of, model_of, version_of, db):
    run = await run_of()
    foreign = await version_of(await model_of("other"), run)
    model_id = await model_of()

    moved = await execute(
        SET_ALIAS, principal=scientist, input={"modelId": model_id, "alias": "production", "versionId": foreign}
    )
    misnamed = await execute(
        SET_ALIAS, principal=scientist, input={"modelId": model_id, "alias": "Not one", "versionId": foreign}
    )

    assert [(e["code"], e["path"]) for e in moved["data"]["setModelAlias"]["errors"]] == [
        ("NOT_FOUND", ["input", "versionId"])
    ]
    assert [(e["code"], e["path"]) for e in misnamed["data"]["setModelAlias"]["errors"]] == [
        ("OUT_OF_RANGE", ["input", "alias"])
    ]
    assert await counted(db, alias_changes) == 0


async def test_an_alias_is_removed_once(execute, scientist, run_of, model_of, version_of, db):
    model_id = await model_of()
    version = await version_of(model_id, await run_of())
    asked = {"modelId": model_id, "alias": "production"}
    await execute(SET_ALIAS, principal=scientist, input={**asked, "versionId": version})

    removed = await execute(REMOVE_ALIAS, principal=scientist, input=asked)
    again = await execute(REMOVE_ALIAS, principal=scientist, input=asked)

    assert removed["data"]["removeModelAlias"] == {
        "model": {"aliases": []},
        "change": {"alias": "production", "from": {"number": 1}, "to": None},
        "errors": [],
    }
    assert [(e["code"], e["path"]) for e in again["data"]["removeModelAlias"]["errors"]] == [
        ("NOT_FOUND", ["input", "alias"])
    ]
    assert await counted(db, alias_changes) == 2


async def test_lists_filter_and_order(execute, scientist, run_of, model_of, version_of):
    model_id = await model_of("cancer")
    await model_of("wine", "MULTICLASS_CLASSIFICATION")
    version = await version_of(model_id, await run_of())
    await execute(
        SET_ALIAS, principal=scientist, input={"modelId": model_id, "alias": "production", "versionId": version}
    )
    query = """query ($filter: ModelFilter, $orderBy: ModelOrder) {
      models(filter: $filter, orderBy: $orderBy) { totalCount nodes { name } }
      projects { nodes { models(filter: $filter, orderBy: $orderBy) { totalCount nodes { name } } } }
    }"""

    for filter, order, names in (
        (None, None, ["cancer", "wine"]),
        (None, {"field": "CREATED_AT"}, ["wine", "cancer"]),
        (None, {"field": "NAME", "direction": "ASC"}, ["cancer", "wine"]),
        ({"alias": "production"}, None, ["cancer"]),
        ({"alias": "other"}, None, []),
        ({"tasks": ["MULTICLASS_CLASSIFICATION"]}, None, ["wine"]),
        ({"search": "WI"}, None, ["wine"]),
        ({"name": {"startsWith": "can"}}, None, ["cancer"]),
        ({"tags": [{"key": "team"}]}, None, []),
    ):
        shown = await execute(query, principal=scientist, filter=filter, orderBy=order or {"field": "UPDATED_AT"})
        assert shown["data"]["models"] == {"totalCount": len(names), "nodes": [{"name": name} for name in names]}
        assert shown["data"]["projects"]["nodes"][0]["models"] == shown["data"]["models"]


async def test_versions_filter_and_order_by_metric(execute, scientist, run_of, model_of, version_of, db):
    model_id = await model_of()
    good, bad = await run_of(num_rounds=30), await run_of(num_rounds=1)
    for run in (bad, good, bad):
        await version_of(model_id, run)
    async with db.transaction() as session:
        await session.connection.execute(
            "DELETE FROM evaluations WHERE model_version_id = (SELECT id FROM model_versions WHERE number = 3)"
        )
    query = """query ($id: ID!, $filter: ModelVersionFilter, $orderBy: ModelVersionOrder, $after: String) {
      model(id: $id) { versions(filter: $filter, orderBy: $orderBy, first: 2, after: $after) {
        nodes { number } pageInfo { endCursor hasNextPage } } } }"""

    async def numbers(order: dict[str, Any] | None = None, filter: dict[str, Any] | None = None) -> list[int]:
        found: list[int] = []
        after = None
        while True:
            shown = await execute(
                query,
                principal=scientist,
                id=model_id,
                filter=filter,
                after=after,
                **({"orderBy": order} if order else {}),
            )
            page = shown["data"]["model"]["versions"]
            found += [node["number"] for node in page["nodes"]]
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]

    logloss = {"field": "METRIC", "metric": "binary_logloss"}
    assert await numbers({"field": "NUMBER"}) == [3, 2, 1]
    assert await numbers({"field": "CREATED_AT", "direction": "ASC"}) == [1, 2, 3]
    assert await numbers({**logloss, "direction": "ASC"}) == [2, 1, 3]
    assert await numbers({**logloss, "direction": "DESC"}) == [1, 2, 3]
    assert await numbers({"field": "NUMBER"}, {"runId": good.id}) == [2]
    assert await numbers({"field": "NUMBER"}, {"runId": "nonsense"}) == []
    assert await numbers({"field": "NUMBER"}, {"statuses": ["FAILED"]}) == []

    unnamed = await execute(query, principal=scientist, id=model_id, orderBy={"field": "METRIC"})
    assert [error["extensions"] for error in unnamed["errors"]] == [{"code": "BAD_REQUEST"}]


async def test_a_metric_has_the_baseline_of_an_alias(execute, scientist, run_of, model_of, version_of):
    model_id = await model_of()
    old = await run_of(num_rounds=1)
    new = await run_of(num_rounds=30, dataset_version_id=dataset_version_of(old))
    production, candidate = [await version_of(model_id, run) for run in (old, new)]
    await execute(
        SET_ALIAS, principal=scientist, input={"modelId": model_id, "alias": "production", "versionId": production}
    )

    shown = await execute(
        """query ($id: ID!) { modelVersion(id: $id) { latestEvaluation { metrics {
          name baseline(alias: "production") none: baseline(alias: "none") } } } }""",
        principal=scientist,
        id=candidate,
    )

    assert old.result.manifest is not None
    assert shown["data"]["modelVersion"]["latestEvaluation"]["metrics"] == [
        {"name": metric["name"], "baseline": metric["value"], "none": None}
        for metric in old.result.manifest["evaluations"][0]["metrics"]
    ]


def dataset_version_of(run: Run) -> Any:
    return key_of(run.dataset_version_id, Kind.DATASET_VERSION)


async def test_a_nested_query_is_one_statement_a_level(execute, scientist, run_of, model_of, version_of, statements):
    run = await run_of()
    for name in ("a", "b", "c"):
        model_id = await model_of(name)
        versions = [await version_of(model_id, run) for _ in range(3)]
        await execute(
            SET_ALIAS, principal=scientist, input={"modelId": model_id, "alias": "live", "versionId": versions[0]}
        )

    with statements() as seen:
        shown = await execute(
            """{ models { nodes { name versions(first: 2) { nodes { number aliases
              evaluations { nodes { split metrics { name baseline(alias: "live") } } } } } } } }""",
            principal=scientist,
        )

    assert "errors" not in shown
    nodes = shown["data"]["models"]["nodes"]
    assert {(n["name"], *(v["number"] for v in n["versions"]["nodes"])) for n in nodes} == {
        ("a", 3, 2), ("b", 3, 2), ("c", 3, 2)
    }  # fmt: skip
    assert len(seen) == 5, "models, versions, aliases, evaluations, baselines"

    with statements() as seen:
        shown = await execute(
            """{ models { nodes { latestVersion { number trainedOn { id } createdBy { ... on User { id } } }
              aliases { name version { number } } aliasHistory { nodes { to { id } actor { ... on User { id } } } }
              live: version(by: {alias: "live"}) { number signature { inputs { name } } } } } }""",
            principal=scientist,
        )
    assert "errors" not in shown
    assert len(seen) == 10, (
        "models, latest versions, their data, their makers, aliases, versions by ID, changes, actors, "
        "versions by alias, signatures"
    )


async def test_who_may_not_read_models_sees_none(execute, caller, run_of, model_of, version_of):
    model_id = await model_of()
    version_id = await version_of(model_id, await run_of())
    stranger = await caller(None)

    shown = await execute(
        """query ($model: ID!, $version: ID!) { models { totalCount nodes { id } } model(id: $model) { id }
          modelVersion(id: $version) { id } nodes(ids: [$model, $version]) { id } }""",
        principal=stranger,
        model=model_id,
        version=version_id,
    )

    assert shown == {
        "data": {
            "models": {"totalCount": 0, "nodes": []},
            "model": None,
            "modelVersion": None,
            "nodes": [None, None],
        }
    }


async def test_a_viewer_changes_nothing(execute, caller, project, run_of, model_of, version_of, db):
    model_id = await model_of()
    run = await run_of()
    version_id = await version_of(model_id, run)
    viewer = await caller("Viewer")
    alias = {"modelId": model_id, "alias": "production"}

    for mutation, input in (
        (CREATE, {"projectId": f"project_{project.id.hex}", "name": "mine", "task": "REGRESSION"}),
        (CREATE_VERSION, {"modelId": model_id, "from": {"runId": run.id}}),
        (SET_ALIAS, {**alias, "versionId": version_id}),
        (REMOVE_ALIAS, alias),
    ):
        answer = await execute(mutation, principal=viewer, input=input)
        assert [error["extensions"] for error in answer["errors"]] == [{"code": "FORBIDDEN"}]

    assert [await counted(db, table) for table in (models, model_versions, alias_changes)] == [1, 1, 0]


UPDATE = _asking(
    "mutation ($input: UpdateModelInput!) { updateModel(input: $input) "
    "{ model { name description revision } $errors } }"
)
UPDATE_VERSION = _asking(
    "mutation ($input: UpdateModelVersionInput!) { updateModelVersion(input: $input) "
    "{ modelVersion { description status revision } $errors } }"
)
IN_USE = "errors { __typename code message path ... on InUseError { dependents { id __typename } } }"
DELETE = f"mutation ($input: DeleteModelInput!) {{ deleteModel(input: $input) {{ model {{ id name }} {IN_USE} }} }}"
DELETE_VERSION = (
    "mutation ($input: DeleteModelVersionInput!) { deleteModelVersion(input: $input) "
    f"{{ modelVersion {{ id number }} {IN_USE} }} }}"
)
SHOWN = """
query ($id: ID!) { model(id: $id) { name description revision
  versions { nodes { number status description revision } }
  aliasHistory { nodes { alias from { number } to { number } } } } }
"""


@pytest.fixture
def sent(execute, scientist) -> Make:
    """The payload of one mutation, as the scientist."""

    async def send(document: str, principal: Any = None, **input: Any) -> Any:
        answer = await execute(document, principal=principal or scientist, input=input)
        assert "errors" not in answer, answer
        return next(iter(answer["data"].values()))

    return send


async def shown(execute, principal, model_id: str) -> Any:
    return (await execute(SHOWN, principal=principal, id=model_id))["data"]["model"]


async def test_a_model_is_renamed_and_described_once_for_each_revision(execute, scientist, model_of, sent, db):
    model_id = await model_of()
    await model_of(name="other")

    changed = await sent(UPDATE, id=model_id, expectedRevision=1, name="tumor", description="Finds it")

    assert changed == {"model": {"name": "tumor", "description": "Finds it", "revision": 2}, "errors": []}
    assert (await sent(UPDATE, id=model_id, name="tumor"))["model"]["revision"] == 2, "nothing changes: no revision"
    before, events_before = await shown(execute, scientist, model_id), await told(db)
    assert events_before[-1] == "MODEL_UPDATED"
    stale = await sent(UPDATE, id=model_id, expectedRevision=1, name="late")
    taken = await sent(UPDATE, id=model_id, name="other")
    empty = await sent(UPDATE, id=model_id, name=" ")
    assert [
        (e["__typename"], e["code"], e["path"][-1]) for answer in (stale, taken, empty) for e in answer["errors"]
    ] == [
        ("StaleRevisionError", "STALE_REVISION", "expectedRevision"),
        ("AlreadyExistsError", "ALREADY_EXISTS", "name"),
        ("ValidationError", "REQUIRED", "name"),
    ]
    assert stale["errors"][0]["currentRevision"] == 2
    assert (await shown(execute, scientist, model_id), await told(db)) == (before, events_before)
    assert (await sent(UPDATE, id=model_id, description=""))["model"] == {
        "name": "tumor",
        "description": None,
        "revision": 3,
    }


async def test_a_version_is_archived_and_brought_back_but_not_while_an_alias_points_at_it(
    execute, scientist, run_of, model_of, version_of, sent
):
    model_id = await model_of()
    version_id = await version_of(model_id, await run_of())
    await sent(SET_ALIAS, modelId=model_id, alias="champion", versionId=version_id)

    held = await sent(UPDATE_VERSION.replace(ERRORS, IN_USE), id=version_id, status="ARCHIVED")
    assert held["errors"][0]["dependents"] == [{"id": model_id, "__typename": "Model"}]
    assert (await shown(execute, scientist, model_id))["versions"]["nodes"][0]["status"] == "READY"

    await sent(REMOVE_ALIAS, modelId=model_id, alias="champion")
    archived = await sent(UPDATE_VERSION, id=version_id, expectedRevision=1, status="ARCHIVED", description="Old")
    assert archived["modelVersion"] == {"description": "Old", "status": "ARCHIVED", "revision": 2}
    refused = await sent(SET_ALIAS, modelId=model_id, alias="champion", versionId=version_id)
    assert refused["errors"][0]["currentState"] == "ARCHIVED"
    back = await sent(UPDATE_VERSION, id=version_id, status="READY", description="")
    assert back["modelVersion"] == {"description": None, "status": "READY", "revision": 3}
    failed = await sent(UPDATE_VERSION, id=version_id, status="FAILED")
    stale = await sent(UPDATE_VERSION, id=version_id, expectedRevision=1, description="x")
    assert failed["errors"][0]["allowed"] == ["READY", "ARCHIVED"]
    assert stale["errors"][0]["currentRevision"] == 3


async def test_a_version_is_deleted_unless_an_alias_points_at_it_and_the_history_stays(
    execute, scientist, caller, run_of, model_of, version_of, sent, db
):
    maintainer = await caller("Maintainer")
    model_id, run = await model_of(), await run_of()
    first, second = await version_of(model_id, run), await version_of(model_id, run)
    await sent(SET_ALIAS, modelId=model_id, alias="champion", versionId=first)

    refused = await sent(DELETE_VERSION, principal=maintainer, id=first)

    assert refused["modelVersion"] is None
    error = refused["errors"][0]
    assert (error["__typename"], error["code"]) == ("InUseError", "IN_USE")
    assert "'champion'" in error["message"]
    assert error["dependents"] == [{"id": model_id, "__typename": "Model"}]
    assert await counted(db, model_versions) == 2

    await sent(SET_ALIAS, modelId=model_id, alias="champion", versionId=second)
    deleted = await sent(DELETE_VERSION, principal=maintainer, id=first)
    assert deleted == {"modelVersion": {"id": first, "number": 1}, "errors": []}
    left = await shown(execute, scientist, model_id)
    assert [version["number"] for version in left["versions"]["nodes"]] == [2]
    assert left["aliasHistory"]["nodes"] == [
        {"alias": "champion", "from": None, "to": {"number": 2}},
        {"alias": "champion", "from": None, "to": None},
    ]
    assert (await sent(DELETE_VERSION, principal=maintainer, id=first))["errors"][0]["code"] == "NOT_FOUND"
    third = await version_of(model_id, run)
    assert [v["number"] for v in (await shown(execute, scientist, model_id))["versions"]["nodes"]] == [3, 2], third


async def test_a_model_is_deleted_unless_something_points_at_it(
    execute, scientist, caller, run_of, model_of, version_of, sent, db
):
    maintainer = await caller("Maintainer")
    model_id, run = await model_of(), await run_of()
    version_id = await version_of(model_id, run)
    await sent(SET_ALIAS, modelId=model_id, alias="champion", versionId=version_id)
    async with db.transaction() as session:
        waits = run.key
        await session.run(
            training_runs.update()
            .where(training_runs.c.id == waits)
            .values(register_model_id=key_of(model_id, Kind.MODEL), finished_at=None)
        )

    refused = await sent(DELETE, principal=maintainer, id=model_id)

    assert refused["model"] is None
    assert refused["errors"][0]["dependents"] == [
        {"id": version_id, "__typename": "ModelVersion"},
        {"id": run.id, "__typename": "TrainingRun"},
    ]
    assert (await counted(db, models), await counted(db, model_versions)) == (1, 1)

    await sent(REMOVE_ALIAS, modelId=model_id, alias="champion")
    async with db.transaction() as session:
        await session.run(training_runs.update().values(register_model_id=None))
    deleted = await sent(DELETE, principal=maintainer, id=model_id)
    assert deleted == {"model": {"id": model_id, "name": "cancer"}, "errors": []}
    assert await shown(execute, scientist, model_id) is None
    assert [await counted(db, table) for table in (models, model_versions, evaluations, alias_changes)] == [0] * 4
    assert (await told(db))[-1] == "MODEL_DELETED"
    assert (await sent(DELETE, principal=maintainer, id=model_id))["errors"][0]["code"] == "NOT_FOUND"


async def test_deleting_takes_a_right_of_its_own(execute, caller, scientist, run_of, model_of, version_of, db):
    viewer = await caller("Viewer")
    model_id = await model_of()
    version_id = await version_of(model_id, await run_of())

    for document, id in ((DELETE, model_id), (DELETE_VERSION, version_id), (UPDATE, model_id)):
        answer = await execute(document, principal=viewer, input={"id": id})
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"

    assert (await counted(db, models), await counted(db, model_versions)) == (1, 1)
