"""What the streams about one thing have in common: they end when their reader loses sight of it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from uuid import UUID

from auth.permissions import Permission
from auth.principals import Place
from dataloaders import loaders
from db.database import RowT, Session
from db.events import Position, State
from db.ids import Identity, Kind, key_of
from db.vocabulary import UpdateKind
from domain.refusals import Refused, not_found
from events import cursors
from resolvers.context import Context
from resolvers.events import place_after


async def place_in_sight(context: Context, permission: Permission, kind: Kind, key: object) -> tuple[Place, ...]:
    """Where a thing is whose reader sees it now; nothing when it is not there, or out of sight.

    A stream that began with it hands it to `Context.require` before each look.
    """
    place: Place | None = await loaders.place.load(context, Identity(kind, key))  # type: ignore[arg-type]
    return (place,) if place is not None and context.may(permission, place) else ()


async def followed(
    context: Context,
    id: str,
    *,
    what: str,
    kind: Kind,
    reads: Permission,
    topic: Callable[[UUID], str],
    read: Callable[[Session, UUID], Awaitable[State[RowT] | None]],
    is_over: Callable[[RowT], bool],
    after: str | None,
) -> AsyncGenerator[tuple[str, UpdateKind, RowT | None], None]:
    """A thing as it is now, then as it changes, until it is over or gone: cursor, kind, and the row unless it is gone.

    `after` leaves out what was seen. Raises `Refused` when there is no such thing to see.
    """
    epoch = context.services.epoch
    key = key_of(id, kind) if context.sees(reads) else None
    seen = await place_after(context, after)
    update = UpdateKind.SNAPSHOT if seen is None else UpdateKind.UPDATED
    if key is None:
        raise Refused(not_found(what, id, "id"))
    place = await place_in_sight(context, reads, kind, key)
    with context.watching(topic(key)) as bell:
        while True:
            if place:
                here = None if seen is None else cursors.encode(epoch, seen)
                context.require(reads, *place, cursor=here)
            async with context.db.reading() as session:
                state = await read(session, key)
            if state is None:
                if seen is None:
                    raise Refused(not_found(what, id, "id"))
                yield cursors.encode(epoch, seen), UpdateKind.DELETED, None
                return
            if state.is_settled:
                if seen is None or state.changed > seen.changed:
                    seen = Position(state.changed, 0)
                    yield cursors.encode(epoch, seen), update, state.row
                    update = UpdateKind.UPDATED
                if is_over(state.row):
                    return
            await bell.until_next_look(unsettled=not state.is_settled)
