"""Runs that are trained outside: their scripts report to us."""

import strawberry

from auth.permissions import Permission
from resolvers import external as resolve
from resolvers.inputs.scalars import BigInt
from schema.access import requires
from schema.fields import mutation
from schema.refusals import UserError
from schema.training import TrainingRun


@strawberry.type
class ReportRunPayload:
    training_run: TrainingRun | None
    cancel_requested: bool = strawberry.field(description="The worker must stop.")
    errors: list[UserError]


@strawberry.type
class AppendRunLogsPayload:
    appended: int
    last_number: BigInt | None
    errors: list[UserError]


@strawberry.type
class ExternalRunMutations:
    report_run: ReportRunPayload | None = mutation(
        resolve.report_run,
        guard=requires(Permission.RUN_UPDATE, resource="input.id"),
        returns=None,
        refused={"cancel_requested": False},
        description="For runs with algorithm EXTERNAL: sign of life, progress, state, all in one call.",
    )
    append_run_logs: AppendRunLogsPayload | None = mutation(
        resolve.append_run_logs,
        guard=requires(Permission.RUN_UPDATE, resource="input.id"),
        returns=None,
        refused={"appended": 0},
    )
