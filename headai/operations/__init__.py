"""The GraphQL operations of the main job, one file each, and example variables to run them with.

The explorer opens them as tabs and `headai demo` sends them, so what a user copies is what runs.
In the variables `$project` stands for the ID of the project made last, `$datasetversion` for the last
dataset version, and so on: a dollar sign and the part of an ID before its underscore.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Example:
    operation: str
    step: str
    """What the operation does in the main job, as a short title."""
    tab: bool
    """Whether the explorer opens with it; the others are a click away."""
    variables: dict[str, Any]


@cache
def document(operation: str) -> str:
    """The text of the operation's file, comments included; raises FileNotFoundError for a name there is none of."""
    return (files(__name__) / f"{operation}.graphql").read_text(encoding="utf-8")


def names() -> list[str]:
    return sorted(
        path.name.removesuffix(".graphql") for path in files(__name__).iterdir() if path.name.endswith(".graphql")
    )


@cache
def examples() -> tuple[Example, ...]:
    """The steps of the main job in their order, with the variables the explorer's tabs open with."""
    entries = json.loads((files(__name__) / "examples.json").read_text(encoding="utf-8"))
    return tuple(Example(**entry) for entry in entries)
