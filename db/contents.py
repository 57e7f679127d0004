"""Queries on everything in a project at once: what is in the way of its end, what it has in the store, and its end."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, delete, exists, or_, select, true

from db.conditions import one_of
from db.database import Session
from db.grants import CALLERS
from db.operations import UNFINISHED
from db.tables import (
    dataset_versions,
    datasets,
    model_versions,
    models,
    operations,
    projects,
    training_runs,
    upload_sessions,
)
from db.vocabulary import OperationKind


class InTheWay(NamedTuple):
    """Keys of what is at work in a project or with things in it, and of versions elsewhere made of its runs."""

    runs: Sequence[UUID]
    batch_predictions: Sequence[UUID]
    other_work: int
    model_versions: Sequence[UUID]

    def __bool__(self) -> bool:
        return bool(self.runs or self.batch_predictions or self.other_work or self.model_versions)


class Named(NamedTuple):
    id: UUID
    name: str


class Stored(NamedTuple):
    """What is in a project, and the keys of uploads and of files that no version of a model elsewhere has."""

    datasets: Sequence[Named]
    dataset_versions: Sequence[UUID]
    models: Sequence[Named]
    runs: Sequence[UUID]
    operations: Sequence[UUID]
    uploads: Sequence[str]
    model_files: Sequence[str]


def _versions_of(project_id: UUID) -> Select[tuple[UUID]]:
    return (
        select(dataset_versions.c.id)
        .join(datasets, datasets.c.id == dataset_versions.c.dataset_id)
        .where(datasets.c.project_id == project_id)
    )


async def in_the_way(session: Session, project_id: UUID) -> InTheWay:
    versions, sets = _versions_of(project_id), select(datasets.c.id).where(datasets.c.project_id == project_id)
    own_models = select(models.c.id).where(models.c.project_id == project_id)
    own_runs = select(training_runs.c.id).where(training_runs.c.project_id == project_id)
    runs = select(training_runs.c.id).where(
        training_runs.c.finished_at.is_(None),
        or_(
            training_runs.c.project_id == project_id,
            training_runs.c.dataset_version_id.in_(versions),
            training_runs.c.validation_dataset_version_id.in_(versions),
            training_runs.c.register_model_id.in_(own_models),
        ),
    )
    work = select(operations.c.id, operations.c.kind).where(
        one_of(operations.c.status, UNFINISHED),
        or_(
            operations.c.project_id == project_id,
            operations.c.dataset_version_id.in_(versions),
            operations.c.output_dataset_id.in_(sets),
        ),
    )
    elsewhere = select(model_versions.c.id).where(
        model_versions.c.run_id.in_(own_runs), model_versions.c.model_id.not_in(own_models)
    )
    at_work = [(record[0], record[1]) for record in await session.records(work.order_by(operations.c.id))]
    batches = [id for id, kind in at_work if kind == OperationKind.BATCH_PREDICTION]
    return InTheWay(
        runs=await _keys(session, runs.order_by(training_runs.c.id)),
        batch_predictions=batches,
        other_work=len(at_work) - len(batches),
        model_versions=await _keys(session, elsewhere.order_by(model_versions.c.id)),
    )


async def stored(session: Session, project_id: UUID) -> Stored:
    uploads = (
        select(upload_sessions.c.object_key)
        .join(datasets, datasets.c.id == upload_sessions.c.dataset_id)
        .where(datasets.c.project_id == project_id)
    )
    files: set[str] = set()
    for file in (model_versions.c.model_key, model_versions.c.manifest_key):
        own = select(file).join(models, models.c.id == model_versions.c.model_id)
        own = own.where(models.c.project_id == project_id, ~_shared(file, project_id))
        files.update(record[0] for record in await session.records(own))
    return Stored(
        datasets=await _named(session, datasets, project_id),
        dataset_versions=await _keys(session, _versions_of(project_id)),
        models=await _named(session, models, project_id),
        runs=await _keys(session, select(training_runs.c.id).where(training_runs.c.project_id == project_id)),
        operations=await _keys(session, select(operations.c.id).where(operations.c.project_id == project_id)),
        uploads=[record[0] for record in await session.records(uploads)],
        model_files=sorted(files),
    )


def _shared(file: ColumnElement[str], project_id: UUID) -> ColumnElement[bool]:
    """Whether a version in another project, a copy, has the same file."""
    copy, home = model_versions.alias(), models.alias()
    same = and_(copy.c[file.name] == file, home.c.project_id != project_id)
    joined = copy.join(home, home.c.id == copy.c.model_id)
    return exists(select(true()).select_from(joined).where(same).correlate(model_versions))


async def remove(session: Session, project_id: UUID) -> None:
    """Delete a project with everything in it, the grants there included.

    Models go before the runs that they were made of.
    """
    session.topics.add(CALLERS)
    for table in (models, operations, training_runs, datasets):
        await session.run(delete(table).where(table.c.project_id == project_id))
    await session.run(delete(projects).where(projects.c.id == project_id))


async def _named(session: Session, table: Table, project_id: UUID) -> list[Named]:
    statement = select(table.c.id, table.c.name).where(table.c.project_id == project_id).order_by(table.c.id)
    return await session.all(Named, statement)


async def _keys(session: Session, statement: Select[tuple[UUID]]) -> list[UUID]:
    return [record[0] for record in await session.records(statement)]
