"""Data to upload and to learn from: made up, the same every time, of a size that was asked for."""

from pathlib import Path

import numpy as np
import polars as pl

TARGET = "yield"
LABEL = "faulty"
FEATURES = 30
_CITIES = np.array(["Basel", "Gent", "Graz", "Lyon", "Malmö", "Porto", "Turin", "Zürich"])


def write_mixed(path: Path, *, size_bytes: int, seed: int) -> int:
    """A CSV of the given size with numbers, whole numbers, dates, words and gaps; the number of its rows."""
    random = np.random.default_rng(seed)
    rows = size_bytes // 60
    amount = random.lognormal(3, 1, rows).round(3)
    frame = pl.DataFrame(
        {
            "id": np.arange(rows),
            "day": (np.datetime64("2024-01-01") + random.integers(0, 700, rows)).astype("datetime64[D]"),
            "city": _CITIES[random.integers(0, len(_CITIES), rows)],
            "amount": amount,
            "temperature": random.normal(20, 8, rows).round(2),
            "pressure": random.normal(1013, 9, rows).round(1),
            "count": random.integers(0, 1000, rows),
            LABEL: np.where(amount + random.normal(0, 10, rows) > 25, "yes", "no"),
        }
    ).with_columns(pl.when(pl.col("count") % 17 == 0).then(None).otherwise(pl.col("pressure")).alias("pressure"))
    text = frame.write_csv().encode()
    lines = text[:size_bytes].rpartition(b"\n")[0] + b"\n"
    path.write_bytes(lines)
    return lines.count(b"\n") - 1


def write_numeric(path: Path, *, rows: int, seed: int) -> None:
    """A CSV of 30 numeric features, a number to predict (`yield`) and a label (`faulty`) that follow from them."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, FEATURES)).round(5)
    truth = (
        values[:, 0] * values[:, 1]
        + np.sin(values[:, 2] * 2)
        + np.abs(values[:, 3:8]).sum(axis=1) * 0.5
        + values[:, 8:] @ random.normal(scale=0.2, size=FEATURES - 8)
    )
    noisy = truth + random.normal(scale=0.5, size=rows)
    frame = pl.DataFrame({name: values[:, number] for number, name in enumerate(feature_names())}).with_columns(
        pl.Series(TARGET, noisy.round(5)),
        pl.Series(LABEL, np.where(noisy > np.median(noisy), "yes", "no")),
    )
    frame.write_csv(path)


def feature_names() -> list[str]:
    return [f"x{number:02}" for number in range(FEATURES)]
