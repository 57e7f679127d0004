"""The audit log's statements."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select

from db.database import Session
from db.ids import new_id
from db.tables import audit_events, users
from db.vocabulary import AuditAction, AuditOutcome


async def append(
    session: Session,
    *,
    action: AuditAction,
    outcome: AuditOutcome,
    user_id: UUID | None,
    actor: str | None,
    ip_address: str | None,
    user_agent: str | None,
    operation_name: str | None,
    request_id: str,
    input: dict[str, Any] | None,
) -> None:
    name = func.coalesce(select(users.c.username).where(users.c.id == user_id).scalar_subquery(), "anonymous")
    await session.run(
        insert(audit_events).values(
            id=new_id(),
            action=action,
            outcome=outcome,
            actor=actor,
            actor_name=name,
            ip_address=ip_address,
            user_agent=user_agent,
            operation_name=operation_name,
            request_id=request_id,
            input=input,
        )
    )
