"""How values of a type become JSON: lists, objects, and objects of an abstract type, many at a time.

`places` are the paths of the values. They are None where nothing below depends on where it is; then equal values may
share one result.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphql import FieldNode, GraphQLAbstractType, GraphQLError, located_error
from graphql.execution.collect_fields import FieldDetails
from graphql.execution.executor import invalid_return_type_error
from graphql.pyutils import Undefined, is_iterable

from plans.declared import rows_shown_by
from plans.run import Failure, Jobs, Later, Place, Run, Site, attempt, is_odd

if TYPE_CHECKING:
    from plans.selection import Selection

Keys = list[str | int]


class Bubble(Exception):
    """A null where there must not be one, on its way up; `error` is why."""

    def __init__(self, error: GraphQLError) -> None:
        super().__init__()
        self.error = error


class Shape:
    """A type at a field of the document."""

    __slots__ = ("non_null", "site")
    placed = False
    """Whether anything in here depends on its place."""

    def __init__(self, site: Site, non_null: bool) -> None:
        self.site, self.non_null = site, non_null

    def complete(self, values: Sequence[Any], places: list[Place] | None, run: Run, jobs: Jobs) -> list[Any]:
        """The JSON of each value; what takes longer goes to `jobs`."""
        raise NotImplementedError

    def odd(self, value: Any, place: Place, run: Run) -> Any:
        """The result for a value that is null, an exception, or awaitable."""
        if value is None or value is Undefined:
            if not self.non_null:
                return None
            where = f"{self.site.parent}.{self.site.name}"
            return run.fail(TypeError(f"Cannot return null for non-nullable field {where}."))
        if isinstance(value, Exception):
            return run.fail(value)
        places = [place] if self.placed else None
        return run.later(value, lambda known, jobs: self.complete([known], places, run, jobs)[0])

    def settle(self, value: Any, path: Keys, run: Run) -> Any:
        """`value` without its failures. Raises `Bubble` when there is none and this must not be null."""
        while type(value) is Later:
            value = value.value
        if type(value) is Failure:
            error = located_error(value.error, self.site.nodes, path)
        elif value is None:
            return None
        else:
            try:
                return self.settled(value, path, run)
            except Bubble as bubble:
                error = bubble.error
        if self.non_null:
            raise Bubble(error)
        run.errors.append(error)
        return None

    def settled(self, value: Any, path: Keys, run: Run) -> Any:
        return value


class ListOf(Shape):
    __slots__ = ("item", "placed")

    def __init__(self, site: Site, non_null: bool, item: Shape) -> None:
        super().__init__(site, non_null)
        self.item = item
        self.placed = item.placed

    def complete(self, values: Sequence[Any], places: list[Place] | None, run: Run, jobs: Jobs) -> list[Any]:
        lists: list[Any] = []
        items: list[Any] = []
        inner: list[Place] | None = [] if places is not None and self.placed else None
        for number, value in enumerate(values):
            place = None if places is None else places[number]
            kind = type(value)
            if kind is not list and kind is not tuple:
                value = self._listed(value, place, run)
                if type(value) is not list:
                    lists.append(value)
                    continue
            lists.append(slice(len(items), len(items) + len(value)))
            items.extend(value)
            if inner is not None and place is not None:
                inner.extend([place.add_key(index, None) for index in range(len(value))])
        done = self.item.complete(items, inner, run, jobs) if items else []
        if len(lists) == 1 and len(done) == len(items) and type(lists[0]) is slice:
            return [done]
        return [done[part] if type(part) is slice else part for part in lists]

    def _listed(self, value: Any, place: Place, run: Run) -> Any:
        """The items as a list, or what stands in place of it."""
        kind = type(value)
        if is_odd(kind):
            return self.odd(value, place, run)
        if hasattr(kind, "__aiter__"):
            places = [place] if self.placed else None
            return run.later(_drawn(value), lambda items, jobs: self.complete([items], places, run, jobs)[0])
        if not is_iterable(value):
            where = f"{self.site.parent}.{self.site.name}"
            return run.fail(GraphQLError(f"Expected Iterable, but did not find one for field '{where}'."))
        try:
            return list(value)
        except Exception as error:
            return run.fail(error)

    def settled(self, value: Any, path: Keys, run: Run) -> Any:
        return [self.item.settle(item, [*path, index], run) for index, item in enumerate(value)]


async def _drawn(items: Any) -> list[Any]:
    return [item async for item in items]


class ObjectOf(Shape):
    __slots__ = ("placed", "rows", "selection")

    def __init__(self, site: Site, non_null: bool, selection: "Selection") -> None:
        super().__init__(site, non_null)
        self.selection = selection
        is_type_of = selection.type.is_type_of
        self.rows = (object,) if is_type_of is None else rows_shown_by(is_type_of)
        self.placed = selection.placed or self.rows is None

    def complete(self, values: Sequence[Any], places: list[Place] | None, run: Run, jobs: Jobs) -> list[Any]:
        kinds = set(map(type, values))
        if self.rows is not None and not any(is_odd(kind) or not issubclass(kind, self.rows) for kind in kinds):
            return self.selection.fill(values, kinds, places, run, jobs)
        results: list[Any] = list(values)
        good: list[int] = []
        for number, value in enumerate(values):
            place = None if places is None else places[number]
            if is_odd(type(value)):
                results[number] = self.odd(value, place, run)
            else:
                shown = self._shows(value, place, run)
                if shown is True:
                    good.append(number)
                else:
                    results[number] = shown
        if good:
            rows = [values[number] for number in good]
            where = None if places is None else [places[number] for number in good]
            outs = self.selection.fill(rows, set(map(type, rows)), where, run, jobs)
            for number, out in zip(good, outs, strict=True):
                results[number] = out
        return results

    def _shows(self, value: Any, place: Place, run: Run) -> Any:
        """True when the type shows this value; else what stands in its place."""
        try:
            if self.rows is not None:
                answer: Any = issubclass(type(value), self.rows)
            else:
                assert self.selection.type.is_type_of is not None
                answer = self.selection.type.is_type_of(value, self.site.info(place, run))
        except Exception as error:
            return run.fail(error)
        if is_odd(type(answer)) and answer is not None:
            return run.later(answer, lambda known, jobs: self._judged(known, value, place, run, jobs))
        return True if answer else self._foreign(value, run)

    def _judged(self, answer: Any, value: Any, place: Place, run: Run, jobs: Jobs) -> Any:
        if isinstance(answer, Exception):
            return run.fail(answer)
        if not answer:
            return self._foreign(value, run)
        return self.selection.fill([value], {type(value)}, [place], run, jobs)[0]

    def _foreign(self, value: Any, run: Run) -> Failure:
        return run.fail(attempt(invalid_return_type_error, self.selection.type, value, _details(self.site.nodes)))

    def settled(self, value: Any, path: Keys, run: Run) -> Any:
        return self.selection.settled(value, path, run)


class AnyOf(Shape):
    """An interface or a union: its objects grouped by their types, each type with a selection of its own."""

    __slots__ = ("_known", "by_class", "of", "placed", "type")

    def __init__(
        self, site: Site, non_null: bool, type_: GraphQLAbstractType, of: Mapping[str, ObjectOf], by_class: bool
    ) -> None:
        """`by_class`: the type of an object follows from its class, so it is asked once a class."""
        super().__init__(site, non_null)
        self.type, self.of, self.by_class = type_, of, by_class
        self.placed = not by_class or any(shape.placed for shape in of.values())
        self._known: dict[type, ObjectOf] = {}

    def complete(self, values: Sequence[Any], places: list[Place] | None, run: Run, jobs: Jobs) -> list[Any]:
        results: list[Any] = list(values)
        groups: dict[ObjectOf, list[int]] = {}
        for number, value in enumerate(values):
            place = None if places is None else places[number]
            kind = type(value)
            shape: Any = self._known.get(kind)
            if shape is None:
                shape = self.odd(value, place, run) if is_odd(kind) else self._shape_of(value, place, run)
                if type(shape) is not ObjectOf:
                    results[number] = shape
                    continue
            groups.setdefault(shape, []).append(number)
        for shape, numbers in groups.items():
            where = None if places is None else [places[number] for number in numbers]
            outs = shape.complete([values[number] for number in numbers], where if shape.placed else None, run, jobs)
            for number, out in zip(numbers, outs, strict=True):
                results[number] = out
                run.selections[id(out)] = shape.selection
        return results

    def _shape_of(self, value: Any, place: Place, run: Run) -> Any:
        """The shape of an object's own type, or what stands in place of the object."""
        try:
            info = self.site.info(place, run)
            name: Any = (self.type.resolve_type or run.executor.type_resolver)(value, info, self.type)
            if is_odd(type(name)) and name is not None:
                return run.later(name, lambda known, jobs: self._named(known, value, place, run, jobs))
            shape = self._of_name(name, value, info, run)
        except Exception as error:
            return run.fail(error)
        if self.by_class and _is_known_by_its_class(type(value)):
            self._known[type(value)] = shape
        return shape

    def _named(self, name: Any, value: Any, place: Place, run: Run, jobs: Jobs) -> Any:
        if isinstance(name, Exception):
            return run.fail(name)
        try:
            shape = self._of_name(name, value, self.site.info(place, run), run)
        except Exception as error:
            return run.fail(error)
        (out,) = shape.complete([value], [place], run, jobs)
        run.selections[id(out)] = shape.selection
        return out

    def _of_name(self, name: Any, value: Any, info: Any, run: Run) -> ObjectOf:
        details = _details(self.site.nodes)
        return self.of[run.executor.ensure_valid_runtime_type(name, self.type, details, info, value).name]

    def settle(self, value: Any, path: Keys, run: Run) -> Any:
        while type(value) is Later:
            selection = run.selections.get(id(value))
            value = value.value
            if selection is not None:
                run.selections[id(value)] = selection
        return super().settle(value, path, run)

    def settled(self, value: Any, path: Keys, run: Run) -> Any:
        return run.selections[id(value)].settled(value, path, run)


def _is_known_by_its_class(kind: type) -> bool:
    """Rows are tuples without attributes of their own: nothing of one row says more than its class does."""
    return issubclass(kind, tuple) and kind.__dictoffset__ == 0 and not hasattr(kind, "__strawberry_definition__")


def _details(nodes: list[FieldNode]) -> list[FieldDetails]:
    return [FieldDetails(node, None) for node in nodes]
