"""Queries on grants: who holds what, where, until when."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Subquery,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    delete,
    false,
    func,
    literal,
    or_,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from auth.permissions import NEEDS, Permission
from auth.principals import HeldGrant, Place, Principal, Rights
from db.database import Prepared, Session
from db.ids import Identity, Kind, identify, new_id
from db.paging import Order, Page, PageArgs, page, pages
from db.rows import Grant, columns
from db.sight import in_sight
from db.tables import grants, roles, team_members, teams, users
from db.vocabulary import GrantScopeType, UserStatus

CALLERS = "callers"
"""The topic that rings when sessions end and when what somebody may do changes."""

IN_FORCE = or_(grants.c.expires_at.is_(None), grants.c.expires_at > func.clock_timestamp())
_GIVES = func.coalesce(roles.c.permissions, grants.c.permissions)
_IDS = bindparam("ids", type_=ARRAY(Uuid))
_ROW = columns(Grant, grants)
_BY_IDS = Prepared(select(*_ROW).where(grants.c.id == any_(_IDS)))
_IN_SIGHT = in_sight(Permission.GRANT_READ, grants.c.project_id)
_IN_SIGHT_BY_IDS = Prepared(select(*_ROW).where(grants.c.id == any_(_IDS), _IN_SIGHT))
_LIST = select(*_ROW).where(_IN_SIGHT)
NEWEST_FIRST = Order.by("CREATED_AT", grants.c.created_at, grants.c.id, descending=True)
_OF_TEAM = Prepared(select(*_ROW).where(grants.c.team_id == bindparam("team")))


class Given(NamedTuple):
    """What a grant gives, and where."""

    permissions: list[str]
    project_id: UUID | None
    resource_id: UUID | None

    @property
    def place(self) -> Place:
        return Place(self.project_id, self.resource_id)


def held_by(user: ColumnElement[UUID]) -> Subquery:
    """The grants in force of a user, directly and through teams, without what their roles give."""
    held = [grants.c[name] for name in ("id", "role_id", "permissions", "project_id", "resource_id", "expires_at")]
    through_teams = grants.join(team_members, team_members.c.team_id == grants.c.team_id)
    return union_all(
        select(*held).where(grants.c.user_id == user, IN_FORCE),
        select(*held).select_from(through_teams).where(team_members.c.user_id == user, IN_FORCE),
    ).subquery("held")


def held(records: Sequence[Sequence[Any]]) -> list[HeldGrant]:
    """Grants from (key, permissions, project, resource, end); a record without a key is none."""
    return [
        HeldGrant(id, _permissions(tuple(names)), project_id, resource_id, expires_at)
        for id, names, project_id, resource_id, expires_at in records
        if id is not None
    ]


@lru_cache(maxsize=1024)
def _permissions(names: tuple[str, ...]) -> frozenset[Permission]:
    return frozenset(Permission(name) for name in names)


_HELD = held_by(bindparam("principal", type_=Uuid))
_THROUGH_TEAMS = grants.join(team_members, team_members.c.team_id == grants.c.team_id)
_HOLDING = union_all(
    select(grants.c.id, grants.c.user_id).where(grants.c.user_id.is_not(None)),
    select(grants.c.id, team_members.c.user_id).select_from(_THROUGH_TEAMS),
).subquery("holding")
_OF_USERS_NOW = Prepared(
    select(_HOLDING.c.user_id, grants.c.id, _GIVES, grants.c.project_id, grants.c.resource_id, grants.c.expires_at)
    .select_from(_HOLDING.join(grants, grants.c.id == _HOLDING.c.id).outerjoin(roles, roles.c.id == grants.c.role_id))
    .where(_HOLDING.c.user_id == any_(_IDS), IN_FORCE)
)
_ACTIVE = users.c.status == UserStatus.ACTIVE.value
_OF_ONE_USER = Prepared(
    select(
        _ACTIVE.label("active"),
        _HELD.c.id,
        func.coalesce(roles.c.permissions, _HELD.c.permissions),
        _HELD.c.project_id,
        _HELD.c.resource_id,
        _HELD.c.expires_at,
    )
    .select_from(users.outerjoin(_HELD, true()).outerjoin(roles, roles.c.id == _HELD.c.role_id))
    .where(users.c.id == bindparam("principal", type_=Uuid))
)
_OF_ONE_TEAM = Prepared(
    select(grants.c.id, _GIVES, grants.c.project_id, grants.c.resource_id, grants.c.expires_at)
    .select_from(
        teams.outerjoin(grants, and_(grants.c.team_id == teams.c.id, IN_FORCE)).outerjoin(
            roles, roles.c.id == grants.c.role_id
        )
    )
    .where(teams.c.id == bindparam("principal", type_=Uuid))
)


async def held_by_users(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Sequence[HeldGrant]]:
    """The grants in force of each user, directly and through teams."""
    found: defaultdict[UUID, list[Any]] = defaultdict(list)
    for user_id, *record in await session.records(_OF_USERS_NOW, ids=list(ids)):
        found[user_id].append(record)
    return {user_id: held(records) for user_id, records in found.items()}


async def visible_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Grant]:
    return {grant.id: grant for grant in await session.all(Grant, _IN_SIGHT_BY_IDS, ids=list(ids))}


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Grant]:
    return {grant.id: grant for grant in await session.all(Grant, _BY_IDS, ids=list(ids))}


async def listed(session: Session, args: PageArgs) -> Page[Grant]:
    """Newest first, those that are over only when they are asked for."""
    wanted: Any = args.filter
    statement = _LIST
    if wanted is None or not wanted.include_expired:
        statement = statement.where(IN_FORCE)
    if wanted is not None:
        statement = statement.where(*_wanted(wanted))
        if wanted.permission is not None:
            statement = statement.outerjoin(roles, roles.c.id == grants.c.role_id)
            statement = statement.where(literal(str(wanted.permission)) == any_(_GIVES))
    return await page(session, Grant, statement, NEWEST_FIRST, args)


def _wanted(wanted: Any) -> Iterator[ColumnElement[bool]]:
    if wanted.scope is not None:
        yield grants.c.scope == str(wanted.scope)
    asked = (
        (wanted.principal_id, {Kind.USER: grants.c.user_id, Kind.TEAM: grants.c.team_id}),
        (wanted.role_id, {Kind.ROLE: grants.c.role_id}),
        (wanted.project_id, {Kind.PROJECT: grants.c.project_id}),
        (wanted.resource_id, dict.fromkeys((Kind.DATASET, Kind.RUN, Kind.MODEL), grants.c.resource_id)),
    )
    for given, columns_of in asked:
        if given is not None:
            identity = identify(given)
            column = columns_of.get(identity.kind) if identity is not None else None
            yield false() if identity is None or column is None else column == identity.key


async def of_users(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[Grant]]:
    """What each user holds, directly and through teams, newest first; `args.filter` is a scope."""
    statement = _LIST.join(_HOLDING, _HOLDING.c.id == grants.c.id).where(IN_FORCE)
    if args.filter is not None:
        statement = statement.where(grants.c.scope == str(args.filter))
    return await pages(session, Grant, statement, _HOLDING.c.user_id, ids, NEWEST_FIRST, args)


async def of_projects(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[Grant]]:
    """The grants in each project and on things in it, newest first."""
    return await pages(session, Grant, _LIST.where(IN_FORCE), grants.c.project_id, ids, NEWEST_FIRST, args)


async def of_roles(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[Grant]]:
    """Those in force, newest first."""
    return await pages(session, Grant, _LIST.where(IN_FORCE), grants.c.role_id, ids, NEWEST_FIRST, args)


async def in_force_of_role(session: Session, role_id: UUID) -> list[Grant]:
    return await session.all(Grant, select(*_ROW).where(grants.c.role_id == role_id, IN_FORCE))


async def deciding(session: Session, permission: Permission, place: Place, args: PageArgs) -> Page[Grant]:
    """The grants by which anybody holds a permission at a place, newest first.

    It says of everybody what `Principal.deciding` says of one: a permission that needs another one is held by those
    only who hold that as well, by whichever of their grants or of their teams'.
    """
    needed = NEEDS.get(permission)
    active = select(users.c.id).where(_ACTIVE)
    acting: ColumnElement[bool] = grants.c.user_id.in_(active)
    if needed is None:
        acting = or_(grants.c.team_id.is_not(None), acting)
    else:
        able = _able(needed, place).cte("able")
        members = select(team_members.c.team_id).join(able, able.c.user_id == team_members.c.user_id)
        acting = or_(
            and_(acting, grants.c.user_id.in_(select(able.c.user_id))),
            grants.c.team_id.in_(select(able.c.team_id)),
            grants.c.team_id.in_(members.where(team_members.c.user_id.in_(active))),
        )
    statement = (
        select(*_ROW)
        .outerjoin(roles, roles.c.id == grants.c.role_id)
        .where(IN_FORCE, literal(str(permission)) == any_(_GIVES), _covers(place), acting)
    )
    return await page(session, Grant, statement, NEWEST_FIRST, args)


def _able(permission: Permission, place: Place) -> Any:
    """The users and teams with a grant of a permission at a place; users also through teams."""
    giving = grants.outerjoin(roles, roles.c.id == grants.c.role_id).outerjoin(
        team_members, team_members.c.team_id == grants.c.team_id
    )
    holder = func.coalesce(grants.c.user_id, team_members.c.user_id).label("user_id")
    return (
        select(holder, grants.c.team_id)
        .select_from(giving)
        .where(IN_FORCE, literal(str(permission)) == any_(_GIVES), _covers(place))
    )


def _covers(place: Place) -> ColumnElement[bool]:
    """`HeldGrant.covers`, as a condition."""
    covering: list[ColumnElement[bool]] = [grants.c.project_id.is_(None)]
    if place.project_id is not None:
        covering.append(and_(grants.c.resource_id.is_(None), grants.c.project_id == place.project_id))
    if place.resource_id is not None:
        covering.append(grants.c.resource_id == place.resource_id)
    return or_(*covering)


async def rights_of(session: Session, principal: Identity) -> Rights | None:
    """What a user or a team may do now: nothing while an account is suspended. None when there is nobody of that ID."""
    if principal.kind is Kind.TEAM:
        found = await session.records(_OF_ONE_TEAM, principal=principal.key)
        return Rights(tuple(held(found))) if found else None
    found = await session.records(_OF_ONE_USER, principal=principal.key)
    if not found:
        return None
    (active,) = {record["active"] for record in found}
    if not active:
        return Rights(())
    return Principal(tuple(held([tuple(record)[1:] for record in found])), principal.key, None)


async def of_team(session: Session, team_id: UUID) -> list[Grant]:
    return await session.all(Grant, _OF_TEAM, team=team_id)


async def given_to_team(session: Session, team_id: UUID) -> list[Given]:
    """What the grants of a team give, those that are over left out."""
    joined = grants.outerjoin(roles, roles.c.id == grants.c.role_id)
    statement = select(_GIVES, grants.c.project_id, grants.c.resource_id).select_from(joined)
    return await session.all(Given, statement.where(grants.c.team_id == team_id, IN_FORCE))


async def insert_grant(
    session: Session,
    *,
    principal: Identity,
    role_id: UUID | None,
    permissions: Sequence[Permission],
    place: Place,
    resource_kind: str | None,
    expires_at: datetime | None,
    reason: str | None,
    created_by: UUID,
) -> Grant:
    """A grant at a place. The same role everywhere and for good is given once, whoever asks how often."""
    session.topics.add(CALLERS)
    scope = GrantScopeType.GLOBAL
    if place.project_id is not None:
        scope = GrantScopeType.PROJECT if place.resource_id is None else GrantScopeType.RESOURCE
    holder = grants.c.team_id if principal.kind is Kind.TEAM else grants.c.user_id
    made = upsert(grants).values(
        id=new_id(),
        **{holder.name: principal.key},
        role_id=role_id,
        permissions=literal([str(permission) for permission in permissions], ARRAY(Text)),
        scope=scope,
        project_id=place.project_id,
        resource_id=place.resource_id,
        resource_kind=resource_kind,
        expires_at=expires_at,
        reason=reason,
        created_by=created_by,
    )
    for_good = and_(grants.c.scope == text("'GLOBAL'"), grants.c.role_id.is_not(None), grants.c.expires_at.is_(None))
    grant = await session.first(
        Grant,
        made.on_conflict_do_update(
            index_elements=[holder, grants.c.role_id],
            index_where=for_good,
            set_={"role_id": made.excluded.role_id},
        ).returning(*_ROW),
    )
    assert grant is not None
    return grant


async def delete_grant(session: Session, id: UUID) -> Grant | None:
    session.topics.add(CALLERS)
    return await session.first(Grant, delete(grants).where(grants.c.id == id).returning(*_ROW))


async def grant_role(session: Session, *, user_id: UUID, role_id: UUID, created_by: UUID | None) -> None:
    """Give a user a role everywhere; giving it twice is giving it once."""
    session.topics.add(CALLERS)
    await session.run(
        upsert(grants)
        .values(id=new_id(), user_id=user_id, role_id=role_id, scope=GrantScopeType.GLOBAL, created_by=created_by)
        .on_conflict_do_nothing()
    )


async def lock_administration(session: Session, role: str) -> int:
    """How many active users hold a role everywhere and for good; whoever asks next waits for this transaction."""
    await session.run(select(roles.c.id).where(roles.c.name == role).with_for_update())
    holding = (
        grants.join(roles, roles.c.id == grants.c.role_id)
        .outerjoin(team_members, team_members.c.team_id == grants.c.team_id)
        .join(users, users.c.id == func.coalesce(grants.c.user_id, team_members.c.user_id))
    )
    holders = (
        select(func.count(users.c.id.distinct()))
        .select_from(holding)
        .where(
            roles.c.name == role,
            users.c.status == UserStatus.ACTIVE.value,
            grants.c.scope == GrantScopeType.GLOBAL.value,
            grants.c.expires_at.is_(None),
        )
    )
    found: int = await session.scalar(holders)
    return found
