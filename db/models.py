"""Queries on models: their versions, the aliases that point at versions, and how good versions were found to be."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Double,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy import column as sql_column
from sqlalchemy.dialects.postgresql import JSONB, distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from auth.permissions import Permission
from db.conditions import instant, one_of, tagged, words
from db.database import Prepared, Session
from db.ids import Kind, key_of, new_id
from db.paging import InvalidPage, Key, Order, Page, PageArgs, page, pages
from db.rows import (
    AliasChange,
    Evaluation,
    Json,
    Model,
    ModelAlias,
    ModelVersion,
    Tags,
    TrainingRun,
    columns,
)
from db.sight import in_sight, model_in_sight, model_version_in_sight
from db.tables import alias_changes, evaluations, model_aliases, model_versions, models, training_runs
from db.vocabulary import ImportanceKind, ModelVersionStatus

_MODEL = columns(Model, models)
_VERSION = columns(ModelVersion, model_versions)
_ALIAS = columns(ModelAlias, model_aliases)
_CHANGE = columns(AliasChange, alias_changes)
_EVALUATION = columns(Evaluation, evaluations)


def _in(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column == any_(bindparam("ids", type_=ARRAY(Uuid)))


_IN_SIGHT = in_sight(Permission.MODEL_READ, models.c.project_id, models.c.id)
_VERSION_IN_SIGHT = model_in_sight(model_versions.c.model_id)
_MODELS_BY_IDS = Prepared(select(*_MODEL).where(_in(models.c.id), _IN_SIGHT))
_VERSIONS_BY_IDS = Prepared(select(*_VERSION).where(_in(model_versions.c.id), _VERSION_IN_SIGHT))
_EVALUATIONS_BY_IDS = Prepared(
    select(*_EVALUATION).where(_in(evaluations.c.id), model_version_in_sight(evaluations.c.model_version_id))
)
_BY_NAME = Prepared(
    select(*_MODEL).where(models.c.project_id == bindparam("project"), models.c.name == bindparam("name"), _IN_SIGHT)
)
_LOCKED = Prepared(select(*_MODEL).where(models.c.id == bindparam("id"), _IN_SIGHT).with_for_update())
_LATEST = Prepared(
    select(*_VERSION)
    .ext(distinct_on(model_versions.c.model_id))
    .where(_in(model_versions.c.model_id), model_versions.c.status == ModelVersionStatus.READY.value)
    .order_by(model_versions.c.model_id, model_versions.c.number.desc())
)
_OF_RUNS = Prepared(
    select(*_VERSION)
    .where(_in(model_versions.c.run_id), _VERSION_IN_SIGHT)
    .order_by(model_versions.c.created_at, model_versions.c.id)
)
_ALIASES_OF_MODELS = Prepared(select(*_ALIAS).where(_in(model_aliases.c.model_id)).order_by(model_aliases.c.name))
_ALIASES_OF_VERSIONS = Prepared(
    select(model_aliases.c.version_id, model_aliases.c.name)
    .where(_in(model_aliases.c.version_id))
    .order_by(model_aliases.c.name)
)
_SIGNATURES = Prepared(select(model_versions.c.id, model_versions.c.signature).where(_in(model_versions.c.id)))
_IMPORTANCE = Prepared(
    select(model_versions.c.id, model_versions.c.importance[bindparam("kind", type_=Text)]).where(
        _in(model_versions.c.id)
    )
)
_BY_NUMBER = Prepared(
    select(*_VERSION).where(_in(model_versions.c.model_id), model_versions.c.number == bindparam("number"))
)
_BY_ALIAS = Prepared(
    select(*_VERSION)
    .join(model_aliases, model_aliases.c.version_id == model_versions.c.id)
    .where(_in(model_aliases.c.model_id), model_aliases.c.name == bindparam("alias"))
)
_BY_ID_OF_MODEL = Prepared(
    select(*_VERSION).where(_in(model_versions.c.model_id), model_versions.c.id == bindparam("version"))
)
_HELD_AT = (
    select(alias_changes.c.model_id, alias_changes.c.to_id)
    .ext(distinct_on(alias_changes.c.model_id))
    .where(
        _in(alias_changes.c.model_id),
        alias_changes.c.alias == bindparam("alias"),
        alias_changes.c.at <= bindparam("at"),
    )
    .order_by(alias_changes.c.model_id, alias_changes.c.at.desc(), alias_changes.c.id.desc())
    .subquery()
)
_ALIAS_AT = Prepared(select(*_VERSION).join(_HELD_AT, _HELD_AT.c.to_id == model_versions.c.id))
_LATEST_EVALUATIONS = Prepared(
    select(*_EVALUATION)
    .ext(distinct_on(evaluations.c.model_version_id))
    .where(_in(evaluations.c.model_version_id))
    .order_by(evaluations.c.model_version_id, evaluations.c.id.desc())
)
_CURVES = Prepared(select(evaluations.c.id, evaluations.c.curves).where(_in(evaluations.c.id)))
_OTHER = evaluations.alias("other")
_OF_HOLDER = (
    select(_OTHER.c.metrics)
    .where(
        _OTHER.c.model_version_id == model_aliases.c.version_id,
        _OTHER.c.dataset_version_id == evaluations.c.dataset_version_id,
        _OTHER.c.split == evaluations.c.split,
    )
    .order_by(_OTHER.c.id.desc())
    .limit(1)
    .correlate(evaluations, model_aliases)
    .lateral("of_holder")
)
_BASELINES = Prepared(
    select(evaluations.c.id, _OF_HOLDER.c.metrics)
    .select_from(
        evaluations.join(model_versions, model_versions.c.id == evaluations.c.model_version_id)
        .join(
            model_aliases,
            (model_aliases.c.model_id == model_versions.c.model_id) & (model_aliases.c.name == bindparam("alias")),
        )
        .join(_OF_HOLDER, true())
    )
    .where(_in(evaluations.c.id))
)
_ORDERS = {"NAME": models.c.name, "CREATED_AT": models.c.created_at, "UPDATED_AT": models.c.updated_at}
_VERSION_ORDERS = {"NUMBER": model_versions.c.number, "CREATED_AT": model_versions.c.created_at}
_NEWEST_CHANGE = Order.by("AT", alias_changes.c.at, alias_changes.c.id, descending=True)
_NEWEST_EVALUATION = Order.by("ID", evaluations.c.id, descending=True)


class VersionRef(NamedTuple):
    """Which version of a model: by number, by alias or by key; exactly one is not None."""

    number: int | None = None
    alias: str | None = None
    id: UUID | None = None


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Model]:
    return {model.id: model for model in await session.all(Model, _MODELS_BY_IDS, ids=list(ids))}


async def listed(session: Session, args: PageArgs) -> Page[Model]:
    """A page of all models; `args.order` is a field of `ModelOrderField` and whether it descends."""
    return await page(session, Model, _chosen(args.filter), _order(args), args)


async def of_projects(session: Session, project_ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[Model]]:
    chosen = _chosen(args.filter)
    return await pages(session, Model, chosen, models.c.project_id, project_ids, _order(args), args)


def _chosen(wanted: Any) -> Select[Any]:
    statement = select(*_MODEL).where(_IN_SIGHT)
    if wanted is None:
        return statement
    statement = statement.where(
        *words(models.c.name, wanted.name),
        *tagged(models.c.tags, wanted.tags),
        *instant(models.c.created_at, wanted.created_at),
    )
    if wanted.tasks is not None:
        statement = statement.where(one_of(models.c.task, wanted.tasks))
    if wanted.alias is not None:
        held = (model_aliases.c.model_id == models.c.id) & (model_aliases.c.name == wanted.alias)
        statement = statement.where(exists(select(true()).where(held).correlate(models)))
    if wanted.search is not None:
        statement = statement.where(
            or_(
                models.c.name.icontains(wanted.search, autoescape=True),
                models.c.description.icontains(wanted.search, autoescape=True),
            )
        )
    return statement


def _order(args: PageArgs) -> Order:
    name, descending = args.order
    return Order.by(name, _ORDERS[name], models.c.id, descending=descending)


async def versions_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, ModelVersion]:
    return {version.id: version for version in await session.all(ModelVersion, _VERSIONS_BY_IDS, ids=list(ids))}


async def versions_of_models(
    session: Session, model_ids: Sequence[UUID], args: PageArgs
) -> Mapping[UUID, Page[ModelVersion]]:
    """`args.order` is a field of `ModelVersionOrderField`, whether it descends, and the metric it goes by.

    By METRIC goes the newest evaluation that knows the metric; versions without it come last both ways.
    """
    statement, wanted = select(*_VERSION), args.filter
    if wanted is not None:
        statement = statement.where(*tagged(model_versions.c.tags, wanted.tags))
        if wanted.statuses is not None:
            statement = statement.where(one_of(model_versions.c.status, wanted.statuses))
        if wanted.run_id is not None:
            statement = statement.where(model_versions.c.run_id == literal(key_of(wanted.run_id, Kind.RUN), Uuid))
        if wanted.alias is not None:
            held = (model_aliases.c.version_id == model_versions.c.id) & (model_aliases.c.name == wanted.alias)
            statement = statement.where(exists(select(true()).where(held).correlate(model_versions)))
    order = _version_order(*args.order)
    return await pages(session, ModelVersion, statement, model_versions.c.model_id, model_ids, order, args)


def _version_order(name: str, descending: bool, metric: str | None) -> Order:
    if name != "METRIC":
        return Order.by(name, _VERSION_ORDERS[name], model_versions.c.id, descending=descending)
    if metric is None:
        raise InvalidPage("An order by METRIC names the `metric`.")
    entry = func.jsonb_array_elements(evaluations.c.metrics).table_valued(sql_column("value", JSONB), name="metric")
    found = entry.render_derived().lateral()
    value = (
        select(func.jsonb_extract_path_text(found.c.value, "value", type_=Text).cast(Double))
        .select_from(evaluations.join(found, true()))
        .where(
            evaluations.c.model_version_id == model_versions.c.id,
            func.jsonb_extract_path_text(found.c.value, "name", type_=Text) == metric,
        )
        .order_by(evaluations.c.id.desc())
        .limit(1)
        .correlate(model_versions)
        .scalar_subquery()
    )
    return Order(
        f"METRIC:{metric}:{'desc' if descending else 'asc'}",
        (
            Key(value.is_(None)),
            Key(func.coalesce(value, literal(0.0, Double)), descending),
            Key(model_versions.c.id, descending),
        ),
    )


async def latest_versions(session: Session, model_ids: Sequence[UUID]) -> Mapping[UUID, ModelVersion]:
    """The READY version of each model with the highest number."""
    return {v.model_id: v for v in await session.all(ModelVersion, _LATEST, ids=list(model_ids))}


async def versions_by_ref(session: Session, model_ids: Sequence[UUID], ref: VersionRef) -> Mapping[UUID, ModelVersion]:
    ids = list(model_ids)
    if ref.number is not None:
        found = await session.all(ModelVersion, _BY_NUMBER, ids=ids, number=ref.number)
    elif ref.alias is not None:
        found = await session.all(ModelVersion, _BY_ALIAS, ids=ids, alias=ref.alias)
    else:
        found = await session.all(ModelVersion, _BY_ID_OF_MODEL, ids=ids, version=ref.id)
    return {version.model_id: version for version in found}


async def versions_of_runs(session: Session, run_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[ModelVersion]]:
    found: defaultdict[UUID, list[ModelVersion]] = defaultdict(list)
    for version in await session.all(ModelVersion, _OF_RUNS, ids=list(run_ids)):
        assert version.run_id is not None
        found[version.run_id].append(version)
    return found


async def signatures(session: Session, version_ids: Sequence[UUID]) -> Mapping[UUID, Json]:
    return dict(await session.records(_SIGNATURES, ids=list(version_ids)))


async def importance(
    session: Session, version_ids: Sequence[UUID], wanted: tuple[ImportanceKind, int]
) -> Mapping[UUID, Sequence[Json]]:
    """The most important features of each version, by one kind of importance."""
    kind, top = wanted
    found = await session.records(_IMPORTANCE, ids=list(version_ids), kind=kind)
    return {id: features[:top] for id, features in found if features is not None}


async def aliases_of_models(session: Session, model_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[ModelAlias]]:
    found: defaultdict[UUID, list[ModelAlias]] = defaultdict(list)
    for alias in await session.all(ModelAlias, _ALIASES_OF_MODELS, ids=list(model_ids)):
        found[alias.model_id].append(alias)
    return found


async def alias_names_of_versions(session: Session, version_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[str]]:
    found: defaultdict[UUID, list[str]] = defaultdict(list)
    for version_id, name in await session.records(_ALIASES_OF_VERSIONS, ids=list(version_ids)):
        found[version_id].append(name)
    return found


async def versions_by_alias_at(
    session: Session, model_ids: Sequence[UUID], wanted: tuple[str, datetime]
) -> Mapping[UUID, ModelVersion]:
    """The version of each model that an alias pointed at, at a moment; the moment of a change counts as after it."""
    alias, at = wanted
    found = await session.all(ModelVersion, _ALIAS_AT, ids=list(model_ids), alias=alias, at=at)
    return {version.model_id: version for version in found}


async def alias_history(
    session: Session, model_ids: Sequence[UUID], args: PageArgs
) -> Mapping[UUID, Page[AliasChange]]:
    """The newest changes first; `args.filter` is the name of one alias, or None for all."""
    statement = select(*_CHANGE)
    if args.filter is not None:
        statement = statement.where(alias_changes.c.alias == args.filter)
    return await pages(session, AliasChange, statement, alias_changes.c.model_id, model_ids, _NEWEST_CHANGE, args)


async def alias_change_at(session: Session, model_id: UUID, alias: str, at: datetime) -> AliasChange | None:
    """The newest change of an alias up to a moment; None when it was forgotten."""
    statement = (
        select(*_CHANGE)
        .where(alias_changes.c.model_id == model_id, alias_changes.c.alias == alias, alias_changes.c.at <= at)
        .order_by(alias_changes.c.at.desc(), alias_changes.c.id.desc())
        .limit(1)
    )
    return await session.first(AliasChange, statement)


async def evaluations_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Evaluation]:
    return {
        evaluation.id: evaluation for evaluation in await session.all(Evaluation, _EVALUATIONS_BY_IDS, ids=list(ids))
    }


async def evaluations_of_versions(
    session: Session, version_ids: Sequence[UUID], args: PageArgs
) -> Mapping[UUID, Page[Evaluation]]:
    parent = evaluations.c.model_version_id
    return await pages(session, Evaluation, select(*_EVALUATION), parent, version_ids, _NEWEST_EVALUATION, args)


async def latest_evaluations(session: Session, version_ids: Sequence[UUID]) -> Mapping[UUID, Evaluation]:
    found = await session.all(Evaluation, _LATEST_EVALUATIONS, ids=list(version_ids))
    return {evaluation.model_version_id: evaluation for evaluation in found}


async def curves(session: Session, evaluation_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[Json]]:
    return dict(await session.records(_CURVES, ids=list(evaluation_ids)))


async def baselines(
    session: Session, wanted: Sequence[tuple[UUID, str]], alias: str
) -> Mapping[tuple[UUID, str], float | None]:
    """By evaluation and metric: what the version that holds the alias reached on the same rows."""
    ids = list(dict.fromkeys(evaluation_id for evaluation_id, _ in wanted))
    found = {
        id: {metric["name"]: metric["value"] for metric in metrics}
        for id, metrics in await session.records(_BASELINES, ids=ids, alias=alias)
    }
    return {(id, name): found[id].get(name) for id, name in wanted if id in found}


async def lock(session: Session, model_id: UUID) -> Model | None:
    """The model, locked: its version numbers and its aliases change one after the other."""
    return await session.first(Model, _LOCKED, id=model_id)


async def insert_unless_taken(
    session: Session,
    *,
    project_id: UUID,
    name: str,
    description: str | None,
    task: str,
    tags: Tags,
    created_by: UUID,
) -> Model | None:
    """The new model, or None when the project has one of this name."""
    statement = (
        upsert(models)
        .values(
            id=new_id(),
            project_id=project_id,
            name=name,
            description=description,
            task=task,
            tags=tags,
            created_by=created_by,
        )
        .on_conflict_do_nothing(index_elements=[models.c.project_id, models.c.name])
        .returning(*_MODEL)
    )
    return await session.first(Model, statement)


async def by_name(session: Session, project_id: UUID, name: str) -> Model | None:
    return await session.first(Model, _BY_NAME, project=project_id, name=name)


async def change_unless_taken(session: Session, id: UUID, **values: Any) -> Model | None:
    """Write columns of a model; None, and nothing written, when another one of its project has the name."""
    statement = (
        update(models)
        .where(models.c.id == id)
        .values(**values, updated_at=func.clock_timestamp(), revision=models.c.revision + 1)
        .returning(*_MODEL)
    )
    try:
        async with session.connection.transaction():
            return await session.first(Model, statement)
    except asyncpg.UniqueViolationError:
        return None


async def remove(session: Session, id: UUID) -> None:
    """Delete a model with its versions, their evaluations and the history of its aliases."""
    await session.run(delete(models).where(models.c.id == id))


async def waiting_to_register(session: Session, model_id: UUID, *, limit: int) -> list[TrainingRun]:
    """Runs that are not over and register their model here when they succeed, the oldest first."""
    statement = (
        select(*columns(TrainingRun, training_runs))
        .where(training_runs.c.register_model_id == model_id, training_runs.c.finished_at.is_(None))
        .order_by(training_runs.c.created_at)
        .limit(limit)
    )
    return await session.all(TrainingRun, statement)


async def change_version(session: Session, id: UUID, **values: Any) -> ModelVersion:
    """Write columns of a version whose model the caller has locked."""
    statement = (
        update(model_versions)
        .where(model_versions.c.id == id)
        .values(**values, revision=model_versions.c.revision + 1)
        .returning(*_VERSION)
    )
    version = await session.first(ModelVersion, statement)
    assert version is not None
    return version


async def add_importance(session: Session, id: UUID, found: Json) -> None:
    """Kinds of importance that a version does not tell yet; what it tells stays."""
    told = literal(found, JSONB).op("||", return_type=JSONB)(model_versions.c.importance)
    await session.run(update(model_versions).where(model_versions.c.id == id).values(importance=told))


async def remove_version(session: Session, id: UUID) -> None:
    """Delete a version with its evaluations; the history of aliases stays, and its files, which others may share."""
    await session.run(delete(model_versions).where(model_versions.c.id == id))


async def outcome(session: Session, run_id: UUID) -> Json | None:
    """What a run keeps of its training: files, signature, importance and evaluations; None without a model."""
    found: Json | None = await session.scalar(select(training_runs.c.outcome).where(training_runs.c.id == run_id))
    return found


async def insert_version(session: Session, model_id: UUID, **values: Any) -> ModelVersion:
    """A new version of a locked model, with the next number."""
    last = select(func.coalesce(func.max(model_versions.c.number), 0) + 1).where(model_versions.c.model_id == model_id)
    statement = (
        insert(model_versions)
        .values(id=new_id(), model_id=model_id, number=last.scalar_subquery(), **values)
        .returning(*_VERSION)
    )
    version = await session.first(ModelVersion, statement)
    assert version is not None
    await session.run(update(models).where(models.c.id == model_id).values(updated_at=func.clock_timestamp()))
    return version


async def insert_version_copy(
    session: Session, model_id: UUID, source_id: UUID, *, description: str | None, tags: Tags, created_by: UUID
) -> ModelVersion:
    """A new version of a locked model with the files, the signature and the importance of another version."""
    same = ("status", "run_id", "trained_on_id", "params", "model_key", "manifest_key", "manifest_sha256",
            "size_bytes", "sha256", "signature", "importance")  # fmt: skip
    copied = [select(model_versions.c[name]).where(model_versions.c.id == source_id).scalar_subquery() for name in same]
    values = dict(zip(same, copied, strict=True))
    return await insert_version(session, model_id, **values, description=description, tags=tags, created_by=created_by)


async def insert_evaluations(
    session: Session,
    version: ModelVersion,
    dataset_version_id: UUID,
    found: Sequence[Json],
) -> None:
    """What training found out, as `insert_evaluation` takes it; the last of them counts as the latest."""
    for id, evaluation in zip(sorted(new_id() for _ in found), found, strict=True):
        await insert_evaluation(
            session, version.id, dataset_version_id, evaluation, created_by=version.created_by, id=id
        )


async def insert_evaluation(
    session: Session,
    version_id: UUID,
    dataset_version_id: UUID,
    found: Json,
    *,
    created_by: UUID | None,
    id: UUID | None = None,
) -> UUID:
    """`found` is `{split, metrics, confusion_matrix, curves}`; curves are not there from before they were drawn."""
    id = id or new_id()
    await session.run(
        insert(evaluations).values(
            id=id,
            model_version_id=version_id,
            dataset_version_id=dataset_version_id,
            split=found["split"],
            metrics=found["metrics"],
            confusion_matrix=found["confusion_matrix"],
            curves=found.get("curves", []),
            created_by=created_by,
        )
    )
    return id


async def copy_evaluations(session: Session, source_id: UUID, version: ModelVersion) -> None:
    """What was found out about one version, said of another one with the same files."""
    known = select(evaluations.c.id).where(evaluations.c.model_version_id == source_id).order_by(evaluations.c.id)
    same = [evaluations.c[name] for name in ("dataset_version_id", "split", "metrics", "confusion_matrix", "curves")]
    for (source,) in await session.records(known):
        ours = [literal(new_id(), Uuid), literal(version.id, Uuid), literal(version.created_by, Uuid)]
        copied = select(*ours, *same).where(evaluations.c.id == source)
        names = ["id", "model_version_id", "created_by", *(column.name for column in same)]
        await session.run(insert(evaluations).from_select(names, copied))


class TrainedOn(NamedTuple):
    """The columns that a version was trained with: what it predicts, and how much each row counted."""

    target: str | None
    weight_column: str | None


async def trained_on(session: Session, version_id: UUID) -> TrainedOn | None:
    """None for a version that no run of ours trained."""
    spec = training_runs.c.spec
    statement = (
        select(spec["target"].astext, spec["weight_column"].astext)
        .join_from(model_versions, training_runs, training_runs.c.id == model_versions.c.run_id)
        .where(model_versions.c.id == version_id)
    )
    return await session.first(TrainedOn, statement)


async def holder(session: Session, model_id: UUID, alias: str) -> UUID | None:
    """The version an alias points at."""
    statement = select(model_aliases.c.version_id).where(
        model_aliases.c.model_id == model_id, model_aliases.c.name == alias
    )
    found: UUID | None = await session.scalar(statement)
    return found


async def move_alias(
    session: Session,
    model_id: UUID,
    alias: str,
    *,
    from_id: UUID | None,
    to_id: UUID | None,
    set_by: UUID | None,
    actor: str,
    reason: str | None,
) -> tuple[Model, AliasChange]:
    """Point an alias of a locked model at a version, or at none, and keep in its history that this was done."""
    if to_id is None:
        await session.run(
            delete(model_aliases).where(model_aliases.c.model_id == model_id, model_aliases.c.name == alias)
        )
    else:
        written = upsert(model_aliases).values(
            model_id=model_id, name=alias, version_id=to_id, set_at=func.clock_timestamp(), set_by=set_by
        )
        await session.run(
            written.on_conflict_do_update(
                index_elements=[model_aliases.c.model_id, model_aliases.c.name],
                set_={name: written.excluded[name] for name in ("version_id", "set_at", "set_by")},
            )
        )
    change = await session.first(
        AliasChange,
        insert(alias_changes)
        .values(id=new_id(), model_id=model_id, alias=alias, from_id=from_id, to_id=to_id, actor=actor, reason=reason)
        .returning(*_CHANGE),
    )
    model = await session.first(
        Model,
        update(models)
        .where(models.c.id == model_id)
        .values(updated_at=func.clock_timestamp(), revision=models.c.revision + 1)
        .returning(*_MODEL),
    )
    assert change is not None
    assert model is not None
    return model, change
