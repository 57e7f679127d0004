"""Looking closely at models: how good a version is on chosen data."""

from typing import Any

from domain import evaluations
from ml.messages import EvaluateJob, RowsDone
from workers.operations import Attempt


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
