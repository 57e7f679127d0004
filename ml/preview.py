"""A few rows of a dataset version, as JSON, without reading more of its Parquet file than they need."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import polars as pl

Mode = Literal["HEAD", "TAIL", "SAMPLE"]

SEED = 20_240_229
WINDOWS = 4
ROWS_A_WINDOW = 32_768
CELLS_A_WINDOW = 2_000_000


class UnknownColumns(LookupError):
    """Columns were asked for that the dataset version does not have; `names` are they, in order."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self.names = names

    def __str__(self) -> str:
        return "There is no column " + ", ".join(repr(name) for name in self.names) + "."


@dataclass(frozen=True)
class Preview:
    """`rows` have one JSON value a column; `truncated` tells that the version has more rows."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool


def preview(
    source: str,
    *,
    storage_options: dict[str, str] | None = None,
    mode: Mode = "HEAD",
    limit: int = 50,
    columns: list[str] | None = None,
) -> Preview:
    """The first, the last or sampled rows of the Parquet file at `source`, a local path or an s3:// URL.

    Columns come in the file's order. SAMPLE draws the same rows every time, in file order, from at most four
    windows spread evenly over the file. Date-times and dates are ISO 8601, durations ISO 8601 in seconds,
    decimals and integers beyond 64 bits strings, bytes base64, NaN and infinities null, structs objects.
    Raises `UnknownColumns`.
    """
    import polars as pl

    frame = pl.scan_parquet(source, storage_options=storage_options, glob=False)
    present = frame.collect_schema().names()
    if columns is not None:
        unknown = tuple(dict.fromkeys(name for name in columns if name not in set(present)))
        if unknown:
            raise UnknownColumns(unknown)
        wanted = set(columns)
        present = [name for name in present if name in wanted]
    row_count: int = frame.select(pl.len()).collect().item()
    frame = frame.select(present)
    match mode:
        case "HEAD":
            chosen = frame.head(limit).collect()
        case "TAIL":
            chosen = frame.slice(max(0, row_count - limit), limit).collect()
        case "SAMPLE":
            chosen = _sample(frame, row_count, limit, len(present))
    rows = [[_json(value) for value in row] for row in chosen.iter_rows()]
    return Preview(columns=present, rows=rows, truncated=row_count > len(rows))


def preview_in_child(
    source: str, storage_options: dict[str, str] | None, mode: Mode, limit: int, columns: list[str] | None
) -> Preview:
    """`preview` as a child process is asked for it, by position."""
    return preview(source, storage_options=storage_options, mode=mode, limit=limit, columns=columns)


def _sample(frame: pl.LazyFrame, row_count: int, limit: int, width: int) -> pl.DataFrame:
    import polars as pl

    if row_count <= limit:
        return frame.collect()
    window = max(limit, min(ROWS_A_WINDOW, CELLS_A_WINDOW // max(1, width)))
    windows = min(WINDOWS, limit, -(-row_count // window))
    length = min(window, row_count // windows)
    parts = []
    for i in range(windows):
        offset = (row_count - length) * i // max(1, windows - 1)
        share = min(length, limit * (i + 1) // windows - limit * i // windows)
        rows = frame.slice(offset, length).collect()
        drawn = pl.Series(range(rows.height), dtype=pl.Int64).sample(share, seed=SEED + i).sort()
        parts.append(rows[drawn])
    return pl.concat(parts)


def _json(value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else str(value)
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return f"PT{value.total_seconds():g}S"
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {key: _json(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_json(inner) for inner in value]
    return str(value)
