"""The service itself: health, version, limits; and any object by its ID."""

from datetime import datetime, timedelta

import strawberry

from auth.permissions import Permission
from monitoring import health
from monitoring.health import HealthStatus
from resolvers import nodes
from resolvers import service as resolve
from resolvers.inputs.scalars import SHA256
from schema.access import public, requires, viewer
from schema.directives import ListSize
from schema.fields import computed, query, shows
from schema.nodes import Node


@strawberry.type
class ComponentHealth:
    name: str
    status: HealthStatus
    latency_ms: float | None
    message: str | None
    since: datetime
    is_type_of = shows(health.ComponentHealth)


@strawberry.type
class Health:
    status: HealthStatus
    checked_at: datetime
    version: str | None = computed(resolve.version, description="Null without credentials.")
    instance: str | None = computed(resolve.instance, description="Null without credentials.")
    components: list[ComponentHealth] | None = computed(
        lambda root: root.components, guard=requires(Permission.SYSTEM_READ)
    )
    is_type_of = shows(health.Health)


@strawberry.type
class ServiceLimits:
    max_page_size: int
    max_depth: int
    max_cost: int
    max_aliases: int
    max_points_per_ingest: int
    max_subscriptions_per_connection: int
    event_retention: timedelta


@strawberry.type
class ServiceInfo:
    version: str | None = computed(resolve.version, description="Null without credentials.")
    schema_hash: SHA256
    limits: ServiceLimits
    subscription_transports: list[str]


@strawberry.type(
    description="A bucket of cost points that refills steadily. "
    "The same numbers come back in `extensions.cost` of every answer."
)
class RateLimit:
    cost: int
    limit: int
    remaining: int
    restore_per_second: float
    full_at: datetime
    is_type_of = shows(resolve.RateLimit)


@strawberry.type
class ServiceQueries:
    node: Node | None = query(
        nodes.node,
        guard=viewer,
        description="Any object by its ID; null when it does not exist or is out of sight.",
    )
    nodes: list[Node | None] = query(nodes.nodes, guard=viewer, directives=[ListSize.by("ids")])
    health: Health = query(resolve.health, guard=public)
    service_info: ServiceInfo = query(resolve.service_info, guard=public)
    rate_limit: RateLimit = query(resolve.rate_limit, guard=viewer)
