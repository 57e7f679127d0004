"""Points of one metric packed into chunks: columns as bytes, and rollups that stand for them in an envelope.

Integers are kept as their first and the differences to the one before, in as few bytes as these need; doubles as they
are. Everything comes back bit for bit. A rollup keeps of each cell of a chunk what MIN_MAX keeps of a bucket, so
buckets that are made of whole cells are read from rollups alone (`ml.downsampling.thinned`).
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ml.downsampling import History, Ints, of_cells

CHUNK = 16_384
"""How many points a chunk has at most."""
_CELLS = 192
COARSER = 4
"""By how many powers of two the coarse cells of a rollup are wider than the fine ones."""
_WIDTHS = (np.dtype("<i1"), np.dtype("<i2"), np.dtype("<i4"), np.dtype("<i8"))
_ROLLUP = np.dtype([("step", "<i8"), ("at", "<i8"), ("value", "<f8")])


class Place(NamedTuple):
    """Where a point stands in its series; places compare in the order of the series."""

    stepless: bool
    step: int
    at: int

    @classmethod
    def of(cls, step: int | None, at: int) -> "Place":
        return cls(step is None, step or 0, at)


class Stored(NamedTuple):
    """Points of one series in its order, with the transactions that wrote them."""

    history: History
    changed: Ints

    def __len__(self) -> int:
        return len(self.changed)

    def taken(self, which: Any) -> "Stored":
        return Stored(taken(self.history, which), self.changed[which])


class Rollup(NamedTuple):
    """What cells of 2^`cell` and of 2^(`cell` + 4) steps, or milliseconds without steps, keep of a chunk."""

    cell: int
    fine: bytes
    coarse: bytes


def empty() -> History:
    return History(np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.int64), np.empty(0, np.float64))


def joined(parts: list[History]) -> History:
    """Histories one after the other."""
    if len(parts) == 1:
        return parts[0]
    return History(*(np.concatenate(columns) for columns in zip(*(parts or [empty()]), strict=True)))


def together(parts: list[Stored]) -> Stored:
    """Points of one series as one, in its order."""
    if len(parts) == 1:
        return parts[0]
    changed = np.concatenate([part.changed for part in parts]) if parts else np.empty(0, np.int64)
    whole = Stored(joined([part.history for part in parts]), changed)
    order = in_order(whole.history)
    return whole if order is None else whole.taken(order)


def in_order(history: History) -> Ints | None:
    """The indexes that bring points into the order of their series: by step, those without one last, then by time.
    Among points of one place the first stays the first. None when they are in order."""
    steps, stepless, at, _ = history
    if not stepless.any() or stepless.all():
        fine = at[:-1] <= at[1:]
        if not stepless.all():
            fine = (steps[:-1] < steps[1:]) | ((steps[:-1] == steps[1:]) & fine)
        if fine.all():
            return None
    return np.lexsort((at, np.where(stepless, 0, steps), stepless))


def repeats(history: History) -> Any:
    """Which points of an ordered history have the place of the one before."""
    steps, stepless, at, _ = history
    same = (at[:-1] == at[1:]) & (stepless[:-1] == stepless[1:]) & (stepless[1:] | (steps[:-1] == steps[1:]))
    return np.concatenate((np.array([False]), same)) if len(at) else np.empty(0, np.bool_)


def contained(points: History, other: History) -> Any:
    """Which points have a place that a point of another history has. Neither has a place twice."""
    both = joined([other, points])
    order = in_order(both)
    repeated = repeats(both) if order is None else repeats(taken(both, order))
    found = np.zeros(len(both.at), np.bool_)
    found[slice(None) if order is None else order] = repeated
    return found[len(other.at) :]


def taken(history: History, which: Any) -> History:
    return History(*(column[which] for column in history))


def place_of(history: History, index: int) -> Place:
    stepless = bool(history.stepless[index])
    return Place(stepless, 0 if stepless else int(history.steps[index]), int(history.at[index]))


def position(history: History, place: Place, *, after: bool = False) -> int:
    """How many points of an ordered history stand before a place; with `after`, before or at it."""
    with_steps = len(history.at) - int(history.stepless.sum())
    if place.stepless:
        low, high = with_steps, len(history.at)
    else:
        steps = history.steps[:with_steps]
        low = int(np.searchsorted(steps, place.step, "left"))
        high = int(np.searchsorted(steps, place.step, "right"))
    return low + int(np.searchsorted(history.at[low:high], place.at, "right" if after else "left"))


def pieces(points: Stored) -> Iterator[Stored]:
    """Ordered points as what one chunk holds each: about equally long, and all with steps or all without."""
    with_steps = len(points) - int(points.history.stepless.sum())
    for start, end in ((0, with_steps), (with_steps, len(points))):
        count = -(-(end - start) // CHUNK)
        edges = [start + (end - start) * number // count for number in range(count + 1)] if count else []
        for low, high in pairwise(edges):
            yield points.taken(slice(low, high))


def pack_integers(numbers: Ints) -> bytes:
    """One byte for the width of the differences (0: all are the same), the first number, the differences."""
    numbers = numbers.astype("<i8")
    with np.errstate(over="ignore"):
        steps = np.diff(numbers)
    first = numbers[:1].tobytes()
    if not len(steps) or (steps == steps[0]).all():
        return b"\0" + first + (steps[:1] if len(steps) else np.zeros(1, "<i8")).tobytes()
    low, high = int(steps.min()), int(steps.max())
    width = next(kind for kind in _WIDTHS if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return bytes([width.itemsize]) + first + steps.astype(width).tobytes()


def unpack_integers(packed: bytes, size: int) -> Ints:
    first = int.from_bytes(packed[1:9], "little", signed=True)
    if not packed[0]:
        every = np.frombuffer(packed, "<i8", 1, 9)[0]
        with np.errstate(over="ignore"):
            same: Ints = np.int64(first) + np.arange(size, dtype=np.int64) * every
        return same
    numbers = np.empty(size, np.int64)
    numbers[0] = first
    numbers[1:] = np.frombuffer(packed, f"<i{packed[0]}", size - 1, 9)
    return np.cumsum(numbers, out=numbers)


def roll_up(history: History) -> Rollup:
    """The rollup of a chunk."""
    along = history.at if history.stepless[0] else history.steps
    first, last = int(along[0]), int(along[-1])
    most = max(2, len(along) * _CELLS // CHUNK)
    cell = 0
    while (last >> cell) - (first >> cell) + 1 > most:
        cell += 1
    return Rollup(cell, _rolled(history, along, cell), _rolled(history, along, cell + COARSER))


def _rolled(history: History, along: Ints, cell: int) -> bytes:
    kept = of_cells(along, history.values, 1 << min(cell, 62))
    rolled = np.empty(len(kept), _ROLLUP)
    rolled["step"], rolled["at"], rolled["value"] = history.steps[kept], history.at[kept], history.values[kept]
    return rolled.tobytes()


def rolled(packed: bytes, *, stepless: bool) -> History:
    """The points that rollups hold, one rollup behind the other."""
    read = np.frombuffer(packed, _ROLLUP)
    return History(read["step"], np.full(len(read), stepless), read["at"], read["value"])
