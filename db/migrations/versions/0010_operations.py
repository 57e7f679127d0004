"""Work that outlives the request: batch predictions, evaluations and checks of uploaded models."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE operations (
    id uuid CONSTRAINT operations_pkey PRIMARY KEY,
    project_id uuid NOT NULL CONSTRAINT operations_project_id_fkey REFERENCES projects ON DELETE CASCADE,
    kind text NOT NULL
        CONSTRAINT operations_kind_check CHECK (kind IN ('BATCH_PREDICTION', 'EVALUATION', 'MODEL_CHECK')),
    status text NOT NULL CONSTRAINT operations_status_check
        CHECK (status IN ('QUEUED', 'RUNNING', 'CANCELING', 'SUCCEEDED', 'FAILED', 'CANCELED')),
    progress jsonb NOT NULL,
    failure jsonb,
    model_version_id uuid NOT NULL
        CONSTRAINT operations_model_version_id_fkey REFERENCES model_versions ON DELETE CASCADE,
    dataset_version_id uuid
        CONSTRAINT operations_dataset_version_id_fkey REFERENCES dataset_versions ON DELETE CASCADE,
    output_dataset_id uuid CONSTRAINT operations_output_dataset_id_fkey REFERENCES datasets ON DELETE SET NULL,
    output_version_id uuid CONSTRAINT operations_output_version_id_fkey REFERENCES dataset_versions ON DELETE SET NULL,
    evaluation_id uuid CONSTRAINT operations_evaluation_id_fkey REFERENCES evaluations ON DELETE SET NULL,
    spec jsonb NOT NULL,
    kept jsonb NOT NULL DEFAULT '{}',
    rows_scored bigint NOT NULL DEFAULT 0,
    rows_failed bigint NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    lease uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by uuid CONSTRAINT operations_created_by_fkey REFERENCES users ON DELETE SET NULL,
    started_at timestamptz,
    finished_at timestamptz,
    changed xid8 NOT NULL DEFAULT pg_current_xact_id()
)
"""
_INDEXES = (
    "CREATE INDEX operations_kind_id_idx ON operations (kind, id)",
    "CREATE INDEX operations_model_version_id_idx ON operations (model_version_id)",
    "CREATE INDEX operations_dataset_version_id_idx ON operations (dataset_version_id)",
    "CREATE INDEX operations_unfinished_idx ON operations (created_at) WHERE finished_at IS NULL",
)


def upgrade() -> None:
    for statement in (_TABLE, *_INDEXES):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
