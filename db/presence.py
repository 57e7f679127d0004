"""How many connections each API process has open of each session.

A process writes what has changed, and a sign of life now and then; what one wrote that gives none any more is not
counted, and forgotten by the next one that does.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Uuid, any_, bindparam, column, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from db.database import Prepared, Session
from db.forgetting import forgetting
from db.tables import api_processes, open_connections

SILENT_AFTER = timedelta(seconds=30)
_SILENT = api_processes.c.seen_at < func.clock_timestamp() - literal(SILENT_AFTER)
_BEGIN = Prepared(upsert(api_processes).values(id=bindparam("process")).on_conflict_do_nothing())
_SIGN_OF_LIFE = Prepared(
    update(api_processes).where(api_processes.c.id == bindparam("process")).values(seen_at=func.clock_timestamp())
)
_FORGET_SILENT = forgetting(api_processes, _SILENT)
_GIVEN = (
    func.unnest(bindparam("sessions", type_=ARRAY(Uuid)), bindparam("numbers", type_=ARRAY(Integer)))
    .table_valued(column("session_id", Uuid), column("number", Integer))
    .render_derived()
)
_WRITTEN = upsert(open_connections).from_select(
    ["process_id", "session_id", "number"],
    select(bindparam("process", type_=Uuid), _GIVEN.c.session_id, _GIVEN.c.number),
)
_WRITE = Prepared(
    _WRITTEN.on_conflict_do_update(
        index_elements=[open_connections.c.process_id, open_connections.c.session_id],
        set_={"number": _WRITTEN.excluded.number},
    )
)
_THIS = open_connections.c.process_id == bindparam("process")
_CLOSED = Prepared(delete(open_connections).where(_THIS, open_connections.c.number == 0))
_OF_SESSIONS = Prepared(
    select(open_connections.c.session_id, func.sum(open_connections.c.number))
    .join(api_processes, api_processes.c.id == open_connections.c.process_id)
    .where(open_connections.c.session_id == any_(bindparam("ids", type_=ARRAY(Uuid))), ~_SILENT)
    .group_by(open_connections.c.session_id)
)


async def sign_of_life(session: Session, process: UUID) -> bool:
    """Whether what the process wrote still counts; it does not when others have taken it for dead."""
    await session.run(_FORGET_SILENT, limit=100)
    return await session.run(_SIGN_OF_LIFE, process=process) == 1


async def write(session: Session, process: UUID, numbers: Mapping[UUID, int]) -> None:
    """How many connections of these sessions a process has open now."""
    await session.run(_BEGIN, process=process)
    await session.run(_WRITE, process=process, sessions=list(numbers), numbers=list(numbers.values()))
    await session.run(_CLOSED, process=process)


async def sign_off(session: Session, process: UUID) -> None:
    await session.run(delete(api_processes).where(api_processes.c.id == process))


async def of_sessions(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, int]:
    return {id: int(number) for id, number in await session.records(_OF_SESSIONS, ids=list(ids))}
