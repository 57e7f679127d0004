"""What is too old is deleted by the workers, and nothing else is."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, func, literal, select, update

from db import access, idempotency
from db.ids import new_id
from db.tables import events, idempotency_keys, refresh_tokens, sessions
from db.vocabulary import EventType
from events.log import publish
from ml.processes import Template
from workers import sweeping
from workers.sweeping import forget, forget_once
from workers.worker import Worker

DAY = timedelta(days=1)


@pytest.fixture
def hand(services: Any, tmp_path: Path) -> Worker:
    return Worker(
        db=services.db,
        store=services.store,
        wakeups=services.wakeups,
        name="here:1",
        scratch=tmp_path,
        run_memory_limit_mb=2048,
        children=Template(),
        event_retention=7 * DAY,
    )


def ago(time: timedelta) -> Any:
    return func.clock_timestamp() - literal(time)


async def left(db: Any, table: Table, column: str) -> list[Any]:
    async with db.reading() as session:
        found = await session.records(select(table.c[column]).order_by(table.c[column]))
    return [record[0] for record in found]


async def test_events_as_old_as_is_kept(db, admin, hand):
    for number, age in enumerate((9, 8, 6, 0)):
        async with db.transaction() as session:
            await publish(session, EventType.PROJECT_CREATED, new_id(), project_id=None, actor=f"user_{number}")
            await session.run(update(events).where(events.c.actor == f"user_{number}").values(at=ago(age * DAY)))

    await forget_once(hand)

    assert await left(db, events, "actor") == ["user_2", "user_3"]


async def test_more_than_one_batch(db, admin, hand, monkeypatch):
    monkeypatch.setattr("domain.events.AT_ONCE", 3)
    monkeypatch.setattr(sweeping, "AT_ONCE", 3)
    async with db.transaction() as session:
        for _ in range(7):
            await publish(session, EventType.PROJECT_CREATED, new_id(), project_id=None, actor=None)
        await session.run(update(events).values(at=ago(8 * DAY)))

    await forget_once(hand)

    assert await left(db, events, "number") == []


async def test_idempotency_keys_of_yesterday(db, admin, hand):
    for key, age in (("old", DAY), ("new", DAY - timedelta(minutes=1))):
        async with db.transaction() as session:
            await idempotency.remember(session, admin.user_id, "m", key, input_digest=b"", result_id=new_id())
            await session.run(update(idempotency_keys).where(idempotency_keys.c.key == key).values(created_at=ago(age)))

    await forget_once(hand)

    assert await left(db, idempotency_keys, "key") == ["new"]


async def test_a_key_that_is_too_old_may_be_used_again_before_it_is_deleted(db, admin):
    made = [new_id(), new_id()]
    for result in made:
        async with db.transaction() as session:
            assert await idempotency.lock_and_find(session, admin.user_id, "m", "k") is None
            await idempotency.remember(session, admin.user_id, "m", "k", input_digest=b"i", result_id=result)
        if result == made[0]:
            async with db.transaction() as session:
                await session.run(update(idempotency_keys).values(created_at=ago(DAY)))

    async with db.transaction() as session:
        known = await idempotency.lock_and_find(session, admin.user_id, "m", "k")
    assert known == (b"i", made[1])


async def test_sessions_that_were_over_long_ago_with_their_tokens(db, admin, hand):
    over = {
        "long expired": {"expires_at": ago(31 * DAY)},
        "long revoked": {"expires_at": ago(-DAY), "revoked_at": ago(31 * DAY)},
        "lately expired": {"expires_at": ago(29 * DAY)},
        "lately revoked": {"expires_at": ago(-DAY), "revoked_at": ago(29 * DAY)},
    }
    async with db.transaction() as session:
        for name, values in over.items():
            opened = await access.open_session(
                session, user_id=admin.user_id, lifetime=DAY, ip_address=None, user_agent=name
            )
            await access.add_refresh_token(session, opened.id, name.encode())
            await session.run(update(sessions).where(sessions.c.id == opened.id).values(**values))
        await access.add_refresh_token(session, admin.session_id, b"used long ago")
        await access.add_refresh_token(session, admin.session_id, b"used lately")
        for digest, age in ((b"used long ago", 31), (b"used lately", 29)):
            used = refresh_tokens.c.digest == digest
            await session.run(update(refresh_tokens).where(used).values(used_at=ago(age * DAY)))
        await session.run(update(sessions).where(sessions.c.id == admin.session_id).values(user_agent="own"))

    await forget_once(hand)

    assert await left(db, sessions, "user_agent") == ["lately expired", "lately revoked", "own"]
    assert await left(db, refresh_tokens, "digest") == [b"lately expired", b"lately revoked", b"used lately"]


async def test_an_outage_is_waited_for_and_stop_ends_it(hand, monkeypatch):
    looked = asyncio.Event()
    stop = asyncio.Event()
    monkeypatch.setattr(sweeping, "FORGET_EVERY_SECONDS", 0.01)
    calls = 0

    async def once(worker: Worker) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise sweeping.DatabaseUnavailable("away")
        looked.set()

    monkeypatch.setattr(sweeping, "forget_once", once)
    forgetting = asyncio.create_task(forget(hand, stop))
    async with asyncio.timeout(30):
        await looked.wait()
        stop.set()
        await forgetting


async def test_nothing_old_is_overlooked(hand, statements):
    with statements() as seen:
        await forget_once(hand)

    deleted = [statement.split()[2] for statement in seen if statement.startswith("DELETE")]
    assert deleted == [
        "predictions",
        "idempotency_keys",
        "run_log_batches",
        "metric_batches",
        "sessions",
        "refresh_tokens",
        "api_token_secrets",
    ]
