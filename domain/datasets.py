"""Datasets, what is said about their columns, and the names of their versions."""

from auth.principals import Principal
from db import datasets, projects, runs, unowned, uploads
from db.database import Session
from db.ids import Kind, key_of
from db.rows import Column, Dataset, DatasetVersion, Tags
from db.vocabulary import ColumnRole, DatasetVersionStatus, EventType
from domain.changes import as_told, at_revision, differing, named
from domain.refusals import AlreadyExists, InUse, InvalidState, Refused, not_found
from domain.texts import checked_tags, checked_text
from domain.uploads import ask_for_processing
from events.log import publish, user_actor

MAX_ALIAS = 64


async def create_dataset(
    session: Session,
    actor: Principal,
    *,
    project_id: str,
    name: str,
    description: str | None,
    tags: Tags,
    tolerated_rejects: float = 0.0,
) -> Dataset:
    """Make an empty dataset; its name is unique in the project. `tolerated_rejects` is the share of the rows of a CSV
    file that may be left out because they cannot be read.

    Raises `Refused` when there is no such project, the name is taken or a text cannot be stored.
    """
    checked_text(name, "input", "name", max_length=200)
    checked_text(description, "input", "description")
    checked_tags(tags, "input", "tags")
    key = key_of(project_id, Kind.PROJECT)
    if key is None or not await projects.by_ids(session, [key]):
        raise Refused(not_found("project", project_id, "input", "projectId"))
    dataset = await datasets.insert_unless_taken(
        session,
        project_id=key,
        name=name,
        description=description,
        tags=tags,
        tolerated_rejects=tolerated_rejects,
        created_by=actor.user_id,
    )
    if dataset is None:
        raise Refused(
            AlreadyExists(
                message=f"There is a dataset named {name!r} in this project already.",
                path=("input", "name"),
                existing=await datasets.by_name(session, key, name),
            )
        )
    await publish(session, EventType.DATASET_CREATED, dataset.id, project_id=key, actor=user_actor(actor.user_id))
    return dataset


async def update_dataset(
    session: Session,
    actor: Principal,
    *,
    id: str,
    expected_revision: int | None,
    name: str | None,
    description: str | None,
    tolerated_rejects: float | None,
) -> Dataset:
    """Rename or describe a dataset, or say what its files may lack; None leaves as it is, an empty description takes it
    away. What is tolerated counts for files that are processed from now on.

    Raises `Refused` when there is no such dataset, its revision is another than the expected one, or the project has a
    dataset of that name.
    """
    wanted = named(name, description)
    before = await _held(session, actor, id, "input", "id")
    at_revision(before, expected_revision, "dataset")
    if tolerated_rejects is not None:
        wanted["tolerated_rejects"] = tolerated_rejects
    changes = differing(before, wanted)
    if not changes:
        return before
    changed = await datasets.change_unless_taken(session, before.id, **changes, revision=before.revision + 1)
    if changed is None:
        raise Refused(
            AlreadyExists(
                message=f"There is a dataset named {name!r} in this project already.",
                path=("input", "name"),
                existing=await datasets.by_name(session, before.project_id, name or ""),
            )
        )
    await publish(
        session,
        EventType.DATASET_UPDATED,
        changed.id,
        project_id=changed.project_id,
        actor=user_actor(actor.user_id),
        changes=as_told(before, changes),
    )
    return changed


async def delete_dataset(session: Session, actor: Principal, *, id: str) -> Dataset:
    """Delete a dataset with everything in it; its objects are noted in the same transaction and swept afterwards.

    Runs and model versions that came from it stay and forget it; evaluations made on it go. Raises `Refused` when there
    is no such dataset, or naming the runs that are not final and use it.
    """
    dataset = await _held(session, actor, id, "input", "id")
    versions = await datasets.lock_versions(session, dataset.id)
    users = await runs.unfinished_on_dataset(session, dataset.id)
    if users:
        in_sight = await runs.by_ids(session, [run.id for run in users])
        named = [run for run in users if run.id in in_sight]
        more = len(named) > 5 or len(named) < len(users)
        shown = ", ".join(repr(run.name) for run in named[:5]) + (" and others" if named and more else "")
        raise Refused(
            InUse(
                message=f"Runs that are not over use this dataset{': ' if shown else ''}{shown}. "
                "Cancel them, or wait for their end.",
                path=("input", "id"),
                dependents=named,
            )
        )
    kept = {version.upload_key for version in versions} | {version.data_key for version in versions}
    kept |= await uploads.object_keys(session, dataset.id)
    await datasets.remove(session, dataset.id)
    await unowned.let_go(session, sorted(key for key in kept if key is not None))
    for version in versions:
        session.topics.add(datasets.version_topic(version.id))
    await publish(
        session,
        EventType.DATASET_DELETED,
        dataset.id,
        project_id=dataset.project_id,
        actor=user_actor(actor.user_id),
        changes={"name": [dataset.name, None]},
    )
    return dataset


async def update_column(
    session: Session, actor: Principal, *, id: str, role: ColumnRole | None, description: str | None
) -> Column:
    """Say what a column is for; None leaves as it is, an empty description takes it away. The data stay as they are.

    Raises `Refused` when there is no such column.
    """
    checked_text(description or None, "input", "description")
    key = key_of(id, Kind.COLUMN)
    before = (await datasets.columns_by_ids(session, [key])).get(key) if key is not None else None
    if before is None:
        raise Refused(not_found("column", id, "input", "id"))
    version = (await datasets.versions_by_ids(session, [before.version_id]))[before.version_id]
    dataset = await datasets.lock(session, version.dataset_id, revised=True)
    wanted = {
        "role": before.role if role is None else str(role),
        "description": before.description if description is None else description or None,
    }
    changed = await datasets.change_column(session, before.id, **wanted)
    if dataset is None or changed is None:
        raise Refused(not_found("column", id, "input", "id"))
    await publish(
        session,
        EventType.DATASET_UPDATED,
        dataset.id,
        project_id=dataset.project_id,
        actor=user_actor(actor.user_id),
        changes={
            f"versions.{version.number}.columns.{before.name}.{field}": [getattr(before, field), value]
            for field, value in wanted.items()
            if value != getattr(before, field)
        },
    )
    return changed


async def reprocess_version(session: Session, actor: Principal, *, id: str) -> DatasetVersion:
    """Process a version that FAILED once more, from the bytes that were uploaded.

    Raises `Refused` when there is no such version, or it is in another state, or its bytes never arrived.
    """
    key = key_of(id, Kind.DATASET_VERSION)
    known = (await datasets.versions_by_ids(session, [key])).get(key) if key is not None else None
    if known is None:
        raise Refused(not_found("dataset version", id, "input", "id"))
    again = await datasets.process_again(session, known.id) if known.upload_key is not None else None
    if again is None:
        why = (
            "its bytes never arrived: upload them again"
            if known.status == DatasetVersionStatus.FAILED
            else ("only one that FAILED is processed again; a READY version is immutable")
        )
        raise Refused(
            InvalidState(
                message=f"This version is {known.status}; {why}.",
                path=("input", "id"),
                current_state=known.status,
                allowed_states=[DatasetVersionStatus.FAILED],
            )
        )
    await ask_for_processing(session, again.id)
    return again


async def _held(session: Session, actor: Principal, id: str, *path: str) -> Dataset:
    """The dataset, held until the transaction ends. Raises `Refused`."""
    key = key_of(id, Kind.DATASET)
    dataset = await datasets.lock(session, key, revised=False) if key is not None else None
    if dataset is None:
        raise Refused(not_found("dataset", id, *path))
    return dataset


async def set_alias(
    session: Session, actor: Principal, *, dataset_id: str, alias: str, version_id: str | None
) -> Dataset:
    """Let a name stand for a version of the dataset from now on; without a version the name is free again.

    Raises `Refused` when there is no such dataset, or it has no such version.
    """
    checked_text(alias, "input", "alias", max_length=MAX_ALIAS)
    key = key_of(dataset_id, Kind.DATASET)
    dataset = await datasets.lock(session, key, revised=True) if key is not None else None
    if dataset is None:
        raise Refused(not_found("dataset", dataset_id, "input", "datasetId"))
    before = await datasets.versions_named(session, [dataset.id], datasets.VersionRef(alias=alias))
    after = None
    if version_id is None:
        await datasets.remove_alias(session, dataset_id=dataset.id, name=alias)
    else:
        version_key = key_of(version_id, Kind.DATASET_VERSION)
        known = await datasets.versions_by_ids(session, [version_key]) if version_key is not None else {}
        after = next(iter(known.values()), None)
        if after is None or after.dataset_id != dataset.id:
            raise Refused(not_found("version of this dataset", version_id, "input", "versionId"))
        await datasets.set_alias(session, dataset_id=dataset.id, name=alias, version_id=after.id, set_by=actor.user_id)
    was = before[dataset.id].number if dataset.id in before else None
    await publish(
        session,
        EventType.DATASET_UPDATED,
        dataset.id,
        project_id=dataset.project_id,
        actor=user_actor(actor.user_id),
        changes={f"aliases.{alias}": [was, after.number if after else None]},
    )
    return dataset
