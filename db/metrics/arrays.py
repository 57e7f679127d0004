"""Columns of rows as binary arrays: how PostgreSQL packs them and numpy reads them."""

from typing import Any

import numpy as np

from ml.downsampling import History, Ints

NO_STEP = -(2**63)
_HEADER = 20
_INTEGER = np.dtype([("length", ">i4"), ("item", ">i8")])
_DOUBLE = np.dtype([("length", ">i4"), ("item", ">f8")])
_SENT = {
    "step": f"coalesce(step, {NO_STEP})",
    "changed": "CAST(CAST(changed AS text) AS bigint)",
}


def packed(*columns: str) -> str:
    """SQL for the columns of a group of `metric_points` as arrays, in the order in which its rows come."""
    return ", ".join(f"array_send(array_agg({_SENT.get(name, name)})) AS {name}" for name in columns)


def unpacked(steps: bytes | None, at: bytes | None, values: bytes | None) -> History:
    """The points in the arrays of `packed("step", "at", "value")`; None of no rows."""
    read = unpacked_integers(steps)
    stepless = read == NO_STEP
    read[stepless] = 0
    return History(read, stepless, unpacked_integers(at), _items(values, _DOUBLE).astype(np.float64))


def unpacked_integers(packed: bytes | None) -> Ints:
    integers: Ints = _items(packed, _INTEGER).astype(np.int64)
    return integers


def _items(packed: bytes | None, of: np.dtype[Any]) -> Any:
    """An array of `array_send`: a header of 20 bytes (one dimension), then each item behind its length."""
    return np.frombuffer(packed or b"", of, offset=_HEADER if packed else 0)["item"]
