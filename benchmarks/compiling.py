"""What the request pays at which the plan of a large operation is made, from outside: it over the requests after it."""

import time
from statistics import median

import orjson

from benchmarks.load import Connection, WrongAnswer, post_graphql
from benchmarks.report import Figure
from benchmarks.stack import Running
from headai.administration import FIRST
from headai.client import Api
from plans.cache import SIGHTINGS

TARGET_MS = 50.0
_TEXTS = 5
_LATER = 5
_DATASETS = """datasets(first: 1) { nodes { id name description createdAt updatedAt revision
  versions(first: 1) { nodes { id number status createdAt rowCount sizeBytes } }
  createdBy { ... on User { id username displayName } } } }"""
_PROJECTS = "projects(first: 1) { nodes { id slug name description createdAt updatedAt revision } }"
_LARGEST = {"20 lists with their parts": (_DATASETS, 20), "30 lists": (_PROJECTS, 30)}
"""What a document of 1,000 tokens and 30 aliases has room for."""


async def measure(head_ai: Running) -> Figure:
    """The worst of two operations as large as documents may be; the median over texts that differ in names."""
    async with Api.at(head_ai.url) as api:
        await api.sign_in(FIRST, head_ai.password)
        made = await api.send("CreateProject", {"input": {"slug": "compiled", "name": "Compiled"}})
        await api.send("CreateDataset", {"input": {"projectId": made["project"]["id"], "name": "compiled"}})
    token, port = await head_ai.token(), head_ai.settings.port
    connection = await Connection.open(port)
    try:
        costs = {
            name: median(
                [await _cost(connection, head_ai.settings.port, token, f"t{n}", *asked) for n in range(_TEXTS)]
            )
            for name, asked in _LARGEST.items()
        }
    finally:
        connection.close()
    worst = max(costs, key=lambda name: costs[name])
    return Figure(
        name="making the plan of an operation as large as documents may be",
        value=costs[worst] * 1e3,
        unit="ms",
        target=TARGET_MS,
        detail=f"sighting {SIGHTINGS} over the median of the {_LATER} after it; the worst of {len(costs)}: {worst}",
    )


async def _cost(connection: Connection, port: int, token: str, prefix: str, field: str, count: int) -> float:
    """Seconds that the sighting takes at which there comes to be a plan, over those of the sightings after it."""
    text = "{ " + " ".join(f"{prefix}{number}: {field}" for number in range(count)) + " }"
    request = post_graphql(port, orjson.dumps({"query": text}), token).request
    seconds = []
    for _ in range(SIGHTINGS + _LATER):
        began = time.perf_counter()
        answer = await connection.ask(request)
        seconds.append(time.perf_counter() - began)
        if "errors" in orjson.loads(answer):
            raise WrongAnswer(answer[:500].decode())
    return seconds[SIGHTINGS - 1] - median(seconds[SIGHTINGS:])
