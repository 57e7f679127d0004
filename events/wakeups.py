"""Wake-ups: who waits for a topic is woken when something about it was committed, on any machine.

Redis only carries the names of topics. Losing it makes readers slower, never wrong: they look again after `patience`
in any case, and a wake-up carries no data.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Self

import structlog
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

FIRST_LOOK, LAST_LOOK = 0.02, 1.0
"""How soon a reader looks again while changes wait for an older transaction to end, in seconds; it doubles."""
_CHANNEL = "headai:wakeups"
_log = structlog.get_logger(__name__)


def redis_of(url: str) -> Redis:
    """A client that answers or fails within a second: Redis only wakes and limits, nothing waits for it."""
    client: Redis = Redis.from_url(
        url, socket_connect_timeout=1, socket_timeout=1, health_check_interval=15, retry=Retry(NoBackoff(), 0)
    )
    return client


class Bell:
    """Rings for one reader. A ring while nobody waits is kept for the next wait."""

    def __init__(self, wakeups: "Wakeups") -> None:
        self._wakeups = wakeups
        self._rung = asyncio.Event()
        self._look_again = FIRST_LOOK

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Whether it rang within the time; either way it is time to look."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True

    async def until_next_look(self, *, unsettled: bool) -> None:
        """Wait until a reader should look again: until it rings, or the patience of a reader is over.

        `unsettled`: the reader saw committed changes that wait for an older transaction to end. Nobody rings for that
        end, so the reader looks again soon, and less and less often while it lasts.
        """
        if unsettled:
            await self.wait(min(self._look_again, self._wakeups.patience))
            self._look_again = min(2 * self._look_again, LAST_LOOK)
        else:
            self._look_again = FIRST_LOOK
            await self.wait(self._wakeups.patience)


class Wakeups:
    """Rings the bells of this process at once, and those of the others over Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._bells: defaultdict[str, set[Bell]] = defaultdict(set)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Task[None] | None = None
        self.connected = False

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        pending = [*self._tasks, *([self._listener] if self._listener else [])]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    @property
    def patience(self) -> float:
        """How long a reader waits for a bell before it looks all the same, in seconds."""
        return 5.0 if self.connected else 0.5

    @contextlib.contextmanager
    def watching(self, *topics: str) -> Iterator[Bell]:
        bell = Bell(self)
        for topic in topics:
            self._bells[topic].add(bell)
        try:
            yield bell
        finally:
            for topic in topics:
                self._bells[topic].discard(bell)
                if not self._bells[topic]:
                    del self._bells[topic]

    def ring(self, topics: frozenset[str]) -> None:
        """Wake the readers of these topics. Returns at once and never raises."""
        self._ring_here(topics)
        task = asyncio.get_running_loop().create_task(self._tell(topics))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ring_here(self, topics: frozenset[str]) -> None:
        for topic in topics:
            for bell in self._bells.get(topic, ()):
                bell.ring()

    async def _tell(self, topics: frozenset[str]) -> None:
        try:
            await self._redis.publish(_CHANNEL, " ".join(sorted(topics)))
        except (RedisError, OSError, TimeoutError) as error:
            _log.debug("wake-up not sent", error=str(error))

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(_CHANNEL)
                    self.connected = True
                    self._ring_here(frozenset(self._bells))
                    while True:
                        message = await channel.get_message(timeout=30)
                        if message is not None:
                            data = message["data"]
                            text = data.decode() if isinstance(data, bytes) else str(data)
                            self._ring_here(frozenset(text.split()))
            except (RedisError, OSError, TimeoutError) as error:
                if self.connected:
                    _log.warning("Redis is gone: subscriptions poll until it returns", error=str(error))
                self.connected = False
                self._ring_here(frozenset(self._bells))
                # The idle connections died with it: the first wake-up after its return must not be lost on one.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                await asyncio.sleep(1)
