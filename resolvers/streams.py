"""What the streams about one thing have in common: they end when their reader loses sight of it."""

from auth.permissions import Permission
from auth.principals import Place
from dataloaders import loaders
from db.ids import Identity, Kind
from resolvers.context import Context


async def place_in_sight(context: Context, permission: Permission, kind: Kind, key: object) -> tuple[Place, ...]:
    """Where a thing is whose reader sees it now; nothing when it is not there, or out of sight.

    A stream that began with it hands it to `Context.require` before each look.
    """
    place: Place | None = await loaders.place.load(context, Identity(kind, key))  # type: ignore[arg-type]
    return (place,) if place is not None and context.may(permission, place) else ()
