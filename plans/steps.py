"""What fills the fields that take more than reading a leaf from a row."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from plans.declared import Guards, Readies, Relation, value_of
from plans.run import Failure, Jobs, Place, Run, attempt, drain, is_awaited, outcomes
from plans.shapes import Shape

Given = Callable[[Run], dict[str, Any]]
"""The arguments of a field as graphql-core coerces them."""


class Step:
    """A field; `guards` are asked once for all its rows, the outermost first."""

    def __init__(self, key: str, shape: Shape, guards: Sequence[Guards] = ()) -> None:
        self.key, self.shape, self.guards = key, shape, guards
        self.placed = shape.placed

    def start(
        self, rows: Sequence[Any], outs: list[dict[str, Any]], places: list[Place] | None, run: Run, jobs: Jobs
    ) -> None:
        places = self.shape.site.under(places) if self.placed else None
        denied = self._denied(run)
        if denied is None:
            self.begin(rows, outs, places, run, jobs)
        else:
            self.finish([denied] * len(rows), outs, places, run, jobs)

    def _denied(self, run: Run) -> Exception | None:
        for guard in self.guards:
            denial: Exception | None = attempt(guard.denial, run.context)
            if denial is not None:
                return denial
        return None

    def begin(
        self, rows: Sequence[Any], outs: list[dict[str, Any]], places: list[Place] | None, run: Run, jobs: Jobs
    ) -> None:
        raise NotImplementedError

    def finish(
        self, values: Sequence[Any], outs: list[dict[str, Any]], places: list[Place] | None, run: Run, jobs: Jobs
    ) -> None:
        key, shape = self.key, self.shape
        for out, value in zip(outs, shape.complete(values, places if shape.placed else None, run, jobs), strict=True):
            out[key] = value

    async def wait(self, values: list[Any], outs: list[dict[str, Any]], places: list[Place] | None, run: Run) -> None:
        """Go on when those of the values that are awaitable are there."""
        waiting = [number for number, value in enumerate(values) if is_awaited(type(value))]
        coming: list[Awaitable[Any]] = [values[number] for number in waiting]
        for number, value in zip(waiting, await outcomes(coming), strict=True):
            values[number] = value
        jobs: Jobs = []
        self.finish(values, outs, places, run, jobs)
        await drain(jobs)


class ReadStep(Step):
    """What is read from the row, once a row: an attribute, or what a resolver makes of the row alone."""

    def __init__(self, read: Callable[[Any], Any], key: str, shape: Shape, guards: Sequence[Guards] = ()) -> None:
        super().__init__(key, shape, guards)
        self.read = read

    def begin(
        self, rows: Sequence[Any], outs: list[dict[str, Any]], places: list[Place] | None, run: Run, jobs: Jobs
    ) -> None:
        values = [attempt(self.read, row) for row in rows]
        if any(map(is_awaited, set(map(type, values)))):
            jobs.append(self.wait(values, outs, places, run))
        else:
            self.finish(values, outs, places, run, jobs)


class RelationStep(Step):
    """One batch for all rows."""

    def __init__(
        self,
        relation: Relation,
        given: Given,
        converted: Callable[[dict[str, Any]], dict[str, Any]],
        readies: Sequence[Readies],
        key: str,
        shape: Shape,
        guards: Sequence[Guards],
    ) -> None:
        super().__init__(key, shape, guards)
        self.relation, self.given, self.converted, self.readies = relation, given, converted, readies

    def start(
        self, rows: Sequence[Any], outs: list[dict[str, Any]], places: list[Place] | None, run: Run, jobs: Jobs
    ) -> None:
        """In the order of graphql-core: the arguments are coerced, then the guards asked, then limits checked."""
        places = self.shape.site.under(places) if self.placed else None
        arguments = attempt(self._coerced, run)
        if not isinstance(arguments, Exception):
            denied = self._denied(run)
            arguments = attempt(self._ready, arguments) if denied is None else denied
        if isinstance(arguments, Exception):
            self.finish([arguments] * len(rows), outs, places, run, jobs)
        else:
            jobs.append(self._load(rows, outs, places, arguments, run))

    def _coerced(self, run: Run) -> dict[str, Any]:
        return self.converted(self.given(run))

    def _ready(self, arguments: dict[str, Any]) -> dict[str, Any]:
        for ready in self.readies:
            arguments = ready.ready(arguments)
        return arguments

    async def _load(
        self,
        rows: Sequence[Any],
        outs: list[dict[str, Any]],
        places: list[Place] | None,
        arguments: dict[str, Any],
        run: Run,
    ) -> None:
        keys = [self._key(row) for row in rows]
        found = await self._found(keys, arguments, run)
        jobs: Jobs = []
        if places is None:  # a row that is met twice is completed once
            done = dict(zip(found, self.shape.complete(list(found.values()), None, run, jobs), strict=True))
            name = self.key
            for out, key in zip(outs, keys, strict=True):
                out[name] = done[key]
        else:
            self.finish([found[key] for key in keys], outs, places, run, jobs)
        await drain(jobs)

    def _key(self, row: Any) -> Any:
        """The key, or the `Failure` to read it."""
        try:
            return value_of(row, self.relation.by)
        except Exception as error:
            return Failure(error)

    async def _found(self, keys: list[Any], arguments: dict[str, Any], run: Run) -> Mapping[Any, Any]:
        """The value of each key, or the exception that there is instead."""
        relation = self.relation
        found: dict[Any, Any] = {}
        wanted: list[Any] = []
        for key in dict.fromkeys(keys):
            if key is None:
                found[key] = relation.loader.missing()
            elif type(key) is Failure:
                found[key] = key.error
            else:
                wanted.append(key)
        if wanted:
            args = attempt(relation.args, **arguments) if relation.args else None
            if isinstance(args, Exception):
                found.update(dict.fromkeys(wanted, args))
            else:
                found.update(await relation.loader.load_all(run.context, wanted, args))
        return found


class ResolverStep(Step):
    """An ordinary resolver, called for each row with all its extensions, as graphql-core would."""

    def __init__(self, given: Given, key: str, shape: Shape) -> None:
        super().__init__(key, shape)
        self.given = given
        self.placed = True

    def begin(
        self, rows: Sequence[Any], outs: list[dict[str, Any]], places: list[Place] | None, run: Run, jobs: Jobs
    ) -> None:
        assert places is not None
        site, executor = self.shape.site, run.executor
        resolve = site.definition.resolve or executor.field_resolver
        values: list[Any] = []
        for row, place in zip(rows, places, strict=True):
            try:
                info = executor.build_resolve_info(site.definition, site.nodes, site.parent, place)  # type: ignore[arg-type]
                values.append(resolve(row, info, **self.given(run)))
            except Exception as error:
                values.append(error)
        if any(map(is_awaited, set(map(type, values)))):
            jobs.append(self.wait(values, outs, places, run))
        else:
            self.finish(values, outs, places, run, jobs)
