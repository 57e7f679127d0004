"""May I, and why: the answer shown next to a button."""

from typing import NamedTuple
from uuid import UUID

from auth.permissions import Permission
from auth.principals import EVERYWHERE, Place, Principal


class Decision(NamedTuple):
    permission: Permission
    allowed: bool
    reason: str
    deciding: tuple[UUID, ...]


def decide(principal: Principal, permission: Permission, place: Place = EVERYWHERE) -> Decision:
    """What the guards would say of a place, with the grants that decide it.

    The grants are named to those who may read them there.
    """
    allowed = principal.may(permission, place)
    if allowed:
        reason = f"You hold {permission} {'everywhere' if principal.may(permission) else 'here'}."
    else:
        reason = f"This needs the permission {permission}, which none of your grants gives."
    shown = principal.deciding(permission, place) if principal.may(Permission.GRANT_READ, place) else ()
    return Decision(permission, allowed, reason, shown)
