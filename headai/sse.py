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

from starlette.datastructures import State
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from db.connections import DatabaseUnavailable
from headai.authentication import Caller, authenticate, context_for
from headai.delivery import Delivery, cursor_of
from headai.http import accepts, refused, unavailable
from headai.leaving import Leaving
from headai.requests import BadRequest, Operation, address_of, asked, encoded, posted
from monitoring.metrics import METRICS
from resolvers.context import Services
from schema.documents import subscribes
from schema.execution import stream
from schema.failures import ApiError, unauthenticated

SIGN_OF_LIFE_SECONDS = 12.0
_TYPE = "text/event-stream"


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
        if "accept" in request.headers and not accepts(request, _TYPE, "text/*", "*/*"):
            raise BadRequest(406, f"The answer comes as {_TYPE}: accept it.")
        services = request.state.services
        try:
            caller = await authenticate(services, request.headers.get("authorization"), address_of(request))
        except DatabaseUnavailable:
            return Response(encoded(unavailable()), 503, {"content-type": "application/json"})
        variables = dict(operation.variables or {})
        if request.headers.get("last-event-id"):
            variables["after"] = request.headers["last-event-id"]
        results = stream(operation.query, variables, operation.name, context_for(services, request, caller))
        return EventStream(operation, results, request.state, caller)


class EventStream(StreamingResponse):
    """The results as events, with a comment now and then so that nobody takes silence for death.

    A session that ends and a token that runs out end the stream with UNAUTHENTICATED. A process that leaves cuts off
    subscriptions, without `complete`, for which clients come back with the id of the last event.
    """

    def __init__(
        self,
        operation: Operation,
        results: AsyncGenerator[tuple[dict[str, Any], bool], None],
        state: State,
        caller: Caller,
    ) -> None:
        super().__init__(
            (),
            headers={"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"},
            media_type=_TYPE,
        )
        self._operation = operation
        self._results = results
        self._services: Services = state.services
        self._leaving: Leaving = state.leaving
        self._caller = caller

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        METRICS.connection_opened("sse")
        cut_off: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def cut() -> None:
            if not cut_off.done():
                cut_off.set_result(None)

        try:
            with self._ending() as end, self._leaving.connected(cut):
                last = await self._deliver(send, end, cut_off)
            await send({"type": "http.response.body", "body": last, "more_body": False})
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

    async def _deliver(self, send: Send, end: asyncio.Future[ApiError], cut_off: asyncio.Future[None]) -> bytes:
        """Send items until there are no more, or until the stream has to end before; what to end it with."""
        delivery = Delivery("sse", self._services.limits.slow_client_timeout)
        subscribed = False
        coming: asyncio.Future[tuple[dict[str, Any], bool]] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(self._results))
                waited_for: set[asyncio.Future[Any]] = {coming, end, *([cut_off] if subscribed else [])}
                await asyncio.wait(waited_for, timeout=SIGN_OF_LIFE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if end.done():
                    return _refused(end.result())
                if subscribed and cut_off.done():
                    return b""
                if not coming.done():
                    await delivery.in_time(send({"type": "http.response.body", "body": b":\n\n", "more_body": True}))
                    continue
                try:
                    response, executed = coming.result()
                except StopAsyncIteration:
                    return _COMPLETE
                coming = None
                if not executed:
                    response = {name: part for name, part in response.items() if name != "data"}
                body = _event(response, cursor_of(response))
                await delivery.item(response, send({"type": "http.response.body", "body": body, "more_body": True}))
                subscribed = subscribed or subscribes(self._operation.query, self._operation.name)
        except ApiError as slow:
            return _refused(slow)
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait([coming])
            await self._results.aclose()


_COMPLETE = b"event: complete\ndata:\n\n"


def _refused(error: ApiError) -> bytes:
    return _event({"errors": [error.formatted]}) + _COMPLETE


def _event(response: Mapping[str, Any], cursor: str | None = None) -> bytes:
    identified = b"id: " + cursor.encode() + b"\n" if cursor else b""
    return identified + b"event: next\ndata: " + encoded(response) + b"\n\n"
