"""Where a run goes on from when its worker is lost, and from which attempt on its failures count."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("training_runs", sa.Column("checkpoint", postgresql.JSONB()))
    op.add_column("training_runs", sa.Column("tries_from", sa.Integer(), nullable=False, server_default=sa.text("0")))


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
