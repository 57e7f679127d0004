"""Operations over a WebSocket at /graphql: the protocol graphql-transport-ws.

Source: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md. The token comes in the payload of
`connection_init` as `{"authorization": "Bearer …"}`, and is renewed on the living socket by a `ping` with the same
payload. When the token runs out the socket closes with 4403, and clients connect again with a new one.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from db.connections import DatabaseUnavailable
from headai.authentication import NOBODY, Caller, authenticate, context_for, reload
from headai.delivery import Delivery
from headai.http import unavailable
from headai.leaving import FINISH_SECONDS
from headai.requests import BadRequest, Malformed, Operation, address_of, decoded, encoded
from monitoring.metrics import METRICS
from resolvers.context import Services
from schema.documents import subscribes
from schema.execution import stream
from schema.failures import ApiError, Code

PROTOCOL = "graphql-transport-ws"
INIT_SECONDS = 5.0
MAX_ID = 128
_LOOK_SECONDS = 0.1
_open_of: Counter[str] = Counter()


@contextmanager
def _one_more(caller: str, most: int) -> Iterator[None]:
    """While a socket of this caller is open. Raises `Closed` when this process has as many of them as it takes."""
    if _open_of[caller] >= most:
        raise Closed(4429, f"At most {most} connections of one caller are taken.")
    _open_of[caller] += 1
    try:
        yield
    finally:
        _open_of[caller] -= 1
        if not _open_of[caller]:
            del _open_of[caller]


class Closed(Exception):
    """The socket has to close; the code and the reason are the protocol's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class GraphQLSocket:
    """The ASGI side: one connection a call."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._socket = WebSocket(scope, receive, send)

    def __await__(self) -> Any:
        return self._serve().__await__()

    async def _serve(self) -> None:
        if PROTOCOL not in self._socket.scope.get("subprotocols", []):
            await self._socket.accept()
            await self._socket.close(4406, f"Speak the subprotocol {PROTOCOL}.")
            return
        await self._socket.accept(PROTOCOL)
        METRICS.connection_opened("websocket")
        try:
            await Connection(self._socket).serve()
        finally:
            METRICS.connection_closed("websocket")


class Connection:
    """One open socket: who is on it, and what runs on it."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._services: Services = socket.state.services
        self._caller: Caller = NOBODY
        self._acknowledged = False
        self._running: dict[str, asyncio.Task[None]] = {}
        self._watching: set[str] = set()
        self._parting: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._presence = ExitStack()

    async def serve(self) -> None:
        silence = asyncio.get_running_loop().call_later(
            INIT_SECONDS, self._close_soon, 4408, "Send connection_init first."
        )
        try:
            with self._socket.state.leaving.connected(self._leave):
                while True:
                    await self._handle(await self._message())
                    if self._acknowledged:
                        silence.cancel()
        except Closed as closed:
            with suppress(RuntimeError, WebSocketDisconnect):
                await self._socket.close(closed.code, str(closed))
        except WebSocketDisconnect:
            pass
        finally:
            silence.cancel()
            if self._expiry is not None:
                self._expiry.cancel()
            self._presence.close()
            ending = [*self._running.values(), *([self._parting] if self._parting else [])]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def _message(self) -> dict[str, Any]:
        received = await self._socket.receive()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code", 1005))
        if received.get("text") is None:
            raise Closed(4400, "Messages are JSON text.")
        try:
            message = decoded(received["text"])
        except BadRequest as error:
            raise Closed(4400, "A message is not JSON.") from error
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise Closed(4400, "A message is a JSON object with a type.")
        return message

    async def _handle(self, message: dict[str, Any]) -> None:
        payload = message.get("payload")
        if message["type"] in ("connection_init", "ping", "pong") and not (
            payload is None or isinstance(payload, dict)
        ):
            raise Closed(4400, "The payload is a JSON object.")
        match message["type"]:
            case "connection_init":
                if self._acknowledged:
                    raise Closed(4429, "Too many initialisation requests")
                await self._sign_in(payload)
                self._acknowledged = True
                await self._send({"type": "connection_ack"})
            case "ping":
                if self._acknowledged and payload is not None and "authorization" in payload:
                    await self._renew(payload)
                await self._send({"type": "pong"})
            case "pong":
                pass
            case "subscribe":
                self._subscribe(self._id_of(message), payload)
            case "complete":
                task = self._running.pop(self._id_of(message), None)
                if task is not None:
                    self._watching.discard(message["id"])
                    task.cancel()
            case other:
                raise Closed(4400, f"There is no message of type {other[:40]!r}.")

    @staticmethod
    def _id_of(message: dict[str, Any]) -> str:
        id_ = message.get("id")
        if not isinstance(id_, str) or not 0 < len(id_) <= MAX_ID:
            raise Closed(4400, f"The id of an operation is a string of 1 to {MAX_ID} characters.")
        return id_

    async def _sign_in(self, payload: dict[str, Any] | None) -> None:
        self._enter(await self._caller_of(payload))

    async def _renew(self, payload: dict[str, Any]) -> None:
        """Go on with a new token of the same user: what runs here began with that user's rights."""
        caller = await self._caller_of(payload)
        before = self._caller.principal
        if before is not None and (caller.principal is None or caller.principal.user_id != before.user_id):
            raise Closed(4403, "A socket stays with the user who opened it. Open another one.")
        self._enter(caller)

    async def _caller_of(self, payload: dict[str, Any] | None) -> Caller:
        given = None if payload is None else payload.get("authorization")
        if not (given is None or isinstance(given, str)):
            raise Closed(4400, "`authorization` is a string.")
        try:
            caller = await authenticate(self._services, given, address_of(self._socket))
        except DatabaseUnavailable as error:
            raise Closed(1013, "The database cannot be reached.") from error
        if caller.rejected is not None:
            raise Closed(4403, caller.rejected)
        return caller

    def _enter(self, caller: Caller) -> None:
        self._caller = caller
        self._presence.close()
        account = context_for(self._services, self._socket, caller).account
        self._presence.enter_context(_one_more(account.key, self._services.limits.max_sockets_per_caller))
        if caller.presence is not None:
            self._presence.enter_context(self._services.callers.connected(caller.presence, self._ended))
        if self._expiry is not None:
            self._expiry.cancel()
        if caller.until is not None:
            seconds = (caller.until - datetime.now(UTC)).total_seconds()
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(seconds, self._close_soon, 4403, caller.expired)

    def _ended(self) -> None:
        """The session or the API token is over: nothing more is sent, and the socket closes."""
        for task in self._running.values():
            task.cancel()
        self._close_soon(4403, self._caller.farewell)

    def _leave(self) -> None:
        """Close so that the client connects again, to another process, and asks there for what it had here.

        What is no subscription is answered first: it cannot be asked twice. Nothing new begins.
        """
        if self._parting is None:
            self._parting = asyncio.create_task(self._part())

    async def _part(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                while busy := [task for id_, task in self._running.items() if id_ not in self._watching]:
                    await asyncio.wait(busy, timeout=_LOOK_SECONDS)
        await self._close(1012, "This server is going away. Connect again.")

    def _close_soon(self, code: int, reason: str) -> None:
        closing = asyncio.ensure_future(self._close(code, reason))
        closing.add_done_callback(lambda done: done.exception())

    async def _close(self, code: int, reason: str) -> None:
        with suppress(RuntimeError, WebSocketDisconnect):
            await self._socket.close(code, reason)

    def _subscribe(self, id_: str, payload: Any) -> None:
        if not self._acknowledged:
            raise Closed(4401, "Unauthorized")
        if id_ in self._running:
            raise Closed(4409, f"Subscriber for {id_} already exists")
        operation: Operation | BadRequest
        try:
            operation = Operation.of(payload)
        except Malformed as error:
            raise Closed(4400, str(error)) from error
        except BadRequest as error:
            operation = error
        if self._parting is None:
            self._running[id_] = asyncio.create_task(self._run(id_, operation))

    async def _run(self, id_: str, operation: Operation | BadRequest) -> None:
        """One operation, to its end or until it is cancelled."""
        try:
            refusal = await self._deliver(id_, operation)
            if refusal is not None:
                await self._send({"id": id_, "type": "error", "payload": refusal})
            else:
                await self._send({"id": id_, "type": "complete"})
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            if self._running.get(id_) is asyncio.current_task():
                del self._running[id_]
                self._watching.discard(id_)

    async def _deliver(self, id_: str, operation: Operation | BadRequest) -> list[dict[str, Any]] | None:
        """Send what the operation yields; the errors that kept it from running at all."""
        most = self._services.limits.max_subscriptions_per_connection
        if isinstance(operation, BadRequest):
            return _bad(str(operation))
        if len(self._running) > most:
            return _bad(f"At most {most} operations run on one connection.")
        try:
            caller = await reload(self._services, self._caller, address_of(self._socket))
        except DatabaseUnavailable:
            errors: list[dict[str, Any]] = unavailable()["errors"]
            return errors
        context = context_for(self._services, self._socket, caller)
        delivery = Delivery("websocket", self._services.limits.slow_client_timeout)
        results = stream(operation.query, operation.variables, operation.name, context)
        async with aclosing(results):
            async for response, executed in results:
                if not executed:
                    refused: list[dict[str, Any]] = response["errors"]
                    return refused
                try:
                    await delivery.item(response, self._send({"id": id_, "type": "next", "payload": response}))
                except ApiError as slow:
                    return [dict(slow.formatted)]
                if id_ not in self._watching and subscribes(operation.query, operation.name):
                    self._watching.add(id_)
                METRICS.events_delivered(operation.name or "anonymous", 1)
        return None

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(encoded(message).decode())


def _bad(message: str) -> list[dict[str, Any]]:
    return [{"message": message, "extensions": {"code": Code.BAD_REQUEST}}]
