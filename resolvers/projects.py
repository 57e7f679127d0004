"""Projects: list, find, make, change, delete; and the tags of what is in them."""

from typing import Any

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from dataloaders import loaders
from db import projects as queries
from db.ids import Kind, key_of
from db.paging import EMPTY, Page, PageArgs
from db.rows import Project
from domain import projects, tags
from resolvers.context import Info
from resolvers.inputs.identity import (
    CreateProjectInput,
    DeleteProjectInput,
    ProjectFilter,
    ProjectOrder,
    ProjectOrderField,
    SetTagsInput,
    UpdateProjectInput,
)
from resolvers.paging import ordering, tags_of

BY_NAME = ProjectOrder(field=ProjectOrderField.NAME)


async def all_projects(
    info: Info,
    filter: ProjectFilter | None = UNSET,
    order_by: ProjectOrder | None = BY_NAME,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[Project]:
    args = PageArgs.of(first, after, last, before, filter=filter, order=ordering(order_by or BY_NAME))
    if not info.context.sees(Permission.PROJECT_READ):
        return EMPTY
    async with info.context.db.reading() as session:
        return await queries.listed(session, args)


async def viewer_projects(info: Info, first: int | None = UNSET, after: str | None = UNSET) -> Page[Project]:
    args = PageArgs.of(first, after, order=("NAME", False))
    if not info.context.sees(Permission.PROJECT_READ):
        return EMPTY
    async with info.context.db.reading() as session:
        return await queries.listed(session, args)


async def project(info: Info, id: strawberry.ID | None = UNSET, slug: str | None = UNSET) -> Project | None:
    if not info.context.sees(Permission.PROJECT_READ):
        return None
    if slug is not None:
        async with info.context.db.reading() as session:
            return await queries.by_slug(session, slug)
    key = key_of(id or "", Kind.PROJECT)
    found: Project | None = await loaders.project.load(info.context, key) if key else None
    return found


async def create_project(info: Info, input: CreateProjectInput) -> Project:
    async with info.context.db.transaction() as session:
        return await projects.create_project(
            session,
            info.context.caller,
            slug=input.slug,
            name=input.name,
            description=input.description,
            tags=tags_of(input.tags),
        )


async def update_project(info: Info, input: UpdateProjectInput) -> Project:
    async with info.context.db.transaction() as session:
        return await projects.update_project(
            session,
            info.context.caller,
            id=input.id,
            expected_revision=input.expected_revision,
            name=input.name,
            description=input.description,
        )


async def delete_project(info: Info, input: DeleteProjectInput) -> Project:
    async with info.context.db.transaction() as session:
        return await projects.delete_project(session, info.context.caller, id=input.id, confirmation=input.confirmation)


async def set_tags(info: Info, input: SetTagsInput) -> dict[str, Any]:
    async with info.context.db.transaction() as session:
        row = await tags.set_tags(
            session,
            info.context.caller,
            resource_id=input.resource_id,
            put=tags_of(input.set),
            remove=input.remove or [],
        )
    return {"resource": row, "tags": row.tags}
