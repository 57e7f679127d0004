"""What keeps an installation governable: an administrator stays, and nobody gives what is not theirs."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from auth.permissions import ADMINISTRATOR, Permission
from auth.principals import Place, Principal
from db import grants
from db.database import Session
from db.grants import Given
from domain.refusals import ErrorCode, Invalid, Refused


@asynccontextmanager
async def an_administrator_stays(session: Session, *path: str) -> AsyncIterator[None]:
    """Raises `Refused` when nobody holds the role Administrator everywhere and for good after what the block did.

    Whoever else is in such a block waits for this transaction to end.
    """
    administrators = await grants.lock_administration(session, ADMINISTRATOR)
    yield
    if administrators and not await grants.lock_administration(session, ADMINISTRATOR):
        message = "Nobody would be an administrator for good any more. Make another one first."
        raise Refused(Invalid(code=ErrorCode.LAST_ADMIN, message=message, path=path))


def not_held(actor: Principal, permissions: Iterable[str], place: Place) -> list[Permission]:
    """Those permissions that the actor does not hold at a place and so cannot give there."""
    return sorted(permission for permission in map(Permission, permissions) if not actor.may(permission, place))


def not_theirs_to_give(actor: Principal, given: Sequence[Given], *path: str) -> Invalid | None:
    """Why the actor cannot pass on what some grants give, or None."""
    lacking = sorted({permission for grant in given for permission in not_held(actor, grant.permissions, grant.place)})
    if not lacking:
        return None
    return Invalid(message=f"This gives {', '.join(lacking)} where you do not hold that yourself.", path=path)
