"""Wrong passwords, counted by account and by address: in Redis for all processes together, else in this process.

Names that no account has are counted like others, so a lock tells nothing about who exists. Keys hold digests of names.
"""

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
    """Where the limit is reached nobody gets in for a quarter of an hour; before it a count lasts as long."""

    def __init__(self, redis: Redis, *, most_per_address: int) -> None:
        self._redis = redis
        self._most_per_address = most_per_address
        self._here: dict[str, _Counted] = {}

    async def locked(self, username: str, address: str | None) -> timedelta | None:
        """How long nobody gets in under this name from this address; None when there is no lock."""
        waits = [await self._wait(key, most) for key, most in self._keys(username, address)]
        longest = max(waits)
        return timedelta(seconds=round(longest, 1) or 0.1) if longest > 0 else None

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
        try:
            count, left = await self._redis.get(key), await self._redis.pttl(key)
        except _REDIS_IS_AWAY:
            counted = self._here.get(key)
            return counted.until - time.monotonic() if counted is not None and counted.failures >= most else 0.0
        return int(left) / 1000 if count is not None and int(count) >= most else 0.0

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
