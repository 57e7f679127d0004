"""Teams: list, make, change, delete."""

from strawberry import UNSET

from db import teams as queries
from db.paging import Page, PageArgs
from db.rows import Team
from domain import teams
from resolvers.context import Info
from resolvers.inputs.identity import CreateTeamInput, DeleteTeamInput, UpdateTeamInput


async def all_teams(
    info: Info,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[Team]:
    async with info.context.db.reading() as session:
        return await queries.listed(session, PageArgs.of(first, after, last, before))


async def create_team(info: Info, input: CreateTeamInput) -> Team:
    async with info.context.db.transaction() as session:
        return await teams.create_team(
            session,
            info.context.caller,
            name=input.name,
            description=input.description,
            member_ids=input.member_ids or [],
        )


async def update_team(info: Info, input: UpdateTeamInput) -> Team:
    async with info.context.db.transaction() as session:
        return await teams.update_team(
            session,
            info.context.caller,
            id=input.id,
            expected_revision=input.expected_revision,
            name=input.name,
            description=input.description,
            add_member_ids=input.add_member_ids or [],
            remove_member_ids=input.remove_member_ids or [],
        )


async def delete_team(info: Info, input: DeleteTeamInput) -> str:
    async with info.context.db.transaction() as session:
        return await teams.delete_team(session, info.context.caller, id=input.id)
