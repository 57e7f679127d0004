"""Why work failed, as far as the caller may know."""

from auth.permissions import Permission
from db.rows import Json
from resolvers.context import Info


def detail(root: Json, info: Info) -> str | None:
    """For those who may read the logs of runs, or change data; the message is for everybody who sees the work."""
    may = info.context.may
    return root.get("detail") if may(Permission.RUN_READ) or may(Permission.DATASET_UPDATE) else None
