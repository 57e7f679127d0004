"""Doing a thing once, however often it is asked for: a repeated call with the same key answers as the first did.

    known = await recall(session, actor, "createDataset", input.idempotency_key, input)
    if known is not None:
        return made_before(await datasets.by_ids(session, [known]), known)
    made = ...
    await remember(session, actor, "createDataset", input.idempotency_key, input, made.id)

A key belongs to one caller and one mutation, and counts for 24 hours. Both calls are made in the transaction that does
the thing; of two callers with one key the second waits for the first.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

import orjson

from auth.principals import Principal
from db import idempotency
from db.database import Session
from domain.refusals import ErrorCode, Invalid, NotFound, Refused
from domain.texts import checked_text

_PATH = ("input", "idempotencyKey")
_MAX_LENGTH = 255
RowT = TypeVar("RowT")


async def recall(session: Session, actor: Principal, mutation: str, key: str | None, input: Any) -> UUID | None:
    """What the first call with this key made, or None when this is the first, or there is no key.

    Raises `Refused(IDEMPOTENCY_MISMATCH)` when the first call with this key asked for something else.
    """
    if key is None:
        return None
    checked_text(key, *_PATH, max_length=_MAX_LENGTH)
    known = await idempotency.lock_and_find(session, actor.user_id, mutation, key)
    if known is None:
        return None
    if known.input_digest != _digest(input):
        raise Refused(
            Invalid(
                code=ErrorCode.IDEMPOTENCY_MISMATCH,
                message="This idempotency key was used for another input in the last 24 hours. Take a new one.",
                path=_PATH,
            )
        )
    return known.result_id


def made_before(found: Mapping[UUID, RowT], known: UUID) -> RowT:
    """What the first call made. Raises `Refused` when it was deleted since, or the caller sees it no more."""
    if known not in found:
        message = "What this key made is not there any more. Take a new key to make another one."
        raise Refused(NotFound(message=message, path=_PATH))
    return found[known]


async def remember(
    session: Session, actor: Principal, mutation: str, key: str | None, input: Any, result_id: UUID
) -> None:
    """Keep what a call with this key made, in the transaction that makes it. Without a key there is nothing to keep."""
    if key is not None:
        await idempotency.remember(
            session, actor.user_id, mutation, key, input_digest=_digest(input), result_id=result_id
        )


def _digest(input: Any) -> bytes:
    """SHA-256 of an input object or of any JSON value, whatever the order of its keys."""
    try:
        written = orjson.dumps(input, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a text that is no Unicode
        written = ascii(input).encode()
    return hashlib.sha256(written).digest()
