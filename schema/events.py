"""What happened, as a list and as a stream that can be resumed."""

from datetime import datetime
from typing import Annotated

import strawberry

from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import EventType, StreamGapReason
from resolvers import events as resolve
from resolvers import nodes
from resolvers.inputs.scalars import BigInt, JSONObject
from schema.access import viewer
from schema.directives import PAGED
from schema.fields import computed, identity, query, relation, shows, subscription
from schema.identity import Actor
from schema.nodes import Node, UncountedConnection
from schema.projects import Project


@strawberry.type(
    description="Something happened. Written in the transaction that made it happen, so it is never lost and never "
    "invented."
)
class Event(Node):
    id: strawberry.ID = identity(Kind.EVENT)
    cursor: str = computed(
        resolve.cursor, description="Position in the stream; strictly increasing, valid on every server."
    )
    type: EventType
    at: datetime
    project: Project | None = relation(loaders.project, by="project_id")
    actor: Actor | None = relation(loaders.actor, by="actor")
    subject_id: strawberry.ID
    subject: Node | None = relation(nodes.subject, by="subject_id", description="Null when it is gone or out of sight.")
    changes: JSONObject | None = strawberry.field(description='Field by field: {"status": ["RUNNING", "SUCCEEDED"]}.')
    request_id: str | None
    is_type_of = shows(rows.Event)


@strawberry.type(description="The backlog is delivered; what follows is live.")
class StreamCaughtUp:
    cursor: str
    is_type_of = shows(resolve.CaughtUp)


@strawberry.type(
    description="Events between the two cursors are beyond retention, or the reader was too slow and they were dropped."
)
class StreamGap:
    from_cursor: str | None
    to_cursor: str
    reason: StreamGapReason
    missed_at_least: BigInt | None
    is_type_of = shows(resolve.Gap)


EventStreamItem = Annotated[
    Event | StreamCaughtUp | StreamGap,
    strawberry.union(
        "EventStreamItem",
        description="What a resumable subscription yields. After GAP, refetch; after anything else, just go on.",
    ),
]


@strawberry.type
class EventQueries:
    events: UncountedConnection[Event] = query(
        resolve.page,
        guard=viewer,
        directives=[PAGED],
        description="The same stream as the subscription `events`, by page.",
    )


@strawberry.type
class EventSubscriptions:
    events: EventStreamItem = subscription(
        resolve.stream,
        guard=viewer,
        cost=5,
        description="Everything that happens, where the caller may see it. `HEAD` as `after` means: from now on.",
    )
