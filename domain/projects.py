"""Projects: the boundary of isolation that everything else lives in."""

from auth.principals import Principal
from db import projects
from db.database import Session
from db.rows import Project, Tags
from db.vocabulary import EventType
from domain.refusals import AlreadyExists, Refused
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
