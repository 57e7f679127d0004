"""The guards: `@public`, `@viewer` and `@requires`, in the SDL and at run time alike.

Attaching a guard is what prints the directive, so the two always agree. A guard asks only the context, once a field.
"""

import inspect
from abc import abstractmethod
from typing import Any

from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver, SyncExtensionResolver
from strawberry.types.field import StrawberryField

from auth.permissions import Permission
from resolvers.context import Context, Info
from schema.directives import PublicDirective, RequiresDirective, ViewerDirective
from schema.failures import ApiError, forbidden, unauthenticated


class Guard(FieldExtension):
    """Who may read a field. `denial` answers from the context alone."""

    directive: object

    def apply(self, field: StrawberryField) -> None:
        if self.directive not in field.directives:
            field.directives.append(self.directive)

    @abstractmethod
    def denial(self, context: Context) -> ApiError | None:
        """Why this caller is refused, or None."""

    def resolve(self, next_: SyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        denial = self.denial(info.context)
        if denial is not None:
            raise denial
        return next_(source, info, **arguments)

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        denial = self.denial(info.context)
        if denial is not None:
            raise denial
        result = next_(source, info, **arguments)
        return await result if inspect.isawaitable(result) else result


class Public(Guard):
    directive = PublicDirective()

    def denial(self, context: Context) -> ApiError | None:
        return None


class Viewer(Guard):
    directive = ViewerDirective()

    def denial(self, context: Context) -> ApiError | None:
        return unauthenticated(context.rejected) if context.principal is None else None


class Requires(Guard):
    """The caller holds a permission, by a grant that reaches the resource the field names."""

    def __init__(self, permission: Permission, resource: str | None) -> None:
        self.permission = permission
        self.resource = resource
        self.directive = (
            RequiresDirective(permission=permission)
            if resource is None
            else RequiresDirective(permission=permission, resource=resource)
        )

    def denial(self, context: Context) -> ApiError | None:
        if context.principal is None:
            return unauthenticated(context.rejected)
        return None if context.principal.may(self.permission) else forbidden(self.permission)


public = Public()
viewer = Viewer()


def requires(permission: Permission, resource: str | None = None) -> Requires:
    return Requires(permission, resource)
