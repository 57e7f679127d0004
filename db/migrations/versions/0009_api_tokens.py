"""API tokens, and the digests of their secrets."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def _at(name: str, *, nullable: bool) -> sa.Column[object]:
    default = None if nullable else sa.text("clock_timestamp()")
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def upgrade() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("permissions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("project_ids", sa.ARRAY(sa.Uuid())),
        sa.Column("allowed_networks", sa.ARRAY(sa.Text())),
        _at("created_at", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        _at("last_used_at", nullable=True),
        sa.Column("last_used_from", sa.Text()),
        _at("revoked_at", nullable=True),
    )
    op.create_index("api_tokens_owner_id_created_at_id_idx", "api_tokens", ["owner_id", "created_at", "id"])
    op.create_table(
        "api_token_secrets",
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("token_id", sa.Uuid(), sa.ForeignKey("api_tokens.id", ondelete="CASCADE"), nullable=False),
        _at("issued_at", nullable=False),
        _at("valid_until", nullable=True),
    )
    op.create_index("api_token_secrets_token_id_idx", "api_token_secrets", ["token_id"])


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
