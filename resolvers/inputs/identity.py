"""Inputs about people, sessions and projects."""

from enum import auto

import strawberry
from strawberry import UNSET

from db.vocabulary import OrderDirection, UserStatus, Word
from resolvers.inputs.filters import DateTimeFilter, StringFilter, TagFilter, TagInput
from resolvers.inputs.limits import limited, optional


class UserOrderField(Word):
    USERNAME = auto()
    CREATED_AT = auto()
    LAST_SEEN_AT = auto()


@strawberry.input
class UserFilter:
    username: StringFilter | None = UNSET
    email: StringFilter | None = UNSET
    statuses: list[UserStatus] | None = UNSET
    team_id: strawberry.ID | None = UNSET
    created_at: DateTimeFilter | None = UNSET
    search: str | None = UNSET


@strawberry.input
class UserOrder:
    field: UserOrderField
    direction: OrderDirection = OrderDirection.ASC


class ProjectOrderField(Word):
    NAME = auto()
    CREATED_AT = auto()
    UPDATED_AT = auto()


@strawberry.input
class ProjectFilter:
    name: StringFilter | None = UNSET
    slug: StringFilter | None = UNSET
    tags: list[TagFilter] | None = UNSET


@strawberry.input
class ProjectOrder:
    field: ProjectOrderField
    direction: OrderDirection = OrderDirection.ASC


@strawberry.input
class LoginInput:
    username: str
    password: str = limited(sensitive=True)


@strawberry.input
class RefreshTokensInput:
    refresh_token: str = limited(sensitive=True)


@strawberry.input
class LogoutInput:
    everywhere: bool = False


@strawberry.input
class RevokeSessionInput:
    id: strawberry.ID


@strawberry.input
class ChangePasswordInput:
    current_password: str = limited(sensitive=True)
    new_password: str = limited(sensitive=True, min_length=12, max_length=1024)


@strawberry.input
class CreateUserInput:
    username: str = limited(min_length=2, max_length=64, pattern="^[a-z0-9][a-z0-9._-]*$")
    email: str
    display_name: str | None = UNSET
    password: str | None = optional(sensitive=True)
    role_ids: list[strawberry.ID] | None = UNSET
    team_ids: list[strawberry.ID] | None = UNSET


@strawberry.input
class CreateTeamInput:
    name: str
    description: str | None = UNSET
    member_ids: list[strawberry.ID] | None = UNSET


@strawberry.input
class UpdateTeamInput:
    id: strawberry.ID
    expected_revision: int | None = UNSET
    name: str | None = UNSET
    description: str | None = UNSET
    add_member_ids: list[strawberry.ID] | None = UNSET
    remove_member_ids: list[strawberry.ID] | None = UNSET


@strawberry.input
class DeleteTeamInput:
    id: strawberry.ID


@strawberry.input
class UpdateUserInput:
    id: strawberry.ID
    expected_revision: int | None = UNSET
    display_name: str | None = UNSET
    email: str | None = UNSET
    status: UserStatus | None = UNSET
    team_ids: list[strawberry.ID] | None = UNSET


@strawberry.input
class DeleteUserInput:
    id: strawberry.ID
    transfer_ownership_to: strawberry.ID | None = strawberry.field(
        default=UNSET, description="Who takes over what the user owns."
    )


@strawberry.input
class UpdateViewerInput:
    display_name: str | None = UNSET
    email: str | None = UNSET


@strawberry.input
class CreateProjectInput:
    slug: str = limited(min_length=2, max_length=63, pattern="^[a-z0-9-]+$")
    name: str
    description: str | None = UNSET
    tags: list[TagInput] | None = UNSET


@strawberry.input
class UpdateProjectInput:
    id: strawberry.ID
    expected_revision: int | None = UNSET
    name: str | None = UNSET
    description: str | None = UNSET


@strawberry.input
class DeleteProjectInput:
    id: strawberry.ID
    confirmation: str = strawberry.field(description="The slug, typed again.")


@strawberry.input
class SetTagsInput:
    resource_id: strawberry.ID
    set: list[TagInput] | None = UNSET
    remove: list[str] | None = UNSET
