"""Every operation leaves its figures: in /metrics name, kind, outcome, seconds, statements; in the answer its cost."""

import time
from collections.abc import Iterator
from typing import Any

from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

from auth.permissions import Permission
from monitoring.metrics import METRICS, OperationKind, OperationOutcome
from monitoring.statements import counting
from resolvers.context import Context

_KINDS: dict[OperationType, OperationKind] = {OperationType.QUERY: "query", OperationType.MUTATION: "mutation"}


class Measured(SchemaExtension):
    """Queries and mutations; a subscription is measured by what it delivers."""

    def on_operation(self) -> Iterator[None]:
        started = time.perf_counter()
        with counting() as self._statements:
            yield
        execution = self.execution_context
        if execution.graphql_document is None or execution.pre_execution_errors:
            return
        kind = _KINDS.get(execution.operation_type)
        if kind is not None:
            METRICS.operation_ended(
                name=execution.operation_name,
                kind=kind,
                outcome=_outcome(execution.result),
                seconds=time.perf_counter() - started,
                statements=self._statements.number,
            )

    def get_results(self) -> dict[str, Any]:
        """`extensions.cost` of the answer; nothing when the operation was refused before it was priced."""
        context: Context | None = self.execution_context.context
        if context is None or context.charge is None:
            return {}
        cost = {"requested": context.charge.cost, "remaining": context.charge.balance.remaining}
        if context.may(Permission.SYSTEM_READ):
            cost["sqlStatements"] = self._statements.number
        return {"cost": cost}


def _outcome(result: Any) -> OperationOutcome:
    if result is None or result.errors:
        return "error"
    payloads = [value for value in (result.data or {}).values() if isinstance(value, dict)]
    return "refused" if any(payload.get("errors") for payload in payloads) else "ok"
