"""May I, may they, and why: the answer shown next to a button, and to those who look after rights."""

from typing import NamedTuple
from uuid import UUID

from auth.permissions import NEEDS, Permission
from auth.principals import EVERYWHERE, Place, Principal, Rights
from db import grants
from db.database import Session
from db.ids import Kind, identify


class Decision(NamedTuple):
    permission: Permission
    allowed: bool
    reason: str
    deciding: tuple[UUID, ...]


class _Words(NamedTuple):
    holds: str
    whose: str


_OWN = _Words("You hold", "your")
_OTHERS = {Kind.USER: _Words("The user holds", "the user's"), Kind.TEAM: _Words("The team holds", "the team's")}


def decide(principal: Principal, permission: Permission, place: Place = EVERYWHERE) -> Decision:
    """What the guards would say of a place, with the grants that decide it.

    The grants are named to those who may read them there.
    """
    decision = _decided(principal, permission, place, _OWN)
    return decision if principal.may(Permission.GRANT_READ, place) else decision._replace(deciding=())


async def check(session: Session, permission: Permission, *, principal_id: str, place: Place) -> Decision | None:
    """What the guards would say of a user, or of what a team holds; None when there is nobody with this ID."""
    identity = identify(principal_id)
    if identity is None or identity.kind not in _OTHERS:
        return None
    rights = await grants.rights_of(session, identity)
    return None if rights is None else _decided(rights, permission, place, _OTHERS[identity.kind])


def _decided(rights: Rights, permission: Permission, place: Place, words: _Words) -> Decision:
    allowed = rights.may(permission, place)
    needed = NEEDS.get(permission)
    if allowed:
        reason = f"{words.holds} {permission} {'everywhere' if rights.may(permission) else 'here'}."
    elif needed is not None and not rights.may(needed, place):
        reason = f"{permission} is worth nothing without {needed}, which none of {words.whose} grants gives here."
    else:
        reason = f"This needs the permission {permission}, which none of {words.whose} grants gives."
    return Decision(permission, allowed, reason, rights.deciding(permission, place))
