"""`@audited`: the field leaves an entry in the audit log, whatever came of it."""

import dataclasses
from enum import Enum
from typing import Any

import structlog
from strawberry import UNSET
from strawberry.extensions import FieldExtension
from strawberry.extensions.field_extension import AsyncExtensionResolver
from strawberry.types.field import StrawberryField

from db.vocabulary import AuditAction, AuditOutcome
from resolvers.audit import record
from resolvers.context import Info
from resolvers.inputs.limits import Sensitive
from schema.arguments import graphql_name
from schema.directives import AuditedDirective

_log = structlog.get_logger(__name__)
_HIDDEN = "[secret]"


class Audited(FieldExtension):
    """Writes actor, action, outcome, request and the input without its @sensitive values, after the mutation."""

    def __init__(self, action: AuditAction) -> None:
        self.action = action

    def apply(self, field: StrawberryField) -> None:
        directive = AuditedDirective(action=self.action)
        if directive not in field.directives:
            field.directives.append(directive)

    async def resolve_async(self, next_: AsyncExtensionResolver, source: Any, info: Info, **arguments: Any) -> Any:
        outcome = AuditOutcome.FAILED
        told = without_secrets(arguments.get("input"))
        try:
            payload = await next_(source, info, **arguments)
            outcome = AuditOutcome.REFUSED if payload["errors"] else AuditOutcome.SUCCEEDED
        finally:
            failed_login = self.action is AuditAction.LOGIN and outcome is not AuditOutcome.SUCCEEDED
            action = AuditAction.LOGIN_FAILED if failed_login else self.action
            await record(info.context, action, outcome, told, operation=info.operation.name)
        return payload


def without_secrets(value: Any) -> Any:
    """An input object as JSON, with its @sensitive values hidden."""
    if isinstance(value, Enum):
        return value.value
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
