"""LightGBM alone, in a process of its own: `python -m benchmarks.alone`, told on standard input what to do.

`train` calls `lightgbm.train` on the data, split and parameters of a run. `predict` calls `Booster.predict`. Reading
the data and loading the model are not part of the time. `predict_file` is a script as one would write it to predict a
file: polars reads it, `Booster.predict` predicts all rows at once, polars writes them with their predictions.
"""

import os
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import lightgbm as lgb
import numpy as np
import orjson
import polars as pl

from ml.messages import TrainJob
from ml.preparation import prepare
from ml.spec import TrainingSpec
from ml.training import engine_params

_NICE = 5


def train(*, data: str, spec: dict[str, Any], threads: int) -> dict[str, Any]:
    """Seconds from building LightGBM's data set to the last round, metrics of both splits each round included."""
    job = TrainJob(spec=TrainingSpec.from_json(spec), data=data, output="", threads=threads)
    prepared = prepare(job)
    params = engine_params(job, prepared) | {"verbosity": -1}
    assert prepared.valid is not None
    began = time.perf_counter()
    names = [feature.model_name for feature in prepared.features]
    train_set = lgb.Dataset(prepared.train.table, label=prepared.train.y, feature_name=names, params=params)
    valid_set = train_set.create_valid(prepared.valid.table, label=prepared.valid.y, params=params)
    booster = lgb.train(
        params,
        train_set,
        num_boost_round=job.spec.num_rounds,
        valid_sets=[train_set, valid_set],
        valid_names=["train", "valid"],
        callbacks=[lgb.record_evaluation({})],
    )
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "trees": digest(booster.model_to_string())}


def predict(*, model: str, batches: list[list[list[float]]]) -> dict[str, Any]:
    """The seconds and the values of each batch of rows, with the number of threads that is fastest for them.

    Every batch is another one: of rows that were just predicted the processor has learned the way through the trees.
    """
    booster = lgb.Booster(model_file=model)
    arrays = [np.array(batch) for batch in batches]
    seconds = {threads: _timed(booster, arrays, threads) for threads in (1, 0)}
    fastest = min(seconds, key=lambda threads: float(np.median(seconds[threads])))
    return {
        "seconds": seconds[fastest],
        "threads": "one thread" if fastest else "all threads",
        "values": [np.asarray(booster.predict(values)).tolist() for values in arrays],
    }


def _timed(booster: lgb.Booster, arrays: list[Any], threads: int) -> list[float]:
    for values in arrays[:3]:
        booster.predict(values, num_threads=threads)
    seconds = []
    for values in arrays:
        began = time.perf_counter()
        booster.predict(values, num_threads=threads)
        seconds.append(time.perf_counter() - began)
    return seconds


def predict_file(*, model: str, data: str, output: str, features: list[str], threads: int) -> dict[str, Any]:
    """Seconds from the first byte read to the last byte written, the model loaded; the digest of the predictions.

    It yields to other work as the children of a worker do, so that a busy machine slows both down alike.
    """
    os.nice(_NICE)
    booster = lgb.Booster(model_file=model)
    began = time.perf_counter()
    frame = pl.read_parquet(data)
    values = np.asarray(booster.predict(frame.select(features).to_numpy(), num_threads=threads))
    frame.with_columns(pl.Series("prediction", values)).write_parquet(output)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "predictions": sha256(values.tobytes()).hexdigest()}


def digest(model: str) -> str:
    """Of the part of a model's text that says what it predicts; the parameters it was made with follow after it."""
    return sha256(model.partition("\nparameters:")[0].encode()).hexdigest()


if __name__ == "__main__":
    asked = orjson.loads(sys.stdin.buffer.readline())
    works: dict[str, Callable[..., dict[str, Any]]] = {
        "train": train,
        "predict": predict,
        "predict_file": predict_file,
    }
    work = works[asked.pop("what")]
    sys.stdout.buffer.write(orjson.dumps(work(**asked)) + b"\n")
