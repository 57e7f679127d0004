"""Where an object is: the project it lives in, and the dataset, run or model it belongs to. Guards ask this."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, bindparam, null, select
from sqlalchemy.sql.selectable import FromClause

from auth.principals import Place
from db.database import Prepared, Session
from db.ids import Kind
from db.tables import (
    artifacts,
    dataset_columns,
    dataset_versions,
    datasets,
    evaluations,
    grants,
    metric_series,
    model_versions,
    models,
    operations,
    predictions,
    projects,
    training_runs,
    upload_sessions,
    users,
)


def _found(
    key: ColumnElement[UUID], project: ColumnElement[UUID], resource: ColumnElement[UUID], of: FromClause
) -> Prepared:
    return Prepared(
        select(key, project, resource).select_from(of).where(key == any_(bindparam("ids", type_=ARRAY(Uuid))))
    )


_OF_VERSION = dataset_versions.join(datasets, datasets.c.id == dataset_versions.c.dataset_id)
_OF_MODEL_VERSION = model_versions.join(models, models.c.id == model_versions.c.model_id)
_NO_RESOURCE: ColumnElement[UUID] = null().cast(Uuid)
_NO_PROJECT = _NO_RESOURCE
_PLACES: dict[Kind, Prepared] = {
    Kind.USER: _found(users.c.id, _NO_PROJECT, users.c.id, users),
    Kind.PROJECT: _found(projects.c.id, projects.c.id, _NO_RESOURCE, projects),
    Kind.GRANT: _found(grants.c.id, grants.c.project_id, _NO_RESOURCE, grants),
    Kind.DATASET: _found(datasets.c.id, datasets.c.project_id, datasets.c.id, datasets),
    Kind.DATASET_VERSION: _found(dataset_versions.c.id, datasets.c.project_id, datasets.c.id, _OF_VERSION),
    Kind.COLUMN: _found(
        dataset_columns.c.id,
        datasets.c.project_id,
        datasets.c.id,
        dataset_columns.join(_OF_VERSION, dataset_versions.c.id == dataset_columns.c.version_id),
    ),
    Kind.UPLOAD: _found(
        upload_sessions.c.id,
        datasets.c.project_id,
        datasets.c.id,
        upload_sessions.join(datasets, datasets.c.id == upload_sessions.c.dataset_id),
    ),
    Kind.RUN: _found(training_runs.c.id, training_runs.c.project_id, training_runs.c.id, training_runs),
    Kind.ARTIFACT: _found(
        artifacts.c.id,
        training_runs.c.project_id,
        training_runs.c.id,
        artifacts.join(training_runs, training_runs.c.id == artifacts.c.run_id),
    ),
    Kind.SERIES: _found(metric_series.c.id, metric_series.c.project_id, metric_series.c.run_id, metric_series),
    Kind.MODEL: _found(models.c.id, models.c.project_id, models.c.id, models),
    Kind.MODEL_VERSION: _found(model_versions.c.id, models.c.project_id, models.c.id, _OF_MODEL_VERSION),
    Kind.EVALUATION: _found(
        evaluations.c.id,
        models.c.project_id,
        models.c.id,
        evaluations.join(_OF_MODEL_VERSION, model_versions.c.id == evaluations.c.model_version_id),
    ),
    Kind.PREDICTION: _found(
        predictions.c.id,
        models.c.project_id,
        models.c.id,
        predictions.join(_OF_MODEL_VERSION, model_versions.c.id == predictions.c.model_version_id),
    ),
    Kind.BATCH_PREDICTION: _found(
        operations.c.id,
        models.c.project_id,
        models.c.id,
        operations.join(_OF_MODEL_VERSION, model_versions.c.id == operations.c.model_version_id),
    ),
}


async def of(session: Session, kind: Kind, ids: Sequence[UUID]) -> Mapping[UUID, Place]:
    """The places of objects of one kind, whoever asks. What lives in no project has none here."""
    if kind not in _PLACES:
        return {}
    return {
        id: Place(project, resource) for id, project, resource in await session.records(_PLACES[kind], ids=list(ids))
    }
