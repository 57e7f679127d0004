"""From one operation of a valid document to a plan.

Fields are collected and arguments coerced by graphql-core's own functions, so the two agree on them. A plan holds
nothing of a request: it is compiled for a choice of `@skip` and `@include`, which is all that it knows of variables.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from enum import Enum
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any
from uuid import UUID

from graphql import (
    ExecutionResult,
    FieldNode,
    GraphQLAbstractType,
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    OperationType,
    VariableNode,
    is_abstract_type,
    is_leaf_type,
)
from graphql.execution import Executor
from graphql.execution.collect_fields import FieldDetails, GroupedFieldSet, collect_fields, collect_subfields
from graphql.execution.values import VariableValues, get_argument_values
from graphql.language import DirectiveNode, Node
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField

from plans.declared import Derived, Guards, Readies, Relation, rows_shown_by, value_of
from plans.leaves import Leaf
from plans.run import Jobs, Run, Site
from plans.selection import Plain, Selection
from plans.shapes import AnyOf, Bubble, ListOf, ObjectOf, Shape
from plans.steps import Given, ReadStep, RelationStep, ResolverStep, Step

MAX_FIELDS = 600
"""Of one plan, each field once for each type that it is selected on."""
MAX_CHOICES = 16
"""Plans of one operation: choices of its flags."""

_IMMUTABLE = (type(None), bool, int, float, str, Enum, UUID, date, timedelta)
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unplanned(Exception):
    """graphql-core should run this operation."""


class Plan:
    """One operation under one choice of its flags."""

    __slots__ = ("_mutates", "_root")

    def __init__(self, root: Selection, *, mutates: bool) -> None:
        self._root, self._mutates = root, mutates

    async def execute(self, executor: Executor[Any]) -> ExecutionResult:
        run = Run(executor)
        rows = [executor.root_value]
        kinds = {type(executor.root_value)}
        (out,) = self._root.objects(rows, kinds, run)
        if self._mutates:
            await self._one_by_one(rows, out, run)
        else:
            jobs: Jobs = []
            for step in self._root.steps:
                step.start(rows, [out], [None], run, jobs)
            await run.drain(jobs)
        if not run.unsettled:
            return ExecutionResult(out, None)
        try:
            data: dict[str, Any] | None = self._root.settled(out, [], run)
        except Bubble as bubble:
            run.errors.append(bubble.error)
            data = None
        return ExecutionResult(data, run.errors or None)

    async def _one_by_one(self, rows: list[Any], out: dict[str, Any], run: Run) -> None:
        """Mutations; one whose failure makes the whole answer null is the last that runs."""
        for step in self._root.steps:
            jobs: Jobs = []
            step.start(rows, [out], [None], run, jobs)
            await run.drain(jobs)
            if run.unsettled and step.shape.non_null and _fails(step, out[step.key], run):
                return


def _fails(step: Step, value: Any, run: Run) -> bool:
    trial = Run(run.executor)
    trial.selections = run.selections
    try:
        step.shape.settle(value, [step.key], trial)
    except Bubble:
        return True
    return False


class Compiler:
    def __init__(self, executor: Executor[Any], flags: VariableValues) -> None:
        self._schema, self._operation = executor.schema, executor.operation
        self._fragments, self._hide = executor.fragments, executor.hide_suggestions
        self._flags = flags
        self._strawberry: Any = executor.schema._strawberry_schema  # type: ignore[attr-defined]
        self._selections: dict[Any, Selection] = {}
        self.fields = 0

    def plan(self) -> Plan:
        """Raises `Unplanned`."""
        kind = self._operation.operation
        root = self._schema.get_root_type(kind)
        if root is None or self._strawberry.config.default_resolver is not value_of:
            raise Unplanned
        fields, deferred, _ = collect_fields(
            self._schema, self._fragments, self._flags, root, self._operation, self._hide
        )
        if deferred:
            raise Unplanned
        return Plan(self._selection(root, fields), mutates=kind is OperationType.MUTATION)

    def _selection(self, type_: GraphQLObjectType, fields: GroupedFieldSet) -> Selection:
        selection = Selection(type_)
        for key, details in fields.items():
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise Unplanned
            nodes = [detail.node for detail in details]
            name = nodes[0].name.value
            if name == "__typename":
                selection.add_constant(key, type_.name)
                continue
            definition = type_.fields.get(name)
            if definition is None:
                raise Unplanned
            self._add(selection, Site(type_, key, nodes, definition))
        return selection.seal()

    def _add(self, selection: Selection, site: Site) -> None:
        shape = self._shape(site, site.definition.type)
        field: StrawberryField | None = site.definition.extensions.get("strawberry-definition")
        subscribes = site.parent is self._schema.subscription_type
        own = None if field is None else _declared(field, subscribes=subscribes)
        if field is None or own is None:
            selection.add_step(ResolverStep(self._given(site), site.key, shape))
            return
        readies, guards = own
        relation, derived = field.metadata.get(Relation), field.metadata.get(Derived)
        if relation is not None:
            given, converted = self._given(site), self._converted(field)
            selection.add_step(RelationStep(relation, given, converted, readies, site.key, shape, guards))
            return
        name = field.python_name
        if field.base_resolver is None:
            if type(shape) is Leaf and not guards and _ATTRIBUTE.fullmatch(name):
                selection.add_plain(site.key, Plain(shape, name, None))
            else:
                selection.add_step(ReadStep(lambda row: value_of(row, name), site.key, shape, guards))
        elif derived is not None and type(shape) is Leaf and not guards:
            selection.add_plain(site.key, Plain(shape, name, derived.value))
        else:
            selection.add_step(ReadStep(field.base_resolver.wrapped_func, site.key, shape, guards))  # type: ignore[arg-type]

    def _shape(self, site: Site, type_: GraphQLOutputType) -> Shape:
        non_null = isinstance(type_, GraphQLNonNull)
        if isinstance(type_, GraphQLNonNull):
            type_ = type_.of_type
        if isinstance(type_, GraphQLList):
            return ListOf(site, non_null, self._shape(site, type_.of_type))
        if is_leaf_type(type_):
            return Leaf(site, non_null, type_)
        if is_abstract_type(type_):
            return self._any_of(site, non_null, type_)
        assert isinstance(type_, GraphQLObjectType)
        return ObjectOf(site, non_null, self._subselection(site, type_))

    def _any_of(self, site: Site, non_null: bool, type_: GraphQLAbstractType) -> AnyOf:
        possible = self._schema.get_possible_types(type_)
        shapes = {one.name: ObjectOf(site, True, self._subselection(site, one)) for one in possible}
        by_class = all(rows_shown_by(one.is_type_of) is not None for one in possible)
        if isinstance(type_, GraphQLInterfaceType):
            definition: Any = type_.extensions.get("strawberry-definition")
            by_class = by_class and definition is not None and definition.resolve_type is None
        return AnyOf(site, non_null, type_, shapes, by_class)

    def _subselection(self, site: Site, type_: GraphQLObjectType) -> Selection:
        identity = (type_, *map(id, site.nodes))  # a fragment that is spread twice is compiled once
        known = self._selections.get(identity)
        if known is None:
            details = [FieldDetails(node, None) for node in site.nodes]
            fields, deferred, _ = collect_subfields(
                self._schema, self._fragments, self._flags, self._operation, type_, details, self._hide
            )
            if deferred:
                raise Unplanned
            known = self._selections[identity] = self._selection(type_, fields)
        return known

    def _given(self, site: Site) -> Given:
        node, definition, hide = site.nodes[0], site.definition, self._hide
        if not definition.args and not node.arguments:
            return lambda run: {}
        if not any(uses_variable(argument.value) for argument in node.arguments or ()):
            try:
                constant = get_argument_values(definition, node, self._flags, None, hide)
            except GraphQLError:
                pass  # each run raises it anew
            else:
                if all(isinstance(value, _IMMUTABLE) for value in constant.values()):
                    return lambda run: constant
        return lambda run: get_argument_values(definition, node, run.executor.variable_values, None, hide)

    def _converted(self, field: StrawberryField) -> Callable[[dict[str, Any]], dict[str, Any]]:
        arguments, config = field.arguments, self._strawberry.config
        registry = self._strawberry.schema_converter.scalar_registry
        return lambda taken: convert_arguments(taken, arguments, scalar_registry=registry, config=config)


def _declared(field: StrawberryField, *, subscribes: bool) -> tuple[list[Readies], list[Guards]] | None:
    """What makes the arguments of a field ready, and its guards, the outermost first.

    None for a field with an ordinary resolver: one that takes more than its row, or has another kind of extension.
    """
    inner: list[Readies] = [extension for extension in field.extensions if isinstance(extension, Readies)]
    outer: list[Guards] = [extension for extension in field.extensions if isinstance(extension, Guards)]
    if [*inner, *outer] != list(field.extensions) or subscribes:
        return None
    if Relation not in field.metadata and field.base_resolver is not None and not _takes_its_row(field):
        return None
    return inner, outer[::-1]


def _takes_its_row(field: StrawberryField) -> bool:
    """Whether the resolver is a function of its row alone."""
    resolver = field.base_resolver
    assert resolver is not None
    if resolver.arguments or resolver.info_parameter is not None or not callable(resolver.wrapped_func):
        return False
    if iscoroutinefunction(resolver.wrapped_func) or isasyncgenfunction(resolver.wrapped_func):
        return False
    row = resolver.self_parameter or resolver.root_parameter or resolver.parent_parameter
    return row is not None and len(resolver.signature.parameters) == 1


class Operation:
    """The plans of one operation."""

    def __init__(self, executor: Executor[Any]) -> None:
        self.weight = 0
        """Fields of all its plans."""
        self._plans: dict[tuple[Any, ...], Plan | None] = {}
        self._flags: set[str] = set()
        self._planned = not executor.operation.directives
        for definition in (executor.operation, *executor.fragment_definitions.values()):
            for node in _nodes(definition):
                if isinstance(node, DirectiveNode):
                    self._planned &= node.name.value in ("skip", "include")
                    self._flags.update(part.name.value for part in _nodes(node) if isinstance(part, VariableNode))
                elif isinstance(node, FieldNode):
                    self._planned &= node.name.value not in ("__schema", "__type")
        self._planned &= not any(fragment.variable_signatures for fragment in executor.fragments.values())

    def plan(self, executor: Executor[Any], *, compile: bool) -> Plan | None:
        """The plan for the flags of this request; None when graphql-core should run it."""
        if not self._planned:
            return None
        coerced = executor.variable_values.coerced
        choice = tuple([coerced.get(name) for name in self._flags])
        if choice not in self._plans:
            if not compile or len(self._plans) >= MAX_CHOICES or not all(type(flag) is bool for flag in choice):
                return None
            sources = executor.variable_values.sources
            flags = VariableValues(
                {name: sources[name] for name in self._flags}, {name: coerced[name] for name in self._flags}
            )
            compiler = Compiler(executor, flags)
            try:
                self._plans[choice] = compiler.plan()
            except (Unplanned, GraphQLError):
                self._plans[choice] = None
            else:
                self.weight += compiler.fields
        return self._plans[choice]


def _nodes(node: Any) -> Iterator[Node]:
    """The node and every node below it."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Node):
            yield one
            waiting.extend(getattr(one, key, None) for key in one.keys if key != "loc")
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)


def uses_variable(node: Any) -> bool:
    return any(isinstance(part, VariableNode) for part in _nodes(node))
