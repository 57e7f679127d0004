"""The directives that fields carry in the SDL."""

import strawberry
from strawberry import UNSET
from strawberry.schema_directive import Location

from auth.permissions import Permission
from db.vocabulary import AuditAction


@strawberry.schema_directive(
    name="public", locations=[Location.FIELD_DEFINITION], description="Reachable without credentials."
)
class PublicDirective:
    pass


@strawberry.schema_directive(
    name="viewer",
    locations=[Location.FIELD_DEFINITION],
    description="Any signed-in principal may call it; the answer holds only what that principal may see.",
)
class ViewerDirective:
    pass


@strawberry.schema_directive(
    name="requires",
    locations=[Location.FIELD_DEFINITION, Location.OBJECT],
    description="Enforces RBAC before the resolver runs. `resource` is the path of the argument that names the "
    "resource\n(`id`, `input.datasetId`); grants on that resource, on its project and global grants are consulted, "
    "in that order.\n"
    "Without `resource` only global grants count.",
)
class RequiresDirective:
    permission: Permission
    resource: str | None = UNSET


@strawberry.schema_directive(
    name="audited",
    locations=[Location.FIELD_DEFINITION],
    description="Writes an audit event with the actor, the input (secrets removed), the outcome and the request id.",
)
class AuditedDirective:
    action: AuditAction


@strawberry.schema_directive(
    name="cost",
    locations=[
        Location.ARGUMENT_DEFINITION,
        Location.ENUM,
        Location.FIELD_DEFINITION,
        Location.INPUT_FIELD_DEFINITION,
        Location.OBJECT,
        Location.SCALAR,
    ],
    description="IBM cost specification: the weight of one element.",
)
class Cost:
    weight: str


@strawberry.schema_directive(
    name="listSize",
    locations=[Location.FIELD_DEFINITION],
    description="IBM cost specification: how a list's size follows from its arguments.",
)
class ListSize:
    assumed_size: int | None = UNSET
    slicing_arguments: list[str] | None = UNSET
    sized_fields: list[str] | None = UNSET
    require_one_slicing_argument: bool | None = True

    @classmethod
    def by(cls, *slicing_arguments: str) -> "ListSize":
        """The list is as long as one of these arguments says; none of them needs to be given."""
        return cls(slicing_arguments=list(slicing_arguments), require_one_slicing_argument=UNSET)


PAGED = ListSize.by("first", "last")
