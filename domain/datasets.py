"""Datasets and the names of their versions."""

from auth.permissions import Permission
from auth.principals import Principal
from db import datasets, projects
from db.database import Session
from db.ids import Kind, key_of
from db.rows import Dataset, Tags
from db.vocabulary import EventType
from domain.refusals import AlreadyExists, Refused, not_found
from domain.texts import checked_tags, checked_text
from events.log import publish, user_actor

MAX_ALIAS = 64


async def create_dataset(
    session: Session, actor: Principal, *, project_id: str, name: str, description: str | None, tags: Tags
) -> Dataset:
    """Make an empty dataset; its name is unique in the project.

    Raises `Refused` when there is no such project, the name is taken or a text cannot be stored.
    """
    checked_text(name, "input", "name", max_length=200)
    checked_text(description, "input", "description")
    checked_tags(tags, "input", "tags")
    key = key_of(project_id, Kind.PROJECT) if actor.may(Permission.PROJECT_READ) else None
    if key is None or not await projects.by_ids(session, [key]):
        raise Refused(not_found("project", project_id, "input", "projectId"))
    dataset = await datasets.insert_unless_taken(
        session, project_id=key, name=name, description=description, tags=tags, created_by=actor.user_id
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


async def set_alias(
    session: Session, actor: Principal, *, dataset_id: str, alias: str, version_id: str | None
) -> Dataset:
    """Let a name stand for a version of the dataset from now on; without a version the name is free again.

    Raises `Refused` when there is no such dataset, or it has no such version.
    """
    checked_text(alias, "input", "alias", max_length=MAX_ALIAS)
    key = key_of(dataset_id, Kind.DATASET) if actor.may(Permission.DATASET_READ) else None
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
