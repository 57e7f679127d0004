"""Projects, and what everything that lives in one has in common."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import AuditAction
from resolvers import identity as resolve_identity
from resolvers import projects as resolve
from resolvers.datasets import dataset_args
from resolvers.models import model_args
from resolvers.paging import first_args
from resolvers.training import run_args
from schema.access import requires, viewer
from schema.directives import PAGED
from schema.fields import computed, identity, mutation, query, relation, shows
from schema.grants import Grant, PermissionDecision
from schema.identity import Actor
from schema.nodes import Connection, Node, Tag
from schema.refusals import UserError

if TYPE_CHECKING:
    from schema.datasets import Dataset
    from schema.models import Model
    from schema.training import TrainingRun


@strawberry.interface(description="A named thing that lives in one project.")
class ProjectResource(Node):
    project: Annotated["Project", strawberry.lazy("schema.projects")] = relation(loaders.project, by="project_id")
    name: str
    description: str | None
    tags: list[Tag]
    created_at: datetime
    updated_at: datetime
    created_by: Actor | None = relation(loaders.user, by="created_by", description="Null when the account is gone.")
    revision: int = strawberry.field(
        description="Grows by one on every write; pass it back as `expectedRevision` to refuse lost updates."
    )
    viewer_can: PermissionDecision = computed(
        resolve_identity.decision, description="Whether the caller holds a permission here, and why or why not."
    )


@strawberry.type(
    description="The boundary of isolation. Everything lives in exactly one project and nothing is visible across it "
    "without a grant."
)
class Project(Node):
    id: strawberry.ID = identity(Kind.PROJECT)
    slug: str
    name: str
    description: str | None
    tags: list[Tag]
    created_at: datetime
    updated_at: datetime
    created_by: Actor | None = relation(loaders.user, by="created_by")
    revision: int
    viewer_can: PermissionDecision = computed(resolve_identity.decision)
    datasets: Connection[Annotated["Dataset", strawberry.lazy("schema.datasets")]] = relation(
        loaders.datasets_of_project, by="id", args=dataset_args, directives=[PAGED]
    )
    training_runs: Connection[Annotated["TrainingRun", strawberry.lazy("schema.training")]] = relation(
        loaders.runs_of_project, by="id", args=run_args, directives=[PAGED]
    )
    models: Connection[Annotated["Model", strawberry.lazy("schema.models")]] = relation(
        loaders.models_of_project, by="id", args=model_args, directives=[PAGED]
    )
    grants: Connection[Grant] | None = relation(
        loaders.grants_of_project, by="id", args=first_args, guard=requires(Permission.GRANT_READ, resource="id")
    )
    is_type_of = shows(rows.Project, rows.KnownProject)


@strawberry.type
class CreateProjectPayload:
    project: Project | None
    errors: list[UserError]


@strawberry.type
class UpdateProjectPayload:
    project: Project | None
    errors: list[UserError]


@strawberry.type
class DeleteProjectPayload:
    project: Project | None
    errors: list[UserError]


@strawberry.type
class SetTagsPayload:
    resource: Node | None
    tags: list[Tag] | None
    errors: list[UserError]


@strawberry.type
class ProjectQueries:
    projects: Connection[Project] = query(resolve.all_projects, guard=viewer, directives=[PAGED])
    project: Project | None = query(resolve.project, guard=viewer)


@strawberry.type
class ProjectMutations:
    create_project: CreateProjectPayload | None = mutation(
        resolve.create_project,
        guard=requires(Permission.PROJECT_CREATE),
        returns="project",
        audited=AuditAction.PROJECT_CREATE,
    )
    update_project: UpdateProjectPayload | None = mutation(
        resolve.update_project,
        guard=requires(Permission.PROJECT_UPDATE, resource="input.id"),
        returns="project",
        audited=AuditAction.PROJECT_UPDATE,
    )
    delete_project: DeleteProjectPayload | None = mutation(
        resolve.delete_project,
        guard=requires(Permission.PROJECT_DELETE, resource="input.id"),
        returns="project",
        audited=AuditAction.PROJECT_DELETE,
    )
    set_tags: SetTagsPayload | None = mutation(resolve.set_tags, guard=viewer, returns=None)
