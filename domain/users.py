"""People and what they are given to start with."""

from collections.abc import Sequence

from auth import passwords
from auth.permissions import ADMINISTRATOR
from auth.principals import Principal
from db import access, grants, roles, users
from db.database import Session
from db.ids import Kind, key_of
from db.rows import User
from db.vocabulary import EventType
from domain.refusals import AlreadyExists, ErrorCode, Invalid, Refusal, Refused, not_found
from domain.sessions import digest_password
from domain.teams import join, teams_to_join
from events.log import publish, system_actor, user_actor


async def create_user(
    session: Session,
    actor: Principal,
    *,
    username: str,
    email: str,
    display_name: str | None,
    password: str | None,
    role_ids: Sequence[str],
    team_ids: Sequence[str] = (),
) -> User:
    """Make an account, give it roles everywhere and let it into teams.

    Raises `Refused` when the name or address is taken, the password is weak, or a role or team is unknown. Nobody
    hands out a right that is not their own.
    """
    refusals: list[Refusal] = []
    if "@" not in email or len(email) > 254:
        refusals.append(Invalid(message="This is not an e-mail address.", path=("input", "email")))
    weak = passwords.weakness(password, username=username) if password is not None else None
    if weak is not None:
        refusals.append(Invalid(code=ErrorCode.WEAK_PASSWORD, message=weak.reason, path=("input", "password")))
    keys = [key_of(text, Kind.ROLE) for text in role_ids]
    known = await roles.by_ids(session, [key for key in keys if key is not None])
    for number, (text, key) in enumerate(zip(role_ids, keys, strict=True)):
        path = ("input", "roleIds", str(number))
        if key is None or key not in known:
            refusals.append(not_found("role", text, *path))
        elif not set(known[key].permissions) <= actor.permissions:
            refusals.append(Invalid(message="This role holds permissions that you do not hold yourself.", path=path))
    joined, unfit = await teams_to_join(session, actor, team_ids, "input", "teamIds")
    refusals += unfit
    if refusals:
        raise Refused(*refusals)

    digest = await digest_password(password) if password is not None else None
    user = await users.insert_unless_taken(
        session, username=username, email=email, display_name=display_name or username, password_digest=digest
    )
    if user is None:
        existing = await users.by_username_or_email(session, username, email)
        same = existing is not None and existing.username == username
        raise Refused(
            AlreadyExists(
                message=f"The {'username' if same else 'e-mail address'} belongs to another account.",
                path=("input", "username" if same else "email"),
                existing=existing,
            )
        )
    for role in known.values():
        await grants.grant_role(session, user_id=user.id, role_id=role.id, created_by=actor.user_id)
    await publish(session, EventType.USER_CREATED, user.id, project_id=None, actor=user_actor(actor.user_id))
    for team in joined:
        await join(session, actor, team, user.id)
    return user


async def ensure_first_administrator(session: Session, *, username: str, password: str) -> User | None:
    """On an installation without accounts: the built-in roles and the administrator. None when there are accounts."""
    await roles.keep_built_in(session)
    if await users.any_exists(session):
        return None
    return await create_administrator(session, username=username, password=password)


async def create_administrator(session: Session, *, username: str, password: str) -> User:
    """An account that may do everything. Raises `Refused` when the name is taken or the password weak."""
    weak = passwords.weakness(password, username=username)
    if weak is not None:
        raise Refused(Invalid(code=ErrorCode.WEAK_PASSWORD, message=weak.reason, path=("input", "password")))
    user = await users.insert_unless_taken(
        session,
        username=username,
        email=f"{username}@localhost",
        display_name="Administrator",
        password_digest=await digest_password(password),
    )
    role = await roles.by_name(session, ADMINISTRATOR)
    if user is None or role is None:
        raise Refused(AlreadyExists(message=f"There is a user {username!r} already.", path=("input", "username")))
    await grants.grant_role(session, user_id=user.id, role_id=role.id, created_by=None)
    await publish(session, EventType.USER_CREATED, user.id, project_id=None, actor=system_actor("setup"))
    return user


async def set_password(session: Session, *, username: str, password: str) -> None:
    """Give an account another password and end its sessions. Raises `Refused`."""
    user = await users.by_username(session, username)
    if user is None:
        raise Refused(not_found("user", username, "input", "username"))
    weak = passwords.weakness(password, username=username)
    if weak is not None:
        raise Refused(Invalid(code=ErrorCode.WEAK_PASSWORD, message=weak.reason, path=("input", "password")))
    await users.set_password(session, user.id, await digest_password(password))
    await access.revoke_sessions(session, user.id)
