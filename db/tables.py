"""The tables. A row carries columns only; related rows come through queries and dataloaders.

Names of the same thing are the same everywhere: `created_by` is a user's key, `actor` is the global ID of a user or
`system:<component>`, `changed` is the transaction that last wrote the row (see `events.cursors`), `revision` grows by
one on every write a caller makes.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

from db import vocabulary
from db.vocabulary import Word

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction ID."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


def _id() -> Column[Any]:
    return Column("id", Uuid, primary_key=True)


def _at(name: str, *, nullable: bool = False) -> Column[Any]:
    default = None if nullable else func.clock_timestamp()
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


def _changed() -> Column[Any]:
    return Column("changed", Xid8, nullable=False, server_default=text("pg_current_xact_id()"))


def _revision() -> Column[Any]:
    return Column("revision", Integer, nullable=False, server_default=text("1"))


def _tags() -> Column[Any]:
    return Column("tags", JSONB, nullable=False, server_default=text("'[]'"))


def _created_by() -> Column[Any]:
    return Column("created_by", Uuid, ForeignKey("users.id", ondelete="SET NULL"))


def _of(target: str, name: str | None = None, *, nullable: bool = False, ondelete: str = "CASCADE") -> Column[Any]:
    return Column(
        name or f"{target.removesuffix('s')}_id",
        Uuid,
        ForeignKey(f"{target}.id", ondelete=ondelete),
        nullable=nullable,
    )


def _word(name: str, words: type[Word], *, nullable: bool = False) -> Column[Any]:
    allowed = ", ".join(f"'{word}'" for word in words)
    return Column(name, Text, CheckConstraint(f"{name} IN ({allowed})", name=name), nullable=nullable)


users = Table(
    "users",
    metadata,
    _id(),
    Column("username", Text, nullable=False, unique=True),
    Column("display_name", Text, nullable=False),
    Column("email", Text, nullable=False),
    _word("status", vocabulary.UserStatus),
    Column("password_digest", Text),
    _at("last_seen_at", nullable=True),
    _at("created_at"),
    _at("updated_at"),
    _revision(),
    Index("users_email_key", func.lower(text("email")), unique=True),
    Index("users_created_at_id_idx", "created_at", "id"),
)

sessions = Table(
    "sessions",
    metadata,
    _id(),
    _of("users"),
    _at("created_at"),
    _at("last_seen_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("ip_address", Text),
    Column("user_agent", Text),
    _at("revoked_at", nullable=True),
    Index("sessions_user_id_idx", "user_id"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    _of("sessions"),
    _at("issued_at"),
    _at("used_at", nullable=True),
    Index("refresh_tokens_session_id_idx", "session_id"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    _of("users", "owner_id"),
    Column("permissions", ARRAY(Text), nullable=False),
    Column("project_ids", ARRAY(Uuid)),
    Column("allowed_networks", ARRAY(Text)),
    _at("created_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    _at("last_used_at", nullable=True),
    Column("last_used_from", Text),
    _at("revoked_at", nullable=True),
    Index("api_tokens_owner_id_created_at_id_idx", "owner_id", "created_at", "id"),
)

api_token_secrets = Table(
    "api_token_secrets",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    _of("api_tokens", "token_id"),
    _at("issued_at"),
    _at("valid_until", nullable=True),
    Index("api_token_secrets_token_id_idx", "token_id"),
)

roles = Table(
    "roles",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text),
    Column("built_in", Boolean, nullable=False),
    Column("permissions", ARRAY(Text), nullable=False),
    _at("created_at"),
    _at("updated_at"),
    _revision(),
)

teams = Table(
    "teams",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text),
    _at("created_at"),
    _revision(),
)

team_members = Table(
    "team_members",
    metadata,
    Column("team_id", Uuid, ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    _at("added_at"),
    Index("team_members_user_id_idx", "user_id"),
)

grants = Table(
    "grants",
    metadata,
    _id(),
    _of("users", nullable=True),
    _of("teams", nullable=True),
    _of("roles", nullable=True),
    Column("permissions", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    _word("scope", vocabulary.GrantScopeType),
    _of("projects", nullable=True),
    Column("resource_id", Uuid),
    Column("resource_kind", Text),
    _at("expires_at", nullable=True),
    Column("reason", Text),
    _at("created_at"),
    _created_by(),
    CheckConstraint(
        "(scope = 'GLOBAL') = (project_id IS NULL) AND (scope = 'RESOURCE') = (resource_id IS NOT NULL)"
        " AND (resource_id IS NULL) = (resource_kind IS NULL)",
        name="place",
    ),
    CheckConstraint("(user_id IS NULL) <> (team_id IS NULL)", name="principal"),
    Index(
        "grants_role_everywhere_key",
        "user_id",
        "role_id",
        unique=True,
        postgresql_where=text("scope = 'GLOBAL' AND role_id IS NOT NULL AND expires_at IS NULL"),
    ),
    Index(
        "grants_team_role_everywhere_key",
        "team_id",
        "role_id",
        unique=True,
        postgresql_where=text("scope = 'GLOBAL' AND role_id IS NOT NULL AND expires_at IS NULL"),
    ),
    Index("grants_user_id_idx", "user_id"),
    Index("grants_team_id_idx", "team_id"),
    Index("grants_role_id_idx", "role_id"),
    Index("grants_created_at_id_idx", "created_at", "id"),
    Index("grants_project_id_idx", "project_id"),
)

projects = Table(
    "projects",
    metadata,
    _id(),
    Column("slug", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    _tags(),
    _at("created_at"),
    _at("updated_at"),
    _created_by(),
    _revision(),
    Index("projects_name_id_idx", "name", "id"),
)

datasets = Table(
    "datasets",
    metadata,
    _id(),
    _of("projects"),
    Column("name", Text, nullable=False),
    Column("description", Text),
    _tags(),
    _at("created_at"),
    _at("updated_at"),
    _created_by(),
    _revision(),
    Column("tolerated_rejects", Double, nullable=False, server_default=text("0")),
    UniqueConstraint("project_id", "name"),
    Index("datasets_updated_at_id_idx", "updated_at", "id"),
    Index("datasets_created_at_id_idx", "created_at", "id"),
    Index("datasets_name_id_idx", "name", "id"),
    Index("datasets_tags_idx", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    _id(),
    _of("datasets"),
    Column("number", Integer, nullable=False),
    _word("status", vocabulary.DatasetVersionStatus),
    Column("progress", JSONB, nullable=False),
    Column("failure", JSONB),
    _word("format", vocabulary.DatasetFormat),
    Column("csv_options", JSONB),
    Column("digest", Text),
    Column("size_bytes", BigInteger),
    Column("row_count", BigInteger),
    Column("column_count", Integer),
    Column("source", JSONB, nullable=False),
    Column("note", Text),
    Column("upload_key", Text),
    Column("data_key", Text),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("lease", Uuid),
    _at("created_at"),
    _created_by(),
    _changed(),
    Column("rejected_rows", BigInteger),
    Column("rejects", JSONB),
    Column("csv_found", JSONB),
    UniqueConstraint("dataset_id", "number"),
    Index("dataset_versions_changed_id_idx", "changed", "id"),
)

dataset_columns = Table(
    "dataset_columns",
    metadata,
    _id(),
    _of("dataset_versions", "version_id"),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    _word("type", vocabulary.ColumnType),
    Column("nullable", Boolean, nullable=False),
    _word("role", vocabulary.ColumnRole),
    Column("description", Text),
    Column("profile", JSONB),
    UniqueConstraint("version_id", "position"),
    UniqueConstraint("version_id", "name"),
)

dataset_aliases = Table(
    "dataset_aliases",
    metadata,
    Column("dataset_id", Uuid, ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    _of("dataset_versions", "version_id"),
    _at("set_at"),
    Column("set_by", Uuid, ForeignKey("users.id", ondelete="SET NULL")),
)

upload_sessions = Table(
    "upload_sessions",
    metadata,
    _id(),
    _of("datasets"),
    _of("dataset_versions", "version_id"),
    Column("file_name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("part_size_bytes", BigInteger, nullable=False),
    Column("part_count", Integer, nullable=False),
    _word("status", vocabulary.UploadStatus),
    Column("storage_upload_id", Text, nullable=False),
    Column("object_key", Text, nullable=False),
    Column("sha256", Text),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    _at("created_at"),
    _created_by(),
    Index("upload_sessions_dataset_id_created_at_id_idx", "dataset_id", "created_at", "id"),
    Index("upload_sessions_version_id_idx", "version_id"),
    Index("upload_sessions_open_idx", "expires_at", postgresql_where=text("status = 'OPEN'")),
)

unowned_objects = Table(
    "unowned_objects",
    metadata,
    Column("key", Text, primary_key=True),
    Column("due_at", DateTime(timezone=True), nullable=False),
    Index("unowned_objects_due_at_idx", "due_at"),
)

training_runs = Table(
    "training_runs",
    metadata,
    _id(),
    _of("projects"),
    Column("name", Text, nullable=False),
    Column("description", Text),
    _tags(),
    _at("created_at"),
    _at("updated_at"),
    _created_by(),
    _revision(),
    _word("status", vocabulary.TrainingRunStatus),
    Column("status_reason", Text),
    Column("progress", JSONB, nullable=False),
    Column("failure", JSONB),
    _word("task", vocabulary.MLTask),
    _word("algorithm", vocabulary.Algorithm),
    Column("spec", JSONB, nullable=False),
    Column("params", JSONB, nullable=False),
    _of("dataset_versions", "dataset_version_id", nullable=True, ondelete="SET NULL"),
    _of("dataset_versions", "validation_dataset_version_id", nullable=True, ondelete="SET NULL"),
    Column("environment", JSONB),
    _at("heartbeat_at", nullable=True),
    _at("started_at", nullable=True),
    _at("finished_at", nullable=True),
    _of("training_runs", "parent_run_id", nullable=True),
    _of("models", "register_model_id", nullable=True, ondelete="SET NULL"),
    Column("register_alias", Text),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("lease", Uuid),
    Column("cancellation", JSONB),
    Column("outcome", JSONB),
    Column("checkpoint", JSONB),
    Column("tries_from", Integer, nullable=False, server_default=text("0")),
    _changed(),
    Column("number", BigInteger, Identity(), nullable=False, unique=True),
    UniqueConstraint("project_id", "name"),
    Index("training_runs_created_at_id_idx", "created_at", "id"),
    Index("training_runs_project_id_created_at_id_idx", "project_id", "created_at", "id"),
    Index("training_runs_dataset_version_id_created_at_id_idx", "dataset_version_id", "created_at", "id"),
    Index("training_runs_parent_run_id_idx", "parent_run_id"),
    Index("training_runs_changed_number_idx", "changed", "number"),
    Index("training_runs_unfinished_idx", "heartbeat_at", postgresql_where=text("finished_at IS NULL")),
)

run_transitions = Table(
    "run_transitions",
    metadata,
    _id(),
    _of("training_runs", "run_id"),
    _word("from_status", vocabulary.TrainingRunStatus, nullable=True),
    _word("to_status", vocabulary.TrainingRunStatus),
    _at("at"),
    Column("actor", Text),
    Column("reason", Text),
    Column("attempt", Integer, nullable=False),
    Index("run_transitions_run_id_id_idx", "run_id", "id"),
)

run_attempts = Table(
    "run_attempts",
    metadata,
    Column("run_id", Uuid, ForeignKey("training_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    _word("status", vocabulary.TrainingRunStatus),
    Column("worker", Text),
    _at("started_at", nullable=True),
    _at("finished_at", nullable=True),
    Column("failure", JSONB),
)

run_logs = Table(
    "run_logs",
    metadata,
    Column("run_id", Uuid, ForeignKey("training_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    _at("at"),
    _word("level", vocabulary.LogLevel),
    _word("stream", vocabulary.LogStream),
    Column("attempt", Integer, nullable=False),
    Column("text", Text, nullable=False),
)

run_log_batches = Table(
    "run_log_batches",
    metadata,
    Column("run_id", Uuid, ForeignKey("training_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("batch_id", Text, primary_key=True),
    Column("appended", Integer, nullable=False),
    Column("last_number", BigInteger, nullable=False),
    _at("created_at"),
)

artifacts = Table(
    "artifacts",
    metadata,
    _id(),
    _of("training_runs", "run_id"),
    Column("path", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("content_type", Text),
    Column("object_key", Text, nullable=False),
    _at("created_at"),
    UniqueConstraint("run_id", "path"),
)

models = Table(
    "models",
    metadata,
    _id(),
    _of("projects"),
    Column("name", Text, nullable=False),
    Column("description", Text),
    _tags(),
    _at("created_at"),
    _at("updated_at"),
    _created_by(),
    _revision(),
    _word("task", vocabulary.MLTask),
    UniqueConstraint("project_id", "name"),
    Index("models_updated_at_id_idx", "updated_at", "id"),
    Index("models_created_at_id_idx", "created_at", "id"),
)

model_versions = Table(
    "model_versions",
    metadata,
    _id(),
    _of("models"),
    Column("number", Integer, nullable=False),
    _word("status", vocabulary.ModelVersionStatus),
    Column("description", Text),
    _tags(),
    _of("training_runs", "run_id", nullable=True, ondelete="RESTRICT"),
    _of("dataset_versions", "trained_on_id", nullable=True, ondelete="SET NULL"),
    Column("signature", JSONB, nullable=False),
    Column("params", JSONB, nullable=False),
    Column("importance", JSONB, nullable=False),
    Column("model_key", Text, nullable=False),
    Column("manifest_key", Text, nullable=False),
    Column("manifest_sha256", Text, nullable=False),
    Column("size_bytes", BigInteger),
    Column("sha256", Text),
    _at("created_at"),
    _created_by(),
    _revision(),
    UniqueConstraint("model_id", "number"),
    Index("model_versions_run_id_idx", "run_id"),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("model_id", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    _of("model_versions", "version_id"),
    _at("set_at"),
    Column("set_by", Uuid, ForeignKey("users.id", ondelete="SET NULL")),
    Index("model_aliases_version_id_idx", "version_id"),
)

alias_changes = Table(
    "alias_changes",
    metadata,
    _id(),
    _of("models"),
    Column("alias", Text, nullable=False),
    _of("model_versions", "from_id", nullable=True, ondelete="SET NULL"),
    _of("model_versions", "to_id", nullable=True, ondelete="SET NULL"),
    _at("at"),
    Column("actor", Text),
    Column("reason", Text),
    Index("alias_changes_model_id_at_id_idx", "model_id", "at", "id"),
)

evaluations = Table(
    "evaluations",
    metadata,
    _id(),
    _of("model_versions", "model_version_id"),
    _of("dataset_versions", "dataset_version_id"),
    Column("split", Text, nullable=False),
    Column("metrics", JSONB, nullable=False),
    Column("confusion_matrix", JSONB),
    Column("curves", JSONB, nullable=False, server_default=text("'[]'")),
    _at("created_at"),
    _created_by(),
    Index("evaluations_model_version_id_id_idx", "model_version_id", "id"),
)

predictions = Table(
    "predictions",
    metadata,
    _id(),
    _of("model_versions", "model_version_id"),
    Column("outputs", JSONB, nullable=False),
    Column("latency_ms", Double, nullable=False),
    _at("created_at"),
    _created_by(),
    Index("predictions_created_at_idx", "created_at"),
)

operations = Table(
    "operations",
    metadata,
    _id(),
    _of("projects"),
    _word("kind", vocabulary.OperationKind),
    _word("status", vocabulary.OperationStatus),
    Column("progress", JSONB, nullable=False),
    Column("failure", JSONB),
    _of("model_versions", "model_version_id"),
    _of("dataset_versions", "dataset_version_id", nullable=True),
    _of("datasets", "output_dataset_id", nullable=True, ondelete="SET NULL"),
    _of("dataset_versions", "output_version_id", nullable=True, ondelete="SET NULL"),
    _of("evaluations", nullable=True, ondelete="SET NULL"),
    Column("spec", JSONB, nullable=False),
    Column("kept", JSONB, nullable=False, server_default=text("'{}'")),
    Column("rows_scored", BigInteger, nullable=False, server_default=text("0")),
    Column("rows_failed", BigInteger, nullable=False, server_default=text("0")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("lease", Uuid),
    _at("created_at"),
    _created_by(),
    _at("started_at", nullable=True),
    _at("finished_at", nullable=True),
    _changed(),
    Index("operations_kind_id_idx", "kind", "id"),
    Index("operations_model_version_id_idx", "model_version_id"),
    Index("operations_dataset_version_id_idx", "dataset_version_id"),
    Index("operations_unfinished_idx", "created_at", postgresql_where=text("finished_at IS NULL")),
)

metric_series = Table(
    "metric_series",
    metadata,
    _id(),
    _of("projects", nullable=True),
    _of("training_runs", "run_id", nullable=True),
    _word("scope", vocabulary.MetricScope),
    Column("name", Text, nullable=False),
    _word("kind", vocabulary.MetricKind),
    Column("unit", Text),
    Column("description", Text),
    Column("labels", JSONB, nullable=False, server_default=text("'[]'")),
    Column("higher_is_better", Boolean),
    Column("rises", Boolean, nullable=False),
    Column("point_count", BigInteger, nullable=False, server_default=text("0")),
    Column("finite_count", BigInteger, nullable=False, server_default=text("0")),
    Column("first_at", BigInteger),
    Column("last_at", BigInteger),
    Column("last_step", BigInteger),
    Column("last_point_at", BigInteger),
    Column("last_value", Double),
    Column("min_value", Double),
    Column("min_step", BigInteger),
    Column("min_at", BigInteger),
    Column("max_value", Double),
    Column("max_step", BigInteger),
    Column("max_at", BigInteger),
    Column("sum_value", Double),
    Column("best_value", Double, Computed("CASE WHEN rises THEN max_value ELSE min_value END", persisted=True)),
    Column("best_step", BigInteger, Computed("CASE WHEN rises THEN max_step ELSE min_step END", persisted=True)),
    Column("best_at", BigInteger, Computed("CASE WHEN rises THEN max_at ELSE min_at END", persisted=True)),
    Column("packed_count", BigInteger, nullable=False, server_default=text("0")),
    _at("created_at"),
    UniqueConstraint("project_id", "run_id", "scope", "name", "labels", postgresql_nulls_not_distinct=True),
    Index("metric_series_run_id_name_idx", "run_id", "name"),
    Index(
        "metric_series_name_best_value_run_id_idx",
        "name",
        "best_value",
        "run_id",
        postgresql_where=text("scope = 'RUN' AND labels = '[]'"),
    ),
)

metric_points = Table(
    "metric_points",
    metadata,
    _of("metric_series", "series_id"),
    Column("step", BigInteger),
    Column("at", BigInteger, nullable=False),
    Column("value", Double, nullable=False),
    _changed(),
    UniqueConstraint("series_id", "step", "at", postgresql_nulls_not_distinct=True),
    Index("metric_points_series_id_changed_idx", "series_id", "changed"),
)

metric_chunks = Table(
    "metric_chunks",
    metadata,
    _id(),
    _of("metric_series", "series_id"),
    Column("points", Integer, nullable=False),
    Column("finite_points", Integer, nullable=False),
    Column("sum_value", Double),
    Column("first_step", BigInteger),
    Column("first_at", BigInteger, nullable=False),
    Column("last_step", BigInteger),
    Column("last_at", BigInteger, nullable=False),
    Column("from_at", BigInteger, nullable=False),
    Column("to_at", BigInteger, nullable=False),
    Column("first_changed", BigInteger, nullable=False),
    Column("last_changed", BigInteger, nullable=False),
    Column("cell", Integer, nullable=False),
    Column("steps", LargeBinary),
    Column("at", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("changed", LargeBinary),
    Column("fine", LargeBinary, nullable=False),
    Column("coarse", LargeBinary, nullable=False),
    Index("metric_chunks_series_id_first_step_first_at_idx", "series_id", "first_step", "first_at"),
    Index("metric_chunks_series_id_last_changed_idx", "series_id", "last_changed"),
)

metric_batches = Table(
    "metric_batches",
    metadata,
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("batch_id", Text, primary_key=True),
    Column("answer", JSONB, nullable=False),
    _at("created_at"),
)

events = Table(
    "events",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("number", BigInteger, nullable=False, server_default=text("nextval('event_numbers')")),
    _changed(),
    _word("type", vocabulary.EventType),
    _at("at"),
    Column("project_id", Uuid),
    Column("resource_id", Uuid),
    Column("actor", Text),
    Column("subject_id", Text, nullable=False),
    Column("changes", JSONB),
    Column("request_id", Text),
    Index("events_changed_number_idx", "changed", "number"),
    Index("events_resource_id_changed_number_idx", "resource_id", "changed", "number"),
)

audit_events = Table(
    "audit_events",
    metadata,
    _id(),
    Column("number", BigInteger, nullable=False, unique=True),
    _at("at"),
    _word("action", vocabulary.AuditAction),
    _word("outcome", vocabulary.AuditOutcome),
    Column("user_id", Uuid),
    Column("token_id", Uuid),
    Column("actor", Text),
    Column("actor_name", Text, nullable=False),
    Column("project_id", Uuid),
    Column("resource_id", Text),
    Column("resource_name", Text),
    Column("ip_address", Text),
    Column("user_agent", Text),
    Column("operation_name", Text),
    Column("request_id", Text, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("audit_events_at_idx", "at"),
    Index("audit_events_user_id_number_idx", "user_id", "number"),
    Index("audit_events_resource_id_number_idx", "resource_id", "number"),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("singleton", Boolean, CheckConstraint("singleton", name="singleton"), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("mutation", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("input_digest", LargeBinary, nullable=False),
    Column("result_id", Uuid),
    _at("created_at"),
)

workers = Table(
    "workers",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    _at("started_at"),
    _at("seen_at"),
)

api_processes = Table("api_processes", metadata, _id(), _at("seen_at"))

open_connections = Table(
    "open_connections",
    metadata,
    Column("process_id", Uuid, ForeignKey("api_processes.id", ondelete="CASCADE"), primary_key=True),
    Column("session_id", Uuid, primary_key=True),
    Column("number", Integer, nullable=False),
    Index("open_connections_session_id_idx", "session_id"),
)

installation = Table(
    "installation",
    metadata,
    Column("singleton", Boolean, CheckConstraint("singleton", name="singleton"), primary_key=True),
    Column("epoch", Uuid, nullable=False),
    Column("forgotten_changed", Xid8),
    Column("forgotten_number", BigInteger),
    _at("created_at"),
)
