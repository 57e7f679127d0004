"""Rows that cannot be read: the share that is tolerated and those left out; and how a CSV file was read."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("tolerated_rejects", sa.Double, nullable=False, server_default=sa.text("0")))
    op.add_column("dataset_versions", sa.Column("rejected_rows", sa.BigInteger))
    op.add_column("dataset_versions", sa.Column("rejects", JSONB))
    op.add_column("dataset_versions", sa.Column("csv_found", JSONB))


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
