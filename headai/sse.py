"""Operations over server-sent events at /graphql/stream: graphql-sse in its mode of distinct connections.

Source: https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md. An item's `cursor`, where it is selected, is
the `id` of its event; a client that comes back with `Last-Event-ID` goes on after it through the variable `after`.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from db.connections import DatabaseUnavailable
from headai.authentication import Caller, authenticate, context_for
from headai.delivery import Delivery, cursor_of
from headai.http import refused, unavailable
from headai.requests import BadRequest, Operation, address_of, asked, encoded, posted
from monitoring.metrics import METRICS
from resolvers.context import Services
from schema.execution import stream
from schema.failures import ApiError, unauthenticated

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
            caller = await authenticate(services, request.headers.get("authorization"), address_of(request))
        except DatabaseUnavailable:
            return Response(encoded(unavailable()), 503, {"content-type": "application/json"})
        variables = dict(operation.variables or {})
        if request.headers.get("last-event-id"):
            variables["after"] = request.headers["last-event-id"]
        results = stream(operation.query, variables, operation.name, context_for(services, request, caller))
        return EventStream(results, services, caller)


class EventStream(StreamingResponse):
    """The results as events, with a comment now and then so that nobody takes silence for death.

    A session that ends and a token that runs out end the stream with UNAUTHENTICATED.
    """

    def __init__(
        self, results: AsyncGenerator[tuple[dict[str, Any], bool], None], services: Services, caller: Caller
    ) -> None:
        super().__init__(
            (),
            headers={"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"},
            media_type="text/event-stream",
        )
        self._results = results
        self._services = services
        self._caller = caller

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        METRICS.connection_opened("sse")
        try:
            with self._ending() as end:
                refusal = await self._deliver(send, end)
            last = b"" if refusal is None else _event({"errors": [refusal.formatted]})
            await send({"type": "http.response.body", "body": last + b"event: complete\ndata:\n\n", "more_body": False})
        finally:
            METRICS.connection_closed("sse")

    @contextmanager
    def _ending(self) -> Iterator[asyncio.Future[ApiError]]:
        """What the stream has to end with, as soon as it has to end."""
        end: asyncio.Future[ApiError] = asyncio.get_running_loop().create_future()

        def because(reason: str) -> None:
            if not end.done():
                end.set_result(unauthenticated(reason))

        caller = self._caller
        if caller.presence is None or caller.until is None:
            yield end
            return
        seconds = (caller.until - datetime.now(UTC)).total_seconds()
        expiry = asyncio.get_running_loop().call_later(seconds, because, caller.expired)
        try:
            with self._services.callers.connected(caller.presence, partial(because, caller.farewell)):
                yield end
        finally:
            expiry.cancel()

    async def _deliver(self, send: Send, end: asyncio.Future[ApiError]) -> ApiError | None:
        """Send items until there are no more; why it ended before, or None."""
        delivery = Delivery("sse", self._services.limits.slow_client_timeout)
        coming: asyncio.Future[tuple[dict[str, Any], bool]] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(self._results))
                waited_for: set[asyncio.Future[Any]] = {coming, end}
                await asyncio.wait(waited_for, timeout=SIGN_OF_LIFE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if end.done():
                    return end.result()
                if not coming.done():
                    await delivery.in_time(send({"type": "http.response.body", "body": b":\n\n", "more_body": True}))
                    continue
                try:
                    response, _ = coming.result()
                except StopAsyncIteration:
                    return None
                coming = None
                body = _event(response, cursor_of(response))
                await delivery.item(response, send({"type": "http.response.body", "body": body, "more_body": True}))
        except ApiError as slow:
            return slow
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait([coming])
            await self._results.aclose()


def _event(response: Mapping[str, Any], cursor: str | None = None) -> bytes:
    identified = b"id: " + cursor.encode() + b"\n" if cursor else b""
    return identified + b"event: next\ndata: " + encoded(response) + b"\n\n"
