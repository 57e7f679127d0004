"""How well scores tell positives from negatives at every threshold: ROC, precision-recall, calibration and lift.

Points and areas are those of scikit-learn: `roc_curve`, `roc_auc_score`, `precision_recall_curve`,
`average_precision_score` and `calibration_curve`. Areas are of the whole curve; of its points at most `MOST_POINTS` are
kept, the first and the last among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_POINTS = 500
MOST_CLASSES = 20
BINS = 10


def auc(y: Floats, score: Floats, weight: Floats | None) -> float:
    """Area under the ROC curve, ties counted half; NaN when one class is absent."""
    positive, negative = by_threshold(y, score, weight)
    if positive.sum() == 0 or negative.sum() == 0:
        return float("nan")
    below = np.cumsum(negative) - negative
    return float((positive * (negative.sum() - below - negative / 2.0)).sum() / (positive.sum() * negative.sum()))


def average_precision(y: Floats, score: Floats, weight: Floats | None) -> float:
    """Sum over thresholds of precision times the step in recall."""
    positive, negative = by_threshold(y, score, weight)
    if positive.sum() == 0:
        return float("nan")
    hits = np.cumsum(positive)
    precision = hits / (hits + np.cumsum(negative))
    return float((precision * positive).sum() / positive.sum())


def by_threshold(y: Floats, score: Floats, weight: Floats | None) -> tuple[Floats, Floats]:
    """Weights of positives and of negatives at each distinct score, highest first."""
    weights = np.ones_like(y) if weight is None else weight
    _, at = np.unique(-score, return_inverse=True)
    positive: Floats = np.bincount(at, weights=weights * (y == 1)).astype(np.float64)
    negative: Floats = np.bincount(at, weights=weights * (y != 1)).astype(np.float64)
    return positive, negative


def drawn(y: Floats, predicted: Floats, weight: Floats | None, labels: Sequence[str]) -> list[dict[str, Any]]:
    """`{kind, label, x, y, area}`: the curves of the second of two labels, or of each label against all others.

    Of more than `MOST_CLASSES` labels those with the most rows are drawn. A label that no row has, or every row, has
    no curves.
    """
    if predicted.ndim == 1:
        scores = [(1, predicted)]
    else:
        counts = np.bincount(y.astype(np.int64), minlength=len(labels))
        chosen = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
        scores = [(label, predicted[:, label]) for label in chosen.tolist()]
    found: list[dict[str, Any]] = []
    for label, score in scores:
        is_it = (y == label).astype(np.float64)
        positive, negative = by_threshold(is_it, score, weight)
        if positive.sum() == 0 or negative.sum() == 0:
            continue
        counted = positive + negative > 0
        positive, negative = positive[counted], negative[counted]
        for kind, (x, height, area) in (
            ("ROC", _roc(is_it, score, weight, positive, negative)),
            ("PRECISION_RECALL", _precision_recall(is_it, score, weight, positive, negative)),
            ("CALIBRATION", _calibration(is_it, score, weight)),
            ("LIFT", _lift(positive, negative)),
        ):
            kept = _thinned(x, height)
            found.append(
                {"kind": kind, "label": labels[label], "x": x[kept].tolist(), "y": height[kept].tolist(), "area": area}
            )
    return found


Curve = tuple[Floats, Floats, float | None]


def _roc(y: Floats, score: Floats, weight: Floats | None, positive: Floats, negative: Floats) -> Curve:
    """False positives against true positives, each as a share, from (0, 0) to (1, 1)."""
    false, true = np.cumsum(negative), np.cumsum(positive)
    x, height = np.concatenate([[0.0], false / false[-1]]), np.concatenate([[0.0], true / true[-1]])
    return x, height, auc(y, score, weight)


def _precision_recall(y: Floats, score: Floats, weight: Floats | None, positive: Floats, negative: Floats) -> Curve:
    """Recall against precision, from no row chosen (0, 1) to all rows chosen."""
    true = np.cumsum(positive)
    precision = true / (true + np.cumsum(negative))
    x, height = np.concatenate([[0.0], true / true[-1]]), np.concatenate([[1.0], precision])
    return x, height, average_precision(y, score, weight)


def _calibration(y: Floats, score: Floats, weight: Floats | None) -> Curve:
    """The mean probability against the share of positives, in each tenth of the probabilities that holds rows."""
    weights = np.ones_like(y) if weight is None else weight
    bins = np.searchsorted(np.linspace(0.0, 1.0, BINS + 1)[1:-1], score)
    total = np.bincount(bins, weights=weights, minlength=BINS)
    held = total > 0
    mean = np.bincount(bins, weights=weights * score, minlength=BINS)[held] / total[held]
    share = np.bincount(bins, weights=weights * y, minlength=BINS)[held] / total[held]
    return mean, share, None


def _lift(positive: Floats, negative: Floats) -> Curve:
    """The share of rows chosen, highest scores first, against how many times more positives they hold than chance."""
    chosen = np.cumsum(positive + negative) / (positive + negative).sum()
    return chosen, np.cumsum(positive) / positive.sum() / chosen, None


def _thinned(x: Floats, height: Floats) -> NDArray[np.int64]:
    """Which points to keep: all, or `MOST_POINTS` at equal steps along the curve."""
    if len(x) <= MOST_POINTS:
        return np.arange(len(x))
    spread = max(float(np.ptp(height)), 1e-12)
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(height)) / spread)])
    kept = np.searchsorted(way, np.linspace(0.0, way[-1], MOST_POINTS))
    return np.unique(np.concatenate([[0], np.minimum(kept, len(x) - 1), [len(x) - 1]]))
