"""The cursors of streams: where a reader is, valid on every server, growing with the stream.

`<8 hex digits of the epoch><16 of the transaction><16 of the number>`: as text they sort as the stream does.
The cursor of a snapshot stands before its oldest running transaction, and names behind a `~` the end and each
transaction that was still running, as distances from that one: `…~5~0~3`.
"""

import re
from uuid import UUID

from db.events import Position
from db.snapshots import Snapshot

_CURSOR = re.compile(r"[0-9a-f]{40}")
_DISTANCES = re.compile(r"(?:~[0-9a-f]{1,12}){1,1000}")


class CursorInvalid(Exception):
    """The text is no cursor of a stream."""


class CursorExpired(Exception):
    """The cursor is from a time before the database was restored."""


def encode(epoch: UUID, position: Position) -> str:
    return f"{epoch.hex[:8]}{position.changed:016x}{position.number:016x}"


def decode(epoch: UUID, cursor: str) -> Position:
    """Raises `CursorInvalid` or `CursorExpired`."""
    if not _CURSOR.fullmatch(cursor):
        raise CursorInvalid(cursor)
    if cursor[:8] != epoch.hex[:8]:
        raise CursorExpired(cursor)
    position = Position(int(cursor[8:24], 16), int(cursor[24:], 16))
    if max(position) >= 2**63:
        raise CursorInvalid(cursor)
    return position


def encode_snapshot(epoch: UUID, snapshot: Snapshot) -> str:
    cursor = encode(epoch, Position(snapshot.xmin, 0))
    if snapshot.xmax == snapshot.xmin:
        return cursor
    return cursor + "".join(f"~{one - snapshot.xmin:x}" for one in (snapshot.xmax, *snapshot.running))


def decode_snapshot(epoch: UUID, cursor: str) -> Snapshot:
    """Raises `CursorInvalid` or `CursorExpired`."""
    position = decode(epoch, cursor[:40])
    if position.number:
        raise CursorInvalid(cursor)
    if len(cursor) == 40:
        return Snapshot.before(position.changed)
    if not _DISTANCES.fullmatch(cursor[40:]):
        raise CursorInvalid(cursor)
    xmax, *running = (position.changed + int(distance, 16) for distance in cursor[41:].split("~"))
    if running != sorted(set(running)) or (running and running[-1] >= xmax):
        raise CursorInvalid(cursor)
    return Snapshot(position.changed, xmax, tuple(running))
