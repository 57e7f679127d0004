"""What `make bench` compares has to be the same: each peer gives the answer that Head AI gives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from auth.principals import Principal
from benchmarks.abuse import battery, documented_gateway
from benchmarks.peers import bare, documented
from benchmarks.questions import COLUMNS, LIST, NESTED, OBJECTS, QUESTIONS
from benchmarks.seeding import seed
from db.database import Database
from db.ids import Kind, global_id
from headai.settings import Settings
from tests.conftest import Execute


async def test_peers_answer_as_head_ai_does(
    db: Database, admin: Principal, settings: Settings, execute: Execute
) -> None:
    seeded = await seed(db)
    run = {"run": global_id(Kind.RUN, seeded.run_id)}
    given: dict[str, Any] = {
        "database_url": settings.database_url,
        "viewer": admin.user_id,
        "run": seeded.run_id,
    }

    for question in QUESTIONS:
        variables = run if "$run" in question.document else {}
        answer = await execute(question.document, principal=admin, **variables)

        async with bare.opened(**given) as app, _client(app) as http:
            least = (await http.get(question.path)).json()
        async with documented.opened(**given) as app, _client(app) as http:
            usual = (await http.post("/graphql", json={"query": question.document, "variables": variables})).json()

        assert answer == least, question.name
        assert answer == usual, question.name


async def test_every_document_of_the_abuse_battery_is_answered(admin: Principal, execute: Execute) -> None:
    for name, document in battery().items():
        answer = await execute(document, principal=admin)
        codes = {error["extensions"]["code"] for error in answer.get("errors", ())}
        assert codes == {"BAD_REQUEST"} or (not codes and answer["data"] is not None), name


def test_the_gateway_that_is_measured_is_the_documented_one(tmp_path: Path) -> None:
    configuration = documented_gateway(listen=1234, api=5678, scratch=tmp_path)

    assert "listen 127.0.0.1:1234;" in configuration
    assert "server 127.0.0.1:5678;" in configuration
    assert "client_header_timeout 5s;" in configuration
    assert f"proxy_temp_path {tmp_path}/proxy;" in configuration


async def test_questions_ask_for_as_much_as_they_say(db: Database, admin: Principal, settings: Settings) -> None:
    seeded = await seed(db)
    given: dict[str, Any] = {
        "database_url": settings.database_url,
        "viewer": admin.user_id,
        "run": seeded.run_id,
    }

    async with bare.opened(**given) as app, _client(app) as http:
        things = {question.path: sum(_lengths((await http.get(question.path)).json())) for question in QUESTIONS}

    assert things == {
        LIST.path: 100,
        NESTED.path: 50 + 50 * 5 + 50 * 5 * 5,
        OBJECTS.path: 20 + 10_000,
        COLUMNS.path: 20 + 10_000,
    }


def _lengths(value: object) -> Iterator[int]:
    """Of the lists that hold nodes, points or the steps of columns."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name in {"nodes", "points", "step"} and isinstance(item, list):
                yield len(item)
            yield from _lengths(item)
    elif isinstance(value, list):
        for item in value:
            yield from _lengths(item)


def _client(app: object) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://peer")  # type: ignore[arg-type]
