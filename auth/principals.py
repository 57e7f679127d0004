"""The caller of an operation, and what that caller's grants allow where.

One rule decides everything: a grant gives its permissions everywhere, in one project, or on one dataset, run or model.
Guards ask it with `Principal.may`, lists and look-ups with `Principal.reach` (`db.sight` makes a condition of that).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from auth.api_tokens import HeldToken, TokenLimits
from auth.permissions import NEEDS, ON_ONESELF, READS, SHOWS_PROJECT, Permission


class Place(NamedTuple):
    """Where something is done: everywhere, in a project, or to one dataset, run or model of a project."""

    project_id: UUID | None = None
    resource_id: UUID | None = None


EVERYWHERE = Place()


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """One grant in force: its permissions, everywhere unless it names a project, or in it one resource."""

    id: UUID
    permissions: frozenset[Permission]
    project_id: UUID | None = None
    resource_id: UUID | None = None
    expires_at: datetime | None = None

    def covers(self, place: Place) -> bool:
        if self.resource_id is not None:
            return self.resource_id == place.resource_id
        return self.project_id is None or self.project_id == place.project_id

    def within(self, limits: TokenLimits) -> "Iterator[HeldGrant]":
        """What a token leaves of the grant: a grant everywhere becomes one for each of the token's projects."""
        permissions = self.permissions & limits.permissions
        if not permissions:
            return
        if limits.projects is None or self.project_id in limits.projects:
            yield replace(self, permissions=permissions)
        elif self.project_id is None:
            for project_id in limits.projects:
                yield replace(self, permissions=permissions, project_id=project_id)


class Reach(NamedTuple):
    """Where a permission is held: everywhere, or in these projects and on these resources."""

    everywhere: bool = False
    projects: tuple[UUID, ...] = ()
    resources: tuple[UUID, ...] = ()

    def __bool__(self) -> bool:
        return self.everywhere or bool(self.projects or self.resources)


@dataclass(frozen=True)
class Rights:
    """The grants in force of a user or a team, and what they allow where."""

    grants: tuple[HeldGrant, ...]

    @cached_property
    def permissions(self) -> frozenset[Permission]:
        """What the caller may do everywhere."""
        return frozenset(permission for permission in Permission if self.may(permission))

    def may(self, permission: Permission, place: Place = EVERYWHERE) -> bool:
        """Whether a permission is held at a place. To change something is worth nothing without seeing it."""
        needed = NEEDS.get(permission)
        return self._holds(permission, place) and (needed is None or self._holds(needed, place))

    def deciding(self, permission: Permission, place: Place = EVERYWHERE) -> tuple[UUID, ...]:
        """The grants that give a permission at a place; empty when it is not given."""
        if not self.may(permission, place):
            return ()
        return tuple(grant.id for grant in self.grants if permission in grant.permissions and grant.covers(place))

    def reach(self, permission: Permission) -> Reach:
        """Everywhere a permission to see something is held."""
        return _reach(self.grants, permission)

    def _holds(self, permission: Permission, place: Place) -> bool:
        return any(permission in grant.permissions and grant.covers(place) for grant in self.grants)


@dataclass(frozen=True)
class Principal(Rights):
    """Who calls: a user, the session or the API token that user came by, and the grants in force now.

    Those of a token's caller are what the token leaves of the owner's.
    """

    user_id: UUID
    session_id: UUID | None
    token: HeldToken | None = None

    @classmethod
    def of(cls, user_id: UUID, session_id: UUID, grants: Iterable[HeldGrant]) -> "Principal":
        return cls(tuple(grants), user_id, session_id)

    @classmethod
    def by_token(cls, user_id: UUID, token: HeldToken, grants: Iterable[HeldGrant]) -> "Principal":
        return cls(tuple(part for grant in grants for part in grant.within(token.limits)), user_id, None, token)

    def holding(self, grants: Iterable[HeldGrant]) -> "Principal":
        """The same caller, whose user has these grants by now."""
        return (
            replace(self, grants=tuple(grants))
            if self.token is None
            else self.by_token(self.user_id, self.token, grants)
        )

    @property
    def token_id(self) -> UUID | None:
        return None if self.token is None else self.token.id

    def may(self, permission: Permission, place: Place = EVERYWHERE) -> bool:
        """Whoever signed in looks after their own sessions and tokens, too."""
        if self.token is None and permission in ON_ONESELF and place.resource_id == self.user_id:
            return True
        return super().may(permission, place)

    @cached_property
    def sight(self) -> Mapping[str, Any]:
        """What the caller may see, as the parameters of the conditions in `db.sight`."""
        return {**_sight_by(self.grants), READER: self.user_id}


READER = "reader"
"""The name of the parameter that is the reader's own key."""
INSIDE = "INSIDE"
"""Stands for any permission that shows something inside of a project, and with it that the project is there."""


def sight_of(permission: str, reach: Reach) -> dict[str, Any]:
    return {
        f"{permission}_everywhere": reach.everywhere,
        f"{permission}_projects": list(reach.projects),
        f"{permission}_resources": list(reach.resources),
    }


def _reach(grants: Iterable[HeldGrant], permission: Permission) -> Reach:
    held = [grant for grant in grants if permission in grant.permissions]
    return Reach(
        any(grant.project_id is None and grant.resource_id is None for grant in held),
        tuple({g.project_id for g in held if g.project_id is not None and g.resource_id is None}),
        tuple({g.resource_id for g in held if g.resource_id is not None}),
    )


@lru_cache(maxsize=4096)
def _sight_by(grants: tuple[HeldGrant, ...]) -> Mapping[str, Any]:
    parameters: dict[str, Any] = {}
    for permission in sorted(READS):
        parameters |= sight_of(permission, _reach(grants, permission))
    inside = [grant for grant in grants if not grant.permissions.isdisjoint(SHOWS_PROJECT)]
    projects = tuple({grant.project_id for grant in inside if grant.project_id is not None})
    return parameters | sight_of(INSIDE, Reach(any(grant.project_id is None for grant in inside), projects))


def _sight(reach: Reach) -> Mapping[str, Any]:
    parameters: dict[str, Any] = {}
    for permission in (*sorted(READS), INSIDE):
        parameters |= sight_of(permission, reach)
    return parameters | {READER: None}


ALL_SIGHT = _sight(Reach(everywhere=True))
"""The sight of the service itself: its workers, its sweeps, its own look-ups."""
NO_SIGHT = _sight(Reach())
"""The sight of somebody who is not signed in."""
