"""Teams, who is in them, and the grants they hold."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "teams",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.UniqueConstraint("name", name="teams_name_key"),
    )
    op.create_table(
        "team_members",
        sa.Column("team_id", sa.Uuid(), primary_key=True),
        sa.Column("user_id", sa.Uuid(), primary_key=True),
        _now("added_at"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="team_members_team_id_fkey", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="team_members_user_id_fkey", ondelete="CASCADE"),
    )
    op.create_index("team_members_user_id_idx", "team_members", ["user_id"])
    op.add_column("grants", sa.Column("team_id", sa.Uuid(), nullable=True))
    op.create_foreign_key("grants_team_id_fkey", "grants", "teams", ["team_id"], ["id"], ondelete="CASCADE")
    op.alter_column("grants", "user_id", nullable=True)
    op.create_check_constraint(op.f("grants_principal_check"), "grants", "(user_id IS NULL) <> (team_id IS NULL)")
    op.create_index(
        "grants_team_role_everywhere_key",
        "grants",
        ["team_id", "role_id"],
        unique=True,
        postgresql_where=sa.text("scope = 'GLOBAL' AND role_id IS NOT NULL AND expires_at IS NULL"),
    )
    op.create_index("grants_team_id_idx", "grants", ["team_id"])
    op.create_index("grants_role_id_idx", "grants", ["role_id"])
    op.create_index("grants_created_at_id_idx", "grants", ["created_at", "id"])


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")


def _now(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False)
