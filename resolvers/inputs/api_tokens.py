"""Inputs about API tokens."""

from datetime import timedelta

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from resolvers.inputs.limits import limited


@strawberry.input
class CreateApiTokenInput:
    name: str = limited(max_length=100)
    owner_id: strawberry.ID | None = strawberry.field(default=UNSET, description="Default: the caller.")
    permissions: list[Permission] = limited(min_items=1)
    project_ids: list[strawberry.ID] | None = UNSET
    expires_in: timedelta = timedelta(days=90)
    allowed_networks: list[str] | None = UNSET


@strawberry.input
class RotateApiTokenInput:
    id: strawberry.ID
    overlap: timedelta = strawberry.field(
        default=timedelta(hours=1), description="How long the old secret goes on working."
    )


@strawberry.input
class RevokeApiTokenInput:
    id: strawberry.ID
