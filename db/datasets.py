"""Queries on datasets, their versions, columns and aliases."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    LargeBinary,
    ScalarSelect,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.dialects.postgresql import JSONB, distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from auth.permissions import Permission
from db.conditions import instant, integer, one_of, tagged, words
from db.database import Prepared, Session
from db.events import State, settled
from db.ids import Kind, key_of, new_id
from db.jobs import Job
from db.paging import Order, Page, PageArgs, page, pages
from db.rows import Column, Dataset, DatasetAlias, DatasetVersion, Json, Tags, columns
from db.sight import dataset_in_sight, in_sight, version_in_sight
from db.tables import dataset_aliases, dataset_columns, dataset_versions, datasets, upload_sessions
from db.vocabulary import ColumnRole, DatasetFormat, DatasetVersionStatus

_IDS = bindparam("ids", type_=ARRAY(Uuid))
_DATASET = columns(Dataset, datasets)
_VERSION = columns(DatasetVersion, dataset_versions)
_COLUMN = columns(Column, dataset_columns)
_ALIAS = columns(DatasetAlias, dataset_aliases)
_IN_SIGHT = in_sight(Permission.DATASET_READ, datasets.c.project_id, datasets.c.id)
_BY_IDS = Prepared(select(*_DATASET).where(datasets.c.id == any_(_IDS), _IN_SIGHT))
_VERSIONS_BY_IDS = Prepared(
    select(*_VERSION).where(dataset_versions.c.id == any_(_IDS), dataset_in_sight(dataset_versions.c.dataset_id))
)
_COLUMNS_BY_IDS = Prepared(
    select(*_COLUMN).where(dataset_columns.c.id == any_(_IDS), version_in_sight(dataset_columns.c.version_id))
)
_COLUMNS_OF_VERSION = Prepared(
    select(*_COLUMN).where(dataset_columns.c.version_id == bindparam("id")).order_by(dataset_columns.c.position)
)
_LATEST = Prepared(
    select(*_VERSION)
    .where(dataset_versions.c.dataset_id == any_(_IDS), dataset_versions.c.status == DatasetVersionStatus.READY)
    .ext(distinct_on(dataset_versions.c.dataset_id))
    .order_by(dataset_versions.c.dataset_id, dataset_versions.c.number.desc())
)
_ALIASES = Prepared(select(*_ALIAS).where(dataset_aliases.c.dataset_id == any_(_IDS)).order_by(dataset_aliases.c.name))
_ORDERS = {
    "NAME": datasets.c.name,
    "CREATED_AT": datasets.c.created_at,
    "UPDATED_AT": datasets.c.updated_at,
}
_NEWEST_FIRST = Order.by("NUMBER", dataset_versions.c.number, descending=True)
_BY_POSITION = Order.by("POSITION", dataset_columns.c.position)


_EXPECTED_SHA256 = (
    select(upload_sessions.c.sha256)
    .where(upload_sessions.c.version_id == dataset_versions.c.id)
    .limit(1)
    .correlate(dataset_versions)
    .scalar_subquery()
)


class VersionRef(NamedTuple):
    """How a version is named within its dataset: one of the three is given."""

    number: int | None = None
    alias: str | None = None
    digest: str | None = None


class Claimed(NamedTuple):
    """What a worker needs to process a version, and how often that has been tried."""

    version: DatasetVersion
    attempt: int
    project_id: UUID
    expected_sha256: str | None
    tolerated_rejects: float


# Datasets


async def by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Dataset]:
    return {dataset.id: dataset for dataset in await session.all(Dataset, _BY_IDS, ids=list(ids))}


async def by_name(session: Session, project_id: UUID, name: str) -> Dataset | None:
    mine = (_IN_SIGHT, datasets.c.project_id == project_id, datasets.c.name == name)
    return await session.first(Dataset, select(*_DATASET).where(*mine))


async def listed(session: Session, args: PageArgs) -> Page[Dataset]:
    """A page of all datasets; `args.order` is a field of `DatasetOrderField` and whether it descends."""
    return await page(session, Dataset, _matching(args), _order(args), args)


async def of_projects(session: Session, project_ids: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[Dataset]]:
    return await pages(session, Dataset, _matching(args), datasets.c.project_id, project_ids, _order(args), args)


def _order(args: PageArgs) -> Order:
    name, descending = args.order
    return Order.by(name, _ORDERS[name], datasets.c.id, descending=descending)


def _matching(args: PageArgs) -> Select[Any]:
    statement = select(*_DATASET).where(_IN_SIGHT)
    return statement if args.filter is None else statement.where(_meant(args.filter))


def _meant(wanted: Any) -> ColumnElement[bool]:
    """What a `DatasetFilter` means: all of its parts at once."""
    parts: list[ColumnElement[bool]] = [
        *words(datasets.c.name, wanted.name),
        *tagged(datasets.c.tags, wanted.tags),
        *instant(datasets.c.created_at, wanted.created_at),
    ]
    if wanted.created_by_id is not None:
        user_id = key_of(wanted.created_by_id, Kind.USER)
        parts.append(false() if user_id is None else datasets.c.created_by == user_id)
    if wanted.search is not None:
        text = func.concat_ws(" ", datasets.c.name, datasets.c.description, type_=Text)
        parts += [text.icontains(word, autoescape=True) for word in wanted.search.split()]
    parts += [_meant(part) for part in wanted.and_ or ()]
    if wanted.or_ is not None:
        parts.append(or_(false(), *(_meant(part) for part in wanted.or_)))
    if wanted.not_ is not None:
        parts.append(not_(_meant(wanted.not_)))
    return and_(true(), *parts)


async def insert_unless_taken(
    session: Session,
    *,
    project_id: UUID,
    name: str,
    description: str | None,
    tags: Tags,
    tolerated_rejects: float = 0.0,
    created_by: UUID,
) -> Dataset | None:
    """The new dataset, or None when the project has one of this name."""
    statement = (
        upsert(datasets)
        .values(
            id=new_id(),
            project_id=project_id,
            name=name,
            description=description,
            tags=tags,
            tolerated_rejects=tolerated_rejects,
            created_by=created_by,
        )
        .on_conflict_do_nothing(index_elements=[datasets.c.project_id, datasets.c.name])
        .returning(*_DATASET)
    )
    return await session.first(Dataset, statement)


async def lock(session: Session, dataset_id: UUID, *, revised: bool) -> Dataset | None:
    """The dataset, marked as updated now and held until the transaction ends; `revised` also counts a revision."""
    statement = (
        update(datasets)
        .where(datasets.c.id == dataset_id, _IN_SIGHT)
        .values(updated_at=func.clock_timestamp(), revision=datasets.c.revision + int(revised))
        .returning(*_DATASET)
    )
    return await session.first(Dataset, statement)


async def change_unless_taken(session: Session, dataset_id: UUID, **values: Any) -> Dataset | None:
    """Set columns of a dataset that the transaction has locked; None when another one of the project has the name."""
    statement = update(datasets).where(datasets.c.id == dataset_id).values(**values).returning(*_DATASET)
    try:
        async with session.connection.transaction():
            return await session.first(Dataset, statement)
    except asyncpg.UniqueViolationError:
        return None


async def lock_versions(session: Session, dataset_id: UUID) -> list[DatasetVersion]:
    """Every version, held so that no run can begin to use one until the transaction ends."""
    statement = (
        select(*_VERSION)
        .where(dataset_versions.c.dataset_id == dataset_id)
        .order_by(dataset_versions.c.number)
        .with_for_update()
    )
    return await session.all(DatasetVersion, statement)


async def remove(session: Session, dataset_id: UUID) -> None:
    """Delete a dataset with its versions, columns, aliases and uploads; its objects stay."""
    await session.run(delete(datasets).where(datasets.c.id == dataset_id))


# Versions


async def versions_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, DatasetVersion]:
    return {version.id: version for version in await session.all(DatasetVersion, _VERSIONS_BY_IDS, ids=list(ids))}


async def versions_of_datasets(
    session: Session, dataset_ids: Sequence[UUID], args: PageArgs
) -> Mapping[UUID, Page[DatasetVersion]]:
    """Newest first; `args.filter` is a `DatasetVersionFilter`."""
    statement, wanted = select(*_VERSION), args.filter
    if wanted is not None:
        statement = statement.where(
            *instant(dataset_versions.c.created_at, wanted.created_at),
            *integer(dataset_versions.c.row_count, wanted.row_count),
        )
        if wanted.statuses is not None:
            statement = statement.where(one_of(dataset_versions.c.status, wanted.statuses))
    return await pages(
        session, DatasetVersion, statement, dataset_versions.c.dataset_id, dataset_ids, _NEWEST_FIRST, args
    )


async def latest_versions(session: Session, dataset_ids: Sequence[UUID]) -> Mapping[UUID, DatasetVersion]:
    """The newest READY version of each dataset."""
    found = await session.all(DatasetVersion, _LATEST, ids=list(dataset_ids))
    return {version.dataset_id: version for version in found}


async def versions_named(
    session: Session, dataset_ids: Sequence[UUID], ref: VersionRef
) -> Mapping[UUID, DatasetVersion]:
    """The version of each dataset that `ref` names; of several with one digest the newest."""
    statement = (
        select(*_VERSION)
        .where(dataset_versions.c.dataset_id == any_(literal(list(dataset_ids), ARRAY(Uuid))))
        .ext(distinct_on(dataset_versions.c.dataset_id))
        .order_by(dataset_versions.c.dataset_id, dataset_versions.c.number.desc())
    )
    if ref.number is not None:
        statement = statement.where(dataset_versions.c.number == ref.number)
    if ref.digest is not None:
        statement = statement.where(dataset_versions.c.digest == ref.digest)
    if ref.alias is not None:
        statement = statement.join(dataset_aliases, dataset_aliases.c.version_id == dataset_versions.c.id).where(
            dataset_aliases.c.name == ref.alias
        )
    return {version.dataset_id: version for version in await session.all(DatasetVersion, statement)}


async def insert_version(
    session: Session,
    *,
    id: UUID,
    dataset_id: UUID,
    format: DatasetFormat,
    csv_options: Json | None,
    source: Json,
    note: str | None,
    created_by: UUID,
) -> DatasetVersion:
    """The next version of a dataset that the transaction has locked: numbers have no gaps."""
    statement = (
        insert(dataset_versions)
        .values(
            id=id,
            dataset_id=dataset_id,
            number=_next_number(dataset_id),
            status=DatasetVersionStatus.UPLOADING,
            progress={"phase": "upload"},
            format=format,
            csv_options=csv_options,
            source=source,
            note=note,
            created_by=created_by,
        )
        .returning(*_VERSION)
    )
    made = await session.first(DatasetVersion, statement)
    assert made is not None
    return made


def _next_number(dataset_id: UUID) -> ScalarSelect[int]:
    last = select(func.coalesce(func.max(dataset_versions.c.number), 0) + 1)
    return last.where(dataset_versions.c.dataset_id == dataset_id).scalar_subquery()


async def state_of(session: Session, version_id: UUID) -> State[DatasetVersion] | None:
    statement = select(
        dataset_versions.c.changed, settled(dataset_versions.c.changed).label("is_settled"), *_VERSION
    ).where(dataset_versions.c.id == version_id, dataset_in_sight(dataset_versions.c.dataset_id))
    for changed, is_settled, *rest in await session.records(statement):
        return State(DatasetVersion._make(rest), changed, is_settled)
    return None


async def uploaded(session: Session, version_id: UUID, *, upload_key: str, size_bytes: int) -> DatasetVersion | None:
    """The bytes have arrived: UPLOADING becomes PROCESSING. None when the version is in another state."""
    return await _changed_version(
        session,
        dataset_versions.c.id == version_id,
        DatasetVersionStatus.UPLOADING,
        status=DatasetVersionStatus.PROCESSING,
        progress={"phase": "queued", "fraction": 0},
        upload_key=upload_key,
        size_bytes=size_bytes,
    )


async def upload_ended(session: Session, version_id: UUID, failure: Json) -> DatasetVersion | None:
    """The bytes will not come: UPLOADING becomes FAILED."""
    return await _changed_version(
        session,
        dataset_versions.c.id == version_id,
        DatasetVersionStatus.UPLOADING,
        status=DatasetVersionStatus.FAILED,
        failure=failure,
    )


async def process_again(session: Session, version_id: UUID) -> DatasetVersion | None:
    """FAILED becomes PROCESSING, as if it had never been tried. None when the version is in another state."""
    return await _changed_version(
        session,
        dataset_versions.c.id == version_id,
        DatasetVersionStatus.FAILED,
        status=DatasetVersionStatus.PROCESSING,
        progress={"phase": "queued", "fraction": 0},
        failure=None,
        rejected_rows=None,
        rejects=None,
        attempt=0,
        lease=None,
    )


async def without_job(session: Session) -> list[UUID]:
    """The versions that are PROCESSING and that no job is about."""
    return [id for (id,) in await session.records(_WITHOUT_JOB)]


_QUEUE = sql_table("pgqueuer", sql_column("entrypoint", Text), sql_column("payload", LargeBinary))
_WITHOUT_JOB = Prepared(
    select(dataset_versions.c.id).where(
        dataset_versions.c.status == DatasetVersionStatus.PROCESSING,
        ~exists(
            select(true())
            .select_from(_QUEUE)
            .where(
                _QUEUE.c.entrypoint == literal(Job.PROCESS_VERSION.value),
                _QUEUE.c.payload == func.uuid_send(dataset_versions.c.id),
            )
        ),
    )
)


async def claim(session: Session, version_id: UUID, lease: UUID, progress: Json) -> Claimed | None:
    """Take a version to process it; earlier leases end. A lease that is taken again is the same attempt.

    None when the version is not PROCESSING.
    """
    another = dataset_versions.c.lease.is_distinct_from(literal(lease, Uuid))
    statement = (
        update(dataset_versions)
        .where(
            dataset_versions.c.id == version_id,
            dataset_versions.c.status == DatasetVersionStatus.PROCESSING,
            datasets.c.id == dataset_versions.c.dataset_id,
        )
        .values(
            attempt=dataset_versions.c.attempt + cast(another, Integer),
            lease=lease,
            progress=progress,
            changed=func.pg_current_xact_id(),
        )
        .returning(
            dataset_versions.c.attempt,
            datasets.c.project_id,
            _EXPECTED_SHA256,
            datasets.c.tolerated_rejects,
            *_VERSION,
        )
    )
    for attempt, project_id, sha256, tolerated, *rest in await session.records(statement):
        session.topics.add(version_topic(version_id))
        return Claimed(DatasetVersion._make(rest), attempt, project_id, sha256, tolerated)
    return None


async def note_progress(session: Session, version_id: UUID, lease: UUID, progress: Json) -> bool:
    """False when the lease is over: another worker has the version now."""
    return await _leased(session, version_id, lease, progress=progress) is not None


async def release(session: Session, version_id: UUID, lease: UUID) -> DatasetVersion | None:
    """Give a version back unfinished, as if it had not been tried; None without lease."""
    return await _leased(session, version_id, lease, lease=None, attempt=dataset_versions.c.attempt - 1)


async def finish(
    session: Session,
    version_id: UUID,
    lease: UUID,
    *,
    data_key: str,
    digest: str,
    row_count: int,
    described: Sequence[Json],
    rejected_rows: int = 0,
    rejects: Sequence[Json] = (),
    csv_found: Json | None = None,
) -> DatasetVersion | None:
    """PROCESSING becomes READY, its columns (`described`, fields of `db.rows.Column`) are there; None without lease."""
    ready = await _leased(
        session,
        version_id,
        lease,
        status=DatasetVersionStatus.READY,
        progress={"phase": "ready", "fraction": 1},
        data_key=data_key,
        digest=digest,
        row_count=row_count,
        column_count=len(described),
        rejected_rows=rejected_rows,
        rejects=list(rejects),
        csv_found=csv_found,
        lease=None,
    )
    if ready is not None:
        await _insert_columns(session, version_id, described)
    return ready


async def insert_derived_version(
    session: Session,
    *,
    id: UUID,
    dataset_id: UUID,
    format: DatasetFormat,
    source: Json,
    note: str | None,
    created_by: UUID | None,
    key: str,
    digest: str,
    size_bytes: int,
    row_count: int,
    described: Sequence[Json],
) -> DatasetVersion:
    """The next version of a dataset that the transaction has locked, READY: `key` is where its Parquet is stored."""
    statement = (
        insert(dataset_versions)
        .values(
            id=id,
            dataset_id=dataset_id,
            number=_next_number(dataset_id),
            status=DatasetVersionStatus.READY,
            progress={"phase": "ready", "fraction": 1},
            format=format,
            digest=digest,
            size_bytes=size_bytes,
            row_count=row_count,
            column_count=len(described),
            source=source,
            note=note,
            upload_key=key,
            data_key=key,
            created_by=created_by,
        )
        .returning(*_VERSION)
    )
    made = await session.first(DatasetVersion, statement)
    assert made is not None
    await _insert_columns(session, id, described)
    return made


async def _insert_columns(session: Session, version_id: UUID, described: Sequence[Json]) -> None:
    names = list(Column._fields)
    given = (
        func.jsonb_to_recordset(bindparam("described", type_=JSONB))
        .table_valued(*(sql_column(name, dataset_columns.c[name].type) for name in names), name="given")
        .render_derived(with_types=True)
    )
    if described:
        await session.run(
            insert(dataset_columns).from_select(names, select(*(given.c[name] for name in names))),
            described=[{**one, "id": new_id().hex, "version_id": version_id.hex} for one in described],
        )


async def fail(
    session: Session,
    version_id: UUID,
    lease: UUID,
    failure: Json,
    *,
    digest: str | None,
    rejected_rows: int | None = None,
    rejects: Sequence[Json] = (),
) -> DatasetVersion | None:
    """PROCESSING becomes FAILED; None without lease."""
    return await _leased(
        session,
        version_id,
        lease,
        status=DatasetVersionStatus.FAILED,
        failure=failure,
        digest=digest,
        rejected_rows=rejected_rows,
        rejects=list(rejects),
        lease=None,
    )


async def twin(session: Session, version: DatasetVersion, digest: str) -> DatasetVersion | None:
    """A READY version of the same dataset that was made of the same bytes, read in the same way and without rejects."""
    statement = (
        select(*_VERSION)
        .where(
            dataset_versions.c.dataset_id == version.dataset_id,
            dataset_versions.c.status == DatasetVersionStatus.READY,
            dataset_versions.c.digest == digest,
            dataset_versions.c.format == version.format,
            dataset_versions.c.csv_options.is_not_distinct_from(literal(version.csv_options, JSONB(none_as_null=True))),
            dataset_versions.c.rejected_rows == 0,
        )
        .order_by(dataset_versions.c.number)
        .limit(1)
    )
    return await session.first(DatasetVersion, statement)


async def finish_as(session: Session, version_id: UUID, lease: UUID, twin: DatasetVersion) -> DatasetVersion | None:
    """PROCESSING becomes READY with the objects and the columns of its twin; None without lease."""
    ready = await _leased(
        session,
        version_id,
        lease,
        status=DatasetVersionStatus.READY,
        progress={"phase": "ready", "fraction": 1},
        **{
            name: getattr(twin, name)
            for name in (
                "upload_key",
                "data_key",
                "digest",
                "row_count",
                "column_count",
                "rejected_rows",
                "rejects",
                "csv_found",
            )
        },
        lease=None,
    )
    if ready is not None:
        given: dict[str, ColumnElement[Any]] = {
            "id": func.gen_random_uuid(),
            "version_id": literal(version_id, Uuid),
            "role": literal(ColumnRole.FEATURE, Text),
            "description": null(),
        }
        names = list(Column._fields)
        copied = select(*(given.get(name, dataset_columns.c[name]) for name in names))
        await session.run(
            insert(dataset_columns).from_select(names, copied.where(dataset_columns.c.version_id == twin.id))
        )
    return ready


async def _leased(session: Session, version_id: UUID, held: UUID, /, **values: Any) -> DatasetVersion | None:
    mine = and_(dataset_versions.c.id == version_id, dataset_versions.c.lease == held)
    return await _changed_version(session, mine, DatasetVersionStatus.PROCESSING, **values)


async def _changed_version(
    session: Session, mine: ColumnElement[bool], status: DatasetVersionStatus, /, **values: Any
) -> DatasetVersion | None:
    statement = (
        update(dataset_versions)
        .where(mine, dataset_versions.c.status == literal(status, Text))
        .values(changed=func.pg_current_xact_id(), **values)
        .returning(*_VERSION)
    )
    changed = await session.first(DatasetVersion, statement)
    if changed is not None:
        session.topics.add(version_topic(changed.id))
    return changed


def version_topic(version_id: UUID) -> str:
    """Rings when the version has changed."""
    return f"version:{version_id.hex}"


# Columns


async def columns_by_ids(session: Session, ids: Sequence[UUID]) -> Mapping[UUID, Column]:
    return {column.id: column for column in await session.all(Column, _COLUMNS_BY_IDS, ids=list(ids))}


async def columns_of_versions(
    session: Session, version_ids: Sequence[UUID], args: PageArgs
) -> Mapping[UUID, Page[Column]]:
    """By position; `args.filter` is a `ColumnFilter`."""
    statement, wanted = select(*_COLUMN), args.filter
    if wanted is not None:
        statement = statement.where(*words(dataset_columns.c.name, wanted.name))
        if wanted.types is not None:
            statement = statement.where(one_of(dataset_columns.c.type, wanted.types))
        if wanted.roles is not None:
            statement = statement.where(one_of(dataset_columns.c.role, wanted.roles))
    return await pages(session, Column, statement, dataset_columns.c.version_id, version_ids, _BY_POSITION, args)


async def columns_of_version(session: Session, version_id: UUID) -> list[Column]:
    """Every column, by position."""
    return await session.all(Column, _COLUMNS_OF_VERSION, id=version_id)


async def change_column(session: Session, column_id: UUID, **values: Any) -> Column | None:
    statement = update(dataset_columns).where(dataset_columns.c.id == column_id).values(**values).returning(*_COLUMN)
    return await session.first(Column, statement)


# Aliases


async def aliases_of_datasets(session: Session, dataset_ids: Sequence[UUID]) -> Mapping[UUID, list[DatasetAlias]]:
    """By name."""
    found: dict[UUID, list[DatasetAlias]] = {id: [] for id in dataset_ids}
    for alias in await session.all(DatasetAlias, _ALIASES, ids=list(dataset_ids)):
        found[alias.dataset_id].append(alias)
    return found


async def set_alias(session: Session, *, dataset_id: UUID, name: str, version_id: UUID, set_by: UUID) -> None:
    made = upsert(dataset_aliases).values(dataset_id=dataset_id, name=name, version_id=version_id, set_by=set_by)
    await session.run(
        made.on_conflict_do_update(
            index_elements=[dataset_aliases.c.dataset_id, dataset_aliases.c.name],
            set_={
                "version_id": made.excluded.version_id,
                "set_by": made.excluded.set_by,
                "set_at": func.clock_timestamp(),
            },
        )
    )


async def remove_alias(session: Session, *, dataset_id: UUID, name: str) -> None:
    mine = (dataset_aliases.c.dataset_id == dataset_id, dataset_aliases.c.name == name)
    await session.run(delete(dataset_aliases).where(*mine))
