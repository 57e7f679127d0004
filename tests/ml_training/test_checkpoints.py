"""A run that goes on from a checkpoint gives what a run gives that never stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml import checkpoints
from ml.artifact import sha256_of
from ml.checkpoints import repeats
from ml.messages import Checkpoint, Ended, Stop
from ml.spec import Task
from tests.ml_training.test_training import METRICS, rounds, run

BINARY, REGRESSION = Task.BINARY_CLASSIFICATION, Task.REGRESSION
BAGGING = {"bagging_freq": 1, "bagging_fraction": 0.5}


@pytest.fixture
def disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`disturbed(job, at)`: the job trained in pieces, each killed so many rounds after it began and gone on from.

    The checkpoints met, the result, and the messages of the last piece. There is one checkpoint a round.
    """
    monkeypatch.setattr(checkpoints, "SHARE_OF_TIME", math.inf)

    def train(made: Any, at: list[int]) -> tuple[list[Checkpoint], Any, list[Any]]:
        seen: list[Checkpoint] = []
        job = replace(made, checkpoints=str(tmp_path / "checkpoints"), checkpoint_seconds=0.0)
        for after in at:
            asked = 0

            def killed(after: int = after) -> Stop | None:
                nonlocal asked
                asked += 1
                return Stop.DISCARD if asked > after else None

            _, messages = run(job, killed)
            seen.append([m for m in messages if isinstance(m, Checkpoint)][-1])
            job = replace(job, checkpoint=seen[-1].path)
        return seen, *run(replace(job, checkpoints=None))

    return train


@pytest.mark.parametrize("task", METRICS)
def test_goes_on_to_the_same_bytes_and_metrics(job: Any, disturbed: Any, task: Task) -> None:
    made = job(task, evaluation_metrics=METRICS[task], num_rounds=40)
    whole, messages = run(made)
    seen, result, last = disturbed(made, [7, 13])
    assert [(c.rounds, c.sha256) for c in seen] == [(7, sha256_of(seen[0].path)), (20, sha256_of(seen[1].path))]
    assert result.files[0] == whole.files[0]
    assert [(r.step, r.metrics) for r in rounds(last)] == [(r.step, r.metrics) for r in rounds(messages)[20:]]
    assert (result.rounds, result.best_step, result.best_metrics) == (40, whole.best_step, whole.best_metrics)
    assert (whole.manifest["resumed_at"], result.manifest["resumed_at"]) == ([], [7, 20])
    assert result.manifest["evaluations"] == whole.manifest["evaluations"]


def test_every_kind_of_column_goes_on_alike(job: Any, disturbed: Any, mixed: Path) -> None:
    made = job(REGRESSION, path=mixed, weight_column="weight", num_rounds=30)
    whole, _ = run(made)
    _, result, _ = disturbed(made, [11])
    assert result.files[0] == whole.files[0]


def test_early_stopping_remembers_what_was_best(job: Any, disturbed: Any) -> None:
    made = job(BINARY, num_rounds=200, early_stopping_rounds=5, evaluation_metrics=("binary_logloss",))
    whole, _ = run(made)
    _, result, messages = disturbed(made, [whole.best_step + 3])
    assert result.ended is Ended.EARLY_STOPPED
    assert [r.step for r in rounds(messages)] == [whole.best_step + 3, whole.best_step + 4, whole.best_step + 5]
    assert (result.rounds, result.best_step, result.best_metrics) == (
        whole.rounds,
        whole.best_step,
        whole.best_metrics,
    )
    assert result.files[0] == whole.files[0]


def test_with_nothing_left_to_train_the_model_is_there(job: Any, disturbed: Any) -> None:
    made = job(BINARY, num_rounds=12)
    whole, _ = run(made)
    _, result, messages = disturbed(made, [12])
    assert (rounds(messages), result.rounds, result.best_metrics) == ([], 12, whole.best_metrics)
    assert result.files[0] == whole.files[0]


def test_a_run_that_draws_goes_on_with_other_samples(job: Any, disturbed: Any) -> None:
    made = job(BINARY, num_rounds=40, params=BAGGING)
    whole, _ = run(made)
    _, result, messages = disturbed(made, [20])
    assert [r.step for r in rounds(messages)] == list(range(20, 40))
    assert result.rounds == 40
    assert result.files[0].sha256 != whole.files[0].sha256


@pytest.mark.parametrize("params", [{"boosting": "dart"}, {"boosting": "rf"} | BAGGING])
def test_dart_and_random_forests_have_no_checkpoints(job: Any, tmp_path: Path, params: dict[str, Any]) -> None:
    made = replace(job(BINARY, params=params), checkpoints=str(tmp_path / "checkpoints"), checkpoint_seconds=0.0)
    _, messages = run(made)
    assert [m for m in messages if isinstance(m, Checkpoint)] == []
    assert len(rounds(messages)) == 20


@pytest.mark.parametrize(
    ("params", "same"),
    [
        ({}, True),
        ({"bagging_fraction": 0.5}, True),
        (BAGGING, False),
        ({"feature_fraction": 0.5}, False),
        ({"data_sample_strategy": "goss"}, False),
        ({"extra_trees": True}, False),
        ({"extra_trees": False}, True),
        ({"linear_tree": True}, False),
    ],
)
def test_says_which_parameters_repeat(params: dict[str, Any], same: bool) -> None:
    assert repeats(params) is same
