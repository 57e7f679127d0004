"""Profiles say of each column what numpy and polars say of the same values."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

from ml.formats import ColumnInfo, ColumnType
from ml.intake import prepare
from ml.profiling import BINS, QUANTILES, profile


def profiles_of(tmp_path: Path, frame: pl.DataFrame, kinds: list[ColumnType], **options: Any) -> list[dict[str, Any]]:
    path = tmp_path / "data.parquet"
    frame.write_parquet(path)
    columns = [ColumnInfo(name, i, kind, True) for i, (name, kind) in enumerate(zip(frame.columns, kinds, strict=True))]
    found = profile(path, columns, scratch=tmp_path, memory_limit_mb=512, **options)
    json.dumps(found, allow_nan=False)
    return found


@pytest.mark.parametrize("format", ["CSV", "PARQUET"])
@pytest.mark.parametrize("load", [load_breast_cancer, load_wine, load_diabetes, load_iris, load_digits])
def test_real_data_has_the_figures_of_numpy(tmp_path: Path, load: Any, format: str) -> None:
    bunch = load()
    frame = pl.DataFrame(bunch.data, schema=[str(name) for name in bunch.feature_names]).with_columns(
        target=pl.Series(bunch.target)
    )
    source = tmp_path / "source"
    if format == "CSV":
        frame.write_csv(source)
    else:
        frame.write_parquet(source)
    prepared = prepare(source, format=format, target=tmp_path / "out.parquet", scratch=tmp_path, memory_limit_mb=512)
    assert [column.name for column in prepared.columns] == frame.columns
    assert pl.read_parquet(tmp_path / "out.parquet").to_numpy().tolist() == frame.to_numpy().tolist()
    for name, found in zip(frame.columns, prepared.profiles, strict=True):
        values = frame[name].to_numpy().astype(float)
        numeric = found["numeric"]
        assert found["count"] == len(values)
        assert found["null_count"] == 0
        assert found["distinct_count"] == frame[name].n_unique()
        assert found["distinct_count_is_estimate"] is False
        assert numeric["min"] == values.min()
        assert numeric["max"] == values.max()
        assert numeric["mean"] == pytest.approx(values.mean(), rel=1e-12, abs=1e-15)
        assert numeric["stddev"] == pytest.approx(values.std(ddof=1), rel=1e-12)
        assert [entry["q"] for entry in numeric["quantiles"]] == list(QUANTILES)
        assert [entry["value"] for entry in numeric["quantiles"]] == pytest.approx(
            np.quantile(values, QUANTILES), rel=1e-12, abs=1e-15
        )
        counts, edges = np.histogram(values, bins=BINS)
        assert numeric["histogram"]["edges"] == edges.tolist()
        assert numeric["histogram"]["counts"] == counts.tolist()
        assert numeric["zero_count"] == int((values == 0).sum())
        assert numeric["non_finite_count"] == 0
        assert [entry["count"] for entry in found["top_values"]] == sorted(
            frame[name].value_counts()["count"].to_list(), reverse=True
        )[:20]


def test_non_finite_values_are_counted_apart(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1.0, float("nan"), None, float("inf"), 3.0, float("-inf"), 0.0]})
    (found,) = profiles_of(tmp_path, frame, [ColumnType.FLOAT])
    numeric = found["numeric"]
    assert (found["count"], found["null_count"], found["distinct_count"]) == (6, 1, 6)
    assert (numeric["min"], numeric["max"], numeric["zero_count"], numeric["non_finite_count"]) == (0.0, 3.0, 1, 3)
    assert numeric["mean"] == pytest.approx(4 / 3)
    assert numeric["stddev"] == pytest.approx(np.std([0, 1, 3], ddof=1))
    assert sum(numeric["histogram"]["counts"]) == 3


def test_columns_without_values_constants_and_extremes(tmp_path: Path) -> None:
    huge = 1.7e308
    frame = pl.DataFrame(
        {
            "empty": pl.Series([None] * 4, dtype=pl.Float64),
            "nan": [float("nan")] * 4,
            "constant": [5] * 4,
            "huge": [-huge, huge, huge, -huge],
        }
    )
    kinds = [ColumnType.FLOAT, ColumnType.FLOAT, ColumnType.INTEGER, ColumnType.FLOAT]
    empty, nan, constant, large = profiles_of(tmp_path, frame, kinds)
    for found in (empty, nan):
        assert found["numeric"]["histogram"] == {"edges": [], "counts": []}
        assert [found["numeric"][key] for key in ("min", "max", "mean", "stddev")] == [None] * 4
        assert {entry["value"] for entry in found["numeric"]["quantiles"]} == {None}
    assert (empty["numeric"]["non_finite_count"], nan["numeric"]["non_finite_count"]) == (0, 4)
    assert constant["numeric"]["histogram"]["edges"] == np.histogram([5] * 4, bins=BINS)[1].tolist()
    assert constant["numeric"]["stddev"] == 0.0
    assert sum(constant["numeric"]["histogram"]["counts"]) == 4
    assert large["numeric"]["mean"] == 0.0
    assert large["numeric"]["stddev"] is None or math.isfinite(large["numeric"]["stddev"])
    assert [large["numeric"]["histogram"]["counts"][i] for i in (0, BINS - 1)] == [2, 2]


def test_a_single_row_has_no_deviation(tmp_path: Path) -> None:
    (found,) = profiles_of(tmp_path, pl.DataFrame({"x": [2.0]}), [ColumnType.FLOAT])
    assert (found["numeric"]["mean"], found["numeric"]["stddev"]) == (2.0, None)


def test_texts_dates_and_flags(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"s": ["ab", "日本語", "ab", None], "b": [True, True, False, None], "l": [[1], [], None, [2, 3]]}
    ).with_columns(
        t=pl.Series(["2024-01-01T10:00:00", None, "2024-01-01T10:00:00", "2024-05-05T00:00:00.5"]).str.to_datetime()
    )
    text, flag, nested, moment = profiles_of(
        tmp_path, frame, [ColumnType.STRING, ColumnType.BOOLEAN, ColumnType.LIST, ColumnType.DATETIME]
    )
    assert text["text"] == {"min_length": 2, "max_length": 3, "mean_length": pytest.approx(7 / 3)}
    assert text["top_values"] == [{"value": "ab", "count": 2}, {"value": "日本語", "count": 1}]
    assert flag["top_values"] == [{"value": "true", "count": 2}, {"value": "false", "count": 1}]
    assert (nested["count"], nested["null_count"], nested["distinct_count"]) == (3, 1, None)
    assert moment["top_values"][0] == {"value": "2024-01-01T10:00:00", "count": 2}
    assert (flag["numeric"], flag["text"], nested["top_values"]) == (None, None, [])


def test_large_data_is_estimated_within_five_percent(tmp_path: Path) -> None:
    rows = 1_000_000
    rng = np.random.default_rng(7)
    frame = pl.DataFrame(
        {
            "key": np.arange(rows),
            "some": rng.integers(0, 400_000, rows),
            "few": rng.integers(0, 7, rows),
            "text": [f"user {i}" for i in rng.integers(0, 700_000, rows)],
        }
    )
    kinds = [ColumnType.INTEGER] * 3 + [ColumnType.STRING]
    found = profiles_of(tmp_path, frame, kinds, exact_rows=rows - 1)
    assert [p["distinct_count_is_estimate"] for p in found] == [True, True, False, True]
    for name, p in zip(frame.columns, found, strict=True):
        assert abs(p["distinct_count"] / frame[name].n_unique() - 1) < 0.05
    assert found[2]["distinct_count"] == 7
    assert {e["value"]: e["count"] for e in found[2]["top_values"]} == {
        str(value): count for value, count in frame["few"].value_counts().iter_rows()
    }
    quantiles = [entry["value"] for entry in found[0]["numeric"]["quantiles"]]
    assert quantiles == pytest.approx([q * rows for q in QUANTILES], abs=0.005 * rows)
    assert found[0]["numeric"]["mean"] == pytest.approx((rows - 1) / 2)
    assert found[0]["numeric"]["histogram"]["counts"] == np.histogram(np.arange(rows), bins=BINS)[0].tolist()
