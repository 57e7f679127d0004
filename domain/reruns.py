"""What can be done with a run that is there: rename it, try it again, start another one from it, delete it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from auth.principals import Principal
from db import models, runs, unowned
from db.database import Session
from db.ids import Kind, global_id, key_of
from db.jobs import Job, enqueue
from db.rows import Json, TrainingRun
from db.runs import FINAL, Held
from db.vocabulary import TrainingRunStatus as Status
from domain.changes import at_revision, differing, named
from domain.idempotency import made_before, recall, remember
from domain.refusals import AlreadyExists, InUse, Invalid, InvalidState, Refusal, Refused, not_found
from domain.training import ALL_RUNS, MAX_NAME, QUEUED, RunRequest, create_run, move, run_topic
from events.log import user_actor
from ml.algorithm import canonical
from ml.spec import Algorithm, SplitStrategy, TrainingSpec
from storage.keys import run_prefix

RETRYABLE = (Status.FAILED, Status.TIMED_OUT, Status.CANCELED)


async def update_run(
    session: Session,
    actor: Principal,
    *,
    id: str,
    expected_revision: int | None,
    name: str | None,
    description: str | None,
) -> TrainingRun:
    """Another name or description, in whatever state the run is; None leaves one as it is. Raises `Refused`."""
    wanted = named(name, description, max_name=MAX_NAME)
    run = await _locked(session, id)
    now = (await runs.by_ids(session, [run.id]))[run.id]
    at_revision(now, expected_revision, "run")
    changes = differing(now, wanted)
    if not changes:
        return now
    changed = await runs.change_unless_taken(session, run.id, **changes, revision=now.revision + 1)
    if changed is None:
        assert name is not None
        raise Refused(
            AlreadyExists(
                message=f"The project has a training run named {name!r} already.",
                path=("input", "name"),
                existing=await runs.by_name(session, run.project_id, name),
            )
        )
    session.topics.update((ALL_RUNS, run_topic(run.id)))
    return changed


async def retry_run(session: Session, actor: Principal, *, id: str, resume: bool) -> TrainingRun:
    """Queue a run that ended without success once more: the same spec and data, and `maxAttempts` counts anew.

    It goes on from its last checkpoint, if it has one; without `resume` it starts over. Raises `Refused`.
    """
    run = await _locked(session, id)
    if run.spec["algorithm"] == Algorithm.EXTERNAL:
        message = "A run that is trained outside is tried again by its script; clone it for a new one."
        raise Refused(Invalid(message=message, path=("input", "id")))
    if run.status not in RETRYABLE:
        raise Refused(
            InvalidState(
                message="Only a run that ended without success can be tried again.",
                path=("input", "id"),
                current_state=run.status,
                allowed_states=RETRYABLE,
            )
        )
    validated_on = run.validation_dataset_version_id or run.spec["split"]["strategy"] != SplitStrategy.PROVIDED
    if run.dataset_version_id is None or not validated_on:
        message = "The data of this run was deleted. Clone it with another datasetVersionId."
        raise Refused(Invalid(message=message, path=("input", "id")))
    row = await move(
        session,
        run,
        Status.QUEUED,
        actor=user_actor(actor.user_id),
        reason="Tried again on request." if resume else "Tried again from the start on request.",
        lease=None,
        finished_at=None,
        failure=None,
        cancellation=None,
        outcome=None,
        progress=QUEUED,
        tries_from=run.attempt,
        **({} if resume else {"checkpoint": None}),
    )
    await enqueue(session, Job.TRAIN_RUN, run.id)
    return row


async def clone_run(
    session: Session,
    actor: Principal,
    *,
    id: str,
    name: str | None,
    dataset_version_id: str | None,
    params: Mapping[str, Any] | None,
    num_rounds: int | None,
    idempotency_key: str | None,
) -> TrainingRun:
    """Queue a new run that asks for what another one asked for, with changes.

    `params` are laid over those that the caller of the first run set; null takes one back to its default. What the
    first run registered is not registered again. Raises `Refused`.
    """
    told = [id, name, dataset_version_id, params, num_rounds]
    known = await recall(session, actor, "cloneTrainingRun", idempotency_key, told)
    if known is not None:
        return made_before(await runs.by_ids(session, [known]), known)
    run = await _locked(session, id)
    was = (await runs.by_ids(session, [run.id]))[run.id]
    spec: Json = run.spec | {"params": _laid_over(run, params or {})}
    if num_rounds is not None:
        spec |= {"num_rounds": num_rounds}
    data = dataset_version_id or _id_of(Kind.DATASET_VERSION, run.dataset_version_id)
    request = RunRequest(
        project_id=global_id(Kind.PROJECT, run.project_id),
        spec=TrainingSpec.from_json(spec),
        name=name,
        description=was.description,
        tags=was.tags,
        dataset_version_id=data,
        validation_dataset_version_id=_id_of(Kind.DATASET_VERSION, run.validation_dataset_version_id),
    )
    try:
        clone = await create_run(session, actor, request, idempotency_key=None)
    except Refused as refused:
        changeable = {"params", "numRounds"} if num_rounds is not None else {"params"}
        raise Refused(*(_of_clone(r, changeable, dataset_version_id) for r in refused.refusals)) from None
    await remember(session, actor, "cloneTrainingRun", idempotency_key, told, clone.id)
    return clone


def _laid_over(run: Held, changes: Mapping[str, Any]) -> Json:
    explicit = {p["name"]: p["value"] for p in run.params if p["explicit"]}
    changed = {canonical(name) for name in changes}
    kept = {name: value for name, value in explicit.items() if name not in changed}
    return kept | {name: value for name, value in changes.items() if value is not None}


def _id_of(kind: Kind, key: UUID | None) -> str | None:
    return None if key is None else global_id(kind, key)


def _of_clone(refusal: Refusal, changeable: set[str], dataset_version_id: str | None) -> Refusal:
    """The refusal of a whole request, at its place in the input of a clone."""
    path = refusal.path or ()
    if path[:2] != ("input", "spec"):
        return refusal
    if path[2:3] and path[2] in changeable:
        return replace(refusal, path=("input", *path[2:]))
    return replace(refusal, path=("input", "id" if dataset_version_id is None else "datasetVersionId"))


async def delete_run(session: Session, actor: Principal, *, id: str) -> TrainingRun:
    """Delete a run that is over, with its history, log and artifacts; its files are noted in the same transaction and
    swept afterwards.

    Raises `Refused` when it is at work, or when a model version or another run was made from it.
    """
    run = await _locked(session, id)
    if run.status not in FINAL:
        raise Refused(
            InvalidState(
                message="Cancel this run before you delete it.",
                path=("input", "id"),
                current_state=run.status,
                allowed_states=FINAL,
            )
        )
    versions = (await models.versions_of_runs(session, [run.id]))[run.id]
    children = await runs.children(session, run.id)
    if versions or children:
        shown = await models.versions_by_ids(session, [version.id for version in versions])
        named = await runs.by_ids(session, [child.id for child in children])
        message = "Model versions or other runs were made from this run. Delete them first."
        raise Refused(InUse(message=message, path=("input", "id"), dependents=[*shown.values(), *named.values()]))
    row = (await runs.by_ids(session, [run.id]))[run.id]
    await runs.delete(session, run.id)
    await unowned.let_go(session, [f"{run_prefix(run.id)}/"])
    session.topics.update((ALL_RUNS, run_topic(run.id)))
    return row


async def _locked(session: Session, id: str) -> Held:
    key = key_of(id, Kind.RUN)
    run = await runs.lock(session, key) if key is not None else None
    if run is None:
        raise Refused(not_found("training run", id, "input", "id"))
    return run
