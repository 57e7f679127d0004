"""Head AI and its peers side by side: the same rows, the same answers, one after the other, round by round."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks.load import Target, WrongAnswer, answer, drive, get, post_graphql, quantile
from benchmarks.machine import cpu_seconds, family, wait_until_idle
from benchmarks.questions import QUESTIONS, Question
from benchmarks.report import Answered
from benchmarks.seeding import seed
from benchmarks.stack import Running, another, peer
from db import users
from db.database import Database
from db.ids import Kind, global_id
from headai.administration import FIRST

HEAD_AI = "Head AI"
CORE = "Head AI by graphql-core"
BARE = "bare asyncpg + orjson"
DOCUMENTED = "documented Strawberry"
CLIENTS = (1, 16)
_WARM_UP = 5


@dataclass(slots=True)
class Measured:
    """What the rounds of one server on one question gave so far."""

    seconds: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    pid: int
    port: int


async def compare(
    head_ai: Running, *, rounds: int, share: float, patience: float, console: Console
) -> AsyncGenerator[Answered, None]:
    """Ask every question of every server in `rounds` interleaved rounds, `share` of the full number of requests.

    Before each measurement it waits up to `patience` seconds for the machine to have nothing else to do.

    Raises `WrongAnswer` when the servers do not give equal answers, before anything is timed or at any time after.
    """
    async with Database(head_ai.settings.database_url) as db, AsyncExitStack() as stack:
        seeded = await seed(db)
        async with db.reading() as session:
            viewer = await users.by_username(session, FIRST)
        assert viewer is not None
        console.print(f"{seeded.rows:,} rows written by COPY", highlight=False)
        servers = [Server(HEAD_AI, head_ai.api, head_ai.settings.port)]
        port, pid = await stack.enter_async_context(another(head_ai, executor="core"))
        servers.append(Server(CORE, pid, port))
        for title, name in ((BARE, "bare"), (DOCUMENTED, "documented")):
            started = peer(
                name,
                database_url=head_ai.settings.database_url,
                viewer=viewer.id.hex,
                run=seeded.run_id.hex,
                log=Path(head_ai.settings.home) / f"{name}.log",
            )
            port, pid = await stack.enter_async_context(started)
            servers.append(Server(title, pid, port))
        for question in QUESTIONS:
            body = orjson.dumps(
                {"query": question.document, "variables": {"run": global_id(Kind.RUN, seeded.run_id)}}
                if "$run" in question.document
                else {"query": question.document}
            )
            token = await head_ai.token()
            targets = {server.name: _target(server, question, body, token) for server in servers}
            expected = await _checked(targets)
            for clients in CLIENTS:
                requests = max(clients, round(question.requests[clients] * share))
                console.print(f"{question.name}, {clients} at a time …", highlight=False)
                for one in await _rounds(question, servers, targets, expected, clients, requests, rounds, patience):
                    yield one


def _target(server: Server, question: Question, body: bytes, token: str) -> Target:
    if server.name == BARE:
        return get(server.port, question.path)
    return post_graphql(server.port, body, token if server.name in (HEAD_AI, CORE) else None)


async def _checked(targets: dict[str, Target]) -> dict[str, bytes]:
    """The answer of each server, warmed up; all of them hold the same data."""
    answers: dict[str, bytes] = {}
    for name, target in targets.items():
        for _ in range(_WARM_UP):
            answers[name] = await answer(target)
    datas: dict[str, Any] = {name: orjson.loads(body)["data"] for name, body in answers.items()}
    for name, data in datas.items():
        if data != datas[HEAD_AI] or data is None:
            raise WrongAnswer(f"{name} and Head AI differ:\n{answers[name][:800]!r}\n{answers[HEAD_AI][:800]!r}")
    return answers


async def _rounds(
    question: Question,
    servers: Sequence[Server],
    targets: dict[str, Target],
    expected: dict[str, bytes],
    clients: int,
    requests: int,
    rounds: int,
    patience: float,
) -> list[Answered]:
    measured = {server.name: Measured() for server in servers}
    for _ in range(rounds):
        for server in servers:
            target, mine = targets[server.name], measured[server.name]
            mine.busy = max(mine.busy, await wait_until_idle(patience))
            pids = family(server.pid)
            before = cpu_seconds(pids)
            seconds, latencies = await drive(target, expected=expected[server.name], clients=clients, requests=requests)
            await asyncio.sleep(0.05)
            mine.cpu += cpu_seconds(pids) - before
            mine.seconds += seconds
            mine.latencies += latencies
    return [
        Answered(
            question=question.name,
            server=name,
            clients=clients,
            requests=len(mine.latencies),
            throughput=len(mine.latencies) / mine.seconds,
            p50=quantile(mine.latencies, 0.5),
            p99=quantile(mine.latencies, 0.99),
            cpu_seconds=mine.cpu / len(mine.latencies),
            busy_before=mine.busy,
        )
        for name, mine in measured.items()
    ]
