"""How good a version of a model is on data that somebody chooses: asked for here, found out by a worker."""

from collections.abc import Sequence
from uuid import UUID

from auth.principals import Principal
from db import datasets, models, operations
from db.database import Session
from db.ids import Kind, key_of
from db.operations import Held
from db.rows import Column, Evaluation, Json
from db.vocabulary import ColumnRole, ModelVersionStatus, OperationKind, OperationStatus
from domain.operations import check_columns, end, leased, model_of, ready_data
from domain.refusals import Invalid, InvalidState, Refusal, Refused, not_found
from ml.algorithm import METRICS, metric_name
from ml.spec import Task

WAIT_SECONDS = 120.0
_DATA = ("input", "datasetVersionId")
_COMPARABLE = (ModelVersionStatus.READY, ModelVersionStatus.ARCHIVED)
_BY_LIGHTGBM_ALONE = frozenset({"auc_mu"})


async def ask(
    session: Session,
    actor: Principal,
    *,
    model_version_id: str,
    dataset_version_id: str,
    metrics: Sequence[str] | None,
) -> UUID:
    """Have a version compared with every row of a dataset version; the key of the operation that does it.

    The target is the column that the version was trained to predict, or else the one with the role TARGET. The same
    question, while it is being answered, is not asked again. Raises `Refused` with everything that is in the way.
    """
    key = key_of(model_version_id, Kind.MODEL_VERSION)
    version = (await models.versions_by_ids(session, [key])).get(key) if key is not None else None
    if version is None:
        raise Refused(not_found("model version", model_version_id, "input", "modelVersionId"))
    if version.status not in _COMPARABLE:
        raise Refused(
            InvalidState(
                message="Only a version that is ready can be evaluated.",
                path=("input", "modelVersionId"),
                current_state=version.status,
                allowed_states=list(_COMPARABLE),
            )
        )
    model = await model_of(session, version.id)
    data = await ready_data(session, dataset_version_id, *_DATA)
    held = await datasets.columns_of_version(session, data.id)
    check_columns((await models.signatures(session, [version.id]))[version.id], held, *_DATA)
    trained_on = await models.trained_on(session, version.id)
    weight = trained_on.weight_column if trained_on is not None else None
    spec: Json = {
        "target": _target(held, None if trained_on is None else trained_on.target),
        "weight_column": weight if weight in {column.name for column in held} else None,
        "metrics": None if metrics is None else _canonical(metrics, Task(model.task)),
    }
    known = await operations.unfinished_like(
        session,
        kind=OperationKind.EVALUATION,
        model_version_id=version.id,
        dataset_version_id=data.id,
        spec=spec,
    )
    return known or await operations.ask(
        session,
        kind=OperationKind.EVALUATION,
        project_id=model.project_id,
        model_version_id=version.id,
        dataset_version_id=data.id,
        spec=spec,
        created_by=actor.user_id,
    )


def _target(held: Sequence[Column], trained_on: str | None) -> str:
    names = {column.name for column in held}
    marked = [column.name for column in held if column.role == ColumnRole.TARGET]
    if trained_on in names:
        return str(trained_on)
    if len(marked) == 1:
        return marked[0]
    missing = (
        f"no column {trained_on!r}, which the model predicts" if trained_on else "no column that is known to be it"
    )
    found = f"{len(marked)} with the role TARGET" if marked else "none with the role TARGET"
    message = f"To evaluate, the data need the target: there is {missing}, and {found}. Give one column that role."
    raise Refused(Invalid(message=message, path=_DATA))


def _canonical(metrics: Sequence[str], task: Task) -> list[str]:
    offered = [name for name, metric in METRICS.items() if task in metric.tasks and name not in _BY_LIGHTGBM_ALONE]
    found = [metric_name(name, task) for name in metrics]
    wrong: list[Refusal] = [
        Invalid(
            message=f"{task.value} has no metric {metrics[place]!r} for an evaluation.",
            path=("input", "metrics", str(place)),
            allowed=offered,
        )
        for place, name in enumerate(found)
        if name not in offered
    ]
    if not metrics:
        message = "Name at least one metric, or leave metrics out for the usual ones."
        wrong.append(Invalid(message=message, path=("input", "metrics"), allowed=offered))
    if wrong:
        raise Refused(*wrong)
    return list(dict.fromkeys(str(name) for name in found))


async def outcome(session: Session, operation_id: UUID) -> Evaluation | None:
    """What an evaluation found; None while it is at work.

    Raises `Refused` when it failed, or what it was about is gone.
    """
    ended = await operations.ended(session, operation_id)
    if ended is None:
        raise Refused(not_found("model version or dataset version", None, "input"))
    if ended.status in operations.UNFINISHED:
        return None
    found = None
    if ended.evaluation_id is not None:
        found = (await models.evaluations_by_ids(session, [ended.evaluation_id])).get(ended.evaluation_id)
    if found is None:
        why = ended.failure["message"] if ended.failure else "The evaluation was deleted meanwhile."
        raise Refused(Invalid(message=why, path=_DATA))
    return found


def still_at_work() -> Refusal:
    return InvalidState(
        message=f"The evaluation takes longer than {WAIT_SECONDS:.0f} s. It goes on, and will be among the "
        "`evaluations` of the version.",
        path=("input",),
        current_state=OperationStatus.RUNNING,
        allowed_states=[OperationStatus.SUCCEEDED],
    )


async def finish(session: Session, held: Held, *, found: Json) -> None:
    """A worker has compared: the evaluation, and what it tells of an uploaded model. Raises `LeaseLost`."""
    now = await leased(session, held)
    if "importance" in found:
        await models.add_importance(session, now.model_version_id, found["importance"])
    assert now.dataset_version_id is not None
    made = await models.insert_evaluation(
        session, now.model_version_id, now.dataset_version_id, found, created_by=now.created_by
    )
    progress = {"phase": "finished", "fraction": 1}
    await end(session, now, OperationStatus.SUCCEEDED, evaluation_id=made, progress=progress)
