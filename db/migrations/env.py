"""Alembic's entry: runs the steps over the connection that `db.migrate` hands it."""

from typing import Any

from alembic import context
from sqlalchemy.dialects.postgresql.base import ischema_names

from db.tables import Xid8, metadata


def _ours(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    """The job queue's tables are made and kept by pgqueuer's own statements."""
    return not (kind == "table" and reflected and name is not None and name.startswith("pgqueuer"))


ischema_names["xid8"] = Xid8
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_object=_ours,
    compare_server_default=False,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
