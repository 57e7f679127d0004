"""What many types share: identity, pages, tags, progress, failure."""

from datetime import datetime
from typing import Generic, TypeVar

import strawberry

import schema.enums  # noqa: F401  (registers them)
from dataloaders import batching
from db.vocabulary import FailureCode
from resolvers import failures
from resolvers.inputs.limits import Sensitive
from resolvers.inputs.scalars import SHA256, URL, BigInt
from schema.fields import computed, relation

NodeT = TypeVar("NodeT")


@strawberry.interface(description="An object with a globally unique ID.")
class Node:
    id: strawberry.ID


@strawberry.type
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class Edge(Generic[NodeT]):
    cursor: str
    node: NodeT


@strawberry.type
class Connection(Generic[NodeT]):
    edges: list[Edge[NodeT]]
    nodes: list[NodeT]
    page_info: PageInfo
    total_count: int = relation(batching.total, by="total", cost=5)


@strawberry.type(name="Connection")
class UncountedConnection(Generic[NodeT]):
    edges: list[Edge[NodeT]]
    nodes: list[NodeT]
    page_info: PageInfo


@strawberry.type
class Tag:
    key: str
    value: str


@strawberry.type
class Progress:
    fraction: float | None = strawberry.field(description="0 to 1; null while the total is unknown.")
    phase: str | None
    completed: BigInt | None
    total: BigInt | None
    unit: str | None
    estimated_finish_at: datetime | None


@strawberry.type
class Failure:
    code: FailureCode
    message: str
    retryable: bool = strawberry.field(description="True when the same work may succeed if tried again.")
    detail: str | None = computed(
        failures.detail,
        description="Traceback or engine output; only for those who may read the logs (RUN_READ) or change the data "
        "(DATASET_UPDATE), and null for others.",
    )


@strawberry.type
class SignedUrl:
    url: URL = strawberry.field(directives=[Sensitive()])
    expires_at: datetime
    sha256: SHA256 | None
    size_bytes: BigInt | None
