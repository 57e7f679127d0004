"""What a process of the API holds: connections to every part, opened together and closed together."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from auth.tokens import TokenIssuer
from db import events, roles
from db.database import Database
from domain.predictions import Predictor
from events.attempts import Attempts
from events.budgets import Allowance, Budgets
from events.callers import Callers
from events.wakeups import Wakeups, redis_of
from headai import __version__
from headai.settings import Settings
from headai.signing_key import signing_key_pem
from ml.processes import ChildPool, Template
from monitoring import statements
from monitoring.health import Component, HealthChecks
from resolvers.context import Limits, Services
from resolvers.service import schema_hash
from schema.build import sdl
from storage.copies import LocalCopies
from storage.objects import ObjectStore
from workers.presence import check_workers


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Connect to everything. Raises `DatabaseUnavailable`; the other parts may come and go."""
    async with AsyncExitStack() as stack:
        redis = redis_of(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        wakeups = await stack.enter_async_context(Wakeups(redis))
        budgets = Budgets(
            redis,
            signed_in=Allowance(settings.rate_limit, settings.rate_limit_per_second),
            anonymous=Allowance(settings.anonymous_rate_limit, settings.anonymous_rate_limit_per_second),
        )
        stack.push_async_callback(budgets.close)
        db = await stack.enter_async_context(
            Database(
                settings.database_url,
                pool_size=settings.database_pool_size,
                ring=wakeups.ring,
                watch=statements.sent,
            )
        )
        callers = await stack.enter_async_context(Callers(db, wakeups))
        store = await stack.enter_async_context(ObjectStore.open(settings.store()))
        template = Template()
        stack.push_async_callback(template.close)
        children = ChildPool(template, size=2)
        stack.push_async_callback(children.close)
        async with db.transaction() as session:
            await roles.keep_built_in(session)
            epoch = await events.epoch(session)

        async def database_answers() -> None:
            async with db.reading() as session:
                await events.epoch(session)

        yield Services(
            db=db,
            wakeups=wakeups,
            callers=callers,
            attempts=Attempts(redis, most_per_address=settings.login_attempts_per_address, delay=settings.login_delay),
            store=store,
            children=children,
            predictor=Predictor(LocalCopies(store, settings.home / "models"), children),
            tokens=TokenIssuer.from_pem(signing_key_pem(settings), settings.access_token_lifetime),
            budgets=budgets,
            health=HealthChecks(
                [
                    Component(name="database", check=database_answers, needed=True),
                    Component(name="redis", check=redis.ping),
                    Component(name="storage", check=store.ping),
                    Component(name="worker", check=lambda: check_workers(db)),
                ]
            ),
            limits=Limits(
                max_cost=settings.max_cost,
                max_sockets_per_caller=settings.max_sockets_per_caller,
                max_subscriptions_per_connection=settings.max_operations_per_socket,
                slow_client_timeout=settings.slow_client_timeout,
                event_retention=settings.event_retention,
                refresh_token_lifetime=settings.refresh_token_lifetime,
            ),
            epoch=epoch,
            version=__version__,
            instance=socket.gethostname(),
            schema_hash=schema_hash(sdl()),
            introspection=settings.introspection,
            executor=settings.executor,
        )
