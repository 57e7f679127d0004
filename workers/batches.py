"""Batch predictions: a dataset version in, a dataset version out, in parts that the next attempt goes on after."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from db import datasets
from db.rows import Json
from db.vocabulary import ColumnRole, FailureCode
from domain import operations
from domain.texts import as_stored
from ml.messages import BatchJob, Joined, JoinJob, PartDone, RowsDone
from ml.processes import ChildDied
from storage.keys import operation_key
from storage.objects import ObjectMissing
from workers.operations import Attempt, Unusable

ENGINE_MEMORY_MB = 1024
_SCORING, _WRITING = (0.0, 0.8), (0.8, 1.0)
PARQUET = "application/vnd.apache.parquet"


async def predict_batch(attempt: Attempt) -> None:
    """Predict what earlier attempts have not, put everything together, and make it a version of the output dataset."""
    model, sha256 = await attempt.model()
    data = await attempt.data()
    parts = _Parts(attempt)

    async def predict() -> None:
        job = BatchJob(
            model=str(model),
            sha256=sha256,
            data=str(data),
            parts=str(attempt.folder / "parts"),
            start=parts.rows,
            probabilities=attempt.held.spec["probabilities"],
            threads=attempt.worker.threads,
            part_seconds=attempt.worker.checkpoint_seconds,
        )
        try:
            await attempt.call("ml.batches:predict_in_child", job, hear=parts.heard)
        except ChildDied:
            await parts.stored()
            raise
        await parts.stored()

    async with parts.storing():
        await attempt.crashing(predict)
    joined = await attempt.crashing(lambda: _joined(attempt, model, sha256, data, parts))
    await attempt.store(attempt.folder / "output.parquet", operations.output_key(attempt.held), PARQUET)
    await attempt.write(
        operations.finish_batch,
        digest=joined.sha256,
        size_bytes=joined.size_bytes,
        row_count=joined.row_count,
        described=await _described(attempt, joined),
    )


class _Parts:
    """The predictions so far: files here that are on their way to the store, and those that are there."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._waiting: asyncio.Queue[PartDone] = asyncio.Queue()
        self.kept: list[Json] = list(attempt.held.kept.get("parts", ()))
        self._local: dict[str, Path] = {}
        self._storing: asyncio.Task[None] | None = None
        self._begun_at = self.rows

    @property
    def rows(self) -> int:
        return sum(part["rows"] for part in self.kept)

    def heard(self, message: Any) -> None:
        if isinstance(message, PartDone):
            self._waiting.put_nowait(message)
        elif isinstance(message, RowsDone):
            self._attempt.advance("scoring", message.rows, message.total, within=_SCORING, begun_at=self._begun_at)

    @asynccontextmanager
    async def storing(self) -> AsyncIterator[None]:
        """Put each part into the store as it comes, then say so, while the block runs."""
        self._storing = asyncio.create_task(self._store_all())
        try:
            yield
        finally:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)

    async def stored(self) -> None:
        """Wait until every part that was told of is in the store. Raises what kept one from getting there."""
        assert self._storing is not None
        joined = asyncio.create_task(self._waiting.join())
        try:
            await asyncio.wait({joined, self._storing}, return_when=asyncio.FIRST_COMPLETED)
            if not joined.done():
                await self._storing
        finally:
            joined.cancel()

    async def _store_all(self) -> None:
        while True:
            part = await self._waiting.get()
            key = operation_key(self._attempt.held.id, f"{Path(part.path).stem}-{self._attempt.held.attempt}.parquet")
            await self._attempt.store(Path(part.path), key, PARQUET)
            kept = {"key": key, "sha256": part.sha256, "rows": part.rows}
            scored = part.rows - part.failed
            await self._attempt.write(operations.keep_part, kept, scored=scored, failed=part.failed)
            self.kept.append(kept)
            self._local[key] = Path(part.path)
            self._waiting.task_done()

    async def files(self) -> tuple[str, ...]:
        """Every part as a file here, in the order of its rows. Raises `Unusable`."""
        files = []
        for part in self.kept:
            path = self._local.get(part["key"])
            if path is None:
                path = self._attempt.folder / part["key"].rpartition("/")[2]
                try:
                    found = await self._attempt.worker.store.download_file(part["key"], path)
                except ObjectMissing:
                    found = None
                if found != part["sha256"]:
                    message = "What was predicted so far is gone from the store, or was changed there. Start again."
                    raise Unusable(FailureCode.STORAGE_UNAVAILABLE, message, retryable=True)
                self._local[part["key"]] = path
            files.append(str(path))
        return tuple(files)


async def _joined(attempt: Attempt, model: Path, sha256: str, data: Path, parts: _Parts) -> Joined:
    assert attempt.held.dataset_version_id is not None
    async with attempt.worker.db.reading() as session:
        columns = await datasets.columns_of_version(session, attempt.held.dataset_version_id)
    scratch = attempt.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    job = JoinJob(
        model=str(model),
        sha256=sha256,
        data=str(data),
        columns=tuple(column.name for column in columns),
        parts=await parts.files(),
        probabilities=attempt.held.spec["probabilities"],
        output=str(attempt.folder / "output.parquet"),
        scratch=str(scratch),
        memory_limit_mb=min(ENGINE_MEMORY_MB, attempt.worker.run_memory_limit_mb // 2),
    )

    def heard(message: Any) -> None:
        if isinstance(message, RowsDone):
            attempt.advance("writing", message.rows, message.total, within=_WRITING)

    joined: Joined = await attempt.call("ml.batches:join_in_child", job, hear=heard)
    return joined


async def _described(attempt: Attempt, joined: Joined) -> list[Json]:
    """The columns of the new version: those of the data hold the same values, and are described as they are there."""
    assert attempt.held.dataset_version_id is not None
    async with attempt.worker.db.reading() as session:
        known = await datasets.columns_of_version(session, attempt.held.dataset_version_id)
    described = [
        {
            name: getattr(column, name)
            for name in ("name", "position", "type", "nullable", "role", "description", "profile")
        }
        for column in known
    ]
    for position, column in enumerate(joined.added, start=len(known)):
        described.append(
            {
                "name": column.name,
                "position": position,
                "type": column.type,
                "nullable": column.nullable,
                "role": ColumnRole.IGNORED,
                "profile": as_stored(column.profile),
            }
        )
    return described
