"""What an operation costs, what that takes from its caller's budget, and what happens when the budget is used up."""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from events.budgets import Account, Allowance, Budgets, OverBudget
from events.wakeups import redis_of
from schema.execution import respond

RATE_LIMIT = "{ rateLimit { cost limit remaining restorePerSecond } }"
DOCUMENT = """
query ($first: Int) { projects(first: $first) { totalCount nodes { id datasets(first: 3) { nodes { name } } } } }
"""
SMALL = Allowance(limit=100, per_second=0.001)


@pytest.fixture
def ask(context_of):
    async def run(query, principal=None, **variables):
        return (await respond(query, variables, None, context_of(principal)))[0]

    return run


@pytest.fixture
async def redis(settings):
    client = redis_of(settings.redis_url)
    yield client
    await client.flushdb()
    await client.aclose()


@pytest.fixture
async def budgets(redis):
    made = []

    def make(client: Redis = redis, allowance: Allowance = SMALL) -> Budgets:
        made.append(Budgets(client, signed_in=allowance, anonymous=allowance))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.mark.parametrize(
    ("document", "variables", "cost"),
    [
        ("{ __typename }", {}, 1),
        ("{ viewer { user { username } } }", {}, 2),
        # the connection, then each of ten nodes
        ("{ projects(first: 10) { nodes { id } } }", {}, 1 + 10),
        ("{ projects { nodes { id } } }", {}, 1 + 25),
        ("{ projects(first: 10) { totalCount pageInfo { hasNextPage } } }", {}, 1 + 5 + 1),
        # each of the edges is an object, and so is its node
        ("{ projects(last: 10) { edges { node { id } } } }", {}, 1 + 10 * 2),
        (DOCUMENT, {"first": 7}, 1 + 5 + 7 * (1 + 1 + 3)),
        (DOCUMENT, {}, 1 + 5 + 25 * (1 + 1 + 3)),
        ("query ($n: Int = 4) { projects(first: $n) { nodes { id } } }", {}, 1 + 4),
        # what is no size is refused later, with an error of its own
        (DOCUMENT, {"first": 2_000_000}, 1 + 5 + 100 * (1 + 1 + 3)),
        ("{ projects(first: 10) { ...P } } fragment P on ProjectConnection { nodes { id } }", {}, 1 + 10),
        ('{ nodes(ids: ["a", "b", "c"]) { id } }', {}, 3),
        # one object is never two types
        ('{ node(id: "a") { ... on Project { datasets(first: 9) { nodes { id } } } ... on User { id } } }', {}, 11),
        ("{ __schema { queryType { name } } }", {}, 1),
    ],
)
async def test_the_cost_follows_from_the_document_and_its_variables(ask, admin, document, variables, cost):
    answer = await ask(document, admin, **variables)
    again = await ask(document, admin, **variables)

    assert answer["extensions"]["cost"]["requested"] == cost
    assert again["extensions"]["cost"]["requested"] == cost


async def test_an_operation_that_costs_too_much_is_refused_and_nothing_is_read(ask, admin, statements):
    document = "{ projects(first: 100) { nodes { datasets(first: 100) { nodes { id } } } } }"

    with statements() as seen:
        answer = await ask(document, admin)

    assert answer["data"] is None
    [error] = answer["errors"]
    assert error["extensions"] == {"code": "COST_LIMIT"}
    assert error["message"].startswith("The operation costs 10201 points; at most 10000 are taken.")
    assert seen == []


async def test_statements_are_told_to_those_who_may_read_the_system(ask, admin, scientist):
    document = "{ projects { nodes { id } totalCount } }"

    assert (await ask(document, admin))["extensions"]["cost"]["sqlStatements"] == 2
    assert "sqlStatements" not in (await ask(document, scientist))["extensions"]["cost"]


async def test_the_rate_limit_is_what_the_settings_say(ask, admin, settings):
    answer = (await ask(RATE_LIMIT, admin))["data"]["rateLimit"]
    viewer = (await ask("{ viewer { rateLimit { cost limit } } }", admin))["data"]["viewer"]["rateLimit"]

    assert (answer["cost"], answer["limit"]) == (1, settings.rate_limit)
    assert settings.rate_limit - 10_000 <= answer["remaining"] <= settings.rate_limit
    assert answer["restorePerSecond"] == settings.rate_limit_per_second
    assert viewer == {"cost": 2, "limit": settings.rate_limit}


async def test_who_has_used_up_the_budget_is_told_when_to_come_back(
    ask, scientist, admin, monkeypatch, services, budgets
):
    monkeypatch.setattr(services.budgets, "signed_in", SMALL)
    document = "{ projects(first: 59) { nodes { id } } }"

    first = await ask(document, scientist)
    second = await ask(document, scientist)
    other = await ask(document, admin)

    assert first["extensions"]["cost"] == {"requested": 60, "remaining": 40}
    assert second["data"] is None
    [error] = second["errors"]
    assert error["extensions"]["code"] == "RATE_LIMITED"
    # twenty points at a thousandth of a point a second
    assert error["extensions"]["retryAfter"].startswith("PT5H33M")
    assert second["extensions"]["cost"] == {"requested": 60, "remaining": 40}
    assert other["data"] == {"projects": {"nodes": []}}


async def test_two_processes_share_a_bucket_and_a_refusal_takes_nothing(budgets):
    here, there = budgets(), budgets()
    account = Account("user:a", SMALL)

    assert (await here.spend(account, 70)).remaining == 30
    with pytest.raises(OverBudget) as refused:
        await there.spend(account, 31)
    assert refused.value.balance.remaining == 30
    assert (await there.spend(account, 30)).remaining == 0
    assert (await there.balance(account)).remaining == 0
    assert (await here.balance(account)).remaining == 0


async def test_what_was_spent_from_memory_is_reported(budgets):
    here, there = budgets(), budgets()
    account = Account("user:b", SMALL)

    for _ in range(5):
        await here.spend(account, 10)
    async with asyncio.timeout(30):
        while (await there.balance(account)).remaining != 50:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_what_was_spent_is_reported_when_a_process_ends(budgets):
    here, there = budgets(), budgets()
    account = Account("user:c", SMALL)

    await here.spend(account, 10)
    await here.spend(account, 10)
    await here.close()

    assert (await there.balance(account)).remaining == 80


async def test_without_redis_the_process_counts_on_its_own(budgets):
    alone = redis_of("redis://127.0.0.1:1/0")
    here = budgets(alone)
    account = Account("user:d", SMALL)

    assert (await here.spend(account, 70)).remaining == 30
    with pytest.raises(OverBudget):
        await here.spend(account, 31)
    assert (await here.spend(account, 30)).remaining == 0
    await alone.aclose()


async def test_a_bucket_refills(redis):
    now = 0.0
    here = Budgets(redis_of("redis://127.0.0.1:1/0"), signed_in=SMALL, anonymous=SMALL, clock=lambda: now)
    account = Account("user:e", Allowance(limit=100, per_second=10))

    await here.spend(account, 100)
    with pytest.raises(OverBudget) as refused:
        await here.spend(account, 50)
    assert refused.value.retry_after == timedelta(seconds=5, milliseconds=1)
    now = 5.5
    assert (await here.spend(account, 50)).remaining == 5
    now = 1000.0
    assert (await here.spend(account, 1)).remaining == 99
    await here.close()
