"""Work that outlives the request: asked for, followed, canceled, and brought to its end by whichever worker holds it.

An operation and its job are written in one transaction. A worker that works on an operation holds a lease on it; every
later write names the lease, so whoever has lost it writes nothing any more.
"""

from datetime import timedelta
from uuid import UUID

from auth.permissions import Permission
from auth.principals import Place, Principal
from db import datasets, models, operations, unowned
from db.database import Session
from db.ids import Kind, key_of
from db.operations import Held
from db.predictions import TargetRef
from db.rows import BatchPrediction, Column, DatasetVersion, Json, Model
from db.vocabulary import (
    DatasetFormat,
    DatasetSourceKind,
    DatasetVersionStatus,
    EventType,
    FailureCode,
    ModelVersionStatus,
    OperationKind,
    OperationStatus,
)
from domain.idempotency import made_before, recall, remember
from domain.predictions import ready_target
from domain.refusals import Invalid, InvalidState, Refused, SchemaMismatch, TypeMismatch, not_found
from events.log import publish, system_actor, user_actor
from ml.messages import Admitted
from storage.keys import data_key

KEPT_AT_MOST = timedelta(days=7)
"""When what a worker stored on the way is deleted, should nobody say earlier that it is not needed any more."""
WORKER = system_actor("worker")
_NUMERIC = frozenset({"INTEGER", "FLOAT", "DECIMAL"})
_TEXTS = frozenset({"STRING", "CATEGORY"})


class LeaseLost(Exception):
    """Another worker has the operation now, or it is over, or gone."""


# Asking


async def predict_batch(
    session: Session,
    actor: Principal,
    *,
    ref: TargetRef,
    input_version_id: str,
    output_dataset_id: str,
    probabilities: bool,
    idempotency_key: str | None,
) -> BatchPrediction:
    """Have a version of a model predict every row of a dataset version; the result becomes a version of a dataset.

    Raises `Refused` with everything that is in the way: the model or the data is not ready, the data lack a feature
    or have it in another type, the caller may not write to the dataset.
    """
    told = [ref, input_version_id, output_dataset_id, probabilities]
    known = await recall(session, actor, "createBatchPrediction", idempotency_key, told)
    if known is not None:
        return made_before(await operations.batches_by_ids(session, [known]), known)
    target = await ready_target(session, ref)
    model = await model_of(session, target.version_id)
    version = await ready_data(session, input_version_id, "input", "inputVersionId")
    signature = (await models.signatures(session, [target.version_id]))[target.version_id]
    check_columns(signature, await datasets.columns_of_version(session, version.id), "input", "inputVersionId")
    output_key = key_of(output_dataset_id, Kind.DATASET)
    output = (await datasets.by_ids(session, [output_key])).get(output_key) if output_key is not None else None
    if output is None:
        raise Refused(not_found("dataset", output_dataset_id, "input", "outputDatasetId"))
    if not actor.may(Permission.DATASET_UPDATE, Place(output.project_id, output.id)):
        message = "Writing predictions to a dataset needs the permission DATASET_UPDATE there."
        raise Refused(Invalid(message=message, path=("input", "outputDatasetId")))
    id = await operations.ask(
        session,
        kind=OperationKind.BATCH_PREDICTION,
        project_id=model.project_id,
        model_version_id=target.version_id,
        dataset_version_id=version.id,
        output_dataset_id=output.id,
        spec={"probabilities": probabilities},
        created_by=actor.user_id,
    )
    await remember(session, actor, "createBatchPrediction", idempotency_key, told, id)
    return (await operations.batches_by_ids(session, [id]))[id]


async def model_of(session: Session, version_id: UUID) -> Model:
    """The model that a version is one of; the caller knows that there is such a version."""
    version = (await models.versions_by_ids(session, [version_id]))[version_id]
    return (await models.by_ids(session, [version.model_id]))[version.model_id]


async def ready_data(session: Session, version_id: str, *path: str) -> DatasetVersion:
    """A dataset version that can be read. Raises `Refused`."""
    key = key_of(version_id, Kind.DATASET_VERSION)
    version = (await datasets.versions_by_ids(session, [key])).get(key) if key is not None else None
    if version is None:
        raise Refused(not_found("dataset version", version_id, *path))
    if version.status != DatasetVersionStatus.READY:
        raise Refused(
            InvalidState(
                message=f"Only a version that is ready can be read; this one is {version.status}.",
                path=path,
                current_state=version.status,
                allowed_states=[DatasetVersionStatus.READY],
            )
        )
    return version


def check_columns(signature: Json, held: list[Column], *path: str) -> None:
    """Raises `Refused` unless the data have every feature of a signature, in a type it can be read from."""
    types = {column.name: column.type for column in held}
    missing = [field["name"] for field in signature["inputs"] if field["name"] not in types]
    mismatches = [
        TypeMismatch(column=field["name"], expected=field["type"], actual=types[field["name"]])
        for field in signature["inputs"]
        if field["name"] in types and not _reads_as(field["type"], types[field["name"]])
    ]
    if missing or mismatches:
        wrong = [f"has no column {name!r}" for name in missing]
        wrong += [f"has {one.column!r} as {one.actual}, not {one.expected}" for one in mismatches]
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise Refused(
            SchemaMismatch(
                message=f"The data do not fit the model: the version {'; '.join(wrong[:5])}{more}.",
                path=path,
                missing_columns=missing,
                type_mismatches=mismatches,
            )
        )


def _reads_as(wanted: str, held: str) -> bool:
    return wanted == held or {wanted, held} <= _NUMERIC or {wanted, held} <= _TEXTS


async def cancel(session: Session, actor: Principal, *, id: str) -> BatchPrediction:
    """End an operation before it is done: at once while it waits, else as soon as its worker hears of it.

    Whoever asked for it may, and whoever may predict with the model. Raises `Refused`.
    """
    key = key_of(id, Kind.BATCH_PREDICTION)
    held = await operations.lock(session, key) if key is not None else None
    if held is None:
        raise Refused(not_found("operation", id, "input", "id"))
    place = Place(held.project_id, (await model_of(session, held.model_version_id)).id)
    if held.created_by != actor.user_id and not actor.may(Permission.PREDICTION_CREATE, place):
        message = "Canceling what somebody else asked for needs the permission PREDICTION_CREATE on the model."
        raise Refused(Invalid(message=message, path=("input", "id")))
    if held.status == OperationStatus.QUEUED:
        await end(session, held, OperationStatus.CANCELED, actor=user_actor(actor.user_id))
    elif held.status == OperationStatus.RUNNING:
        await operations.change(session, held.id, status=OperationStatus.CANCELING)
    elif held.status != OperationStatus.CANCELING:
        raise Refused(
            InvalidState(
                message=f"This is {held.status} already.",
                path=("input", "id"),
                current_state=held.status,
                allowed_states=[OperationStatus.QUEUED, OperationStatus.RUNNING],
            )
        )
    return (await operations.batches_by_ids(session, [held.id]))[held.id]


# A worker's steps


async def leased(session: Session, held: Held) -> Held:
    """The operation as it is now, held by this transaction. Raises `LeaseLost`."""
    assert held.lease is not None
    now = await operations.leased(session, held.id, held.lease)
    if now is None:
        raise LeaseLost(held.id)
    return now


async def note(session: Session, held: Held, progress: Json | None) -> Held:
    """A sign of life, with how far the work is when that has changed. Raises `LeaseLost`."""
    now = await leased(session, held)
    return now if progress is None else await operations.change(session, held.id, progress=progress)


async def will_store(session: Session, held: Held, key: str) -> None:
    """An object is about to be stored at `key`: should it be forgotten, it is deleted some day. Raises `LeaseLost`."""
    await leased(session, held)
    await unowned.let_go(session, [key], after=KEPT_AT_MOST)


async def keep_part(session: Session, held: Held, part: Json, *, scored: int, failed: int) -> Held:
    """The predictions of the next rows are stored: another attempt goes on after them.

    It counts as the first again: only workers that were lost without getting further are counted. Raises `LeaseLost`.
    """
    now = await leased(session, held)
    return await operations.change(
        session,
        held.id,
        attempt=1,
        kept=now.kept | {"parts": [*now.kept.get("parts", []), part]},
        rows_scored=now.rows_scored + scored,
        rows_failed=now.rows_failed + failed,
    )


async def finish_batch(
    session: Session, held: Held, *, digest: str, size_bytes: int, row_count: int, described: list[Json]
) -> None:
    """The predictions are stored as Parquet at `output_key`: they become a READY version of the output dataset.

    Raises `LeaseLost`, and nothing is written then.
    """
    now = await leased(session, held)
    if now.status == OperationStatus.CANCELING:
        await end(session, now, OperationStatus.CANCELED)
        return
    dataset = None
    if now.output_dataset_id is not None:
        dataset = await datasets.lock(session, now.output_dataset_id, revised=False)
    if dataset is None:
        message = "The dataset that the predictions were to become a version of was deleted meanwhile."
        await fail(session, now, FailureCode.INVALID_DATA, message, retryable=False)
        return
    name = (await model_of(session, now.model_version_id)).name
    number = (await models.versions_by_ids(session, [now.model_version_id]))[now.model_version_id].number
    key = output_key(now)
    version = await datasets.insert_derived_version(
        session,
        id=now.id,
        dataset_id=dataset.id,
        format=DatasetFormat.PARQUET,
        source={"kind": DatasetSourceKind.DERIVED},
        note=f"Predictions of {name!r} version {number}",
        created_by=now.created_by,
        key=key,
        digest=digest,
        size_bytes=size_bytes,
        row_count=row_count,
        described=described,
    )
    await unowned.forget(session, [key])
    for type in (EventType.DATASET_VERSION_CREATED, EventType.DATASET_VERSION_READY):
        await publish(session, type, version.id, project_id=dataset.project_id, actor=WORKER)
    progress = {"phase": "finished", "fraction": 1, "completed": row_count, "total": row_count, "unit": "rows"}
    await end(session, now, OperationStatus.SUCCEEDED, output_version_id=version.id, progress=progress)


def output_key(held: Held) -> str:
    """Where the output of a batch prediction is stored, whichever attempt stores it."""
    assert held.output_dataset_id is not None
    return data_key(held.output_dataset_id, held.id, held.id)


async def fail(
    session: Session, held: Held, code: FailureCode, message: str, *, retryable: bool, detail: str | None = None
) -> None:
    """The operation has failed for good; one that is being canceled is canceled. Raises `LeaseLost`."""
    now = await leased(session, held)
    if now.status == OperationStatus.CANCELING:
        await end(session, now, OperationStatus.CANCELED)
        return
    failure = {"code": code, "message": message, "retryable": retryable, "detail": detail}
    if now.kind == OperationKind.MODEL_CHECK:
        await _checked(session, now, ModelVersionStatus.FAILED, description=f"Not usable: {message}")
    await end(session, now, OperationStatus.FAILED, failure=failure)


async def admit(session: Session, held: Held, *, model_key: str, manifest_key: str, admitted: Admitted) -> None:
    """The uploaded model can be served: its version is READY. Raises `LeaseLost`, and nothing is written then."""
    now = await leased(session, held)
    await _checked(
        session,
        now,
        ModelVersionStatus.READY,
        signature=admitted.signature,
        importance=admitted.importance,
        params=admitted.params,
        model_key=model_key,
        sha256=admitted.sha256,
        size_bytes=admitted.size_bytes,
        manifest_key=manifest_key,
        manifest_sha256=admitted.manifest_sha256,
    )
    await unowned.forget(session, [model_key, manifest_key])
    await end(session, now, OperationStatus.SUCCEEDED, progress={"phase": "finished", "fraction": 1})


async def _checked(session: Session, held: Held, status: ModelVersionStatus, **values: object) -> None:
    """A version that was PENDING is something else now."""
    model = await model_of(session, held.model_version_id)
    await models.lock(session, model.id)
    version = await models.change_version(session, held.model_version_id, status=status, **values)
    changes = {f"version {version.number} status": [ModelVersionStatus.PENDING, status]}
    updated = EventType.MODEL_UPDATED
    await publish(session, updated, model.id, project_id=model.project_id, actor=WORKER, changes=changes)


async def canceled(session: Session, held: Held) -> None:
    """The work was stopped because somebody wanted it so. Raises `LeaseLost`."""
    await end(session, await leased(session, held), OperationStatus.CANCELED)


async def end(session: Session, held: Held, status: OperationStatus, *, actor: str = WORKER, **values: object) -> None:
    """From whatever state to the last one; what was kept on the way is let go. The caller holds the row."""
    await unowned.let_go(session, [part["key"] for part in held.kept.get("parts", ())])
    await operations.change(session, held.id, status=status, lease=None, finished_at=operations.NOW, kept={}, **values)
    if held.kind == OperationKind.BATCH_PREDICTION:
        changes = {"status": [held.status, status]}
        finished = EventType.BATCH_PREDICTION_FINISHED
        await publish(session, finished, held.id, project_id=held.project_id, actor=actor, changes=changes)
