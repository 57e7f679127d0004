"""Grants: listed, given and taken back, and what they decide."""

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from auth.principals import EVERYWHERE, Place
from dataloaders import loaders
from db import grants as queries
from db.ids import identify
from db.paging import Page, PageArgs
from db.rows import Grant
from db.vocabulary import GrantScopeType
from domain import decisions, grants
from domain.decisions import Decision
from resolvers.context import Info
from resolvers.inputs.grants import CreateGrantInput, GrantFilter, RevokeGrantInput


async def all_grants(
    info: Info,
    filter: GrantFilter | None = UNSET,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[Grant]:
    args = PageArgs.of(first, after, last, before, filter=filter)
    async with info.context.db.reading() as session:
        return await queries.listed(session, args)


def user_grant_args(
    scope: GrantScopeType | None = UNSET,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> PageArgs:
    return PageArgs.of(first, after, last, before, filter=scope)


async def permission_check(
    info: Info, principal_id: strawberry.ID, permission: Permission, resource_id: strawberry.ID | None = UNSET
) -> Decision | None:
    place = await place_named(info, resource_id)
    async with info.context.db.reading() as session:
        return await decisions.check(session, permission, principal_id=principal_id, place=place)


async def who_can(
    info: Info,
    permission: Permission,
    resource_id: strawberry.ID | None = UNSET,
    first: int | None = UNSET,
    after: str | None = UNSET,
) -> Page[Grant]:
    place = await place_named(info, resource_id)
    async with info.context.db.reading() as session:
        return await queries.deciding(session, permission, place, PageArgs.of(first, after))


async def place_named(info: Info, id: str | None) -> Place:
    """Where an object is, as guards take it: of no ID, and of the ID of nothing, only what holds everywhere counts."""
    named = None if id is None else identify(id)
    place: Place | None = None if named is None else await loaders.place.load(info.context, named)
    return place or EVERYWHERE


async def create_grant(info: Info, input: CreateGrantInput) -> Grant:
    async with info.context.db.transaction() as session:
        return await grants.create_grant(
            session,
            info.context.caller,
            principal_id=input.principal_id,
            role_id=input.what.role_id,
            permissions=input.what.permissions,
            scope_id=input.scope_id,
            expires_at=input.expires_at,
            reason=input.reason,
        )


async def revoke_grant(info: Info, input: RevokeGrantInput) -> str:
    async with info.context.db.transaction() as session:
        return await grants.revoke_grant(session, info.context.caller, id=input.id)
