"""Queries on teams and their members."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from db.database import Prepared, Session
from db.grants import CALLERS
from db.ids import new_id
from db.paging import Order, Page, PageArgs, page, pages
from db.rows import Team, User, columns
from db.sight import team_in_sight
from db.tables import team_members, teams, users

_ROW = columns(Team, teams)
_IDS = bindparam("ids", type_=ARRAY(Uuid))
_IN_SIGHT = team_in_sight(teams.c.id)
_BY_IDS = Prepared(select(*_ROW).where(teams.c.id == any_(_IDS), _IN_SIGHT))
_ALL_BY_IDS = Prepared(select(*_ROW).where(teams.c.id == any_(_IDS)))
_OF_USERS = Prepared(
    select(team_members.c.user_id, *_ROW)
    .select_from(team_members.join(teams, teams.c.id == team_members.c.team_id))
    .where(team_members.c.user_id == any_(_IDS), _IN_SIGHT)
    .order_by(teams.c.name)
)
_MEMBERS = Prepared(select(team_members.c.user_id).where(team_members.c.team_id == bindparam("team")))
_BY_NAME = Order.by("NAME", teams.c.name, teams.c.id)
_BY_USERNAME = Order.by("USERNAME", users.c.username, users.c.id)


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Team]:
    return {team.id: team for team in await session.all(Team, _BY_IDS, ids=list(ids))}


async def principals_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Team]:
    """Teams as holders of grants: there for everybody who sees the grant."""
    return {team.id: team for team in await session.all(Team, _ALL_BY_IDS, ids=list(ids))}


async def listed(session: Session, args: PageArgs) -> Page[Team]:
    return await page(session, Team, select(*_ROW).where(_IN_SIGHT), _BY_NAME, args)


async def of_users(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Sequence[Team]]:
    found: defaultdict[UUID, list[Team]] = defaultdict(list)
    for user_id, *values in await session.records(_OF_USERS, ids=list(ids)):
        found[user_id].append(Team._make(values))
    return found


async def members_of_teams(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[User]]:
    members = select(*columns(User, users)).join(team_members, team_members.c.user_id == users.c.id)
    return await pages(session, User, members, team_members.c.team_id, ids, _BY_USERNAME, args)


async def members(session: Session, team_id: UUID) -> set[UUID]:
    return {record[0] for record in await session.records(_MEMBERS, team=team_id)}


async def by_name(session: Session, name: str) -> Team | None:
    return await session.first(Team, select(*_ROW).where(teams.c.name == name))


async def hold(session: Session, id: UUID) -> Team | None:
    """The team as a holder of grants, which nobody changes or deletes until the transaction ends."""
    return await session.first(Team, select(*_ROW).where(teams.c.id == id).with_for_update(read=True))


async def lock(session: Session, id: UUID) -> Team | None:
    """The team, whose members and rights nobody else changes until the transaction ends."""
    return await session.first(Team, select(*_ROW).where(teams.c.id == id, _IN_SIGHT).with_for_update())


async def insert_unless_taken(session: Session, *, name: str, description: str | None) -> Team | None:
    """The new team, or None when the name is taken."""
    made = upsert(teams).values(id=new_id(), name=name, description=description)
    return await session.first(Team, made.on_conflict_do_nothing(index_elements=[teams.c.name]).returning(*_ROW))


async def name_is_taken(session: Session, name: str, *, but: UUID) -> bool:
    return bool(await session.records(select(teams.c.id).where(teams.c.name == name, teams.c.id != but)))


async def change(session: Session, id: UUID, **values: Any) -> Team:
    changed = await session.first(Team, update(teams).where(teams.c.id == id).values(**values).returning(*_ROW))
    assert changed is not None
    return changed


async def remove(session: Session, id: UUID) -> None:
    """Delete a team with its memberships and grants; its members act without them from their next request on."""
    session.topics.add(CALLERS)
    await session.run(delete(teams).where(teams.c.id == id))


async def add_members(session: Session, team_id: UUID, user_ids: Sequence[UUID]) -> list[UUID]:
    """Those who were not in it before."""
    session.topics.add(CALLERS)
    wanted = func.unnest(literal(list(user_ids), ARRAY(Uuid)), type_=Uuid).column_valued("wanted")
    made = upsert(team_members).from_select(["team_id", "user_id"], select(literal(team_id, Uuid), wanted))
    added = await session.records(made.on_conflict_do_nothing().returning(team_members.c.user_id))
    return [record[0] for record in added]


async def remove_members(session: Session, team_id: UUID, user_ids: Sequence[UUID]) -> list[UUID]:
    """Those who were in it."""
    session.topics.add(CALLERS)
    statement = (
        delete(team_members)
        .where(team_members.c.team_id == team_id, team_members.c.user_id == any_(literal(list(user_ids), ARRAY(Uuid))))
        .returning(team_members.c.user_id)
    )
    return [record[0] for record in await session.records(statement)]
