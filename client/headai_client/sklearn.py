"""Estimators of scikit-learn, reported: what they were given, what they score, and the curve they leave."""

from __future__ import annotations

from typing import Any, TypeVar

from sklearn.base import is_classifier
from sklearn.metrics import get_scorer

from headai_client.run import Run

EstimatorT = TypeVar("EstimatorT")
_CLASSIFIER = ("accuracy", "f1_macro", "neg_log_loss")
_REGRESSOR = ("r2", "neg_root_mean_squared_error", "neg_mean_absolute_error")
_CURVES = {"loss_curve_": "train.loss", "train_score_": "train.loss", "validation_scores_": "valid.score"}


def fit(
    run: Run,
    estimator: EstimatorT,
    X: Any,
    y: Any,
    *,
    valid: tuple[Any, Any] | None = None,
    scoring: tuple[str, ...] | None = None,
) -> EstimatorT:
    """Fit the estimator and log its parameters, its curve if it keeps one, and its scores as `train.accuracy`.

    `scoring` are names of scikit-learn's scorers; one that the estimator cannot be scored with is left out.
    """
    fitted: Any = estimator
    run.log_params(fitted.get_params())
    fitted.fit(X, y)
    for attribute, name in _CURVES.items():
        curve = getattr(fitted, attribute, None)
        for step, value in enumerate(() if curve is None else curve):
            run.log({name: value}, step=step)
    chosen = scoring or (_CLASSIFIER if is_classifier(fitted) else _REGRESSOR)
    for split, data in (("train", (X, y)), ("valid", valid)):
        if data is not None:
            log_scores(run, fitted, *data, split=split, scoring=chosen)
    return estimator


def log_scores(run: Run, estimator: Any, X: Any, y: Any, *, split: str, scoring: tuple[str, ...]) -> dict[str, float]:
    """The scores of a fitted estimator on some rows, logged at step 0; by scorer."""
    scores: dict[str, float] = {}
    for name in scoring:
        try:
            scores[name] = float(get_scorer(name)(estimator, X, y))
        except (AttributeError, ValueError) as error:
            run.log_line(f"{split}.{name} cannot be scored: {error}", level="WARNING", stream="SYSTEM")
    named = {f"{split}.{name}": score for name, score in scores.items()}
    run.log(named, step=0, higher_is_better=dict.fromkeys(named, True))
    return scores


def log_search(run: Run, search: Any) -> None:
    """Each candidate of a fitted GridSearchCV or RandomizedSearchCV as a step, and the best as the parameters."""
    run.log_params({f"best.{name}": value for name, value in search.best_params_.items()})
    for step, score in enumerate(search.cv_results_["mean_test_score"]):
        run.log({"valid.score": score}, step=step, higher_is_better={"valid.score": True})
