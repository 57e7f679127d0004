"""Train one LightGBM model from Parquet: boost round by round with metrics, stop early or when asked, keep the best.

For the same data and spec the model text is the same, byte for byte, whatever the number of threads.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np

from ml import artifact, checkpoints
from ml.algorithm import METRICS, native_metric
from ml.checkpoints import Reached
from ml.children import Control
from ml.evaluation import f1
from ml.messages import Checkpoint, DataProblem, Ended, LogLine, Phase, RoundDone, Stop, TrainJob, TrainResult
from ml.preparation import Floats, Prepared, prepare
from ml.spec import Task, TrainingSpec

Report = Callable[[RoundDone | LogLine | Phase | Checkpoint], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """`model` is the text of the rounds kept; `best_step` is the last of them, None when nothing is kept.

    `resumed_at` are the rounds at which training went on from a checkpoint.
    """

    ended: Ended
    rounds: int
    best_step: int | None
    best_metrics: dict[str, float]
    model: str
    params: dict[str, Any]
    resumed_at: tuple[int, ...]


def train_in_child(control: Control, job: TrainJob) -> TrainResult:
    """The function a worker runs in a child."""
    return train(job, control.report, control.stop)


def train(job: TrainJob, report: Report, should_stop: Callable[[], Stop | None]) -> TrainResult:
    """Train, evaluate and write the artifact into `job.output`.

    Raises `DataProblem` when the data cannot be trained on or LightGBM refuses the parameters.
    """
    report(Phase("preparing", 0.0))
    prepared = prepare(job)
    fitted = fit(job, prepared, report, should_stop)
    if fitted.best_step is None:
        return TrainResult(
            ended=fitted.ended, rounds=fitted.rounds, best_step=None, best_metrics={}, files=(), manifest=None
        )
    report(Phase("evaluating", None))
    files, manifest = artifact.write(
        job,
        prepared,
        model=fitted.model,
        params=fitted.params,
        ended=fitted.ended,
        rounds=fitted.rounds,
        best_step=fitted.best_step,
        resumed_at=fitted.resumed_at,
    )
    report(Phase("finished", 1.0))
    return TrainResult(
        ended=fitted.ended,
        rounds=fitted.rounds,
        best_step=fitted.best_step,
        best_metrics=fitted.best_metrics,
        files=files,
        manifest=manifest,
    )


class _Log:
    """Takes LightGBM's log; a line that repeats the one before is said once."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._last = ""

    def info(self, text: str) -> None:
        self._say("INFO", text)

    def warning(self, text: str) -> None:
        self._say("WARNING", text)

    def _say(self, level: str, text: str) -> None:
        text = text.strip()
        for prefix, prefix_level in (("[LightGBM] [Info] ", "INFO"), ("[LightGBM] [Warning] ", "WARNING")):
            if text.startswith(prefix):
                level, text = prefix_level, text[len(prefix) :]
        if text and text != self._last:
            self._last = text
            self._report(LogLine(_now_ms(), level, "SYSTEM", text))


def engine_params(job: TrainJob, prepared: Prepared) -> dict[str, Any]:
    """The parameters LightGBM is given: the caller's, and what makes a run repeatable."""
    spec = job.spec
    natives = [native_metric(name, spec.task) for name in spec.evaluation_metrics]
    params = {name: value for name, value in spec.params.items() if name != "early_stopping_min_delta"}
    params |= {
        "metric": list(dict.fromkeys(n for n in natives if n)) or ["none"],
        "seed": spec.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": job.threads,
        "verbosity": 1,
    }
    if spec.task is Task.MULTICLASS_CLASSIFICATION:
        assert prepared.labels is not None
        params["num_class"] = len(prepared.labels)
    return params


class _Metrics:
    """Turns LightGBM's evaluation of a round into the metrics that were asked for."""

    def __init__(self, spec: TrainingSpec, prepared: Prepared) -> None:
        self._task = spec.task
        self._asked = [(name, native_metric(name, spec.task)) for name in spec.evaluation_metrics]
        self._variance: dict[str, float] = {}
        for split, part in (("train", prepared.train), ("valid", prepared.valid)):
            if part is not None and spec.task is Task.REGRESSION:
                mean = np.average(part.y, weights=part.weight)
                self._variance[split] = float(np.average((part.y - mean) ** 2, weights=part.weight))
        self.function = self._f1 if "f1" in spec.evaluation_metrics else None

    def _f1(self, scores: Floats, data: lgb.Dataset) -> tuple[str, float, bool]:
        y = np.asarray(data.get_label())
        predicted = (scores > 0.5).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
        classes = 2 if scores.ndim == 1 else scores.shape[1]
        weight = data.get_weight()
        return "f1", f1(y, predicted, classes, None if weight is None else np.asarray(weight)), True

    def named(self, results: Sequence[lgb.basic.EvalResult]) -> dict[str, float]:
        found = {(r.dataset_name, r.metric_name): r.metric_value for r in results}
        splits = list(dict.fromkeys(r.dataset_name for r in results))
        metrics: dict[str, float] = {}
        for split in splits:
            for name, native in self._asked:
                value = float(found[split, native or name])
                if name == "accuracy":
                    value = 1.0 - value
                elif name == "r2":
                    variance = self._variance[split]
                    value = 1.0 - value / variance if variance > 0 else math.nan
                metrics[f"{split}.{name}"] = value
        return metrics


def fit(job: TrainJob, prepared: Prepared, report: Report, should_stop: Callable[[], Stop | None]) -> Fitted:
    """Boost until the rounds are done, the first metric has stopped improving, or a stop is asked for.

    The rounds kept are: with early stopping, or after a cancel that keeps the best, those up to the best round by the
    first metric on the validation rows (the training rows when there are none); else all. Going on from a checkpoint
    gives the model of an undisturbed run, byte for byte, unless `checkpoints.repeats` says otherwise.
    """
    spec = job.spec
    lgb.register_logger(_Log(report))
    params = engine_params(job, prepared)
    metrics = _Metrics(spec, prepared)
    reached = None if job.checkpoint is None else checkpoints.read(job.checkpoint)
    resumed_at = () if reached is None else (*reached.resumed_at, reached.rounds)
    checkpointing = checkpoints.Writer(job)
    try:
        booster = _booster(params, prepared, None if reached is None else reached.model)
        watch = _Best(spec, "valid" if prepared.valid is not None else "train")
        ended, rounds, asked = Ended.COMPLETED, 0, None
        if reached is not None:
            rounds, named = reached.rounds, reached.metrics
            watch.restore(reached)
        report(Phase("training", 0.0))
        for step in range(rounds, spec.num_rounds):
            asked = should_stop()
            if asked is not None:
                ended = Ended.CANCELED
                break
            booster.update()
            results = booster.eval_train(metrics.function)
            if prepared.valid is not None:
                results += booster.eval_valid(metrics.function)
            named = metrics.named(results)
            rounds = step + 1
            report(RoundDone(step, _now_ms(), named))
            if watch.exhausted(step, named):
                ended = Ended.EARLY_STOPPED
                break
            if checkpointing.due():
                report(checkpointing.write(_reached(booster, rounds, named, watch, resumed_at)))
    except lgb.basic.LightGBMError as error:
        raise _refused(error) from error
    if rounds == 0 or asked is Stop.DISCARD:
        return Fitted(ended, rounds, None, {}, "", params, resumed_at)
    best = watch.step if spec.early_stopping_rounds is not None or ended is Ended.CANCELED else rounds - 1
    text = _without_threads(booster.model_to_string(num_iteration=best + 1))
    return Fitted(ended, rounds, best, watch.metrics if best == watch.step else named, text, params, resumed_at)


def _reached(
    booster: lgb.Booster, rounds: int, metrics: dict[str, float], watch: _Best, resumed_at: tuple[int, ...]
) -> Reached:
    return Reached(
        rounds=rounds,
        model=booster.model_to_string(num_iteration=-1),
        metrics=metrics,
        best_step=watch.step,
        best_score=watch.score,
        best_metrics=watch.metrics,
        resumed_at=resumed_at,
    )


def _booster(params: dict[str, Any], prepared: Prepared, model: str | None) -> lgb.Booster:
    """A booster on the data; with the text of a model, one that has these trees already."""
    names = [f.model_name for f in prepared.features]
    categorical = [f.model_name for f in prepared.features if f.categories is not None]
    train = prepared.train
    train_set = lgb.Dataset(
        train.table,
        label=train.y,
        weight=train.weight,
        feature_name=names,
        categorical_feature=categorical,
        params=params,
    )
    if model is not None:
        earlier = lgb.Booster(model_str=model)
        # what lgb.train does with init_model; `earlier` has to live until the valid set is made
        train_set._set_predictor(lgb.basic._InnerPredictor.from_booster(earlier, pred_parameter=params))
    booster = lgb.Booster(params=params, train_set=train_set)
    booster.set_train_data_name("train")
    if prepared.valid is not None:
        valid = prepared.valid
        booster.add_valid(
            train_set.create_valid(valid.table, label=valid.y, weight=valid.weight, params=params), "valid"
        )
    return booster


class _Best:
    """The best round so far by the first metric; with early stopping, whether it is too long ago."""

    def __init__(self, spec: TrainingSpec, split: str) -> None:
        first = spec.evaluation_metrics[0]
        self._name = f"{split}.{first}"
        self._sign = 1.0 if METRICS[first].higher_is_better else -1.0
        self._patience = spec.early_stopping_rounds
        self._delta = float(spec.params.get("early_stopping_min_delta", 0.0))
        self.score = -math.inf
        self.step = 0
        self.metrics: dict[str, float] = {}

    def restore(self, reached: Reached) -> None:
        self.score, self.step, self.metrics = reached.best_score, reached.best_step, reached.best_metrics

    def exhausted(self, step: int, metrics: dict[str, float]) -> bool:
        score = self._sign * metrics[self._name]
        if step == 0 or score > self.score + self._delta:
            self.score, self.step, self.metrics = score, step, metrics
        return self._patience is not None and step - self.step >= self._patience


def _refused(error: lgb.basic.LightGBMError) -> Exception:
    text = str(error)
    if "alloc" in text or "memory" in text.lower():
        return MemoryError(text)
    return DataProblem(f"LightGBM refuses: {text}", ("input", "spec", "params"))


def _without_threads(text: str) -> str:
    """The number of threads does not change a deterministic model, so it must not change its digest."""
    return re.sub(r"(?m)^\[num_threads: \d+\]$", "[num_threads: 0]", text)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
