"""Predictions: ask a model."""

from db.predictions import TargetRef
from db.rows import Prediction
from domain import predictions
from resolvers.context import Info
from resolvers.inputs.models import ModelTargetInput, PredictInput


async def predict(info: Info, input: PredictInput) -> Prediction:
    context = info.context
    return await context.services.predictor.predict(
        context.db,
        context.caller,
        ref_of(input.model),
        rows=input.rows,
        probabilities=input.include_probabilities,
        contributions=input.include_contributions,
    )


def ref_of(model: ModelTargetInput) -> TargetRef:
    """The version that an input names. Raises `Refused`."""
    if model.alias is not None:
        return predictions.by_alias(model.alias.model_id, model.alias.alias)
    return predictions.by_version(model.id or "")
