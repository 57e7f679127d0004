"""On random worlds of users, teams, roles and grants all that answers «may I» agrees.

The guard of a mutation, `viewer.can`, `permissionCheck`, `whoCan` and what lists leave out are five answers to one
question, found in two ways: by the rule over a caller's grants (`Principal.may`), and by statements.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert

from auth.permissions import Permission
from auth.principals import EVERYWHERE, Place
from db.ids import Kind, global_id, new_id
from db.tables import grants, roles, team_members, teams, users
from tests.test_grants import again
from tests.test_visibility import two  # noqa: F401  (a fixture)

WORDS = (
    Permission.DATASET_READ,
    Permission.DATASET_UPDATE,
    Permission.MODEL_READ,
    Permission.MODEL_UPDATE,
    Permission.GRANT_READ,
    Permission.PROJECT_READ,
)
"""Two that need nothing, two that need one of these, and what shows grants and projects."""
PEOPLE, GROUPS, ROLES, PLACES = 3, 2, 2, 9

some = st.frozensets(st.sampled_from(WORDS), min_size=1, max_size=3)
moments = st.sampled_from([None, None, timedelta(days=1), timedelta(days=-1)])
holding = st.fixed_dictionaries(
    {
        "holder": st.integers(0, PEOPLE + GROUPS - 1),
        "what": st.one_of(st.integers(0, ROLES - 1), some),
        "place": st.integers(0, PLACES - 1),
        "ends": moments,
    }
)
worlds = st.fixed_dictionaries(
    {
        "roles": st.lists(some, min_size=ROLES, max_size=ROLES),
        "members": st.sets(st.tuples(st.integers(0, GROUPS - 1), st.integers(0, PEOPLE - 1))),
        "suspended": st.sets(st.integers(0, PEOPLE - 1), max_size=1),
        "grants": st.lists(holding, max_size=8),
    }
)


class World:
    """Three people, two teams, two roles of their own, and two projects with what is in them; `set` gives and takes."""

    def __init__(self, db: Any, people: list[Any], two: Any) -> None:  # noqa: F811
        self.db, self.people = db, people
        self.teams = [new_id() for _ in range(GROUPS)]
        self.roles = [new_id() for _ in range(ROLES)]
        self.places: list[tuple[str | None, Place, Kind | None]] = [(None, EVERYWHERE, None)]
        for of in (two.ours, two.theirs):
            self.places.append((global_id(Kind.PROJECT, of.project.id), Place(of.project.id), Kind.PROJECT))
            for kind, row in ((Kind.DATASET, of.first), (Kind.DATASET, of.second), (Kind.MODEL, of.model)):
                self.places.append((global_id(kind, row.id), Place(of.project.id, row.id), kind))

    async def begin(self) -> None:
        async with self.db.transaction() as session:
            for number, id in enumerate(self.teams):
                await session.run(insert(teams).values(id=id, name=f"team {number}"))
            for number, id in enumerate(self.roles):
                values = {"id": id, "name": f"role {number}", "built_in": False, "permissions": ["RUN_READ"]}
                await session.run(insert(roles).values(**values))

    async def set(self, drawn: dict[str, Any]) -> None:
        people = [person.user_id for person in self.people]
        async with self.db.transaction() as session:
            await session.run(delete(team_members))
            await session.run(delete(grants).where(grants.c.reason == "drawn"))
            for number, key in enumerate(people):
                status = "SUSPENDED" if number in drawn["suspended"] else "ACTIVE"
                await session.run(update(users).where(users.c.id == key).values(status=status))
            for id, permissions in zip(self.roles, drawn["roles"], strict=True):
                await session.run(update(roles).where(roles.c.id == id).values(permissions=sorted(permissions)))
            for team, person in sorted(drawn["members"]):
                await session.run(insert(team_members).values(team_id=self.teams[team], user_id=people[person]))
            for grant in drawn["grants"]:
                made = insert(grants).values(**self._row(grant, people))
                await session.run(made.on_conflict_do_nothing())

    def _row(self, grant: dict[str, Any], people: list[Any]) -> dict[str, Any]:
        _, place, kind = self.places[grant["place"]]
        number, what, ends = grant["holder"], grant["what"], grant["ends"]
        by_role = isinstance(what, int)
        return {
            "id": new_id(),
            "user_id": people[number] if number < PEOPLE else None,
            "team_id": self.teams[number - PEOPLE] if number >= PEOPLE else None,
            "role_id": self.roles[what] if by_role else None,
            "permissions": [] if by_role else sorted(what),
            "scope": "RESOURCE" if place.resource_id else "PROJECT" if place.project_id else "GLOBAL",
            "project_id": place.project_id,
            "resource_id": place.resource_id,
            "resource_kind": None if place.resource_id is None else kind,
            "expires_at": None if ends is None else datetime.now(UTC) + ends,
            "reason": "drawn",
        }


@pytest.fixture
async def world(db: Any, caller: Any, two: Any) -> World:  # noqa: F811
    made = World(db, [await caller(None) for _ in range(PEOPLE)], two)
    await made.begin()
    return made


class Answers:
    """What the API says of every place of a world, in their order."""

    def __init__(self, execute: Any, world: World, admin: Any) -> None:
        self.execute, self.world, self.admin = execute, world, admin

    async def decisions(self, who: str, permission: Permission) -> list[frozenset[str]]:
        """The grants that `permissionCheck` names; none when it says no."""
        field = f'permissionCheck(principalId: "{who}", permission: {permission}%s) {{ allowed decidedBy {{ id }} }}'
        decided = await self._asked(self.admin, "{ %s }", field)
        named = [frozenset(grant["id"] for grant in one["decidedBy"]) for one in decided]
        assert [one["allowed"] for one in decided] == [bool(ids) for ids in named]
        return named

    async def holders(self, permission: Permission) -> list[frozenset[str]]:
        """The grants that `whoCan` lists."""
        field = f"whoCan(permission: {permission}%s, first: 100) {{ nodes {{ id }} }}"
        listed = await self._asked(self.admin, "{ %s }", field)
        return [frozenset(grant["id"] for grant in one["nodes"]) for one in listed]

    async def own(self, principal: Any, permission: Permission) -> list[bool]:
        """What `viewer.can` says to the caller."""
        field = f"can(permission: {permission}%s) {{ allowed }}"
        return [one["allowed"] for one in await self._asked(principal, "{ viewer { %s } }", field)]

    async def guarded(self, principal: Any, permission: Permission) -> list[bool | None]:
        """Whether a mutation that changes nothing gets past its guard; None where no mutation is about this place."""
        return [await self._passes(principal, permission, id, kind) for id, _, kind in self.world.places]

    async def _passes(self, principal: Any, permission: Permission, id: str | None, kind: Kind | None) -> bool | None:
        update = UPDATES.get((kind, permission))
        if update is None:
            return None
        mutation = f'mutation {{ {update}(input: {{id: "{id}"}}) {{ errors {{ code }} }} }}'
        payload = (await self.execute(mutation, principal=principal))["data"][update]
        assert payload in (None, {"errors": []}), "who gets past the guard finds the object"
        return payload is not None

    async def listed(self, principal: Any) -> dict[Permission, set[str]]:
        query = "{ datasets { nodes { id } } models { nodes { id } } projects { nodes { id } } }"
        answer = (await self.execute(query, principal=principal))["data"]
        return {reads: {node["id"] for node in answer[field]["nodes"]} for field, (reads, _) in LISTS.items()}

    async def _asked(self, principal: Any, query: str, field: str) -> list[Any]:
        """One field for each place, under the aliases `at0`, `at1`, …"""
        named = [f', resourceId: "{id}"' if id else "" for id, _, _ in self.world.places]
        fields = " ".join(f"at{number}: {field % where}" for number, where in enumerate(named))
        answer = (await self.execute(query % fields, principal=principal))["data"]
        return [answer.get("viewer", answer)[f"at{number}"] for number in range(PLACES)]


UPDATES = {
    (Kind.DATASET, Permission.DATASET_UPDATE): "updateDataset",
    (Kind.MODEL, Permission.MODEL_UPDATE): "updateModel",
}
LISTS: dict[str, tuple[Permission, Kind]] = {
    "datasets": (Permission.DATASET_READ, Kind.DATASET),
    "models": (Permission.MODEL_READ, Kind.MODEL),
    "projects": (Permission.PROJECT_READ, Kind.PROJECT),
}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=worlds, number=st.integers(0, PEOPLE - 1), permission=st.sampled_from(WORDS))
async def test_guards_checks_and_lists_agree(execute, admin, db, world, drawn, number, permission):
    await world.set(drawn)
    answers = Answers(execute, world, admin)
    people = [await answers.decisions(global_id(Kind.USER, one.user_id), permission) for one in world.people]
    groups = [await answers.decisions(global_id(Kind.TEAM, key), permission) for key in world.teams]
    everyone = await answers.holders(permission)
    ada = await answers.decisions(global_id(Kind.USER, admin.user_id), permission)

    for at in range(PLACES):
        assert everyone[at] == frozenset().union(*(decided[at] for decided in (*people, *groups, ada)))
    for team, person in drawn["members"] if not drawn["suspended"] else ():
        assert all(people[person][at] >= groups[team][at] for at in range(PLACES)), "members may what their team may"

    decided = people[number]
    principal = await again(db, world.people[number])
    assert (principal is None) == (number in drawn["suspended"])
    if principal is None:
        assert decided == [frozenset()] * PLACES
        return
    assert await answers.own(principal, permission) == [bool(named) for named in decided]
    for passed, named in zip(await answers.guarded(principal, permission), decided, strict=True):
        assert passed in (None, bool(named))
    seen = await answers.listed(principal)
    for reads, kind in LISTS.values():
        readable = await answers.decisions(global_id(Kind.USER, principal.user_id), reads)
        assert seen[reads] == {
            id
            for (id, _, of), named in zip(world.places, readable, strict=True)
            if named and id is not None and of is kind
        }
