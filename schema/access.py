"""The guards: `@public`, `@viewer` and `@requires`, in the SDL and at run time alike.

Attaching a guard is what prints the directive, so the two always agree. A guard asks the context, and where it names a
resource also where that is: an ID of nothing is nowhere, which only a right that holds everywhere covers.
"""

import inspect
from abc import abstractmethod
from typing import Any

from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver, SyncExtensionResolver
from strawberry.types.field import StrawberryField
from strawberry.utils.str_converters import to_snake_case

from auth.permissions import Permission
from dataloaders import loaders
from db.ids import Identity, Kind, identify
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
    """The caller holds a permission everywhere."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission
        self.directive = RequiresDirective(permission=permission)

    def denial(self, context: Context) -> ApiError | None:
        if context.principal is None:
            return unauthenticated(context.rejected)
        return None if context.principal.may(self.permission) else forbidden(self.permission)


class RequiresAt(FieldExtension):
    """The caller holds a permission by a grant that covers what the field names.

    `resource` is the path of the argument with its ID; on a field without such an argument `id` is the object that the
    field belongs to. `otherwise` is the path of another ID, which stands in when the first is not given.
    """

    def __init__(self, permission: Permission, resource: str, otherwise: str | None) -> None:
        self.permission = permission
        self.resource = resource
        self.paths = [
            [to_snake_case(part) for part in path.split(".")] for path in (resource, otherwise) if path is not None
        ]
        self.directive = RequiresDirective(permission=permission, resource=resource)

    def apply(self, field: StrawberryField) -> None:
        if self.directive not in field.directives:
            field.directives.append(self.directive)

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        context = info.context
        if context.principal is None:
            raise unauthenticated(context.rejected)
        if not context.may(self.permission):
            named = self._named(source, info, arguments)
            place = None if named is None else await loaders.place.load(context, named)
            if place is None or not context.may(self.permission, place):
                raise forbidden(self.permission)
        result = next_(source, info, **arguments)
        return await result if inspect.isawaitable(result) else result

    def _named(self, source: Any, info: Info, arguments: dict[str, Any]) -> Identity | None:
        if source is not None:
            return Identity(KINDS[info._raw_info.parent_type.name], source.id)
        for first, *rest in self.paths:
            found = arguments.get(first)
            for part in rest:
                found = getattr(found, part, None)
            if isinstance(found, str):
                return identify(found)
        return None


KINDS = {
    "Artifact": Kind.ARTIFACT,
    "DatasetVersion": Kind.DATASET_VERSION,
    "ModelVersion": Kind.MODEL_VERSION,
    "Project": Kind.PROJECT,
    "User": Kind.USER,
}
"""The types with a field that is guarded by a permission on the object itself."""

public = Public()
viewer = Viewer()


def requires(
    permission: Permission, resource: str | None = None, *, otherwise: str | None = None
) -> Requires | RequiresAt:
    return Requires(permission) if resource is None else RequiresAt(permission, resource, otherwise)
