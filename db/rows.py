"""Rows as they travel: immutable, in the order of their columns, with nothing to await inside.

`columns(Row, table)` selects a row's fields from a table by name, so a field is declared once, here.
"""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause

from db.ids import Identity, Kind

Json = dict[str, Any]
Tags = list[dict[str, str]]


def columns(row: Any, table: FromClause) -> list[ColumnElement[Any]]:
    """The columns of `table` that make up a `row`, in the row's order."""
    return [table.c[name] for name in row._fields]


class SystemActor(NamedTuple):
    """The server itself as the one who did something: a scheduler, a worker, the retention job."""

    component: str


class User(NamedTuple):
    id: UUID
    username: str
    display_name: str
    email: str
    status: str
    last_seen_at: datetime | None
    created_at: datetime
    updated_at: datetime
    revision: int


class Team(NamedTuple):
    id: UUID
    name: str
    description: str | None
    created_at: datetime
    revision: int


class Session(NamedTuple):
    id: UUID
    user_id: UUID
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    ip_address: str | None
    user_agent: str | None
    revoked_at: datetime | None


class ApiToken(NamedTuple):
    id: UUID
    name: str
    prefix: str
    owner_id: UUID
    permissions: list[str]
    project_ids: list[UUID] | None
    allowed_networks: list[str] | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    last_used_from: str | None
    revoked_at: datetime | None

    @property
    def project_keys(self) -> tuple[UUID, ...] | None:
        return None if self.project_ids is None else tuple(self.project_ids)


class Role(NamedTuple):
    id: UUID
    name: str
    description: str | None
    built_in: bool
    permissions: list[str]
    created_at: datetime
    updated_at: datetime
    revision: int


class Grant(NamedTuple):
    """A grant of a user or of a team."""

    id: UUID
    user_id: UUID | None
    team_id: UUID | None
    role_id: UUID | None
    permissions: list[str]
    scope: str
    project_id: UUID | None
    resource_id: UUID | None
    resource_kind: str | None
    expires_at: datetime | None
    reason: str | None
    created_at: datetime
    created_by: UUID | None

    @property
    def principal(self) -> Identity:
        if self.user_id is not None:
            return Identity(Kind.USER, self.user_id)
        assert self.team_id is not None
        return Identity(Kind.TEAM, self.team_id)

    @property
    def resource(self) -> str | None:
        """The global ID of the one thing it is about."""
        return None if self.resource_id is None else f"{self.resource_kind}_{self.resource_id.hex}"


class AuditEvent(NamedTuple):
    id: UUID
    number: int
    at: datetime
    action: str
    outcome: str
    user_id: UUID | None
    token_id: UUID | None
    actor: str | None
    actor_name: str
    project_id: UUID | None
    resource_id: str | None
    resource_name: str | None
    ip_address: str | None
    user_agent: str | None
    operation_name: str | None
    request_id: str
    before: Json | None
    after: Json | None
    previous_hash: str
    hash: str


class Project(NamedTuple):
    id: UUID
    slug: str
    name: str
    description: str | None
    tags: Tags
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    revision: int


class OutOfSight(Exception):
    """Somebody asked for what a row does not tell its reader; `permission` would."""

    def __init__(self, permission: str) -> None:
        super().__init__(permission)
        self.permission = permission


class KnownProject(NamedTuple):
    """A project for those who see something in it and not the project itself: that it is there, and its name."""

    id: UUID
    name: str

    @property
    def description(self) -> None:
        return None

    @property
    def created_by(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        if name in Project._fields:
            raise OutOfSight("PROJECT_READ")
        raise AttributeError(name)


class Dataset(NamedTuple):
    id: UUID
    project_id: UUID
    name: str
    description: str | None
    tags: Tags
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    revision: int
    tolerated_rejects: float


class DatasetVersion(NamedTuple):
    id: UUID
    dataset_id: UUID
    number: int
    status: str
    progress: Json
    failure: Json | None
    format: str
    csv_options: Json | None
    digest: str | None
    size_bytes: int | None
    row_count: int | None
    column_count: int | None
    source: Json
    note: str | None
    upload_key: str | None
    data_key: str | None
    created_at: datetime
    created_by: UUID | None
    rejected_rows: int | None
    rejects: list[Json] | None
    csv_found: Json | None


class Column(NamedTuple):
    id: UUID
    version_id: UUID
    name: str
    position: int
    type: str
    nullable: bool
    role: str
    description: str | None
    profile: Json | None


class DatasetAlias(NamedTuple):
    dataset_id: UUID
    name: str
    version_id: UUID
    set_at: datetime
    set_by: UUID | None


class UploadSession(NamedTuple):
    id: UUID
    dataset_id: UUID
    version_id: UUID
    file_name: str
    size_bytes: int
    part_size_bytes: int
    part_count: int
    status: str
    storage_upload_id: str
    object_key: str
    sha256: str | None
    expires_at: datetime
    created_at: datetime


class TrainingRun(NamedTuple):
    id: UUID
    project_id: UUID
    name: str
    description: str | None
    tags: Tags
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    revision: int
    status: str
    status_reason: str | None
    progress: Json
    failure: Json | None
    spec: Json
    params: list[Json]
    dataset_version_id: UUID | None
    validation_dataset_version_id: UUID | None
    environment: Json | None
    heartbeat_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    parent_run_id: UUID | None
    attempt: int
    changed: int
    number: int


class RunTransition(NamedTuple):
    id: UUID
    run_id: UUID
    from_status: str | None
    to_status: str
    at: datetime
    actor: str | None
    reason: str | None
    attempt: int


class RunAttempt(NamedTuple):
    run_id: UUID
    number: int
    status: str
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    failure: Json | None


class LogLine(NamedTuple):
    run_id: UUID
    number: int
    at: datetime
    level: str
    stream: str
    attempt: int
    text: str


class Artifact(NamedTuple):
    id: UUID
    run_id: UUID
    path: str
    size_bytes: int
    sha256: str
    content_type: str | None
    object_key: str
    created_at: datetime


class Model(NamedTuple):
    id: UUID
    project_id: UUID
    name: str
    description: str | None
    tags: Tags
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    revision: int
    task: str


class ModelVersion(NamedTuple):
    id: UUID
    model_id: UUID
    number: int
    status: str
    description: str | None
    tags: Tags
    run_id: UUID | None
    trained_on_id: UUID | None
    params: list[Json]
    model_key: str
    manifest_key: str
    manifest_sha256: str
    size_bytes: int | None
    sha256: str | None
    created_at: datetime
    created_by: UUID | None
    revision: int


class ModelAlias(NamedTuple):
    model_id: UUID
    name: str
    version_id: UUID
    set_at: datetime
    set_by: UUID | None


class AliasChange(NamedTuple):
    id: UUID
    model_id: UUID
    alias: str
    from_id: UUID | None
    to_id: UUID | None
    at: datetime
    actor: str | None
    reason: str | None


class ModelTarget(NamedTuple):
    """A model version as scoring needs it: whether it may be used, and where its files are."""

    version_id: UUID
    status: str
    model_key: str
    sha256: str
    manifest_key: str
    manifest_sha256: str


class Evaluation(NamedTuple):
    id: UUID
    model_version_id: UUID
    dataset_version_id: UUID
    split: str
    metrics: list[Json]
    confusion_matrix: Json | None
    created_at: datetime
    created_by: UUID | None


class Prediction(NamedTuple):
    id: UUID
    model_version_id: UUID
    outputs: list[Json]
    latency_ms: float
    created_at: datetime
    created_by: UUID | None


class BatchPrediction(NamedTuple):
    id: UUID
    project_id: UUID
    status: str
    progress: Json
    failure: Json | None
    model_version_id: UUID
    dataset_version_id: UUID
    output_version_id: UUID | None
    rows_scored: int
    rows_failed: int
    created_at: datetime
    created_by: UUID | None
    started_at: datetime | None
    finished_at: datetime | None


class Sized(NamedTuple):
    """A series by its key and how many points it had: what reading its history takes."""

    id: UUID
    point_count: int


class MetricSeries(NamedTuple):
    id: UUID
    project_id: UUID | None
    run_id: UUID | None
    scope: str
    name: str
    kind: str
    unit: str | None
    description: str | None
    labels: list[dict[str, str]]
    higher_is_better: bool | None
    rises: bool
    point_count: int
    finite_count: int
    first_at: int | None
    last_at: int | None
    last_step: int | None
    last_point_at: int | None
    last_value: float | None
    min_value: float | None
    min_step: int | None
    min_at: int | None
    max_value: float | None
    max_step: int | None
    max_at: int | None
    sum_value: float | None
    best_value: float | None
    best_step: int | None
    best_at: int | None
    packed_count: int

    @property
    def sized(self) -> Sized:
        return Sized(self.id, self.point_count)


class Event(NamedTuple):
    id: UUID
    number: int
    changed: int
    type: str
    at: datetime
    project_id: UUID | None
    actor: str | None
    subject_id: str
    changes: Json | None
    request_id: str | None
