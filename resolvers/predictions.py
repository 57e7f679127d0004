"""Predictions: ask a model."""

from db.rows import Prediction
from domain import predictions
from resolvers.context import Info
from resolvers.inputs.models import PredictInput


async def predict(info: Info, input: PredictInput) -> Prediction:
    context = info.context
    if input.model.alias is not None:
        ref = predictions.by_alias(input.model.alias.model_id, input.model.alias.alias)
    else:
        ref = predictions.by_version(input.model.id or "")
    return await context.services.predictor.predict(
        context.db,
        context.caller,
        ref,
        rows=input.rows,
        probabilities=input.include_probabilities,
        contributions=input.include_contributions,
    )
