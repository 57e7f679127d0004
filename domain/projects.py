"""Projects: the boundary of isolation that everything else lives in."""

from typing import Any
from uuid import UUID

from auth.principals import Principal
from db import contents, datasets, models, operations, projects, runs, unowned
from db.database import Session
from db.ids import Kind, key_of
from db.rows import Project, Tags
from db.vocabulary import EventType
from domain.changes import as_told, at_revision, differing, named
from domain.refusals import AlreadyExists, ErrorCode, InUse, Invalid, Refused, not_found
from domain.texts import checked_tags, checked_text
from domain.training import ALL_RUNS, run_topic
from events.log import publish, user_actor
from storage.keys import dataset_prefixes, operation_prefix, run_prefix


async def create_project(
    session: Session, actor: Principal, *, slug: str, name: str, description: str | None, tags: Tags
) -> Project:
    """Make an empty project. Raises `Refused` when the slug is taken or a text cannot be stored."""
    checked_text(name, "input", "name", max_length=200)
    checked_text(description, "input", "description")
    checked_tags(tags, "input", "tags")
    project = await projects.insert_unless_taken(
        session, slug=slug, name=name, description=description, tags=tags, created_by=actor.user_id
    )
    if project is None:
        raise Refused(
            AlreadyExists(
                message=f"There is a project with the slug {slug!r} already.",
                path=("input", "slug"),
                existing=await projects.by_slug(session, slug),
            )
        )
    await publish(
        session,
        EventType.PROJECT_CREATED,
        project.id,
        project_id=project.id,
        actor=user_actor(actor.user_id),
    )
    return project


async def update_project(
    session: Session,
    actor: Principal,
    *,
    id: str,
    expected_revision: int | None,
    name: str | None,
    description: str | None,
) -> Project:
    """Rename or describe a project; None leaves as it is, an empty description takes it away.

    Raises `Refused` when there is no such project, or its revision is another than the expected one.
    """
    wanted = named(name, description)
    before = await _held(session, id)
    at_revision(before, expected_revision, "project")
    changes = differing(before, wanted)
    if not changes:
        return before
    changed = await projects.change(session, before.id, **changes)
    await publish(
        session,
        EventType.PROJECT_UPDATED,
        changed.id,
        project_id=changed.id,
        actor=user_actor(actor.user_id),
        changes=as_told(before, changes),
    )
    return changed


async def delete_project(session: Session, actor: Principal, *, id: str, confirmation: str) -> Project:
    """Delete a project with everything in it; its objects are noted in the same transaction and swept afterwards.

    Raises `Refused` when the slug is not typed again, or naming what is at work there or with what is there, and
    versions of models elsewhere that were made of its runs.
    """
    key = key_of(id, Kind.PROJECT)
    project = await projects.lock_whole(session, key) if key is not None else None
    if project is None:
        raise Refused(not_found("project", id, "input", "id"))
    if confirmation != project.slug:
        message = "Type the slug of the project again to confirm."
        code = ErrorCode.CONFIRMATION_MISMATCH
        raise Refused(Invalid(code=code, message=message, path=("input", "confirmation")))
    in_the_way = await contents.in_the_way(session, project.id)
    if in_the_way:
        named = [
            *(await runs.by_ids(session, in_the_way.runs[:NAMED_DEPENDENTS])).values(),
            *(await operations.batches_by_ids(session, in_the_way.batch_predictions[:NAMED_DEPENDENTS])).values(),
            *(await models.versions_by_ids(session, in_the_way.model_versions[:NAMED_DEPENDENTS])).values(),
        ]
        message = (
            "Runs or other work that is not over needs what is in this project: cancel it, or wait for its end."
            if in_the_way.runs or in_the_way.batch_predictions or in_the_way.other_work
            else "Versions of models in other projects were made of runs in this one. Delete them first."
        )
        raise Refused(InUse(message=message, path=("input", "id"), dependents=named[:NAMED_DEPENDENTS]))
    stored = await contents.stored(session, project.id)
    await contents.remove(session, project.id)
    below = [prefix for dataset in stored.datasets for prefix in dataset_prefixes(dataset.id)]
    below += [f"{run_prefix(run)}/" for run in stored.runs]
    below += [operation_prefix(operation) for operation in stored.operations]
    await unowned.let_go(session, [*below, *stored.uploads, *stored.model_files])
    session.topics.update((ALL_RUNS, *(run_topic(run) for run in stored.runs)))
    session.topics.update(datasets.version_topic(version) for version in stored.dataset_versions)
    session.topics.update(operations.operation_topic(operation) for operation in stored.operations)
    gone: list[tuple[EventType, UUID, dict[str, Any]]] = [
        (EventType.PROJECT_DELETED, project.id, {"name": [project.name, None], "slug": [project.slug, None]}),
        *((EventType.DATASET_DELETED, dataset.id, {"name": [dataset.name, None]}) for dataset in stored.datasets),
        *((EventType.MODEL_DELETED, model.id, {"name": [model.name, None]}) for model in stored.models),
    ]
    who = user_actor(actor.user_id)
    for type, subject, changes in gone:
        await publish(session, type, subject, project_id=project.id, actor=who, changes=changes)
    return project


NAMED_DEPENDENTS = 20


async def _held(session: Session, id: str) -> Project:
    """The project, held until the transaction ends. Raises `Refused`."""
    key = key_of(id, Kind.PROJECT)
    project = await projects.lock(session, key) if key is not None else None
    if project is None:
        raise Refused(not_found("project", id, "input", "id"))
    return project
