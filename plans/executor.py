"""The executor that Strawberry is given: a plan where there is one, graphql-core otherwise."""

from typing import Any, ClassVar

from plans.cache import Plans
from plans.compiler import Plan
from plans.plain_data import PlainDataExecutor


class PlanningExecutor(PlainDataExecutor):
    """Whether an operation is planned is decided before anything of it ran."""

    plans: ClassVar[Plans]

    def execute_operation(self, serially: bool | None = None) -> Any:
        plan = self.plan() if self.plannable() else None
        self.decided(plan)
        return super().execute_operation(serially) if plan is None else plan.execute(self)

    def plannable(self) -> bool:
        """Whether nothing was asked of this execution that plans know nothing of."""
        middleware = self.middleware_manager
        hooked = (middleware is not None and middleware.middlewares) or self.abort_signal or self.hooks
        return not hooked and self.error_propagation

    def plan(self) -> Plan | None:
        return self.plans.of(self, learn=True)

    def decided(self, plan: Plan | None) -> None:
        """Called once for each execution."""
