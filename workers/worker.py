"""What a job is given: the parts of the installation, and where and how it may work."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from db.database import Database
from events.wakeups import Wakeups
from ml.processes import Template
from storage.objects import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """`scratch` is a folder for files that may be gone after a restart; `children` forks the learning processes.

    `run_memory_limit_mb` is what one child may use, `threads` on how many cores a run trains, `event_retention` how
    long events stay in the log, `metric_retention` how long points of metrics of no run stay (None: for ever),
    `checkpoint_seconds` about what a lost worker costs a run.
    """

    db: Database
    store: ObjectStore
    wakeups: Wakeups
    name: str
    scratch: Path
    run_memory_limit_mb: int
    children: Template
    threads: int = 1
    checkpoint_seconds: float = 5.0
    event_retention: timedelta = timedelta(days=30)
    metric_retention: timedelta | None = None
