"""Projects: the boundary of isolation that everything else lives in."""

from auth.principals import Principal
from db import projects
from db.database import Session
from db.ids import Kind, key_of
from db.rows import Project, Tags
from db.vocabulary import EventType
from domain.changes import as_told, at_revision, differing, named
from domain.refusals import AlreadyExists, Refused, not_found
from domain.texts import checked_tags, checked_text
from events.log import publish, user_actor


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


async def _held(session: Session, id: str) -> Project:
    """The project, held until the transaction ends. Raises `Refused`."""
    key = key_of(id, Kind.PROJECT)
    project = await projects.lock(session, key) if key is not None else None
    if project is None:
        raise Refused(not_found("project", id, "input", "id"))
    return project
