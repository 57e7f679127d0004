"""Predictions: what a version of a model says of rows."""

from datetime import datetime

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from db import rows
from db.ids import Kind
from resolvers import predictions as resolve
from resolvers.inputs.scalars import JSON
from schema.access import requires
from schema.fields import identity, mutation, relation, shows
from schema.identity import Actor
from schema.models import ModelVersion
from schema.nodes import Node
from schema.refusals import UserError


@strawberry.type
class ClassProbability:
    label: str
    probability: float


@strawberry.type
class FeatureContribution:
    feature: str
    contribution: float


@strawberry.type
class PredictionOutput:
    value: JSON
    probabilities: list[ClassProbability] | None = strawberry.field(description="Only when asked for.")
    contributions: list[FeatureContribution] | None


@strawberry.type
class Prediction(Node):
    id: strawberry.ID = identity(Kind.PREDICTION)
    model_version: ModelVersion = relation(loaders.model_version, by="model_version_id")
    outputs: list[PredictionOutput] = strawberry.field(description="One per input row, in order.")
    latency_ms: float
    created_at: datetime
    created_by: Actor | None = relation(loaders.user, by="created_by")
    is_type_of = shows(rows.Prediction)


@strawberry.type
class PredictPayload:
    prediction: Prediction | None
    errors: list[UserError]


@strawberry.type
class PredictionMutations:
    predict: PredictPayload | None = mutation(
        resolve.predict,
        guard=requires(Permission.PREDICTION_CREATE, resource="input.model.id", otherwise="input.model.alias.modelId"),
        returns="prediction",
        cost=5,
    )
