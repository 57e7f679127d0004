"""What the values of each column look like: counts, spread, histogram, lengths, the most frequent values.

Up to a million rows every figure is exact. Above that quantiles come from t-digests and the distinct count of
columns with very many values is estimated within 5 %, which `distinct_count_is_estimate` tells.
"""

# ruff: noqa: S608 -- the SQL is put together from numbered columns and quoted names only

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.engine import file_name, open_engine, rows_of
from ml.formats import ColumnInfo, ColumnType, Progress

if TYPE_CHECKING:
    import duckdb

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = 20
TOP_VALUES = 20
SHOWN_CHARACTERS = 256
EXACT_ROWS = 1_000_000
COUNTED_DISTINCT = 200_000
"""Estimated distinct values up to which a large column is counted exactly."""
CELLS_AT_ONCE = 4_000_000
COLUMNS_AT_ONCE = 25
COUNTS_STEP, MOMENTS_STEP, COLUMNS_STEP = 0.25, 0.35, 0.4
"""What each kind of scan takes of the time of a large batch of columns."""
HUGE = 1e150
"""Magnitude from which squares overflow; larger columns are scaled by a power of two, which is exact."""


def profile(
    parquet: Path,
    columns: Sequence[ColumnInfo],
    *,
    scratch: Path,
    memory_limit_mb: int = 1024,
    exact_rows: int = EXACT_ROWS,
    on_progress: Progress = lambda phase, fraction: None,
) -> list[dict[str, Any]]:
    """One JSON-able dictionary a column, in order, with the fields of ColumnProfile in snake_case.

    `count` counts values that are not null. NaN and infinities are values, counted in `non_finite_count` and
    left out of every other numeric figure. `stddev` is the sample's (n-1). `histogram` has 20 bins of equal
    width as `numpy.histogram` makes them; without finite values both lists are empty. Lists, structs and
    binary columns have counts only. A top value is its text, cut after 256 characters.
    """
    profiles: list[dict[str, Any]] = []
    with open_engine(scratch=scratch, memory_limit_mb=memory_limit_mb) as engine:
        engine.execute("SET parquet_metadata_cache = true")
        aliases = ", ".join(f"c{i}" for i in range(len(columns)))
        relation = f"read_parquet({file_name(parquet)}) AS t({aliases})"
        row_count = engine.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]
        exact = row_count <= exact_rows
        at_once = max(1, min(COLUMNS_AT_ONCE, CELLS_AT_ONCE // max(1, row_count))) if exact else COLUMNS_AT_ONCE
        for low in range(0, len(columns), at_once):
            batch = [_Column(column) for column in columns[low : low + at_once]]
            source = relation
            if exact:
                names = ", ".join(f"c{column.info.position}" for column in batch)
                engine.execute(f"CREATE OR REPLACE TEMP TABLE batch AS SELECT {names} FROM {relation}")
                source = "batch"
            share = len(batch) / len(columns)

            def heard(done: float, before: float = len(profiles) / len(columns), share: float = share) -> None:
                on_progress("profile", before + share * done)

            profiles.extend(_profile_batch(_Asking(engine, heard), source, batch, row_count, exact))
            heard(0.0, len(profiles) / len(columns))
    return profiles


@dataclass
class _Column:
    info: ColumnInfo
    low: float | None = None
    high: float | None = None
    scale: float = 1.0

    @property
    def name(self) -> str:
        return f"c{self.info.position}"

    @property
    def number(self) -> str:
        return f"CAST({self.name} AS DOUBLE)"

    @property
    def is_countable(self) -> bool:
        return self.info.type not in (
            ColumnType.LIST,
            ColumnType.STRUCT,
            ColumnType.BINARY,
        )

    @property
    def shown(self) -> str:
        """SQL of a value as the text that a reader sees; date-times in ISO 8601."""
        if self.info.type is ColumnType.DATETIME:
            return "replace(replace(CAST(v AS VARCHAR), ' ', 'T'), '+00', '+00:00')"
        return "CAST(v AS VARCHAR)"


@dataclass
class _Asking:
    """The engine, and who hears how much of the scans of a batch is done: some of it in each `step`."""

    engine: duckdb.DuckDBPyConnection
    heard: Callable[[float], None]
    done: float = 0.0

    def rows(self, query: str, step: float) -> list[tuple[Any, ...]]:
        rows = rows_of(self.engine, query, lambda part: self.heard(self.done + step * part))
        self.done += step
        return rows

    def row(self, query: str, step: float) -> tuple[Any, ...]:
        return self.rows(query, step)[0]


def _profile_batch(
    engine: _Asking, source: str, batch: list[_Column], row_count: int, exact: bool
) -> list[dict[str, Any]]:
    counts = _counts(engine, source, batch, exact)
    step = COLUMNS_STEP / len(batch)
    numbers = [column for column in batch if column.low is not None]
    moments = (_moments if exact else _moments_in_passing)(engine, source, numbers) if numbers else {}
    profiles = []
    for column in batch:
        found = counts[column.name]
        distinct: int | None = None
        estimated = False
        top: list[dict[str, Any]] = []
        if column.is_countable:
            if exact or found["about"] <= COUNTED_DISTINCT:
                distinct, top = _frequencies(engine, source, column, step)
            else:
                distinct = _estimated_distinct(engine, source, column, found["about"], found["count"], step / 2)
                estimated = True
                top = _likely_top_values(engine, source, column, step / 2)
        profiles.append(
            {
                "count": found["count"],
                "null_count": row_count - found["count"],
                "distinct_count": distinct,
                "distinct_count_is_estimate": estimated,
                "numeric": _numeric(column, found, moments) if column.info.type.is_numeric else None,
                "text": found.get("text"),
                "top_values": top,
            }
        )
    return profiles


def _numeric(column: _Column, found: dict[str, Any], moments: dict[str, dict[str, Any]]) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "mean": None,
        "stddev": None,
        "quantiles": [{"q": q, "value": None} for q in QUANTILES],
        "histogram": {"edges": [], "counts": []},
    }
    return {
        "min": column.low,
        "max": column.high,
        **moments.get(column.name, nothing),
        "zero_count": found["zeros"],
        "non_finite_count": found["non_finite"],
    }


def _counts(engine: _Asking, source: str, batch: list[_Column], exact: bool) -> dict[str, dict[str, Any]]:
    """The first scan: how many values, their extremes, lengths of texts; sets `low`, `high` and `scale`."""
    measures: list[str] = []
    for column in batch:
        x = column.number
        measures.append(f"count({column.name})")
        if not exact and column.is_countable:
            measures.append(f"approx_count_distinct({column.name})")
        if column.info.type.is_numeric:
            measures += [
                f"min({x}) FILTER (isfinite({x}))",
                f"max({x}) FILTER (isfinite({x}))",
                f"count(*) FILTER ({x} = 0)",
                f"count(*) FILTER (NOT isfinite({x}))",
            ]
        if column.info.type.is_text:
            length = f"length(CAST({column.name} AS VARCHAR))"
            measures += [f"min({length})", f"max({length})", f"avg({length})"]
    values = iter(engine.row(f"SELECT {', '.join(measures)} FROM {source}", COUNTS_STEP))
    counts: dict[str, dict[str, Any]] = {}
    for column in batch:
        found: dict[str, Any] = {"count": next(values), "about": 0}
        if not exact and column.is_countable:
            found["about"] = next(values)
        if column.info.type.is_numeric:
            column.low, column.high = next(values), next(values)
            found |= {"zeros": next(values), "non_finite": next(values)}
            if column.low is not None and column.high is not None:
                largest = max(abs(column.low), abs(column.high))
                column.scale = 2.0 ** (math.frexp(largest)[1]) if HUGE < largest < 2.0**1023 else 1.0
                if largest >= 2.0**1023:
                    column.scale = 2.0**1023
        if column.info.type.is_text:
            shortest, longest, mean = next(values), next(values), next(values)
            if shortest is not None:
                found["text"] = {"min_length": shortest, "max_length": longest, "mean_length": mean}
        counts[column.name] = found
    return counts


def _edges(column: _Column) -> list[float]:
    """Bin edges in scaled units, as `numpy.histogram_bin_edges` places them."""
    import numpy as np

    assert column.low is not None
    assert column.high is not None
    low, high = column.low / column.scale, column.high / column.scale
    if low == high:
        low, high = low - 0.5, high + 0.5
    return [float(edge) for edge in np.linspace(low, high, BINS + 1)]


def _moments(engine: _Asking, source: str, batch: list[_Column]) -> dict[str, dict[str, Any]]:
    """Mean, deviation, quantiles and histogram of the finite values, computed on the whole column in memory."""
    import numpy as np

    table = engine.engine.sql(
        f"SELECT {', '.join(f'{c.number} AS {c.name}' for c in batch)} FROM {source}"
    ).to_arrow_table()
    result = {}
    for c in batch:
        values = table.column(c.name).to_numpy()
        values = values[np.isfinite(values)] / c.scale
        counts, edges = np.histogram(values, bins=BINS)
        result[c.name] = {
            "mean": _unscaled(float(values.mean()), c),
            "stddev": _unscaled(float(values.std(ddof=1)), c) if len(values) > 1 else None,
            "quantiles": [
                {"q": q, "value": _unscaled(float(value), c)}
                for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
            ],
            "histogram": {
                "edges": [_unscaled(float(edge), c) for edge in edges],
                "counts": [int(count) for count in counts],
            },
        }
    return result


def _moments_in_passing(engine: _Asking, source: str, batch: list[_Column]) -> dict[str, dict[str, Any]]:
    """The figures of `_moments` in one scan of data that does not fit in memory, with estimated quantiles."""
    asked = ", ".join(str(q) for q in QUANTILES)
    scaled = ", ".join(
        f"CASE WHEN isfinite({c.number}) THEN {c.number} / CAST('{c.scale!r}' AS DOUBLE) END AS {c.name}" for c in batch
    )
    edges = {c.name: _edges(c) for c in batch}
    guesses, bins, measures = [], [], []
    for c in batch:
        name, e = c.name, edges[c.name]
        low, width = e[0], e[-1] - e[0]
        guess = f"floor(({name} - ({low!r}::DOUBLE)) / ({width!r}::DOUBLE) * {BINS})"
        bounded = f"CASE WHEN {name} IS NOT NULL THEN CAST(least({BINS - 1}, greatest(0, {guess})) AS INTEGER) END"
        guesses.append(f"{name}, {bounded} AS g{name}")
        literal = "[" + ", ".join(f"'{edge!r}'::DOUBLE" for edge in e) + "]"
        # As numpy does: a value that rounding put on the wrong side of an edge moves to the bin it belongs to.
        bins.append(
            f"{name}, g{name} - CASE WHEN {name} < {literal}[g{name} + 1] THEN 1 ELSE 0 END "
            f"+ CASE WHEN g{name} < {BINS - 1} AND {name} >= {literal}[g{name} + 2] THEN 1 ELSE 0 END AS b{name}"
        )
        measures += [
            f"favg({name})",
            f"stddev_samp({name})",
            f"approx_quantile({name}, [{asked}])",
            f"histogram(b{name})",
        ]
    row = iter(
        engine.row(
            f"SELECT {', '.join(measures)} FROM (SELECT {', '.join(bins)} FROM (SELECT {', '.join(guesses)} "
            f"FROM (SELECT {scaled} FROM {source})))",
            MOMENTS_STEP,
        )
    )
    result = {}
    for c in batch:
        mean, stddev, quantiles, binned = next(row), next(row), next(row), next(row)
        result[c.name] = {
            "mean": _unscaled(mean, c),
            "stddev": _unscaled(stddev, c),
            "quantiles": [{"q": q, "value": _unscaled(v, c)} for q, v in zip(QUANTILES, quantiles, strict=True)],
            "histogram": {
                "edges": [_unscaled(edge, c) for edge in edges[c.name]],
                "counts": [binned.get(i, 0) for i in range(BINS)],
            },
        }
    return result


def _unscaled(value: float | None, column: _Column) -> float | None:
    if value is None:
        return None
    original = value * column.scale
    return original if math.isfinite(original) else None


def _frequencies(engine: _Asking, source: str, column: _Column, step: float) -> tuple[int, list[dict[str, Any]]]:
    """The exact number of distinct values and the most frequent ones; equal counts in order of value."""
    rows = engine.rows(
        f"WITH g AS MATERIALIZED (SELECT {column.name} AS v, count(*) AS n FROM {source} "
        f"WHERE {column.name} IS NOT NULL GROUP BY 1) "
        f"SELECT {column.shown}, n, (SELECT count(*) FROM g) FROM g ORDER BY n DESC, v LIMIT {TOP_VALUES}",
        step,
    )
    return (rows[0][2] if rows else 0), [_top_value(value, count) for value, count, _ in rows]


def _likely_top_values(engine: _Asking, source: str, column: _Column, step: float) -> list[dict[str, Any]]:
    """Exact counts of the values that a Space-Saving sketch holds for the most frequent."""
    rows = engine.rows(
        f"WITH k AS (SELECT unnest(approx_top_k({column.name}, {TOP_VALUES})) AS v FROM {source}), "
        f"g AS (SELECT {column.name} AS v, count(*) AS n FROM {source} "
        f"WHERE {column.name} IN (SELECT v FROM k) GROUP BY 1) "
        f"SELECT {column.shown}, n FROM g ORDER BY n DESC, v",
        step,
    )
    return [_top_value(value, count) for value, count in rows]


def _top_value(value: str, count: int) -> dict[str, Any]:
    shown = value if len(value) <= SHOWN_CHARACTERS else value[: SHOWN_CHARACTERS - 1] + "…"
    return {"value": shown.replace("\0", "\ufffd"), "count": count}


def _estimated_distinct(engine: _Asking, source: str, column: _Column, about: int, count: int, step: float) -> int:
    """Distinct values with a hash in one of `every` residue classes, times `every`.

    DuckDB's own sketch is off by several percent; here about 50,000 or more values are counted, so that the
    standard error, 1 / sqrt(counted), stays below half a percent.
    """
    every = max(1, about // 100_000)
    name = column.name
    query = f"SELECT count(DISTINCT {name}) FROM {source} WHERE hash({name}) % {every} = 0"
    found: int = engine.row(query, step)[0]
    return int(min(count, found * every))
