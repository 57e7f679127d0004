"""Roles: list, find, make, change, delete."""

import strawberry
from strawberry import UNSET

from dataloaders import loaders
from db import roles as queries
from db.ids import Kind, key_of
from db.paging import Page, PageArgs
from db.rows import Role
from domain import roles
from resolvers.context import Info
from resolvers.inputs.grants import CreateRoleInput, DeleteRoleInput, UpdateRoleInput


async def all_roles(
    info: Info,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[Role]:
    async with info.context.db.reading() as session:
        return await queries.listed(session, PageArgs.of(first, after, last, before))


async def role(info: Info, id: strawberry.ID | None = UNSET, name: str | None = UNSET) -> Role | None:
    if name is not None:
        async with info.context.db.reading() as session:
            return await queries.by_name(session, name)
    key = key_of(id or "", Kind.ROLE)
    found: Role | None = await loaders.role.load(info.context, key) if key else None
    return found


async def create_role(info: Info, input: CreateRoleInput) -> Role:
    async with info.context.db.transaction() as session:
        return await roles.create_role(
            session,
            info.context.caller,
            name=input.name,
            description=input.description,
            permissions=input.permissions,
        )


async def update_role(info: Info, input: UpdateRoleInput) -> Role:
    async with info.context.db.transaction() as session:
        return await roles.update_role(
            session,
            info.context.caller,
            id=input.id,
            expected_revision=input.expected_revision,
            name=input.name,
            description=input.description,
            permissions=input.permissions,
        )


async def delete_role(info: Info, input: DeleteRoleInput) -> str:
    async with info.context.db.transaction() as session:
        return await roles.delete_role(session, info.context.caller, id=input.id)
