"""Points of metrics packed into chunks, with rollups that envelopes are drawn from."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_AS_THEY_ARE = ("steps", "at", "value", "changed", "fine", "coarse")


def upgrade() -> None:
    op.add_column(
        "metric_series", sa.Column("packed_count", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    )
    op.create_table(
        "metric_chunks",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("series_id", sa.Uuid, sa.ForeignKey("metric_series.id", ondelete="CASCADE"), nullable=False),
        sa.Column("points", sa.Integer, nullable=False),
        sa.Column("finite_points", sa.Integer, nullable=False),
        sa.Column("sum_value", sa.Double),
        sa.Column("first_step", sa.BigInteger),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_step", sa.BigInteger),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("from_at", sa.BigInteger, nullable=False),
        sa.Column("to_at", sa.BigInteger, nullable=False),
        sa.Column("first_changed", sa.BigInteger, nullable=False),
        sa.Column("last_changed", sa.BigInteger, nullable=False),
        sa.Column("cell", sa.Integer, nullable=False),
        sa.Column("steps", sa.LargeBinary),
        sa.Column("at", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("changed", sa.LargeBinary),
        sa.Column("fine", sa.LargeBinary, nullable=False),
        sa.Column("coarse", sa.LargeBinary, nullable=False),
    )
    for column in _AS_THEY_ARE:  # doubles hardly compress, and integers are packed already
        op.execute(f"ALTER TABLE metric_chunks ALTER COLUMN {column} SET STORAGE EXTERNAL")
    op.create_index(
        "metric_chunks_series_id_first_step_first_at_idx", "metric_chunks", ["series_id", "first_step", "first_at"]
    )
    op.create_index("metric_chunks_series_id_last_changed_idx", "metric_chunks", ["series_id", "last_changed"])


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
