"""Inputs about runs that are there already."""

import strawberry
from strawberry import UNSET

from resolvers.inputs.scalars import JSONObject


@strawberry.input
class UpdateTrainingRunInput:
    id: strawberry.ID
    expected_revision: int | None = UNSET
    name: str | None = UNSET
    description: str | None = UNSET


@strawberry.input
class RetryTrainingRunInput:
    id: strawberry.ID
    resume: bool = True


@strawberry.input
class CloneTrainingRunInput:
    id: strawberry.ID
    name: str | None = UNSET
    dataset_version_id: strawberry.ID | None = UNSET
    params: JSONObject | None = UNSET
    num_rounds: int | None = UNSET
    idempotency_key: str | None = UNSET


@strawberry.input
class DeleteTrainingRunInput:
    id: strawberry.ID
