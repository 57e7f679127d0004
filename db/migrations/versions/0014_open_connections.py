"""How many connections each API process has open of each session."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "CREATE TABLE api_processes (id uuid CONSTRAINT api_processes_pkey PRIMARY KEY,"
    " seen_at timestamptz NOT NULL DEFAULT clock_timestamp())",
    "CREATE TABLE open_connections (process_id uuid NOT NULL CONSTRAINT open_connections_process_id_fkey"
    " REFERENCES api_processes ON DELETE CASCADE, session_id uuid NOT NULL, number integer NOT NULL,"
    " CONSTRAINT open_connections_pkey PRIMARY KEY (process_id, session_id))",
    "CREATE INDEX open_connections_session_id_idx ON open_connections (session_id)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
