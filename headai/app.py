"""The application: the routes that answer, over what the process holds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, WebSocketRoute

from headai.explorer import explorer_assets
from headai.http import GraphQLEndpoint, healthz, metrics, readyz
from headai.leaving import Leaving
from headai.services import open_services
from headai.settings import Settings
from headai.sse import GraphQLStream
from headai.websocket import GraphQLSocket
from monitoring.requests import RequestLog
from resolvers.context import Services


def create_app(settings: Settings, leaving: Leaving) -> Starlette:
    """`leaving` is told by whoever runs the process when it has to end."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Services | Leaving]]:
        async with open_services(settings) as services:
            yield {"services": services, "leaving": leaving}

    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "x-request-id"],
        max_age=600,
    )
    return Starlette(
        lifespan=lifespan,
        middleware=[Middleware(RequestLog), *([cors] if settings.cors_origins else [])],
        routes=[
            Route("/graphql", GraphQLEndpoint),
            WebSocketRoute("/graphql", GraphQLSocket),
            Route("/graphql/stream", GraphQLStream),
            explorer_assets,
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
    )
