"""What a spec means on given columns: what is filled in, what is warned about, what is refused and where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightgbm as lgb
import pytest

from ml.algorithm import (
    _ALIASES,
    _MANAGED,
    ALGORITHM_SCHEMA,
    PARAMETERS,
    ColumnFacts,
    canonical,
    higher_is_better,
    resolve,
)
from ml.spec import Algorithm, Split, SplitStrategy, Task, TrainingSpec

BINARY, MULTI, REGRESSION = Task.BINARY_CLASSIFICATION, Task.MULTICLASS_CLASSIFICATION, Task.REGRESSION


def column(name: str, type_: str, distinct: int, **more: Any) -> ColumnFacts:
    return ColumnFacts(name=name, type=type_, distinct_count=distinct, **({"row_count": 100, "null_count": 0} | more))


COLUMNS = [
    column("age", "INTEGER", 60),
    column("price", "FLOAT", 100),
    column("colour", "STRING", 5),
    column("essay", "STRING", 5000),
    column("when", "DATETIME", 100),
    column("blob", "BINARY", 100),
    column("id", "INTEGER", 100, role="IDENTIFIER"),
    column("bought", "BOOLEAN", 2),
    column("grade", "STRING", 4),
    column("same", "INTEGER", 1),
    column("gaps", "FLOAT", 50, null_count=7),
    column("empty", "FLOAT", 0, null_count=100),
]


def spec(task: Task = BINARY, target: str | None = "bought", **more: Any) -> TrainingSpec:
    return TrainingSpec(task=task, target=target, **more)


def problems(spec_: TrainingSpec, **more: Any) -> list[tuple[str, str]]:
    found = resolve(spec_, COLUMNS, **more).problems
    assert all(p.path[:2] == ("input", "spec") and p.message for p in found)
    return [(".".join(p.path[2:]), p.code) for p in found]


def test_a_bare_spec_is_filled_in() -> None:
    resolved = resolve(spec(), COLUMNS)
    assert resolved.problems == ()
    assert resolved.spec.features == ("age", "price", "colour", "when", "grade", "same", "gaps", "empty")
    assert resolved.spec.evaluation_metrics == ("auc", "binary_logloss")
    assert resolved.spec.params == {"objective": "binary"}
    assert resolved.warnings == (
        "'essay' is text with more than 1000 different values and is not used; name it in features to use it.",
        "'blob' is BINARY and is not used.",
    )
    assert resolved.explicit_params == ()
    assert {p.name: p.value for p in resolved.params}["num_leaves"] == 31
    assert TrainingSpec.from_json(resolved.spec.to_json()) == resolved.spec


def test_parameters_are_normalised_and_marked() -> None:
    resolved = resolve(spec(params={"numLeaves": 7, "eta": 0.5, "lambdaL1": 1, "max_depth": 4.0}), COLUMNS)
    assert resolved.problems == ()
    assert resolved.spec.params == {
        "objective": "binary", "num_leaves": 7, "learning_rate": 0.5, "lambda_l1": 1, "max_depth": 4,
    }  # fmt: skip
    assert set(resolved.explicit_params) == {"num_leaves", "learning_rate", "lambda_l1", "max_depth"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (spec(target=None), ("target", "REQUIRED")),
        (spec(target="nope"), ("target", "NOT_FOUND")),
        (spec(target="same"), ("target", "INVALID")),
        (spec(target="grade"), ("target", "INVALID")),
        (spec(target="blob"), ("target", "INVALID")),
        (spec(MULTI), ("target", "INVALID")),
        (spec(REGRESSION), ("target", "INVALID")),
        (spec(REGRESSION, "empty"), ("target", "INVALID")),
        (spec(Task.RANKING), ("task", "INVALID")),
        (spec(features=()), ("features", "REQUIRED")),
        (spec(features=("age", "nope")), ("features.1", "NOT_FOUND")),
        (spec(features=("bought",)), ("features.0", "INVALID")),
        (spec(features=("age", "age")), ("features.1", "INVALID")),
        (spec(features=("blob",)), ("features.0", "INVALID")),
        (spec(weight_column="colour"), ("weightColumn", "INVALID")),
        (spec(weight_column="nope"), ("weightColumn", "NOT_FOUND")),
        (spec(group_column="nope"), ("groupColumn", "NOT_FOUND")),
        (spec(num_rounds=0), ("numRounds", "OUT_OF_RANGE")),
        (spec(num_rounds=100_001), ("numRounds", "OUT_OF_RANGE")),
        (spec(early_stopping_rounds=0), ("earlyStoppingRounds", "OUT_OF_RANGE")),
        (spec(max_attempts=11), ("maxAttempts", "OUT_OF_RANGE")),
        (spec(seed=-1), ("seed", "OUT_OF_RANGE")),
        (spec(timeout=0.0), ("timeout", "OUT_OF_RANGE")),
        (spec(evaluation_metrics=("rmse",)), ("evaluationMetrics.0", "INVALID")),
        (spec(split=Split(validation_fraction=1.0)), ("split.validationFraction", "OUT_OF_RANGE")),
        (spec(split=Split(test_fraction=float("nan"))), ("split.testFraction", "OUT_OF_RANGE")),
        (
            spec(split=Split(validation_fraction=0.5, test_fraction=0.5)),
            ("split.validationFraction", "OUT_OF_RANGE"),
        ),
        (spec(split=Split(validation_fraction=0.0)), ("earlyStoppingRounds", "INVALID")),
        (spec(split=Split(strategy=SplitStrategy.K_FOLD)), ("split.strategy", "INVALID")),
        (spec(split=Split(strategy=SplitStrategy.PROVIDED)), ("split.strategy", "REQUIRED")),
        (spec(split=Split(strategy=SplitStrategy.GROUP)), ("groupColumn", "REQUIRED")),
        (spec(split=Split(strategy=SplitStrategy.TIME)), ("split.timeColumn", "REQUIRED")),
        (spec(split=Split(strategy=SplitStrategy.TIME, time_column="colour")), ("split.timeColumn", "INVALID")),
        (spec(REGRESSION, "price", split=Split(strategy=SplitStrategy.STRATIFIED)), ("split.strategy", "INVALID")),
        (spec(params={"num_leafs": 3}), ("params.num_leafs", "INVALID")),
        (spec(params={"num_leaves": 1}), ("params.num_leaves", "OUT_OF_RANGE")),
        (spec(params={"numLeaves": 1}), ("params.numLeaves", "OUT_OF_RANGE")),
        (spec(params={"num_leaves": 3.5}), ("params.num_leaves", "INVALID")),
        (spec(params={"num_leaves": True}), ("params.num_leaves", "INVALID")),
        (spec(params={"num_leaves": None}), ("params.num_leaves", "INVALID")),
        (spec(params={"learning_rate": 0}), ("params.learning_rate", "OUT_OF_RANGE")),
        (spec(params={"learning_rate": float("inf")}), ("params.learning_rate", "INVALID")),
        (spec(params={"learning_rate": "fast"}), ("params.learning_rate", "INVALID")),
        (spec(params={"eta": 0.1, "learning_rate": 0.2}), ("params.learning_rate", "INVALID")),
        (spec(params={"boosting": "magic"}), ("params.boosting", "INVALID")),
        (spec(params={"boosting": "rf"}), ("params.boosting", "INVALID")),
        (spec(params={"objective": "regression"}), ("params.objective", "INVALID")),
        (spec(params={"is_unbalance": True, "scale_pos_weight": 2}), ("params.scale_pos_weight", "INVALID")),
        (spec(params={"monotone_constraints": [1]}), ("params.monotone_constraints", "INVALID")),
        (spec(params={"monotone_constraints": [5] * 8}), ("params.monotone_constraints", "INVALID")),
        (spec(params={"tweedie_variance_power": 2}), ("params.tweedie_variance_power", "OUT_OF_RANGE")),
        *[
            (spec(params={name: 1}), (f"params.{name}", "INVALID"))
            for name in (
                "num_iterations", "seed", "metric", "num_class", "num_threads", "device", "machines", "input_model",
                "output_model", "forcedsplits_filename", "deterministic", "label_column", "config",
                "earlyStoppingRound",
            )
        ],
    ],
)  # fmt: skip
def test_a_refusal_names_its_place(given: TrainingSpec, expected: tuple[str, str]) -> None:
    assert problems(given) == [expected]


def test_rows_without_a_target_are_warned_about() -> None:
    resolved = resolve(spec(REGRESSION, "gaps"), COLUMNS)
    assert resolved.problems == ()
    assert "7 rows without a value of 'gaps' are left out." in resolved.warnings


def test_no_rows_is_a_problem() -> None:
    found = resolve(spec(), [replace(c, row_count=0) for c in COLUMNS]).problems
    assert [(p.path, p.message) for p in found] == [(("input", "spec"), "The dataset has no rows to train on.")]


def test_validation_data_makes_early_stopping_possible() -> None:
    assert problems(spec(split=Split(strategy=SplitStrategy.PROVIDED)), has_validation_data=True) == []


def test_dart_switches_early_stopping_off_with_a_warning() -> None:
    resolved = resolve(spec(params={"boosting": "dart"}), COLUMNS)
    assert resolved.spec.early_stopping_rounds is None
    assert any("dart" in warning for warning in resolved.warnings)


def test_metrics_are_understood_by_their_usual_names() -> None:
    names = ("log_loss", "Accuracy", "average-precision", "error", "AUC", "auc")
    assert resolve(spec(evaluation_metrics=names), COLUMNS).spec.evaluation_metrics == (
        "binary_logloss", "accuracy", "average_precision", "binary_error", "auc",
    )  # fmt: skip
    assert [higher_is_better(n) for n in ("valid.auc", "train.log_loss", "rmse", "r2", "mine")] == [
        True, False, False, True, True,
    ]  # fmt: skip


def test_an_external_run_takes_any_parameters() -> None:
    external = TrainingSpec(task=BINARY, algorithm=Algorithm.EXTERNAL, params={"epochs": 3})
    resolved = resolve(external, [])
    assert (resolved.problems, resolved.spec, resolved.explicit_params) == ((), external, ("epochs",))


def test_every_parameter_of_the_installed_lightgbm_is_offered_or_refused_with_a_reason() -> None:
    lgb.basic._ConfigAliases.get("num_leaves")
    for name, aliases in lgb.basic._ConfigAliases.aliases.items():
        if name in PARAMETERS:
            assert {canonical(alias) for alias in aliases} == {name}
        else:
            assert [a for a in aliases if canonical(a) not in _MANAGED] == []
    assert set(_ALIASES.values()) <= set(PARAMETERS)
    assert set(PARAMETERS) <= set(lgb.basic._ConfigAliases.aliases)


def test_the_schema_describes_every_parameter() -> None:
    properties = ALGORITHM_SCHEMA[Algorithm.LIGHTGBM]["properties"]
    assert properties["num_leaves"] == {
        "type": "integer",
        "default": 31,
        "minimum": 2,
        "maximum": 131072,
        "description": "Most leaves of a tree: the main control of its complexity.",
        "aliases": ["max_leaf", "max_leaf_nodes", "max_leaves", "num_leaf"],
    }
    assert all(p["description"] and "default" in p and "type" in p for p in properties.values())
