"""API tokens: made, given another secret, ended."""

from typing import Any

from db.rows import ApiToken
from domain import api_tokens
from resolvers.context import Info
from resolvers.inputs.api_tokens import CreateApiTokenInput, RevokeApiTokenInput, RotateApiTokenInput


async def create_api_token(info: Info, input: CreateApiTokenInput) -> dict[str, Any]:
    async with info.context.db.transaction() as session:
        token, secret = await api_tokens.create_api_token(
            session,
            info.context.caller,
            name=input.name,
            owner_id=input.owner_id,
            permissions=input.permissions,
            project_ids=input.project_ids,
            expires_in=input.expires_in,
            allowed_networks=input.allowed_networks,
        )
    return {"api_token": token, "secret": secret}


async def rotate_api_token(info: Info, input: RotateApiTokenInput) -> dict[str, Any]:
    async with info.context.db.transaction() as session:
        token, secret, until = await api_tokens.rotate_api_token(
            session, info.context.caller, id=input.id, overlap=input.overlap
        )
    return {"api_token": token, "secret": secret, "old_secret_valid_until": until}


async def revoke_api_token(info: Info, input: RevokeApiTokenInput) -> ApiToken:
    async with info.context.db.transaction() as session:
        return await api_tokens.revoke_api_token(session, info.context.caller, id=input.id)
