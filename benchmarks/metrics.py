"""Metrics through GraphQL beside named limits: points in beside COPY, histories out beside rows packed by hand."""

import asyncio
import math
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
from rich.console import Console

from benchmarks.load import Connection, Target, get, post_graphql, quantile
from benchmarks.machine import wait_until_idle
from benchmarks.peers.points import TABLE
from benchmarks.report import Figure
from benchmarks.stack import Running, peer
from db.ids import Kind, key_of
from headai.administration import FIRST
from headai.client import Api

_CLIENTS = 4
_A_CALL = 10_000
_MOST_A_CALL = 100_000
_INGEST = "mutation ($input: IngestMetricsInput!) { ingestMetrics(input: $input) { accepted errors { message } } }"
_HISTORY = """
query ($input: MetricQueryInput!) {
  metricQuery(input: $input) { groups { data { columns { step at value } totalPoints returnedPoints } } }
}"""
_ORDERED = """
{ trainingRuns(first: 25, orderBy: {field: METRIC, metric: "valid.auc", of: BEST, direction: DESC}) { nodes { name } } }
"""
_BARE = f"""
    CREATE TABLE {TABLE} (
        series_id uuid NOT NULL, step bigint, at bigint NOT NULL, value float8 NOT NULL,
        UNIQUE NULLS NOT DISTINCT (series_id, step, at)
    )"""
_MANY_RUNS = """
    INSERT INTO training_runs (id, project_id, name, status, progress, task, algorithm, spec, params)
    SELECT gen_random_uuid(), $1, 'many-' || n, 'SUCCEEDED', '{}', 'REGRESSION', 'EXTERNAL', '{}', '[]'
    FROM generate_series(1, $2) AS n"""
_THEIR_SERIES = """
    INSERT INTO metric_series
        (id, project_id, run_id, scope, name, kind, rises, point_count, finite_count, min_value, max_value, last_value)
    SELECT gen_random_uuid(), project_id, id, 'RUN', 'valid.auc', 'GAUGE', true, 1, 1, v, v, v
    FROM (SELECT id, project_id, random() AS v FROM training_runs WHERE name LIKE 'many-%') AS r"""


@dataclass(frozen=True, slots=True)
class Size:
    """Interleaved rounds, calls of each client in a round, questions asked, and how long the long histories are."""

    rounds: int
    calls: int
    questions: int
    long: int
    runs: int


FULL = Size(rounds=5, calls=10, questions=100, long=1_000_000, runs=100_000)
QUICK = Size(rounds=2, calls=4, questions=30, long=200_000, runs=20_000)


async def measure(head_ai: Running, *, size: Size, console: Console) -> AsyncGenerator[Figure, None]:
    """The figures of metrics, as they come."""
    async with Api.at(head_ai.url) as api:
        await api.sign_in(FIRST, head_ai.password)
        made = await api.send("CreateProject", {"input": {"slug": "metrics", "name": "Metrics"}})
    bench = _Bench(head_ai, made["project"]["id"], size, console)
    for part in (bench.points_in, bench.points_out, bench.envelopes, bench.runs_in_order):
        await wait_until_idle(5)
        for figure in await part():
            yield figure


class _Bench:
    def __init__(self, head_ai: Running, project_id: str, size: Size, console: Console) -> None:
        self._head_ai = head_ai
        self._project_id = project_id
        self._size = size
        self._console = console
        self._port = head_ai.settings.port

    async def points_in(self) -> list[Figure]:
        """Clients that each send their own series, and as many connections that COPY the same rows."""
        size, ratios, rates = self._size, [], []
        async with asyncpg.create_pool(self._head_ai.settings.database_url, min_size=_CLIENTS) as pool:
            await pool.execute(_BARE)
            for number in range(size.rounds):
                token = await self._head_ai.token()
                sent = [
                    [self._call(f"in.{number}.{client}", call * _A_CALL, _A_CALL, token) for call in range(size.calls)]
                    for client in range(_CLIENTS)
                ]
                rows = [
                    [_rows(uuid4() if not call else None, call * _A_CALL, _A_CALL) for call in range(size.calls)]
                    for _ in range(_CLIENTS)
                ]
                began = time.perf_counter()
                await asyncio.gather(*(self._send(targets) for targets in sent))
                ours = time.perf_counter() - began
                began = time.perf_counter()
                await asyncio.gather(*(_copy(pool, batches) for batches in rows))
                theirs = time.perf_counter() - began
                ratios.append(ours / theirs)
                rates.append(_CLIENTS * size.calls * _A_CALL / ours)
        self._say(f"ingest over COPY: {ratios}; points a second: {rates}")
        return [
            Figure(
                name="ingestMetrics over COPY into a bare table with the same unique key",
                value=median(ratios),
                unit="times as long",
                target=2.0,
                detail=f"{_CLIENTS} clients, {_A_CALL:,} points a call; {median(rates):,.0f} points a second; "
                f"median of {size.rounds} interleaved rounds, {min(ratios):.2f} to {max(ratios):.2f}",
            )
        ]

    async def points_out(self) -> list[Figure]:
        """Ten thousand points as columns, and the same rows of a bare table put into columns by hand."""
        token = await self._head_ai.token()
        await self._send([self._call("raw", 0, _A_CALL, token)])
        key = uuid4()
        connection = await asyncpg.connect(self._head_ai.settings.database_url)
        try:
            await connection.copy_records_to_table(TABLE, records=_rows(key, 0, _A_CALL))
            await connection.execute(f"ANALYZE {TABLE}")
        finally:
            await connection.close()
        ours, theirs = [], []
        with tempfile.TemporaryDirectory(prefix="headai-bench-points-") as folder:
            async with peer(
                "points",
                database_url=self._head_ai.settings.database_url,
                viewer=str(key),
                run=str(key),
                log=Path(folder) / "points.log",
            ) as (port, _):
                bare = get(port, "/")
                mine = self._history("raw", token)
                for target in (mine, bare):
                    assert len(await _ask(target, 5)) == 5
                for _ in range(self._size.rounds):
                    ours += await _ask(mine, self._size.questions)
                    theirs += await _ask(bare, self._size.questions)
        mine_p50, bare_p50 = quantile(ours, 0.5), quantile(theirs, 0.5)
        return [
            Figure(
                name="10,000 raw points as columns over rows packed by hand in a bare ASGI app",
                value=mine_p50 / bare_p50,
                unit="times as long",
                target=1.5,
                detail=f"p50 {mine_p50 * 1e3:.1f} ms against {bare_p50 * 1e3:.1f} ms, interleaved",
            )
        ]

    async def envelopes(self) -> list[Figure]:
        """A long history, and one ten times as long, as envelopes of a thousand points."""
        token = await self._head_ai.token()
        for name, length in (("long", self._size.long), ("longer", 10 * self._size.long)):
            began = time.perf_counter()
            await self._send([self._call(name, first, _MOST_A_CALL, token) for first in range(0, length, _MOST_A_CALL)])
            self._say(f"{length:,} points in after {time.perf_counter() - began:.1f} s")
        token = await self._head_ai.token()
        targets = {name: self._history(name, token, maxPoints=1000) for name in ("long", "longer")}
        seconds: dict[str, list[float]] = {name: [] for name in targets}
        for target in targets.values():
            await _ask(target, 5)
        for _ in range(self._size.rounds):
            for name, target in targets.items():
                seconds[name] += await _ask(target, self._size.questions)
        long, longer = (quantile(seconds[name], 0.5) for name in ("long", "longer"))
        return [
            Figure(
                name=f"{self._size.long:,} points as an envelope of 1,000, p50 end to end",
                value=long * 1e3,
                unit="ms",
                target=15.0,
                detail=f"p99 {quantile(seconds['long'], 0.99) * 1e3:.1f} ms",
            ),
            Figure(
                name=f"{10 * self._size.long:,} points over {self._size.long:,}",
                value=longer / long,
                unit="times as long",
                target=2.0,
                detail=f"p50 {longer * 1e3:.1f} ms, interleaved",
            ),
        ]

    async def runs_in_order(self) -> list[Figure]:
        """The first page of many runs, by the best value of a metric."""
        connection = await asyncpg.connect(self._head_ai.settings.database_url)
        try:
            await connection.execute(_MANY_RUNS, key_of(self._project_id, Kind.PROJECT), self._size.runs)
            await connection.execute(_THEIR_SERIES)
            await connection.execute("ANALYZE training_runs, metric_series")
        finally:
            await connection.close()
        target = post_graphql(self._port, orjson.dumps({"query": _ORDERED}), await self._head_ai.token())
        await _ask(target, 5)
        seconds = await _ask(target, self._size.rounds * self._size.questions)
        return [
            Figure(
                name=f"{self._size.runs:,} runs by a metric's best value, first page, p50",
                value=quantile(seconds, 0.5) * 1e3,
                unit="ms",
                target=20.0,
                detail=f"p99 {quantile(seconds, 0.99) * 1e3:.1f} ms",
            )
        ]

    def _call(self, name: str, first: int, count: int, token: str) -> Target:
        steps = range(first, first + count)
        series = {
            "scope": "APPLICATION",
            "name": name,
            "steps": list(steps),
            "at": [_at(step) for step in steps],
            "values": [_value(step) for step in steps],
        }
        given = {"input": {"projectId": self._project_id, "series": [series]}}
        return post_graphql(self._port, orjson.dumps({"query": _INGEST, "variables": given}), token)

    def _history(self, name: str, token: str, **downsample: int) -> Target:
        given: dict[str, Any] = {
            "selector": {"projectId": self._project_id, "scope": "APPLICATION", "names": [name]},
            "range": {"steps": {"from": 0}},
        }
        if downsample:
            given["downsample"] = downsample
        body = orjson.dumps({"query": _HISTORY, "variables": {"input": given}})
        return post_graphql(self._port, body, token)

    async def _send(self, targets: Sequence[Target]) -> None:
        connection = await Connection.open(self._port)
        try:
            for target in targets:
                answer = orjson.loads(await connection.ask(target.request))
                assert answer["data"]["ingestMetrics"]["accepted"], answer
        finally:
            connection.close()

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)


def _at(step: int) -> int:
    return 1_700_000_000_000 + 100 * step + step * 7919 % 13


def _value(step: int) -> float:
    return math.sin(step / 1000) + step * 7919 % 1013 / 1013


def _rows(key: UUID | None, first: int, count: int) -> list[tuple[UUID | None, int, int, float]]:
    return [(key, step, _at(step), _value(step)) for step in range(first, first + count)]


async def _copy(pool: Any, batches: Sequence[list[tuple[UUID | None, int, int, float]]]) -> None:
    key = batches[0][0][0]
    async with pool.acquire() as connection:
        for batch in batches:
            await connection.copy_records_to_table(TABLE, records=[(key, *row[1:]) for row in batch])


async def _ask(target: Target, times: int) -> list[float]:
    """How long each of some requests took, one after the other on one connection."""
    connection = await Connection.open(target.port)
    seconds = []
    try:
        for _ in range(times):
            began = time.perf_counter()
            body = await connection.ask(target.request)
            seconds.append(time.perf_counter() - began)
            assert b'"errors":' not in body, body[:500]
        return seconds
    finally:
        connection.close()
