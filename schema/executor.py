"""How Head AI executes operations: by plans where HEADAI_EXECUTOR says so, and for callers who signed in."""

from typing import ClassVar

from monitoring.metrics import METRICS
from plans.cache import Plans
from plans.compiler import Plan
from plans.executor import PlanningExecutor
from resolvers.context import Context


class Executor(PlanningExecutor):
    """Plans are made for callers who signed in; others find what is there, and so never push anything out."""

    plans: ClassVar[Plans] = Plans()

    def plan(self) -> Plan | None:
        context: Context = self.context_value
        if context.services.executor != "plans":
            return None
        return self.plans.of(self, learn=context.principal is not None)

    def decided(self, plan: Plan | None) -> None:
        METRICS.operation_executed("core" if plan is None else "plans")
