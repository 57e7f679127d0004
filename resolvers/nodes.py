"""Any object by its global ID, through the loader of its type."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import strawberry

from auth.permissions import Permission
from dataloaders import loaders
from dataloaders.batching import Loader
from db.ids import Kind, identify
from resolvers.context import Context, Info
from resolvers.inputs.limits import argument

LOADERS: dict[Kind, Loader] = {
    Kind.USER: loaders.user,
    Kind.TEAM: loaders.team,
    Kind.ROLE: loaders.role,
    Kind.GRANT: loaders.grant,
    Kind.PROJECT: loaders.project,
    Kind.MODEL: loaders.model,
    Kind.MODEL_VERSION: loaders.model_version,
    Kind.EVALUATION: loaders.evaluation,
    Kind.PREDICTION: loaders.prediction,
    Kind.BATCH_PREDICTION: loaders.batch_prediction,
    Kind.DATASET: loaders.dataset,
    Kind.DATASET_VERSION: loaders.dataset_version,
    Kind.COLUMN: loaders.column,
    Kind.UPLOAD: loaders.upload,
    Kind.SERIES: loaders.metric_series,
    Kind.SESSION: loaders.session,
    Kind.API_TOKEN: loaders.api_token,
    Kind.EVENT: loaders.event,
    Kind.AUDIT_EVENT: loaders.audit_event,
    Kind.RUN: loaders.run,
    Kind.ARTIFACT: loaders.artifact,
}


async def node(info: Info, id: strawberry.ID) -> Any:
    return await by_global_id(info.context, id)


async def nodes(info: Info, ids: argument(list[strawberry.ID], max_items=100)) -> list[Any]:  # type: ignore[valid-type]
    return list(await asyncio.gather(*(by_global_id(info.context, id) for id in ids)))


async def by_global_id(context: Context, text: str) -> Any:
    """The row a global ID names; None when it does not exist, is out of sight, or the text is no ID of ours."""
    identity = identify(text)
    if identity is None or identity.kind not in LOADERS:
        return None
    if identity.kind is Kind.USER and identity.key != context.caller.user_id and not context.may(Permission.USER_READ):
        return None
    return await LOADERS[identity.kind].load(context, identity.key)


async def _by_global_ids(context: Any, keys: Sequence[str], _: object) -> Mapping[str, Any]:
    """Rows of any kind: the keys of one kind go to its loader together."""
    wanted = list(keys)
    found = await asyncio.gather(*(by_global_id(context, text) for text in wanted))
    return dict(zip(wanted, found, strict=True))


subject = Loader(_by_global_ids, lambda: None, None)
"""The row behind a global ID, for many at once: one statement for each kind among them."""
