"""Log lines of runs that are trained outside: each batch is stored once."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_log_batches",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("appended", sa.Integer(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("run_id", "batch_id", name="run_log_batches_pkey"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["training_runs.id"], name="run_log_batches_run_id_fkey", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
