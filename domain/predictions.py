"""Predictions: rows in, what a version of a model says of them out, in the time a web page can wait."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from auth.principals import Principal
from db import predictions
from db.database import Database, Session
from db.ids import Kind, global_id, key_of
from db.predictions import TargetRef
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
_MOST_KNOWN = 10_000
_MOST_NAMED = 100


def by_version(version_id: str) -> TargetRef:
    """The version of this ID. Raises `Refused`."""
    key = key_of(version_id, Kind.MODEL_VERSION)
    if key is None:
        raise Refused(_no_version(version_id))
    return TargetRef(version_id=key)


def by_alias(model_id: str, alias: str) -> TargetRef:
    """The version that an alias points at while it is asked. Raises `Refused`."""
    key = key_of(model_id, Kind.MODEL)
    if key is None or not storable(alias):
        raise Refused(_no_alias(model_id))
    return TargetRef(model_id=key, alias=alias)


async def ready_target(session: Session, ref: TargetRef) -> ModelTarget:
    """The version that is to predict. Raises `Refused`."""
    target = await predictions.target(session, ref)
    if target is None:
        raise Refused(_missing(ref))
    if target.status != ModelVersionStatus.READY:
        raise Refused(_not_ready(target))
    return target


class Predictor:
    """Scores rows in warm child processes, with copies of the models on this machine's disk.

    It remembers which version a caller was led to, and scores with it at once. Whether the caller may still use it is
    decided by the statement that keeps the prediction: there is no answer when the version was archived or deleted, the
    alias moved or the right was lost meanwhile, so nothing needs to be told to forget.
    """

    def __init__(self, copies: LocalCopies, children: ChildPool) -> None:
        self._copies = copies
        self._children = children
        self._known: OrderedDict[tuple[UUID, TargetRef], ModelTarget] = OrderedDict()

    async def predict(
        self,
        db: Database,
        actor: Principal,
        ref: TargetRef,
        *,
        rows: Sequence[Json],
        probabilities: bool,
        contributions: bool,
    ) -> Prediction:
        """Score rows, and keep the answer for a day.

        Raises `Refused` when there is no such version for the caller, it is not ready, a row does not fit the signature
        or the stored model is not the one registered, a `ml.processes.ChildFailure` when the child did not answer, and
        `StoreUnavailable`.
        """
        asked = (actor.user_id, ref)
        known = self._known.pop(asked, None)
        if known is not None:
            with suppress(Refused):  # what the version of now has to say is found out below
                prediction = await self._predict(db, actor, ref, known, rows, probabilities, contributions)
                if prediction is not None:
                    self._remember(asked, known)
                    return prediction
        while True:  # once more for each time that what `ref` leads to changes while the rows are scored
            async with db.reading() as session:
                target = await ready_target(session, ref)
            prediction = await self._predict(db, actor, ref, target, rows, probabilities, contributions)
            if prediction is not None:
                self._remember(asked, target)
                return prediction

    async def _predict(
        self,
        db: Database,
        actor: Principal,
        ref: TargetRef,
        target: ModelTarget,
        rows: Sequence[Json],
        probabilities: bool,
        contributions: bool,
    ) -> Prediction | None:
        """The prediction of this version; None when `ref` no longer leads to it."""
        started = time.perf_counter()
        try:
            try:
                outputs = await self._score(target, rows, probabilities, contributions)
            except RecursionError:
                outputs = await self._score(target, _shallow(rows), probabilities, contributions)
        except messages.SchemaMismatch as mismatch:
            raise Refused(_in_our_words(mismatch)) from mismatch
        except messages.UnknownCategory as unknown:
            raise Refused(
                Invalid(
                    code=ErrorCode.OUT_OF_RANGE,
                    message=str(unknown),
                    path=("input", "rows", str(unknown.row), unknown.feature),
                    allowed=list(unknown.known[:_MOST_NAMED]),
                )
            ) from unknown
        except messages.DataProblem as problem:
            raise Refused(Invalid(message=problem.message, path=problem.path)) from problem
        except (DamagedObject, ObjectMissing, messages.DigestMismatch, messages.ModelUnreadable) as error:
            raise Refused(_unusable(error)) from error
        latency_ms = (time.perf_counter() - started) * 1000
        async with db.reading() as session:
            return await predictions.insert(
                session, ref, target, outputs=outputs, latency_ms=latency_ms, created_by=actor.user_id
            )

    async def _score(
        self, target: ModelTarget, rows: Sequence[Json], probabilities: bool, contributions: bool
    ) -> list[Json]:
        files = (
            Wanted(MODEL, target.model_key, target.sha256),
            Wanted(MANIFEST, target.manifest_key, target.manifest_sha256),
        )

        async def score(folder: Path) -> list[Json]:
            return await self._children.score(
                folder, target.sha256, rows, probabilities=probabilities, contributions=contributions
            )

        try:
            return await score(await self._copies.folder(*files))
        except (messages.DigestMismatch, messages.ModelUnreadable):
            self._copies.forget(*files)
            return await score(await self._copies.folder(*files))

    def _remember(self, asked: tuple[UUID, TargetRef], target: ModelTarget) -> None:
        self._known[asked] = target
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)


def _shallow(rows: Sequence[Json]) -> Sequence[Json]:
    """The same rows without what is inside lists and objects: they are refused whatever they hold, however deep."""
    return [{name: type(value)() if type(value) in _NESTED else value for name, value in row.items()} for row in rows]


def _missing(ref: TargetRef) -> Refusal:
    if ref.version_id is not None:
        return _no_version(global_id(Kind.MODEL_VERSION, ref.version_id))
    assert ref.model_id is not None
    return _no_alias(global_id(Kind.MODEL, ref.model_id))


def _no_version(version_id: str) -> Refusal:
    return not_found("model version", version_id, *_TARGET, "id")


def _no_alias(model_id: str) -> Refusal:
    message = "There is no model of this ID with this alias."
    return NotFound(message=message, path=(*_TARGET, "alias"), id=model_id)


def _not_ready(target: ModelTarget) -> Refusal:
    return InvalidState(
        message="Only a version that is ready predicts.",
        path=_TARGET,
        current_state=target.status,
        allowed_states=[ModelVersionStatus.READY],
    )


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
