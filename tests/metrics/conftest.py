"""Metrics through the API: a run to report to, points in, histories out, batches as they come."""

from contextlib import aclosing

import pytest

from db import runs
from schema.execution import stream
from tests.metrics.documents import EVERYTHING, INGEST, LIVE, QUERY, WHOLE, gid


@pytest.fixture
def make_run(db, admin, project):
    async def make(name="first", of=project):
        async with db.transaction() as session:
            made = await runs.insert_unless_taken(
                session,
                project_id=of.id,
                name=name,
                description=None,
                tags=[],
                created_by=admin.user_id,
                task="REGRESSION",
                algorithm="EXTERNAL",
                spec={},
                params=[],
                progress={},
                dataset_version_id=None,
                validation_dataset_version_id=None,
                parent_run_id=None,
                register_model_id=None,
                register_alias=None,
            )
        assert made is not None
        return made

    return make


@pytest.fixture
async def run(make_run):
    return await make_run()


@pytest.fixture
def ingest(execute, admin, project):
    async def send(*series, principal=admin, batch=None):
        input = {"projectId": gid("project", project.id), "series": list(series)}
        if batch is not None:
            input["batchId"] = batch
        response = await execute(INGEST, principal=principal, input=input)
        assert "errors" not in response, response
        return response["data"]["ingestMetrics"]

    return send


@pytest.fixture
def ask(execute, admin):
    async def query(selector=EVERYTHING, range=WHOLE, principal=admin, **more):
        response = await execute(QUERY, principal=principal, input={"selector": selector, "range": range, **more})
        assert "errors" not in response, response
        return response["data"]["metricQuery"]

    return query


@pytest.fixture
def live(context_of, admin):
    def subscribe(selector=EVERYTHING, principal=admin, **variables):
        return aclosing(_batches(stream(LIVE, {"selector": selector, **variables}, None, context_of(principal))))

    return subscribe


async def _batches(responses):
    async with aclosing(responses):
        async for response, _ in responses:
            if "errors" in response:
                raise AssertionError(response["errors"])
            yield response["data"]["metricPoints"]
