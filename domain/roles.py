"""Roles of one's own: sets of permissions with a name. The built-in ones are what this version says they are."""

from collections.abc import Sequence

from auth.permissions import Permission
from auth.principals import Place, Principal
from db import grants, roles
from db.database import Session
from db.ids import Kind, global_id, key_of
from db.rows import Role
from db.vocabulary import EventType
from domain.administration import not_held
from domain.changes import as_told, at_revision, differing, named
from domain.refusals import AlreadyExists, ErrorCode, InUse, Invalid, Refused, not_found
from domain.texts import checked_text
from events.log import publish, user_actor

MAX_NAME = 100


async def create_role(
    session: Session, actor: Principal, *, name: str, description: str | None, permissions: Sequence[Permission]
) -> Role:
    """Make a role, which nobody holds yet. Raises `Refused` when the name is taken."""
    checked_text(name, "input", "name", max_length=MAX_NAME)
    checked_text(description, "input", "description")
    role = await roles.insert_unless_taken(
        session, name=name, description=description, permissions=sorted(set(permissions))
    )
    if role is None:
        raise Refused(await _taken(session, name))
    await _publish(session, actor, role, {"name": [None, role.name], "permissions": [[], role.permissions]})
    return role


async def update_role(
    session: Session,
    actor: Principal,
    *,
    id: str,
    expected_revision: int | None,
    name: str | None,
    description: str | None,
    permissions: Sequence[Permission] | None,
) -> Role:
    """Change a role and with it what its holders may do; None leaves as it is, an empty description takes it away.

    Raises `Refused`, also when a holder would get what the actor does not hold there: nobody gives what is not theirs.
    """
    wanted = named(name, description, max_name=MAX_NAME)
    role = await _held(session, id, "edited: make one of your own with its permissions")
    at_revision(role, expected_revision, "role")
    if permissions is not None:
        wanted["permissions"] = sorted(set(permissions))
    if not wanted.get("permissions", True):
        path = ("input", "permissions")
        raise Refused(Invalid(code=ErrorCode.REQUIRED, message="Name at least one permission.", path=path))
    added = set(permissions or ()) - set(role.permissions)
    held = await grants.in_force_of_role(session, role.id) if added else []
    places = {Place(grant.project_id, grant.resource_id) for grant in held}
    lacking = sorted({permission for place in places for permission in not_held(actor, added, place)})
    if lacking:
        message = f"Holders of this role would get {', '.join(lacking)} where you do not hold that yourself."
        raise Refused(Invalid(message=message, path=("input", "permissions")))
    if name is not None and await roles.name_is_taken(session, name, but=role.id):
        raise Refused(await _taken(session, name))
    changes = differing(role, wanted)
    if not changes:
        return role
    changed = await roles.change(session, role.id, **changes)
    await _publish(session, actor, changed, as_told(role, changes))
    return changed


async def delete_role(session: Session, actor: Principal, *, id: str) -> str:
    """Delete a role that nobody holds any more. Its ID.

    Raises `Refused`, naming the grants that give it, where the actor may see them.
    """
    role = await _held(session, id, "deleted")
    held = await grants.in_force_of_role(session, role.id)
    if held:
        named = await grants.visible_by_ids(session, [grant.id for grant in held])
        raise Refused(
            InUse(
                message="There are grants of this role. Revoke them first.",
                path=("input", "id"),
                dependents=[grant for grant in held if grant.id in named],
            )
        )
    await _publish(session, actor, role, {"name": [role.name, None], "permissions": [role.permissions, []]})
    await roles.remove(session, role.id)
    return global_id(Kind.ROLE, role.id)


async def _held(session: Session, id: str, what: str) -> Role:
    """A role of one's own, held until the transaction ends. Raises `Refused`."""
    key = key_of(id, Kind.ROLE)
    role = await roles.lock(session, key) if key is not None else None
    if role is None:
        raise Refused(not_found("role", id, "input", "id"))
    if role.built_in:
        raise Refused(Invalid(message=f"A built-in role cannot be {what}.", path=("input", "id")))
    return role


async def _taken(session: Session, name: str) -> AlreadyExists:
    return AlreadyExists(
        message=f"There is a role named {name!r} already.",
        path=("input", "name"),
        existing=await roles.by_name(session, name),
    )


async def _publish(session: Session, actor: Principal, role: Role, changes: dict[str, list[object]]) -> None:
    who = user_actor(actor.user_id)
    await publish(session, EventType.ROLE_CHANGED, role.id, project_id=None, actor=who, changes=changes)
