"""Runs that are trained outside: what their scripts report."""

from datetime import UTC, datetime
from typing import Any

from db.run_logs import LinesAppended
from domain import external
from domain.training import Line
from resolvers.context import Info
from resolvers.inputs.external import AppendRunLogsInput, ReportRunInput


async def report_run(info: Info, input: ReportRunInput) -> dict[str, Any]:
    async with info.context.db.transaction() as session:
        reported = await external.report(
            session,
            info.context.caller,
            id=input.id,
            status=input.status,
            fraction=input.fraction,
            phase=input.phase,
            message=input.message,
        )
    return reported._asdict()


async def append_run_logs(info: Info, input: AppendRunLogsInput) -> dict[str, Any]:
    now = datetime.now(UTC)
    lines = [Line(line.at or now, line.level, line.stream, line.text) for line in input.lines]
    async with info.context.db.transaction() as session:
        answer: LinesAppended = await external.append_lines(
            session, info.context.caller, id=input.id, lines=lines, batch_id=input.batch_id
        )
    return answer._asdict()
