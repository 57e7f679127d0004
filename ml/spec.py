"""What a training run is asked to do: the contract's TrainingSpec as plain frozen data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Task(StrEnum):
    REGRESSION = "REGRESSION"
    BINARY_CLASSIFICATION = "BINARY_CLASSIFICATION"
    MULTICLASS_CLASSIFICATION = "MULTICLASS_CLASSIFICATION"
    RANKING = "RANKING"


class Algorithm(StrEnum):
    LIGHTGBM = "LIGHTGBM"
    EXTERNAL = "EXTERNAL"


class SplitStrategy(StrEnum):
    RANDOM = "RANDOM"
    STRATIFIED = "STRATIFIED"
    GROUP = "GROUP"
    TIME = "TIME"
    K_FOLD = "K_FOLD"
    PROVIDED = "PROVIDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which rows train, validate and test; fractions are of the rows that have a target."""

    strategy: SplitStrategy = SplitStrategy.RANDOM
    validation_fraction: float = 0.2
    test_fraction: float = 0.0
    folds: int | None = None
    time_column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """`features=None` and empty `evaluation_metrics` mean "choose for me"; `timeout` is in seconds."""

    task: Task
    algorithm: Algorithm = Algorithm.LIGHTGBM
    target: str | None = None
    features: tuple[str, ...] | None = None
    weight_column: str | None = None
    group_column: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    num_rounds: int = 1000
    early_stopping_rounds: int | None = 50
    evaluation_metrics: tuple[str, ...] = ()
    split: Split = field(default_factory=Split)
    seed: int = 42
    timeout: float | None = None
    max_attempts: int = 1

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON values, the inverse of `from_json`."""
        return {
            "task": self.task.value,
            "algorithm": self.algorithm.value,
            "target": self.target,
            "features": None if self.features is None else list(self.features),
            "weight_column": self.weight_column,
            "group_column": self.group_column,
            "params": dict(self.params),
            "num_rounds": self.num_rounds,
            "early_stopping_rounds": self.early_stopping_rounds,
            "evaluation_metrics": list(self.evaluation_metrics),
            "split": asdict(self.split) | {"strategy": self.split.strategy.value},
            "seed": self.seed,
            "timeout": self.timeout,
            "max_attempts": self.max_attempts,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingSpec:
        features = value.get("features")
        split = dict(value.get("split") or {})
        if "strategy" in split:
            split["strategy"] = SplitStrategy(split["strategy"])
        return cls(
            **{
                **value,
                "task": Task(value["task"]),
                "algorithm": Algorithm(value.get("algorithm", Algorithm.LIGHTGBM)),
                "features": None if features is None else tuple(features),
                "params": dict(value.get("params") or {}),
                "evaluation_metrics": tuple(value.get("evaluation_metrics") or ()),
                "split": Split(**split),
            }
        )


def finite(value: object) -> bool:
    """Whether a JSON value is a number that is neither NaN nor infinite (a boolean is not a number)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
