"""Every operation leaves its figures in /metrics: name, kind, outcome, seconds, statements."""

import time
from collections.abc import Iterator
from typing import Any

from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

from monitoring.metrics import METRICS, OperationKind, OperationOutcome
from monitoring.statements import counting

_KINDS: dict[OperationType, OperationKind] = {OperationType.QUERY: "query", OperationType.MUTATION: "mutation"}


class Measured(SchemaExtension):
    """Queries and mutations; a subscription is measured by what it delivers."""

    def on_operation(self) -> Iterator[None]:
        started = time.perf_counter()
        with counting() as statements:
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
                statements=statements.number,
            )


def _outcome(result: Any) -> OperationOutcome:
    if result is None or result.errors:
        return "error"
    payloads = [value for value in (result.data or {}).values() if isinstance(value, dict)]
    return "refused" if any(payload.get("errors") for payload in payloads) else "ok"
