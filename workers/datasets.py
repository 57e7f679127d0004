"""Processing an upload: check the file, make it Parquet, describe its columns; then the version is READY or FAILED.

A worker that processes a version holds a lease on it. Whoever has lost the lease writes nothing any more, so the job
can be done twice, and again after a kill -9. A store or a database that is away is waited for.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from db import datasets, unowned
from db.connections import DatabaseUnavailable
from db.database import Session
from db.ids import new_id
from db.rows import Json
from db.vocabulary import ColumnRole, EventType, FailureCode
from domain.texts import as_stored
from domain.uploads import ask_for_processing, csv_json, expire, sweep
from events.log import publish, system_actor
from ml.formats import CsvOptions, InvalidData, Rejects
from ml.intake import Converted, Prepared
from ml.processes import ChildFailure, ChildRaised, OnMessage, OutOfMemory, TimedOut
from storage.keys import data_key, data_prefix
from storage.objects import ObjectMissing, StoreUnavailable
from workers.patience import patiently
from workers.worker import Worker

MOST_ATTEMPTS = 4
REPORT_SECONDS = 1.0
ENGINE_MEMORY_MB = 1024
LEAST_SECONDS, BYTES_A_SECOND = 600.0, 500_000
LONGEST_DETAIL = 10_000
PARQUET = "application/vnd.apache.parquet"
WORKER_MAY_WRITE = timedelta(hours=6)
"""How long a worker that has lost its lease without knowing may still put Parquet into the store."""
_PHASES = {
    "read": (0.0, 0.15),
    "unpack": (0.15, 0.2),
    "inspect": (0.2, 0.25),
    "convert": (0.25, 0.55),
    "profile": (0.55, 0.95),
    "store": (0.95, 1.0),
}
"""The share of the work that each phase begins and ends with; the file is fetched while it is read."""
TOLD_FROM = 0.05
"""The share of the work from which on its end is estimated."""
_ACTOR = system_actor("worker")
_log = structlog.get_logger(__name__)


class _Unusable(Exception):
    """The version cannot become READY; `failure` says why, `digest` is that of the uploaded bytes when it is known."""

    def __init__(self, failure: Json, digest: str | None = None, rejects: Rejects | None = None) -> None:
        super().__init__(failure["message"])
        self.failure = failure
        self.digest = digest
        self.rejects = rejects


class _LeaseLost(Exception):
    """Another worker has the version now, or it is gone."""


class _Progress:
    """How far a version is, from the phase it is in: it only grows, and tells when the end is to be expected."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._fraction = 0.0
        self.latest: Json = {"phase": "read", "fraction": 0}

    def heard(self, phase: str, fraction: float | None) -> None:
        start, end = _PHASES[phase]
        done = start + (end - start) * min(max(fraction or 0.0, 0.0), 1.0)
        if done < self._fraction:
            return
        self._fraction = done
        self.latest = {"phase": phase, "fraction": round(done, 4)}
        if done >= TOLD_FROM:
            left = (time.monotonic() - self._began) * (1 - done) / done
            self.latest["estimated_finish_at"] = (datetime.now(UTC) + timedelta(seconds=left)).isoformat()


async def process_version(worker: Worker, version_id: UUID) -> None:
    """Take a version from PROCESSING to READY or FAILED; nothing happens to a version in another state.

    Cancelled, it lets go of the version as if it had not been tried; the queue keeps the job.
    """
    await patiently(worker, version_id, new_id(), _process, _release, what="a dataset version")


async def requeue_stranded(worker: Worker) -> None:
    """See to it that every version that is PROCESSING has a job: one may have ended without finishing its version."""
    async with worker.db.reading() as session:
        stranded = await datasets.without_job(session)
    for version_id in stranded:
        async with worker.db.transaction() as session:
            await ask_for_processing(session, version_id)


async def end_expired_uploads(worker: Worker) -> None:
    """Free the parts of uploads that nobody completed in time; while the store is away they wait."""
    with suppress(StoreUnavailable):
        await expire(worker.db, worker.store)


async def delete_unowned_objects(worker: Worker) -> None:
    """Delete what deleted datasets and ended uploads left in the store; while it is away that waits."""
    with suppress(StoreUnavailable):
        await sweep(worker.db, worker.store)


async def _release(session: Session, version_id: UUID, lease: UUID) -> None:
    if (released := await datasets.release(session, version_id, lease)) is not None:
        await unowned.let_go_under(session, data_prefix(released.dataset_id, released.id))


async def _process(worker: Worker, version_id: UUID, lease: UUID) -> None:
    progress = _Progress()
    async with worker.db.transaction() as session:
        claimed = await datasets.claim(session, version_id, lease, progress.latest)
        if claimed is not None:
            await unowned.let_go(session, [_key(claimed, lease)], after=WORKER_MAY_WRITE)
    if claimed is None:
        return
    try:
        if claimed.attempt > MOST_ATTEMPTS:
            message = f"{MOST_ATTEMPTS} workers in turn were lost while they processed this file."
            raise _Unusable(_failure(FailureCode.WORKER_LOST, message, retryable=False))
        async with _folder(worker.scratch) as folder, _reporting(worker, version_id, lease, progress) as lost:
            await _unless(lost, _prepare_and_finish(worker, claimed, lease, folder, progress))
    except _LeaseLost:
        _log.warning("the lease on a version is over", version=version_id.hex)
        with suppress(DatabaseUnavailable):
            async with worker.db.transaction() as session:
                await unowned.let_go(session, [_key(claimed, lease)])
    except _Unusable as unusable:
        await _fail(worker, claimed, lease, unusable)
    except (StoreUnavailable, DatabaseUnavailable):
        raise
    except OSError as error:
        message = f"The worker could not keep the file on its disk: {error.strerror or error}. Make room and try again."
        await _fail(worker, claimed, lease, _Unusable(_failure(FailureCode.INTERNAL, message, retryable=True)))
    except Exception as error:
        _log.exception("processing failed", version=version_id.hex)
        failure = _failure(FailureCode.INTERNAL, "Processing failed on our side.", retryable=True, detail=repr(error))
        await _fail(worker, claimed, lease, _Unusable(failure))


@asynccontextmanager
async def _reporting(
    worker: Worker, version_id: UUID, lease: UUID, progress: _Progress
) -> AsyncIterator[asyncio.Task[None]]:
    """Tell the progress every second; the task ends when the lease is over."""

    async def report() -> None:
        told = progress.latest
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            if progress.latest is told:
                continue
            told = progress.latest
            with suppress(DatabaseUnavailable):
                async with worker.db.transaction() as session:
                    if not await datasets.note_progress(session, version_id, lease, told):
                        return

    reporting = asyncio.create_task(report())
    try:
        yield reporting
    finally:
        await _ended(reporting)


async def _unless(lost: asyncio.Task[None], work: Coroutine[Any, Any, None]) -> None:
    """Do the work; raises `_LeaseLost` when the lease is over first."""
    working = asyncio.create_task(work)
    try:
        await asyncio.wait([lost, working], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _LeaseLost
        working.result()
    finally:
        await _ended(working)


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _prepare_and_finish(
    worker: Worker, claimed: datasets.Claimed, lease: UUID, folder: Path, progress: _Progress
) -> None:
    """The file is read while it is fetched, and its Parquet is stored while it is described."""
    source, target, scratch = folder / "upload", folder / "data.parquet", folder / "scratch"
    await asyncio.to_thread(scratch.mkdir)
    await asyncio.to_thread(source.touch)
    converted = asyncio.Event()
    key = _key(claimed, lease)

    def heard(message: object) -> None:
        if isinstance(message, Converted):
            converted.set()
        elif isinstance(message, tuple):
            progress.heard(*message)

    async def store() -> None:
        await converted.wait()
        await worker.store.upload_file(target, key, PARQUET)

    fetching = asyncio.create_task(_fetched(worker, claimed, source))
    preparing = asyncio.create_task(_prepared(worker, claimed, source, target, scratch, heard))
    storing = asyncio.create_task(store())
    try:
        digest = await fetching
        if await _finish_as_twin(worker, claimed, lease, digest):
            return
        try:
            prepared = await preparing
        except _Unusable as unusable:
            unusable.digest = digest
            raise
        progress.heard("store", 0.0)
        await storing
    finally:
        await _ended(fetching, preparing, storing)
    await _finish(worker, claimed, lease, prepared, digest)


async def _finish(worker: Worker, claimed: datasets.Claimed, lease: UUID, prepared: Prepared, digest: str) -> None:
    version, key = claimed.version, _key(claimed, lease)
    described = [
        {
            "name": column.name,
            "position": column.position,
            "type": column.type,
            "nullable": column.nullable,
            "role": ColumnRole.FEATURE,
            "profile": as_stored(profile),
        }
        for column, profile in zip(prepared.columns, prepared.profiles, strict=True)
    ]
    async with worker.db.transaction() as session:
        ready = await datasets.finish(
            session,
            version.id,
            lease,
            data_key=key,
            digest=digest,
            row_count=prepared.row_count,
            described=described,
            rejected_rows=prepared.rejects.count,
            rejects=_told(prepared.rejects),
            csv_found=csv_json(prepared.csv),
        )
        if ready is None:
            await unowned.let_go(session, [key])
            return
        await unowned.forget(session, [key])
        await unowned.let_go_under(session, data_prefix(version.dataset_id, version.id))
        await _tell(session, EventType.DATASET_VERSION_READY, claimed, "READY")


async def _finish_as_twin(worker: Worker, claimed: datasets.Claimed, lease: UUID, digest: str) -> bool:
    """Whether the dataset has these bytes already: then the version shares their objects, and its own are let go of."""
    version = claimed.version
    async with worker.db.transaction() as session:
        twin = await datasets.twin(session, version, digest)
        if twin is None:
            return False
        if await datasets.finish_as(session, version.id, lease, twin) is not None:
            assert version.upload_key is not None
            if version.upload_key != twin.upload_key:
                await unowned.let_go(session, [version.upload_key])
            await unowned.let_go_under(session, data_prefix(version.dataset_id, version.id))
            await _tell(session, EventType.DATASET_VERSION_READY, claimed, "READY")
    return True


async def _fetched(worker: Worker, claimed: datasets.Claimed, source: Path) -> str:
    """The SHA-256 of the uploaded bytes, which are in `source` now."""
    version = claimed.version
    assert version.upload_key is not None
    try:
        digest = await worker.store.download_growing(version.upload_key, source)
    except ObjectMissing as missing:
        message = "The uploaded file is not in the object store any more. Upload it again."
        raise _Unusable(_failure(FailureCode.STORAGE_UNAVAILABLE, message, retryable=False)) from missing
    expected = claimed.expected_sha256
    if expected not in (None, digest):
        message = f"The uploaded bytes have the SHA-256 {digest}, not {expected} as the upload said. Upload them again."
        raise _Unusable(_failure(FailureCode.INVALID_DATA, message, retryable=False), digest)
    if (await asyncio.to_thread(source.stat)).st_size != version.size_bytes:
        message = "The uploaded file in the object store has another size than the upload had. Upload it again."
        raise _Unusable(_failure(FailureCode.STORAGE_UNAVAILABLE, message, retryable=False), digest)
    return digest


async def _prepared(
    worker: Worker, claimed: datasets.Claimed, source: Path, target: Path, scratch: Path, heard: OnMessage
) -> Prepared:
    """What `ml.intake.prepare` found, done by a child process within its limits."""
    version = claimed.version
    options = version.csv_options
    csv = CsvOptions(**{**options, "null_values": tuple(options["null_values"])}) if options else None
    try:
        run = await worker.children.run(
            "ml.intake:prepare_in_child",
            str(source),
            version.size_bytes,
            version.format,
            csv,
            claimed.tolerated_rejects,
            str(target),
            str(scratch),
            min(ENGINE_MEMORY_MB, worker.run_memory_limit_mb // 2),
            controlled=True,
            memory_limit_mb=worker.run_memory_limit_mb,
            wall_timeout=LEAST_SECONDS + (version.size_bytes or 0) / BYTES_A_SECOND,
            on_message=heard,
        )
        prepared: Prepared = await run.result()
        return prepared
    except InvalidData as error:
        failure = _failure(FailureCode.INVALID_DATA, _located(error), retryable=False, detail=error.detail)
        raise _Unusable(failure, rejects=error.rejects) from error
    except OutOfMemory as error:
        message = f"The file needs more than the {worker.run_memory_limit_mb} MB that a worker may use for it."
        raise _Unusable(_failure(FailureCode.OUT_OF_MEMORY, message, retryable=False, detail=error.output)) from error
    except TimedOut as error:
        message = "Reading the file took too long."
        raise _Unusable(_failure(FailureCode.TIMEOUT, message, retryable=True, detail=error.output)) from error
    except ChildFailure as error:
        _log.error("the child that processed a version failed", version=version.id.hex, error=str(error))
        failure = _failure(
            FailureCode.INTERNAL,
            "The process that read the file ended before it was done.",
            retryable=not isinstance(error, ChildRaised),
            detail=f"{error}\n{error.output}",
        )
        raise _Unusable(failure) from error


async def _fail(worker: Worker, claimed: datasets.Claimed, lease: UUID, unusable: _Unusable) -> None:
    version, rejects = claimed.version, unusable.rejects
    async with worker.db.transaction() as session:
        failed = await datasets.fail(
            session,
            version.id,
            lease,
            unusable.failure,
            digest=unusable.digest,
            rejected_rows=rejects.count if rejects else None,
            rejects=_told(rejects) if rejects else [],
        )
        if failed is not None:
            await unowned.let_go_under(session, data_prefix(version.dataset_id, version.id))
            await _tell(session, EventType.DATASET_VERSION_FAILED, claimed, "FAILED")


def _key(claimed: datasets.Claimed, lease: UUID) -> str:
    return data_key(claimed.version.dataset_id, claimed.version.id, lease)


def _told(rejects: Rejects) -> list[Json]:
    return [as_stored(asdict(row)) for row in rejects.first]


async def _tell(session: Any, type: EventType, claimed: datasets.Claimed, status: str) -> None:
    await publish(
        session,
        type,
        claimed.version.id,
        project_id=claimed.project_id,
        actor=_ACTOR,
        changes={"status": ["PROCESSING", status]},
    )


@asynccontextmanager
async def _folder(parent: Path) -> AsyncIterator[Path]:
    """A folder of our own, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="version-", dir=parent))
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _failure(code: FailureCode, message: str, *, retryable: bool, detail: str | None = None) -> Json:
    kept: Json = as_stored(
        {"code": code, "message": message, "retryable": retryable, "detail": (detail or "")[-LONGEST_DETAIL:] or None}
    )
    return kept


def _located(error: InvalidData) -> str:
    """The message, with the line and the column where it does not name them itself."""
    missing = []
    if error.line is not None and f"ine {error.line}" not in error.message:
        missing.append(f"line {error.line}")
    if error.column is not None and error.column not in error.message:
        missing.append(f"column {error.column!r}")
    return f"{error.message} (At {', '.join(missing)}.)" if missing else error.message
