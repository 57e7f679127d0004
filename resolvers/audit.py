"""Entries of the audit log."""

from typing import Any

import orjson
import structlog

from db import audit
from db.database import DatabaseUnavailable
from db.vocabulary import AuditAction, AuditOutcome
from domain.texts import as_stored
from resolvers.context import Context

_log = structlog.get_logger(__name__)


async def record(context: Context, action: AuditAction, outcome: AuditOutcome, told: Any, *, operation: Any) -> None:
    """Write one entry. When the database is gone the entry goes to the service's own log instead."""
    caller, request = context.principal, context.request
    entry = {
        "action": action,
        "outcome": outcome,
        "user_id": caller.user_id if caller else None,
        "actor": context.actor if caller else None,
        "ip_address": request.ip_address,
        "user_agent": request.user_agent,
        "operation_name": operation.value if operation is not None else None,
        "request_id": request.request_id,
        "input": orjson.loads(orjson.dumps(as_stored(told), default=str)),
    }
    try:
        async with context.db.transaction() as session:
            await audit.append(session, **entry)
    except DatabaseUnavailable as error:
        _log.error("audit entry not stored", error=str(error), **entry)
