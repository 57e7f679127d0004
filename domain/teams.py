"""Teams: people who hold grants together.

Whoever joins a team gets what it holds, so nobody adds a member to a team that holds more than they do themselves.
"""

from collections.abc import Sequence
from uuid import UUID

from auth.principals import Principal
from db import grants, teams, users
from db.database import Session, Touched
from db.ids import Kind, global_id, key_of
from db.rows import Team
from db.vocabulary import EventType
from domain.administration import an_administrator_stays, not_theirs_to_give
from domain.changes import at_revision, differing, named
from domain.refusals import AlreadyExists, Invalid, Refusal, Refused, not_found
from domain.texts import checked_text
from events.log import publish, user_actor

MAX_NAME = 100


async def create_team(
    session: Session, actor: Principal, *, name: str, description: str | None, member_ids: Sequence[str]
) -> Team:
    """Make a team, which holds nothing yet. Raises `Refused` when the name is taken or a member is nobody."""
    checked_text(name, "input", "name", max_length=MAX_NAME)
    checked_text(description, "input", "description")
    members, refusals = await _people(session, member_ids, "memberIds")
    if refusals:
        raise Refused(*refusals)
    team = await teams.insert_unless_taken(session, name=name, description=description)
    if team is None:
        raise Refused(await _taken(session, name))
    _touch(session, team, None, {"name": name})
    await _joined(session, actor, team, await teams.add_members(session, team.id, members))
    return team


async def update_team(
    session: Session,
    actor: Principal,
    *,
    id: str,
    expected_revision: int | None,
    name: str | None,
    description: str | None,
    add_member_ids: Sequence[str],
    remove_member_ids: Sequence[str],
) -> Team:
    """Rename or describe a team, let people in and out; None leaves as it is, an empty description takes it away.

    The rights of those who come and go change with it. Raises `Refused`.
    """
    wanted = named(name, description, max_name=MAX_NAME)
    team = await _held(session, id)
    at_revision(team, expected_revision, "team")
    coming, refusals = await _people(session, add_member_ids, "addMemberIds")
    going, unknown = await _people(session, remove_member_ids, "removeMemberIds")
    refusals += unknown
    if not set(coming).isdisjoint(going):
        message = "Somebody is to be added and to be removed."
        refusals.append(Invalid(message=message, path=("input", "removeMemberIds")))
    if set(coming) - await teams.members(session, team.id):
        beyond = not_theirs_to_give(actor, await grants.given_to_team(session, team.id), "input", "addMemberIds")
        refusals += [beyond] if beyond is not None else []
    if refusals:
        raise Refused(*refusals)
    if name is not None and await teams.name_is_taken(session, name, but=team.id):
        raise Refused(await _taken(session, name))
    changes = differing(team, wanted)
    async with an_administrator_stays(session, "input", "removeMemberIds"):
        joined = await teams.add_members(session, team.id, coming)
        left = await teams.remove_members(session, team.id, going)
    if not (changes or joined or left):
        return team
    changed = await teams.change(session, team.id, **changes, revision=team.revision + 1)
    _touch(session, changed, {field: getattr(team, field) for field in changes}, changes)
    await _joined(session, actor, changed, joined)
    await _left(session, actor, changed, left)
    return changed


async def delete_team(session: Session, actor: Principal, *, id: str) -> str:
    """Delete a team with its grants; its members act without them from their next request on. The ID of the team.

    Raises `Refused` when there is no such team, or nobody would administer the installation any more.
    """
    team = await _held(session, id)
    members = sorted(await teams.members(session, team.id))
    revoked = await grants.of_team(session, team.id)
    async with an_administrator_stays(session, "input", "id"):
        await teams.remove(session, team.id)
    _touch(session, team, {"name": team.name}, None)
    who = user_actor(actor.user_id)
    for grant in revoked:
        await publish(session, EventType.GRANT_REVOKED, grant.id, project_id=grant.project_id, actor=who)
    await _left(session, actor, team, members)
    return global_id(Kind.TEAM, team.id)


async def teams_to_join(
    session: Session, actor: Principal, team_ids: Sequence[str], *path: str
) -> tuple[list[Team], list[Refusal]]:
    """The teams with these IDs, held until the transaction ends; and why some cannot be joined."""
    found: list[Team] = []
    refusals: list[Refusal] = []
    for number, text in enumerate(team_ids):
        key = key_of(text, Kind.TEAM)
        team = await teams.lock(session, key) if key is not None else None
        if team is None:
            refusals.append(not_found("team", text, *path, str(number)))
            continue
        beyond = not_theirs_to_give(actor, await grants.given_to_team(session, team.id), *path, str(number))
        refusals += [beyond] if beyond is not None else []
        found.append(team)
    return found, refusals


async def join(session: Session, actor: Principal, team: Team, user_id: UUID) -> None:
    await _joined(session, actor, team, await teams.add_members(session, team.id, [user_id]))


async def leave(session: Session, actor: Principal, team: Team, user_id: UUID) -> None:
    await _left(session, actor, team, await teams.remove_members(session, team.id, [user_id]))


async def _held(session: Session, id: str) -> Team:
    """The team, held until the transaction ends. Raises `Refused`."""
    key = key_of(id, Kind.TEAM)
    team = await teams.lock(session, key) if key is not None else None
    if team is None:
        raise Refused(not_found("team", id, "input", "id"))
    return team


async def _people(session: Session, ids: Sequence[str], field: str) -> tuple[list[UUID], list[Refusal]]:
    keys = [key_of(text, Kind.USER) for text in ids]
    known = await users.by_ids(session, [key for key in keys if key is not None])
    unknown: list[Refusal] = [
        not_found("user", text, "input", field, str(number))
        for number, (text, key) in enumerate(zip(ids, keys, strict=True))
        if key not in known
    ]
    return list(known), unknown


async def _taken(session: Session, name: str) -> AlreadyExists:
    return AlreadyExists(
        message=f"There is a team named {name!r} already.",
        path=("input", "name"),
        existing=await teams.by_name(session, name),
    )


async def _joined(session: Session, actor: Principal, team: Team, members: Sequence[UUID]) -> None:
    await _moved(session, actor, team, members, [False, True])


async def _left(session: Session, actor: Principal, team: Team, members: Sequence[UUID]) -> None:
    await _moved(session, actor, team, members, [True, False])


async def _moved(session: Session, actor: Principal, team: Team, members: Sequence[UUID], change: list[bool]) -> None:
    for user_id in members:
        await publish(
            session,
            EventType.USER_UPDATED,
            user_id,
            project_id=None,
            actor=user_actor(actor.user_id),
            changes={f"teams.{team.name}": change},
        )


def _touch(
    session: Session, team: Team, before: dict[str, str | None] | None, after: dict[str, str | None] | None
) -> None:
    """What the audit log tells of this mutation is about the team first."""
    session.touched.append(Touched(global_id(Kind.TEAM, team.id), None, before, after))
