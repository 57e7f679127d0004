"""How large a document is and what it costs, told in one linear pass before it is validated.

Validation is super-linear in the size of a document, and fragments let a few hundred bytes say what would fill pages.
So each fragment is measured once, and what it measures is counted wherever it is spread.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    is_abstract_type,
    is_object_type,
)

from resolvers.context import Limits
from schema.cost import Price, Tags, defaults_of, highest, plus, tags_of, times, worked_out

MAX_TOKENS = 1000
MAX_OPERATIONS = 20
MAX_REPEATS = 20
MAX_DIRECTIVES = 8
_INTROSPECTION = frozenset({"__schema", "__type"})


class TooLarge(Exception):
    """A document asks for too much; the message says of what."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What each operation of a document costs, by name; an operation without one is the only one."""

    prices: Mapping[str | None, Price]
    defaults: Mapping[str | None, Mapping[str, Any]]

    def cost(self, operation: str | None, variables: Mapping[str, Any] | None) -> int:
        name = operation if operation in self.prices else next(iter(self.prices))
        price = self.prices[name]
        if isinstance(price, int):
            return max(1, price)
        return worked_out(price, {**self.defaults[name], **(variables or {})})


@dataclass(slots=True)
class Size:
    """Of a selection, fragments counted as often as they are spread.

    `depth`: levels of fields below each other. `keys`: how often each response key is selected. `once` is what it
    costs, but for the lists directly in it that have no size of their own: one element of all these costs `each`.
    """

    depth: int = 0
    aliases: int = 0
    keys: dict[str, int] = field(default_factory=dict)
    once: Price = 0
    each: Price = 0

    def beside(self, other: "Size") -> None:
        self.depth = max(self.depth, other.depth)
        self.aliases += other.aliases
        for key, count in other.keys.items():
            self.keys[key] = self.keys.get(key, 0) + count
            if self.keys[key] > MAX_REPEATS:
                raise TooLarge(f"The document selects `{key[:40]}` more than {MAX_REPEATS} times in one place.")


def measured(document: DocumentNode, schema: GraphQLSchema, limits: Limits) -> Measured:
    """What the operations of a document cost. Raises `TooLarge`."""
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if len(operations) > MAX_OPERATIONS:
        raise TooLarge(f"The document has {len(operations)} operations; at most {MAX_OPERATIONS} are taken.")
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    measuring = _Measuring(schema)
    for name in _innermost_first(fragments):
        node = fragments[name]
        _few_directives(node)
        measuring.fragments[name] = (
            node.type_condition.name.value,
            measuring.size(node.selection_set, measuring.type_named(node.type_condition.name.value)),
        )
    prices: dict[str | None, Price] = {}
    for operation in operations:
        _few_directives(operation)
        size = measuring.size(operation.selection_set, schema.get_root_type(operation.operation))
        if size.depth > limits.max_depth:
            raise TooLarge(f"The operation is {size.depth} levels deep; at most {limits.max_depth} are taken.")
        if size.aliases > limits.max_aliases:
            raise TooLarge(f"The operation has {size.aliases} aliases; at most {limits.max_aliases} are taken.")
        prices[operation.name.value if operation.name else None] = plus(size.once, size.each)
    return Measured(prices, {node.name.value if node.name else None: defaults_of(node) for node in operations})


class _Measuring:
    """One pass over one document."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._tags: Tags = tags_of(schema)
        self.fragments: dict[str, tuple[str, Size]] = {}

    def type_named(self, name: str) -> GraphQLNamedType | None:
        return self._schema.get_type(name)

    def size(self, selections: SelectionSetNode | None, parent: GraphQLNamedType | None) -> Size:
        """The size of a selection; a fragment that is unknown, or spreads itself, is for the validation to refuse."""
        size = Size()
        once: list[Price] = []
        each: list[Price] = []
        cases: dict[str, list[Price]] = {}
        for node in selections.selections if selections else ():
            _few_directives(node)
            match node:
                case FieldNode():
                    self._add_field(node, parent, size, once, each)
                    continue
                case InlineFragmentNode():
                    condition = node.type_condition.name.value if node.type_condition else None
                    inner = self.size(node.selection_set, self.type_named(condition) if condition else parent)
                case FragmentSpreadNode():
                    condition, inner = self.fragments.get(node.name.value, (None, Size()))
                case _:
                    continue
            size.beside(inner)
            if is_abstract_type(parent) and condition and is_object_type(self.type_named(condition)):
                cases.setdefault(condition, []).append(plus(inner.once, inner.each))
            else:
                once.append(inner.once)
                each.append(inner.each)
        if cases:
            once.append(highest(plus(*prices) for prices in cases.values()))
        size.once, size.each = plus(*once), plus(*each)
        return size

    def _add_field(
        self, node: FieldNode, parent: GraphQLNamedType | None, size: Size, once: list[Price], each: list[Price]
    ) -> None:
        name = node.name.value
        tag = self._tags.of(parent, name)
        if name in _INTROSPECTION:
            inner = Size()
            once.append(1)
            if self.size(node.selection_set, None).aliases or (node.alias and name == "__schema"):
                raise TooLarge(
                    "Introspection takes no aliases, but on `__type`: each would go through the schema again."
                )
        else:
            inner = self.size(node.selection_set, tag.type if tag else None)
        key = node.alias.value if node.alias else name
        size.beside(Size(inner.depth + 1, inner.aliases + (node.alias is not None), {key: 1}))
        if tag is None:
            return
        if not tag.is_list:
            once.append(plus(tag.weight, inner.once, times(tag.size(node), inner.each)))
            return
        element = plus(tag.weight, inner.once, inner.each)
        if tag.slicing:
            once.append(times(tag.size(node), element))
        else:
            each.append(element)


def _few_directives(node: Any) -> None:
    if len(node.directives or ()) > MAX_DIRECTIVES:
        raise TooLarge(f"There are {len(node.directives)} directives in one place; at most {MAX_DIRECTIVES} are taken.")


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
