"""Random valid operations over any schema: aliases, fragments, flags, variables, arguments of every kind."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_abstract_type,
    is_composite_type,
    is_required_argument,
    parse,
    validate,
)
from graphql.pyutils import Undefined

Values = Callable[[random.Random, str, str], Any]
"""Draws a value for a scalar: the source of chance, the scalar's name, and the argument's."""


@dataclass
class Drawn:
    document: str
    variables: dict[str, Any]
    name: str | None = None


@dataclass
class Drawing:
    """One operation that is being made up."""

    schema: GraphQLSchema
    chance: random.Random
    scalar: Values
    skipped: frozenset[str]
    room: int
    aliases: int = 0
    variables: dict[str, Any] = field(default_factory=dict)
    declared: list[str] = field(default_factory=list)
    fragments: list[str] = field(default_factory=list)
    reusable: list[tuple[str, str]] = field(default_factory=list)

    def selection(self, type_: Any, depth: int) -> str:
        if depth < 0:
            return "{ __typename }"
        chance = self.chance
        parts: list[str] = []
        fields = {name: one for name, one in getattr(type_, "fields", {}).items() if self._wanted(type_, name, one)}
        for _ in range(chance.choice([1, 2, 3, 4, 6])):
            self.room -= 1
            draw = chance.random()
            if draw < 0.08 or not fields:
                parts.append(self._aliased() + "__typename" + self._flags())
            elif draw < 0.16:
                parts.append(self._inline(type_, depth))
            elif draw < 0.26:
                parts.append(self._spread(type_, depth))
            else:
                name = chance.choice(list(fields))
                made = self._field(name, fields[name], depth)
                if made is not None:
                    parts.append(made)
                    if chance.random() < 0.1:
                        parts.append(made)
        if is_abstract_type(type_) and chance.random() < 0.7:
            parts.extend(self._inline(type_, depth) for _ in range(2))
        return "{ " + " ".join(parts or ["__typename"]) + " }"

    def _wanted(self, type_: Any, name: str, one: Any) -> bool:
        return f"{type_.name}.{name}" not in self.skipped and (
            self.room > 0 or not is_composite_type(get_named_type(one.type))
        )

    def _field(self, name: str, one: Any, depth: int) -> str | None:
        named = get_named_type(one.type)
        if is_composite_type(named) and depth <= 0:
            return None
        arguments = []
        for argument_name, argument in one.args.items():
            if is_required_argument(argument) or self.chance.random() < 0.5:
                arguments.append(
                    f"{argument_name}: {self._value(argument.type, argument_name, argument.default_value)}"
                )
        alias = self._alias() if arguments else self._aliased()
        text = alias + name + (f"({', '.join(arguments)})" if arguments else "") + self._flags()
        return text + (" " + self.selection(named, depth - 1) if is_composite_type(named) else "")

    def _aliased(self) -> str:
        return self._alias() if self.chance.random() < 0.5 else ""

    def _alias(self) -> str:
        self.aliases += 1
        return f"a{self.aliases}: "

    def _flags(self) -> str:
        draw = self.chance.random()
        if draw > 0.12:
            return ""
        flag = self.chance.choice(["true", "false", "variable", "variable"])
        if flag == "variable":
            flag = self._variable("Boolean!", self.chance.random() < 0.5)
        return f" @{self.chance.choice(['skip', 'include'])}(if: {flag})"

    def _narrowed(self, type_: Any) -> Any:
        """A type that a fragment on `type_` may be about."""
        if is_abstract_type(type_):
            return self.chance.choice([type_, *self.schema.get_possible_types(type_)])
        if isinstance(type_, GraphQLObjectType) and type_.interfaces and self.chance.random() < 0.5:
            return self.chance.choice(type_.interfaces)
        return type_

    def _inline(self, type_: Any, depth: int) -> str:
        narrowed = self._narrowed(type_)
        on = f" on {narrowed.name}" if narrowed is not type_ or self.chance.random() < 0.7 else ""
        return f"...{on}{self._flags()} {self.selection(narrowed, depth - 1)}"

    def _spread(self, type_: Any, depth: int) -> str:
        known = [name for name, on in self.reusable if on == type_.name]
        if known and self.chance.random() < 0.6:
            return f"...{self.chance.choice(known)}{self._flags()}"
        narrowed = self._narrowed(type_)
        body = self.selection(narrowed, depth - 1)
        name = f"F{len(self.fragments)}"
        self.fragments.append(f"fragment {name} on {narrowed.name} {body}")
        self.reusable.append((name, type_.name))
        return f"...{name}{self._flags()}"

    def _value(self, type_: GraphQLInputType, name: str, default: Any) -> str:
        if self.chance.random() < 0.4:
            value = self.plain(type_, name)
            if value is not Undefined:
                return self._variable(str(type_), value)
        return self.literal(type_, name)

    def _variable(self, type_: str, value: Any) -> str:
        name = f"v{len(self.declared)}"
        default = ""
        draw = self.chance.random()
        if draw < 0.15 and isinstance(value, (bool, int)) and type_.strip("!") in ("Boolean", "Int"):
            default = f" = {json.dumps(value)}"
        elif draw < 0.3 and not type_.endswith("!"):
            self.declared.append(f"${name}: {type_}")
            return f"${name}"
        self.declared.append(f"${name}: {type_}{default}")
        if not default or self.chance.random() < 0.5:
            self.variables[name] = value
        return f"${name}"

    def plain(self, type_: GraphQLInputType, name: str, deep: int = 0) -> Any:
        """A value as JSON has it."""
        if isinstance(type_, GraphQLNonNull):
            value = self.plain(type_.of_type, name, deep)
            while value is None:
                value = self.plain(type_.of_type, name, deep)
            return value
        if self.chance.random() < 0.1:
            return None
        if isinstance(type_, GraphQLList):
            return [
                self.plain(type_.of_type, name, deep + 1) for _ in range(self.chance.randrange(3) if deep < 3 else 0)
            ]
        if isinstance(type_, GraphQLEnumType):
            return self.chance.choice(list(type_.values))
        if isinstance(type_, GraphQLInputObjectType):
            if type_.is_one_of:
                chosen = self.chance.choice(list(type_.fields))
                return {chosen: self.plain(GraphQLNonNull(type_.fields[chosen].type), chosen, deep + 1)}
            return {
                key: self.plain(one.type, key, deep + 1)
                for key, one in type_.fields.items()
                if isinstance(one.type, GraphQLNonNull) or self.chance.random() < 0.5 / (deep + 1)
            }
        return self.scalar(self.chance, type_.name, name)  # type: ignore[union-attr]

    def literal(self, type_: GraphQLInputType, name: str) -> str:
        return self._written(type_, self.plain(type_, name))

    def _written(self, type_: Any, value: Any) -> str:
        if value is None:
            return "null"
        if isinstance(type_, GraphQLNonNull):
            return self._written(type_.of_type, value)
        if isinstance(type_, GraphQLList):
            return "[" + ", ".join(self._written(type_.of_type, item) for item in value) + "]"
        if isinstance(type_, GraphQLEnumType):
            return str(value)
        if isinstance(type_, GraphQLInputObjectType):
            return (
                "{"
                + ", ".join(f"{key}: {self._written(type_.fields[key].type, one)}" for key, one in value.items())
                + "}"
            )
        return _json(value)


def _json(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_json(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value)


def operation(
    schema: GraphQLSchema,
    chance: random.Random,
    scalar: Values,
    *,
    kinds: Sequence[str] = ("query",),
    skipped: frozenset[str] = frozenset(),
    depth: int = 5,
    room: int = 40,
) -> Drawn:
    """Fields named in `skipped`, as `Type.field`, are left out."""
    while True:
        kind = chance.choice(kinds)
        drawing = Drawing(schema, chance, scalar, skipped, room)
        root = {"query": schema.query_type, "mutation": schema.mutation_type, "subscription": schema.subscription_type}[
            kind
        ]
        if kind == "subscription":
            assert root is not None
            body = None
            while body is None:
                name = chance.choice(list(root.fields))
                body = drawing._field(name, root.fields[name], depth)
            body = "{ " + body + " }"
        else:
            body = drawing.selection(root, depth)
        declared = f" ({', '.join(drawing.declared)})" if drawing.declared else ""
        name = chance.choice([None, "Named"]) if not declared else "Named"
        head = f"{kind} {name or ''}{declared} " if name or kind != "query" else ""
        document = "\n".join([head + body, *drawing.fragments])
        if not validate(schema, parse(document)):
            return Drawn(document, drawing.variables)
