"""Predictions: rows in, what a version of a model says of them out, in the time a web page can wait."""

import time
from collections.abc import Sequence
from pathlib import Path

from auth.principals import Principal
from db import models, predictions
from db.database import Database
from db.ids import Kind, key_of
from db.rows import Json, ModelTarget, Prediction
from db.vocabulary import ModelVersionStatus
from domain.models import MANIFEST, MODEL
from domain.refusals import (
    ErrorCode,
    Invalid,
    InvalidState,
    NotFound,
    Refusal,
    Refused,
    SchemaMismatch,
    TypeMismatch,
    not_found,
)
from domain.texts import storable
from ml import messages
from ml.processes import ChildPool
from storage.copies import DamagedObject, LocalCopies, Wanted
from storage.objects import ObjectMissing

_TARGET = ("input", "model")
_NESTED = frozenset({list, dict})


async def target_version(db: Database, actor: Principal, version_id: str) -> ModelTarget:
    """The version to predict with, by its ID. Raises `Refused`."""
    key = key_of(version_id, Kind.MODEL_VERSION)
    async with db.reading() as session:
        found = await models.target(session, version_id=key) if key is not None else None
    if found is None:
        raise Refused(not_found("model version", version_id, *_TARGET, "id"))
    return found


async def target_alias(db: Database, actor: Principal, model_id: str, alias: str) -> ModelTarget:
    """The version an alias points at now. Raises `Refused`."""
    key = key_of(model_id, Kind.MODEL)
    async with db.reading() as session:
        found = await models.target(session, model_id=key, alias=alias) if key is not None and storable(alias) else None
    if found is None:
        message = "There is no model of this ID with this alias."
        raise Refused(NotFound(message=message, path=(*_TARGET, "alias"), id=model_id))
    return found


async def predict(
    db: Database,
    copies: LocalCopies,
    children: ChildPool,
    actor: Principal,
    *,
    target: ModelTarget,
    rows: Sequence[Json],
    probabilities: bool,
    contributions: bool,
) -> Prediction:
    """Score rows in a warm child process, and keep the answer for a day.

    Raises `Refused` when a row does not fit the signature or the stored model is not the one registered, a
    `ml.processes.ChildFailure` when the child did not answer, and `StoreUnavailable`.
    """
    if target.status != ModelVersionStatus.READY:
        raise Refused(
            InvalidState(
                message="Only a version that is ready predicts.",
                path=_TARGET,
                current_state=target.status,
                allowed_states=[ModelVersionStatus.READY],
            )
        )
    started = time.perf_counter()
    try:
        try:
            outputs = await _score(copies, children, target, rows, probabilities, contributions)
        except RecursionError:
            outputs = await _score(copies, children, target, _shallow(rows), probabilities, contributions)
    except messages.SchemaMismatch as mismatch:
        raise Refused(_in_our_words(mismatch)) from mismatch
    except (DamagedObject, ObjectMissing, messages.DigestMismatch, messages.ModelUnreadable) as error:
        raise Refused(_unusable(error)) from error
    latency_ms = (time.perf_counter() - started) * 1000
    async with db.reading() as session:
        return await predictions.insert(
            session, version_id=target.version_id, outputs=outputs, latency_ms=latency_ms, created_by=actor.user_id
        )


def _shallow(rows: Sequence[Json]) -> Sequence[Json]:
    """The same rows without what is inside lists and objects: they are refused whatever they hold, however deep."""
    return [{name: type(value)() if type(value) in _NESTED else value for name, value in row.items()} for row in rows]


async def _score(
    copies: LocalCopies,
    children: ChildPool,
    target: ModelTarget,
    rows: Sequence[Json],
    probabilities: bool,
    contributions: bool,
) -> list[Json]:
    files = (
        Wanted(MODEL, target.model_key, target.sha256),
        Wanted(MANIFEST, target.manifest_key, target.manifest_sha256),
    )

    async def score(folder: Path) -> list[Json]:
        return await children.score(
            folder, target.sha256, rows, probabilities=probabilities, contributions=contributions
        )

    try:
        return await score(await copies.folder(*files))
    except (messages.DigestMismatch, messages.ModelUnreadable):
        copies.forget(*files)
        return await score(await copies.folder(*files))


def _in_our_words(mismatch: messages.SchemaMismatch) -> Refusal:
    return SchemaMismatch(
        message=str(mismatch),
        path=("input", "rows", str(mismatch.row)),
        missing_columns=mismatch.missing,
        unexpected_columns=mismatch.unexpected,
        type_mismatches=[
            TypeMismatch(column=found.column, expected=found.expected, actual=found.actual)
            for found in mismatch.type_mismatches
        ],
    )


def _unusable(error: Exception) -> Refusal:
    if isinstance(error, messages.ModelUnreadable):
        return Invalid(message=str(error), path=_TARGET)
    return Invalid(
        code=ErrorCode.CHECKSUM_MISMATCH,
        message="The stored files of this version are gone or were changed since it was registered, so it was not "
        "loaded. Train it again, or choose another version.",
        path=_TARGET,
    )
