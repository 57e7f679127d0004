"""Random operations over Head AI's own schema and real rows, as callers with different rights: zero differences."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graphql import execute as run_operation
from graphql import parse
from sqlalchemy import select
from strawberry.execution.is_awaitable import optimized_is_awaitable

from db.database import Database
from db.ids import Kind, global_id
from db.tables import metadata
from plans.cache import Plans
from plans.plain_data import PlainDataExecutor
from schema.build import schema
from schema.executor import Executor
from tests.plans.comparing import difference
from tests.plans.operations import operation
from tests.trained import succeeded_run

SKIPPED = frozenset(
    (
        "Query.__schema",
        "Query.health",  # takes its own time each time
        "Query.rateLimit",
        "Viewer.rateLimit",
        "Query.verifyAuditLog",
        "MetricQueryResult.executionMs",
        "DatasetVersion.preview",  # a child process
        "DatasetVersion.download",  # signed for a moment
        "ModelVersion.download",
        "Artifact.download",
    )
)
KINDS = {
    "users": Kind.USER,
    "roles": Kind.ROLE,
    "grants": Kind.GRANT,
    "projects": Kind.PROJECT,
    "datasets": Kind.DATASET,
    "dataset_versions": Kind.DATASET_VERSION,
    "training_runs": Kind.RUN,
    "models": Kind.MODEL,
    "model_versions": Kind.MODEL_VERSION,
    "evaluations": Kind.EVALUATION,
    "metric_series": Kind.SERIES,
    "events": Kind.EVENT,
    "audit_events": Kind.AUDIT_EVENT,
    "sessions": Kind.SESSION,
}
CREATE_MODEL = "mutation ($input: CreateModelInput!) { createModel(input: $input) { model { id } errors { message } } }"
CREATE_VERSION = (
    "mutation ($input: CreateModelVersionInput!) "
    "{ createModelVersion(input: $input) { modelVersion { id } errors { message } } }"
)
INGEST = "mutation ($input: IngestMetricsInput!) { ingestMetrics(input: $input) { accepted errors { message } } }"


@pytest.fixture
async def world(execute: Any, db: Database, store: Any, scientist: Any, project: Any, tmp_path: Path) -> list[str]:
    """Two runs, a model with two versions, points, and whoever did it; the IDs of all of it."""
    model = await execute(
        CREATE_MODEL,
        principal=scientist,
        input={"projectId": global_id(Kind.PROJECT, project.id), "name": "cancer", "task": "BINARY_CLASSIFICATION"},
    )
    model_id = model["data"]["createModel"]["model"]["id"]
    for _ in range(2):
        run = await succeeded_run(db, store, project, tmp_path)
        await execute(CREATE_VERSION, principal=scientist, input={"modelId": model_id, "from": {"runId": run.id}})
        series = {"scope": "RUN", "runId": run.id, "name": "loss", "steps": [1, 2, 3], "values": [3.0, 2.0, 1.5]}
        given = {"projectId": global_id(Kind.PROJECT, project.id), "batchId": run.id, "series": [series]}
        await execute(INGEST, principal=scientist, input=given)
    ids = []
    async with db.reading() as session:
        for table, kind in KINDS.items():
            records = await session.records(select(metadata.tables[table].c.id).limit(4))
            assert records, table
            ids += [global_id(kind, record[0]) for record in records]
    return ids


async def test_both_executors_answer_alike(
    world: list[str],
    context_of: Any,
    admin: Any,
    scientist: Any,
    caller: Any,
    services: Any,
    statements: Any,
    monkeypatch: pytest.MonkeyPatch,
    seeds: Callable[[int], Iterable[int]],
) -> None:
    monkeypatch.setattr(Executor, "plans", Plans(sightings=1))
    callers = [admin, scientist, await caller("Viewer"), await caller(None), None]
    number, planned, sent, answered = 0, 0, {"core": 0, "plans": 0}, 0
    for seed in seeds(80):
        number += 1
        chance = random.Random(seed)

        def scalar(chance: random.Random, type_: str, name: str) -> Any:
            if name in ("after", "before", "last", "search", "createdAt", "limit") and chance.random() < 0.95:
                return None
            match type_:
                case "ID":
                    return chance.choice([*world, "run_nothing", "nonsense"])
                case "Int":
                    return (
                        chance.choice([1, 2, 3, 10, 10, 10, 0, -1]) if name == "first" else chance.choice([1, 5, 500])
                    )
                case "Boolean":
                    return chance.random() < 0.5
                case "Float":
                    return chance.choice([0.5, 1, 100.0])
                case "DateTime":
                    return chance.choice(["2020-01-01T00:00:00Z", "2030-01-01T00:00:00+02:00"])
                case "Duration":
                    return "PT1H"
            return chance.choice(["loss", "cancer", "lab", "", "a*"])

        principal = chance.choice(callers)
        drawn = operation(schema._schema, chance, scalar, skipped=SKIPPED, depth=6, room=chance.choice([10, 30]))
        results = {}
        for name, executor in (("core", PlainDataExecutor), ("plans", Executor)):
            context = replace(context_of(principal), services=replace(services, executor="plans")).for_operation()
            if principal is None:
                monkeypatch.setattr(Executor, "plan", lambda self: self.plans.of(self, learn=True))
            with statements() as seen:
                result: Any = run_operation(
                    schema._schema,
                    parse(drawn.document),
                    context_value=context,
                    variable_values=drawn.variables,
                    is_awaitable=optimized_is_awaitable,
                    executor_class=executor,
                )
                results[name] = await result if optimized_is_awaitable(result) else result
            if not results[name].errors:
                sent[name] += len(seen)
        planned += len(Executor.plans)
        Executor.plans = Plans(sightings=1)
        different = difference(results["core"], results["plans"], None)
        assert different is None, f"seed {seed}: {drawn.variables}\n{drawn.document}\n{different}"
        answered += results["plans"].data is not None

    assert planned > number * 0.8
    assert answered > number * 0.4
    assert sent["plans"] <= sent["core"]
