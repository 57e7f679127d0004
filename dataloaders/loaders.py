"""Every loader: a line each, which query, keyed by what, and what one has to be allowed to see anything."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from auth.permissions import Permission
from auth.principals import Place
from dataloaders.batching import Loader, Reads, many, one, paged
from db import (
    access,
    api_tokens,
    audit,
    datasets,
    events,
    grants,
    models,
    operations,
    places,
    predictions,
    presence,
    projects,
    roles,
    run_logs,
    runs,
    teams,
    uploads,
    users,
)
from db.database import Session as DatabaseSession
from db.ids import Identity, Kind, identify
from db.metrics import comparison, histories
from db.metrics import series as series_queries
from db.paging import EMPTY, Page, PageArgs
from db.rows import ApiToken, Event, Grant, KnownProject, Project, Session, SystemActor, Team, User
from events.log import shown_to

user = one(users.by_ids, reads=None)
role = one(roles.by_ids, reads=Permission.ROLE_READ)
grants_of_user = paged(grants.of_users, reads=Permission.GRANT_READ)
grants_of_project = paged(grants.of_projects, reads=Permission.GRANT_READ)
grants_of_role = paged(grants.of_roles, reads=Permission.GRANT_READ)
grant = one(grants.visible_by_ids, reads=Permission.GRANT_READ)
team = one(teams.by_ids, reads=None)
teams_of_user = many(teams.of_users, reads=None)
members_of_team = paged(teams.members_of_teams, reads=None)
audit_event = one(audit.by_ids, reads=Permission.AUDIT_READ)
audit_events_of_user = paged(audit.of_users, reads=Permission.AUDIT_READ)
project = one(projects.by_ids, reads=Permission.PROJECT_READ)
dataset = one(datasets.by_ids, reads=Permission.DATASET_READ)
datasets_of_project = paged(datasets.of_projects, reads=Permission.DATASET_READ)
dataset_version = one(datasets.versions_by_ids, reads=Permission.DATASET_READ)
latest_version = one(datasets.latest_versions, reads=Permission.DATASET_READ)
version_of_dataset = one(datasets.versions_named, reads=Permission.DATASET_READ)
versions_of_dataset = paged(datasets.versions_of_datasets, reads=Permission.DATASET_READ)
aliases_of_dataset = many(datasets.aliases_of_datasets, reads=Permission.DATASET_READ)
column = one(datasets.columns_by_ids, reads=Permission.DATASET_READ)
columns_of_version = paged(datasets.columns_of_versions, reads=Permission.DATASET_READ)
upload = one(uploads.by_ids, reads=Permission.DATASET_READ)
uploads_of_dataset = paged(uploads.of_datasets, reads=Permission.DATASET_READ)
model = one(models.by_ids, reads=Permission.MODEL_READ)
models_of_project = paged(models.of_projects, reads=Permission.MODEL_READ)
model_version = one(models.versions_by_ids, reads=Permission.MODEL_READ)
model_version_by_ref = one(models.versions_by_ref, reads=Permission.MODEL_READ)
model_version_by_alias_at = one(models.versions_by_alias_at, reads=Permission.MODEL_READ)
latest_version_of_model = one(models.latest_versions, reads=Permission.MODEL_READ)
versions_of_model = paged(models.versions_of_models, reads=Permission.MODEL_READ)
versions_of_run = many(models.versions_of_runs, reads=Permission.MODEL_READ)
aliases_of_model = many(models.aliases_of_models, reads=Permission.MODEL_READ)
alias_history_of_model = paged(models.alias_history, reads=Permission.MODEL_READ)
alias_names_of_version = many(models.alias_names_of_versions, reads=Permission.MODEL_READ)
signature_of_version = one(models.signatures, reads=Permission.MODEL_READ)
importance_of_version = many(models.importance, reads=Permission.MODEL_READ)
evaluation = one(models.evaluations_by_ids, reads=Permission.MODEL_READ)
evaluations_of_version = paged(models.evaluations_of_versions, reads=Permission.MODEL_READ)
curves_of_evaluation = many(models.curves, reads=Permission.MODEL_READ)
latest_evaluation_of_version = one(models.latest_evaluations, reads=Permission.MODEL_READ)
baseline = one(models.baselines, reads=Permission.MODEL_READ)
prediction = one(predictions.by_ids, reads=Permission.MODEL_READ)
batch_prediction = one(operations.batches_by_ids, reads=Permission.MODEL_READ)
run = one(runs.by_ids, reads=Permission.RUN_READ)
runs_of_project = paged(runs.pages_by_project, reads=Permission.RUN_READ)
runs_on_version = paged(runs.pages_by_dataset_version, reads=Permission.RUN_READ)
child_runs = paged(runs.pages_by_parent, reads=Permission.RUN_READ)
transitions_of_run = many(runs.transitions_by_run, reads=Permission.RUN_READ)
attempts_of_run = many(runs.attempts_by_run, reads=Permission.RUN_READ)
logs_of_run = paged(run_logs.log_pages, reads=Permission.RUN_READ)
artifact = one(runs.artifacts_by_ids, reads=Permission.RUN_READ)
artifacts_of_run = paged(runs.artifact_pages, reads=Permission.RUN_READ)
metric_series = one(series_queries.by_ids, reads=Permission.METRIC_READ)
summaries_of_run = many(series_queries.of_runs, reads=Permission.METRIC_READ)
metric_names_of_run = many(series_queries.names_of_runs, reads=Permission.METRIC_READ)
metrics_of_run = many(histories.of_runs, reads=Permission.METRIC_READ)
metrics_of_comparison = many(comparison.of_runs, reads=Permission.METRIC_READ)
series_data = many(histories.of_series, reads=Permission.METRIC_READ)


async def _actors(context: Reads, keys: Sequence[str], _: object) -> Mapping[str, User | SystemActor]:
    """Users and parts of the system, by the names that events and transitions give them."""
    people = {key: identity.key for key in keys if (identity := identify(key)) and identity.kind is Kind.USER}
    async with context.db.reading() as session:
        known = await users.by_ids(session, list(people.values())) if people else {}
    found: dict[str, User | SystemActor] = {key: known[id] for key, id in people.items() if id in known}
    found.update({key: SystemActor(key.removeprefix("system:")) for key in keys if key.startswith("system:")})
    return found


async def _principals(context: Reads, keys: Sequence[Identity], _: object) -> Mapping[Identity, User | Team]:
    """Users and teams as holders of grants: there for everybody who sees the grant."""
    people = [key for kind, key in keys if kind is Kind.USER]
    groups = [key for kind, key in keys if kind is Kind.TEAM]
    async with context.db.reading() as session:
        known_people = await users.by_ids(session, people) if people else {}
        known_groups = await teams.principals_by_ids(session, groups) if groups else {}
    found: dict[Identity, User | Team] = {Identity(Kind.USER, key): row for key, row in known_people.items()}
    return found | {Identity(Kind.TEAM, key): row for key, row in known_groups.items()}


principal = Loader(_principals, lambda: None, None)


async def _sessions(context: Reads, keys: Sequence[UUID], _: object) -> Mapping[UUID, Session]:
    """One's own, and everybody's for holders of SESSION_MANAGE."""
    caller = context.principal
    if caller is None:
        return {}
    async with context.db.reading() as reading:
        found = await access.sessions_by_ids(reading, keys)
    return {id: row for id, row in found.items() if caller.may(Permission.SESSION_MANAGE, Place(None, row.user_id))}


async def _api_tokens(context: Reads, keys: Sequence[UUID], _: object) -> Mapping[UUID, ApiToken]:
    """One's own, and everybody's for holders of TOKEN_MANAGE; a token sees itself."""
    caller = context.principal
    if caller is None:
        return {}
    async with context.db.reading() as reading:
        found = await api_tokens.by_ids(reading, keys)
    return {
        id: row
        for id, row in found.items()
        if id == caller.token_id or caller.may(Permission.TOKEN_MANAGE, Place(None, row.owner_id))
    }


async def _open_connections(context: Reads, keys: Sequence[UUID], _: object) -> Mapping[UUID, int]:
    async with context.db.reading() as reading:
        return await presence.of_sessions(reading, keys)


def _of_people(query: Callable[[DatabaseSession, Sequence[UUID], PageArgs], Any], permission: Permission) -> Loader:
    """A page of what each person has: one's own, and everybody's for holders of a permission."""

    async def fetch(context: Reads, keys: Sequence[UUID], args: PageArgs) -> Mapping[UUID, Page[Any]]:
        caller = context.principal
        people = [] if caller is None else [key for key in keys if caller.may(permission, Place(None, key))]
        async with context.db.reading() as reading:
            found: Mapping[UUID, Page[Any]] = await query(reading, people, args)
        return found

    return Loader(fetch, lambda: EMPTY, None)


session = Loader(_sessions, lambda: None, None)
open_connections = Loader(_open_connections, lambda: 0, None)
sessions_of_user = _of_people(access.sessions_of_users, Permission.SESSION_MANAGE)
api_token = Loader(_api_tokens, lambda: None, None)
api_tokens_of_user = _of_people(api_tokens.of_users, Permission.TOKEN_MANAGE)

actor = Loader(_actors, lambda: None, None)


async def _events(context: Reads, keys: Sequence[UUID], _: object) -> Mapping[UUID, Event]:
    async with context.db.reading() as session:
        return await events.by_ids(session, keys, shown_to(context.principal))


event = Loader(_events, lambda: None, None)


async def _grant_lists(
    context: Reads, keys: Sequence[tuple[UUID, ...]], _: object
) -> Mapping[tuple[UUID, ...], list[Grant]]:
    async with context.db.reading() as session:
        known = await grants.by_ids(session, list({id for ids in keys for id in ids}))
    return {ids: [known[id] for id in ids if id in known] for ids in keys}


deciding_grants = Loader(_grant_lists, list, None)
"""Grants that decided something: whoever decides names them only to those who may read them."""


async def _project_lists(
    context: Reads, keys: Sequence[tuple[UUID, ...]], _: object
) -> Mapping[tuple[UUID, ...], list[Project | KnownProject]]:
    async with context.db.reading() as session:
        known = await projects.by_ids(session, list({id for ids in keys for id in ids}))
    return {ids: [known[id] for id in ids if id in known] for ids in keys}


projects_listed = Loader(_project_lists, lambda: None, None)
"""Those of these projects that the caller knows of."""


async def _places(context: Reads, keys: Sequence[Identity], _: object) -> Mapping[Identity, Place]:
    by_kind: defaultdict[Kind, list[UUID]] = defaultdict(list)
    for kind, key in keys:
        by_kind[kind].append(key)
    found: dict[Identity, Place] = {}
    async with context.db.reading() as session:
        for kind, ids in by_kind.items():
            known = await places.of(session, kind, ids)
            found.update({Identity(kind, id): place for id, place in known.items()})
    return found


place = Loader(_places, lambda: None, None)
"""Where an object is, whether or not the caller may see it; None when there is no such object."""
