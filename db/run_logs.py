"""Queries on the log of a training run: numbered lines, and which batches of them have come.

Who appends has locked the run, so lines are numbered and committed in one order.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Interval,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal,
    select,
)

from db.conditions import one_of
from db.database import Prepared, Session
from db.forgetting import forgetting
from db.paging import Order, Page, PageArgs, pages
from db.rows import LogLine, columns
from db.tables import run_attempts, run_log_batches, run_logs


async def log_pages(session: Session, ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[LogLine]]:
    """Oldest first; `args.filter` is a `LogFilter`."""
    statement = select(*columns(LogLine, run_logs)).where(*_logged(args.filter))
    order = Order.by("NUMBER", run_logs.c.number)
    return await pages(session, LogLine, statement, run_logs.c.run_id, ids, order, args)


async def lines_after(session: Session, run_id: UUID, number: int, filter: Any, *, limit: int) -> list[LogLine]:
    statement = (
        select(*columns(LogLine, run_logs))
        .where(run_logs.c.run_id == run_id, run_logs.c.number > number, *_logged(filter))
        .order_by(run_logs.c.number)
        .limit(limit)
    )
    return await session.all(LogLine, statement)


async def last_line(session: Session, run_id: UUID) -> int:
    """The number of the last log line, 0 when there is none."""
    found: int = await session.scalar(_LAST_LINE, run_id=run_id)
    return found


_LAST_LINE = Prepared(
    select(func.coalesce(func.max(run_logs.c.number), 0)).where(run_logs.c.run_id == bindparam("run_id"))
)


def _logged(wanted: Any) -> list[ColumnElement[bool]]:
    if wanted is None:
        return []
    conditions: list[ColumnElement[bool]] = []
    if wanted.levels is not None:
        conditions.append(one_of(run_logs.c.level, [str(level) for level in wanted.levels]))
    if wanted.streams is not None:
        conditions.append(one_of(run_logs.c.stream, [str(stream) for stream in wanted.streams]))
    if wanted.contains is not None:
        conditions.append(run_logs.c.text.icontains(wanted.contains, autoescape=True))
    if wanted.attempt is not None:
        conditions.append(run_logs.c.attempt == wanted.attempt)
    if wanted.time is not None:
        conditions.append(run_logs.c.at >= wanted.time.from_)
        if wanted.time.to is not None:
            conditions.append(run_logs.c.at < wanted.time.to)
    return conditions


async def append_lines(session: Session, run_id: UUID, attempt: int, lines: Sequence[Any]) -> None:
    """Log lines, numbered from 1 on; the caller has locked the run. A line has `at`, `level`, `stream` and `text`."""
    await session.run(
        _APPEND,
        run_id=run_id,
        attempt=attempt,
        at=[line.at for line in lines],
        level=[str(line.level) for line in lines],
        stream=[str(line.stream) for line in lines],
        text=[line.text for line in lines],
    )


def _appending() -> Prepared:
    given = (
        func.unnest(
            bindparam("at", type_=ARRAY(DateTime(timezone=True))),
            bindparam("level", type_=ARRAY(Text)),
            bindparam("stream", type_=ARRAY(Text)),
            bindparam("text", type_=ARRAY(Text)),
        )
        .table_valued(
            column("at", DateTime(timezone=True)),
            column("level", Text),
            column("stream", Text),
            column("text", Text),
            with_ordinality="place",
            name="given",
        )
        .render_derived()
    )
    run_id = bindparam("run_id", type_=Uuid)
    last = select(func.coalesce(func.max(run_logs.c.number), 0)).where(run_logs.c.run_id == run_id).scalar_subquery()
    rows = select(
        cast(run_id, Uuid),
        last + given.c.place,
        given.c.at,
        given.c.level,
        given.c.stream,
        cast(bindparam("attempt", type_=BigInteger), run_attempts.c.number.type),
        given.c.text,
    )
    return Prepared(
        insert(run_logs).from_select(["run_id", "number", "at", "level", "stream", "attempt", "text"], rows)
    )


_APPEND = _appending()


class LinesAppended(NamedTuple):
    """What a call of `appendRunLogs` answered."""

    appended: int
    last_number: int


async def batch_of_lines(session: Session, run_id: UUID, batch_id: str) -> LinesAppended | None:
    """What the first call with this batch answered; the caller has locked the run."""
    return await session.first(LinesAppended, _BATCH_OF_LINES, run_id=run_id, batch_id=batch_id)


async def remember_batch_of_lines(session: Session, run_id: UUID, batch_id: str, answer: LinesAppended) -> None:
    await session.run(insert(run_log_batches).values(run_id=run_id, batch_id=batch_id, **answer._asdict()))


async def forget_old_batches_of_lines(session: Session, *, limit: int) -> int:
    """Forget which batches of log lines have come, of those older than `BATCHES_KEPT_FOR`; how many."""
    return await session.run(_FORGET_BATCHES, limit=limit)


BATCHES_KEPT_FOR = timedelta(days=30)

_FORGET_BATCHES = forgetting(
    run_log_batches, run_log_batches.c.created_at <= func.now() - literal(BATCHES_KEPT_FOR, Interval)
)

_BATCH_OF_LINES = Prepared(
    select(*columns(LinesAppended, run_log_batches)).where(
        run_log_batches.c.run_id == bindparam("run_id"), run_log_batches.c.batch_id == bindparam("batch_id")
    )
)
