"""Turn Parquet columns into what LightGBM takes: features, labels, weights, and rows that train, validate and test.

INTEGER, FLOAT and DECIMAL are features as they are; BOOLEAN as 0 and 1; DATE as days and DATETIME as seconds since
1970-01-01 UTC; STRING and CATEGORY as categories, numbered in the order of their text, the map made from the training
rows only (a category first met later is a missing value). Nulls are missing values. Rows without a target are left out.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ml.messages import DataProblem, TrainJob
from ml.spec import SplitStrategy, Task, TrainingSpec

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_NUMERIC = frozenset({"INTEGER", "FLOAT", "DECIMAL"})
_CATEGORICAL = frozenset({"STRING", "CATEGORY"})
_SECONDS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Feature:
    """`model_name` is the name in LightGBM's text, where JSON's special characters cannot be."""

    name: str
    type: str
    nullable: bool
    model_name: str
    categories: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ready for LightGBM: `y` is the target, or the index of the label."""

    table: pa.Table
    y: Floats
    weight: Floats | None
    rows: Rows


@dataclass(frozen=True, slots=True)
class Prepared:
    features: tuple[Feature, ...]
    labels: tuple[Any, ...] | None
    target_type: str
    train: Part
    valid: Part | None
    test: Part | None
    split_digest: str


def column_type(arrow: pa.DataType) -> str:
    """The contract's ColumnType of an Arrow type."""
    types = pa.types
    if types.is_boolean(arrow):
        return "BOOLEAN"
    if types.is_integer(arrow):
        return "INTEGER"
    if types.is_floating(arrow):
        return "FLOAT"
    if types.is_decimal(arrow):
        return "DECIMAL"
    if types.is_dictionary(arrow):
        return "CATEGORY"
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow):
        return "STRING"
    if types.is_date(arrow):
        return "DATE"
    if types.is_timestamp(arrow):
        return "DATETIME"
    return "UNKNOWN"


def prepare(job: TrainJob) -> Prepared:
    """Read the columns the spec names, split the rows and turn them into what LightGBM takes."""
    spec = job.spec
    if spec.target is None or spec.features is None:
        raise ValueError("The spec has not been through algorithm.resolve.")
    table = _read(job.data, spec, helpers=True)
    y_column = table[spec.target]
    labels, y = _target(y_column, spec)
    present = np.flatnonzero(np.isfinite(y))
    if len(present) == 0:
        raise DataProblem("No row has a target value.", ("input", "spec", "target"))
    weight = None if spec.weight_column is None else weights_of(table[spec.weight_column], spec.weight_column)
    provided = job.validation_data is not None
    train_rows, valid_rows, test_rows = split_rows(spec, table, y, present, provided=provided)
    if len(train_rows) == 0:
        raise DataProblem("The split leaves no rows to train on.", ("input", "spec", "split"))
    digest = hashlib.sha256()
    for name, rows in (("train", train_rows), ("valid", valid_rows), ("test", test_rows)):
        digest.update(f"{name}:{len(rows)}:".encode())
        digest.update(rows.astype("<i8").tobytes())

    train_part = pa.array(train_rows)
    features = _features(table, train_part, spec.features)

    def part(rows: Rows) -> Part:
        index = pa.array(rows)
        return Part(
            pa.table({f.model_name: encode(table[f.name].take(index), f) for f in features}),
            y[rows],
            None if weight is None else weight[rows],
            rows,
        )

    train_set = part(train_rows)
    if spec.task is not Task.REGRESSION and labels is not None:
        met = len(np.unique(train_set.y))
        if met < len(labels):
            message = f"Only {met} of {len(labels)} classes are among the training rows; try STRATIFIED."
            raise DataProblem(message, ("input", "spec", "split"))
    elif train_set.y.min() == train_set.y.max():
        raise DataProblem(f"{spec.target!r} has the same value in every training row.", ("input", "spec", "target"))
    valid = part(valid_rows) if len(valid_rows) else None
    if job.validation_data is not None:
        valid = _provided(job.validation_data, spec, features, labels)
        digest.update(b"provided:%d" % len(valid.y))
    test = part(test_rows) if len(test_rows) else None
    return Prepared(features, labels, column_type(y_column.type), train_set, valid, test, digest.hexdigest())


def _read(path: str, spec: TrainingSpec, *, helpers: bool) -> pa.Table:
    assert spec.target is not None
    assert spec.features is not None
    wanted = [spec.target, *spec.features]
    if spec.weight_column is not None:
        wanted.append(spec.weight_column)
    if helpers and spec.split.strategy is SplitStrategy.GROUP and spec.group_column is not None:
        wanted.append(spec.group_column)
    if helpers and spec.split.strategy is SplitStrategy.TIME and spec.split.time_column is not None:
        wanted.append(spec.split.time_column)
    wanted = list(dict.fromkeys(wanted))
    held = pq.read_schema(path).names
    missing = [name for name in wanted if name not in held]
    if missing:
        listed = ", ".join(map(repr, missing[:5]))
        raise DataProblem(f"The data has no column {listed}.", ("input", "spec", "features"))
    table: pa.Table = pq.read_table(path, columns=wanted, partitioning=None)
    return table


def _provided(path: str, spec: TrainingSpec, features: Sequence[Feature], labels: tuple[Any, ...] | None) -> Part:
    table = _read(path, spec, helpers=False)
    assert spec.target is not None
    here = ("input", "validationDatasetVersionId")
    for feature in features:
        actual = column_type(table.schema.field(feature.name).type)
        if actual != feature.type and not (actual in _NUMERIC and feature.type in _NUMERIC):
            message = f"{feature.name!r} is {actual} in the validation data and {feature.type} in the training data."
            raise DataProblem(message, here)
    if labels is None:
        y = numbers(table[spec.target])
        y[~np.isfinite(y)] = np.nan
    else:
        y = label_index(table[spec.target], labels)
        strange = np.isnan(y) & ~null_mask(table[spec.target])
        if strange.any():
            raise DataProblem(f"The validation data has values of {spec.target!r} that never occur in training.", here)
    rows = np.flatnonzero(np.isfinite(y)).astype(np.int64)
    if len(rows) == 0:
        raise DataProblem("No row of the validation data has a target value.", here)
    weight = None if spec.weight_column is None else weights_of(table[spec.weight_column], spec.weight_column)
    index = pa.array(rows)
    return Part(
        pa.table({f.model_name: encode(table[f.name].take(index), f) for f in features}),
        y[rows],
        None if weight is None else weight[rows],
        rows,
    )


def _features(table: pa.Table, train_rows: pa.Array, names: Sequence[str]) -> tuple[Feature, ...]:
    features: list[Feature] = []
    taken: set[str] = set()
    for name in names:
        field = table.schema.field(name)
        kind = column_type(field.type)
        if kind == "UNKNOWN":
            raise DataProblem(f"{name!r} is {field.type}, which cannot be a feature.", ("input", "spec", "features"))
        categories = None
        if kind in _CATEGORICAL:
            met = pc.unique(_text(table[name].take(train_rows))).to_pylist()
            categories = tuple(sorted(value for value in met if value is not None))
        safe = base = re.sub(r"[^\w.\-]", "_", name) or "_"
        count = 1
        while safe in taken:
            count += 1
            safe = f"{base}_{count}"
        taken.add(safe)
        features.append(Feature(name, kind, True, safe, categories))
    return tuple(features)


def matrix(part: Part, rows: NDArray[np.int64]) -> Floats:
    """The given rows of a part as LightGBM sees them at prediction: a float64 matrix, NaN where missing."""
    index = pa.array(rows)
    return np.column_stack([numbers(column.take(index)) for column in part.table.columns])


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.large_string())


def encode(column: pa.ChunkedArray, feature: Feature) -> pa.ChunkedArray:
    """A column of data as LightGBM reads it: numbers, or int32 codes of categories; nulls stay nulls."""
    if feature.categories is not None:
        codes = pc.index_in(_text(column), value_set=pa.array(feature.categories, pa.large_string()))
        return pc.cast(codes, pa.int32())
    if feature.type == "BOOLEAN":
        return pc.cast(column, pa.int8())
    if feature.type in ("FLOAT", "INTEGER"):
        return column if not pa.types.is_float16(column.type) else pc.cast(column, pa.float32())
    if feature.type == "DATE":
        return pc.cast(pc.cast(column, pa.date32()), pa.int32())
    if feature.type == "DATETIME":
        return _seconds(column)
    return _nearest(column)


def _nearest(decimals: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals as the nearest float64, as JSON's numbers are read; Arrow's own cast is off by one in the last place."""
    return pc.cast(pc.cast(decimals, pa.large_string()), pa.float64())


def _seconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    ticks = pc.cast(pc.cast(column, pa.int64()), pa.float64(), safe=False)
    return pc.divide(ticks, float(_SECONDS[column.type.unit]))


def numbers(column: pa.ChunkedArray) -> Floats:
    """Values as float64, nulls as NaN."""
    if pa.types.is_timestamp(column.type):
        column = _seconds(column)
    elif pa.types.is_date(column.type):
        column = pc.cast(pc.cast(column, pa.date32()), pa.int32())
    elif pa.types.is_decimal(column.type):
        column = _nearest(column)
    filled = pc.cast(column, pa.float64(), safe=False)
    values: Floats = np.array(pc.fill_null(filled, math.nan).to_numpy(), dtype=np.float64)
    return values


def null_mask(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.asarray(pc.is_null(column, nan_is_null=True).to_numpy())
    return mask


def _target(column: pa.ChunkedArray, spec: TrainingSpec) -> tuple[tuple[Any, ...] | None, Floats]:
    here = ("input", "spec", "target")
    if spec.task is Task.REGRESSION:
        if column_type(column.type) not in _NUMERIC:
            raise DataProblem(f"Regression needs a numeric target; {spec.target!r} is {column.type}.", here)
        y = numbers(column)
        y[~np.isfinite(y)] = np.nan
        return None, y
    if pa.types.is_dictionary(column.type):
        column = _text(column)
    elif pa.types.is_decimal(column.type):
        column = _nearest(column)
    met = [v for v in pc.unique(column).to_pylist() if v is not None and v == v]
    labels = tuple(sorted(met))
    expected = len(labels) == 2 if spec.task is Task.BINARY_CLASSIFICATION else len(labels) >= 3
    if not expected:
        need = "exactly 2" if spec.task is Task.BINARY_CLASSIFICATION else "at least 3"
        raise DataProblem(f"{spec.task.value} needs {need} values; {spec.target!r} has {len(labels)}.", here)
    return labels, label_index(column, labels)


def label_index(column: pa.ChunkedArray, labels: tuple[Any, ...]) -> Floats:
    kind = pa.array(labels).type
    if pa.types.is_string(kind):
        kind = pa.large_string()
    try:
        values = pc.cast(column, kind)
    except pa.ArrowInvalid as error:
        raise DataProblem(f"The validation data's target is not of the training data's type: {error}") from error
    return numbers(pc.index_in(values, value_set=pa.array(labels, kind)))


def weights_of(column: pa.ChunkedArray, name: str) -> Floats:
    return checked_weights(numbers(column), name)


def checked_weights(weight: Floats, name: str) -> Floats:
    """Raises `DataProblem` unless every weight is a number of at least 0, and one of them is larger."""
    if not np.isfinite(weight).all() or (weight < 0).any() or weight.sum() <= 0:
        message = f"Every weight in {name!r} must be a number of at least 0, and not all of them 0."
        raise DataProblem(message, ("input", "spec", "weightColumn"))
    return weight


def split_rows(
    spec: TrainingSpec, table: pa.Table, y: Floats, present: NDArray[np.intp], *, provided: bool
) -> tuple[Rows, Rows, Rows]:
    """Row numbers that train, validate and test, each ascending; decided by the seed and the data alone."""
    rows = present.astype(np.int64)
    nothing: Rows = np.empty(0, dtype=np.int64)
    split = spec.split
    if provided:
        return rows, nothing, nothing
    random = np.random.default_rng(spec.seed)
    if split.strategy is SplitStrategy.STRATIFIED:
        parts = [
            _cut(random.permutation(rows[y[rows] == label]), split.validation_fraction, split.test_fraction)
            for label in np.unique(y[rows])
        ]
        train, valid, test = (np.concatenate([part[i] for part in parts]) for i in range(3))
    elif split.strategy is SplitStrategy.GROUP:
        assert spec.group_column is not None
        train, valid, test = _cut_groups(
            random, table[spec.group_column], rows, split.validation_fraction, split.test_fraction
        )
    elif split.strategy is SplitStrategy.TIME:
        assert split.time_column is not None
        times = numbers(table[split.time_column])[rows]
        if not np.isfinite(times).all():
            message = f"{split.time_column!r} is missing in some rows: they have no place in time."
            raise DataProblem(message, ("input", "spec", "split", "timeColumn"))
        newest_first = rows[np.argsort(times, kind="stable")][::-1]
        train, valid, test = _cut(newest_first, split.validation_fraction, split.test_fraction)
    else:
        train, valid, test = _cut(random.permutation(rows), split.validation_fraction, split.test_fraction)
    return np.sort(train), np.sort(valid), np.sort(test)


def _cut(ordered: Rows, validation: float, test: float) -> tuple[Rows, Rows, Rows]:
    """The first rows test, the next validate, the rest train; a positive fraction gets a row when there are enough."""
    count = len(ordered)
    tests = _share(count, test)
    valids = min(_share(count, validation), max(count - tests - 1, 0))
    return ordered[tests + valids :], ordered[tests : tests + valids], ordered[:tests]


def _share(count: int, fraction: float) -> int:
    return 0 if fraction <= 0 or count < 2 else min(max(1, round(count * fraction)), count - 1)


def _cut_groups(
    random: np.random.Generator, column: pa.ChunkedArray, rows: Rows, validation: float, test: float
) -> tuple[Rows, Rows, Rows]:
    encoded = column.combine_chunks().dictionary_encode("encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    groups = np.asarray(encoded.indices)[rows]
    order = random.permutation(np.unique(groups))
    _, first = np.unique(groups, return_inverse=True)
    sizes = np.bincount(first)
    by_group = dict(zip(np.unique(groups).tolist(), sizes.tolist(), strict=True))
    filled = np.cumsum([by_group[group] for group in order.tolist()])
    tests = np.searchsorted(filled, test * len(rows), side="left") + 1 if test > 0 else 0
    before = filled[tests - 1] if tests else 0
    valids = np.searchsorted(filled[tests:] - before, validation * len(rows), side="left") + 1 if validation > 0 else 0
    if tests + valids >= len(order):
        message = f"{len(order)} groups are too few for this split."
        raise DataProblem(message, ("input", "spec", "groupColumn"))
    test_mask = np.isin(groups, order[:tests])
    valid_mask = np.isin(groups, order[tests : tests + valids])
    return rows[~test_mask & ~valid_mask], rows[valid_mask], rows[test_mask]
