"""Every table of the first release, the job queue (pgqueuer 1.6) and the identity of the installation."""

from pathlib import Path
from uuid import uuid4

from alembic import op
from sqlalchemy.util import await_only

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    await_only(connection.execute(Path(__file__).with_suffix(".sql").read_text()))
    await_only(connection.execute("INSERT INTO installation (singleton, epoch) VALUES (true, $1)", uuid4()))


def downgrade() -> None:
    raise RuntimeError("Head AI migrates forward only; restore a backup to go back.")
