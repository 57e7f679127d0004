"""The folder a trained model lives in: LightGBM's text, a manifest to serve and repeat it, and a card for people."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightgbm as lgb
import orjson

from ml import card, evaluation
from ml.messages import ArtifactFile, DigestMismatch, Ended, ModelUnreadable, TrainJob
from ml.preparation import Prepared
from ml.spec import Task

MODEL = "model.txt"
MANIFEST = "manifest.json"
CARD = "model_card.md"
MANIFEST_VERSION = 1
_PACKAGES = ("headai", "lightgbm", "numpy", "pyarrow", "polars", "duckdb", "scipy")


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(
    job: TrainJob,
    prepared: Prepared,
    *,
    model: str,
    params: dict[str, Any],
    ended: Ended,
    rounds: int,
    best_step: int,
    resumed_at: tuple[int, ...] = (),
) -> tuple[tuple[ArtifactFile, ...], dict[str, Any]]:
    """Evaluate the model and write its folder; the manifest lists the other files with their digests."""
    folder = Path(job.output)
    folder.mkdir(parents=True, exist_ok=True)
    model_file = write_file(folder, MODEL, model.encode())
    booster = lgb.Booster(model_str=model)
    evaluations = [
        evaluation.evaluate(booster, job.spec, prepared, part, split)
        for split, part in (("validation", prepared.valid), ("test", prepared.test))
        if part is not None
    ]
    categories = {f.name: list(f.categories) for f in prepared.features if f.categories is not None}
    manifest = {
        "manifest_version": MANIFEST_VERSION,
        "files": {model_file.path: {"sha256": model_file.sha256, "size_bytes": model_file.size_bytes}},
        "task": job.spec.task.value,
        "spec": job.spec.to_json(),
        "explicit_params": list(job.explicit_params),
        "engine_params": params,
        "seed": job.spec.seed,
        "threads": job.threads,
        "ranks": 1,
        "ended": ended.value,
        "rounds": rounds,
        "best_step": best_step,
        "resumed_at": list(resumed_at),
        "provenance": dict(job.provenance),
        "data_sha256": sha256_of(job.data),
        "validation_data_sha256": None if job.validation_data is None else sha256_of(job.validation_data),
        "split": {
            "sha256": prepared.split_digest,
            "train_rows": len(prepared.train.y),
            "validation_rows": 0 if prepared.valid is None else len(prepared.valid.y),
            "test_rows": 0 if prepared.test is None else len(prepared.test.y),
        },
        "versions": versions(),
        "labels": None if prepared.labels is None else list(prepared.labels),
        "categories": categories,
        "features": [
            {"name": f.name, "type": f.type, "nullable": f.nullable, "model_name": f.model_name}
            for f in prepared.features
        ],
        "signature": _signature(job, prepared),
        "importance": evaluation.importance(booster, job.spec, prepared),
        "evaluations": evaluations,
    }
    manifest_file = write_file(folder, MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    card_file = write_file(folder, CARD, card.written(manifest).encode(errors="replace"))
    return (model_file, manifest_file, card_file), manifest


def write_file(folder: Path, name: str, content: bytes) -> ArtifactFile:
    """The whole file or none of it."""
    partial = folder / f".{name}.partial"
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / name)
    return ArtifactFile(name, len(content), hashlib.sha256(content).hexdigest())


def _signature(job: TrainJob, prepared: Prepared) -> dict[str, Any]:
    inputs = [
        {
            "name": f.name,
            "type": f.type,
            "nullable": f.nullable,
            "categories": None if f.categories is None else list(f.categories),
        }
        for f in prepared.features
    ]
    if job.spec.task is Task.REGRESSION or prepared.labels is None:
        value: dict[str, Any] = {"name": "value", "type": "FLOAT", "nullable": False, "categories": None}
    else:
        texts = [evaluation.label_text(label) for label in prepared.labels]
        value = {"name": "value", "type": prepared.target_type, "nullable": False, "categories": texts}
    return {"inputs": inputs, "outputs": [value]}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load(folder: str | Path, sha256: str) -> tuple[lgb.Booster, dict[str, Any]]:
    """The model and its manifest. Call it in a child process: a damaged text can end the process.

    Raises `DigestMismatch` before LightGBM sees a byte, `ModelUnreadable` when it refuses the text.
    """
    text, manifest = read(folder, sha256)
    try:
        booster = lgb.Booster(model_str=text.decode())
    except (lgb.basic.LightGBMError, UnicodeDecodeError, ValueError) as error:
        raise ModelUnreadable(f"LightGBM cannot read the model: {error}") from error
    if booster.num_feature() != len(manifest["features"]):
        raise ModelUnreadable("The model and its manifest disagree on the number of features.")
    return booster, manifest


def read(folder: str | Path, sha256: str) -> tuple[bytes, dict[str, Any]]:
    """The model's text and its manifest, the text only after its digest was checked.

    Raises `DigestMismatch` and `ModelUnreadable`.
    """
    try:
        text = (Path(folder) / MODEL).read_bytes()
        manifest = orjson.loads((Path(folder) / MANIFEST).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ModelUnreadable(f"The model's folder cannot be read: {error}") from error
    found = hashlib.sha256(text).hexdigest()
    if found != sha256:
        raise DigestMismatch(f"{MODEL} has the SHA-256 {found}, not {sha256}; it was not loaded.")
    if not isinstance(manifest, dict) or manifest.get("manifest_version") != MANIFEST_VERSION:
        raise ModelUnreadable(f"{MANIFEST} is not of version {MANIFEST_VERSION}.")
    return text, manifest
