"""Queries on projects."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from db.conditions import tagged, words
from db.database import Prepared, Session
from db.ids import new_id
from db.paging import Order, Page, PageArgs, page
from db.rows import KnownProject, Project, Tags, columns
from db.sight import project_in_sight, project_known
from db.tables import projects

_ROW = columns(Project, projects)
_IN_SIGHT = project_in_sight()
_BY_IDS = Prepared(
    select(_IN_SIGHT.label("in_sight"), *_ROW).where(
        projects.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))), or_(_IN_SIGHT, project_known())
    )
)
_BY_SLUG = Prepared(select(*_ROW).where(projects.c.slug == bindparam("slug"), _IN_SIGHT))
_LOCK = Prepared(
    select(*_ROW).where(projects.c.id == bindparam("id", type_=Uuid), _IN_SIGHT).with_for_update(key_share=True)
)
_LOCK_WHOLE = Prepared(select(*_ROW).where(projects.c.id == bindparam("id", type_=Uuid), _IN_SIGHT).with_for_update())
_ORDERS = {
    "NAME": projects.c.name,
    "CREATED_AT": projects.c.created_at,
    "UPDATED_AT": projects.c.updated_at,
}


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Project | KnownProject]:
    """A project of which the reader sees only something inside is there by its name."""
    found: dict[UUID, Project | KnownProject] = {}
    for in_sight, *values in await session.records(_BY_IDS, ids=list(ids)):
        project = Project._make(values)
        found[project.id] = project if in_sight else KnownProject(project.id, project.name)
    return found


async def by_slug(session: Session, slug: str) -> Project | None:
    return await session.first(Project, _BY_SLUG, slug=slug)


async def listed(session: Session, args: PageArgs) -> Page[Project]:
    """A page of all projects; `args.order` is a field of `ProjectOrderField` and whether it descends."""
    statement = select(*_ROW).where(_IN_SIGHT)
    wanted: Any = args.filter
    if wanted is not None:
        statement = statement.where(
            *words(projects.c.name, wanted.name),
            *words(projects.c.slug, wanted.slug),
            *tagged(projects.c.tags, wanted.tags),
        )
    name, descending = args.order
    order = Order.by(name, _ORDERS[name], projects.c.id, descending=descending)
    return await page(session, Project, statement, order, args)


async def lock(session: Session, id: UUID) -> Project | None:
    """The project, which nobody else changes until the transaction ends."""
    return await session.first(Project, _LOCK, id=id)


async def lock_whole(session: Session, id: UUID) -> Project | None:
    """The project, in which nobody can make anything until the transaction ends."""
    return await session.first(Project, _LOCK_WHOLE, id=id)


async def change(session: Session, id: UUID, **values: Any) -> Project:
    """Write columns of a project that the transaction has locked."""
    changed = await session.first(
        Project,
        update(projects)
        .where(projects.c.id == id)
        .values(**values, updated_at=func.clock_timestamp(), revision=projects.c.revision + 1)
        .returning(*_ROW),
    )
    assert changed is not None
    return changed


async def insert_unless_taken(
    session: Session, *, slug: str, name: str, description: str | None, tags: Tags, created_by: UUID
) -> Project | None:
    """The new project, or None when the slug is taken."""
    statement = (
        upsert(projects)
        .values(id=new_id(), slug=slug, name=name, description=description, tags=tags, created_by=created_by)
        .on_conflict_do_nothing(index_elements=[projects.c.slug])
        .returning(*_ROW)
    )
    return await session.first(Project, statement)
