"""How many statements each operation sent to the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from monitoring.metrics import METRICS


class Count:
    """Grows with every statement that the operation sends, from whichever of its tasks."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


_current: ContextVar[Count | None] = ContextVar("statements", default=None)


@contextmanager
def counting() -> Iterator[Count]:
    """Count what the block, and the tasks it starts, send. The block may end in another task than it began in."""
    count = Count()
    _current.set(count)
    try:
        yield count
    finally:
        _current.set(None)


def sent(_: str) -> None:
    """The `watch` of a database: told of every statement."""
    METRICS.statement_sent()
    count = _current.get()
    if count is not None:
        count.number += 1
