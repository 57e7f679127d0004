"""A run equals the same LightGBM call made by hand, its metrics equal scikit-learn's, and it repeats to the byte."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as sk

from ml import training
from ml.artifact import read, sha256_of
from ml.messages import (
    DataProblem,
    DigestMismatch,
    Ended,
    LogLine,
    RoundDone,
    SchemaMismatch,
    Stop,
    TypeMismatch,
    UnknownCategory,
)
from ml.preparation import matrix, prepare
from ml.scoring import Scorer
from ml.spec import Split, SplitStrategy, Task

BINARY, MULTI, REGRESSION = Task.BINARY_CLASSIFICATION, Task.MULTICLASS_CLASSIFICATION, Task.REGRESSION
METRICS = {
    BINARY: ("auc", "binary_logloss", "average_precision", "binary_error", "accuracy", "f1"),
    MULTI: ("multi_logloss", "multi_error", "accuracy", "f1"),
    REGRESSION: ("rmse", "mae", "mse", "mape", "r2"),
}


def run(job: Any, should_stop: Callable[[], Stop | None] = lambda: None) -> tuple[Any, list[Any]]:
    messages: list[Any] = []
    return training.train(job, messages.append, should_stop), messages


def rounds(messages: list[Any]) -> list[RoundDone]:
    return [m for m in messages if isinstance(m, RoundDone)]


def by_hand(job: Any, **options: Any) -> tuple[lgb.Booster, dict[str, Any]]:
    """The same training with lgb.train on numpy arrays."""
    prepared = prepare(job)
    params = training.engine_params(job, prepared) | {"verbosity": -1}

    def dataset(part: Any, **more: Any) -> lgb.Dataset:
        return lgb.Dataset(matrix(part, np.arange(len(part.y))), part.y, params=params, **more)

    train = dataset(prepared.train)
    valid = dataset(prepared.valid, reference=train)
    seen: dict[str, Any] = {}
    booster = lgb.train(
        params,
        train,
        job.spec.num_rounds,
        valid_sets=[train, valid],
        valid_names=["train", "valid"],
        callbacks=[lgb.record_evaluation(seen), *options.get("callbacks", [])],
    )
    return booster, seen


@pytest.mark.parametrize("task", METRICS)
def test_a_run_predicts_as_the_same_call_of_lightgbm_does(job: Any, task: Task) -> None:
    made = job(task, evaluation_metrics=METRICS[task])
    result, messages = run(made)
    booster, seen = by_hand(made)
    prepared = prepare(made)
    values = matrix(prepared.valid, np.arange(len(prepared.valid.y)))
    ours = lgb.Booster(model_file=f"{made.output}/model.txt")
    assert result.ended is Ended.COMPLETED
    assert [r.step for r in rounds(messages)] == list(range(20))
    np.testing.assert_array_equal(ours.predict(values), booster.predict(values))
    for native in set(seen["valid"]) & set(METRICS[task]):
        assert [r.metrics[f"valid.{native}"] for r in rounds(messages)] == seen["valid"][native]
        assert [r.metrics[f"train.{native}"] for r in rounds(messages)] == seen["train"][native]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", METRICS)
def test_metrics_equal_scikit_learns(job: Any, data: Any, tmp_path: Path, task: Task, weighted: bool) -> None:
    table = pq.read_table(data[task])
    path = tmp_path / "weighted.parquet"
    pq.write_table(table.append_column("w", pa.array([1.0 + i % 3 for i in range(len(table))])), path)
    spec = {"weight_column": "w"} if weighted else {"features": tuple(table.column_names[:-1])}
    made = job(task, path=path, evaluation_metrics=METRICS[task], num_rounds=5, **spec)
    result, messages = run(made)
    prepared = prepare(made)
    booster = lgb.Booster(model_file=f"{made.output}/model.txt")
    evaluation = {m["name"]: m["value"] for m in result.manifest["evaluations"][0]["metrics"]}
    for name, part in (("train", prepared.train), ("valid", prepared.valid)):
        y, w = part.y, part.weight
        predicted = booster.predict(matrix(part, np.arange(len(y))))
        if task is REGRESSION:
            mse = sk.mean_squared_error(y, predicted, sample_weight=w)
            expected = {
                "rmse": np.sqrt(mse),
                "mse": mse,
                "mae": sk.mean_absolute_error(y, predicted, sample_weight=w),
                "mape": sk.mean_absolute_percentage_error(y, predicted, sample_weight=w),
                "r2": sk.r2_score(y, predicted, sample_weight=w),
            }
        else:
            chosen = (predicted > 0.5).astype(int) if task is BINARY else predicted.argmax(axis=1)
            accuracy = sk.accuracy_score(y, chosen, sample_weight=w)
            loss = sk.log_loss(y, predicted, sample_weight=w)
            average = "binary" if task is BINARY else "macro"
            f1 = sk.f1_score(y, chosen, sample_weight=w, average=average)
            expected = {"accuracy": accuracy, "f1": f1}
            if task is BINARY:
                expected |= {"binary_logloss": loss, "binary_error": 1 - accuracy}
                expected |= {
                    "auc": sk.roc_auc_score(y, predicted, sample_weight=w),
                    "average_precision": sk.average_precision_score(y, predicted, sample_weight=w),
                }
            else:
                expected |= {"multi_logloss": loss, "multi_error": 1 - accuracy}
        last = rounds(messages)[-1].metrics
        assert {k.split(".")[1] for k in last if k.startswith(name)} == set(expected)
        for metric, value in expected.items():
            assert last[f"{name}.{metric}"] == pytest.approx(value, rel=2e-6), metric
            if name == "valid":
                assert evaluation[metric] == pytest.approx(value, rel=1e-9), metric


def test_the_confusion_matrix_counts_actual_then_predicted(job: Any) -> None:
    made = job(BINARY)
    result, _ = run(made)
    valid = prepare(made).valid
    predicted = lgb.Booster(model_file=f"{made.output}/model.txt").predict(matrix(valid, np.arange(len(valid.y))))
    matrix_ = result.manifest["evaluations"][0]["confusion_matrix"]
    assert matrix_["labels"] == ["benign", "malignant"]
    assert matrix_["counts"] == sk.confusion_matrix(valid.y, predicted > 0.5).ravel().tolist()


def test_early_stopping_keeps_the_round_lightgbm_would(job: Any) -> None:
    made = job(BINARY, num_rounds=200, early_stopping_rounds=5, evaluation_metrics=("binary_logloss", "auc"))
    result, messages = run(made)
    booster, _ = by_hand(made, callbacks=[lgb.early_stopping(5, first_metric_only=True, verbose=False)])
    assert result.ended is Ended.EARLY_STOPPED
    assert result.best_step + 1 == booster.best_iteration
    assert result.rounds == result.best_step + 1 + 5 == len(rounds(messages))
    assert result.best_metrics == rounds(messages)[result.best_step].metrics
    assert lgb.Booster(model_file=f"{made.output}/model.txt").num_trees() == booster.best_iteration


def test_the_same_spec_and_data_give_the_same_bytes_with_any_number_of_threads(job: Any, mixed: Path) -> None:
    spec = {"path": mixed, "params": {"bagging_freq": 1, "bagging_fraction": 0.5, "feature_fraction": 0.7}}
    first, _ = run(job(REGRESSION, **spec))
    again, _ = run(job(REGRESSION, threads=2, **spec))
    other, _ = run(job(REGRESSION, seed=43, **spec))
    assert first.files[0] == again.files[0]
    assert first.manifest["split"] == again.manifest["split"]
    assert first.files[0].sha256 != other.files[0].sha256
    assert first.manifest["split"]["sha256"] != other.manifest["split"]["sha256"]


@pytest.mark.parametrize(("how", "kept"), [(Stop.KEEP_BEST, True), (Stop.DISCARD, False)])
def test_a_cancel_ends_at_the_next_round(job: Any, how: Stop, kept: bool) -> None:
    made = job(BINARY, num_rounds=1000)
    asked: list[None] = []

    def should_stop() -> Stop | None:
        asked.append(None)
        return how if len(asked) > 10 else None

    result, messages = run(made, should_stop)
    assert (result.ended, result.rounds) == (Ended.CANCELED, 10)
    if kept:
        aucs = [r.metrics["valid.auc"] for r in rounds(messages)]
        assert result.best_step == int(np.argmax(aucs))
        assert lgb.Booster(model_file=f"{made.output}/model.txt").num_trees() == result.best_step + 1
    else:
        assert (result.best_step, result.files, list(Path(made.output).iterdir())) == (None, (), [])


def test_every_kind_of_column_is_learned_from_and_predicted_alike(job: Any, mixed: Path) -> None:
    made = job(REGRESSION, path=mixed, weight_column="weight", num_rounds=30)
    result, _ = run(made)
    assert made.spec.features == ("colour", "kind", "size, cm", "open", "day", "at", "price", "shop")
    assert [f["type"] for f in result.manifest["features"]] == [
        "STRING", "CATEGORY", "FLOAT", "BOOLEAN", "DATE", "DATETIME", "DECIMAL", "INTEGER",
    ]  # fmt: skip
    assert result.manifest["categories"] == {"colour": ["blue", "green", "red"], "kind": ["blue", "green", "red"]}
    assert result.manifest["split"]["train_rows"] + result.manifest["split"]["validation_rows"] == 600 - 12
    table = pq.read_table(mixed)
    valid = prepare(made).valid
    rows = [
        {
            name: value if not hasattr(value, "isoformat") else value.isoformat()
            for name, value in row.items()
            if name in made.spec.features
        }
        for row in table.take(pa.array(valid.rows)).to_pylist()
    ]
    for row in rows:
        row["price"] = float(row["price"])
    scorer = Scorer.load(made.output, result.files[0].sha256)
    np.testing.assert_array_equal(scorer.matrix(rows), matrix(valid, np.arange(len(valid.y))))
    outputs = scorer.score(rows, contributions=True)
    booster = lgb.Booster(model_file=f"{made.output}/model.txt")
    assert [o["value"] for o in outputs] == booster.predict(matrix(valid, np.arange(len(valid.y)))).tolist()
    sums = [sum(c["contribution"] for c in o["contributions"]) for o in outputs]
    np.testing.assert_allclose(sums, scorer.raw_scores(rows), rtol=1e-9)
    with pytest.raises(UnknownCategory) as refused:
        scorer.score([rows[0], {**rows[0], "colour": "ultraviolet"}])
    assert (refused.value.row, refused.value.feature, refused.value.known) == (1, "colour", ("blue", "green", "red"))


@pytest.mark.parametrize(("task", "labels"), [(BINARY, ["benign", "malignant"]), (MULTI, [0, 1, 2])])
def test_a_classifier_answers_labels_probabilities_and_contributions(job: Any, task: Task, labels: list[Any]) -> None:
    made = job(task)
    result, _ = run(made)
    names = list(made.spec.features)
    rows = [dict(zip(names, row.values(), strict=False)) for row in pq.read_table(made.data, columns=names).to_pylist()]
    scorer = Scorer.load(made.output, result.files[0].sha256)
    outputs = scorer.score(rows, probabilities=True, contributions=True)
    raw = scorer.raw_scores(rows)
    for output, score in zip(outputs, raw, strict=True):
        shares = [p["probability"] for p in output["probabilities"]]
        chosen = int(np.argmax(shares))
        assert output["value"] == labels[chosen]
        assert type(output["value"]) is type(labels[0])
        assert [p["label"] for p in output["probabilities"]] == [str(label) for label in labels]
        assert sum(shares) == pytest.approx(1.0)
        assert [c["feature"] for c in output["contributions"]] == [*names, "<base>"]
        total = sum(c["contribution"] for c in output["contributions"])
        assert total == pytest.approx(score if task is BINARY else score[chosen])
    assert [scorer.score([row])[0]["value"] for row in rows[:20]] == [o["value"] for o in outputs[:20]]


def test_rows_that_do_not_fit_the_signature_are_named(job: Any, mixed: Path) -> None:
    made = job(REGRESSION, path=mixed)
    result, _ = run(made)
    scorer = Scorer.load(made.output, result.files[0].sha256)
    fine = dict.fromkeys(made.spec.features)
    assert len(scorer.score([fine])) == 1

    def refused(row: dict[str, Any]) -> SchemaMismatch:
        with pytest.raises(SchemaMismatch) as caught:
            scorer.score([fine, row])
        assert caught.value.row == 1
        return caught.value

    without = {k: v for k, v in fine.items() if k != "shop"}
    assert refused(without).missing == ("shop",)
    assert refused({**fine, "more": 1}).unexpected == ("more",)
    for name, value, expected, actual in (
        ("shop", "three", "INTEGER", "STRING"),
        ("shop", True, "INTEGER", "BOOLEAN"),
        ("shop", 10**400, "INTEGER", "UNKNOWN"),
        ("size, cm", float("nan"), "FLOAT", "UNKNOWN"),
        ("size, cm", float("inf"), "FLOAT", "UNKNOWN"),
        ("colour", 3, "STRING", "INTEGER"),
        ("open", 1, "BOOLEAN", "INTEGER"),
        ("day", "yesterday", "DATE", "STRING"),
        ("at", 5.0, "DATETIME", "FLOAT"),
        ("price", [1], "DECIMAL", "LIST"),
        ("price", {"a": 1}, "DECIMAL", "STRUCT"),
    ):
        assert refused({**fine, name: value}).type_mismatches == (TypeMismatch(name, expected, actual),)


def test_splits_keep_their_promises(job: Any, data: Any, mixed: Path) -> None:
    def parts(task: Task, **spec: Any) -> Any:
        return prepare(job(task, **spec))

    fractions = {"validation_fraction": 0.25, "test_fraction": 0.1}
    stratified = parts(BINARY, split=Split(strategy=SplitStrategy.STRATIFIED, **fractions))
    for part, share in ((stratified.valid, 0.25), (stratified.test, 0.1)):
        assert [int((part.y == label).sum()) for label in (0, 1)] == [round(357 * share), round(212 * share)]
    grouped = parts(REGRESSION, path=mixed, group_column="shop", split=Split(strategy=SplitStrategy.GROUP, **fractions))
    groups = [{int(i) % 20 for i in part.rows} for part in (grouped.train, grouped.valid, grouped.test)]
    assert sum(map(len, groups)) == 20
    assert len(set.union(*groups)) == 20
    assert (len(groups[1]), len(groups[2])) == (6, 2)
    timed = parts(REGRESSION, path=mixed, split=Split(strategy=SplitStrategy.TIME, time_column="at", **fractions))
    at = np.array(pq.read_table(mixed)["at"].to_numpy())
    assert at[timed.train.rows].max() <= at[timed.valid.rows].min()
    assert at[timed.valid.rows].max() <= at[timed.test.rows].min()
    everything = np.concatenate([timed.train.rows, timed.valid.rows, timed.test.rows])
    assert sorted(everything.tolist()) == [i for i in range(600) if i % 50 != 0]
    provided = parts(
        BINARY, validation=data[BINARY], split=Split(strategy=SplitStrategy.PROVIDED), early_stopping_rounds=3
    )
    assert (len(provided.train.y), len(provided.valid.y), provided.test) == (569, 569, None)


def test_what_cannot_be_trained_on_is_told(job: Any, data: Any, tmp_path: Path) -> None:
    table = pq.read_table(data[REGRESSION])
    path = tmp_path / "bad.parquet"
    pq.write_table(table.append_column("w", pa.array([-1.0] * len(table))), path)
    with pytest.raises(DataProblem, match="at least 0"):
        run(job(REGRESSION, path=path, weight_column="w"))
    pq.write_table(table.set_column(10, "target", pa.array([-1.0] * 200 + [2.0] * 242)), path)
    with pytest.raises(DataProblem, match="LightGBM refuses") as caught:
        run(job(REGRESSION, path=path, params={"objective": "poisson"}))
    assert caught.value.path == ("input", "spec", "params")


def test_the_log_of_the_engine_comes_with_its_level(job: Any) -> None:
    _, messages = run(job(BINARY))
    lines = [(m.level, m.stream, m.text) for m in messages if isinstance(m, LogLine)]
    assert ("INFO", "SYSTEM", "Number of positive: 173, number of negative: 282") in lines
    assert all(a != b for a, b in pairwise(lines))


def test_the_artifact_describes_itself(job: Any) -> None:
    made = job(BINARY)
    result, _ = run(made)
    model, manifest_file, card = result.files
    assert sha256_of(f"{made.output}/model.txt") == model.sha256
    assert sha256_of(f"{made.output}/manifest.json") == manifest_file.sha256
    text, manifest = read(made.output, model.sha256)
    assert manifest == result.manifest
    assert manifest["data_sha256"] == sha256_of(made.data)
    assert len(text) == model.size_bytes
    for kind in ("GAIN", "SPLIT", "SHAP", "PERMUTATION"):
        ranked = manifest["importance"][kind]
        assert [r["rank"] for r in ranked] == list(range(1, 31))
        assert sum(r["share"] for r in ranked) == pytest.approx(1.0)
        assert [r["importance"] for r in ranked] == sorted((r["importance"] for r in ranked), reverse=True)
    told = Path(made.output, "model_card.md").read_text()
    assert sha256_of(f"{made.output}/model_card.md") == card.sha256
    accuracy = next(m["value"] for m in manifest["evaluations"][0]["metrics"] if m["name"] == "accuracy")
    assert told.startswith("# Model card\n\nPredicts `")
    assert f"| accuracy | {accuracy:.6g} |" in told
    assert f"| data, SHA-256 | `{manifest['data_sha256']}` |" in told
    assert f"| split, SHA-256 | `{manifest['split']['sha256']}` |" in told
    with pytest.raises(DigestMismatch, match="was not loaded"):
        Scorer.load(made.output, "0" * 64)


def test_the_same_run_writes_the_same_files_again(job: Any, mixed: Path) -> None:
    first, _ = run(job(REGRESSION, path=mixed))
    again, _ = run(job(REGRESSION, path=mixed))
    assert [file.path for file in first.files] == ["model.txt", "manifest.json", "model_card.md"]
    assert first.files == again.files
