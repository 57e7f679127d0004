"""Runs in the order of a metric's best value, and the events of one thing, are read from indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "metric_series_name_best_value_run_id_idx",
        "metric_series",
        ["name", "best_value", "run_id"],
        postgresql_where=sa.text("scope = 'RUN' AND labels = '[]'"),
    )
    op.create_index("events_resource_id_changed_number_idx", "events", ["resource_id", "changed", "number"])


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
