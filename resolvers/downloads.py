"""Links by which whoever holds them downloads an object straight from the store, for a while."""

from datetime import datetime, timedelta
from typing import NamedTuple

from domain.refusals import ErrorCode, Invalid, Refused
from resolvers.context import Context
from resolvers.inputs.scalars import show_duration
from storage.signing import LONGEST_LIFE, SHORTEST_LIFE

USUAL = timedelta(minutes=15)


class Download(NamedTuple):
    """A signed URL, and what the bytes behind it are."""

    url: str
    expires_at: datetime
    sha256: str | None
    size_bytes: int | None


def signed(
    context: Context,
    key: str,
    expires_in: timedelta | None,
    *,
    file_name: str,
    content_type: str,
    sha256: str | None,
    size_bytes: int | None,
) -> Download:
    """Sign a download of the object `key`. Raises `Refused` for a life the store would not grant."""
    life = USUAL if expires_in is None else expires_in
    if not SHORTEST_LIFE <= life <= LONGEST_LIFE:
        raise Refused(
            Invalid(
                code=ErrorCode.OUT_OF_RANGE,
                message=f"A link lives between {show_duration(SHORTEST_LIFE)} and {show_duration(LONGEST_LIFE)}.",
                path=("expiresIn",),
            )
        )
    request = context.services.store.sign_get(key, expires_in=life, file_name=file_name, content_type=content_type)
    return Download(request.url, request.expires_at, sha256, size_bytes)
