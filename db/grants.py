"""Queries on grants: who holds what, where, until when."""

from collections.abc import Mapping, Sequence
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
    func,
    literal,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from auth.permissions import Permission
from auth.principals import HeldGrant, Place
from db.database import Prepared, Session
from db.ids import Identity, Kind, new_id
from db.paging import Order, Page, PageArgs, pages
from db.rows import Grant, columns
from db.sight import in_sight
from db.tables import grants, roles, team_members, users
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


async def visible_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Grant]:
    return {grant.id: grant for grant in await session.all(Grant, _IN_SIGHT_BY_IDS, ids=list(ids))}


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Grant]:
    return {grant.id: grant for grant in await session.all(Grant, _BY_IDS, ids=list(ids))}


async def of_roles(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[Grant]]:
    """Those in force, newest first."""
    return await pages(session, Grant, _LIST.where(IN_FORCE), grants.c.role_id, ids, NEWEST_FIRST, args)


async def in_force_of_role(session: Session, role_id: UUID) -> list[Grant]:
    return await session.all(Grant, select(*_ROW).where(grants.c.role_id == role_id, IN_FORCE))


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
