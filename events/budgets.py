"""How many cost points each caller has left: buckets in Redis that refill steadily, spent from memory.

A process that has asked Redis about a caller within the last second spends from what it knows, and reports what was
spent a tenth of a second later, however many requests came; so a busy caller waits for no round trip, and a quiet one
for one, which takes the points in one step. Between two reports the processes may together let through what one of them
spends in that time; Redis counts it all the same, so it is paid back. Without Redis each process counts on its own.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

ASK_AGAIN_SECONDS = 1.0
REPORT_SECONDS = 0.1
AWAY_SECONDS = 2.0
MOST_WAIT_SECONDS = 0.25
MAX_BUCKETS = 50_000
_log = structlog.get_logger(__name__)

# Commands of Redis 7.0. `spent` is gone in any case, `wanted` is taken when it is there.
_EXCHANGE = """
local limit, rate, spent, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local known = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = limit
if known[1] and known[2] then
  level = math.min(limit, tonumber(known[1]) + math.max(0, now - tonumber(known[2])) * rate)
end
level = level - spent
local granted = 0
if level >= wanted then
  level = level - wanted
  granted = 1
end
redis.call('HSET', KEYS[1], 'level', string.format('%.3f', level), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], string.format('%d', math.ceil((limit - level) / rate) + 60))
return {granted, string.format('%.3f', level)}
"""


@dataclass(frozen=True, slots=True)
class Allowance:
    """A bucket's size, and what flows into it; both in cost points."""

    limit: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Account:
    """Whose bucket it is."""

    key: str
    allowance: Allowance


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left in a bucket, as far as this process knows."""

    limit: int
    remaining: int
    per_second: float

    @property
    def full_at(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=(self.limit - self.remaining) / self.per_second)


class OverBudget(Exception):
    """There are too few points left; after `retry_after` there are enough, when nothing else is spent."""

    def __init__(self, balance: Balance, retry_after: timedelta) -> None:
        super().__init__(f"The budget is used up: try again in {retry_after.total_seconds():g} s.")
        self.balance = balance
        self.retry_after = retry_after


@dataclass(slots=True)
class _Bucket:
    account: Account
    level: float
    at: float
    asked_at: float = float("-inf")
    unreported: int = 0
    reporting: bool = False


class Budgets:
    """The buckets that this process knows, over those in Redis."""

    def __init__(
        self, redis: Redis, *, signed_in: Allowance, anonymous: Allowance, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.signed_in = signed_in
        self.anonymous = anonymous
        self._clock = clock
        self._script = redis.register_script(_EXCHANGE)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._away_until = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()

    async def spend(self, account: Account, cost: int) -> Balance:
        """Take the points. Raises `OverBudget` when there are too few; nothing is taken then."""
        wanted = min(cost, account.allowance.limit)
        bucket = self._bucket(account)
        now = self._refilled(bucket)
        if now - bucket.asked_at > ASK_AGAIN_SECONDS and now >= self._away_until:
            granted = await self._exchange(bucket, wanted)
            if granted is not None:
                return self._settled(bucket, wanted, granted=granted)
        granted = bucket.level >= wanted
        if granted:
            bucket.level -= wanted
            bucket.unreported += wanted
            self._report_soon(bucket)
        return self._settled(bucket, wanted, granted=granted)

    async def balance(self, account: Account) -> Balance:
        """What is left, asked of Redis when it answers."""
        bucket = self._bucket(account)
        self._refilled(bucket)
        await self._exchange(bucket, 0)
        return _balance(bucket)

    async def close(self) -> None:
        """Report what is not yet reported."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._clock() >= self._away_until:
            spent = [bucket for bucket in self._buckets.values() if bucket.unreported]
            await asyncio.gather(*(self._exchange(bucket, 0) for bucket in spent))

    def _bucket(self, account: Account) -> _Bucket:
        bucket = self._buckets.get(account.key)
        if bucket is None:
            bucket = self._buckets[account.key] = _Bucket(account, account.allowance.limit, self._clock())
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(account.key)
        return bucket

    def _refilled(self, bucket: _Bucket) -> float:
        now, allowance = self._clock(), bucket.account.allowance
        bucket.level = min(allowance.limit, bucket.level + (now - bucket.at) * allowance.per_second)
        bucket.at = now
        return now

    def _settled(self, bucket: _Bucket, wanted: int, *, granted: bool) -> Balance:
        balance = _balance(bucket)
        if not granted:
            seconds = max((wanted - bucket.level) / balance.per_second, 0.001)
            raise OverBudget(balance, timedelta(milliseconds=int(seconds * 1000) + 1))
        return balance

    async def _exchange(self, bucket: _Bucket, wanted: int) -> bool | None:
        """Tell Redis what was spent here and hear what is left; whether it granted `wanted`, None when it is away."""
        spent, bucket.unreported = bucket.unreported, 0
        account = bucket.account
        allowance = account.allowance
        try:
            async with asyncio.timeout(MOST_WAIT_SECONDS):
                granted, level = await self._script(
                    keys=[f"headai:budget:{account.key}"], args=[allowance.limit, allowance.per_second, spent, wanted]
                )
        except (RedisError, OSError, TimeoutError) as error:
            bucket.unreported += spent
            if self._clock() >= self._away_until:
                _log.warning("budgets are counted in this process alone", error=str(error) or type(error).__name__)
            self._away_until = self._clock() + AWAY_SECONDS
            return None
        bucket.at = bucket.asked_at = self._clock()
        bucket.level = float(level) - bucket.unreported
        return bool(granted)

    def _report_soon(self, bucket: _Bucket) -> None:
        if not bucket.reporting:
            bucket.reporting = True
            task = asyncio.get_running_loop().create_task(self._report(bucket))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _report(self, bucket: _Bucket) -> None:
        await asyncio.sleep(REPORT_SECONDS)
        bucket.reporting = False
        if bucket.unreported and self._clock() >= self._away_until:
            await self._exchange(bucket, 0)


def _balance(bucket: _Bucket) -> Balance:
    allowance = bucket.account.allowance
    return Balance(allowance.limit, max(0, int(bucket.level)), allowance.per_second)
