"""What can be done, and the roles that come with the installation.

`Permission` is the whole vocabulary of rights; a role is nothing more than a set of them. A field of the API names the
one permission it needs (`@requires` in the schema).
"""

from dataclasses import dataclass
from enum import StrEnum, auto


class Permission(StrEnum):
    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name

    PROJECT_CREATE = auto()
    PROJECT_READ = auto()
    PROJECT_UPDATE = auto()
    PROJECT_DELETE = auto()
    USER_CREATE = auto()
    USER_READ = auto()
    USER_UPDATE = auto()
    USER_DELETE = auto()
    SESSION_MANAGE = auto()
    TOKEN_MANAGE = auto()
    ROLE_READ = auto()
    ROLE_MANAGE = auto()
    GRANT_READ = auto()
    GRANT_MANAGE = auto()
    DATASET_CREATE = auto()
    DATASET_READ = auto()
    DATASET_PREVIEW = auto()
    DATASET_UPDATE = auto()
    DATASET_DELETE = auto()
    RUN_CREATE = auto()
    RUN_READ = auto()
    RUN_UPDATE = auto()
    RUN_CANCEL = auto()
    RUN_DELETE = auto()
    MODEL_CREATE = auto()
    MODEL_READ = auto()
    MODEL_DOWNLOAD = auto()
    MODEL_UPDATE = auto()
    MODEL_DELETE = auto()
    PREDICTION_CREATE = auto()
    METRIC_READ = auto()
    METRIC_WRITE = auto()
    METRIC_DELETE = auto()
    AUDIT_READ = auto()
    SYSTEM_READ = auto()


@dataclass(frozen=True, slots=True)
class BuiltInRole:
    name: str
    description: str
    permissions: frozenset[Permission]


P = Permission
_VIEW = frozenset({P.PROJECT_READ, P.DATASET_READ, P.DATASET_PREVIEW, P.RUN_READ, P.MODEL_READ, P.METRIC_READ})
_SCIENCE = _VIEW | {
    P.DATASET_CREATE,
    P.DATASET_UPDATE,
    P.RUN_CREATE,
    P.RUN_UPDATE,
    P.RUN_CANCEL,
    P.MODEL_CREATE,
    P.MODEL_DOWNLOAD,
    P.MODEL_UPDATE,
    P.PREDICTION_CREATE,
    P.METRIC_WRITE,
}
_MAINTENANCE = _SCIENCE | {
    P.PROJECT_CREATE,
    P.PROJECT_UPDATE,
    P.DATASET_DELETE,
    P.RUN_DELETE,
    P.MODEL_DELETE,
    P.METRIC_DELETE,
    P.USER_READ,
    P.ROLE_READ,
    P.GRANT_READ,
}
_OPERATION = _VIEW | {P.RUN_CANCEL, P.PREDICTION_CREATE, P.METRIC_WRITE, P.USER_READ, P.SYSTEM_READ}
del P

ADMINISTRATOR = "Administrator"
BUILT_IN_ROLES: tuple[BuiltInRole, ...] = (
    BuiltInRole(ADMINISTRATOR, "Everything, everywhere.", frozenset(Permission)),
    BuiltInRole("Maintainer", "Looks after projects: all work in them, deleting included.", _MAINTENANCE),
    BuiltInRole("Data Scientist", "Uploads data, trains, registers and serves models.", _SCIENCE),
    BuiltInRole("Operator", "Keeps the service running: health, running work, predictions.", _OPERATION),
    BuiltInRole("Viewer", "Looks, and changes nothing.", _VIEW),
)

READS: frozenset[Permission] = frozenset(
    {
        Permission.PROJECT_READ,
        Permission.DATASET_READ,
        Permission.RUN_READ,
        Permission.MODEL_READ,
        Permission.METRIC_READ,
        Permission.USER_READ,
        Permission.ROLE_READ,
        Permission.GRANT_READ,
        Permission.AUDIT_READ,
    }
)
"""The permissions that decide what is there to see."""

SHOWS_PROJECT: frozenset[Permission] = frozenset(
    READS - {Permission.USER_READ, Permission.ROLE_READ, Permission.GRANT_READ, Permission.AUDIT_READ}
)
"""The permissions that show something inside of a project, and so the project's name."""


ON_ONESELF: frozenset[Permission] = frozenset({Permission.SESSION_MANAGE, Permission.TOKEN_MANAGE})
"""What everybody holds over the own account."""


def _needs() -> dict[Permission, Permission]:
    needed: dict[Permission, Permission] = {Permission.PREDICTION_CREATE: Permission.MODEL_READ}
    for permission in Permission:
        read = f"{permission.partition('_')[0]}_READ"
        if read in READS and read != permission:
            needed[permission] = Permission(read)
    return needed


NEEDS: dict[Permission, Permission] = _needs()
"""Without which other permission one does nothing: whoever may not see a thing may not change it either."""
