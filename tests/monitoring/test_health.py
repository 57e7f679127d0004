"""Health as /readyz and the field `health` tell it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from monitoring.health import Component, ComponentHealth, Degraded, HealthChecks, HealthStatus

OK, DEGRADED, DOWN = HealthStatus
START = datetime(2026, 1, 1, tzinfo=UTC)


class Parts:
    """Parts whose state a test sets, and a clock it moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.broken: dict[str, Exception] = {}
        self.asked: list[str] = []

    def component(self, name: str, *, needed: bool = False) -> Component:
        async def check() -> None:
            self.asked.append(name)
            if name in self.broken:
                raise self.broken[name]

        return Component(name=name, check=check, needed=needed)

    def checks(self) -> HealthChecks:
        parts = [self.component("database", needed=True), self.component("redis")]
        now = lambda: START + timedelta(seconds=self.seconds)  # noqa: E731
        return HealthChecks(parts, clock=lambda: self.seconds, now=now)


async def test_all_well():
    health = await Parts().checks().report()
    assert (health.status, health.checked_at) == (OK, START)
    assert health.components == tuple(
        ComponentHealth(name=name, status=OK, latency_ms=0.0, message=None, since=START)
        for name in ("database", "redis")
    )


@pytest.mark.parametrize(
    ("part", "error", "state", "overall"),
    [
        ("database", OSError("refused"), DOWN, DOWN),
        ("database", Degraded("read only"), DEGRADED, DEGRADED),
        ("redis", OSError("refused"), DOWN, DEGRADED),
        ("redis", Degraded("slow"), DEGRADED, DEGRADED),
    ],
)
async def test_the_service_is_down_only_without_its_database(part, error, state, overall):
    parts = Parts()
    parts.broken[part] = error
    health = await parts.checks().report()
    found = {component.name: component for component in health.components}
    assert (health.status, found[part].status, found[part].message) == (overall, state, str(error))
    assert (found[part].latency_ms is None) is (state is DOWN)


async def test_a_state_holds_since_it_was_first_seen():
    parts = Parts()
    checks = parts.checks()
    seen = []
    for second, error in enumerate([None, OSError("one"), OSError("two"), None]):
        parts.seconds = second * 10.0
        parts.broken = {"redis": error} if error else {}
        redis = (await checks.report()).components[1]
        seen.append((redis.status, redis.message, (redis.since - START).total_seconds()))
    assert seen == [(OK, None, 0), (DOWN, "one", 10), (DOWN, "two", 10), (OK, None, 30)]


async def test_parts_are_asked_once_a_second_however_many_ask():
    parts = Parts()
    checks = parts.checks()
    await asyncio.gather(*(checks.report() for _ in range(20)))
    parts.seconds = 0.9
    await checks.report()
    assert sorted(parts.asked) == ["database", "redis"]
    parts.seconds = 1.0
    await checks.report()
    assert len(parts.asked) == 4


async def test_parts_are_asked_at_the_same_time():
    both = asyncio.Barrier(2)
    parts = [Component(name=name, check=both.wait, timeout_seconds=30) for name in ("a", "b")]
    assert (await HealthChecks(parts).report()).status is OK


async def test_a_part_that_never_answers_is_down_even_if_it_cannot_be_canceled():
    ended = asyncio.Event()

    async def stubborn() -> None:
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue
        raise OSError("too late")

    part = Component(name="storage", check=stubborn, timeout_seconds=0.05)
    (storage,) = (await HealthChecks([part]).report()).components
    assert (storage.status, storage.latency_ms, storage.message) == (DOWN, None, "no answer within 0.05 s")
    ended.set()


async def test_messages_keep_secrets_and_stay_short():
    parts = Parts()
    parts.broken = {"redis": OSError("redis://:hunter2@host refused " + "x" * 1000)}
    message = (await parts.checks().report()).components[1].message
    assert message.startswith("redis://:***@host refused xxx")
    assert len(message) == 300
