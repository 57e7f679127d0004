"""The history of an alias outlives the versions it pointed at."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("from_id", "to_id"):
        name = f"alias_changes_{column}_fkey"
        op.drop_constraint(name, "alias_changes", type_="foreignkey")
        op.create_foreign_key(name, "alias_changes", "model_versions", [column], ["id"], ondelete="SET NULL")


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
