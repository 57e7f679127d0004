"""The rows that are asked for: written by COPY, the same ones every time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from auth.permissions import BUILT_IN_ROLES
from benchmarks.questions import DATASETS, POINTS, RUNS, SERIES, VERSIONS
from db import roles
from db.database import Database, Session
from db.vocabulary import (
    Algorithm,
    DatasetFormat,
    DatasetVersionStatus,
    GrantScopeType,
    MetricKind,
    MetricScope,
    MLTask,
    TrainingRunStatus,
    UserStatus,
)

OWNERS = 20
OTHER_RUNS_WITH_SERIES = 10
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Seeded:
    """`run_id` is the run whose series are asked for."""

    run_id: UUID
    rows: int


async def seed(db: Database) -> Seeded:
    """Fill a database that holds the built-in roles alone with a laboratory's datasets, versions, runs and curves.

    A fifth more of everything than any question asks for, so that every page has a next one.
    """
    async with db.transaction() as session:
        known = [await roles.by_name(session, role.name) for role in BUILT_IN_ROLES]
        tables = _tables([role.id for role in known if role is not None])
        for table, records in tables.items():
            await _copy(session, table, records)
        for table in tables:
            await session.connection.execute(f"ANALYZE {table}")
    run_id = tables["metric_series"][0]["run_id"]
    return Seeded(run_id=run_id, rows=sum(map(len, tables.values())))


async def _copy(session: Session, table: str, records: Sequence[dict[str, Any]]) -> None:
    await session.connection.copy_records_to_table(
        table, columns=list(records[0]), records=[tuple(record.values()) for record in records]
    )


def _tables(role_ids: Sequence[UUID]) -> dict[str, list[dict[str, Any]]]:
    random = Random(2)
    made = 0

    def key() -> UUID:
        """Ascending, as the keys of rows that were made one after the other."""
        nonlocal made
        made += 1
        return UUID(int=made << 80 | 7 << 76 | 2 << 62 | random.getrandbits(48))

    def later(seconds: float) -> datetime:
        return _BEGIN + timedelta(seconds=round(seconds, 3))

    users = [
        {
            "id": key(),
            "username": f"owner{number:02}",
            "display_name": f"Owner {number}",
            "email": f"owner{number:02}@example.com",
            "status": UserStatus.ACTIVE,
            "created_at": later(number),
            "updated_at": later(number),
        }
        for number in range(OWNERS)
    ]
    project = {
        "id": key(),
        "slug": "laboratory",
        "name": "Laboratory",
        "description": None,
        "tags": [],
        "created_by": users[0]["id"],
    }
    datasets: list[dict[str, Any]] = []
    versions: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    series: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    moment = 0.0
    for number in range(DATASETS * 6 // 5):
        moment += 100.123
        dataset = {
            "id": key(),
            "project_id": project["id"],
            "name": f"measurements-{number:03}",
            "description": f"What the sensors of line {number} wrote down, cleaned and joined with the shift plan.",
            "tags": [{"key": "line", "value": str(number)}],
            "created_at": later(moment),
            "updated_at": later(moment + 5_000 + random.random()),
            "created_by": users[number % OWNERS]["id"],
            "revision": 1 + number % 7,
        }
        datasets.append(dataset)
        for version_number in range(1, VERSIONS + 2):
            version = {
                "id": key(),
                "dataset_id": dataset["id"],
                "number": version_number,
                "status": DatasetVersionStatus.READY,
                "progress": {"phase": "ready", "fraction": 1},
                "format": DatasetFormat.CSV,
                "digest": f"{random.getrandbits(256):064x}",
                "size_bytes": random.randrange(10**6, 10**9),
                "row_count": random.randrange(10**3, 10**7),
                "column_count": 30,
                "source": {"kind": "UPLOAD", "uploaded_file_name": "measurements.csv"},
                "created_at": later(moment + version_number),
                "created_by": dataset["created_by"],
            }
            versions.append(version)
            for run_number in range(1, RUNS + 2):
                moment += 0.5
                began = later(moment + 10)
                runs.append(
                    {
                        "id": key(),
                        "project_id": project["id"],
                        "name": f"run-{number:03}-{version_number}-{run_number}",
                        "tags": [],
                        "created_at": later(moment),
                        "updated_at": later(moment + 60),
                        "created_by": dataset["created_by"],
                        "status": TrainingRunStatus.SUCCEEDED,
                        "progress": {"phase": "finished", "fraction": 1},
                        "task": MLTask.BINARY_CLASSIFICATION,
                        "algorithm": Algorithm.LIGHTGBM,
                        "spec": {"task": "BINARY_CLASSIFICATION", "target": "faulty", "num_rounds": 500, "seed": 42},
                        "params": [{"name": "num_leaves", "value": 31, "explicit": False}],
                        "dataset_version_id": version["id"],
                        "started_at": began,
                        "finished_at": began + timedelta(seconds=50),
                    }
                )
    for run in runs[: 1 + OTHER_RUNS_WITH_SERIES]:
        first_at = int(run["started_at"].timestamp() * 1000)
        for number in range(SERIES):
            values = [random.random() + number for _ in range(POINTS)]
            one = {
                "id": key(),
                "project_id": project["id"],
                "run_id": run["id"],
                "scope": MetricScope.RUN,
                "name": f"valid.metric{number:02}",
                "kind": MetricKind.GAUGE,
                "labels": [],
                "higher_is_better": True,
                "rises": True,
                "point_count": POINTS,
                "finite_count": POINTS,
                "first_at": first_at,
                "last_at": first_at + (POINTS - 1) * 100,
                "last_step": POINTS - 1,
                "last_point_at": first_at + (POINTS - 1) * 100,
                "last_value": values[-1],
                "min_value": min(values),
                "min_step": values.index(min(values)),
                "min_at": first_at + values.index(min(values)) * 100,
                "max_value": max(values),
                "max_step": values.index(max(values)),
                "max_at": first_at + values.index(max(values)) * 100,
                "sum_value": sum(values),
            }
            series.append(one)
            points += [
                {"series_id": one["id"], "step": step, "at": first_at + step * 100, "value": value}
                for step, value in enumerate(values)
            ]
    grants = [
        {"id": key(), "user_id": user["id"], "role_id": role_id, "permissions": [], "scope": GrantScopeType.GLOBAL}
        for number, user in enumerate(users)
        for role_id in (role_ids[number % len(role_ids)], role_ids[(number + 1) % len(role_ids)])
    ]
    return {
        "users": users,
        "grants": grants,
        "projects": [project],
        "datasets": datasets,
        "dataset_versions": versions,
        "training_runs": runs,
        "metric_series": series,
        "metric_points": points,
    }
