"""Logs of every part of a process, one format on stderr: for people on a terminal, or JSON for a collector.

Code of ours logs with `structlog.get_logger()`; what libraries log by `logging` takes the same way. Each line
carries the request id that `monitoring.requests` binds, and never a secret.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from monitoring.secrets import without_secrets

CHATTY = ("aiobotocore", "asyncio", "boto3", "botocore", "httpcore", "httpx", "urllib3", "websockets")
"""Libraries whose lower levels show signatures, or a line for every frame."""
WITH_HANDLERS_OF_THEIR_OWN = ("uvicorn", "uvicorn.error", "alembic", "pgqueuer", "lightgbm")


def configure(*, style: Literal["console", "json"], level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send everything that is logged from now on to `stream` (stderr when not given). May be called again."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _drop_formatted,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _drop_secrets,
    ]
    renderer: Processor
    if style == "json":
        renderer = structlog.processors.JSONRenderer(serializer=_as_json)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in WITH_HANDLERS_OF_THEIR_OWN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("uvicorn.access").disabled = True  # monitoring.requests writes that line
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _drop_formatted(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Another handler leaves its own rendering on a record; `ExtraAdder` takes it for data."""
    if "_record" in event:
        event.pop("message", None)
        event.pop("asctime", None)
    return event


def _drop_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    internal = {key: event.pop(key) for key in ("_record", "_from_structlog") if key in event}
    cleaned: MutableMapping[str, Any] = without_secrets(event)  # type: ignore[assignment]
    cleaned.update(internal)
    return cleaned


def _as_json(event: EventDict, **_: object) -> str:
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
    return orjson.dumps(event, default=repr, option=options).decode()
