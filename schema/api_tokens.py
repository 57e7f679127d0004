"""API tokens: what programs call with."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import AuditAction
from resolvers import api_tokens as resolve
from resolvers.inputs.limits import Sensitive
from schema.access import viewer
from schema.fields import identity, mutation, relation, shows
from schema.identity import Principal
from schema.nodes import Node
from schema.refusals import UserError

if TYPE_CHECKING:
    from schema.projects import Project


@strawberry.type
class ApiToken(Node):
    id: strawberry.ID = identity(Kind.API_TOKEN)
    name: str
    prefix: str = strawberry.field(description="The first characters, to recognise it.")
    owner: Principal = relation(loaders.user, by="owner_id")
    permissions: list[Permission] = strawberry.field(
        description="The token can do no more than this, and no more than its owner."
    )
    projects: list[Annotated["Project", strawberry.lazy("schema.projects")]] | None = relation(
        loaders.projects_listed,
        by="project_keys",
        description="The projects it is limited to, as far as the caller knows of them; null: wherever its owner may.",
    )
    allowed_networks: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str | None
    revoked_at: datetime | None
    is_type_of = shows(rows.ApiToken)


@strawberry.type
class CreateApiTokenPayload:
    api_token: ApiToken | None
    secret: str | None = strawberry.field(directives=[Sensitive()], description="Shown this once.")
    errors: list[UserError]


@strawberry.type
class RotateApiTokenPayload:
    api_token: ApiToken | None
    secret: str | None = strawberry.field(directives=[Sensitive()])
    old_secret_valid_until: datetime | None
    errors: list[UserError]


@strawberry.type
class RevokeApiTokenPayload:
    api_token: ApiToken | None
    errors: list[UserError]


@strawberry.type
class ApiTokenMutations:
    create_api_token: CreateApiTokenPayload | None = mutation(
        resolve.create_api_token, guard=viewer, returns=None, audited=AuditAction.TOKEN_CREATE
    )
    rotate_api_token: RotateApiTokenPayload | None = mutation(
        resolve.rotate_api_token, guard=viewer, returns=None, audited=AuditAction.TOKEN_CREATE
    )
    revoke_api_token: RevokeApiTokenPayload | None = mutation(
        resolve.revoke_api_token, guard=viewer, returns="api_token", audited=AuditAction.TOKEN_REVOKE
    )
