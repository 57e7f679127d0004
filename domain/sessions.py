"""Signing in, staying signed in, signing out."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

from auth import passwords
from auth.permissions import Permission
from auth.principals import Place, Principal
from auth.tokens import TokenIssuer, new_refresh_token, refresh_digest
from db import access, users
from db.database import Database, Session, Touched
from db.ids import Kind, global_id, key_of
from db.rows import Session as SessionRow
from db.vocabulary import EventType, UserStatus
from domain.refusals import ErrorCode, Invalid, NotAuthenticated, Refused, not_found
from events.log import publish, user_actor

_HASHING = ThreadPoolExecutor(max_workers=2, thread_name_prefix="argon2")


_WRONG = NotAuthenticated(message="Username or password is wrong.", path=("input", "username"))


class Tokens(NamedTuple):
    """What a client holds of a session: the access token, and the refresh token that renews it."""

    user_id: UUID
    session_id: UUID
    access_token: str
    access_token_expires_at: datetime
    refresh_token: str
    refresh_token_expires_at: datetime
    token_type: str = "Bearer"  # noqa: S105


class Attempts(Protocol):
    """Counts wrong passwords by name and by address (`events.attempts`)."""

    async def hold_up(self, username: str, address: str | None) -> None: ...
    async def locked(self, username: str, address: str | None) -> timedelta | None: ...
    async def failed(self, username: str, address: str | None) -> None: ...
    async def succeeded(self, username: str) -> None: ...


async def authenticate(
    db: Database, attempts: Attempts, *, username: str, password: str, ip_address: str | None
) -> UUID:
    """Whose name and password these are.

    Raises `Refused` with one and the same answer, after the same work, for an unknown user and a wrong password; after
    too many of them with ACCOUNT_LOCKED, also for the right one. Before that everybody waits who tries the name again
    and again. The lock is looked at again after the work, so that many attempts at once get no further than one after
    the other.
    """
    await _refuse_when_locked(attempts, username, ip_address)
    await attempts.hold_up(username, ip_address)
    async with db.reading() as session:
        account = await users.password_of(session, username)
    user_id, stored, status = account or (None, None, None)
    right = await check_password(password, stored)
    if user_id is None or not right or status != UserStatus.ACTIVE:
        await attempts.failed(username, ip_address)
        raise Refused(_WRONG)
    await _refuse_when_locked(attempts, username, ip_address)
    await attempts.succeeded(username)
    return user_id


async def _refuse_when_locked(attempts: Attempts, username: str, ip_address: str | None) -> None:
    wait = await attempts.locked(username, ip_address)
    if wait is not None:
        raise Refused(
            NotAuthenticated(
                code=ErrorCode.ACCOUNT_LOCKED,
                message="Too many attempts to sign in have failed. Wait, then try again.",
                path=("input", "username"),
                retry_after=wait,
            )
        )


async def login(
    session: Session,
    issuer: TokenIssuer,
    *,
    user_id: UUID,
    lifetime: timedelta,
    ip_address: str | None,
    user_agent: str | None,
) -> Tokens:
    """Open a session for a user who has shown who they are. Raises `Refused` for one who was suspended meanwhile."""
    if not await users.note_signed_in(session, user_id):
        raise Refused(_WRONG)
    opened = await access.open_session(
        session, user_id=user_id, lifetime=lifetime, ip_address=ip_address, user_agent=user_agent
    )
    session.touched.append(Touched(global_id(Kind.USER, user_id), None))
    return await _tokens(session, issuer, user_id, opened.id, opened.expires_at)


async def refresh(db: Database, issuer: TokenIssuer, *, refresh_token: str, lifetime: timedelta) -> Tokens:
    """New tokens for an old refresh token, which is used up by it.

    Raises `Refused` when the token is unknown, was used before, or its session is over. A token that comes back after
    its use was stolen or copied: the whole session ends.
    """
    digest = refresh_digest(refresh_token)
    async with db.transaction() as session:
        known = await access.lock_refresh_token(session, digest)
        if known is not None and known.used_at is None and known.revoked_at is None:
            expires_at = await access.use_refresh_token(session, digest, known.session_id, lifetime)
            if known.status == UserStatus.ACTIVE and known.expires_at > expires_at - lifetime:
                return await _tokens(session, issuer, known.user_id, known.session_id, expires_at)
        if known is not None and known.revoked_at is None:
            await access.revoke_sessions(session, known.user_id, only=known.session_id)
            await publish(
                session,
                EventType.SESSION_REVOKED,
                known.user_id,
                project_id=None,
                actor=user_actor(known.user_id),
            )
    raise Refused(
        NotAuthenticated(
            code=ErrorCode.TOKEN_EXPIRED,
            message="This refresh token is not valid any more. Sign in again.",
            path=("input", "refreshToken"),
        )
    )


async def logout(session: Session, *, user_id: UUID, session_id: UUID, everywhere: bool) -> int:
    """End this session, or every session of the user; how many ended."""
    ended = await access.revoke_sessions(session, user_id, only=None if everywhere else session_id)
    if ended:
        await publish(session, EventType.SESSION_REVOKED, user_id, project_id=None, actor=user_actor(user_id))
    return ended


async def revoke(session: Session, actor: Principal, *, session_id: str) -> SessionRow:
    """End one session, one's own or, with SESSION_MANAGE, anybody's; one that is over stays as it is.

    Raises `Refused` when there is no such session that the caller may see.
    """
    key = key_of(session_id, Kind.SESSION)
    found = (await access.sessions_by_ids(session, [key])).get(key) if key else None
    if found is None or not actor.may(Permission.SESSION_MANAGE, Place(None, found.user_id)):
        raise Refused(not_found("session", session_id, "input", "id"))
    if await access.revoke_sessions(session, found.user_id, only=found.id):
        await publish(
            session, EventType.SESSION_REVOKED, found.user_id, project_id=None, actor=user_actor(actor.user_id)
        )
    return (await access.sessions_by_ids(session, [found.id]))[found.id]


async def change_password(db: Database, *, user_id: UUID, session_id: UUID, current: str, new: str) -> int:
    """Give oneself another password; every other session of the user ends, and this one stays. How many ended.

    Raises `Refused` when the current password is wrong or the new one is weak, or is the current one.
    """
    async with db.reading() as session:
        username, stored = await users.digest_of(session, user_id)
    wrong = NotAuthenticated(message="The current password is wrong.", path=("input", "currentPassword"))
    if not await check_password(current, stored) or stored is None:
        raise Refused(wrong)
    weak = passwords.weakness(new, username=username)
    if weak is not None or new == current:
        reason = weak.reason if weak is not None else "This is the password you have. Choose another one."
        raise Refused(Invalid(code=ErrorCode.WEAK_PASSWORD, message=reason, path=("input", "newPassword")))
    digest = await digest_password(new)
    async with db.transaction() as session:
        if not await users.exchange_password(session, user_id, old=stored, new=digest):
            raise Refused(wrong)
        session.touched.append(Touched(global_id(Kind.USER, user_id), None))
        ended = await access.revoke_sessions(session, user_id, but=session_id)
        if ended:
            await publish(session, EventType.SESSION_REVOKED, user_id, project_id=None, actor=user_actor(user_id))
    return ended


async def check_password(password: str, stored: str | None) -> bool:
    """Compare in a thread of its own: argon2 takes a fifth of a second."""
    if len(password) > passwords.MAX_LENGTH:
        password, stored = "", None
    return await asyncio.get_running_loop().run_in_executor(_HASHING, passwords.matches, password, stored)


async def digest_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_HASHING, passwords.digest, password)


async def _tokens(
    session: Session, issuer: TokenIssuer, user_id: UUID, session_id: UUID, expires_at: datetime
) -> Tokens:
    refresh_token = new_refresh_token()
    await access.add_refresh_token(session, session_id, refresh_digest(refresh_token))
    access_token, access_expires_at = issuer.issue(user_id, session_id)
    return Tokens(user_id, session_id, access_token, access_expires_at, refresh_token, expires_at)
