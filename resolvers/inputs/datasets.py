"""Inputs about datasets, their versions and uploads."""

from enum import auto

import strawberry
from strawberry import UNSET

from db.vocabulary import ColumnRole, ColumnType, DatasetFormat, DatasetVersionStatus, OrderDirection, Word
from resolvers.inputs.filters import BigIntFilter, DateTimeFilter, StringFilter, TagFilter, TagInput
from resolvers.inputs.limits import limited, optional
from resolvers.inputs.scalars import SHA256, BigInt


@strawberry.enum
class DatasetOrderField(Word):
    NAME = auto()
    CREATED_AT = auto()
    UPDATED_AT = auto()


@strawberry.input
class DatasetOrder:
    field: DatasetOrderField
    direction: OrderDirection = OrderDirection.DESC


@strawberry.input
class DatasetFilter:
    name: StringFilter | None = UNSET
    tags: list[TagFilter] | None = UNSET
    created_by_id: strawberry.ID | None = UNSET
    created_at: DateTimeFilter | None = UNSET
    search: str | None = UNSET
    and_: list["DatasetFilter"] | None = optional("and")
    or_: list["DatasetFilter"] | None = optional("or")
    not_: "DatasetFilter | None" = optional("not")


@strawberry.input
class DatasetVersionFilter:
    statuses: list[DatasetVersionStatus] | None = UNSET
    created_at: DateTimeFilter | None = UNSET
    row_count: BigIntFilter | None = UNSET


@strawberry.input
class ColumnFilter:
    name: StringFilter | None = UNSET
    types: list[ColumnType] | None = UNSET
    roles: list[ColumnRole] | None = UNSET


@strawberry.input(one_of=True)
class DatasetVersionRef:
    number: int | None = UNSET
    alias: str | None = UNSET
    digest: SHA256 | None = UNSET


@strawberry.input
class CreateDatasetInput:
    project_id: strawberry.ID
    name: str = limited(min_length=1, max_length=200)
    description: str | None = UNSET
    tags: list[TagInput] | None = UNSET
    tolerated_rejects: float = limited(default=0.0, min=0, max=1)
    idempotency_key: str | None = UNSET


@strawberry.input
class UpdateDatasetInput:
    id: strawberry.ID
    expected_revision: int | None = UNSET
    name: str | None = UNSET
    description: str | None = UNSET
    tolerated_rejects: float | None = limited(default=UNSET, min=0, max=1)


@strawberry.input
class DeleteDatasetInput:
    id: strawberry.ID


@strawberry.input
class UpdateColumnInput:
    id: strawberry.ID
    role: ColumnRole | None = UNSET
    description: str | None = UNSET


@strawberry.input
class ReprocessDatasetVersionInput:
    id: strawberry.ID


@strawberry.input
class CsvOptionsInput:
    delimiter: str = ","
    quote: str = '"'
    has_header: bool = True
    encoding: str = "utf-8"
    null_values: list[str] | None = UNSET


@strawberry.input
class StartUploadInput:
    dataset_id: strawberry.ID
    file_name: str
    size_bytes: BigInt
    format: DatasetFormat
    sha256: SHA256 | None = UNSET
    part_size_bytes: BigInt | None = UNSET
    csv: CsvOptionsInput | None = UNSET
    note: str | None = UNSET
    idempotency_key: str | None = UNSET


@strawberry.input
class RequestUploadPartsInput:
    upload_id: strawberry.ID
    part_numbers: list[int] = limited(min_items=1, max_items=1000)


@strawberry.input
class CompletedPartInput:
    part_number: int
    etag: str


@strawberry.input
class CompleteUploadInput:
    upload_id: strawberry.ID
    parts: list[CompletedPartInput]
    sha256: SHA256 | None = UNSET


@strawberry.input
class AbortUploadInput:
    upload_id: strawberry.ID


@strawberry.input
class SetDatasetAliasInput:
    dataset_id: strawberry.ID
    alias: str
    version_id: strawberry.ID | None = strawberry.field(default=UNSET, description="Null removes it.")
