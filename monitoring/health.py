"""Whether the service and each part it needs work: what /readyz and the field `health` answer.

The service is DOWN only when a part it cannot do without (the database) is; while any other part is not OK it is
DEGRADED and goes on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from monitoring.secrets import without_secrets_in_text

LONGEST_MESSAGE = 300


class HealthStatus(StrEnum):
    OK = "OK"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"


class Degraded(Exception):
    """Raised by a check: the part answers, but not as it should; the message says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A part and how to ask it: `check` returns when it is well, and raises when it is not."""

    name: str
    check: Callable[[], Awaitable[object]]
    needed: bool = False
    timeout_seconds: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentHealth:
    """`latency_ms` is None when there was no answer; `since` is when this status was first seen."""

    name: str
    status: HealthStatus
    latency_ms: float | None
    message: str | None
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    status: HealthStatus
    checked_at: datetime
    components: tuple[ComponentHealth, ...]


class HealthChecks:
    """Asks all parts at once, and answers from memory for `keep_seconds` however many ask."""

    def __init__(
        self,
        components: Sequence[Component],
        *,
        keep_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._components = tuple(components)
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._now = now
        self._asking = asyncio.Lock()
        self._latest: tuple[float, Health] | None = None

    async def report(self) -> Health:
        """Takes no longer than the longest timeout of a component, and never raises for a broken part."""
        async with self._asking:
            if self._latest is not None and self._clock() - self._latest[0] < self._keep_seconds:
                return self._latest[1]
            answers = await asyncio.gather(*(self._ask(component) for component in self._components))
            health = Health(status=self._overall(answers), checked_at=self._now(), components=tuple(answers))
            self._latest = (self._clock(), health)
            return health

    def _overall(self, answers: Sequence[ComponentHealth]) -> HealthStatus:
        paired = zip(self._components, answers, strict=True)
        if any(part.needed and answer.status is HealthStatus.DOWN for part, answer in paired):
            return HealthStatus.DOWN
        if any(answer.status is not HealthStatus.OK for answer in answers):
            return HealthStatus.DEGRADED
        return HealthStatus.OK

    async def _ask(self, component: Component) -> ComponentHealth:
        """A check that does not even end when it is canceled is left behind: it cannot hold up the report."""
        started = self._clock()
        task = asyncio.ensure_future(component.check())
        try:
            await asyncio.wait({task}, timeout=component.timeout_seconds)
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(_look_away)
        latency_ms = (self._clock() - started) * 1000
        if not task.done():
            message = f"no answer within {component.timeout_seconds:g} s"
            return self._answer(component, HealthStatus.DOWN, None, message)
        if task.cancelled():
            return self._answer(component, HealthStatus.DOWN, None, "the check was canceled")
        match task.exception():
            case None:
                return self._answer(component, HealthStatus.OK, latency_ms, None)
            case Degraded() as reason:
                return self._answer(component, HealthStatus.DEGRADED, latency_ms, str(reason))
            case error:
                message = str(error) or type(error).__name__
                return self._answer(component, HealthStatus.DOWN, None, message)

    def _answer(
        self, component: Component, status: HealthStatus, latency_ms: float | None, message: str | None
    ) -> ComponentHealth:
        before = self._before(component.name)
        return ComponentHealth(
            name=component.name,
            status=status,
            latency_ms=latency_ms,
            message=message and without_secrets_in_text(message)[:LONGEST_MESSAGE],
            since=before.since if before is not None and before.status is status else self._now(),
        )

    def _before(self, name: str) -> ComponentHealth | None:
        if self._latest is None:
            return None
        return next((answer for answer in self._latest[1].components if answer.name == name), None)


def _look_away(task: asyncio.Future[object]) -> None:
    """Whatever a check that came too late ends with is nobody's news."""
    if not task.cancelled():
        task.exception()
