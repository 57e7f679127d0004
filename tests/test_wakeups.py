"""Wake-ups between processes, and what is left of them while Redis is away."""

import asyncio
import os
import signal

from embedded.servers import EmbeddedStack
from events.wakeups import Wakeups
from headai.services import redis_of

TOPIC = frozenset({"points"})


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_redis_is_killed_and_comes_back(tmp_path):
    async with EmbeddedStack(tmp_path, want_postgres=False, want_seaweed=False) as stack:
        (valkey,) = stack.servers
        first, second = redis_of(stack.redis_url), redis_of(stack.redis_url)
        async with first, second, Wakeups(first) as here, Wakeups(second) as there:
            await until(lambda: here.connected and there.connected)
            with there.watching("points") as bell:
                here.ring(TOPIC)
                assert await bell.wait(10) is True, "woken over Redis"

                os.kill(valkey.pid, signal.SIGKILL)
                await until(lambda: not here.connected and not there.connected)
                assert await bell.wait(0) is True, "who waits is told to look, now that nobody wakes him"
                assert there.patience == 0.5, "and looks often from now on"
                here.ring(TOPIC)
                there.ring(TOPIC)
                assert await bell.wait(0) is True, "in one process bells ring without Redis"

                await valkey.stop()
                await valkey.start()
                await until(lambda: here.connected and there.connected)
                assert there.patience == 5.0
                assert await bell.wait(0) is True, "what was missed meanwhile is looked for at once"
                here.ring(TOPIC)
                assert await bell.wait(10) is True


async def test_a_ring_while_nobody_waits_is_kept_and_other_topics_are_not_heard():
    wakeups = Wakeups(redis_of("redis://127.0.0.1:1"))
    with wakeups.watching("one", "two") as bell, wakeups.watching("three") as other:
        wakeups.ring(frozenset({"two"}))

        assert await bell.wait(0) is True
        assert await bell.wait(0) is False
        assert await other.wait(0) is False
    wakeups.ring(frozenset({"one", "three"}))
    await wakeups.__aexit__()
