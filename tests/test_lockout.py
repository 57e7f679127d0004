"""Wrong passwords: ten lock an account, many an address, with Redis and without it."""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from auth import passwords
from db import users
from events.attempts import Attempts

RIGHT = "several words of mine"
LOGIN = """
mutation ($input: LoginInput!) {
  login(input: $input) {
    tokens { tokenType } errors { code message ... on AuthenticationError { retryAfter } }
  }
}
"""
WRONG = {"code": "INVALID_CREDENTIALS", "message": "Username or password is wrong.", "retryAfter": None}


@pytest.fixture
async def sign_in(execute, admin, db, monkeypatch):
    async with db.transaction() as session:
        await users.set_password(session, admin.user_id, "digest")
    monkeypatch.setattr(passwords, "matches", lambda password, stored: stored is not None and password == RIGHT)

    async def login(password, username="ada"):
        answer = await execute(LOGIN, input={"username": username, "password": password})
        return answer["data"]["login"]

    return login


@pytest.mark.parametrize("username", ["ada", "nobody"])
async def test_ten_wrong_passwords_lock_an_account_whether_it_exists_or_not(sign_in, username):
    wrong = [(await sign_in("not it", username))["errors"] for _ in range(10)]
    locked = await sign_in(RIGHT, username)

    assert wrong == [[WRONG]] * 10
    assert locked["tokens"] is None
    (error,) = locked["errors"]
    assert (error["code"], error["message"]) == (
        "ACCOUNT_LOCKED",
        "Too many attempts to sign in have failed. Wait, then try again.",
    )
    assert error["retryAfter"].startswith("PT14M") or error["retryAfter"] == "PT15M"


async def test_another_account_is_not_locked_with_it(sign_in):
    for _ in range(10):
        await sign_in("not it", "nobody")

    assert (await sign_in(RIGHT))["errors"] == []


async def test_the_right_password_in_time_begins_anew(sign_in):
    for _ in range(2):
        for _ in range(9):
            await sign_in("not it")
        assert (await sign_in(RIGHT))["errors"] == []


async def test_many_right_passwords_at_once_lock_nobody(sign_in):
    answers = await asyncio.gather(*(sign_in(RIGHT) for _ in range(20)))

    assert [answer["errors"] for answer in answers] == [[]] * 20


@pytest.fixture(params=["with Redis", "without Redis"])
async def attempts(request, services, settings):
    url = settings.redis_url if request.param == "with Redis" else "redis://127.0.0.1:1/0"
    async with Redis.from_url(url, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)) as redis:
        yield Attempts(redis, most_per_address=60, delay=timedelta(milliseconds=100))


async def test_the_counts_are_by_account_and_by_address(attempts):
    for _ in range(10):
        assert await attempts.locked("ada", "10.0.0.1") is None
        await attempts.failed("ada", "10.0.0.1")
    assert await attempts.locked("ada", "10.0.0.2") is not None
    assert await attempts.locked("bob", "10.0.0.1") is None

    for number in range(50):
        await attempts.failed(f"name{number}", "10.0.0.1")
    assert await attempts.locked("dave", "10.0.0.1") is not None
    assert await attempts.locked("dave", "10.0.0.2") is None

    await attempts.succeeded("ada")
    assert await attempts.locked("ada", "10.0.0.2") is None


async def test_the_wait_grows_with_the_wrong_passwords_of_a_name(attempts):
    waits = []
    for _ in range(10):
        waits.append(await attempts.seconds_of_delay("ada", "10.0.0.1"))
        await attempts.failed("ada", "10.0.0.1")

    assert waits == [0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2]
    assert await attempts.seconds_of_delay("bob", "10.0.0.1") == 0
    await attempts.succeeded("ada")
    assert await attempts.seconds_of_delay("ada", "10.0.0.2") == 0


async def test_the_wait_grows_more_slowly_with_those_of_an_address(attempts):
    waits = []
    for number in range(61):
        waits.append(await attempts.seconds_of_delay("somebody", "10.0.0.1"))
        await attempts.failed(f"name{number}", "10.0.0.1")

    assert [waits.index(wait) for wait in (0, 0.1, 0.2)] == [0, 30, 60]
    assert await attempts.seconds_of_delay("somebody", "10.0.0.2") == 0


@pytest.mark.parametrize("username", ["ada", "nobody"])
async def test_signing_in_waits_before_it_looks_whether_the_name_exists(execute, services, username, monkeypatch):
    waited = []

    async def hold_up(name, address):
        waited.append(name)
        raise TimeoutError

    monkeypatch.setattr(services.attempts, "hold_up", hold_up)
    await execute(LOGIN, input={"username": username, "password": RIGHT})

    assert waited == [username]
