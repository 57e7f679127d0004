"""Versions of models that tests work with: trained on real data, registered through the API; and the data for them."""

from pathlib import Path
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from db.ids import Kind, global_id
from ml.spec import Task
from tests.ready import ready_version
from tests.trained import Data, Run, succeeded_run

CREATE_MODEL = "mutation ($input: CreateModelInput!) { createModel(input: $input) { model { id } errors { message } } }"
CREATE_VERSION = """
mutation ($input: CreateModelVersionInput!) {
  createModelVersion(input: $input) { modelVersion { id } errors { message } }
}
"""


class Registered(NamedTuple):
    """A model, its version 1, the run that trained it, and the dataset version it was trained on."""

    model_id: str
    version_id: str
    run: Run
    data_id: str
    table: pa.Table

    @property
    def booster(self) -> lgb.Booster:
        return lgb.Booster(model_file=str(self.run.folder / "model.txt"))

    def matrix(self, table: pa.Table | None = None) -> NDArray[np.float64]:
        """The numeric features of a table, by default of the training data, in the order of the model."""
        assert self.run.result.manifest is not None
        of = self.table if table is None else table
        return np.column_stack([of[f["name"]].to_numpy() for f in self.run.result.manifest["features"]])


def real_table(task: Task) -> pa.Table:
    """Breast cancer, wine or diabetes, whole; the target is `target`: texts, integers or numbers."""
    bunch: Any = {
        Task.BINARY_CLASSIFICATION: load_breast_cancer,
        Task.MULTICLASS_CLASSIFICATION: load_wine,
        Task.REGRESSION: load_diabetes,
    }[task]()
    columns = {str(name): bunch.data[:, i] for i, name in enumerate(bunch.feature_names)}
    if task is Task.BINARY_CLASSIFICATION:
        return pa.table(columns | {"target": [str(bunch.target_names[value]) for value in bunch.target]})
    kind = pa.int64() if task is Task.MULTICLASS_CLASSIFICATION else pa.float64()
    return pa.table(columns | {"target": pa.array(bunch.target, kind)})


async def registered(
    db: Any, store: Any, execute: Any, principal: Any, project: Any, folder: Path, *,
    task: Task = Task.BINARY_CLASSIFICATION, table: pa.Table | None = None, **spec: Any
) -> Registered:  # fmt: skip
    """Train on a table (by default the real one of the task), and register what came of it."""
    table = real_table(task) if table is None else table
    version = await ready_version(db, store, project, folder, table)
    path = folder / f"train-{version.hex}.parquet"
    pq.write_table(table, path)
    run = await succeeded_run(
        db, store, project, folder, task=task, dataset_version_id=version, data=Data(path, []), **spec
    )
    named = {"projectId": global_id(Kind.PROJECT, project.id), "name": f"model-{run.key.hex}", "task": task}
    made = (await execute(CREATE_MODEL, principal=principal, input=named))["data"]["createModel"]
    assert made["errors"] == []
    of = {"modelId": made["model"]["id"], "from": {"runId": run.id}}
    added = (await execute(CREATE_VERSION, principal=principal, input=of))["data"]["createModelVersion"]
    assert added["errors"] == []
    data_id = global_id(Kind.DATASET_VERSION, version)
    return Registered(made["model"]["id"], added["modelVersion"]["id"], run, data_id, table)
