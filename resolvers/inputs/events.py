"""Which events are wanted."""

import strawberry
from strawberry import UNSET

from db.vocabulary import EventType


@strawberry.input
class EventFilter:
    types: list[EventType] | None = UNSET
    project_ids: list[strawberry.ID] | None = UNSET
    subject_ids: list[strawberry.ID] | None = UNSET
    actor_ids: list[strawberry.ID] | None = UNSET
