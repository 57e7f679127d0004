"""The event log under concurrent writers: a reader of settled events loses and repeats nothing, in order."""

import asyncio
import random
from contextlib import aclosing
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from db import events
from db.database import Database
from db.events import EventFilter, Position
from db.rows import Event, columns
from db.snapshots import Snapshot
from db.vocabulary import EventType
from events import cursors
from events.cursors import CursorExpired, CursorInvalid
from events.log import ALL_EVENTS, publish
from events.wakeups import Wakeups
from schema.execution import stream

EVERYTHING = EventFilter()


async def write(db, *, number, before_commit=None):
    async with db.transaction() as session:
        await publish(
            session,
            EventType.DATASET_CREATED,
            UUID(int=number),
            project_id=None,
            actor=None,
        )
        if before_commit is not None:
            await before_commit


async def failing():
    raise ZeroDivisionError


def number_of(event):
    return int(event.subject_id.partition("_")[2], 16)


async def committed(db):
    async with db.reading() as session:
        return await session.all(Event, select(*columns(Event, events.events)))


class Settled:
    """Reads as the streams do: what is settled, after the last position."""

    def __init__(self):
        self.place = Position(0, 0)

    async def read(self, db):
        async with db.reading() as session:
            found = await events.settled_after(session, self.place, EVERYTHING, limit=100)
        if found:
            self.place = Position(found[-1].changed, found[-1].number)
        return found


class Naive:
    """Reads whatever has a greater number than the last one."""

    def __init__(self):
        self.last = 0

    async def read(self, db):
        table = events.events
        statement = select(*columns(Event, table)).where(table.c.number > self.last).order_by(table.c.number).limit(100)
        async with db.reading() as session:
            found = await session.all(Event, statement)
        if found:
            self.last = found[-1].number
        return found


async def test_eight_writers_and_a_reader_who_loses_and_repeats_nothing(db):
    chance = random.Random(7)
    writers, each = 8, 250
    writing = True

    async def writer(name):
        for count in range(each):
            pause = asyncio.sleep(chance.random() * 0.004)
            await write(db, number=name * each + count, before_commit=pause)

    async def follow(reader):
        seen = []
        while True:
            over = not writing
            found = await reader.read(db)
            seen += found
            if not found and over:
                return seen
            await asyncio.sleep(0.002)

    following = asyncio.create_task(follow(Settled()))
    await asyncio.gather(*(writer(name) for name in range(writers)))
    writing = False
    seen = await following

    assert sorted(number_of(event) for event in seen) == list(range(writers * each)), "none lost, none repeated"
    places = [(event.changed, event.number) for event in seen]
    assert places == sorted(places)
    for name in range(writers):
        mine = [number_of(event) for event in seen if number_of(event) // each == name]
        assert mine == sorted(mine), "the events of one writer keep their order"


@pytest.mark.parametrize(("reader", "reads"), [(Settled(), [[], [1, 2]]), (Naive(), [[2], []])])
async def test_an_event_that_commits_late_is_lost_only_by_number(db, reader, reads):
    """The naive reader never sees the first event: its number was passed before it was committed."""
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def held_open():
        begun.set()
        await go_on.wait()

    slow = asyncio.create_task(write(db, number=1, before_commit=held_open()))
    await begun.wait()
    await write(db, number=2)
    first = await reader.read(db)
    go_on.set()
    await slow
    second = await reader.read(db)

    assert [[number_of(event) for event in found] for found in (first, second)] == reads
    assert sorted(number_of(event) for event in await committed(db)) == [1, 2]


async def test_a_long_transaction_stalls_readers_and_says_so(db):
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def long_one():
        async with db.transaction() as session:
            await session.connection.execute("SELECT pg_current_xact_id()")
            begun.set()
            await go_on.wait()

    held = asyncio.create_task(long_one())
    await begun.wait()
    await write(db, number=1)
    reader = Settled()

    assert await reader.read(db) == []
    async with db.reading() as session:
        assert (await events.tail(session)).unsettled is True
    go_on.set()
    await held
    assert [number_of(event) for event in await reader.read(db)] == [1]
    async with db.reading() as session:
        assert (await events.tail(session)).unsettled is False


async def test_an_event_of_a_transaction_that_fails_never_happened(db):
    with pytest.raises(ZeroDivisionError):
        await write(db, number=1, before_commit=failing())

    assert await Settled().read(db) == []


async def test_a_commit_rings_and_a_rollback_does_not(db, services):
    with services.wakeups.watching(ALL_EVENTS) as bell:
        with pytest.raises(ZeroDivisionError):
            await write(db, number=1, before_commit=failing())
        assert await bell.wait(0) is False
        await write(db, number=1)
        assert await bell.wait(5) is True


async def test_another_process_is_woken_over_redis(settings, services):
    url = settings.redis_url
    async with Redis.from_url(url) as redis, Wakeups(redis) as elsewhere:
        while not elsewhere.connected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        async with Database(settings.database_url, ring=elsewhere.ring) as other:
            with services.wakeups.watching(ALL_EVENTS) as bell:
                await write(other, number=1)
                assert await bell.wait(5) is True


async def test_without_redis_readers_poll_and_get_everything(settings, services, context_of, admin):
    async with Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=1) as nobody, Wakeups(nobody) as deaf:
        assert deaf.patience == 0.5
        context = context_of(admin)
        context.services = replace(context.services, wakeups=deaf)
        live = stream("subscription { events { ... on Event { subjectId } } }", None, None, context)
        async with aclosing(live):
            assert (await anext(live))[0]["data"] == {"events": {}}, "caught up"
            await write(services.db, number=1)
            response, _ = await anext(live)

    assert response["data"]["events"] == {"subjectId": f"dataset_{1:032x}"}


def test_cursors_sort_as_the_stream_does():
    epoch = uuid4()
    places = [Position(1, 9), Position(2, 1), Position(2, 10), Position(16, 0), Position(256, 3)]

    written = [cursors.encode(epoch, place) for place in places]

    assert written == sorted(written)
    assert [cursors.decode(epoch, text) for text in written] == places


@pytest.mark.parametrize("text", ["", "HEAD", "g" * 40, "0" * 39, "0" * 41, "é" * 40])
def test_what_is_no_cursor(text):
    with pytest.raises(CursorInvalid):
        cursors.decode(UUID(int=0), text)


def test_a_cursor_from_before_a_restore_is_expired():
    text = cursors.encode(uuid4(), Position(1, 1))

    with pytest.raises(CursorExpired):
        cursors.decode(uuid4(), text)


@pytest.mark.parametrize("snapshot", [Snapshot(7, 7), Snapshot(7, 9, (7,)), Snapshot(7, 300, (7, 9, 255))])
def test_a_snapshot_keeps_its_running_transactions_in_its_cursor(snapshot):
    epoch = uuid4()

    text = cursors.encode_snapshot(epoch, snapshot)

    assert cursors.decode_snapshot(epoch, text) == snapshot
    assert text.startswith(cursors.encode(epoch, Position(7, 0)))
    assert Snapshot.of(snapshot.text) == snapshot


@pytest.mark.parametrize("more", ["~", "~5~9", "~5~3~2", "~5~3~3", "~x", "~1" * 2000, "0"])
def test_what_is_no_snapshot(more):
    epoch = uuid4()

    with pytest.raises(CursorInvalid):
        cursors.decode_snapshot(epoch, cursors.encode(epoch, Position(7, 0)) + more)
