"""A preview shows rows as JSON, the same sample every time, and never columns that do not exist."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from ml.preview import UnknownColumns, preview


@pytest.fixture
def numbers(tmp_path: Path) -> str:
    path = tmp_path / "numbers.parquet"
    pl.DataFrame({"i": range(200_000), "s": [f"row {i}" for i in range(200_000)]}).write_parquet(
        path, row_group_size=50_000
    )
    return str(path)


def test_head_and_tail_keep_the_order_of_the_file(numbers: str) -> None:
    head = preview(numbers, mode="HEAD", limit=3)
    assert (head.columns, head.rows, head.truncated) == (
        ["i", "s"],
        [[0, "row 0"], [1, "row 1"], [2, "row 2"]],
        True,
    )
    assert preview(numbers, mode="TAIL", limit=2).rows == [[199_998, "row 199998"], [199_999, "row 199999"]]


def test_a_sample_is_spread_distinct_and_repeatable(numbers: str) -> None:
    sample = preview(numbers, mode="SAMPLE", limit=50, columns=["i"])
    drawn = [row[0] for row in sample.rows]
    assert len(drawn) == 50
    assert drawn == sorted(set(drawn))
    assert drawn[0] < 40_000
    assert drawn[-1] > 160_000
    assert preview(numbers, mode="SAMPLE", limit=50, columns=["i"]) == sample


@pytest.mark.parametrize("mode", ["HEAD", "TAIL", "SAMPLE"])
def test_small_files_are_shown_whole(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "small.parquet"
    for rows in (0, 1, 7):
        pl.DataFrame({"i": range(rows)}, schema={"i": pl.Int64}).write_parquet(path)
        shown = preview(str(path), mode=mode, limit=7)  # type: ignore[arg-type]
        assert (shown.rows, shown.truncated) == ([[i] for i in range(rows)], False)


def test_columns_come_in_file_order_and_unknown_ones_are_named(numbers: str) -> None:
    assert preview(numbers, limit=1, columns=["s", "i", "s"]).columns == ["i", "s"]
    with pytest.raises(UnknownColumns) as caught:
        preview(numbers, columns=["i", "S", "nope"])
    assert caught.value.names == ("S", "nope")


def test_cells_are_json(tmp_path: Path) -> None:
    path = tmp_path / "cells.parquet"
    pl.DataFrame(
        {
            "nan": [float("nan")],
            "inf": [float("inf")],
            "decimal": [Decimal("1.50")],
            "day": [date(2024, 2, 29)],
            "at": [datetime(2024, 2, 29, 12, tzinfo=UTC)],
            "clock": [time(1, 2, 3)],
            "wait": [timedelta(minutes=1.5)],
            "bytes": [b"\x00\xff"],
            "nested": [[{"a": float("nan"), "b": [date(2024, 1, 1)]}]],
            "null": [None],
            "flag": [True],
            "big": pl.Series([2**64 - 1], dtype=pl.UInt64),
        }
    ).write_parquet(path)
    assert preview(str(path)).rows == [
        [
            None,
            None,
            "1.50",
            "2024-02-29",
            "2024-02-29T12:00:00+00:00",
            "01:02:03",
            "PT90S",
            "AP8=",
            [{"a": None, "b": ["2024-01-01"]}],
            None,
            True,
            2**64 - 1,
        ]
    ]
