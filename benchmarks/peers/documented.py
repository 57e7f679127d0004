"""The four questions in the way Strawberry's documentation shows: ORM entities, DataLoaders, the stock ASGI view.

Entities of SQLAlchemy's ORM, a session for each batch (one session cannot serve concurrent fields), a DataLoader for
each relation in the request's context, `strawberry.asgi.GraphQL`, and the stock extensions that limit and cache
documents. `QueryDepthLimiter` and `MaxAliasesLimiter` are left out: with them `ValidationCache` never hits.
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, NewType
from uuid import UUID

import strawberry
from sqlalchemy import select, true
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, aliased
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader
from strawberry.extensions import MaxTokensLimiter, ParserCache, ValidationCache
from strawberry.schema.config import StrawberryConfig
from strawberry.types import Info

from benchmarks.questions import RUNS, VERSIONS
from db import tables
from resolvers.inputs.scalars import show_datetime

Context = dict[str, Any]
Asked = Info[Context, None]


class Entity(DeclarativeBase):
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The columns, which the tables declare."""


class UserEntity(Entity):
    __table__ = tables.users


class RoleEntity(Entity):
    __table__ = tables.roles


class GrantEntity(Entity):
    __table__ = tables.grants


class DatasetEntity(Entity):
    __table__ = tables.datasets


class DatasetVersionEntity(Entity):
    __table__ = tables.dataset_versions
    __mapper_args__ = {"exclude_properties": ["changed"]}  # noqa: RUF012


class TrainingRunEntity(Entity):
    __table__ = tables.training_runs
    __mapper_args__ = {"exclude_properties": ["changed"]}  # noqa: RUF012


class MetricSeriesEntity(Entity):
    __table__ = tables.metric_series


class MetricPointEntity(Entity):
    __table__ = tables.metric_points
    __mapper_args__ = {  # noqa: RUF012
        "exclude_properties": ["changed"],
        "primary_key": [tables.metric_points.c.series_id, tables.metric_points.c.step, tables.metric_points.c.at],
    }


BigInt = NewType("BigInt", int)
Permission = Enum("Permission", {"DATASET_UPDATE": "DATASET_UPDATE"})
DownsampleMethod = Enum("DownsampleMethod", {"NONE": "NONE"})
strawberry.enum(Permission)
strawberry.enum(DownsampleMethod)


@strawberry.type
class User:
    @strawberry.field
    def id(self: UserEntity) -> strawberry.ID:
        return strawberry.ID(f"user_{self.id.hex}")

    username: str
    display_name: str


@strawberry.type
class Role:
    @strawberry.field
    def id(self: RoleEntity) -> strawberry.ID:
        return strawberry.ID(f"role_{self.id.hex}")

    name: str


@strawberry.type
class Grant:
    @strawberry.field
    def id(self: GrantEntity) -> strawberry.ID:
        return strawberry.ID(f"grant_{self.id.hex}")

    @strawberry.field
    async def role(self: GrantEntity, info: Asked) -> Role | None:
        role: Role | None = await info.context["role"].load(self.role_id)
        return role


@strawberry.type
class PermissionDecision:
    allowed: bool
    decided_by: list[Grant]


@strawberry.type
class TrainingRun:
    @strawberry.field
    def id(self: TrainingRunEntity) -> strawberry.ID:
        return strawberry.ID(f"run_{self.id.hex}")

    name: str
    status: str
    created_at: datetime


@strawberry.type
class TrainingRunConnection:
    nodes: list[TrainingRun]


@strawberry.type
class DatasetVersion:
    @strawberry.field
    def id(self: DatasetVersionEntity) -> strawberry.ID:
        return strawberry.ID(f"datasetversion_{self.id.hex}")

    number: int
    status: str
    row_count: BigInt | None

    @strawberry.field
    async def used_by_runs(self: DatasetVersionEntity, info: Asked, first: int = RUNS) -> TrainingRunConnection:
        return TrainingRunConnection(nodes=await info.context["runs"].load((self.id, first)))


@strawberry.type
class DatasetVersionConnection:
    nodes: list[DatasetVersion]


@strawberry.type
class Dataset:
    @strawberry.field
    def id(self: DatasetEntity) -> strawberry.ID:
        return strawberry.ID(f"dataset_{self.id.hex}")

    name: str
    description: str | None
    created_at: datetime
    updated_at: datetime
    revision: int

    @strawberry.field
    async def created_by(self: DatasetEntity, info: Asked) -> User | None:
        user: User | None = await info.context["user"].load(self.created_by)
        return user

    @strawberry.field
    async def viewer_can(self: DatasetEntity, info: Asked, permission: Permission) -> PermissionDecision:
        held = await info.context["grants"].load(info.context["viewer"])
        roles = await info.context["role"].load_many([grant.role_id for grant in held])
        deciding = [g for g, role in zip(held, roles, strict=True) if permission.value in role.permissions]
        return PermissionDecision(allowed=bool(deciding), decided_by=deciding)

    @strawberry.field
    async def versions(self: DatasetEntity, info: Asked, first: int = VERSIONS) -> DatasetVersionConnection:
        return DatasetVersionConnection(nodes=await info.context["versions"].load((self.id, first)))


@strawberry.type
class PageInfo:
    has_next_page: bool


@strawberry.type
class DatasetConnection:
    nodes: list[Dataset]
    page_info: PageInfo


@strawberry.type
class MetricPoint:
    step: BigInt
    value: float


@strawberry.type
class MetricColumns:
    step: list[int]
    value: list[float]


@strawberry.input
class DownsampleInput:
    max_points: int
    method: DownsampleMethod


@strawberry.type
class MetricData:
    entities: strawberry.Private[list[MetricPointEntity]]

    @strawberry.field
    def points(self, limit: int) -> list[MetricPoint]:
        return self.entities[:limit]  # type: ignore[return-value]

    @strawberry.field
    def columns(self) -> MetricColumns:
        return MetricColumns(
            step=[point.step for point in self.entities], value=[point.value for point in self.entities]
        )


@strawberry.type
class MetricSeries:
    @strawberry.field
    def id(self: MetricSeriesEntity) -> strawberry.ID:
        return strawberry.ID(f"series_{self.id.hex}")

    name: str

    @strawberry.field
    async def data(self: MetricSeriesEntity, info: Asked, downsample: DownsampleInput) -> MetricData:
        return MetricData(entities=await info.context["points"].load((self.id, downsample.max_points)))


@strawberry.type
class MetricSeriesConnection:
    nodes: list[MetricSeries]


@strawberry.input
class MetricSeriesFilter:
    run_id: strawberry.ID


@strawberry.type
class Query:
    @strawberry.field
    async def datasets(self, info: Asked, first: int) -> DatasetConnection:
        table = tables.datasets.c
        newest = select(DatasetEntity).order_by(table.updated_at.desc(), table.id.desc())
        async with info.context["sessions"]() as session:
            found = list(await session.scalars(newest.limit(first + 1)))
        return DatasetConnection(nodes=found[:first], page_info=PageInfo(has_next_page=len(found) > first))

    @strawberry.field
    async def metric_series(self, info: Asked, filter: MetricSeriesFilter, first: int) -> MetricSeriesConnection:
        table, run_id = tables.metric_series.c, UUID(filter.run_id.removeprefix("run_"))
        by_name = select(MetricSeriesEntity).where(table.run_id == run_id).order_by(table.name, table.id)
        async with info.context["sessions"]() as session:
            return MetricSeriesConnection(nodes=list(await session.scalars(by_name.limit(first))))


def loaders(sessions: async_sessionmaker[AsyncSession]) -> dict[str, DataLoader[Any, Any]]:
    """The loaders of one request."""

    def by_id(entity: Any) -> DataLoader[Any, Any]:
        async def load(keys: list[UUID]) -> list[Any]:
            async with sessions() as session:
                found = {one.id: one for one in await session.scalars(select(entity).where(entity.id.in_(keys)))}
            return [found.get(key) for key in keys]

        return DataLoader(load)

    def first_of(entity: Any, parent: str, *order: Any) -> DataLoader[Any, Any]:
        async def load(keys: list[tuple[UUID, int]]) -> list[list[Any]]:
            ids, first = [id for id, _ in keys], keys[0][1]
            table = entity.__table__
            parents = select(table.c[parent].label("id")).where(table.c[parent].in_(ids)).distinct().subquery()
            child = select(table).where(table.c[parent] == parents.c.id).order_by(*order).limit(first).lateral()
            children = aliased(entity, child)
            found = defaultdict(list)
            async with sessions() as session:
                for one in await session.scalars(select(children).select_from(parents.join(child, true()))):
                    found[getattr(one, parent)].append(one)
            return [found[id] for id in ids]

        return DataLoader(load)

    async def grants(keys: list[UUID]) -> list[list[GrantEntity]]:
        held, found = tables.grants.c, defaultdict(list)
        async with sessions() as session:
            for grant in await session.scalars(select(GrantEntity).where(held.user_id.in_(keys))):
                found[grant.user_id].append(grant)
        return [found[key] for key in keys]

    versions, runs, points = tables.dataset_versions.c, tables.training_runs.c, tables.metric_points.c
    return {
        "user": by_id(UserEntity),
        "role": by_id(RoleEntity),
        "grants": DataLoader(grants),
        "versions": first_of(DatasetVersionEntity, "dataset_id", versions.number.desc()),
        "runs": first_of(TrainingRunEntity, "dataset_version_id", runs.created_at.desc(), runs.id.desc()),
        "points": first_of(MetricPointEntity, "series_id", points.step),
    }


schema = strawberry.Schema(
    query=Query,
    extensions=[lambda: MaxTokensLimiter(1000), ParserCache, ValidationCache],
    config=StrawberryConfig(
        scalar_map={
            BigInt: strawberry.scalar(name="BigInt", serialize=str, parse_value=int),
            datetime: strawberry.scalar(name="DateTime", serialize=show_datetime, parse_value=datetime.fromisoformat),
        }
    ),
)


@asynccontextmanager
async def opened(*, database_url: str, viewer: UUID, run: UUID) -> AsyncIterator[GraphQL[Context, None]]:
    """The ASGI app: `viewer` is whose roles decide; `run` comes with each request."""
    engine = create_async_engine(
        database_url.replace("postgresql://", "postgresql+asyncpg://", 1),
        pool_size=10,
        max_overflow=0,
        connect_args={"server_settings": {"jit": "off"}},
    )
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    class View(GraphQL[Context, None]):
        async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
            return {"request": request, "sessions": sessions, "viewer": viewer, **loaders(sessions)}

    try:
        yield View(schema)
    finally:
        await engine.dispose()
