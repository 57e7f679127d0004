"""Operations over server-sent events at /graphql/stream: graphql-sse in its mode of distinct connections.

Source: https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md. An item's `cursor`, where it is selected, is
the `id` of its event; a client that comes back with `Last-Event-ID` goes on after it through the variable `after`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import ExitStack, aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from db.database import DatabaseUnavailable
from headai.authentication import SESSION_ENDED, TOKEN_EXPIRED, Caller, authenticate, context_for
from headai.http import refused, unavailable
from headai.requests import BadRequest, Operation, asked, encoded, posted
from monitoring.metrics import METRICS
from resolvers.context import Services
from schema.execution import stream
from schema.failures import unauthenticated

SIGN_OF_LIFE_SECONDS = 12.0


class GraphQLStream(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        try:
            return await self._stream(request, asked(request))
        except BadRequest as refusal:
            return refused(request, refusal)

    async def post(self, request: Request) -> Response:
        try:
            return await self._stream(request, await posted(request))
        except BadRequest as refusal:
            return refused(request, refusal)

    async def _stream(self, request: Request, operation: Operation) -> Response:
        services = request.state.services
        try:
            caller = await authenticate(services, request.headers.get("authorization"))
        except DatabaseUnavailable:
            return Response(encoded(unavailable()), 503, {"content-type": "application/json"})
        variables = dict(operation.variables or {})
        if request.headers.get("last-event-id"):
            variables["after"] = request.headers["last-event-id"]
        results = stream(operation.query, variables, operation.name, context_for(services, request, caller))
        return StreamingResponse(
            _events(results, services, caller),
            headers={"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"},
            media_type="text/event-stream",
        )


async def _events(
    results: AsyncGenerator[tuple[dict[str, Any], bool], None], services: Services, caller: Caller
) -> AsyncIterator[bytes]:
    """The results as events, with a comment now and then so that nobody takes silence for death.

    A session that ends and a token that runs out end the stream with UNAUTHENTICATED.
    """
    over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(reason: str) -> None:
        if not over.done():
            over.set_result(reason)

    presence = ExitStack()
    if caller.claims is not None:
        presence.enter_context(services.callers.connected(caller.claims.session_id, partial(end, SESSION_ENDED)))
        seconds = (caller.claims.expires_at - datetime.now(UTC)).total_seconds()
        expiry = asyncio.get_running_loop().call_later(seconds, end, TOKEN_EXPIRED)
        presence.callback(expiry.cancel)
    METRICS.connection_opened("sse")
    coming: asyncio.Future[tuple[dict[str, Any], bool]] | None = None
    try:
        async with aclosing(results):
            while True:
                coming = coming or asyncio.ensure_future(anext(results))
                waited_for: set[asyncio.Future[Any]] = {coming, over}
                await asyncio.wait(waited_for, timeout=SIGN_OF_LIFE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if over.done():
                    denied = unauthenticated(over.result())
                    yield b"event: next\ndata: " + encoded({"errors": [denied.formatted]}) + b"\n\n"
                    coming.cancel()
                    await asyncio.wait([coming])
                    break
                if not coming.done():
                    yield b":\n\n"
                    continue
                try:
                    response, _ = coming.result()
                except StopAsyncIteration:
                    break
                coming = None
                cursor = _cursor_of(response)
                identified = b"id: " + cursor.encode() + b"\n" if cursor else b""
                yield identified + b"event: next\ndata: " + encoded(response) + b"\n\n"
            yield b"event: complete\ndata:\n\n"
    finally:
        presence.close()
        if coming is not None:
            coming.cancel()
        METRICS.connection_closed("sse")


def _cursor_of(response: Mapping[str, Any]) -> str | None:
    fields = list((response.get("data") or {}).values())
    cursor = fields[0].get("cursor") if len(fields) == 1 and isinstance(fields[0], dict) else None
    return cursor if isinstance(cursor, str) else None
