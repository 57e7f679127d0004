"""May I, and why: the answer shown next to a button."""

from typing import NamedTuple
from uuid import UUID

from auth.permissions import Permission
from auth.principals import Principal


class Decision(NamedTuple):
    permission: Permission
    allowed: bool
    reason: str
    deciding: tuple[UUID, ...]


def decide(principal: Principal, permission: Permission) -> Decision:
    """What the guards would say, with the grants that decide it."""
    deciding = principal.deciding(permission)
    reason = (
        f"You hold {permission} everywhere."
        if deciding
        else f"This needs the permission {permission}, which none of your grants gives."
    )
    return Decision(permission, bool(deciding), reason, deciding)
