"""The audit log as a chain: numbers, hashes, and what an entry is about. No version before this one was released."""

from alembic import op
from sqlalchemy.util import await_only

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = """
ALTER TABLE audit_events RENAME COLUMN input TO after;
ALTER TABLE audit_events ADD COLUMN number bigint, ADD COLUMN user_id uuid, ADD COLUMN token_id uuid,
    ADD COLUMN project_id uuid, ADD COLUMN resource_id text, ADD COLUMN resource_name text, ADD COLUMN before jsonb,
    ADD COLUMN previous_hash text, ADD COLUMN hash text;
CREATE TABLE audit_head (
    singleton boolean NOT NULL CONSTRAINT audit_head_singleton_check CHECK (singleton),
    number bigint NOT NULL,
    hash text NOT NULL,
    CONSTRAINT audit_head_pkey PRIMARY KEY (singleton)
);
INSERT INTO audit_head VALUES (true, 0, repeat('0', 64));
DO $$
DECLARE entry audit_events; last audit_head;
BEGIN
    SELECT * INTO last FROM audit_head;
    FOR entry IN SELECT * FROM audit_events ORDER BY at, id LOOP
        last.number := last.number + 1;
        entry.user_id := substr(entry.actor, 6)::uuid;
        entry.previous_hash := last.hash;
        last.hash := encode(sha256(convert_to(jsonb_build_array(
            last.hash, last.number, entry.id, (extract(epoch FROM entry.at) * 1000000)::bigint, entry.action,
            entry.outcome, entry.user_id, NULL::uuid, entry.actor, entry.actor_name, NULL::uuid, NULL::text,
            NULL::text, entry.ip_address, entry.user_agent, entry.operation_name, entry.request_id, NULL::jsonb,
            entry.after)::text, 'UTF8')), 'hex');
        UPDATE audit_events SET number = last.number, user_id = entry.user_id, previous_hash = entry.previous_hash,
            hash = last.hash WHERE id = entry.id;
    END LOOP;
    UPDATE audit_head SET number = last.number, hash = last.hash;
END $$;
ALTER TABLE audit_events ALTER COLUMN number SET NOT NULL, ALTER COLUMN previous_hash SET NOT NULL,
    ALTER COLUMN hash SET NOT NULL, ADD CONSTRAINT audit_events_number_key UNIQUE (number);
CREATE INDEX audit_events_user_id_number_idx ON audit_events (user_id, number);
CREATE INDEX audit_events_resource_id_number_idx ON audit_events (resource_id, number)
"""


def upgrade() -> None:
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    await_only(connection.execute(_STATEMENTS))


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
