"""How the service is, and what it allows."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from monitoring.health import Health
from resolvers.context import Context, Info, Limits

TRANSPORTS = ("graphql-transport-ws", "graphql-sse")


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    version: str | None
    schema_hash: str
    limits: Limits
    subscription_transports: tuple[str, ...] = TRANSPORTS


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`cost` is what this operation took."""

    cost: int
    limit: int
    remaining: int
    restore_per_second: float
    full_at: datetime


async def health(info: Info) -> Health:
    return await info.context.services.health.report()


def version(root: object, info: Info) -> str | None:
    """Null without credentials."""
    return info.context.services.version if info.context.principal else None


def instance(root: object, info: Info) -> str | None:
    return info.context.services.instance if info.context.principal else None


async def service_info(info: Info) -> ServiceInfo:
    context: Context = info.context
    return ServiceInfo(context.services.version, context.services.schema_hash, context.services.limits)


async def rate_limit(info: Info) -> RateLimit:
    context: Context = info.context
    balance = await context.services.budgets.balance(context.account)
    cost = context.charge.cost if context.charge is not None else 0
    return RateLimit(cost, balance.limit, balance.remaining, balance.per_second, balance.full_at)


async def rate_limit_of(root: object, info: Info) -> RateLimit:
    return await rate_limit(info)


def schema_hash(sdl: str) -> str:
    """SHA-256 of the printed schema, so that clients notice when it has changed."""
    return hashlib.sha256(sdl.encode()).hexdigest()
