"""Looking closely at models: how good a version is on chosen data, and whether an uploaded file is a model at all."""

import signal
from pathlib import Path
from typing import Any
from uuid import UUID

from db.vocabulary import FailureCode
from domain import evaluations, operations
from domain.models import MANIFEST, MODEL
from ml.messages import AdmitJob, Admitted, EvaluateJob, RowsDone
from ml.processes import ChildDied, OutOfMemory, TimedOut
from storage.keys import model_key
from storage.objects import ObjectMissing
from workers.operations import Attempt, Unusable

CHECK_SECONDS = 120.0
ADMIT = "ml.admission:admit_in_child"


async def evaluate(attempt: Attempt) -> None:
    """Compare a version with a dataset version, in a child; what is found is kept as an evaluation."""
    model, sha256 = await attempt.model()
    spec = attempt.held.spec
    job = EvaluateJob(
        model=str(model),
        sha256=sha256,
        data=str(await attempt.data()),
        target=spec["target"],
        weight_column=spec["weight_column"],
        metrics=None if spec["metrics"] is None else tuple(spec["metrics"]),
        threads=attempt.worker.threads,
    )

    def heard(message: Any) -> None:
        if isinstance(message, RowsDone):
            attempt.advance("evaluating", message.rows, message.total, within=(0.0, 0.9))

    found = await attempt.crashing(lambda: attempt.call("ml.comparison:evaluate_in_child", job, hear=heard))
    await attempt.write(evaluations.finish, found=found)


async def check_model(attempt: Attempt) -> None:
    """Look at an uploaded file, in a child that may die of it; a sound model is copied to a place of its own."""
    spec = attempt.held.spec
    path = attempt.folder / MODEL
    try:
        await attempt.worker.store.download_file(spec["upload_key"], path)
    except ObjectMissing:
        raise Unusable(FailureCode.INVALID_DATA, "The uploaded file is not there any more. Upload it again.") from None
    admitted = await attempt.crashing(lambda: _admitted(attempt, path))
    keys = {}
    for name, content_type in ((MODEL, "text/plain"), (MANIFEST, "application/json")):
        keys[name] = model_key(UUID(spec["model_id"]), attempt.held.model_version_id, name)
        await attempt.store(attempt.folder / name, keys[name], content_type)
    await attempt.write(operations.admit, model_key=keys[MODEL], manifest_key=keys[MANIFEST], admitted=admitted)


async def _admitted(attempt: Attempt, path: Path) -> Admitted:
    job = AdmitJob(path=str(path), task=attempt.held.spec["task"])
    try:
        admitted: Admitted = await attempt.call(ADMIT, job, seconds=CHECK_SECONDS)
    except ChildDied as error:
        if error.signal == signal.SIGKILL:
            raise
        message = "LightGBM crashed when it read the file: it is damaged. Save the model again, and upload that."
        raise Unusable(FailureCode.INVALID_DATA, message, detail=f"{error}\n{error.output}") from error
    except TimedOut as error:
        message = "LightGBM did not get to the end of the file: it is damaged, or too large."
        raise Unusable(FailureCode.INVALID_DATA, message, detail=error.output) from error
    except OutOfMemory as error:
        message = (
            f"The model needs more than {attempt.worker.run_memory_limit_mb} MB of memory: it is damaged, or too large."
        )
        raise Unusable(FailureCode.OUT_OF_MEMORY, message, detail=error.output) from error
    return admitted
