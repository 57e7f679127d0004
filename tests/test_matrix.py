"""Every field and kind of object, for every kind of caller, in the own project and in another (`tests/matrix.py`)."""

import asyncio
import json
import re
from contextlib import aclosing, asynccontextmanager

import pytest
from graphql import GraphQLInterfaceType

from auth import passwords
from db.database import Database
from db.tables import metadata
from schema.build import schema, sdl
from schema.execution import stream
from tests import matrix
from tests.world import PERSONAS, build

_CODES = {"UNAUTHENTICATED": "u", "FORBIDDEN": "f", "NOT_FOUND": "-"}
_LETTERS = {"own": "lab", "other": "other"}


@pytest.fixture
async def world(db):
    return await build(db)


@pytest.mark.parametrize(
    ("root", "lines"),
    [("Query", matrix.QUERIES), ("Mutation", matrix.MUTATIONS), ("Subscription", matrix.SUBSCRIPTIONS)],
)
def test_every_root_field_has_its_line(root, lines):
    fields = schema._schema.type_map[root].fields

    assert [line.name for line in lines] == sorted(fields), "tests/matrix.py has a line for each, in this order"


@pytest.mark.parametrize(
    ("root", "lines"),
    [("Query", matrix.QUERIES), ("Mutation", matrix.MUTATIONS), ("Subscription", matrix.SUBSCRIPTIONS)],
)
def test_the_lines_agree_with_the_directives(root, lines):
    """Who is not signed in, and who holds nothing, gets what the directive of a field says."""
    declared = re.search(rf"^type {root} {{(.*?)^}}", sdl(), re.DOTALL | re.MULTILINE)[1]
    for line in lines:
        guard = re.search(rf"^  {line.name}\b.*?@(public|viewer|requires)", declared, re.DOTALL | re.MULTILINE)[1]
        for letters in (line.own, line.other):
            anonymous, stranger = letters[:2]
            assert (anonymous == "u") == (guard != "public"), line
            assert stranger == "f" or guard != "requires", line


def test_every_type_with_an_id_has_its_line():
    node = schema._schema.type_map["Node"]
    types = schema._schema.get_possible_types(node)

    assert [line.name for line in matrix.TYPES] == sorted(type.name for type in types)
    assert isinstance(node, GraphQLInterfaceType)


async def test_queries_show_what_each_may_see(world, context_of):
    await _hold(matrix.QUERIES, world, lambda line, place: _ask(line, world, place, context_of, "query"))


async def test_objects_are_there_for_those_who_may_see_them(world, context_of):
    def asked(line, place):
        return _ask(line._replace(name="node", asks=f"(id: {line.asks}) {{ __typename }}"), world, place, context_of)

    await _hold(matrix.TYPES, world, asked)


async def test_subscriptions_begin_for_those_who_may_see_what_they_are_about(world, context_of):
    await _hold(matrix.SUBSCRIPTIONS, world, lambda line, place: _ask(line, world, place, context_of, "subscription"))


async def test_mutations_are_for_those_who_may_and_what_is_refused_has_no_effect(world, context_of, db, monkeypatch):
    """Those that are to be refused run as they would for a caller; those that are allowed are rolled back."""

    def asked(line, place):
        return _ask(line, world, place, context_of, "mutation")

    monkeypatch.setattr(passwords, "matches", lambda password, stored: False)  # argon2 takes its time
    before = await _everything(db)
    await _hold(matrix.MUTATIONS, world, asked, only="uf-r")
    assert await _everything(db) == before
    monkeypatch.setattr(Database, "transaction", _undone)
    await _hold(matrix.MUTATIONS, world, asked, only="y")


async def _hold(lines, world, ask, only="uf-ry"):
    """Compare what each caller gets with the table; a difference is told with the line as it would have to be."""
    found, expected = {}, {}
    for line in lines:
        for place in ("own", "other"):
            letters = getattr(line, place)
            assert len(letters) == len(PERSONAS), f"{line.name}: a letter for each of {PERSONAS}"
            got = ""
            for persona, letter in zip(PERSONAS, letters, strict=True):
                got += await ask(line, place)(persona) if letter in only else letter
            found[line.name, place], expected[line.name, place] = got, letters
    assert found == expected


def _ask(line, world, place, context_of, operation="query"):
    ids = world.ids[_LETTERS[place]]
    asks = re.sub(r"<(\w+)>", lambda kind: json.dumps(ids[kind[1]]), line.asks)
    if operation == "mutation":
        asks = f"(input: {{{asks}}}) {{ errors {{ code }} }}"
    document = f"{operation} {{ {line.name}{asks} }}"

    async def of(persona):
        results = stream(document, None, None, context_of(world.people[persona]))
        async with aclosing(results), asyncio.timeout(60):
            response, _ = await anext(results)
        return _letter(response, line, ids)

    return of


def _letter(response, line, ids):
    for error in response.get("errors", ()):
        code = error["extensions"]
        letter = _CODES.get(code.get("userCode", code["code"]))
        assert letter is not None, (line, error)
        return letter
    value = response["data"][line.name]
    if isinstance(value, dict) and value.get("errors"):
        return "-" if any(error["code"] == "NOT_FOUND" for error in value["errors"]) else "r"
    if line.shows is not None:
        return "y" if ids[line.shows] in json.dumps(value) else "-"
    return "-" if value is None or value in ([], {"nodes": []}) else "y"


async def _everything(db):
    """The content of every table but the audit log."""
    names = [name for name in metadata.tables if not name.startswith("audit_")]
    async with db.reading() as session:
        return {
            name: await session.connection.fetchval(
                f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {name} t"
            )
            for name in names
        }


@asynccontextmanager
async def _undone(self):
    """A transaction that does everything, and is rolled back in the end."""
    async with self.reading() as session:
        transaction = session.connection.transaction()
        await transaction.start()
        try:
            yield session
        finally:
            await transaction.rollback()
