"""What it costs that a caller sees and does no more than its grants allow: Head AI against itself without that.

The caller holds a role in two projects and one permission on a single run, so every condition has something to compare.
Both processes answer the same documents with the same bytes, in turns.
"""

import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import orjson
from rich.console import Console

from benchmarks.load import WrongAnswer, answer, drive, post_graphql, quantile
from benchmarks.machine import cpu_seconds, family, wait_until_idle
from benchmarks.questions import COLUMNS, LIST, NESTED
from benchmarks.report import Figure
from benchmarks.stack import Running, free_port, process, until_ready
from db.database import Database
from db.ids import Kind, global_id

TARGET = 1.15
_CLIENTS = 4
_WARM_UP = 20
_REQUESTS = ((LIST, 200), (NESTED, 60), (COLUMNS, 60))


async def measure(
    head_ai: Running, *, rounds: int, share: float, patience: float, console: Console
) -> AsyncGenerator[Figure, None]:
    """On a database that holds the rows of `benchmarks.seeding`; one figure a question. Raises `WrongAnswer`."""
    environment = head_ai.settings.model_copy(update={"port": free_port()}).environment()
    log = Path(head_ai.settings.home) / "unguarded.log"
    run, token = await _caller(head_ai)
    async with process("benchmarks.unguarded", log=log, environment=environment) as started:
        port = int(environment["HEADAI_PORT"])
        await until_ready(f"http://127.0.0.1:{port}/readyz", started, log)
        for question, number in _REQUESTS:
            console.print(f"{question.name}, with and without guards …", highlight=False)
            asked = {"query": question.document, "variables": {"run": run} if "$run" in question.document else {}}
            servers = ((head_ai.settings.port, head_ai.api), (port, started.pid))
            targets = [post_graphql(its, orjson.dumps(asked), token) for its, _ in servers]
            expected = [[await answer(target) for _ in range(_WARM_UP)][-1] for target in targets]
            if len({orjson.dumps(orjson.loads(body)["data"]) for body in expected}) != 1:
                raise WrongAnswer(f"Without guards the answer is another one: {expected[1][:500]!r}")
            requests = max(_CLIENTS, round(number * share))
            spent: list[float] = [0.0, 0.0]
            latencies: list[list[float]] = [[], []]
            for turn in range(rounds * 4):
                for which in (0, 1) if turn % 2 else (1, 0):
                    await wait_until_idle(patience)
                    pids = family(servers[which][1])
                    before = cpu_seconds(pids)
                    _, took = await drive(targets[which], expected=expected[which], clients=_CLIENTS, requests=requests)
                    spent[which] += cpu_seconds(pids) - before
                    latencies[which] += took
            yield Figure(
                name=f"what access costs: {question.name}",
                value=quantile(latencies[0], 0.5) / quantile(latencies[1], 0.5),
                unit="×",
                target=TARGET,
                detail=f"p50 over that without guards and conditions, {len(latencies[0])} requests each; "
                f"CPU of the API {spent[0] / spent[1]:.2f}×",
            )


async def _caller(head_ai: Running) -> tuple[str, str]:
    """The run that is asked about, and the access token of somebody with a few grants."""
    async with Database(head_ai.settings.database_url) as db, db.reading() as session:
        found = await session.connection.fetchrow(
            "SELECT s.run_id AS run, r.project_id AS project"
            " FROM metric_series s JOIN training_runs r ON r.id = s.run_id LIMIT 1"
        )
    run, project = global_id(Kind.RUN, found["run"]), global_id(Kind.PROJECT, found["project"])
    headers = {"authorization": f"Bearer {await head_ai.token()}"}
    password = secrets.token_urlsafe(15)
    async with httpx.AsyncClient(base_url=head_ai.url, trust_env=False) as http:

        async def do(mutation: str, input: dict[str, Any], answers: str) -> Any:
            takes = f"{mutation[0].upper()}{mutation[1:]}Input!"
            document = f"mutation ($input: {takes}) {{ {mutation}(input: $input) {{ {answers} }} }}"
            sent = {"query": document, "variables": {"input": input}}
            told = (await http.post("/graphql", json=sent, headers=headers)).json()
            return told["data"][mutation]

        role = (
            await http.post("/graphql", json={"query": '{ role(name: "Data Scientist") { id } }'}, headers=headers)
        ).json()
        account = {"username": "reader", "email": "reader@example.com", "password": password}
        user = (await do("createUser", account, "user { id }"))["user"]["id"]
        beside = (await do("createProject", {"slug": "beside", "name": "Beside"}, "project { id }"))["project"]["id"]
        holds = {"principalId": user, "what": {"roleId": role["data"]["role"]["id"]}}
        for given in (
            holds | {"scopeId": project},
            holds | {"scopeId": beside},
            {"principalId": user, "what": {"permissions": ["RUN_READ"]}, "scopeId": run},
        ):
            await do("createGrant", given, "grant { id }")
        headers = {}
        signed_in = await do("login", {"username": "reader", "password": password}, "tokens { accessToken }")
    token: str = signed_in["tokens"]["accessToken"]
    return run, token
