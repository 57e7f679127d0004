"""Connections to PostgreSQL that stay at hand between two blocks."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text

from db.database import Database

PID = text("SELECT pg_backend_pid()")


async def backend(database: Database) -> int:
    async with database.reading() as session:
        pid: int = await session.scalar(PID)
    return pid


async def test_one_connection_serves_everybody_in_turn(settings):
    async with Database(settings.database_url, pool_size=1) as database:
        served = await asyncio.gather(*(backend(database) for _ in range(40)))

    assert len(set(served)) == 1


async def test_a_block_that_failed_leaves_the_next_one_a_connection_in_order(settings):
    async with Database(settings.database_url, pool_size=1) as database:
        before = await backend(database)
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with database.transaction() as session:
                await session.scalar(text("SELECT 1 / 0"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), database.reading() as session:
                await session.scalar(text("SELECT pg_sleep(60)"))
        async with database.transaction() as session:
            assert await session.scalar(PID) == before


async def test_a_connection_that_was_closed_by_the_server_is_not_lent_again(settings):
    async with (
        Database(settings.database_url, pool_size=2) as database,
        Database(settings.database_url, pool_size=1) as other,
    ):
        ended = await backend(database)
        async with other.reading() as session:
            assert await session.scalar(text(f"SELECT pg_terminate_backend({ended}, 10000)"))
        await asyncio.sleep(0.2)  # its end has arrived: one turn of the loop reads it

        answers = [await backend(database) for _ in range(3)]

    assert ended not in answers
    assert len(set(answers)) == 1
