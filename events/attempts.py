"""Wrong passwords, counted by account and by address: in Redis for all processes together, else in this process.

Names that no account has are counted like others, so neither a delay nor a lock tells who exists. Keys hold digests of
names.
"""

import asyncio
import hashlib
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

MOST_PER_ACCOUNT = 10
LOCKED = timedelta(minutes=15)
FREE_PER_ACCOUNT, FREE_PER_ADDRESS = 3, 30
"""After so many wrong passwords everybody waits who tries this name, or comes from this address."""
DOUBLES_PER_ACCOUNT, DOUBLES_PER_ADDRESS = 1, 30
"""After how many more the wait is twice as long."""
LONGEST_DELAY = timedelta(seconds=2)
_REDIS_IS_AWAY = (RedisError, OSError, TimeoutError)
_MOST_REMEMBERED = 10_000
_COUNT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 or count == tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return count
"""


class _Counted(NamedTuple):
    failures: int
    until: float


class Attempts:
    """Where the limit is reached nobody gets in for a quarter of an hour; before it a count lasts as long.

    `delay` is the first wait of somebody who tries again and again; zero lets nobody wait.
    """

    def __init__(self, redis: Redis, *, most_per_address: int, delay: timedelta) -> None:
        self._redis = redis
        self._most_per_address = most_per_address
        self._delay = delay.total_seconds()
        self._here: dict[str, _Counted] = {}

    async def locked(self, username: str, address: str | None) -> timedelta | None:
        """How long nobody gets in under this name from this address; None when there is no lock."""
        waits = [await self._wait(key, most) for key, most in self._keys(username, address)]
        longest = max(waits)
        return timedelta(seconds=round(longest, 1) or 0.1) if longest > 0 else None

    async def hold_up(self, username: str, address: str | None) -> None:
        """Wait, longer with every wrong password for this name and with many from this address."""
        seconds = await self.seconds_of_delay(username, address)
        if seconds:
            await asyncio.sleep(seconds)

    async def seconds_of_delay(self, username: str, address: str | None) -> float:
        counts = [await self._counted(key) for key, _ in self._keys(username, address)]
        steps = ((FREE_PER_ACCOUNT, DOUBLES_PER_ACCOUNT), (FREE_PER_ADDRESS, DOUBLES_PER_ADDRESS))
        waits = (
            self._delay * 2 ** min((count.failures - free) // doubles, 32)
            for count, (free, doubles) in zip(counts, steps, strict=False)
            if count.failures >= free
        )
        return min(max(waits, default=0.0), LONGEST_DELAY.total_seconds())

    async def failed(self, username: str, address: str | None) -> None:
        for key, most in self._keys(username, address):
            self._count_here(key, most)
            with suppress(*_REDIS_IS_AWAY):
                await self._redis.eval(_COUNT, 1, key, str(most), str(_milliseconds(LOCKED)))

    async def succeeded(self, username: str) -> None:
        """The account begins anew; the address does not, or one own account would open all others."""
        key = _account(username)
        self._here.pop(key, None)
        with suppress(*_REDIS_IS_AWAY):
            await self._redis.delete(key)

    def _keys(self, username: str, address: str | None) -> Iterable[tuple[str, int]]:
        yield _account(username), MOST_PER_ACCOUNT
        if address is not None:
            yield f"headai:attempts:address:{address}", self._most_per_address

    async def _wait(self, key: str, most: int) -> float:
        counted = await self._counted(key)
        return counted.until - time.monotonic() if counted.failures >= most else 0.0

    async def _counted(self, key: str) -> _Counted:
        now = time.monotonic()
        try:
            count, left = await self._redis.get(key), await self._redis.pttl(key)
        except _REDIS_IS_AWAY:
            known = self._here.get(key)
            return known if known is not None and known.until > now else _Counted(0, now)
        return _Counted(int(count), now + int(left) / 1000) if count is not None else _Counted(0, now)

    def _count_here(self, key: str, most: int) -> None:
        now = time.monotonic()
        known = self._here.get(key)
        if known is None or known.until <= now:
            known = _Counted(0, now + LOCKED.total_seconds())
        until = now + LOCKED.total_seconds() if known.failures + 1 == most else known.until
        if len(self._here) >= _MOST_REMEMBERED and key not in self._here:
            del self._here[next(iter(self._here))]
        self._here[key] = _Counted(known.failures + 1, until)


def _account(username: str) -> str:
    name = username.encode("utf-8", "surrogatepass")
    return f"headai:attempts:account:{hashlib.sha256(name).hexdigest()[:32]}"


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
