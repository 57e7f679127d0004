"""GraphQL over HTTP at /graphql, and the probes."""

from collections.abc import Mapping
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from db.connections import DatabaseUnavailable
from headai.authentication import authenticate, context_for
from headai.explorer import explorer_page
from headai.requests import BadRequest, Operation, address_of, asked, encoded, posted
from monitoring.health import HealthStatus
from monitoring.metrics import exposition
from resolvers.context import Services
from schema.execution import ALL_BUT_SUBSCRIPTIONS, READS, respond
from schema.failures import Code

_STANDARD = "application/graphql-response+json"
_PLAIN = "application/json"


class GraphQLEndpoint(HTTPEndpoint):
    """POST runs queries and mutations; GET runs queries, or shows the explorer to a browser."""

    async def get(self, request: Request) -> Response:
        if "query" not in request.query_params and accepts(request, "text/html"):
            return await explorer_page(request)
        try:
            return await self._run(request, asked(request), mutations=False)
        except BadRequest as refusal:
            return refused(request, refusal)

    async def post(self, request: Request) -> Response:
        try:
            return await self._run(request, await posted(request), mutations=True)
        except BadRequest as refusal:
            return refused(request, refusal)

    async def _run(self, request: Request, operation: Operation, *, mutations: bool) -> Response:
        content_type = _negotiated(request)
        services: Services = request.state.services
        try:
            caller = await authenticate(services, request.headers.get("authorization"), address_of(request))
        except DatabaseUnavailable:
            return _answer(unavailable(), content_type, 503)
        response, executed = await respond(
            operation.query,
            operation.variables,
            operation.name,
            context_for(services, request, caller),
            allowed=ALL_BUT_SUBSCRIPTIONS if mutations else READS,
        )
        if not executed:
            response = {name: part for name, part in response.items() if name != "data"}
        return _answer(response, content_type, 200 if executed or content_type == _PLAIN else 400)


def unavailable() -> dict[str, Any]:
    message = "The database cannot be reached. Try again in a moment."
    return {"data": None, "errors": [{"message": message, "extensions": {"code": Code.UNAVAILABLE}}]}


def refused(request: Request, refusal: BadRequest) -> Response:
    error = {"message": str(refusal), "extensions": {"code": Code.BAD_REQUEST}}
    kind = _STANDARD if _STANDARD in request.headers.get("accept", "") else _PLAIN
    return _answer({"errors": [error]}, kind, refusal.status)


def _answer(response: Mapping[str, Any], content_type: str, status: int) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(encoded(response), status, headers, media_type=f"{content_type}; charset=utf-8")


def _negotiated(request: Request) -> str:
    """Raises `BadRequest` 406 when the client takes neither of the two types."""
    if "accept" not in request.headers or accepts(request, _STANDARD):
        return _STANDARD if "accept" in request.headers else _PLAIN
    if accepts(request, _PLAIN, "application/*", "*/*"):
        return _PLAIN
    raise BadRequest(406, f"The answer comes as {_STANDARD} or {_PLAIN}: accept one of them.")


def accepts(request: Request, *wanted: str) -> bool:
    """Whether the request names one of these types among those it takes."""
    offered = {part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")}
    return not offered.isdisjoint(wanted)


async def healthz(_: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": HealthStatus.OK})


async def readyz(request: Request) -> Response:
    """The process can do its work: 503 while the database is away, and from when the process was told to end."""
    if request.state.leaving.begun:
        return JSONResponse({"status": "LEAVING"}, 503)
    health = await request.state.services.health.report()
    return JSONResponse({"status": health.status}, 503 if health.status is HealthStatus.DOWN else 200)


async def metrics(_: Request) -> Response:
    body, content_type = exposition()
    return Response(body, headers={"content-type": content_type})
