"""Deleting datasets: what used one forgets it, and objects that no row points at any more wait to be swept."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_POINTERS = (
    ("training_runs", "dataset_version_id"),
    ("training_runs", "validation_dataset_version_id"),
    ("model_versions", "trained_on_id"),
)


def upgrade() -> None:
    op.create_table(
        "unowned_objects",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("unowned_objects_due_at_idx", "unowned_objects", ["due_at"])
    for table, column in _POINTERS:
        name = f"{table}_{column}_fkey"
        op.drop_constraint(name, table)
        op.create_foreign_key(name, table, "dataset_versions", [column], ["id"], ondelete="SET NULL")


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
