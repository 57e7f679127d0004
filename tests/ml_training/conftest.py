"""Real data as Parquet, jobs on it, and one template for all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from ml.algorithm import ColumnFacts, resolve
from ml.messages import TrainJob
from ml.processes import Template
from ml.spec import Task, TrainingSpec


def write(path: Path, bunch: Any, target: list[Any]) -> Path:
    columns = {str(name): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)}
    pq.write_table(pa.table(columns | {"target": target}), path)
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    folder = tmp_path_factory.mktemp("data")
    cancer, wine, diabetes = load_breast_cancer(), load_wine(), load_diabetes()
    return {
        Task.BINARY_CLASSIFICATION: write(
            folder / "cancer.parquet", cancer, [str(cancer.target_names[v]) for v in cancer.target]
        ),
        Task.MULTICLASS_CLASSIFICATION: write(folder / "wine.parquet", wine, [int(v) for v in wine.target]),
        Task.REGRESSION: write(folder / "diabetes.parquet", diabetes, [float(v) for v in diabetes.target]),
    }


def facts(path: Path) -> list[ColumnFacts]:
    """What a profile would say about the columns."""
    from ml.preparation import column_type

    table = pq.read_table(path)
    return [
        ColumnFacts(
            name=field.name,
            type=column_type(field.type),
            row_count=len(table),
            null_count=table[field.name].null_count,
            distinct_count=len(table[field.name].drop_null().unique()),
        )
        for field in table.schema
    ]


JobMaker = Callable[..., TrainJob]


@pytest.fixture
def job(data: dict[Task, Path], tmp_path: Path) -> JobMaker:
    def make(
        task: Task, *, path: Path | None = None, threads: int = 1, validation: Path | None = None, **spec: Any
    ) -> TrainJob:
        source = path or data[task]
        spec = {"target": "target", "num_rounds": 20, "early_stopping_rounds": None} | spec
        resolved = resolve(TrainingSpec(task=task, **spec), facts(source), has_validation_data=validation is not None)
        assert resolved.problems == ()
        count = len(list(tmp_path.glob("artifact*")))
        output = tmp_path / f"artifact{count}"
        output.mkdir()
        return TrainJob(
            spec=resolved.spec,
            data=str(source),
            output=str(output),
            threads=threads,
            validation_data=None if validation is None else str(validation),
            explicit_params=resolved.explicit_params,
        )

    return make


@pytest.fixture
async def template() -> AsyncIterator[Template]:
    template = Template()
    yield template
    await template.close()


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows of every kind of column, with missing values; the target depends on most of them."""
    random = np.random.default_rng(7)
    n = 600
    colour = random.choice(["red", "green", "blue"], n)
    size = random.normal(size=n)
    open_ = random.random(n) < 0.5
    day = random.integers(0, 1000, n)
    target = (colour == "red") * 2.0 + size + open_ * 1.5 + day / 500 + random.normal(scale=0.1, size=n)
    path = tmp_path_factory.mktemp("mixed") / "mixed.parquet"
    table = pa.table(
        {
            "colour": pa.array([None if i % 11 == 0 else str(c) for i, c in enumerate(colour)]),
            "kind": pa.array([str(c) for c in colour]).dictionary_encode(),
            "size, cm": pa.array([None if i % 7 == 0 else float(v) for i, v in enumerate(size)]),
            "open": pa.array([bool(v) for v in open_]),
            "day": pa.array(day.astype("datetime64[D]")),
            "at": pa.array((day * 86_400_000_000 + 1_500_000).astype("datetime64[us]")),
            "price": pa.array([round(float(v), 2) for v in size]).cast(pa.decimal128(10, 2), safe=False),
            "shop": pa.array([i % 20 for i in range(n)]),
            "weight": pa.array([1.0 + i % 3 for i in range(n)]),
            "target": pa.array([None if i % 50 == 0 else float(v) for i, v in enumerate(target)]),
        }
    )
    pq.write_table(table, path)
    return path
