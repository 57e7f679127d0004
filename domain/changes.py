"""What every change of a thing has in common: which revision it is made to, and what is different afterwards."""

from collections.abc import Mapping
from typing import Any, Protocol

from domain.refusals import Refused, StaleRevision
from domain.texts import checked_text


class Revised(Protocol):
    """A row that counts its changes."""

    @property
    def revision(self) -> int: ...


def at_revision(now: Revised, expected: int | None, what: str) -> None:
    """Raises `Refused` when the thing was changed since the caller read it; None expects nothing."""
    if expected not in (None, now.revision):
        raise Refused(
            StaleRevision(
                message=f"The {what} has been changed: its revision is {now.revision}. Read it again.",
                path=("input", "expectedRevision"),
                current_revision=now.revision,
                current=now,
            )
        )


def named(name: str | None, description: str | None, *, max_name: int = 200) -> dict[str, Any]:
    """The name and the description that are given; None leaves one as it is, an empty description takes it away.

    Raises `Refused`.
    """
    checked_text(name, "input", "name", max_length=max_name)
    checked_text(description or None, "input", "description")
    wanted: dict[str, Any] = {}
    if name is not None:
        wanted["name"] = name
    if description is not None:
        wanted["description"] = description or None
    return wanted


def differing(now: object, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What of it is not so yet."""
    return {field: value for field, value in wanted.items() if value != getattr(now, field)}


def as_told(now: object, changed: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The changes as events tell them: the field's name in the API → what it was, what it is."""
    return {_in_the_api(field): [getattr(now, field), value] for field, value in changed.items()}


def _in_the_api(field: str) -> str:
    first, *others = field.split("_")
    return first + "".join(word.capitalize() for word in others)
