"""The curves of an evaluation."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    curves = sa.Column("curves", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'"))
    op.add_column("evaluations", curves)


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
