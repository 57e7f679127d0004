"""Datasets, their versions and columns, and the uploads that versions come from."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import rows
from db.ids import Kind
from db.vocabulary import (
    AuditAction,
    ColumnRole,
    ColumnType,
    DatasetFormat,
    DatasetSourceKind,
    DatasetVersionStatus,
    UpdateKind,
    UploadStatus,
)
from domain.uploads import PartTarget
from ml.preview import Preview
from resolvers import datasets as resolve
from resolvers.inputs.limits import Sensitive
from resolvers.inputs.scalars import JSON, SHA256, URL, BigInt, FloatVector, IntVector
from resolvers.paging import first_args
from schema.access import requires, viewer
from schema.directives import PAGED
from schema.fields import computed, identity, mutation, query, relation, shows, subscription
from schema.identity import Actor
from schema.nodes import Connection, Failure, Node, Progress, SignedUrl
from schema.projects import ProjectResource
from schema.refusals import UserError

if TYPE_CHECKING:
    from schema.training import TrainingRun

PREVIEW = requires(Permission.DATASET_PREVIEW, resource="id")


@strawberry.type
class Quantile:
    q: float
    value: float | None


@strawberry.type
class Histogram:
    edges: FloatVector
    counts: IntVector


@strawberry.type
class NumericProfile:
    min: float | None
    max: float | None
    mean: float | None
    stddev: float | None
    quantiles: list[Quantile]
    histogram: Histogram
    zero_count: BigInt
    non_finite_count: BigInt


@strawberry.type
class TextProfile:
    min_length: int
    max_length: int
    mean_length: float


@strawberry.type
class ValueCount:
    value: str
    count: BigInt


@strawberry.type
class ColumnProfile:
    count: BigInt
    null_count: BigInt
    distinct_count: BigInt | None
    distinct_count_is_estimate: bool
    numeric: NumericProfile | None
    text: TextProfile | None
    top_values: list[ValueCount]


@strawberry.type
class Column(Node):
    id: strawberry.ID = identity(Kind.COLUMN)
    name: str
    position: int
    type: ColumnType
    nullable: bool
    role: ColumnRole
    description: str | None
    profile: ColumnProfile | None
    is_type_of = shows(rows.Column)


@strawberry.type
class DatasetSource:
    kind: DatasetSourceKind
    uri: str | None
    uploaded_file_name: str | None
    run: Annotated["TrainingRun", strawberry.lazy("schema.training")] | None = relation(loaders.run, by="run_id")


@strawberry.type
class TablePreview:
    columns: list[str]
    rows: list[JSON] = strawberry.field(description="One JSON array per row.")
    truncated: bool
    is_type_of = shows(Preview)


@strawberry.type(description="How a CSV file is written.")
class CsvOptions:
    delimiter: str
    quote: str
    has_header: bool
    encoding: str
    null_values: list[str]


@strawberry.type(description="A row of a file that cannot be read.")
class RejectedRow:
    line: BigInt = strawberry.field(description="The line of the file that it begins on, from 1.")
    column: str | None
    reason: str


@strawberry.type(description="Immutable. A change of the data is a new version.")
class DatasetVersion(Node):
    id: strawberry.ID = identity(Kind.DATASET_VERSION)
    dataset: Annotated["Dataset", strawberry.lazy("schema.datasets")] = relation(loaders.dataset, by="dataset_id")
    number: int
    status: DatasetVersionStatus
    progress: Progress = computed(resolve.progress)
    failure: Failure | None
    format: DatasetFormat
    digest: SHA256 | None = strawberry.field(
        description="Digest of the content: two versions with the same bytes share it."
    )
    size_bytes: BigInt | None
    row_count: BigInt | None
    column_count: int | None
    csv: CsvOptions | None = computed(
        resolve.csv_found, description="How the CSV file was read: as it was said, or as it was found out."
    )
    rejected_rows: BigInt | None = strawberry.field(
        description="How many rows of the file cannot be read; a READY version is without them."
    )
    rejects: list[RejectedRow] | None = strawberry.field(description="The first hundred of the rejected rows.")
    columns: Connection[Column] = relation(loaders.columns_of_version, by="id", args=resolve.column_args)
    preview: TablePreview | None = computed(
        resolve.preview, guard=PREVIEW, cost=20, description="First or sampled rows, in column order."
    )
    download: SignedUrl | None = computed(
        resolve.download, guard=PREVIEW, description="A signed link straight to object storage."
    )
    source: DatasetSource
    used_by_runs: Connection[Annotated["TrainingRun", strawberry.lazy("schema.training")]] = relation(
        loaders.runs_on_version, by="id", args=first_args
    )
    note: str | None
    created_at: datetime
    created_by: Actor | None = relation(loaders.user, by="created_by")
    is_type_of = shows(rows.DatasetVersion)


@strawberry.type
class DatasetAlias:
    name: str
    version: DatasetVersion = relation(loaders.dataset_version, by="version_id")
    set_at: datetime
    set_by: Actor | None = relation(loaders.user, by="set_by")


@strawberry.type
class UploadedPart:
    part_number: int
    etag: str
    size_bytes: BigInt


@strawberry.type
class HttpHeader:
    name: str
    value: str


@strawberry.type
class UploadPartTarget:
    part_number: int
    method: str
    url: URL = strawberry.field(directives=[Sensitive()])
    headers: list[HttpHeader]
    expires_at: datetime
    is_type_of = shows(PartTarget)


@strawberry.type(
    description="A resumable multipart upload. Bytes go from the client to object storage, never through this API."
)
class UploadSession(Node):
    id: strawberry.ID = identity(Kind.UPLOAD)
    dataset: Annotated["Dataset", strawberry.lazy("schema.datasets")] = relation(loaders.dataset, by="dataset_id")
    version: DatasetVersion = relation(loaders.dataset_version, by="version_id")
    file_name: str
    size_bytes: BigInt
    part_size_bytes: BigInt
    part_count: int
    status: UploadStatus
    completed_parts: list[UploadedPart] = computed(
        resolve.completed_parts,
        description="Parts the storage already holds: after a broken connection send only the rest.",
    )
    expires_at: datetime
    is_type_of = shows(rows.UploadSession)


@strawberry.type
class Dataset(ProjectResource):
    id: strawberry.ID = identity(Kind.DATASET)
    latest_version: DatasetVersion | None = relation(
        loaders.latest_version, by="id", description="The newest READY version."
    )
    version: DatasetVersion | None = relation(
        loaders.version_of_dataset, by="id", args=resolve.version_ref, description="By number, by alias or by digest."
    )
    versions: Connection[DatasetVersion] = relation(
        loaders.versions_of_dataset, by="id", args=resolve.version_args, directives=[PAGED]
    )
    aliases: list[DatasetAlias] = relation(loaders.aliases_of_dataset, by="id")
    uploads: Connection[UploadSession] = relation(loaders.uploads_of_dataset, by="id", args=first_args)
    tolerated_rejects: float = strawberry.field(
        description="The share of a file's rows, 0 to 1, that may be left out because they cannot be read."
    )
    is_type_of = shows(rows.Dataset)


@strawberry.type
class DatasetVersionUpdate:
    cursor: str
    kind: UpdateKind
    dataset_version: DatasetVersion | None


@strawberry.type
class CreateDatasetPayload:
    dataset: Dataset | None
    errors: list[UserError]


@strawberry.type
class UpdateDatasetPayload:
    dataset: Dataset | None
    errors: list[UserError]


@strawberry.type
class DeleteDatasetPayload:
    dataset: Dataset | None
    errors: list[UserError]


@strawberry.type
class UpdateColumnPayload:
    column: Column | None
    errors: list[UserError]


@strawberry.type
class ReprocessDatasetVersionPayload:
    dataset_version: DatasetVersion | None
    errors: list[UserError]


@strawberry.type
class StartUploadPayload:
    upload: UploadSession | None
    parts: list[UploadPartTarget] | None = strawberry.field(description="Targets of the first parts.")
    errors: list[UserError]


@strawberry.type
class RequestUploadPartsPayload:
    upload: UploadSession | None
    parts: list[UploadPartTarget] | None
    errors: list[UserError]


@strawberry.type
class CompleteUploadPayload:
    upload: UploadSession | None
    dataset_version: DatasetVersion | None
    errors: list[UserError]


@strawberry.type
class AbortUploadPayload:
    upload: UploadSession | None
    errors: list[UserError]


@strawberry.type
class SetDatasetAliasPayload:
    dataset: Dataset | None
    errors: list[UserError]


@strawberry.type
class DatasetQueries:
    datasets: Connection[Dataset] = query(resolve.all_datasets, guard=viewer, directives=[PAGED])
    dataset: Dataset | None = query(resolve.dataset, guard=viewer)
    dataset_version: DatasetVersion | None = query(resolve.dataset_version, guard=viewer)
    upload_session: UploadSession | None = query(resolve.upload_session, guard=viewer)


@strawberry.type
class DatasetMutations:
    create_dataset: CreateDatasetPayload | None = mutation(
        resolve.create_dataset,
        guard=requires(Permission.DATASET_CREATE, resource="input.projectId"),
        returns="dataset",
        audited=AuditAction.DATASET_CREATE,
    )
    update_dataset: UpdateDatasetPayload | None = mutation(
        resolve.update_dataset,
        guard=requires(Permission.DATASET_UPDATE, resource="input.id"),
        returns="dataset",
        audited=AuditAction.DATASET_UPDATE,
    )
    delete_dataset: DeleteDatasetPayload | None = mutation(
        resolve.delete_dataset,
        guard=requires(Permission.DATASET_DELETE, resource="input.id"),
        returns="dataset",
        audited=AuditAction.DATASET_DELETE,
    )
    update_column: UpdateColumnPayload | None = mutation(
        resolve.update_column,
        guard=requires(Permission.DATASET_UPDATE, resource="input.id"),
        returns="column",
        audited=AuditAction.DATASET_UPDATE,
    )
    reprocess_dataset_version: ReprocessDatasetVersionPayload | None = mutation(
        resolve.reprocess_dataset_version,
        guard=requires(Permission.DATASET_UPDATE, resource="input.id"),
        returns="dataset_version",
    )
    start_upload: StartUploadPayload | None = mutation(
        resolve.start_upload,
        guard=requires(Permission.DATASET_UPDATE, resource="input.datasetId"),
        returns=None,
        audited=AuditAction.DATASET_UPDATE,
    )
    request_upload_parts: RequestUploadPartsPayload | None = mutation(
        resolve.request_upload_parts,
        guard=requires(Permission.DATASET_UPDATE, resource="input.uploadId"),
        returns=None,
        description="Fresh signed targets: for the next parts, or again after they ran out.",
    )
    complete_upload: CompleteUploadPayload | None = mutation(
        resolve.complete_upload,
        guard=requires(Permission.DATASET_UPDATE, resource="input.uploadId"),
        returns=None,
        audited=AuditAction.DATASET_UPDATE,
    )
    abort_upload: AbortUploadPayload | None = mutation(
        resolve.abort_upload,
        guard=requires(Permission.DATASET_UPDATE, resource="input.uploadId"),
        returns="upload",
    )
    set_dataset_alias: SetDatasetAliasPayload | None = mutation(
        resolve.set_dataset_alias,
        guard=requires(Permission.DATASET_UPDATE, resource="input.datasetId"),
        returns="dataset",
        audited=AuditAction.DATASET_UPDATE,
    )


@strawberry.type
class DatasetSubscriptions:
    dataset_version_updated: DatasetVersionUpdate = subscription(resolve.dataset_version_updated, guard=viewer)
