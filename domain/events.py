"""The event log's own life: how long what happened is remembered."""

from datetime import UTC, datetime, timedelta

from db import events
from db.database import Session

AT_ONCE = 10_000


async def forget_old_events(session: Session, *, keep: timedelta) -> int:
    """Delete events older than `keep`, ten thousand at most, the oldest first; how many were deleted.

    Call it again, in a transaction of its own, while it returns `AT_ONCE`.
    """
    return await events.forget_before(session, datetime.now(UTC) - keep, limit=AT_ONCE)
