"""How a process of the API leaves: it says so to whoever asks for its readiness, then ends what its clients hold open.

Meanwhile it answers as before, so a load balancer has the time to find out. Connections end one after the other, so
that the processes that stay are not asked by all clients at once.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FINISH_SECONDS = 10.0
"""How long an operation that runs may go on once its connection is to end."""
_LOOK_SECONDS = 0.1


class Leaving:
    def __init__(self) -> None:
        self.begun = False
        self._open: set[Callable[[], None]] = set()

    @contextmanager
    def connected(self, leave: Callable[[], None]) -> Iterator[None]:
        """While a connection is open: `leave` is called when it is its turn to end, at once when leaving has begun."""
        self._open.add(leave)
        try:
            if self.begun:
                leave()
            yield
        finally:
            self._open.discard(leave)

    async def end_connections(self, seconds: float, *, hurry: Callable[[], bool]) -> None:
        """Spread over `seconds`, which it takes also when none is open; returns when all have ended.

        `hurry`, asked now and then, makes all end at once. What has not ended after `FINISH_SECONDS` is left.
        """
        self.begun = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        turns = list(self._open)
        random.shuffle(turns)
        for number, leave in enumerate(turns, start=1):
            if leave in self._open:
                leave()
            await _until(began + seconds * number / len(turns), hurry)
        await _until(began + seconds, hurry)
        finish = loop.time() + FINISH_SECONDS
        await _until(finish, lambda: not self._open)


async def _until(moment: float, sooner: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    while not sooner() and (left := moment - loop.time()) > 0:  # noqa: ASYNC110  (a signal handler rings no event)
        await asyncio.sleep(min(left, _LOOK_SECONDS))
