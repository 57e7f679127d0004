"""The caller of an operation, and what that caller's grants allow."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from auth.permissions import Permission


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """One grant in force, with the permissions it gives everywhere."""

    id: UUID
    permissions: frozenset[Permission]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a signed-in user, the session that user came by, and the grants in force now."""

    user_id: UUID
    session_id: UUID
    grants: tuple[HeldGrant, ...]
    permissions: frozenset[Permission]

    @classmethod
    def of(cls, user_id: UUID, session_id: UUID, grants: Iterable[HeldGrant]) -> "Principal":
        held = tuple(grants)
        everything = frozenset[Permission]().union(*(grant.permissions for grant in held))
        return cls(user_id, session_id, held, everything)

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def deciding(self, permission: Permission) -> tuple[UUID, ...]:
        """The grants that give a permission; empty when none does."""
        return tuple(grant.id for grant in self.grants if permission in grant.permissions)
