"""Predict rows of JSON values with a trained model, checked against the model's signature."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from ml import artifact
from ml.evaluation import choose, label_text
from ml.messages import DataProblem, SchemaMismatch, TypeMismatch, UnknownCategory

LOADED_MODELS = 8
_MUCH_WORK = 1_000_000
"""Rows times trees from which more than one thread is worth waking."""
_NUMBERS = frozenset({int, float})
_EPOCH = date(1970, 1, 1)

Row = dict[str, Any]


def score(
    folder: str, sha256: str, rows: Sequence[Row], probabilities: bool, contributions: bool
) -> list[dict[str, Any]]:
    """`Scorer.score` with the models of this process kept loaded, the last used of them."""
    scorer = _loaded.get((folder, sha256))
    if scorer is None:
        scorer = Scorer.load(folder, sha256)
        _loaded[folder, sha256] = scorer
        while len(_loaded) > LOADED_MODELS:
            _loaded.popitem(last=False)
    _loaded.move_to_end((folder, sha256))
    return scorer.score(rows, probabilities=probabilities, contributions=contributions)


class Scorer:
    """A model in memory. Load it in a child process: a damaged text can end the process."""

    def __init__(self, booster: lgb.Booster, manifest: dict[str, Any]) -> None:
        features = manifest["features"]
        categories = manifest["categories"]
        self._booster = booster
        self._trees = booster.num_trees()
        self._names: list[str] = [f["name"] for f in features]
        self._types: list[str] = [f["type"] for f in features]
        self._categories: dict[str, list[str]] = categories
        self._readers = [_reader(f["type"], categories.get(f["name"])) for f in features]
        self._keys = frozenset(self._names)
        self._all_numbers = all(reader is _number for reader in self._readers)
        self._labels: list[Any] | None = manifest["labels"]
        self._texts = None if self._labels is None else [label_text(label) for label in self._labels]

    @classmethod
    def load(cls, folder: str | Path, sha256: str) -> Scorer:
        """Raises `DigestMismatch` and `ModelUnreadable`, as `artifact.load`."""
        return cls(*artifact.load(folder, sha256))

    def score(
        self, rows: Sequence[Row], *, probabilities: bool = False, contributions: bool = False
    ) -> list[dict[str, Any]]:
        """One `{value, probabilities, contributions}` a row; the latter two None unless asked for.

        `value` is the label in the type of the training data, or the predicted number. Contributions are to the raw
        score and end with `<base>`; for more than two classes they are those of the predicted class. A null is a
        missing value. Raises `SchemaMismatch` for the first row that lacks a feature, has one too many, or a value of
        another type, and `UnknownCategory` for one with a category the model has not met.
        """
        if not rows:
            return []
        values = self.matrix(rows)
        threads = 1 if len(rows) * self._trees < _MUCH_WORK else 0
        predicted = np.asarray(self._booster.predict(values, num_threads=threads))
        labels, texts = self._labels, self._texts
        outputs: list[dict[str, Any]]
        if labels is None or texts is None:
            outputs = [{"value": v, "probabilities": None, "contributions": None} for v in predicted.tolist()]
            chosen = np.zeros(len(rows), dtype=np.int64)
        else:
            chosen = choose(predicted)
            outputs = [{"value": labels[i], "probabilities": None, "contributions": None} for i in chosen.tolist()]
            if probabilities:
                shares = np.column_stack([1.0 - predicted, predicted]) if predicted.ndim == 1 else predicted
                for output, row in zip(outputs, shares.tolist(), strict=True):
                    output["probabilities"] = [
                        {"label": label, "probability": share} for label, share in zip(texts, row, strict=True)
                    ]
        if contributions:
            self._add_contributions(outputs, values, chosen, threads)
        return outputs

    def raw_scores(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """The scores that contributions sum to: one a row, or one a class."""
        return np.asarray(self._booster.predict(self.matrix(rows), raw_score=True))

    def _add_contributions(
        self, outputs: list[dict[str, Any]], values: NDArray[np.float64], chosen: NDArray[np.int64], threads: int
    ) -> None:
        width = len(self._names) + 1
        try:
            flat = np.asarray(self._booster.predict(values, pred_contrib=True, num_threads=threads))
        except lgb.basic.LightGBMError as error:
            message = f"LightGBM tells no contributions of this model: {error}"
            raise DataProblem(message, ("input", "includeContributions")) from error
        by_class = flat.reshape(len(outputs), -1, width)
        one = by_class[:, 0] if by_class.shape[1] == 1 else by_class[np.arange(len(outputs)), chosen]
        names = [*self._names, "<base>"]
        for output, row in zip(outputs, one.tolist(), strict=True):
            output["contributions"] = [
                {"feature": name, "contribution": value} for name, value in zip(names, row, strict=True)
            ]

    def matrix(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Rows as LightGBM takes them: float64, features in the model's order, NaN where missing."""
        names = tuple(self._names)
        in_order = True
        for index, row in enumerate(rows):
            if tuple(row) != names:
                in_order = False
                if row.keys() != self._keys:
                    raise self._mismatch(index, row)
        if in_order and self._all_numbers:
            flat = list(chain.from_iterable(row.values() for row in rows))
            if _NUMBERS.issuperset(map(type, flat)):
                with suppress(OverflowError):
                    values = np.array(flat, dtype=np.float64).reshape(len(rows), -1)
                    if np.isfinite(values).all():
                        return values
        values = np.empty((len(rows), len(self._names)))
        for column, (name, reader) in enumerate(zip(self._names, self._readers, strict=True)):
            cells = [row[name] for row in rows]
            if reader is _number and _NUMBERS.issuperset(map(type, cells)):
                try:
                    values[:, column] = cells
                except OverflowError:
                    values[:, column] = math.inf
            else:
                values[:, column] = [math.nan if cell is None else reader(cell) for cell in cells]
        wrong = np.isinf(values)
        if wrong.any() or self._has_nan(rows, values):
            self._raise_first(rows)
        return values

    def _has_nan(self, rows: Sequence[Row], values: NDArray[np.float64]) -> bool:
        """Whether a cell is NaN itself: only a null is a missing value."""
        return any(
            isinstance(rows[i][self._names[j]], float) and math.isnan(rows[i][self._names[j]])
            for i, j in np.argwhere(np.isnan(values)).tolist()
        )

    def _raise_first(self, rows: Sequence[Row]) -> None:
        for index, row in enumerate(rows):
            error = self._mismatch(index, row)
            if error.type_mismatches:
                raise error
            for name, reader in zip(self._names, self._readers, strict=True):
                if row[name] is not None and reader(row[name]) == UNKNOWN:
                    raise UnknownCategory(index, name, row[name], tuple(self._categories[name]))
        raise AssertionError("A value was refused that fits the signature.")

    def _mismatch(self, index: int, row: Row) -> SchemaMismatch:
        mismatches = tuple(
            TypeMismatch(name, kind, _type_of(row[name]))
            for name, kind, reader in zip(self._names, self._types, self._readers, strict=True)
            if name in row and row[name] is not None and reader(row[name]) == math.inf
        )
        missing = tuple(name for name in self._names if name not in row)
        unexpected = tuple(name for name in row if name not in self._keys)
        return SchemaMismatch(index, missing, unexpected, mismatches)


Reader = Callable[[Any], float]
"""A JSON value as a feature: a number, `UNKNOWN` for a category the model has not met, infinity for another type."""
UNKNOWN = -math.inf


def _reader(kind: str, categories: list[str] | None) -> Reader:
    if categories is not None:
        codes = {category: float(code) for code, category in enumerate(categories)}
        return lambda value: codes.get(value, UNKNOWN) if type(value) is str else math.inf
    return {"BOOLEAN": _boolean, "DATE": _days, "DATETIME": _seconds}.get(kind, _number)


def _number(value: Any) -> float:
    if type(value) is float:
        return value if math.isfinite(value) else math.inf
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return math.inf


def _boolean(value: Any) -> float:
    return float(value) if type(value) is bool else math.inf


def _days(value: Any) -> float:
    try:
        return float((date.fromisoformat(value) - _EPOCH).days)
    except (TypeError, ValueError):
        return math.inf


def _seconds(value: Any) -> float:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return math.inf
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _type_of(value: Any) -> str:
    """The contract's ColumnType of a JSON value; UNKNOWN for a number that is not finite."""
    if isinstance(value, bool):
        return "BOOLEAN"
    if isinstance(value, int):
        return "INTEGER" if abs(value) < 2**63 else "UNKNOWN"
    if isinstance(value, float):
        return "FLOAT" if math.isfinite(value) else "UNKNOWN"
    if isinstance(value, str):
        return "STRING"
    if isinstance(value, list):
        return "LIST"
    return "STRUCT" if isinstance(value, dict) else "UNKNOWN"


_loaded: OrderedDict[tuple[str, str], Scorer] = OrderedDict()
