"""How large a document is, told in one linear pass before it is validated.

Validation is super-linear in the size of a document, and fragments let a few hundred bytes say what would fill pages.
So each fragment is measured once, and what it measures is counted wherever it is spread.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

from resolvers.context import Limits

MAX_TOKENS = 1000
MAX_OPERATIONS = 20
_INTROSPECTION = frozenset({"__schema", "__type"})


@dataclass(slots=True)
class Size:
    """Levels of fields below each other, and fields with an alias, fragments counted as often as they are spread."""

    depth: int = 0
    aliases: int = 0

    def beside(self, other: "Size") -> None:
        self.depth = max(self.depth, other.depth)
        self.aliases += other.aliases


def excess(document: DocumentNode, limits: Limits) -> str | None:
    """Why a document is too large, in words; None when it is not."""
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if len(operations) > MAX_OPERATIONS:
        return f"The document has {len(operations)} operations; at most {MAX_OPERATIONS} are taken."
    measured: dict[str, Size] = {}
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    for name in _innermost_first(fragments):
        measured[name] = _size(fragments[name].selection_set, measured)
    for operation in operations:
        size = _size(operation.selection_set, measured)
        if size.depth > limits.max_depth:
            return f"The operation is {size.depth} levels deep; at most {limits.max_depth} are taken."
        if size.aliases > limits.max_aliases:
            return f"The operation has {size.aliases} aliases; at most {limits.max_aliases} are taken."
    return None


def _size(selections: SelectionSetNode | None, fragments: dict[str, Size]) -> Size:
    """The size of a selection; a fragment that is unknown, or spreads itself, is for the validation to refuse."""
    size = Size()
    for node in selections.selections if selections else ():
        match node:
            case FieldNode():
                introspection = node.name.value in _INTROSPECTION
                inner = Size() if introspection else _size(node.selection_set, fragments)
                size.beside(Size(inner.depth + 1, inner.aliases + (node.alias is not None)))
            case InlineFragmentNode():
                size.beside(_size(node.selection_set, fragments))
            case FragmentSpreadNode():
                size.beside(fragments.get(node.name.value, Size()))
    return size


def _innermost_first(fragments: dict[str, FragmentDefinitionNode]) -> Iterator[str]:
    """Every fragment after those that it spreads."""
    done: set[str] = set()
    for start in fragments:
        waiting = [(start, False)]
        while waiting:
            name, spread = waiting.pop()
            if spread:
                yield name
            elif name in fragments and name not in done:
                done.add(name)
                waiting.append((name, True))
                waiting.extend((inner, False) for inner in _spreads(fragments[name].selection_set))


def _spreads(selections: SelectionSetNode | None) -> Iterator[str]:
    for node in selections.selections if selections else ():
        if isinstance(node, FragmentSpreadNode):
            yield node.name.value
        elif isinstance(node, (FieldNode, InlineFragmentNode)):
            yield from _spreads(node.selection_set)
