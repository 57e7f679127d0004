"""The least that answers the history of one series: rows of a bare table from asyncpg, put into columns by hand."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import orjson

TABLE = "bare_points"
_POINTS = f"SELECT step, at, value FROM {TABLE} WHERE series_id = $1 ORDER BY step, at"
_HEADERS = [(b"content-type", b"application/json")]


@asynccontextmanager
async def opened(*, database_url: str, viewer: UUID, run: UUID) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """The ASGI app; `run` is the key of the series."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=10, server_settings={"jit": "off"}) as pool:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            rows = await pool.fetch(_POINTS, run)
            steps, at, values = zip(*rows, strict=True) if rows else ((), (), ())
            body = orjson.dumps({"step": steps, "at": at, "value": values})
            length = (b"content-length", str(len(body)).encode())
            await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, length]})
            await send({"type": "http.response.body", "body": body})

        yield app
