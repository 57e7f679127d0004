"""Identity: primary keys that sort by age, and the global IDs clients see.

A key is a UUIDv7 (RFC 9562, section 5.7). A global ID is `<type>_<32 hex digits>`, for example
`dataset_0198f3c2a1b27c3d8e4f5a6b7c8d9e0f`: it tells its type and works in `node(id:)`.
"""

import os
import re
import time
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

_GLOBAL_ID = re.compile(r"([a-z]+)_([0-9a-f]{32})")


class Kind(StrEnum):
    """The types that have a global ID, by the prefix they carry."""

    USER = "user"
    TEAM = "team"
    ROLE = "role"
    GRANT = "grant"
    PROJECT = "project"
    DATASET = "dataset"
    DATASET_VERSION = "datasetversion"
    COLUMN = "column"
    UPLOAD = "upload"
    RUN = "run"
    ARTIFACT = "artifact"
    MODEL = "model"
    MODEL_VERSION = "modelversion"
    EVALUATION = "evaluation"
    PREDICTION = "prediction"
    BATCH_PREDICTION = "batchprediction"
    SERIES = "series"
    SESSION = "session"
    API_TOKEN = "apitoken"  # noqa: S105
    EVENT = "event"
    AUDIT_EVENT = "audit"


class Identity(NamedTuple):
    kind: Kind
    key: UUID


def new_id() -> UUID:
    """A UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def global_id(kind: Kind, key: UUID) -> str:
    return f"{kind}_{key.hex}"


def identify(text: str) -> Identity | None:
    """What a global ID names, or None when the text is no global ID of ours."""
    found = _GLOBAL_ID.fullmatch(text)
    if found is None or found[1] not in _KINDS:
        return None
    return Identity(Kind(found[1]), UUID(found[2]))


def key_of(text: str, kind: Kind) -> UUID | None:
    """The key behind a global ID of this kind; None for any other text, also for the ID of another type."""
    identity = identify(text)
    return identity.key if identity is not None and identity.kind is kind else None


_KINDS = frozenset(Kind)
