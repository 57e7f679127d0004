"""What happened: by page, and as it happens.

A reader holds nothing but its place in the log and reads on from there, a few hundred events at a time. So a slow one
costs no memory and loses nothing, and no queue has to overflow.
"""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import NamedTuple

from strawberry import UNSET

from auth.permissions import Permission
from db import events
from db.database import Session
from db.events import EventFilter, Position
from db.ids import Kind, key_of
from db.paging import Page, PageArgs
from db.rows import Event
from db.vocabulary import StreamGapReason
from domain.texts import storable
from events import cursors
from events.cursors import CursorExpired, CursorInvalid
from events.log import ALL_EVENTS, shown_to
from resolvers.context import Context, Info, PermissionRequired
from resolvers.inputs import events as inputs

HEAD = "HEAD"
AT_ONCE = 200


class CaughtUp(NamedTuple):
    cursor: str


class Gap(NamedTuple):
    from_cursor: str | None
    to_cursor: str
    reason: StreamGapReason
    missed_at_least: int | None


async def page(
    info: Info,
    filter: inputs.EventFilter | None = UNSET,
    first: int | None = UNSET,
    after: str | None = UNSET,
    last: int | None = UNSET,
    before: str | None = UNSET,
) -> Page[Event]:
    """Oldest first. A cursor from before what is still kept is `CursorExpired`: events after it are gone."""
    context = info.context
    args = PageArgs.of(first, after, last, before)
    wanted = _wanted(context, filter)
    async with context.db.reading() as session:
        position = None
        if args.cursor is not None:
            position = await place_of(context, session, args.cursor)
            forgotten = await events.forgotten(session)
            if forgotten is not None and position < forgotten:
                raise CursorExpired(args.cursor)
        if args.backward:
            found = await events.settled_before(session, position, wanted, limit=args.limit + 1)
        else:
            found = await events.settled_after(session, position or Position(0, 0), wanted, limit=args.limit + 1)
    more, kept = len(found) > args.limit, found[: args.limit]
    if args.backward:
        kept.reverse()
    return Page(
        nodes=kept,
        cursors=[partial(cursor_of, context, event) for event in kept],
        has_next_page=position is not None if args.backward else more,
        has_previous_page=more if args.backward else position is not None,
    )


async def stream(
    info: Info, filter: inputs.EventFilter | None = UNSET, after: str | None = HEAD
) -> AsyncIterator[Event | CaughtUp | Gap]:
    """Everything after a cursor, or from now on: the backlog, then `CaughtUp` once, then each event as it settles."""
    context = info.context
    epoch = context.services.epoch
    rights = context.principal
    with context.watching(ALL_EVENTS) as bell:
        async with context.db.reading() as session:
            asked = None if after is None or after == HEAD else await place_of(context, session, after)
            head, forgotten = await events.head(session), await events.forgotten(session)
        place = asked or head
        if forgotten is not None and place < forgotten:
            place = forgotten
            yield Gap(after, cursors.encode(epoch, place), StreamGapReason.RETENTION, None)
        caught_up = False
        while True:
            if context.principal is not rights:
                here = cursors.encode(epoch, place)
                if shown_to(rights) and not shown_to(context.principal):
                    raise PermissionRequired(Permission.PROJECT_READ, here)
                rights = context.principal
                yield Gap(here, here, StreamGapReason.PERMISSION_CHANGED, None)
            async with context.db.reading() as session:
                tail = await events.tail(session)
                found = await events.settled_after(session, place, _wanted(context, filter), limit=AT_ONCE)
            for event in found:
                if context.principal is not rights:
                    break
                place = Position(event.changed, event.number)
                yield event
            if len(found) == AT_ONCE or context.principal is not rights:
                continue
            place = max(place, tail.head)
            if not caught_up:
                caught_up = True
                yield CaughtUp(cursors.encode(epoch, place))
            await bell.until_next_look(unsettled=tail.unsettled)


async def place_of(context: Context, session: Session, cursor: str) -> Position:
    """The place in a stream that a cursor names. Raises `CursorInvalid`, also for one to come, or `CursorExpired`."""
    place = cursors.decode(context.services.epoch, cursor)
    if place.changed > (await events.head(session)).changed:
        raise CursorInvalid(cursor)
    return place


async def place_after(context: Context, after: str | None) -> Position | None:
    """`place_of` a stream's argument `after`, where it is given."""
    if after is None:
        return None
    async with context.db.reading() as session:
        return await place_of(context, session, after)


def _wanted(context: Context, given: inputs.EventFilter | None) -> EventFilter:
    """What was asked for, of what the caller may see now."""
    shown = shown_to(context.principal)
    if given is None:
        return EventFilter(shown=shown)
    projects = given.project_ids
    return EventFilter(
        shown=shown,
        types=given.types,
        project_ids=None if projects is None else [key for text in projects if (key := key_of(text, Kind.PROJECT))],
        subject_ids=_texts(given.subject_ids),
        actors=_texts(given.actor_ids),
    )


def _texts(given: Sequence[str] | None) -> list[str] | None:
    return None if given is None else [text for text in given if storable(text)]


def cursor_of(context: Context, event: Event) -> str:
    return cursors.encode(context.services.epoch, Position(event.changed, event.number))


def cursor(root: Event, info: Info) -> str:
    return cursor_of(info.context, root)
