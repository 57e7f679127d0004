"""How good a model is on data it was not made of: predict every row whose target is known, and compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ml.batches import TableModel, rows_of
from ml.children import Control
from ml.evaluation import MOST_SAMPLED, importance_on, measured, metric_names
from ml.messages import DataProblem, EvaluateJob, RowsDone
from ml.preparation import checked_weights, label_index, null_mask, numbers
from ml.spec import Task

ALL_ROWS = "all"
"""The split of an evaluation on every row of a dataset version."""


def evaluate_in_child(control: Control, job: EvaluateJob) -> dict[str, Any]:
    """What `evaluation.measured` says, of the split `all`; rows without a target are left out.

    For a model whose importance by SHAP and permutation nobody has worked out yet, `importance` holds both, worked out
    on a sample of the rows. A category the model has not met is a missing value, as it is when a run is validated. The
    rows are read in pieces; their targets and predictions are held together. Raises `DataProblem` when the target
    cannot be compared.
    """
    model = TableModel.load(job.model, job.sha256)
    task = Task(model.manifest["task"])
    spec = model.manifest.get("spec") or {}
    names = list(job.metrics) if job.metrics else metric_names(task, spec.get("evaluation_metrics") or ())
    wanted = list(dict.fromkeys([*model.names, job.target, *([job.weight_column] if job.weight_column else [])]))
    total, done = pq.read_metadata(job.data).num_rows, 0
    targets, predictions, weights = [], [], []
    sampled, sample = _sampled(total), []
    for table in rows_of(job.data, wanted, start=0, rows_at_once=model.rows_at_once):
        done += len(table)
        column = table[job.target]
        if model.labels is None:
            y = numbers(column)
            y[~np.isfinite(y)] = np.nan
        else:
            y = label_index(column, tuple(model.labels))
            if (np.isnan(y) & ~null_mask(column)).any():
                message = f"The data have values of {job.target!r} that the model does not know."
                raise DataProblem(message, ("input", "datasetVersionId"))
        known = np.flatnonzero(np.isfinite(y))
        if len(known):
            values, _ = model.matrix(table.take(known))
            targets.append(y[known])
            predictions.append(np.asarray(model.booster.predict(values, num_threads=job.threads)))
            picked = sampled[done - len(table) : done][known]
            sample.append((values[picked], picked))
            if job.weight_column is not None:
                weights.append(numbers(table[job.weight_column])[known])
        control.report(RowsDone(done, total))
    if not targets:
        raise DataProblem("No row of the data has a value of the target.", ("input", "datasetVersionId"))
    weight = None
    if job.weight_column is not None:
        weight = checked_weights(np.concatenate(weights), job.weight_column)
    y = np.concatenate(targets)
    found = measured(names, y, np.concatenate(predictions), weight, model.labels, ALL_ROWS)
    if "SHAP" not in model.manifest["importance"]:
        picked = np.concatenate([rows for _, rows in sample])
        values = np.concatenate([values for values, _ in sample])
        found["importance"] = importance_on(
            model.booster, model.names, names[0], values, y[picked], None if weight is None else weight[picked]
        )
    return found


def _sampled(total: int) -> NDArray[np.bool_]:
    """Which of all rows importance is worked out on: the same ones every time."""
    sampled = np.zeros(total, dtype=np.bool_)
    sampled[np.random.default_rng(0).choice(total, min(total, MOST_SAMPLED), replace=False)] = True
    return sampled
