"""Inputs about runs that are trained outside."""

from datetime import datetime

import strawberry
from strawberry import UNSET

from db.vocabulary import LogLevel, LogStream, TrainingRunStatus
from resolvers.inputs.limits import limited


@strawberry.input
class ReportRunInput:
    id: strawberry.ID
    status: TrainingRunStatus | None = UNSET
    fraction: float | None = UNSET
    phase: str | None = UNSET
    message: str | None = UNSET


@strawberry.input
class LogLineInput:
    at: datetime | None = UNSET
    level: LogLevel = LogLevel.INFO
    stream: LogStream = LogStream.STDOUT
    text: str = limited(max_length=16384)


@strawberry.input
class AppendRunLogsInput:
    id: strawberry.ID
    lines: list[LogLineInput] = limited(max_items=1000)
    batch_id: str | None = UNSET
