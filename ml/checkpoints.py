"""Points that a training run can go on from when its process is gone: all trees so far, and what was best.

Going on equals never having stopped, byte for byte, as long as nothing is drawn at random: LightGBM starts its random
numbers anew, so a run that samples rows or features goes on with other samples, and the leaves of linear trees differ
in their last digits (`repeats`). dart changes trees it has
made before and rf averages them, so these two have no checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ml.messages import Checkpoint, TrainJob

SHARE_OF_TIME = 0.02
_INEXACT = ("extra_trees", "use_quantized_grad", "linear_tree")
_FRACTIONS = ("feature_fraction", "feature_fraction_bynode")
_ROW_FRACTIONS = ("bagging_fraction", "pos_bagging_fraction", "neg_bagging_fraction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What training knows after `rounds` rounds; `metrics` are those of the last round."""

    rounds: int
    model: str
    metrics: dict[str, float]
    best_step: int
    best_score: float
    best_metrics: dict[str, float]
    resumed_at: tuple[int, ...]


def possible(params: Mapping[str, Any]) -> bool:
    """Whether a run with these parameters can go on from a checkpoint."""
    return bool(params.get("boosting", "gbdt") == "gbdt")


def repeats(params: Mapping[str, Any]) -> bool:
    """Whether going on from a checkpoint gives the same model as never having stopped."""
    if any(params.get(name) for name in _INEXACT) or any(params.get(name, 1.0) < 1.0 for name in _FRACTIONS):
        return False
    bags = params.get("bagging_freq", 0) > 0 and any(params.get(name, 1.0) < 1.0 for name in _ROW_FRACTIONS)
    return not bags and bool(params.get("data_sample_strategy", "bagging") == "bagging")


def maker() -> str:
    """What has to be the same for a checkpoint to be gone on from."""
    return f"lightgbm {version('lightgbm')}"


class Writer:
    """Makes checkpoints every so often; they take at most two percent of the time, however large the model."""

    def __init__(self, job: TrainJob) -> None:
        wanted = job.checkpoints is not None and possible(job.spec.params)
        self._folder = Path(job.checkpoints) if wanted and job.checkpoints is not None else None
        self._seconds = job.checkpoint_seconds
        self._due_at = time.monotonic() + self._seconds

    def due(self) -> bool:
        return self._folder is not None and time.monotonic() >= self._due_at

    def write(self, reached: Reached) -> Checkpoint:
        assert self._folder is not None
        began = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{reached.rounds:06}.json"
        content = json.dumps(asdict(reached)).encode()
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            file.write(content)
        os.replace(partial, path)
        now = time.monotonic()
        self._due_at = now + max(self._seconds, (now - began) / SHARE_OF_TIME)
        return Checkpoint(reached.rounds, str(path), hashlib.sha256(content).hexdigest())


def read(path: str) -> Reached:
    """A checkpoint whose digest the caller has checked."""
    content = json.loads(Path(path).read_bytes())
    return Reached(**content | {"resumed_at": tuple(content["resumed_at"])})
