"""`@audited`: the field leaves an entry in the audit log, whatever came of it."""

import asyncio
import dataclasses
from datetime import timedelta
from enum import Enum
from typing import Any

from strawberry import UNSET
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver
from strawberry.types.field import StrawberryField

from db.vocabulary import AuditAction, AuditOutcome
from resolvers.audit import Trail
from resolvers.context import Info, SignInRequired
from resolvers.inputs.limits import Sensitive
from resolvers.inputs.scalars import show_duration
from schema.arguments import graphql_name
from schema.directives import AuditedDirective
from schema.failures import ApiError, Code

_HIDDEN = "[secret]"
_NOBODY = (Code.UNAUTHENTICATED, Code.RATE_LIMITED)


class Audited(FieldExtension):
    """Outside of the guard: what a guard forbids is an entry ACCESS_DENIED. Who has not signed in leaves none.

    `resource` is the path of the ID of what the field is about, as its guard names it.
    """

    def __init__(self, action: AuditAction, resource: str | None) -> None:
        self.action = action
        self.resource = resource

    def apply(self, field: StrawberryField) -> None:
        self._field = field
        directive = AuditedDirective(action=self.action)
        if directive not in field.directives:
            field.directives.append(directive)

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        given, name = arguments["input"], info.operation.name
        trail = Trail(
            info.context, self.action, without_secrets(given), name.value if name else None, self._asked(given)
        )
        info.context.trail = trail
        try:
            await trail.begin()
            payload = await next_(source, info, **arguments)
        except BaseException as error:
            await asyncio.shield(self._fallen(trail, error))
            raise
        finally:
            info.context.trail = None
        if payload["errors"]:
            await trail.end(AuditOutcome.REFUSED, self._action_of_refusal)
        else:
            await trail.end(AuditOutcome.SUCCEEDED)
        return payload

    async def _fallen(self, trail: Trail, error: BaseException) -> None:
        code = (error.extensions or {}).get("code") if isinstance(error, ApiError) else None
        if code in _NOBODY or isinstance(error, SignInRequired):
            return
        if code == Code.FORBIDDEN:
            denied = {"deniedMutation": graphql_name(self._field)}
            await trail.end(AuditOutcome.REFUSED, AuditAction.ACCESS_DENIED, **denied)
        else:
            await trail.end(AuditOutcome.FAILED, self._action_of_refusal)

    @property
    def _action_of_refusal(self) -> AuditAction:
        return AuditAction.LOGIN_FAILED if self.action is AuditAction.LOGIN else self.action

    def _asked(self, given: Any) -> str | None:
        """The ID at the guard's path into the input: `input.id`."""
        if self.resource is None:
            return None
        for step in self.resource.split(".")[1:]:
            fields = type(given).__strawberry_definition__.fields
            given = next(getattr(given, f.python_name) for f in fields if graphql_name(f) == step)
            if given is None or given is UNSET:
                return None
        return str(given)


def without_secrets(value: Any) -> Any:
    """An input object as JSON, with its @sensitive values hidden."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, timedelta):
        return show_duration(value)
    definition = getattr(type(value), "__strawberry_definition__", None)
    if definition is not None:
        return {
            graphql_name(field): _HIDDEN if _sensitive(field) else without_secrets(getattr(value, field.python_name))
            for field in definition.fields
            if getattr(value, field.python_name) is not UNSET
        }
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value


def _sensitive(field: dataclasses.Field[Any]) -> bool:
    return any(isinstance(directive, Sensitive) for directive in getattr(field, "directives", ()))
