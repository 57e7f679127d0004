"""Who calls, who else there is, and signing in and out."""

from typing import Any
from uuid import UUID

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from auth.principals import Place, Principal
from dataloaders import loaders
from db import access, users
from db.ids import Kind, key_of
from db.paging import Page, PageArgs
from db.rows import Session, User
from domain import sessions
from domain import users as people
from domain.decisions import Decision, decide
from resolvers.context import Context, Info
from resolvers.grants import place_named
from resolvers.inputs.identity import (
    ChangePasswordInput,
    CreateUserInput,
    DeleteUserInput,
    LoginInput,
    LogoutInput,
    RefreshTokensInput,
    RevokeSessionInput,
    UpdateUserInput,
    UpdateViewerInput,
    UserFilter,
    UserOrder,
    UserOrderField,
)
from resolvers.paging import ordering

BY_NAME = UserOrder(field=UserOrderField.USERNAME)


async def viewer(info: Info) -> Principal:
    return info.context.caller


def decision(root: Any, info: Info, permission: Permission) -> Decision:
    """What the guards would say of the caller and this project or resource."""
    project_id = getattr(root, "project_id", None)
    place = Place(root.id) if project_id is None else Place(project_id, root.id)
    return decide(info.context.caller, permission, place)


async def decision_on(
    root: Any, info: Info, permission: Permission, resource_id: strawberry.ID | None = UNSET
) -> Decision:
    """What the guards would say of the caller, everywhere or on one object; the ID of nothing is nowhere."""
    return decide(info.context.caller, permission, await place_named(info, resource_id))


def email_of(root: User, info: Info) -> str | None:
    """An address is for its owner and for those who may read users."""
    context: Context = info.context
    own = context.principal is not None and context.principal.user_id == root.id
    return root.email if own or context.may(Permission.USER_READ) else None


async def all_users(
    info: Info,
    filter: UserFilter | None = UNSET,
    order_by: UserOrder | None = BY_NAME,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[User]:
    args = PageArgs.of(first, after, last, before, filter=filter, order=ordering(order_by or BY_NAME))
    async with info.context.db.reading() as session:
        return await users.listed(session, args)


async def user(info: Info, id: strawberry.ID | None = UNSET, username: str | None = UNSET) -> User | None:
    if username is not None:
        async with info.context.db.reading() as session:
            return await users.by_username(session, username)
    key = key_of(id or "", Kind.USER)
    found: User | None = await loaders.user.load(info.context, key) if key else None
    return found


async def login(info: Info, input: LoginInput) -> dict[str, Any]:
    context: Context = info.context
    user_id = await sessions.authenticate(
        context.db,
        context.services.attempts,
        username=input.username,
        password=input.password,
        ip_address=context.request.ip_address,
    )
    if context.trail is not None:
        context.trail.user_id = user_id
    async with context.db.transaction() as session:
        tokens = await sessions.login(
            session,
            context.services.tokens,
            user_id=user_id,
            lifetime=context.services.limits.refresh_token_lifetime,
            ip_address=context.request.ip_address,
            user_agent=context.request.user_agent,
        )
    context.principal = await principal_of(context, tokens.user_id, tokens.session_id)
    return {"tokens": tokens, "viewer": context.principal}


async def refresh_tokens(info: Info, input: RefreshTokensInput) -> sessions.Tokens:
    services = info.context.services
    return await sessions.refresh(
        services.db,
        services.tokens,
        refresh_token=input.refresh_token,
        lifetime=services.limits.refresh_token_lifetime,
    )


async def logout(info: Info, input: LogoutInput) -> int:
    context: Context = info.context
    session_id = context.require_session()
    async with context.db.transaction() as session:
        return await sessions.logout(
            session, user_id=context.caller.user_id, session_id=session_id, everywhere=input.everywhere
        )


async def revoke_session(info: Info, input: RevokeSessionInput) -> Session:
    async with info.context.db.transaction() as session:
        return await sessions.revoke(session, info.context.caller, session_id=input.id)


async def change_password(info: Info, input: ChangePasswordInput) -> int:
    context: Context = info.context
    return await sessions.change_password(
        context.db,
        user_id=context.caller.user_id,
        session_id=context.require_session(),
        current=input.current_password,
        new=input.new_password,
    )


def is_current(root: Session, info: Info) -> bool:
    context: Context = info.context
    return context.principal is not None and context.principal.session_id == root.id


async def create_user(info: Info, input: CreateUserInput) -> User:
    async with info.context.db.transaction() as session:
        return await people.create_user(
            session,
            info.context.caller,
            username=input.username,
            email=input.email,
            display_name=input.display_name,
            password=input.password,
            role_ids=input.role_ids or [],
            team_ids=input.team_ids or [],
        )


async def update_user(info: Info, input: UpdateUserInput) -> User:
    async with info.context.db.transaction() as session:
        return await people.update_user(
            session,
            info.context.caller,
            id=input.id,
            expected_revision=input.expected_revision,
            display_name=input.display_name,
            email=input.email,
            status=input.status,
            team_ids=input.team_ids,
        )


async def delete_user(info: Info, input: DeleteUserInput) -> User:
    async with info.context.db.transaction() as session:
        return await people.delete_user(session, info.context.caller, id=input.id, heir_id=input.transfer_ownership_to)


async def update_viewer(info: Info, input: UpdateViewerInput) -> Principal:
    context: Context = info.context
    context.require_session()
    async with context.db.transaction() as session:
        await people.update_viewer(session, context.caller, display_name=input.display_name, email=input.email)
    return context.caller


async def principal_of(context: Context, user_id: UUID, session_id: UUID) -> Principal | None:
    async with context.db.reading() as session:
        return await access.principal(session, session_id=session_id, user_id=user_id)
