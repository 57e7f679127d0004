"""Grants: given and taken back."""

from db.rows import Grant
from domain import grants
from resolvers.context import Info
from resolvers.inputs.grants import CreateGrantInput, RevokeGrantInput


async def create_grant(info: Info, input: CreateGrantInput) -> Grant:
    async with info.context.db.transaction() as session:
        return await grants.create_grant(
            session,
            info.context.caller,
            principal_id=input.principal_id,
            role_id=input.what.role_id,
            permissions=input.what.permissions,
            scope_id=input.scope_id,
            expires_at=input.expires_at,
            reason=input.reason,
        )


async def revoke_grant(info: Info, input: RevokeGrantInput) -> str:
    async with info.context.db.transaction() as session:
        return await grants.revoke_grant(session, info.context.caller, id=input.id)
