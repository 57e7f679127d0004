"""The audit log: the entries that mutations leave, and the log as its readers see it."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import structlog
from strawberry import UNSET

from db import audit
from db.audit import Entry, Verification
from db.connections import DatabaseUnavailable
from db.database import Database, Session
from db.ids import Kind, identify
from db.paging import Page, PageArgs
from db.rows import AuditEvent
from db.vocabulary import AuditAction, AuditOutcome
from domain.texts import as_stored
from events.log import user_actor
from resolvers.context import Context, Info
from resolvers.inputs.audit import AuditEventFilter
from resolvers.inputs.filters import TimeRangeInput

_log = structlog.get_logger(__name__)
_LONGEST_NAME = 64


@dataclass(slots=True)
class Trail:
    """One audited mutation under way. Its entry is the last thing in the transaction that has its effect.

    `told` is the input without its secrets; `asked` the ID of what the mutation is about, where its guard names one.
    """

    context: Context
    action: AuditAction
    told: dict[str, Any]
    operation_name: str | None
    asked: str | None
    user_id: UUID | None = field(init=False)
    db: Database = field(init=False)
    _asked_name: str | None = None
    _noted: bool = False

    def __post_init__(self) -> None:
        self.user_id = self.context.principal.user_id if self.context.principal else None
        self.told = orjson.loads(orjson.dumps(as_stored(self.told), default=str))
        self.db = self.context.services.db.ending_with(self._note)

    async def begin(self) -> None:
        """Remember what the thing is called, which may be gone in the end."""
        if self.asked is not None:
            async with self.context.services.db.reading() as session:
                self._asked_name = await audit.name_of(session, self.asked)

    async def end(self, outcome: AuditOutcome, action: AuditAction | None = None, **more: Any) -> None:
        """Write the entry of a mutation that had no effect, in a transaction of its own.

        When the database is gone the entry goes to the service's own log instead.
        """
        if outcome is AuditOutcome.SUCCEEDED and self._noted:
            return
        entry = self._entry(action or self.action, outcome)._replace(after={**self.told, **more})
        try:
            async with self.context.services.db.transaction() as session:
                await audit.append(session, entry)
        except DatabaseUnavailable as error:
            _log.error("audit entry not stored", error=str(error), **entry._asdict())

    async def _note(self, session: Session) -> None:
        if not await audit.has_written(session):
            return
        entry = self._entry(self.action, AuditOutcome.SUCCEEDED)
        if session.touched:
            main = session.touched[0]
            same = main.resource_id == entry.resource_id
            entry = entry._replace(
                project_id=main.project_id or entry.project_id,
                resource_id=main.resource_id,
                resource_name=await audit.name_of(session, main.resource_id) or (self._asked_name if same else None),
                before=main.before,
                after={**self.told, **(main.after or {})},
            )
        await audit.append(session, entry)
        self._noted = True

    def _entry(self, action: AuditAction, outcome: AuditOutcome) -> Entry:
        request, about = self.context.request, identify(self.asked or "")
        actor = user_actor(self.user_id) if self.user_id else None
        claimed = str(self.told.get("username") or "anonymous") if actor is None else "anonymous"
        if actor is not None and actor == self.asked and self._asked_name is not None:
            claimed = self._asked_name
        return Entry(
            action=action,
            outcome=outcome,
            user_id=self.user_id,
            token_id=self.context.principal.token_id if self.context.principal else None,
            actor=actor,
            actor_name=claimed[:_LONGEST_NAME],
            project_id=about.key if about is not None and about.kind is Kind.PROJECT else None,
            resource_id=self.asked if about is not None else None,
            resource_name=self._asked_name,
            ip_address=request.ip_address,
            user_agent=as_stored(request.user_agent),
            operation_name=self.operation_name,
            request_id=request.request_id,
            before=None,
            after=self.told,
        )


async def all_audit_events(
    info: Info,
    filter: AuditEventFilter | None = UNSET,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[AuditEvent]:
    args = PageArgs.of(first, after, last, before, filter=filter)
    async with info.context.db.reading() as session:
        return await audit.listed(session, args)


async def verify(info: Info, range: TimeRangeInput | None = UNSET) -> Verification:
    since, until = (None, None) if range is None else (range.from_, range.to)
    async with info.context.db.reading() as session:
        return await audit.verify(session, since, until)
