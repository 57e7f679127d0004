"""How many random operations are tried."""

import itertools
import random
import time
from collections.abc import Callable, Iterable

import pytest


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Callable[[int], Iterable[int]]:
    """`seeds(n)`: always the same n; with `--fuzz SECONDS` others each time, for so long."""
    seconds: float = request.config.getoption("--fuzz")

    def choose(usual: int) -> Iterable[int]:
        if not seconds:
            return range(usual)
        until = time.monotonic() + seconds
        return itertools.takewhile(lambda _: time.monotonic() < until, itertools.count(random.randrange(10**9)))

    return choose
