"""Streams while an older transaction holds back what was committed after it began: they look again by themselves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from db import datasets
from db.ids import Kind, global_id, new_id
from domain.projects import create_project
from events.wakeups import Bell, Wakeups
from schema.execution import stream
from tests.ready import cancer, ready_version
from tests.test_training import CANCEL, CREATE

RUNS = "subscription ($id: ID) { trainingRunUpdated(id: $id) { trainingRun { status } } }"
VERSION = "subscription ($id: ID!) { datasetVersionUpdated(id: $id) { datasetVersion { progress { phase } } } }"
EVENTS = "subscription { events { __typename ... on Event { type } } }"

Hold = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture
def hold(db: Any) -> Hold:
    """`async with hold():` a transaction that began before everything in the block and ends after it."""

    @asynccontextmanager
    async def holding() -> AsyncIterator[None]:
        async with db.transaction() as session:
            await session.connection.execute("SELECT pg_current_xact_id()")
            yield

    return holding


@pytest.fixture(autouse=True)
def nobody_looks_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wakeups, "patience", 600.0)


@pytest.fixture
def follow(context_of: Any, scientist: Any) -> Any:
    """The items of a subscription, by the name of its only field."""

    async def items(query: str, **variables: Any) -> AsyncIterator[Any]:
        async for response, _ in stream(query, variables, None, context_of(scientist)):
            (item,) = response["data"].values()
            yield item

    return items


async def held_back(items: AsyncIterator[Any], hold: Hold, change: Any) -> Any:
    """The next item, which a change brings about that is committed while an older transaction runs."""
    coming = asyncio.ensure_future(anext(items))
    async with hold():
        await change()
        await asyncio.wait({coming}, timeout=0.2)
        assert not coming.done(), "it is not settled yet"
    async with asyncio.timeout(30):
        return await coming


@pytest.fixture
async def run(db: Any, store: Any, execute: Any, scientist: Any, project: Any, tmp_path: Any) -> str:
    version = await ready_version(db, store, project, tmp_path, cancer())
    input = {
        "projectId": global_id(Kind.PROJECT, project.id),
        "datasetVersionId": global_id(Kind.DATASET_VERSION, version),
        "spec": {"task": "BINARY_CLASSIFICATION", "target": "diagnosis", "numRounds": 5},
    }
    made = await execute(CREATE, principal=scientist, input=input)
    return str(made["data"]["createTrainingRun"]["trainingRun"]["id"])


@pytest.mark.parametrize("one", [True, False])
async def test_a_change_of_a_run(execute, scientist, run, hold, follow, one):
    async def cancel() -> None:
        await execute(CANCEL, principal=scientist, input={"id": run})

    items = follow(RUNS, id=run if one else None)
    before = await anext(items)
    after = await held_back(items, hold, cancel)
    await items.aclose()

    assert [item["trainingRun"]["status"] for item in (before, after)] == ["QUEUED", "CANCELED"]


async def test_a_change_of_a_dataset_version(db, store, project, tmp_path, hold, follow):
    version = await ready_version(db, store, project, tmp_path, cancer(), status="PROCESSING")

    async def claim() -> None:
        async with db.transaction() as session:
            assert await datasets.claim(session, version, new_id(), {"phase": "download"})

    items = follow(VERSION, id=global_id(Kind.DATASET_VERSION, version))
    before = await anext(items)
    after = await held_back(items, hold, claim)
    await items.aclose()

    assert [item["datasetVersion"]["progress"]["phase"] for item in (before, after)] == ["ready", "download"]


async def test_an_event(db, admin, hold, follow):
    async def happen() -> None:
        async with db.transaction() as session:
            await create_project(session, admin, slug="other", name="Other", description=None, tags=[])

    items = follow(EVENTS)
    before = await anext(items)
    after = await held_back(items, hold, happen)
    await items.aclose()

    assert [before["__typename"], after] == [
        "StreamCaughtUp",
        {"__typename": "Event", "type": "PROJECT_CREATED"},
    ]


async def test_a_reader_looks_less_and_less_often(services, monkeypatch):
    waits: list[float] = []

    async def wait(bell: Bell, seconds: float) -> bool:
        waits.append(seconds)
        return False

    monkeypatch.setattr(Bell, "wait", wait)
    with services.wakeups.watching("runs") as bell:
        for unsettled in (False, *[True] * 8, False, True):
            await bell.until_next_look(unsettled=unsettled)

    assert waits == [600.0, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 600.0, 0.02]
