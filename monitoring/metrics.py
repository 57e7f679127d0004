"""What a process counts and times for Prometheus: operations, statements, subscriptions, runs, points, jobs.

Every label has a bounded number of values, whatever callers send, so a scrape stays small.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Literal

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

OperationKind = Literal["query", "mutation", "subscription"]
OperationOutcome = Literal["ok", "refused", "error"]
PointOutcome = Literal["accepted", "duplicate", "rejected"]
Transport = Literal["websocket", "sse"]
Executor = Literal["core", "plans"]
JobOutcome = Literal["succeeded", "failed", "canceled"]

OTHER = "other"
ANONYMOUS = "anonymous"


class BoundedLabel:
    """Lets the first `limit` distinct values through; any later one reads `other`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known: set[str] = set()
        self._lock = Lock()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        with self._lock:
            if len(self._known) < self.limit:
                self._known.add(value)
                return value
        return OTHER


class Metrics:
    """The numbers of one process. Only the event loop and worker threads of that process write to it."""

    def __init__(self, *, names: int = 100) -> None:
        self.registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self.registry.register(collector)
        self._operation_name = BoundedLabel(names)
        self._stream = BoundedLabel(names)
        self._job = BoundedLabel(names)
        self._status = BoundedLabel(names)
        self._operations = Counter(
            "headai_operations",
            "GraphQL operations that ended.",
            ("name", "kind", "outcome"),
            registry=self.registry,
        )
        self._operation_seconds = Histogram(
            "headai_operation_seconds",
            "Wall time of a GraphQL operation; of a subscription, until its first item.",
            ("name", "kind"),
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._operation_statements = Histogram(
            "headai_operation_statements",
            "SQL statements that a GraphQL operation took.",
            ("kind",),
            buckets=(0, 1, 2, 3, 5, 8, 13, 21, 34),
            registry=self.registry,
        )
        self._statements = Counter("headai_statements", "SQL statements sent to PostgreSQL.", registry=self.registry)
        self._executions = Counter(
            "headai_executions",
            "Executions of operations and of items of subscriptions, by what ran them: a plan, or graphql-core.",
            ("executor",),
            registry=self.registry,
        )
        self._connections = Gauge(
            "headai_subscription_connections_open",
            "Connections that subscriptions run over.",
            ("transport",),
            registry=self.registry,
        )
        self._slow_consumers = Counter(
            "headai_slow_consumers_ended",
            "Subscriptions that ended because their client did not read.",
            ("transport",),
            registry=self.registry,
        )
        self._events_delivered = Counter(
            "headai_events_delivered",
            "Items handed to subscribers.",
            ("stream",),
            registry=self.registry,
        )
        self._runs = Gauge("headai_runs", "Training runs in each status.", ("status",), registry=self.registry)
        self._points = Counter(
            "headai_points_ingested",
            "Metric points received, by what became of them.",
            ("outcome",),
            registry=self.registry,
        )
        self._jobs = Counter("headai_worker_jobs", "Jobs that ended.", ("job", "outcome"), registry=self.registry)
        self._job_seconds = Histogram(
            "headai_worker_job_seconds",
            "Wall time of a job.",
            ("job",),
            buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200),
            registry=self.registry,
        )

    def operation_ended(
        self,
        *,
        name: str | None,
        kind: OperationKind,
        outcome: OperationOutcome,
        seconds: float,
        statements: int,
    ) -> None:
        """`refused` is an answer whose payload has errors; `error` is one with an entry in `errors`."""
        label = self._operation_name(name or ANONYMOUS)
        self._operations.labels(label, kind, outcome).inc()
        self._operation_seconds.labels(label, kind).observe(seconds)
        self._operation_statements.labels(kind).observe(statements)

    def operation_executed(self, executor: Executor) -> None:
        self._executions.labels(executor).inc()

    def statement_sent(self) -> None:
        self._statements.inc()

    def connection_opened(self, transport: Transport) -> None:
        self._connections.labels(transport).inc()

    def connection_closed(self, transport: Transport) -> None:
        self._connections.labels(transport).dec()

    def slow_consumer_ended(self, transport: Transport) -> None:
        self._slow_consumers.labels(transport).inc()

    def events_delivered(self, stream: str, count: int = 1) -> None:
        """`stream` is the subscription field that the items went to."""
        self._events_delivered.labels(self._stream(stream)).inc(count)

    def runs_counted(self, by_status: Mapping[str, int]) -> None:
        """What the database says now; a status that is not named has no runs."""
        self._runs.clear()
        for status, count in by_status.items():
            self._runs.labels(self._status(status)).set(count)

    def points_ingested(self, outcome: PointOutcome, count: int) -> None:
        self._points.labels(outcome).inc(count)

    def job_ended(self, *, job: str, outcome: JobOutcome, seconds: float) -> None:
        self._jobs.labels(self._job(job), outcome).inc()
        self._job_seconds.labels(self._job(job)).observe(seconds)

    def exposition(self) -> tuple[bytes, str]:
        """The body and the content type of an answer to GET /metrics."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


METRICS = Metrics()
"""The process's own; tests make others."""


def exposition() -> tuple[bytes, str]:
    """The body and the content type of an answer to GET /metrics."""
    return METRICS.exposition()
