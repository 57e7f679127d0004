"""The kinds of field, and the conventions each kind brings along.

Root fields take their guard as an argument without default: forgetting it is a TypeError at import, before any test
runs. Relations are declared as data: which loader, keyed by which column of the row.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver
from strawberry.types.fields.resolver import Signature

from dataloaders.batching import Loader
from db.ids import Kind, global_id
from db.vocabulary import AuditAction
from domain.refusals import Invalid, Refusal, Refused
from plans.declared import Derived, Relation
from resolvers.context import Info
from schema.access import Guard, RequiresAt
from schema.arguments import Arguments, settled
from schema.audited import Audited
from schema.directives import Cost

Resolver = Callable[..., Any]


def shows(*rows: type) -> Callable[[object, Any], bool]:
    """`is_type_of` of a type that shows these rows."""

    def is_type_of(value: object, info: Any) -> bool:
        return isinstance(value, rows)

    is_type_of.rows = rows  # type: ignore[attr-defined]
    return is_type_of


def identity(kind: Kind) -> Any:
    """The field `id` of a type: the row's key as a global ID."""

    def id(root: Any) -> strawberry.ID:
        return strawberry.ID(global_id(kind, root.id))

    return strawberry.field(resolver=id, metadata={Derived: Derived(id)})


def relation(
    loader: Loader,
    *,
    by: str,
    args: Callable[..., Any] | None = None,
    guard: Guard | RequiresAt | None = None,
    directives: Sequence[object] = (),
    cost: int | None = None,
    description: str | None = None,
    name: str | None = None,
) -> Any:
    """A field of a type that is another row, or a list or a page of them: one batch a level."""
    declared = Relation(loader, by, args)

    async def resolve(root: Any, info: Info, **arguments: Any) -> Any:
        return await declared.resolve(root, info, arguments)

    taken = list(Signature.from_callable(args).parameters.values()) if args else []
    own = list(Signature.from_callable(resolve).parameters.values())[:2]
    own[0] = own[0].replace(annotation=inspect.Parameter.empty)
    own += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in taken]
    resolve.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    resolve.__annotations__ = {"info": Info} | {parameter.name: parameter.annotation for parameter in taken}
    resolve.__module__ = args.__module__ if args else __name__
    return _field(
        resolve,
        guard=guard,
        directives=directives,
        cost=cost,
        description=description,
        metadata={Relation: declared},
        name=name,
    )


def computed(
    resolver: Resolver,
    *,
    guard: Guard | RequiresAt | None = None,
    directives: Sequence[object] = (),
    cost: int | None = None,
    description: str | None = None,
) -> Any:
    """A field of a type that takes more than a column: a function of the row (`root`) and the context."""
    return _field(resolver, guard=guard, directives=directives, cost=cost, description=description)


def query(
    resolver: Resolver,
    *,
    guard: Guard | RequiresAt,
    directives: Sequence[object] = (),
    cost: int | None = None,
    description: str | None = None,
) -> Any:
    return _field(resolver, guard=guard, directives=directives, cost=cost, description=description)


def subscription(
    resolver: Resolver, *, guard: Guard | RequiresAt, cost: int | None = None, description: str | None = None
) -> Any:
    return strawberry.subscription(
        resolver=resolver,
        description=description,
        extensions=[Arguments(), FreshItems(), guard],
        directives=_directives((), cost),
    )


class FreshItems(FieldExtension):
    """Each item of a stream is read anew, with the rights its reader has by then: what was loaded for one never answers
    for the next.
    """

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        items = next_(source, info, **arguments)
        return self._each(await items if inspect.isawaitable(items) else items, info)

    async def _each(self, items: Any, info: Info) -> AsyncIterator[Any]:
        with info.context.following():
            async with aclosing(items):
                async for item in items:
                    info.context.dataloaders.clear()
                    yield item


def mutation(
    resolver: Resolver,
    *,
    guard: Guard | RequiresAt,
    returns: str | None,
    refused: Mapping[str, Any] | None = None,
    audited: AuditAction | None = None,
    cost: int | None = None,
    description: str | None = None,
) -> Any:
    """A field that takes one `input` and answers with a payload: `{ <returns>, errors }`.

    Without `returns` the resolver answers with a mapping of the payload's fields. `refused` are the values of fields
    that are not null even when the mutation was refused.
    """
    extensions: list[FieldExtension] = [Payload(returns, dict(refused or {})), guard]
    if audited is not None:
        extensions.append(Audited(audited, getattr(guard, "resource", None)))
    return strawberry.mutation(
        resolver=resolver,
        description=description,
        extensions=extensions,
        directives=_directives((), cost),
    )


class Payload(FieldExtension):
    """Turns what a resolver did, or a rule refused to do, into a payload.

    Nothing runs on an input that breaks a limit.
    """

    def __init__(self, returns: str | None, refused: dict[str, Any]) -> None:
        self.returns = returns
        self.refused = refused

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        broken = [
            Invalid(code=b.code, message=f"{b.path[-1]} {b.message}.", path=b.path, allowed=b.allowed)
            for b in settled(arguments["input"], ("input",))
        ]
        if broken:
            return self._refusal(broken)
        try:
            outcome = await next_(source, info, **arguments)
        except Refused as refused:
            return self._refusal(refused.refusals)
        finally:
            info.context.dataloaders.clear()
        fields = outcome if self.returns is None else {self.returns: outcome}
        return {**fields, "errors": []}

    def _refusal(self, refusals: Sequence[Refusal]) -> dict[str, Any]:
        return {**self.refused, "errors": list(refusals)}


def _field(
    resolver: Resolver,
    *,
    guard: Guard | RequiresAt | None,
    directives: Sequence[object],
    cost: int | None,
    description: str | None,
    metadata: Mapping[Any, Any] | None = None,
    name: str | None = None,
) -> Any:
    extensions: list[FieldExtension] = [Arguments()] if _takes_arguments(resolver) else []
    return strawberry.field(
        resolver=resolver,
        description=description,
        extensions=[*extensions, *([guard] if guard else [])],
        directives=_directives(directives, cost),
        metadata=metadata,
        name=name,
    )


def _takes_arguments(resolver: Resolver) -> bool:
    return bool(set(inspect.signature(resolver).parameters) - {"root", "info"})


def _directives(directives: Sequence[object], cost: int | None) -> list[object]:
    return [*directives, *([Cost(weight=str(cost))] if cost is not None else [])]
