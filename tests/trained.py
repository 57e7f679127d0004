"""Models trained in tests, in this process, on real data, and put where a worker puts them."""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sqlalchemy import insert

from db.database import Database
from db.ids import Kind, global_id, new_id
from db.rows import Json, Project
from db.tables import dataset_versions, datasets, training_runs
from domain.models import outcome_of
from ml.algorithm import ColumnFacts, resolve
from ml.messages import TrainJob, TrainResult
from ml.preparation import column_type
from ml.spec import Task, TrainingSpec
from ml.training import train
from storage.keys import artifact_key
from storage.objects import ObjectStore


class Run(NamedTuple):
    """A run that succeeded: its ID, its folder with model.txt and manifest.json, and rows to predict."""

    id: str
    key: UUID
    folder: Path
    result: TrainResult
    rows: list[Json]
    dataset_version_id: str


@dataclass(frozen=True)
class Data:
    path: Path
    rows: list[Json]


def real_data(task: Task, folder: Path) -> Data:
    bunch: Any = {
        Task.BINARY_CLASSIFICATION: load_breast_cancer,
        Task.MULTICLASS_CLASSIFICATION: load_wine,
        Task.REGRESSION: load_diabetes,
    }[task]()
    names = [str(name) for name in bunch.feature_names]
    target = {
        Task.BINARY_CLASSIFICATION: lambda: [str(bunch.target_names[value]) for value in bunch.target],
        Task.MULTICLASS_CLASSIFICATION: lambda: [int(value) for value in bunch.target],
        Task.REGRESSION: lambda: [float(value) for value in bunch.target],
    }[task]()
    path = folder / f"{task}.parquet"
    pq.write_table(pa.table({name: bunch.data[:, i] for i, name in enumerate(names)} | {"target": target}), path)
    return Data(path, [dict(zip(names, row, strict=True)) for row in bunch.data.tolist()])


def trained(task: Task, data: Data, output: Path, **spec: Any) -> TrainResult:
    """Train as a worker's child does."""
    table = pq.read_table(data.path)
    facts = [
        ColumnFacts(
            name=field.name,
            type=column_type(field.type),
            row_count=len(table),
            null_count=table[field.name].null_count,
            distinct_count=len(table[field.name].unique()),
        )
        for field in table.schema
    ]
    asked = {"target": "target", "num_rounds": 20, "early_stopping_rounds": None} | spec
    resolved = resolve(TrainingSpec(task=task, **asked), facts, has_validation_data=False)
    assert resolved.problems == ()
    job = TrainJob(
        spec=resolved.spec, data=str(data.path), output=str(output), explicit_params=resolved.explicit_params
    )
    return train(job, lambda _: None, lambda: None)


async def succeeded_run(
    db: Database, store: ObjectStore, project: Project, folder: Path, *, task: Task = Task.BINARY_CLASSIFICATION,
    status: str = "SUCCEEDED", dataset_version_id: UUID | None = None, data: Data | None = None, **spec: Any
) -> Run:  # fmt: skip
    """A run of `project` with what a worker leaves behind when training has ended; on real data of the task."""
    run_id = new_id()
    output = folder / run_id.hex
    output.mkdir()
    data = data or await asyncio.to_thread(real_data, task, folder)
    result = await asyncio.to_thread(trained, task, data, output, **spec)
    keys = {file.path: artifact_key(run_id, 1, file.path) for file in result.files}
    for file in result.files:
        await store.upload_file(output / file.path, keys[file.path], "text/plain")
    assert result.manifest is not None
    async with db.transaction() as session:
        if dataset_version_id is None:
            dataset_version_id = await _dataset_version(session, project, data)
        await session.run(
            insert(training_runs).values(
                id=run_id,
                project_id=project.id,
                name=f"run-{run_id.hex}",
                status=status,
                progress={"fraction": 1.0, "phase": "finished"},
                task=task,
                algorithm="LIGHTGBM",
                spec=result.manifest["spec"],
                params=[{"name": "num_rounds", "value": 20, "explicit": True}],
                dataset_version_id=dataset_version_id,
                attempt=1,
                outcome=outcome_of(result, keys) if status != "FAILED" else None,
            )
        )
    named = global_id(Kind.DATASET_VERSION, dataset_version_id)
    return Run(global_id(Kind.RUN, run_id), run_id, output, result, data.rows, named)


async def _dataset_version(session: Any, project: Project, data: Data) -> UUID:
    dataset_id, version_id = new_id(), new_id()
    content = data.path.read_bytes()
    await session.run(insert(datasets).values(id=dataset_id, project_id=project.id, name=f"data-{dataset_id.hex}"))
    await session.run(
        insert(dataset_versions).values(
            id=version_id,
            dataset_id=dataset_id,
            number=1,
            status="READY",
            progress={"fraction": 1.0, "phase": "ready"},
            format="PARQUET",
            digest=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            source={"kind": "UPLOAD"},
        )
    )
    return version_id
