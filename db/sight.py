"""What a reader may see, as conditions of a statement.

The parameters of these conditions are the session's own (`Session`, `Database.seen_by`), so a statement is compiled
once for everybody, pages keep their size, and nobody has to hand rights around. A session of the service itself sees
everything.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, ColumnElement, Uuid, any_, bindparam, exists, or_, select, true
from sqlalchemy.sql.selectable import FromClause

from auth.permissions import Permission
from auth.principals import INSIDE, READER
from db.tables import dataset_versions, datasets, model_versions, models, projects, team_members, training_runs

_NAMES: dict[str, tuple[Any, Any, Any]] = {}


def _parameters(permission: str) -> tuple[Any, Any, Any]:
    """Everywhere, the projects, the resources: one object each, so that a statement holds each once."""
    if permission not in _NAMES:
        _NAMES[permission] = (
            bindparam(f"{permission}_everywhere", type_=Boolean),
            bindparam(f"{permission}_projects", type_=ARRAY(Uuid)),
            bindparam(f"{permission}_resources", type_=ARRAY(Uuid)),
        )
    return _NAMES[permission]


def in_sight(
    permission: Permission, project: ColumnElement[UUID], resource: ColumnElement[UUID] | None = None
) -> ColumnElement[bool]:
    """Rows that carry the key of their project, and perhaps that of the dataset, run or model they belong to."""
    everywhere, in_projects, on_resources = _parameters(permission)
    conditions = [everywhere, project == any_(in_projects)]
    return or_(*conditions) if resource is None else or_(*conditions, resource == any_(on_resources))


def team_in_sight(team_id: ColumnElement[UUID]) -> ColumnElement[bool]:
    """Teams: all of them for those who may read users, and for each reader the own ones."""
    member = team_members.alias()
    own = (
        exists(select(true()).select_from(member))
        .where(member.c.team_id == team_id, member.c.user_id == bindparam(READER, type_=Uuid))
        .correlate_except(member)
    )
    return or_(_parameters(Permission.USER_READ)[0], own)


def project_in_sight() -> ColumnElement[bool]:
    return in_sight(Permission.PROJECT_READ, projects.c.id)


def project_known() -> ColumnElement[bool]:
    """Projects in which the reader may see anything at all."""
    everywhere, in_projects, _ = _parameters(INSIDE)
    return or_(everywhere, projects.c.id == any_(in_projects))


def dataset_in_sight(dataset_id: ColumnElement[UUID]) -> ColumnElement[bool]:
    """Rows that belong to a dataset."""
    return _belongs(Permission.DATASET_READ, datasets, dataset_id)


def version_in_sight(version_id: ColumnElement[UUID]) -> ColumnElement[bool]:
    """Rows that belong to a version of a dataset."""
    return _belongs_by(dataset_versions, dataset_versions.c.dataset_id, version_id, dataset_in_sight)


def run_in_sight(run_id: ColumnElement[UUID]) -> ColumnElement[bool]:
    """Rows that belong to a training run."""
    return _belongs(Permission.RUN_READ, training_runs, run_id)


def model_in_sight(model_id: ColumnElement[UUID]) -> ColumnElement[bool]:
    """Rows that belong to a model."""
    return _belongs(Permission.MODEL_READ, models, model_id)


def model_version_in_sight(version_id: ColumnElement[UUID]) -> ColumnElement[bool]:
    """Rows that belong to a version of a model."""
    return _belongs_by(model_versions, model_versions.c.model_id, version_id, model_in_sight)


def _belongs(permission: Permission, owners: FromClause, key: ColumnElement[UUID]) -> ColumnElement[bool]:
    everywhere, in_projects, on_resources = _parameters(permission)
    owner = owners.alias()
    in_project = (
        exists(select(true()).select_from(owner))
        .where(owner.c.id == key, owner.c.project_id == any_(in_projects))
        .correlate_except(owner)
    )
    return or_(everywhere, key == any_(on_resources), in_project)


def _belongs_by(parts: FromClause, owner_id: Any, key: ColumnElement[UUID], owned: Any) -> ColumnElement[bool]:
    part = parts.alias()
    return (
        exists(select(true()).select_from(part))
        .where(part.c.id == key, owned(part.c[owner_id.name]))
        .correlate_except(part)
    )
