"""Two projects with one of everything in each, and the people who look at them.

Everybody but the stranger holds a built-in role in the first project, `lab`; nobody but the administrator holds
anything in the second, `other`. The token is the administrator's, limited to reading the lab's datasets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update

from auth.api_tokens import secret_digest
from auth.permissions import Permission
from auth.principals import EVERYWHERE, Place, Principal
from db import access, api_tokens, grants, roles, tables, users
from db.database import Database, Session
from db.ids import Kind, global_id, identify, new_id
from domain.api_tokens import create_api_token
from domain.projects import create_project

PERSONAS = ("anonymous", "stranger", "viewer", "scientist", "maintainer", "administrator", "token")
_ROLES = {"viewer": "Viewer", "scientist": "Data Scientist", "maintainer": "Maintainer"}
_SPEC = {"task": "REGRESSION", "algorithm": "EXTERNAL", "params": {}, "num_rounds": 1, "seed": 1, "max_attempts": 1}


@dataclass(frozen=True)
class World:
    """`ids` are global IDs: of each place by kind, and what belongs to no project the same in both."""

    people: Mapping[str, Principal | None]
    ids: Mapping[str, Mapping[str, str]]


async def build(db: Database) -> World:
    async with db.transaction() as session:
        admin = await _person(session, "administrator", "Administrator", EVERYWHERE)
        shared = {"user": global_id(Kind.USER, admin.user_id), "session": global_id(Kind.SESSION, _key(admin))}
        shared["role"] = global_id(Kind.ROLE, await _role(session, "Viewer"))
        shared["ownRole"] = await _put(
            session, Kind.ROLE, tables.roles, name="own", built_in=False, permissions=["RUN_READ"]
        )
        shared["team"] = await _put(session, Kind.TEAM, tables.teams, name="crew")
        made = {slug: await _place(session, admin, slug, shared) for slug in ("lab", "other")}
        lab = Place(identify(made["lab"]["project"]).key)  # type: ignore[union-attr]
        people: dict[str, Principal | None] = {"anonymous": None, "administrator": admin}
        people["stranger"] = await _person(session, "stranger", None, lab)
        for name, role in _ROLES.items():
            people[name] = await _person(session, name, role, lab)
        token, secret = await create_api_token(
            session,
            admin,
            name="less",
            owner_id=None,
            permissions=[Permission.PROJECT_READ, Permission.DATASET_READ],
            project_ids=[made["lab"]["project"]],
            expires_in=timedelta(days=1),
            allowed_networks=None,
        )
        found = await api_tokens.principal(session, secret_digest(secret), ip_address=None)
        assert found is not None
        people["token"] = found[0]
        for number, ids in enumerate(made.values(), start=1):
            ids["apiToken"] = global_id(Kind.API_TOKEN, token.id)
            ids["auditEvent"] = await _put(
                session,
                Kind.AUDIT_EVENT,
                tables.audit_events,
                number=number,
                action="PROJECT_CREATE",
                outcome="SUCCEEDED",
                actor_name="administrator",
                project_id=identify(ids["project"]).key,  # type: ignore[union-attr]
                request_id="r",
                previous_hash=f"{number - 1:064}",
                hash=f"{number:064}",
            )
        await session.run(update(tables.audit_head).values(number=len(made), hash=f"{len(made):064}"))
    return World(people, made)


def _key(principal: Principal) -> UUID:
    assert principal.session_id is not None
    return principal.session_id


async def _role(session: Session, name: str) -> UUID:
    role = await roles.by_name(session, name)
    assert role is not None
    return role.id


async def _person(session: Session, name: str, role: str | None, place: Place) -> Principal:
    user = await users.insert_unless_taken(
        session, username=name, email=f"{name}@example.com", display_name=name, password_digest=None
    )
    assert user is not None
    if role is not None:
        await grants.insert_grant(
            session,
            principal=identify(global_id(Kind.USER, user.id)),  # type: ignore[arg-type]
            role_id=await _role(session, role),
            permissions=(),
            place=place,
            resource_kind=None,
            expires_at=None,
            reason=None,
            created_by=user.id,
        )
    opened = await access.open_session(
        session, user_id=user.id, lifetime=timedelta(days=1), ip_address=None, user_agent=None
    )
    principal = await access.principal(session, session_id=opened.id, user_id=user.id)
    assert principal is not None
    return principal


async def _put(session: Session, of: Kind, table: Any, /, **values: Any) -> str:
    id = new_id()
    await session.run(insert(table).values(id=id, **values))
    return global_id(of, id)


async def _place(session: Session, admin: Principal, slug: str, shared: Mapping[str, str]) -> dict[str, str]:
    project = await create_project(session, admin, slug=slug, name=slug, description=None, tags=[])
    of_project = {"project_id": project.id, "name": slug}
    ids = {**shared, "project": global_id(Kind.PROJECT, project.id), "seriesName": f"loss.{slug}"}

    def key(kind: str) -> UUID:
        identity = identify(ids[kind])
        assert identity is not None
        return identity.key

    ids["dataset"] = await _put(session, Kind.DATASET, tables.datasets, **of_project)
    ids["datasetVersion"] = await _put(
        session,
        Kind.DATASET_VERSION,
        tables.dataset_versions,
        dataset_id=key("dataset"),
        number=1,
        status="READY",
        progress={"phase": "ready", "fraction": 1},
        format="CSV",
        source={"kind": "UPLOAD", "uploaded_file_name": "a.csv"},
    )
    ids["column"] = await _put(
        session,
        Kind.COLUMN,
        tables.dataset_columns,
        version_id=key("datasetVersion"),
        name="a",
        position=0,
        type="FLOAT",
        nullable=False,
        role="FEATURE",
    )
    ids["upload"] = await _put(
        session,
        Kind.UPLOAD,
        tables.upload_sessions,
        dataset_id=key("dataset"),
        version_id=key("datasetVersion"),
        file_name="a.csv",
        size_bytes=1,
        part_size_bytes=1,
        part_count=1,
        status="COMPLETED",
        storage_upload_id="u",
        object_key="k",
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )
    ids["run"] = await _put(
        session,
        Kind.RUN,
        tables.training_runs,
        **of_project,
        status="SUCCEEDED",
        progress={"phase": "finished", "fraction": 1},
        task="REGRESSION",
        algorithm="EXTERNAL",
        spec=_SPEC,
        params=[],
        dataset_version_id=key("datasetVersion"),
    )
    ids["artifact"] = await _put(
        session,
        Kind.ARTIFACT,
        tables.artifacts,
        run_id=key("run"),
        path="a.txt",
        size_bytes=1,
        sha256="0" * 64,
        object_key="k",
    )
    ids["series"] = await _put(
        session,
        Kind.SERIES,
        tables.metric_series,
        project_id=project.id,
        run_id=key("run"),
        scope="RUN",
        name=ids["seriesName"],
        kind="GAUGE",
        rises=False,
    )
    ids["model"] = await _put(session, Kind.MODEL, tables.models, **of_project, task="REGRESSION")
    ids["modelVersion"] = await _put(
        session,
        Kind.MODEL_VERSION,
        tables.model_versions,
        model_id=key("model"),
        number=1,
        status="READY",
        run_id=key("run"),
        signature={"inputs": [{"name": "a", "type": "FLOAT", "nullable": False}], "outputs": []},
        params=[],
        importance={},
        model_key="k",
        manifest_key="k",
        manifest_sha256="0" * 64,
    )
    await session.run(
        insert(tables.model_aliases).values(model_id=key("model"), name="champion", version_id=key("modelVersion"))
    )
    await session.run(insert(tables.metric_points).values(series_id=key("series"), step=1, at=1, value=1.0))
    ids["evaluation"] = await _put(
        session,
        Kind.EVALUATION,
        tables.evaluations,
        model_version_id=key("modelVersion"),
        dataset_version_id=key("datasetVersion"),
        split="validation",
        metrics=[],
    )
    ids["prediction"] = await _put(
        session,
        Kind.PREDICTION,
        tables.predictions,
        model_version_id=key("modelVersion"),
        outputs=[],
        latency_ms=1.0,
    )
    ids["batchPrediction"] = await _put(
        session,
        Kind.BATCH_PREDICTION,
        tables.operations,
        project_id=project.id,
        kind="BATCH_PREDICTION",
        status="RUNNING",
        progress={},
        spec={},
        model_version_id=key("modelVersion"),
        dataset_version_id=key("datasetVersion"),
        output_dataset_id=key("dataset"),
    )
    ids["grant"] = await _put(
        session,
        Kind.GRANT,
        tables.grants,
        user_id=admin.user_id,
        permissions=["PROJECT_READ"],
        scope="PROJECT",
        project_id=project.id,
    )
    event: UUID = await session.scalar(select(tables.events.c.id).where(tables.events.c.subject_id == ids["project"]))
    ids["event"] = global_id(Kind.EVENT, event)
    return ids
