"""People: what they are given to start with, how their accounts change, and how they go."""

from collections.abc import Sequence
from typing import Any

from auth import passwords
from auth.permissions import ADMINISTRATOR, Permission
from auth.principals import Principal
from db import access, api_tokens, grants, roles, teams, users
from db.database import Session
from db.ids import Kind, global_id, key_of
from db.rows import User
from db.vocabulary import EventType, UserStatus
from domain.administration import an_administrator_stays
from domain.changes import as_told, at_revision, differing
from domain.refusals import AlreadyExists, ErrorCode, Invalid, Refusal, Refused, not_found
from domain.sessions import digest_password
from domain.teams import join, leave, teams_to_join
from domain.texts import checked_text, storable
from events.log import publish, system_actor, user_actor

MAX_NAME = 200


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
    refusals += _no_address(email)
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


async def update_user(
    session: Session,
    actor: Principal,
    *,
    id: str,
    expected_revision: int | None,
    display_name: str | None,
    email: str | None,
    status: UserStatus | None,
    team_ids: Sequence[str] | None,
) -> User:
    """Change an account; None leaves as it is, `team_ids` are all the teams it is in then.

    Whoever is not ACTIVE any more is out at once: sessions end and API tokens stop; those of a DEACTIVATED account end
    for good. Raises `Refused`; the last administrator stays.
    """
    user = await _held(session, id)
    at_revision(user, expected_revision, "account")
    wanted = _wanted(display_name, email)
    if status is not None:
        wanted["status"] = status
    belongs = {team.id: team for team in (await teams.of_users(session, [user.id])).get(user.id, ())}
    others = None if team_ids is None else [text for text in team_ids if key_of(text, Kind.TEAM) not in belongs]
    joined, unfit = await teams_to_join(session, actor, others or (), "input", "teamIds")
    if unfit:
        raise Refused(*unfit)
    stays = None if team_ids is None else {key_of(text, Kind.TEAM) for text in team_ids}
    left = [] if stays is None else [team for key, team in belongs.items() if key not in stays]
    async with an_administrator_stays(session, "input", "teamIds" if status is None else "status"):
        changed = await _change(session, actor, user, wanted)
        for team in joined:
            await join(session, actor, team, user.id)
        for team in left:
            await leave(session, actor, team, user.id)
    if changed.status != UserStatus.ACTIVE and user.status != changed.status:
        await access.revoke_sessions(session, user.id)
    if changed.status == UserStatus.DEACTIVATED:
        await api_tokens.revoke_all(session, user.id)
    return changed


async def update_viewer(session: Session, actor: Principal, *, display_name: str | None, email: str | None) -> User:
    """Change the caller's own name or address; None leaves as it is. Raises `Refused`."""
    user = await _held(session, global_id(Kind.USER, actor.user_id))
    return await _change(session, actor, user, _wanted(display_name, email))


async def delete_user(session: Session, actor: Principal, *, id: str, heir_id: str | None) -> User:
    """Delete an account, with its sessions, API tokens, grants and memberships; the account as it was.

    What it made stays, and becomes the heir's. Raises `Refused`; the last administrator stays.
    """
    user = await _held(session, id)
    heir = None
    if heir_id is not None:
        heir_key = key_of(heir_id, Kind.USER)
        heir = await users.lock(session, heir_key) if heir_key is not None else None
        if heir is None or heir.id == user.id or heir.status != UserStatus.ACTIVE:
            message = "What somebody owns goes to another active account."
            path = ("input", "transferOwnershipTo")
            raise Refused(not_found("user", heir_id, *path) if heir is None else Invalid(message=message, path=path))
    async with an_administrator_stays(session, "input", "id"):
        await users.remove(session, user.id, heir=heir.id if heir is not None else None)
    await publish(session, EventType.USER_DELETED, user.id, project_id=None, actor=user_actor(actor.user_id))
    return user


async def _held(session: Session, id: str) -> User:
    """The account, which nobody else changes until the transaction ends. Raises `Refused`."""
    key = key_of(id, Kind.USER)
    user = await users.lock(session, key) if key is not None else None
    if user is None:
        raise Refused(not_found("user", id, "input", "id"))
    return user


def _wanted(display_name: str | None, email: str | None) -> dict[str, Any]:
    """Raises `Refused` when the name or the address cannot be one."""
    checked_text(display_name, "input", "displayName", max_length=MAX_NAME)
    refusals = _no_address(email) if email is not None else []
    if refusals:
        raise Refused(*refusals)
    wanted = {"display_name": display_name, "email": email}
    return {field: value for field, value in wanted.items() if value is not None}


async def _change(session: Session, actor: Principal, user: User, wanted: dict[str, Any]) -> User:
    changes = differing(user, wanted)
    if not changes:
        return user
    changed = await users.change_unless_taken(session, user.id, **changes, revision=user.revision + 1)
    if changed is None:
        reads = actor.may(Permission.USER_READ)
        existing = await users.by_username_or_email(session, "", changes["email"]) if reads else None
        message = "The e-mail address belongs to another account."
        raise Refused(AlreadyExists(message=message, path=("input", "email"), existing=existing))
    await publish(
        session,
        EventType.USER_UPDATED,
        user.id,
        project_id=None,
        actor=user_actor(actor.user_id),
        changes={
            "displayName" if field == "display_name" else field: told for field, told in as_told(user, changes).items()
        },
    )
    return changed


def _no_address(email: str) -> list[Refusal]:
    if "@" in email and len(email) <= 254 and storable(email):
        return []
    return [Invalid(message="This is not an e-mail address.", path=("input", "email"))]


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
