"""Telling what happened, in the transaction that makes it happen: never lost, never invented."""

from typing import Any
from uuid import UUID

import structlog

from auth.permissions import Permission
from auth.principals import Principal
from db import events
from db.database import Session, Touched
from db.events import Shown
from db.ids import Kind, global_id
from db.vocabulary import EventType

ALL_EVENTS = "events"

SUBJECTS: dict[EventType, Kind] = {
    EventType.PROJECT_CREATED: Kind.PROJECT,
    EventType.PROJECT_UPDATED: Kind.PROJECT,
    EventType.PROJECT_DELETED: Kind.PROJECT,
    EventType.DATASET_CREATED: Kind.DATASET,
    EventType.DATASET_UPDATED: Kind.DATASET,
    EventType.DATASET_DELETED: Kind.DATASET,
    EventType.DATASET_VERSION_CREATED: Kind.DATASET_VERSION,
    EventType.DATASET_VERSION_READY: Kind.DATASET_VERSION,
    EventType.DATASET_VERSION_FAILED: Kind.DATASET_VERSION,
    EventType.RUN_CREATED: Kind.RUN,
    EventType.RUN_STARTED: Kind.RUN,
    EventType.RUN_SUCCEEDED: Kind.RUN,
    EventType.RUN_FAILED: Kind.RUN,
    EventType.RUN_CANCELED: Kind.RUN,
    EventType.RUN_LOST: Kind.RUN,
    EventType.RUN_RETRIED: Kind.RUN,
    EventType.MODEL_CREATED: Kind.MODEL,
    EventType.MODEL_UPDATED: Kind.MODEL,
    EventType.MODEL_DELETED: Kind.MODEL,
    EventType.MODEL_VERSION_CREATED: Kind.MODEL_VERSION,
    EventType.MODEL_ALIAS_CHANGED: Kind.MODEL,
    EventType.BATCH_PREDICTION_FINISHED: Kind.BATCH_PREDICTION,
    EventType.USER_CREATED: Kind.USER,
    EventType.USER_UPDATED: Kind.USER,
    EventType.USER_DELETED: Kind.USER,
    EventType.SESSION_REVOKED: Kind.USER,
    EventType.ROLE_CHANGED: Kind.ROLE,
    EventType.GRANT_CREATED: Kind.GRANT,
    EventType.GRANT_REVOKED: Kind.GRANT,
}


READS: dict[Kind, Permission] = {
    Kind.PROJECT: Permission.PROJECT_READ,
    Kind.DATASET: Permission.DATASET_READ,
    Kind.DATASET_VERSION: Permission.DATASET_READ,
    Kind.RUN: Permission.RUN_READ,
    Kind.MODEL: Permission.MODEL_READ,
    Kind.MODEL_VERSION: Permission.MODEL_READ,
    Kind.BATCH_PREDICTION: Permission.MODEL_READ,
    Kind.USER: Permission.USER_READ,
    Kind.ROLE: Permission.ROLE_READ,
    Kind.GRANT: Permission.GRANT_READ,
}
"""What one has to be allowed to read, to see that something happened to it."""


def shown_to(principal: Principal | None) -> Shown:
    """The events that a caller may see somewhere, by the permission that shows them."""
    shown: dict[Permission, list[EventType]] = {}
    for type, kind in SUBJECTS.items():
        if principal is not None and principal.reach(READS[kind]):
            shown.setdefault(READS[kind], []).append(type)
    return shown


async def publish(
    session: Session,
    type: EventType,
    subject: UUID,
    *,
    project_id: UUID | None,
    actor: str | None,
    changes: dict[str, Any] | None = None,
) -> None:
    """Write an event about `subject`, and wake the readers of the log once the transaction has committed.

    `changes` tells field by field what it was and what it is: `{"status": ["RUNNING", "SUCCEEDED"]}`.
    """
    subject_id = global_id(SUBJECTS[type], subject)
    await events.append(
        session,
        type=type,
        project_id=project_id,
        actor=actor,
        subject_id=subject_id,
        resource=(SUBJECTS[type], subject),
        changes=changes,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
    )
    session.topics.add(ALL_EVENTS)
    before, after = ({name: pair[side] for name, pair in changes.items()} if changes else None for side in (0, 1))
    session.touched.append(Touched(subject_id, project_id, before, after))


def user_actor(user_id: UUID) -> str:
    return global_id(Kind.USER, user_id)


def system_actor(component: str) -> str:
    return f"system:{component}"
