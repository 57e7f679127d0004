"""How good predictions are: metrics, confusion matrix and importance, as scikit-learn defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from ml import curves
from ml.algorithm import METRICS
from ml.curves import auc, average_precision
from ml.preparation import Floats, Part, Prepared, matrix
from ml.spec import Task, TrainingSpec

EXTRA_METRICS: dict[Task, tuple[str, ...]] = {
    Task.BINARY_CLASSIFICATION: ("auc", "average_precision", "binary_logloss", "accuracy", "f1"),
    Task.MULTICLASS_CLASSIFICATION: ("multi_logloss", "accuracy", "f1"),
    Task.REGRESSION: ("rmse", "mae", "r2"),
}
_EPS = 1e-15
_PREDICT_ROWS = 100_000
_SHAP_BUDGET = 3_000_000
_PERMUTATION_BUDGET = 10_000_000
_PERMUTED_FEATURES = 200
MOST_SAMPLED = 2000
"""Rows that importance is worked out on, at the most."""

Labels = NDArray[np.int64]


def weighted_confusion(y: Floats, predicted: Labels, classes: int, weight: Floats | None) -> Floats:
    """A square table of sums of weights: actual, then predicted."""
    cells = y.astype(np.int64) * classes + predicted
    return np.bincount(cells, weights=weight, minlength=classes * classes).reshape(classes, classes).astype(np.float64)


def f1(y: Floats, predicted: Labels, classes: int, weight: Floats | None) -> float:
    """F1 of the second class of two; the unweighted mean over the classes of more (scikit-learn's macro)."""
    table = weighted_confusion(y, predicted, classes, weight)
    hits = np.diag(table)
    total = table.sum(axis=0) + table.sum(axis=1)
    scores = np.divide(2.0 * hits, total, out=np.zeros(classes), where=total > 0)
    if classes == 2:
        return float(scores[1])
    return float(scores[total > 0].mean())


def compute(name: str, y: Floats, predicted: Floats, weight: Floats | None) -> float:
    """One metric by its canonical name; `predicted` is n probabilities or values, or n rows of class probabilities."""

    def mean(values: Floats) -> float:
        return float(np.average(values, weights=weight))

    if name in ("rmse", "mse", "mae", "mape", "r2"):
        error = predicted - y
        if name == "mae":
            return mean(np.abs(error))
        if name == "mape":
            return mean(np.abs(error) / np.maximum(1.0, np.abs(y)))
        mse = mean(error**2)
        if name == "mse":
            return mse
        if name == "rmse":
            return float(np.sqrt(mse))
        spread = mean((y - np.average(y, weights=weight)) ** 2)
        return 1.0 - mse / spread if spread > 0 else float("nan")
    if name == "auc":
        return auc(y, predicted, weight)
    if name == "average_precision":
        return average_precision(y, predicted, weight)
    chosen = choose(predicted)
    if name == "f1":
        return f1(y, chosen, 2 if predicted.ndim == 1 else predicted.shape[1], weight)
    if name in ("accuracy", "binary_error", "multi_error"):
        right = mean((chosen == y).astype(np.float64))
        return right if name == "accuracy" else 1.0 - right
    if name == "binary_logloss":
        likelihood = np.where(y == 1, predicted, 1.0 - predicted)
        return -mean(np.log(np.clip(likelihood, _EPS, 1.0)))
    if name == "multi_logloss":
        likelihood = predicted[np.arange(len(y)), y.astype(np.int64)]
        return -mean(np.log(np.clip(likelihood, _EPS, 1.0)))
    raise ValueError(name)


def choose(predicted: Floats) -> Labels:
    """The index of the predicted label: above one half, or the most probable."""
    if predicted.ndim == 1:
        return (predicted > 0.5).astype(np.int64)
    best: Labels = predicted.argmax(axis=1).astype(np.int64)
    return best


def predict_part(booster: lgb.Booster, part: Part) -> Floats:
    """Predictions of all rows of a part, in bounded memory."""
    count = len(part.y)
    pieces = [
        np.asarray(booster.predict(matrix(part, np.arange(at, min(at + _PREDICT_ROWS, count), dtype=np.int64))))
        for at in range(0, count, _PREDICT_ROWS)
    ]
    return np.concatenate(pieces)


def metric_names(task: Task, asked: Sequence[str]) -> list[str]:
    """The metrics of an evaluation: those asked for, then the usual ones; `auc_mu` only LightGBM itself computes."""
    return [name for name in dict.fromkeys((*asked, *EXTRA_METRICS[task])) if name != "auc_mu"]


def evaluate(booster: lgb.Booster, spec: TrainingSpec, prepared: Prepared, part: Part, split: str) -> dict[str, Any]:
    """What `measured` says of the model on a part of the rows."""
    predicted = predict_part(booster, part)
    names = metric_names(spec.task, spec.evaluation_metrics)
    return measured(names, part.y, predicted, part.weight, prepared.labels, split)


def measured(
    names: Sequence[str],
    y: Floats,
    predicted: Floats,
    weight: Floats | None,
    labels: Sequence[Any] | None,
    split: str,
) -> dict[str, Any]:
    """`{split, rows, metrics: [{name, value, higher_is_better}], confusion_matrix: {labels, counts} | None, curves}`.

    A metric that is not defined on these rows (AUC with one class) has the value None. The confusion matrix counts
    rows, whatever their weight.
    """
    metrics = []
    for name in names:
        value = compute(name, y, predicted, weight)
        metrics.append(
            {
                "name": name,
                "value": value if np.isfinite(value) else None,
                "higher_is_better": METRICS[name].higher_is_better,
            }
        )
    confusion, drawn = None, []
    if labels is not None:
        counts = weighted_confusion(y, choose(predicted), len(labels), None)
        texts = [label_text(label) for label in labels]
        confusion = {"labels": texts, "counts": counts.astype(np.int64).ravel().tolist()}
        drawn = curves.drawn(y, predicted, weight, texts)
    return {"split": split, "rows": len(y), "metrics": metrics, "confusion_matrix": confusion, "curves": drawn}


def label_text(label: Any) -> str:
    """A label as text; booleans as JSON writes them."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def importance(booster: lgb.Booster, spec: TrainingSpec, prepared: Prepared) -> dict[str, list[dict[str, Any]]]:
    """Importance of every feature by GAIN, SPLIT, SHAP and PERMUTATION: `[{feature, importance, share, rank}]`.

    SHAP is the mean absolute contribution to the raw score (over the classes, too; LightGBM tells none of linear trees,
    and the list is empty), PERMUTATION the loss in the first
    metric when the feature's values are shuffled; both on a sample of the validation rows (of the training rows when
    there are none) whose size depends on the model alone, so that the answer is repeatable.
    """
    part = prepared.valid or prepared.train
    random = np.random.default_rng(spec.seed)
    trees, features = max(booster.num_trees(), 1), len(prepared.features)
    leaves = trees * int(spec.params.get("num_leaves", 31))
    gain = booster.feature_importance("gain").astype(np.float64)

    def sample(size: int) -> NDArray[np.int64]:
        size = min(size, len(part.y))
        return np.sort(random.choice(len(part.y), size, replace=False)).astype(np.int64)

    rows = sample(int(np.clip(_SHAP_BUDGET // leaves, 10, 500)))
    shap = None
    if not spec.params.get("linear_tree"):
        contributions = np.abs(np.asarray(booster.predict(matrix(part, rows), pred_contrib=True)))
        shap = contributions.reshape(len(rows), -1, features + 1)[:, :, :features].mean(axis=(0, 1))
    rows = sample(int(np.clip(_PERMUTATION_BUDGET // (trees * min(features, _PERMUTED_FEATURES)), 50, 2000)))
    permutation = _permutation(booster, spec, part, rows, np.argsort(-gain, kind="stable")[:_PERMUTED_FEATURES], random)
    names = [f.name for f in prepared.features]
    return {
        "GAIN": ranked(names, gain),
        "SPLIT": ranked(names, booster.feature_importance("split").astype(np.float64)),
        "SHAP": [] if shap is None else ranked(names, shap),
        "PERMUTATION": ranked(names, permutation),
    }


def _permutation(
    booster: lgb.Booster,
    spec: TrainingSpec,
    part: Part,
    rows: NDArray[np.int64],
    order: NDArray[np.intp],
    random: np.random.Generator,
) -> Floats:
    name = metric_names(spec.task, spec.evaluation_metrics)[0]
    weight = None if part.weight is None else part.weight[rows]
    return permuted(booster, name, matrix(part, rows), part.y[rows], weight, order, random)


def permuted(
    booster: lgb.Booster,
    name: str,
    values: Floats,
    y: Floats,
    weight: Floats | None,
    order: NDArray[np.intp],
    random: np.random.Generator,
) -> Floats:
    """How much worse the metric gets when one feature after the other, of those in `order`, is shuffled."""
    sign = 1.0 if METRICS[name].higher_is_better else -1.0
    if weight is not None and weight.sum() == 0:
        weight = None
    score: Callable[[], float] = lambda: compute(name, y, np.asarray(booster.predict(values)), weight)  # noqa: E731
    base = score()
    drops = np.zeros(values.shape[1])
    for feature in order:
        kept = values[:, feature].copy()
        values[:, feature] = random.permutation(kept)
        drops[feature] = sign * (base - score())
        values[:, feature] = kept
    return np.nan_to_num(drops)


def importance_on(
    booster: lgb.Booster, names: Sequence[str], metric: str, values: Floats, y: Floats, weight: Floats | None
) -> dict[str, list[dict[str, Any]]]:
    """Importance by SHAP and PERMUTATION on these rows, as `importance` tells it; it may need fewer of them."""
    trees, features = max(booster.num_trees(), 1), len(names)
    contributed = values[: int(np.clip(_SHAP_BUDGET // (trees * 31), 10, 500))]
    shap: list[dict[str, Any]] = []
    try:
        flat = np.abs(np.asarray(booster.predict(contributed, pred_contrib=True)))
    except lgb.basic.LightGBMError:  # linear trees
        pass
    else:
        by_class = flat.reshape(len(contributed), -1, features + 1)
        shap = ranked(names, by_class[:, :, :features].mean(axis=(0, 1)))
    rows = slice(int(np.clip(_PERMUTATION_BUDGET // (trees * min(features, _PERMUTED_FEATURES)), 50, MOST_SAMPLED)))
    order = np.argsort(-booster.feature_importance("gain"), kind="stable")[:_PERMUTED_FEATURES]
    given = None if weight is None else weight[rows]
    drops = permuted(booster, metric, values[rows].copy(), y[rows], given, order, np.random.default_rng(0))
    return {"SHAP": shap, "PERMUTATION": ranked(names, drops)}


def ranked(names: Sequence[str], values: Floats) -> list[dict[str, Any]]:
    positive = np.maximum(values, 0.0)
    total = positive.sum()
    return [
        {
            "feature": names[i],
            "importance": float(values[i]),
            "share": float(positive[i] / total) if total > 0 else 0.0,
            "rank": rank,
        }
        for rank, i in enumerate(np.argsort(-values, kind="stable").tolist(), start=1)
    ]
