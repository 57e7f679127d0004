"""What the learning child processes are handed, say on the way, give back and refuse; light enough for any process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ml.spec import TrainingSpec


class Stop(StrEnum):
    """How to end a run at the next round."""

    KEEP_BEST = "KEEP_BEST"
    DISCARD = "DISCARD"


class Ended(StrEnum):
    """Why training ended."""

    COMPLETED = "COMPLETED"
    EARLY_STOPPED = "EARLY_STOPPED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True)
class RoundDone:
    """One boosting round; `step` counts from 0, `at_ms` is Unix time, metrics are named `valid.auc`."""

    step: int
    at_ms: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class LogLine:
    """`level` is one of DEBUG INFO WARNING ERROR, `stream` one of STDOUT STDERR SYSTEM."""

    at_ms: int
    level: str
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Phase:
    """`fraction` is of the whole job, 0 to 1, or None while unknown."""

    name: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A local file that training can go on from, after so many rounds; whoever is told of it may delete it."""

    rounds: int
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """CPU in percent of one core since the sample before; resident memory in bytes."""

    cpu_percent: float
    rss_bytes: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """Everything a child needs; `spec` has been through `algorithm.resolve`. Paths are local files.

    `explicit_params` are the canonical names the caller set; `provenance` is copied into the manifest
    (digests of the data versions, IDs). `checkpoint` is a file to go on from; `checkpoints` is the folder for new ones,
    made about every `checkpoint_seconds` (None: none are made).
    """

    spec: TrainingSpec
    data: str
    output: str
    validation_data: str | None = None
    threads: int = 1
    explicit_params: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    checkpoints: str | None = None
    checkpoint_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """A file of the artifact, its path relative to the output folder."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """`best_step` counts from 0 and is None when nothing was trained or nothing was kept; then `files` is empty.

    `manifest` is the content of manifest.json (signature, importance and evaluations among it).
    """

    ended: Ended
    rounds: int
    best_step: int | None
    best_metrics: dict[str, float]
    files: tuple[ArtifactFile, ...]
    manifest: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """Rows of `data` (Parquet) to predict from row `start` on, with the model in the folder `model`.

    Predictions are put into `parts`, a file about every `part_seconds`.
    """

    model: str
    sha256: str
    data: str
    parts: str
    start: int = 0
    probabilities: bool = False
    threads: int = 1
    part_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateJob:
    """Rows of `data` whose `target` is known, to be compared with what the model in the folder `model` says of them.

    `metrics` are canonical names, in the order to be told; None: the usual ones.
    """

    model: str
    sha256: str
    data: str
    target: str
    weight_column: str | None = None
    metrics: tuple[str, ...] | None = None
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitJob:
    """The file at `path` is said to be a LightGBM model for `task`; its folder takes the manifest."""

    path: str
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A model that can be served, as a version keeps it."""

    sha256: str
    size_bytes: int
    manifest_sha256: str
    signature: dict[str, Any]
    importance: dict[str, Any]
    params: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RowsDone:
    """How many rows of how many have been seen to."""

    rows: int
    total: int


@dataclass(frozen=True, slots=True)
class PartDone:
    """A file with the predictions of the next rows, which whoever is told of it may delete; `failed` have none."""

    path: str
    sha256: str
    rows: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinJob:
    """Rows of `data` and their predictions in `parts`, one after the other, to be one Parquet file, `output`.

    `columns` are those of the data, in order; `probabilities` says whether the parts hold them.
    """

    model: str
    sha256: str
    data: str
    columns: tuple[str, ...]
    parts: tuple[str, ...]
    probabilities: bool
    output: str
    scratch: str
    memory_limit_mb: int


@dataclass(frozen=True, slots=True)
class DescribedColumn:
    """A column of a file that was written, and its profile (`ml.profiling`)."""

    name: str
    type: str
    nullable: bool
    profile: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Joined:
    """The file that was written; `added` are the columns of predictions behind those of the data."""

    row_count: int
    size_bytes: int
    sha256: str
    added: tuple[DescribedColumn, ...]


class DataProblem(Exception):
    """The data or the parameters cannot be trained on; trying again changes nothing. `path` is in the spec."""

    def __init__(self, message: str, path: tuple[str, ...] = ("input", "spec")) -> None:
        super().__init__(message, path)
        self.message = message
        self.path = path

    def __str__(self) -> str:
        return self.message


class DigestMismatch(Exception):
    """The model file is not the one that was registered; it was not read."""


class ModelUnreadable(Exception):
    """The model's folder lacks a file, or LightGBM refuses its text."""


@dataclass(frozen=True, slots=True)
class TypeMismatch:
    """`expected` and `actual` are names of the contract's ColumnType."""

    column: str
    expected: str
    actual: str


class SchemaMismatch(Exception):
    """A row does not fit the model's signature; `row` counts from 0, names keep the signature's order."""

    def __init__(
        self,
        row: int,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        type_mismatches: tuple[TypeMismatch, ...] = (),
    ) -> None:
        super().__init__(row, missing, unexpected, type_mismatches)
        self.row = row
        self.missing = missing
        self.unexpected = unexpected
        self.type_mismatches = type_mismatches

    def __str__(self) -> str:
        parts = []
        if self.missing:
            parts.append(f"is missing {_listed(self.missing)}")
        if self.unexpected:
            parts.append(f"has features the model does not know: {_listed(self.unexpected)}")
        for mismatch in self.type_mismatches[:5]:
            parts.append(f"{mismatch.column!r} must be {mismatch.expected}, not {mismatch.actual}")
        return f"Row {self.row} " + "; ".join(parts) + "."


class UnknownCategory(Exception):
    """A row holds a category that the model has not met; `row` counts from 0, `known` are those that it has."""

    def __init__(self, row: int, feature: str, value: str, known: tuple[str, ...]) -> None:
        super().__init__(row, feature, value, known)
        self.row = row
        self.feature = feature
        self.value = value
        self.known = known

    def __str__(self) -> str:
        return (
            f"Row {self.row}: {self.feature!r} is {self.value[:100]!r}, a category that the model has not met. "
            "Send null where the value is not known."
        )


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
