"""A small client of the API, as any user could write one: operations over HTTP, subscriptions over WebSockets.

Everything that goes wrong is an `ApiTrouble`: what happened and what to do about it, in words.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from headai.operations import document

_RENEW_BEFORE_END = timedelta(minutes=1)
_RECONNECTS = 6
_ANSWER_TIMEOUT = 60.0
_LARGEST_MESSAGE = 64 * 2**20

_ADVICE = {
    "INVALID_CREDENTIALS": "Check the user name and the password (`--username`, `--password`, HEADAI_ADMIN_PASSWORD).",
    "UNAUTHENTICATED": "Sign in again.",
    "FORBIDDEN": "Ask an administrator for a role that holds this permission.",
    "RATE_LIMITED": "Wait a little and try again.",
    "UNAVAILABLE": "A part of the service is down: the query Health says which. Try again when it is back.",
    "INTERNAL": "The server's log has the details.",
    "CHECKSUM_MISMATCH": "The bytes changed on their way, or the file while it was read: upload it again.",
    "UPLOAD_INCOMPLETE": "Some parts did not arrive: upload the file again.",
}


class ApiTrouble(Exception):
    """The API, or the way to it, said no. `codes` are those of the errors it sent; `str()` is fit to show."""

    def __init__(self, message: str, *, codes: Iterable[str] = ()) -> None:
        self.codes = frozenset(codes)
        advice = [_ADVICE[code] for code in sorted(self.codes) if code in _ADVICE]
        super().__init__("\n".join([message, *advice]))


class Api:
    """One signed-in user of one server; use `Api.at(url)`."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self._http = http
        self._tokens: dict[str, Any] | None = None
        self._renewal = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str) -> AsyncIterator[Self]:
        """A client of the server at this address, without its path; raises ApiTrouble when that is no address."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ApiTrouble(f"{url} is not an address of a server: it reads like http://127.0.0.1:8000.")
        async with httpx.AsyncClient(timeout=_ANSWER_TIMEOUT, trust_env=not is_loopback(url)) as http:
            yield cls(url.rstrip("/"), http)

    async def sign_in(self, username: str, password: str) -> dict[str, Any]:
        """Later calls are this user's. Returns the user."""
        payload = await self.send("Login", {"input": {"username": username, "password": password}})
        self._tokens = payload["tokens"]
        user: dict[str, Any] = payload["viewer"]["user"]
        return user

    def use_token(self, token: str) -> None:
        """Later calls are made with an API token, or an access token that somebody else renews."""
        self._tokens = {
            "accessToken": token,
            "accessTokenExpiresAt": datetime.max.replace(tzinfo=UTC).isoformat(),
            "refreshToken": None,
        }

    async def sign_out(self) -> None:
        if self._tokens is not None:
            await self.send("Logout", {"input": {}})
            self._tokens = None

    async def send(self, operation: str, variables: Mapping[str, Any]) -> Any:
        """The value of the operation's one root field. Raises ApiTrouble for errors of either kind."""
        body = orjson.dumps({"query": document(operation), "operationName": operation, "variables": variables})
        headers = {"content-type": "application/json", "accept": "application/json"}
        if operation not in {"Login", "RefreshTokens", "Health"}:
            headers |= await self._authorization()
        try:
            response = await self._http.post(f"{self.url}/graphql", content=body, headers=headers)
        except httpx.HTTPError as error:
            raise ApiTrouble(
                f"The server at {self.url} does not answer ({error or type(error).__name__}). "
                "Is it running? `make up` starts it; `--url` names another."
            ) from error
        try:
            answer = orjson.loads(response.content)
            errors, data = answer.get("errors"), answer.get("data")
        except (orjson.JSONDecodeError, AttributeError):
            raise ApiTrouble(
                f"{self.url}/graphql answered {response.status_code} and not GraphQL: is Head AI there?"
            ) from None
        if errors:
            raise trouble(errors)
        value = next(iter((data or {}).values()), None)
        if isinstance(value, dict) and value.get("errors"):
            raise trouble(value["errors"])
        return value

    async def follow(self, operation: str, variables: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """The items of a subscription. A broken connection is made again and goes on after the last cursor."""
        after = variables.get("after")
        failures = 0
        while True:
            try:
                async for item in self._stream(operation, {**variables, "after": after} if after else variables):
                    failures = 0
                    after = item.get("cursor", after)
                    yield item
                return
            except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError) as error:
                failures += 1
                if failures > _RECONNECTS:
                    raise ApiTrouble(f"The connection to {self.url} broke and cannot be made again: {error}") from error
                await asyncio.sleep(min(0.25 * 2**failures, 5))

    async def put(self, target: Mapping[str, Any], content: AsyncIterable[bytes] | bytes, *, size: int) -> str:
        """Send a part of a file, of `size` bytes, to its signed URL; returns the ETag the store answers."""
        headers = {header["name"]: header["value"] for header in target["headers"]} | {"content-length": str(size)}
        try:
            response = await self._http.request(target["method"], target["url"], content=content, headers=headers)
        except httpx.HTTPError as error:
            place = urlsplit(target["url"]).netloc
            raise ApiTrouble(
                f"The object store at {place} cannot be reached from here ({error or type(error).__name__}). "
                "The server names it to clients: HEADAI_S3_PUBLIC_URL sets the address."
            ) from error
        etag = response.headers.get("etag")
        if response.status_code >= 300 or etag is None:
            raise ApiTrouble(f"The object store refused the upload: {response.status_code} {response.text[:300]}")
        return str(etag)

    async def _stream(self, operation: str, variables: Mapping[str, Any]) -> AsyncIterator[Any]:
        """One connection, one subscription: graphql-transport-ws, https://github.com/enisdenjo/graphql-ws."""
        address = f"ws{self.url.removeprefix('http')}/graphql"
        async with connect(
            address,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            max_size=_LARGEST_MESSAGE,
            proxy=None if is_loopback(self.url) else True,
        ) as socket:
            await socket.send(_message("connection_init", payload=await self._authorization()))
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                while orjson.loads(await socket.recv())["type"] != "connection_ack":
                    pass
            payload = {"query": document(operation), "operationName": operation, "variables": variables}
            await socket.send(_message("subscribe", id="1", payload=payload))
            async for text in socket:
                message = orjson.loads(text)
                match message["type"]:
                    case "next":
                        if message["payload"].get("errors"):
                            raise trouble(message["payload"]["errors"])
                        yield next(iter(message["payload"]["data"].values()))
                    case "error":
                        raise trouble(message["payload"])
                    case "complete":
                        return
                    case "ping":
                        await socket.send(_message("pong"))

    async def _authorization(self) -> dict[str, str]:
        async with self._renewal:
            if self._tokens is None:
                return {}
            ends = datetime.fromisoformat(self._tokens["accessTokenExpiresAt"])
            if ends - datetime.now(UTC) < _RENEW_BEFORE_END and self._tokens["refreshToken"]:
                refresh = {"input": {"refreshToken": self._tokens["refreshToken"]}}
                self._tokens = (await self.send("RefreshTokens", refresh))["tokens"]
            assert self._tokens is not None
            return {"authorization": f"Bearer {self._tokens['accessToken']}"}


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine, where a proxy has no business."""
    return (urlsplit(url).hostname or "") in {"localhost", "127.0.0.1", "::1"}


def trouble(errors: list[dict[str, Any]]) -> ApiTrouble:
    """The errors of a payload, or the top-level ones, in words."""
    lines, codes = [], set()
    for error in errors:
        extensions = error.get("extensions") or {}
        code = error.get("code") or extensions.get("code")
        if code:
            codes.add(code)
        line = error.get("message") or "The server gave no reason."
        path = error.get("path")
        if path and error.get("code"):
            line += f" ({'.'.join(map(str, path))})"
        if error.get("allowed") is not None:
            line += f" Accepted: {_listed(error['allowed'])}."
        retry_after = error.get("retryAfter") or extensions.get("retryAfter")
        if retry_after:
            line += f" Try again after {retry_after}."
        lines.append(line)
    return ApiTrouble("\n".join(lines), codes=codes)


def _listed(allowed: Any) -> str:
    if isinstance(allowed, list):
        shown = ", ".join(str(value) for value in allowed[:12])
        return f"{shown}, …" if len(allowed) > 12 else shown
    return orjson.dumps(allowed).decode()


def _message(kind: str, **content: Any) -> str:
    return orjson.dumps({"type": kind, **content}).decode()
