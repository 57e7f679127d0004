"""The database handle: where every statement and every transaction begins and ends.

`reading()` serves one dataloader batch or one query, in autocommit. `transaction()` serves one mutation or one step of
a worker: it commits when the block ends and rolls back when the block raises. A session lives inside one block and one
task, so GraphQL fields can resolve concurrently. Statements are SQLAlchemy Core, compiled once by their shape; asyncpg
runs them, and a row is made from its columns by position.
"""

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from auth.principals import ALL_SIGHT, NO_SIGHT, Principal
from db.connections import UNREACHABLE, Connections, DatabaseUnavailable, Lent

RowT = TypeVar("RowT", bound=tuple[Any, ...])  # a NamedTuple of `db.rows`, made from columns by position
Ring = Callable[[frozenset[str]], None]

_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]
IDLE_IN_TRANSACTION = "5s"
"""After so long the locks of a process that stands still in the middle of a transaction are given up."""
_MAX_COMPILED = 2000


class Collided(Exception):
    """Another transaction took away what this one needed, or each waited for the other. Nothing was written."""


_COLLISIONS = (asyncpg.ForeignKeyViolationError, asyncpg.DeadlockDetectedError)


class Prepared:
    """A statement compiled at import: its text and the names of its parameters, in order."""

    __slots__ = ("defaults", "names", "sql")

    def __init__(self, statement: ClauseElement) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        assert isinstance(compiled, SQLCompiler)
        self.sql = str(compiled)
        self.names = tuple(compiled.positiontup or ())
        self.defaults = compiled.params

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        defaults = self.defaults
        return [values[name] if name in values else defaults[name] for name in self.names]


Statement = Prepared | ClauseElement
_compiled: dict[Any, SQLCompiler] = {}


def _rendered(statement: Statement, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The SQL of a statement and its arguments; a shape met before is not compiled again."""
    if isinstance(statement, Prepared):
        return statement.sql, statement.arguments(values)
    key = statement._generate_cache_key()
    if key is None:
        prepared = Prepared(statement)
        return prepared.sql, prepared.arguments(values)
    compiled = _compiled.get(key.key)
    if compiled is None:
        made = statement._compiler(_DIALECT, cache_key=key)
        assert isinstance(made, SQLCompiler)
        if len(_compiled) >= _MAX_COMPILED:
            _compiled.clear()
        compiled = _compiled[key.key] = made
    assert not compiled.post_compile_params, "IN expands a list for each length: use db.conditions.one_of"
    given = compiled.construct_params(values, extracted_parameters=key.bindparams)
    return str(compiled), [given[name] for name in compiled.positiontup or ()]


class Touched(NamedTuple):
    """A thing that a transaction made, changed or ended: its global ID, and what its changed fields held and hold."""

    resource_id: str
    project_id: UUID | None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


class Session:
    """One connection for the length of one block, and what its reader may see.

    Readers of its `topics` are woken once it has committed; `touched` is what it did, the main thing first.
    """

    def __init__(
        self, connection: Any, watch: Callable[[str], None] | None, sight: Mapping[str, Any] = ALL_SIGHT
    ) -> None:
        self.connection: asyncpg.Connection = connection
        self._sight = sight
        self._watch = watch
        self.topics: set[str] = set()
        self.touched: list[Touched] = []

    async def all(self, row: type[RowT], statement: Statement, /, **values: Any) -> list[RowT]:
        make: Callable[[asyncpg.Record], RowT] = row._make  # type: ignore[attr-defined]
        return [make(record) for record in await self.records(statement, **values)]

    async def first(self, row: type[RowT], statement: Statement, /, **values: Any) -> RowT | None:
        sql, arguments = self._ready(statement, values)
        record = await self.connection.fetchrow(sql, *arguments)
        make: Callable[[asyncpg.Record], RowT] = row._make  # type: ignore[attr-defined]
        return None if record is None else make(record)

    async def scalar(self, statement: Statement, /, **values: Any) -> Any:
        sql, arguments = self._ready(statement, values)
        return await self.connection.fetchval(sql, *arguments)

    async def records(self, statement: Statement, /, **values: Any) -> list[asyncpg.Record]:
        sql, arguments = self._ready(statement, values)
        found: list[asyncpg.Record] = await self.connection.fetch(sql, *arguments)
        return found

    async def run(self, statement: Statement, /, **values: Any) -> int:
        """Run a statement for its effect; the number of rows it touched."""
        sql, arguments = self._ready(statement, values)
        status: str = await self.connection.execute(sql, *arguments)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    def _ready(self, statement: Statement, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        sql, arguments = _rendered(statement, {**self._sight, **values})
        if self._watch is not None:
            self._watch(sql)
        return sql, arguments


class Database:
    """A pool of connections to one PostgreSQL. Open it with `async with`.

    `ring` is told the topics of every transaction that committed; `watch` is told every statement.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        ring: Ring | None = None,
        watch: Callable[[str], None] | None = None,
    ) -> None:
        self.url = url
        self.ring = ring
        self.watch = watch
        self._sight = ALL_SIGHT
        self._pool_size = pool_size
        self._connections: Connections | None = None
        self._last_step: Step | None = None

    def ending_with(self, step: "Step") -> "Database":
        """The same database, each of whose transactions takes `step` last, before it commits."""
        other = copy.copy(self)
        other._last_step = step
        return other

    async def __aenter__(self) -> Self:
        try:
            pool = await asyncpg.create_pool(
                self.url,
                min_size=0,
                max_size=self._pool_size,
                init=_prepare_connection,
                reset=_leave_as_is,
                command_timeout=60,
                timeout=5,
                server_settings={
                    "application_name": "headai",
                    "jit": "off",
                    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION,
                },
            )
        except UNREACHABLE as error:
            raise DatabaseUnavailable(str(error)) from error
        self._connections = Connections(pool)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connections is not None:
            await self._connections.close()

    def seen_by(self, reader: Principal | None) -> "Database":
        """The same database, in which a reader finds what that reader may see (`db.sight`), and nobody nothing."""
        seen = copy.copy(self)
        seen._sight = NO_SIGHT if reader is None else reader.sight
        return seen

    def reading(self) -> "Reading":
        """A session whose statements each stand alone. Raises `DatabaseUnavailable`."""
        return Reading(self._lent(), self.watch, self._sight)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """A session in one transaction, whose topics ring once it has committed.

        Raises `Collided`, or `DatabaseUnavailable` when the connection is lost: whether it committed is then unknown to
        the caller.
        """
        async with self._lent() as connection:
            session = Session(connection, self.watch, self._sight)
            try:
                async with connection.transaction():
                    yield session
                    if self._last_step is not None:
                        await self._last_step(session)
            except _COLLISIONS as error:
                raise Collided(str(error)) from error
        if session.topics and self.ring is not None:
            self.ring(frozenset(session.topics))

    def _lent(self) -> Lent:
        assert self._connections is not None, "the database is opened with `async with`"
        return self._connections.lent()


class Reading:
    """The block of `Database.reading`."""

    __slots__ = ("_lent", "_sight", "_watch")

    def __init__(self, lent: Lent, watch: Callable[[str], None] | None, sight: Mapping[str, Any]) -> None:
        self._lent = lent
        self._watch = watch
        self._sight = sight

    async def __aenter__(self) -> Session:
        return Session(await self._lent.__aenter__(), self._watch, self._sight)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._lent.__aexit__(kind, error, trace)


Step = Callable[[Session], Awaitable[None]]


async def _prepare_connection(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_to_jsonb, decoder=_from_jsonb
    )
    await connection.set_type_codec("xid8", schema="pg_catalog", format="text", encoder=str, decoder=int)


async def _leave_as_is(_: Any) -> None:
    """No statement of ours leaves state in a session, so a returned connection needs no reset."""


def _to_jsonb(value: Any) -> bytes:
    return b"\x01" + orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)


def _from_jsonb(value: bytes) -> Any:
    return orjson.loads(value[1:])
