"""What free text has to be before it is stored.

PostgreSQL takes neither the character NUL nor half of a surrogate pair: both are refused here, as input.
"""

from collections.abc import Sequence
from typing import Any

from db.rows import Tags
from domain.refusals import ErrorCode, Invalid, Refused

MAX_DESCRIPTION = 10_000


def checked_text(text: str | None, *path: str, max_length: int = MAX_DESCRIPTION) -> None:
    """Raises `Refused` when a text is blank, too long, or holds what cannot be stored."""
    if text is None:
        return
    if not storable(text):
        raise Refused(
            Invalid(message="This text holds a character that cannot be stored (NUL or half a pair).", path=path)
        )
    if not text.strip():
        raise Refused(Invalid(code=ErrorCode.REQUIRED, message="This text is empty.", path=path))
    if len(text) > max_length:
        raise Refused(
            Invalid(
                code=ErrorCode.TOO_LONG,
                message=f"This text has {len(text)} characters; at most {max_length} are kept.",
                path=path,
                allowed={"maxLength": max_length},
            )
        )


def checked_tags(tags: Tags, *path: str) -> None:
    """Raises `Refused` when a key comes twice, or a text cannot be stored."""
    seen: set[str] = set()
    for number, tag in enumerate(tags):
        if tag["key"] in seen:
            raise Refused(Invalid(message=f"The tag {tag['key']!r} is given twice.", path=(*path, str(number), "key")))
        seen.add(tag["key"])
        for part in ("key", "value"):
            if not storable(tag[part]):
                raise Refused(Invalid(message="This text cannot be stored.", path=(*path, str(number), part)))


def storable(text: str) -> bool:
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def strings(value: object) -> Sequence[str]:
    """Every string inside a JSON value, keys included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (str(key), *strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return []


def as_stored(value: Any, room: int = 64) -> Any:
    """A JSON value that can be stored: a character that cannot be becomes the replacement character, a number of more
    than 64 bits the text of its digits, what is nested more than `room` deep an ellipsis.
    """
    if room == 0:
        return "…"
    if isinstance(value, str):
        return value if storable(value) else "".join(c if storable(c) else "\ufffd" for c in value)
    if isinstance(value, dict):
        return {as_stored(key): as_stored(item, room - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_stored(item, room - 1) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value
