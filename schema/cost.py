"""What a document costs at most, from `@cost` and `@listSize` as the schema prints them.

An object costs 1 and a leaf 0, unless `@cost` says otherwise; a list costs what one element costs, times its size. The
size comes from the arguments that `@listSize` names, and is a page where none of them is given. Where the sized field
is a connection, the size is that of the lists directly in it: `nodes` and `edges`. A list without `@listSize` counts
once, and of the types that a union or an interface may be the dearest counts. An operation costs at least 1.

A document is priced once, when it is first met: to a number, or, where variables slice lists, to a `Sum` that is worked
out with the variables of a request.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Union

from graphql import (
    FieldNode,
    GraphQLCompositeType,
    GraphQLNamedType,
    GraphQLSchema,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    OperationDefinitionNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_composite_type,
    is_list_type,
)
from strawberry import UNSET

from schema.directives import Cost, ListSize

PAGE = 25
"""Elements of a page when no argument says how many."""
LARGEST = 100
"""No list is longer: an argument that asks for more is refused with an error of its own."""


class Sliced(NamedTuple):
    """The size of a list whose slicing arguments are variables; the largest counts."""

    known: int | None
    variables: tuple[str, ...]


Size = int | Sliced
Price = Union[int, "Sum"]


@dataclass(frozen=True, eq=False, slots=True)
class Sum:
    """`fixed`, and every size times its price, and of every group of prices the highest."""

    fixed: int
    products: tuple[tuple[Size, Price], ...] = ()
    highest: tuple[tuple[Price, ...], ...] = ()


def plus(*prices: Price) -> Price:
    fixed = sum(price for price in prices if isinstance(price, int))
    sums = tuple((1, price) for price in prices if isinstance(price, Sum))
    return Sum(fixed, sums) if sums else fixed


def times(size: Size, price: Price) -> Price:
    if price == 0:
        return 0
    if isinstance(size, int) and isinstance(price, int):
        return size * price
    return Sum(0, ((size, price),))


def highest(prices: Iterable[Price]) -> Price:
    given = tuple(prices)
    if all(isinstance(price, int) for price in given):
        return max((price for price in given if isinstance(price, int)), default=0)
    return Sum(0, (), (given,))


def worked_out(price: Price, variables: Mapping[str, Any]) -> int:
    """The price of an operation with these variables, each part of it worked out once however often it is used."""
    known: dict[int, int] = {}

    def value(part: Price) -> int:
        if isinstance(part, int):
            return part
        if id(part) not in known:
            known[id(part)] = (
                part.fixed
                + sum(_size(size, variables) * value(inner) for size, inner in part.products)
                + sum(max(map(value, group)) for group in part.highest)
            )
        return known[id(part)]

    return max(1, value(price))


def _size(size: Size, variables: Mapping[str, Any]) -> int:
    if isinstance(size, int):
        return size
    given = [size.known, *(_length(variables.get(name)) for name in size.variables)]
    return max((number for number in given if number is not None), default=PAGE)


def _length(value: Any) -> int | None:
    """The size that the value of an argument stands for; None when it says nothing, or nothing that can be read."""
    match value:
        case bool() | None:
            return None
        case int() | float():
            return int(min(max(value, 0), LARGEST)) if value == value else None
        case list():
            return min(len(value), LARGEST)
        case str():
            return 1
    return None


def _literal(node: ValueNode) -> int | None:
    match node:
        case IntValueNode():
            return _length(int(node.value)) if len(node.value) < 12 else LARGEST
        case ListValueNode():
            return min(len(node.values), LARGEST)
        case NullValueNode():
            return None
    return 1


def defaults_of(operation: OperationDefinitionNode) -> dict[str, Any]:
    """The sizes that the defaults of an operation's variables stand for."""
    given = (
        (definition.variable.name.value, definition.default_value)
        for definition in operation.variable_definitions or ()
    )
    return {name: _literal(node) for name, node in given if node is not None}


class Tag(NamedTuple):
    """What the schema says of a field's price; `type` is None for a leaf."""

    weight: int
    slicing: tuple[str, ...]
    is_list: bool
    type: GraphQLCompositeType | None

    def size(self, node: FieldNode) -> Size:
        """How long the list is, or the lists in the connection."""
        if not self.slicing:
            return 1
        known: list[int] = []
        variables: list[str] = []
        for argument in node.arguments or ():
            if argument.name.value not in self.slicing:
                continue
            if isinstance(argument.value, VariableNode):
                variables.append(argument.value.name.value)
            else:
                length = _literal(argument.value)
                if length is not None:
                    known.append(length)
        if variables:
            return Sliced(max(known, default=None), tuple(variables))
        return max(known, default=PAGE)


class Tags:
    """The price tags of a schema."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._fields: dict[str, dict[str, Tag]] = {}
        for type_ in schema.type_map.values():
            if not type_.name.startswith("__"):
                fields = getattr(type_, "fields", {}) if is_composite_type(type_) else {}
                self._fields[type_.name] = {name: _tag(field) for name, field in fields.items()}

    def of(self, parent: GraphQLNamedType | None, field: str) -> Tag | None:
        """None for a field that is not there: the validation refuses it."""
        return None if parent is None else self._fields.get(parent.name, {}).get(field)


def _tag(field: Any) -> Tag:
    named = get_named_type(field.type)
    composite = named if is_composite_type(named) else None
    weight = int(composite is not None)
    slicing: tuple[str, ...] = ()
    definition = field.extensions.get("strawberry-definition")
    for directive in definition.directives or () if definition is not None else ():
        if isinstance(directive, Cost):
            weight = int(directive.weight)
        elif isinstance(directive, ListSize) and directive.slicing_arguments is not UNSET:
            slicing = tuple(directive.slicing_arguments or ())
    return Tag(weight, slicing, is_list_type(get_nullable_type(field.type)), composite)


@cache
def tags_of(schema: GraphQLSchema) -> Tags:
    return Tags(schema)
