"""The least that answers the four questions: rows from asyncpg, dicts, orjson, and no framework at all."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from benchmarks.questions import (
    COLUMNS,
    DATASETS,
    LIST,
    NESTED,
    NESTED_DATASETS,
    OBJECTS,
    RUNS,
    SERIES,
    VERSIONS,
    VIEWER_MAY,
)

App = Callable[..., Awaitable[None]]
Json = dict[str, Any]

_DATASETS = """
    SELECT id, name, description, created_at, updated_at, revision
    FROM datasets ORDER BY updated_at DESC, id DESC LIMIT $1"""
_NESTED_DATASETS = "SELECT id, name, created_by FROM datasets ORDER BY updated_at DESC, id DESC LIMIT $1"
_USERS = "SELECT id, username, display_name FROM users WHERE id = ANY($1)"
_GRANTS = """
    SELECT g.id, r.id AS role_id, r.name FROM grants g JOIN roles r ON r.id = g.role_id
    WHERE g.user_id = $1 AND $2 = ANY(r.permissions) AND (g.expires_at IS NULL OR g.expires_at > clock_timestamp())"""
_VERSIONS = """
    SELECT v.* FROM unnest($1::uuid[]) AS k (id) CROSS JOIN LATERAL (
        SELECT id, dataset_id, number, status, row_count FROM dataset_versions
        WHERE dataset_id = k.id ORDER BY number DESC LIMIT $2) AS v"""
_RUNS = """
    SELECT r.* FROM unnest($1::uuid[]) AS k (id) CROSS JOIN LATERAL (
        SELECT id, dataset_version_id, name, status, created_at FROM training_runs
        WHERE dataset_version_id = k.id ORDER BY created_at DESC, id DESC LIMIT $2) AS r"""
_SERIES = "SELECT id, name FROM metric_series WHERE run_id = $1 ORDER BY name, id LIMIT $2"
_POINTS = "SELECT series_id, step, value FROM metric_points WHERE series_id = ANY($1) ORDER BY series_id, step"
_COLUMNS = """
    SELECT series_id, array_agg(step ORDER BY step), array_agg(value ORDER BY step)
    FROM metric_points WHERE series_id = ANY($1) GROUP BY series_id"""


@asynccontextmanager
async def opened(*, database_url: str, viewer: UUID, run: UUID) -> AsyncIterator[App]:
    """The ASGI app: `viewer` is whose roles decide, `run` is the run whose series are asked for."""
    async with asyncpg.create_pool(database_url, min_size=0, max_size=10, server_settings={"jit": "off"}) as pool:
        answers: dict[str, Callable[[], Awaitable[Json]]] = {
            LIST.path: lambda: _datasets(pool),
            NESTED.path: lambda: _nested(pool, viewer),
            OBJECTS.path: lambda: _objects(pool, run),
            COLUMNS.path: lambda: _columns(pool, run),
        }

        async def app(scope: Json, receive: Any, send: Any) -> None:
            body = orjson.dumps({"data": await answers[scope["path"]]()})
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        yield app


async def _datasets(pool: asyncpg.Pool) -> Json:
    rows = await pool.fetch(_DATASETS, DATASETS + 1)
    nodes = [
        {
            "id": f"dataset_{id.hex}",
            "name": name,
            "description": description,
            "createdAt": _shown(created_at),
            "updatedAt": _shown(updated_at),
            "revision": revision,
        }
        for id, name, description, created_at, updated_at, revision in rows[:DATASETS]
    ]
    return {"datasets": {"nodes": nodes, "pageInfo": {"hasNextPage": len(rows) > DATASETS}}}


async def _nested(pool: asyncpg.Pool, viewer: UUID) -> Json:
    datasets = await pool.fetch(_NESTED_DATASETS, NESTED_DATASETS)
    users = {
        id: {"id": f"user_{id.hex}", "username": username, "displayName": display_name}
        for id, username, display_name in await pool.fetch(_USERS, list({row[2] for row in datasets}))
    }
    decided_by = [
        {"id": f"grant_{id.hex}", "role": {"id": f"role_{role_id.hex}", "name": name}}
        for id, role_id, name in await pool.fetch(_GRANTS, viewer, VIEWER_MAY)
    ]
    decision = {"allowed": bool(decided_by), "decidedBy": decided_by}
    versions: dict[UUID, list[Json]] = {row[0]: [] for row in datasets}
    runs: dict[UUID, list[Json]] = {}
    for id, dataset_id, number, status, row_count in await pool.fetch(_VERSIONS, list(versions), VERSIONS):
        runs[id] = []
        versions[dataset_id].append(
            {
                "id": f"datasetversion_{id.hex}",
                "number": number,
                "status": status,
                "rowCount": str(row_count),
                "usedByRuns": {"nodes": runs[id]},
            }
        )
    for id, version_id, name, status, created_at in await pool.fetch(_RUNS, list(runs), RUNS):
        runs[version_id].append(
            {"id": f"run_{id.hex}", "name": name, "status": status, "createdAt": _shown(created_at)}
        )
    nodes = [
        {
            "id": f"dataset_{id.hex}",
            "name": name,
            "createdBy": users[created_by],
            "viewerCan": decision,
            "versions": {"nodes": versions[id]},
        }
        for id, name, created_by in datasets
    ]
    return {"datasets": {"nodes": nodes}}


async def _objects(pool: asyncpg.Pool, run: UUID) -> Json:
    series = await pool.fetch(_SERIES, run, SERIES)
    points: dict[UUID, list[Json]] = {id: [] for id, _ in series}
    for series_id, step, value in await pool.fetch(_POINTS, list(points)):
        points[series_id].append({"step": str(step), "value": value})
    return _series([(id, name, {"points": points[id]}) for id, name in series])


async def _columns(pool: asyncpg.Pool, run: UUID) -> Json:
    series = await pool.fetch(_SERIES, run, SERIES)
    columns = {
        id: {"step": steps, "value": values}
        for id, steps, values in await pool.fetch(_COLUMNS, [id for id, _ in series])
    }
    return _series([(id, name, {"columns": columns[id]}) for id, name in series])


def _series(found: list[tuple[UUID, str, Json]]) -> Json:
    return {
        "metricSeries": {"nodes": [{"id": f"series_{id.hex}", "name": name, "data": data} for id, name, data in found]}
    }


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
