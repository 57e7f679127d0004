"""Predictions: ask a model."""

from db.rows import Prediction
from domain import predictions
from resolvers.context import Info
from resolvers.inputs.models import PredictInput


async def predict(info: Info, input: PredictInput) -> Prediction:
    context = info.context
    if input.model.alias is not None:
        alias = input.model.alias
        target = await predictions.target_alias(context.db, context.caller, alias.model_id, alias.alias)
    else:
        target = await predictions.target_version(context.db, context.caller, input.model.id or "")
    return await predictions.predict(
        context.db,
        context.services.copies,
        context.services.children,
        context.caller,
        target=target,
        rows=input.rows,
        probabilities=input.include_probabilities,
        contributions=input.include_contributions,
    )
