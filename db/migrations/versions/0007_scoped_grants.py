"""Grants in one project or on one dataset, run or model; events know which of these they belong to."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("grants", sa.Column("project_id", sa.Uuid(), nullable=True))
    op.add_column("grants", sa.Column("resource_id", sa.Uuid(), nullable=True))
    op.add_column("grants", sa.Column("resource_kind", sa.Text(), nullable=True))
    op.create_foreign_key("grants_project_id_fkey", "grants", "projects", ["project_id"], ["id"], ondelete="CASCADE")
    op.create_check_constraint(
        op.f("grants_place_check"),
        "grants",
        "(scope = 'GLOBAL') = (project_id IS NULL) AND (scope = 'RESOURCE') = (resource_id IS NOT NULL)"
        " AND (resource_id IS NULL) = (resource_kind IS NULL)",
    )
    op.drop_constraint("grants_user_id_role_id_key", "grants")
    op.create_index(
        "grants_role_everywhere_key",
        "grants",
        ["user_id", "role_id"],
        unique=True,
        postgresql_where=sa.text("scope = 'GLOBAL' AND role_id IS NOT NULL AND expires_at IS NULL"),
    )
    op.create_index("grants_user_id_idx", "grants", ["user_id"])
    op.create_index("grants_project_id_idx", "grants", ["project_id"])
    op.add_column("events", sa.Column("resource_id", sa.Uuid(), nullable=True))
    op.execute(
        """
        UPDATE events e SET resource_id = coalesce(
            (SELECT v.dataset_id FROM dataset_versions v WHERE v.id = s.key),
            (SELECT v.model_id FROM model_versions v WHERE v.id = s.key),
            s.key
        ), changed = e.changed
        FROM (
            SELECT id, CAST(split_part(subject_id, '_', 2) AS uuid) AS key FROM events
            WHERE split_part(subject_id, '_', 1) IN ('dataset', 'datasetversion', 'run', 'model', 'modelversion')
        ) s WHERE s.id = e.id
        """
    )


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
