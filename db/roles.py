"""Queries on roles."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, any_, bindparam, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from auth.permissions import BUILT_IN_ROLES
from db.database import Prepared, Session
from db.grants import CALLERS
from db.ids import new_id
from db.paging import Order, Page, PageArgs, page
from db.rows import Role, columns
from db.tables import roles

_ROW = columns(Role, roles)
_BY_IDS = Prepared(select(*_ROW).where(roles.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))))
_BY_NAME = Order.by("NAME", roles.c.name, roles.c.id)


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Role]:
    return {role.id: role for role in await session.all(Role, _BY_IDS, ids=list(ids))}


async def by_name(session: Session, name: str) -> Role | None:
    return await session.first(Role, select(*_ROW).where(roles.c.name == name))


async def listed(session: Session, args: PageArgs) -> Page[Role]:
    return await page(session, Role, select(*_ROW), _BY_NAME, args)


async def hold(session: Session, id: UUID) -> Role | None:
    """The role, which nobody changes or deletes until the transaction ends; others may hold it as well."""
    return await session.first(Role, select(*_ROW).where(roles.c.id == id).with_for_update(read=True))


async def lock(session: Session, id: UUID) -> Role | None:
    """The role, which nobody else holds until the transaction ends."""
    return await session.first(Role, select(*_ROW).where(roles.c.id == id).with_for_update())


async def insert_unless_taken(
    session: Session, *, name: str, description: str | None, permissions: Sequence[str]
) -> Role | None:
    """The new role, or None when the name is taken."""
    made = upsert(roles).values(
        id=new_id(),
        name=name,
        description=description,
        built_in=False,
        permissions=literal(list(permissions), ARRAY(Text)),
    )
    return await session.first(Role, made.on_conflict_do_nothing(index_elements=[roles.c.name]).returning(*_ROW))


async def name_is_taken(session: Session, name: str, *, but: UUID) -> bool:
    return bool(await session.records(select(roles.c.id).where(roles.c.name == name, roles.c.id != but)))


async def change(session: Session, id: UUID, *, permissions: Sequence[str] | None = None, **values: Any) -> Role:
    """Change a role that is locked; who holds it acts by what it is from the next request on."""
    session.topics.add(CALLERS)
    if permissions is not None:
        values["permissions"] = literal(list(permissions), ARRAY(Text))
    statement = (
        update(roles)
        .where(roles.c.id == id)
        .values(updated_at=func.clock_timestamp(), revision=roles.c.revision + 1, **values)
    )
    changed = await session.first(Role, statement.returning(*_ROW))
    assert changed is not None
    return changed


async def remove(session: Session, id: UUID) -> None:
    session.topics.add(CALLERS)
    await session.run(delete(roles).where(roles.c.id == id))


async def keep_built_in(session: Session) -> None:
    """Bring the built-in roles to what this version says they are."""
    for role in BUILT_IN_ROLES:
        permissions = sorted(role.permissions)
        made = upsert(roles).values(
            id=new_id(),
            name=role.name,
            description=role.description,
            built_in=True,
            permissions=literal(permissions, ARRAY(Text)),
        )
        await session.run(
            made.on_conflict_do_update(
                index_elements=[roles.c.name],
                set_={"description": role.description, "permissions": literal(permissions, ARRAY(Text))},
                where=roles.c.built_in,
            )
        )
