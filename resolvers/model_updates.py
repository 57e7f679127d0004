"""A model as it changes: itself, its versions, its aliases."""

from collections.abc import AsyncIterator
from typing import NamedTuple
from uuid import UUID

import strawberry
from strawberry import UNSET

from auth.permissions import Permission
from db import events, models
from db.database import Session
from db.events import EventFilter, Position
from db.ids import Kind, key_of
from db.rows import AliasChange, Event, Model
from db.vocabulary import EventType, UpdateKind
from domain.refusals import Refused, not_found
from events import cursors
from events.log import ALL_EVENTS, shown_to
from resolvers.context import Context, Info
from resolvers.events import AT_ONCE, place_after
from resolvers.streams import place_in_sight

_KINDS = {EventType.MODEL_CREATED: UpdateKind.CREATED, EventType.MODEL_DELETED: UpdateKind.DELETED}


class ModelUpdate(NamedTuple):
    """`model` is as it is when this is handed on; null when it is gone."""

    cursor: str
    kind: UpdateKind
    model: Model | None
    alias_change: AliasChange | None


async def model_updated(info: Info, id: strawberry.ID, after: str | None = UNSET) -> AsyncIterator[ModelUpdate]:
    """The model as it is now, or everything after a cursor; then an update for each thing that happens to it, its
    versions or its aliases, until it is deleted. A GAP says that events after the cursor are forgotten."""
    context: Context = info.context
    epoch = context.services.epoch
    key = key_of(id, Kind.MODEL) if context.sees(Permission.MODEL_READ) else None
    seen = await place_after(context, after)
    if key is None:
        raise Refused(not_found("model", id, "id"))
    place = await place_in_sight(context, Permission.MODEL_READ, Kind.MODEL, key)
    with context.watching(ALL_EVENTS) as bell:
        async with context.db.reading() as session:
            head, forgotten = await events.head(session), await events.forgotten(session)
            model = (await models.by_ids(session, [key])).get(key)
        if model is None and seen is None:
            raise Refused(not_found("model", id, "id"))
        if seen is None or (forgotten is not None and seen < forgotten):
            kind = UpdateKind.SNAPSHOT if seen is None else UpdateKind.GAP
            seen = head
            yield ModelUpdate(cursors.encode(epoch, seen), kind, model, None)
        known = model is not None
        while True:
            if place:
                context.require(Permission.MODEL_READ, *place, cursor=cursors.encode(epoch, seen))
            wanted = EventFilter(shown=shown_to(context.principal), resource_id=key)
            async with context.db.reading() as session:
                tail = await events.tail(session)
                found = await events.settled_after(session, seen, wanted, limit=AT_ONCE)
                model = (await models.by_ids(session, [key])).get(key) if found else None
                changes = [await _alias_change(session, key, event) for event in found]
            if not known and not found:
                raise Refused(not_found("model", id, "id"))
            for event, change in zip(found, changes, strict=True):
                known, seen = True, Position(event.changed, event.number)
                kind = _KINDS.get(EventType(event.type), UpdateKind.UPDATED)
                yield ModelUpdate(cursors.encode(epoch, seen), kind, model, change)
                if kind is UpdateKind.DELETED:
                    return
            if len(found) < AT_ONCE:
                seen = max(seen, tail.head)
                await bell.until_next_look(unsettled=tail.unsettled)


async def _alias_change(session: Session, model: UUID, event: Event) -> AliasChange | None:
    if event.type != EventType.MODEL_ALIAS_CHANGED or not event.changes:
        return None
    (alias,) = event.changes
    return await models.alias_change_at(session, model, alias, event.at)
