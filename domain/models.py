"""Models, the versions that training makes of them, and the aliases by which people and programs choose one."""

from collections.abc import Mapping
from uuid import UUID

from auth.permissions import Permission
from auth.principals import Place, Principal
from db import datasets, operations, projects, runs, uploads
from db import models as queries
from db.database import Session
from db.ids import Kind, global_id, key_of
from db.rows import AliasChange, Json, Model, ModelVersion, Tags, TrainingRun
from db.vocabulary import EventType, ModelVersionStatus, OperationKind, TrainingRunStatus, UploadStatus
from domain.changes import as_told, at_revision, differing, named
from domain.idempotency import made_before, recall, remember
from domain.refusals import AlreadyExists, ErrorCode, InUse, Invalid, InvalidState, Refused, StaleRevision, not_found
from domain.texts import checked_tags, checked_text
from events.log import publish, user_actor
from ml.messages import TrainResult

MODEL = "model.txt"
MANIFEST = "manifest.json"
_SOURCE = ("input", "from")
LARGEST_UPLOAD = 512 * 2**20
_WITH_MODEL = (TrainingRunStatus.SUCCEEDED, TrainingRunStatus.CANCELED)


def outcome_of(result: TrainResult, keys: Mapping[str, str]) -> Json | None:
    """What a run keeps of its training (`training_runs.outcome`), all that a model version is made of.

    `keys` are the object keys of the files of `result`, by path. None when no model was kept.
    """
    if result.manifest is None:
        return None
    return {
        "files": {
            file.path: {"key": keys[file.path], "sha256": file.sha256, "size_bytes": file.size_bytes}
            for file in result.files
        },
        **{part: result.manifest[part] for part in ("signature", "importance", "evaluations")},
    }


async def create_model(
    session: Session,
    actor: Principal,
    *,
    project_id: str,
    name: str,
    description: str | None,
    task: str,
    tags: Tags,
) -> Model:
    """Make a model without versions. Raises `Refused` when the project has one of this name."""
    checked_text(name, "input", "name", max_length=200)
    checked_text(description, "input", "description")
    checked_tags(tags, "input", "tags")
    key = key_of(project_id, Kind.PROJECT)
    if key is None or key not in await projects.by_ids(session, [key]):
        raise Refused(not_found("project", project_id, "input", "projectId"))
    model = await queries.insert_unless_taken(
        session,
        project_id=key,
        name=name,
        description=description,
        task=task,
        tags=tags,
        created_by=actor.user_id,
    )
    if model is None:
        raise Refused(
            AlreadyExists(
                message=f"The project has a model named {name!r} already.",
                path=("input", "name"),
                existing=await queries.by_name(session, key, name),
            )
        )
    await publish(session, EventType.MODEL_CREATED, model.id, project_id=key, actor=user_actor(actor.user_id))
    return model


async def create_version(
    session: Session,
    actor: Principal,
    *,
    model_id: str,
    run_id: str | None,
    upload_id: str | None,
    copy_of_version_id: str | None,
    description: str | None,
    tags: Tags,
    idempotency_key: str | None,
) -> ModelVersion:
    """Make the next version of a model from what a run trained, from another version of the same task, or of an upload.

    A version of an upload is PENDING until a worker has looked at the file.

    Raises `Refused` when the source cannot become a version of this model.
    """
    told = [model_id, run_id, upload_id, copy_of_version_id, description, tags]
    known = await recall(session, actor, "createModelVersion", idempotency_key, told)
    if known is not None:
        return made_before(await queries.versions_by_ids(session, [known]), known)
    checked_text(description, "input", "description")
    checked_tags(tags, "input", "tags")
    model = await _locked(session, actor, model_id)
    if run_id is not None:
        version = await _from_run(session, actor, model, run_id, description=description, tags=tags)
    elif copy_of_version_id is not None:
        version = await _copy(session, actor, model, copy_of_version_id, description=description, tags=tags)
    else:
        version = await _from_upload(session, actor, model, upload_id or "", description=description, tags=tags)
    await remember(session, actor, "createModelVersion", idempotency_key, told, version.id)
    return version


async def update_model(
    session: Session,
    actor: Principal,
    *,
    id: str,
    expected_revision: int | None,
    name: str | None,
    description: str | None,
) -> Model:
    """Change the name or the description of a model; None leaves one as it is. Raises `Refused`."""
    wanted = named(name, description)
    model = await _locked(session, actor, id, "id")
    at_revision(model, expected_revision, "model")
    changed = differing(model, wanted)
    if not changed:
        return model
    row = await queries.change_unless_taken(session, model.id, **changed)
    if row is None:
        raise Refused(
            AlreadyExists(
                message=f"The project has a model named {name!r} already.",
                path=("input", "name"),
                existing=await queries.by_name(session, model.project_id, name or ""),
            )
        )
    await publish(
        session,
        EventType.MODEL_UPDATED,
        model.id,
        project_id=model.project_id,
        actor=user_actor(actor.user_id),
        changes=as_told(model, changed),
    )
    return row


async def delete_model(session: Session, actor: Principal, *, id: str) -> Model:
    """Delete a model with all its versions; the model as it was.

    Raises `Refused`, with what is in the way, while an alias points at one of its versions, or a run that is not over
    is to register its model here.
    """
    model = await _locked(session, actor, id, "id")
    aliases = (await queries.aliases_of_models(session, [model.id])).get(model.id, ())
    held = await queries.versions_by_ids(session, list({alias.version_id for alias in aliases}))
    waiting = await queries.waiting_to_register(session, model.id, limit=NAMED_DEPENDENTS)
    if held or waiting:
        reasons = [f"the alias {alias.name!r} points at version {held[alias.version_id].number}" for alias in aliases]
        in_sight = await runs.by_ids(session, [run.id for run in waiting])
        reasons += [
            f"the run {run.name!r} is to register its model here"
            if run.id in in_sight
            else "a run is to register its model here"
            for run in waiting
        ]
        named = [run for run in waiting if run.id in in_sight]
        dependents = [*sorted(held.values(), key=lambda version: version.number), *named]
        message = f"This model is in use: {'; '.join(reasons[:NAMED_DEPENDENTS])}."
        raise Refused(InUse(message=message, path=("input", "id"), dependents=dependents[:NAMED_DEPENDENTS]))
    await queries.remove(session, model.id)
    actor_name = user_actor(actor.user_id)
    await publish(session, EventType.MODEL_DELETED, model.id, project_id=model.project_id, actor=actor_name)
    return model


async def update_version(
    session: Session,
    actor: Principal,
    *,
    id: str,
    expected_revision: int | None,
    description: str | None,
    status: ModelVersionStatus | None,
) -> ModelVersion:
    """Describe a version, archive it, or make an archived one READY again; what is None stays. Raises `Refused`."""
    wanted = named(None, description)
    model, version = await _locked_version(session, actor, id)
    at_revision(version, expected_revision, "version")
    if status is not None and status != version.status:
        if status not in _SETTABLE:
            message = f"A version is made {' or '.join(_SETTABLE)} by hand, not {status}."
            raise Refused(Invalid(message=message, path=("input", "status"), allowed=list(_SETTABLE)))
        if version.status not in _SETTABLE:
            raise Refused(
                InvalidState(
                    message="Only a version that is ready can be archived, and back.",
                    path=("input", "status"),
                    current_state=version.status,
                    allowed_states=list(_SETTABLE),
                )
            )
        if status == ModelVersionStatus.ARCHIVED:
            await _check_unheld(session, model, version)
    if status is not None:
        wanted["status"] = status
    changed = differing(version, wanted)
    if not changed:
        return version
    row = await queries.change_version(session, version.id, **changed)
    await _told_of_version(
        session,
        actor,
        model,
        {f"version {version.number} {field}": told for field, told in as_told(version, changed).items()},
    )
    return row


async def delete_version(session: Session, actor: Principal, *, id: str) -> ModelVersion:
    """Delete a version; the version as it was. Raises `Refused` while an alias points at it."""
    model, version = await _locked_version(session, actor, id)
    await _check_unheld(session, model, version)
    await queries.remove_version(session, version.id)
    await _told_of_version(session, actor, model, {f"version {version.number}": [version.status, None]})
    return version


NAMED_DEPENDENTS = 20
_SETTABLE = (ModelVersionStatus.READY, ModelVersionStatus.ARCHIVED)


async def _told_of_version(session: Session, actor: Principal, model: Model, changes: Json) -> None:
    await publish(
        session,
        EventType.MODEL_UPDATED,
        model.id,
        project_id=model.project_id,
        actor=user_actor(actor.user_id),
        changes=changes,
    )


async def _check_unheld(session: Session, model: Model, version: ModelVersion) -> None:
    names = (await queries.alias_names_of_versions(session, [version.id])).get(version.id, ())
    if names:
        message = (
            f"Version {version.number} is in use: {', '.join(repr(name) for name in names)} of the model "
            f"{model.name!r} points at it. Move or remove the alias first."
        )
        raise Refused(InUse(message=message, path=("input", "id"), dependents=[model]))


async def _locked_version(session: Session, actor: Principal, version_id: str) -> tuple[Model, ModelVersion]:
    """The version of the input and its model, which is held by this transaction. Raises `Refused`."""
    key = key_of(version_id, Kind.MODEL_VERSION)
    known = (await queries.versions_by_ids(session, [key])).get(key) if key is not None else None
    model = await queries.lock(session, known.model_id) if known is not None else None
    version = (await queries.versions_by_ids(session, [known.id])).get(known.id) if known is not None else None
    if model is None or version is None:
        raise Refused(not_found("model version", version_id, "input", "id"))
    return model, version


async def _locked(session: Session, actor: Principal, model_id: str, field: str = "modelId") -> Model:
    """The model of the input, held by this transaction. Raises `Refused`."""
    key = key_of(model_id, Kind.MODEL)
    model = await queries.lock(session, key) if key is not None else None
    if model is None:
        raise Refused(not_found("model", model_id, "input", field))
    return model


async def _from_run(
    session: Session, actor: Principal, model: Model, run_id: str, *, description: str | None, tags: Tags
) -> ModelVersion:
    path = (*_SOURCE, "runId")
    key = key_of(run_id, Kind.RUN)
    run = (await runs.by_ids(session, [key])).get(key) if key is not None else None
    if run is None or run.project_id != model.project_id:
        raise Refused(not_found("training run in the project of the model", run_id, *path))
    outcome = await queries.outcome(session, run.id) if run.status in _WITH_MODEL else None
    if outcome is None:
        raise Refused(
            InvalidState(
                message="This run has no model: only one that succeeded, or was canceled and kept its best, has.",
                path=path,
                current_state=run.status,
                allowed_states=list(_WITH_MODEL),
            )
        )
    _checked_task(model, run.spec["task"], path)
    return await create_version_of_run(
        session,
        run=run,
        model=model,
        outcome=outcome,
        description=description,
        tags=tags,
        created_by=actor.user_id,
        actor=user_actor(actor.user_id),
    )


async def create_version_of_run(
    session: Session,
    *,
    run: TrainingRun,
    model: Model,
    outcome: Json,
    description: str | None,
    tags: Tags,
    created_by: UUID | None,
    actor: str,
    alias: str | None = None,
) -> ModelVersion:
    """The next version of `model`, READY, from what `run` left (see `outcome_of`); `alias` then points at it.

    The version shares the run's files, which never change. The caller has checked that project and task are the same.
    """
    await queries.lock(session, model.id)
    model_file, manifest_file = outcome["files"][MODEL], outcome["files"][MANIFEST]
    version = await queries.insert_version(
        session,
        model.id,
        status=ModelVersionStatus.READY,
        description=description,
        tags=tags,
        run_id=run.id,
        trained_on_id=run.dataset_version_id,
        signature=outcome["signature"],
        params=run.params,
        importance=outcome["importance"],
        model_key=model_file["key"],
        sha256=model_file["sha256"],
        size_bytes=model_file["size_bytes"],
        manifest_key=manifest_file["key"],
        manifest_sha256=manifest_file["sha256"],
        created_by=created_by,
    )
    for split in ("test", "validation"):
        found = [evaluation for evaluation in outcome["evaluations"] if evaluation["split"] == split]
        other = run.validation_dataset_version_id if split == "validation" else None
        evaluated_on = other or run.dataset_version_id
        if evaluated_on is not None:
            await queries.insert_evaluations(session, version, evaluated_on, found)
    await _published(session, model, version, actor)
    if alias is not None:
        await _move(session, model, alias, version.id, set_by=created_by, actor=actor, reason=None)
    return version


async def _copy(
    session: Session, actor: Principal, model: Model, source_id: str, *, description: str | None, tags: Tags
) -> ModelVersion:
    path = (*_SOURCE, "copyOfVersionId")
    key = key_of(source_id, Kind.MODEL_VERSION)
    source = (await queries.versions_by_ids(session, [key])).get(key) if key is not None else None
    if source is None:
        raise Refused(not_found("model version", source_id, *path))
    if source.status != ModelVersionStatus.READY:
        raise Refused(
            InvalidState(
                message="Only a version that is ready can be copied.",
                path=path,
                current_state=source.status,
                allowed_states=[ModelVersionStatus.READY],
            )
        )
    _checked_task(model, (await queries.by_ids(session, [source.model_id]))[source.model_id].task, path)
    version = await queries.insert_version_copy(
        session, model.id, source.id, description=description, tags=tags, created_by=actor.user_id
    )
    await queries.copy_evaluations(session, source.id, version)
    await _published(session, model, version, user_actor(actor.user_id))
    return version


async def _from_upload(
    session: Session, actor: Principal, model: Model, upload_id: str, *, description: str | None, tags: Tags
) -> ModelVersion:
    path = (*_SOURCE, "uploadId")
    key = key_of(upload_id, Kind.UPLOAD)
    upload = (await uploads.by_ids(session, [key])).get(key) if key is not None else None
    dataset = (await datasets.by_ids(session, [upload.dataset_id])).get(upload.dataset_id) if upload else None
    if upload is None or dataset is None or dataset.project_id != model.project_id:
        raise Refused(not_found("upload in the project of the model", upload_id, *path))
    if not actor.may(Permission.DATASET_PREVIEW, Place(dataset.project_id, dataset.id)):
        raise Refused(Invalid(message="Reading an upload needs the permission DATASET_PREVIEW there.", path=path))
    if upload.status != UploadStatus.COMPLETED:
        raise Refused(
            InvalidState(
                message="Complete the upload first.",
                path=path,
                current_state=upload.status,
                allowed_states=[UploadStatus.COMPLETED],
            )
        )
    if not 0 < upload.size_bytes <= LARGEST_UPLOAD:
        raise Refused(
            Invalid(
                code=ErrorCode.OUT_OF_RANGE,
                message=f"A model has from 1 to {LARGEST_UPLOAD} bytes; this file has {upload.size_bytes}.",
                path=path,
                allowed={"min": 1, "max": LARGEST_UPLOAD},
            )
        )
    version = await queries.insert_version(
        session,
        model.id,
        status=ModelVersionStatus.PENDING,
        description=description,
        tags=tags,
        signature={"inputs": [], "outputs": []},
        params=[],
        importance={},
        model_key="",
        manifest_key="",
        manifest_sha256="",
        created_by=actor.user_id,
    )
    await operations.ask(
        session,
        kind=OperationKind.MODEL_CHECK,
        project_id=model.project_id,
        model_version_id=version.id,
        dataset_version_id=None,
        spec={"upload_key": upload.object_key, "task": model.task, "model_id": model.id.hex},
        created_by=actor.user_id,
    )
    await _published(session, model, version, user_actor(actor.user_id))
    return version


def _checked_task(model: Model, task: str, path: tuple[str, ...]) -> None:
    if task != model.task:
        raise Refused(
            Invalid(
                message=f"This was trained for {task}, and the model {model.name!r} is for {model.task}.",
                path=path,
                allowed=model.task,
            )
        )


async def _published(session: Session, model: Model, version: ModelVersion, actor: str) -> None:
    await publish(session, EventType.MODEL_VERSION_CREATED, version.id, project_id=model.project_id, actor=actor)


async def set_alias(
    session: Session,
    actor: Principal,
    *,
    model_id: str,
    alias: str,
    version_id: str,
    expected_version_id: str | None,
    reason: str | None,
) -> tuple[Model, AliasChange | None]:
    """Point an alias at a version; the change is None when it points there already.

    With `expected_version_id` it is compare-and-swap: raises `Refused(StaleRevision)` when the alias points elsewhere.
    """
    checked_text(reason, "input", "reason")
    model = await _locked(session, actor, model_id)
    key = key_of(version_id, Kind.MODEL_VERSION)
    version = (await queries.versions_by_ids(session, [key])).get(key) if key is not None else None
    if version is None or version.model_id != model.id:
        raise Refused(not_found("version of this model", version_id, "input", "versionId"))
    if version.status != ModelVersionStatus.READY:
        raise Refused(
            InvalidState(
                message="An alias points at a version that is ready.",
                path=("input", "versionId"),
                current_state=version.status,
                allowed_states=[ModelVersionStatus.READY],
            )
        )
    if expected_version_id is not None:
        current = await queries.holder(session, model.id, alias)
        if current is None or global_id(Kind.MODEL_VERSION, current) != expected_version_id:
            held = (await queries.versions_by_ids(session, [current])).get(current) if current else None
            where = f"version {held.number}" if held else "no version"
            raise Refused(
                StaleRevision(
                    message=f"The alias {alias!r} points at {where} by now, not at the one expected.",
                    path=("input", "expectedVersionId"),
                    current_revision=model.revision,
                    current=held,
                )
            )
    return await _move(
        session, model, alias, version.id, set_by=actor.user_id, actor=user_actor(actor.user_id), reason=reason
    )


async def remove_alias(
    session: Session, actor: Principal, *, model_id: str, alias: str, reason: str | None
) -> tuple[Model, AliasChange | None]:
    """Take an alias away. Raises `Refused` when the model has none of this name."""
    checked_text(reason, "input", "reason")
    model = await _locked(session, actor, model_id)
    if await queries.holder(session, model.id, alias) is None:
        raise Refused(not_found("alias of this model", None, "input", "alias"))
    return await _move(
        session, model, alias, None, set_by=actor.user_id, actor=user_actor(actor.user_id), reason=reason
    )


async def _move(
    session: Session,
    model: Model,
    alias: str,
    to_id: UUID | None,
    *,
    set_by: UUID | None,
    actor: str,
    reason: str | None,
) -> tuple[Model, AliasChange | None]:
    from_id = await queries.holder(session, model.id, alias)
    if from_id == to_id:
        return model, None
    moved, change = await queries.move_alias(
        session, model.id, alias, from_id=from_id, to_id=to_id, set_by=set_by, actor=actor, reason=reason
    )
    names = [None if id is None else global_id(Kind.MODEL_VERSION, id) for id in (from_id, to_id)]
    await publish(
        session,
        EventType.MODEL_ALIAS_CHANGED,
        model.id,
        project_id=model.project_id,
        actor=actor,
        changes={alias: names},
    )
    return moved, change
