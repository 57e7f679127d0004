"""Tags: keys with values on a project, dataset, run, model or version of a model."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from uuid import UUID

from auth.permissions import Permission
from auth.principals import Place, Principal
from db import datasets, models, projects, runs
from db.database import Session
from db.ids import Kind, identify
from db.rows import Dataset, Model, ModelVersion, Project, Tags, TrainingRun
from db.vocabulary import EventType
from domain.refusals import Invalid, Refused, not_found
from domain.texts import checked_tags
from domain.training import ALL_RUNS, run_topic
from events.log import publish, user_actor

Tagged = Project | Dataset | TrainingRun | Model | ModelVersion


class _Held(NamedTuple):
    """A thing that the transaction holds: where it is, its tags, and how others are set."""

    place: Place
    tags: Tags
    row: Tagged
    put: Callable[[Tags], Awaitable[Tagged]]


async def set_tags(session: Session, actor: Principal, *, resource_id: str, put: Tags, remove: Sequence[str]) -> Tagged:
    """Set tags, in place of those with the same keys, and take some away; the others stay. The thing as it is then.

    Raises `Refused` when there is no such thing, or the actor may not change it.
    """
    checked_tags(put, "input", "set")
    both = {tag["key"] for tag in put} & set(remove)
    if both:
        message = f"These are to be set and to be removed: {', '.join(sorted(both))}."
        raise Refused(Invalid(message=message, path=("input", "remove")))
    identity = identify(resource_id)
    kind = None if identity is None else identity.kind
    held = None
    if identity is not None and kind in _KINDS:
        held = await _KINDS[kind].hold(session, identity.key)
    if held is None or kind is None:
        raise Refused(not_found("project, dataset, run, model or version", resource_id, "input", "resourceId"))
    needed = _KINDS[kind].permission
    if not actor.may(needed, held.place):
        message = f"Setting tags of this needs the permission {needed}."
        raise Refused(Invalid(message=message, path=("input", "resourceId")))
    wanted = {tag["key"]: tag["value"] for tag in held.tags if tag["key"] not in remove}
    wanted |= {tag["key"]: tag["value"] for tag in put}
    tags = [{"key": key, "value": value} for key, value in wanted.items()]
    if tags == held.tags:
        return held.row
    row = await held.put(tags)
    event = _KINDS[kind].event
    if event is None:
        session.topics.update((ALL_RUNS, run_topic(row.id)))
        return row
    subject = row.model_id if isinstance(row, ModelVersion) else row.id
    field = f"version {row.number} tags" if isinstance(row, ModelVersion) else "tags"
    await publish(
        session,
        event,
        subject,
        project_id=held.place.project_id,
        actor=user_actor(actor.user_id),
        changes={field: [held.tags, tags]},
    )
    return row


async def _project(session: Session, key: UUID) -> _Held | None:
    row = await projects.lock(session, key)
    if row is None:
        return None
    return _Held(Place(row.id), row.tags, row, lambda tags: projects.change(session, key, tags=tags))


async def _dataset(session: Session, key: UUID) -> _Held | None:
    row = await datasets.lock(session, key, revised=False)
    if row is None:
        return None

    async def put(tags: Tags) -> Dataset:
        changed = await datasets.change_unless_taken(session, key, tags=tags, revision=row.revision + 1)
        assert changed is not None
        return changed

    return _Held(Place(row.project_id, key), row.tags, row, put)


async def _run(session: Session, key: UUID) -> _Held | None:
    if await runs.lock(session, key) is None:
        return None
    row = (await runs.by_ids(session, [key]))[key]
    revision = row.revision + 1
    return _Held(
        Place(row.project_id, key), row.tags, row, lambda tags: runs.change(session, key, tags=tags, revision=revision)
    )


async def _model(session: Session, key: UUID) -> _Held | None:
    row = await models.lock(session, key)
    if row is None:
        return None

    async def put(tags: Tags) -> Model:
        changed = await models.change_unless_taken(session, key, tags=tags)
        assert changed is not None
        return changed

    return _Held(Place(row.project_id, key), row.tags, row, put)


async def _model_version(session: Session, key: UUID) -> _Held | None:
    known = (await models.versions_by_ids(session, [key])).get(key)
    model = None if known is None else await models.lock(session, known.model_id)
    row = (await models.versions_by_ids(session, [key])).get(key)
    if model is None or row is None:
        return None
    return _Held(
        Place(model.project_id, model.id),
        row.tags,
        row,
        lambda tags: models.change_version(session, key, tags=tags),
    )


class _Kind(NamedTuple):
    hold: Callable[[Session, UUID], Awaitable[_Held | None]]
    permission: Permission
    event: EventType | None


_KINDS = {
    Kind.PROJECT: _Kind(_project, Permission.PROJECT_UPDATE, EventType.PROJECT_UPDATED),
    Kind.DATASET: _Kind(_dataset, Permission.DATASET_UPDATE, EventType.DATASET_UPDATED),
    Kind.RUN: _Kind(_run, Permission.RUN_UPDATE, None),
    Kind.MODEL: _Kind(_model, Permission.MODEL_UPDATE, EventType.MODEL_UPDATED),
    Kind.MODEL_VERSION: _Kind(_model_version, Permission.MODEL_UPDATE, EventType.MODEL_UPDATED),
}
"""What can have tags, and what is told of it; runs have streams of their own."""
