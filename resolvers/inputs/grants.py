"""Inputs about roles and grants."""

from datetime import datetime

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from db.vocabulary import GrantScopeType
from resolvers.inputs.limits import limited


@strawberry.input
class GrantFilter:
    principal_id: strawberry.ID | None = UNSET
    role_id: strawberry.ID | None = UNSET
    scope: GrantScopeType | None = UNSET
    project_id: strawberry.ID | None = UNSET
    resource_id: strawberry.ID | None = UNSET
    permission: Permission | None = UNSET
    include_expired: bool | None = False


@strawberry.input
class CreateRoleInput:
    name: str
    description: str | None = UNSET
    permissions: list[Permission] = limited(min_items=1)


@strawberry.input
class UpdateRoleInput:
    id: strawberry.ID
    expected_revision: int | None = UNSET
    name: str | None = UNSET
    description: str | None = UNSET
    permissions: list[Permission] | None = UNSET


@strawberry.input
class DeleteRoleInput:
    id: strawberry.ID


@strawberry.input(one_of=True)
class GrantWhatInput:
    role_id: strawberry.ID | None = UNSET
    permissions: list[Permission] | None = UNSET


@strawberry.input
class CreateGrantInput:
    principal_id: strawberry.ID
    what: GrantWhatInput
    scope_id: strawberry.ID | None = strawberry.field(
        default=UNSET, description="A project, a dataset, a run, a model; left out: everywhere."
    )
    expires_at: datetime | None = UNSET
    reason: str | None = UNSET


@strawberry.input
class RevokeGrantInput:
    id: strawberry.ID
    reason: str | None = UNSET
