"""The enums of the API: the words that rows hold, registered under their own names."""

from enum import StrEnum

import strawberry

from auth.permissions import Permission
from db import vocabulary
from domain.refusals import ErrorCode
from monitoring.health import HealthStatus

_DESCRIPTIONS: dict[type[StrEnum], str] = {
    Permission: "What can be done. `TYPE_VERB`; a role is a set of them.",
    vocabulary.TrainingRunStatus: (
        "QUEUED → STARTING → RUNNING → SUCCEEDED | FAILED | TIMED_OUT\n"
        "QUEUED | STARTING | RUNNING → CANCELING → CANCELED\n"
        "RUNNING → LOST (no heartbeat) → RUNNING (worker came back) | FAILED\n"
        "FAILED | TIMED_OUT | CANCELED → QUEUED (retry: a new attempt of the same run)"
    ),
    vocabulary.MetricScope: "RUN: training curves. SYSTEM: hosts and workers. APPLICATION: this service. "
    "BUSINESS: what the caller measures.",
    vocabulary.DownsampleMethod: "MIN_MAX keeps every spike; LTTB keeps the shape; both are deterministic and keep the "
    "first and the last point.",
}

_WORDS: list[type[StrEnum]] = [Permission, ErrorCode, HealthStatus, *vocabulary.Word.__subclasses__()]

for _words in _WORDS:
    strawberry.enum(_words, description=_DESCRIPTIONS.get(_words))
