"""Requests as GraphQL-over-HTTP has them: what is taken, and what is refused before it reaches the schema.

Source: the GraphQL-over-HTTP specification, https://graphql.github.io/graphql-over-http/draft/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import HTTPConnection, Request

MAX_BODY_BYTES = 8 << 20
"""Room for the 100 000 points that one call of `ingestMetrics` takes, with steps and times, as JSON."""
MAX_FRAME_BYTES = 1 << 20
"""Of a message on a WebSocket; a larger one closes it with 1009. What needs more room goes by POST."""
MAX_DOCUMENT = 1 << 18
"""Characters of a document; reading one is far slower than reading JSON."""


class BadRequest(Exception):
    """The request is no GraphQL request; `status` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Malformed(BadRequest):
    """It has not the form of a GraphQL request."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a client asks to run."""

    query: str
    variables: Mapping[str, Any] | None
    name: str | None

    @classmethod
    def of(cls, message: Any) -> "Operation":
        """Raises `Malformed` when the message is not `{query, variables?, operationName?, extensions?}`.

        And `BadRequest` for a query that is empty or too long to be read.
        """
        if isinstance(message, list):
            raise Malformed("Batches are not taken: send one operation a request.")
        if not isinstance(message, dict):
            raise Malformed('A GraphQL request is a JSON object: {"query": "..."}.')
        query, variables, name = message.get("query"), message.get("variables"), message.get("operationName")
        if not isinstance(query, str):
            raise Malformed("`query` has to be the text of a GraphQL document.")
        if not (variables is None or isinstance(variables, dict)):
            raise Malformed("`variables` has to be a JSON object or null.")
        if not (name is None or isinstance(name, str)):
            raise Malformed("`operationName` has to be a string or null.")
        if not (message.get("extensions") is None or isinstance(message["extensions"], dict)):
            raise Malformed("`extensions` has to be a JSON object or null.")
        if not query.strip():
            raise BadRequest(400, "`query` has to be the text of a GraphQL document.")
        if len(query) > MAX_DOCUMENT:
            raise BadRequest(413, f"`query` has at most {MAX_DOCUMENT} characters: send the values as variables.")
        return cls(query, variables, name or None)


def decoded(text: str | bytes) -> Any:
    """A JSON value. Raises `BadRequest` for anything that is not strict UTF-8 and strict JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(400, f"The body is not JSON: {error}.") from error


async def posted(request: Request) -> Operation:
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "application/json":
        raise BadRequest(415, "Send the request as content-type application/json.")
    charset = parameters.replace(" ", "").lower().partition("charset=")[2].strip('"')
    if charset not in ("", "utf-8", "utf8"):
        raise BadRequest(415, "Send the request as UTF-8.")
    return Operation.of(decoded(await _body(request)))


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(413, f"A request has at most {MAX_BODY_BYTES} bytes.")
    return bytes(body)


def asked(request: Request) -> Operation:
    """The operation in the query string of a GET."""
    given = request.query_params
    message: dict[str, Any] = {"query": given.get("query"), "operationName": given.get("operationName")}
    for name in ("variables", "extensions"):
        if name in given:
            message[name] = decoded(given[name])
    return Operation.of(message)


def encoded(response: Mapping[str, Any]) -> bytes:
    return orjson.dumps(response, default=str)


def address_of(connection: HTTPConnection) -> str | None:
    return connection.client.host if connection.client else None
