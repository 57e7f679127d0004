"""Processing an upload: check the file, make it Parquet, describe its columns; then the version is READY or FAILED.

A worker that processes a version holds a lease on it. Whoever has lost the lease writes nothing any more, so the job
can be done twice, and again after a kill -9. A store or a database that is away is waited for.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from db import datasets, unowned
from db.connections import DatabaseUnavailable
from db.ids import new_id
from db.rows import Json
from db.vocabulary import ColumnRole, EventType, FailureCode
from domain.texts import as_stored
from domain.uploads import ask_for_processing, expire, sweep
from events.log import publish, system_actor
from ml.formats import CsvOptions, InvalidData
from ml.processes import ChildFailure, ChildRaised, OutOfMemory, TimedOut
from storage.keys import data_key
from storage.objects import ObjectMissing, StoreUnavailable
from workers.worker import Worker

MOST_ATTEMPTS = 4
REPORT_SECONDS = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
ENGINE_MEMORY_MB = 1024
LEAST_SECONDS, BYTES_A_SECOND = 600.0, 500_000
LONGEST_DETAIL = 10_000
PARQUET = "application/vnd.apache.parquet"
_PHASES = {
    "download": (0.0, 0.1),
    "unpack": (0.1, 0.15),
    "read": (0.15, 0.2),
    "inspect": (0.2, 0.5),
    "convert": (0.5, 0.7),
    "profile": (0.7, 0.95),
    "store": (0.95, 1.0),
}
"""The share of the work that each phase begins and ends with."""
_ACTOR = system_actor("worker")
_log = structlog.get_logger(__name__)


class _Unusable(Exception):
    """The version cannot become READY; `failure` says why, `digest` is that of the uploaded bytes when it is known."""

    def __init__(self, failure: Json, digest: str | None = None) -> None:
        super().__init__(failure["message"])
        self.failure = failure
        self.digest = digest


async def process_version(worker: Worker, version_id: UUID) -> None:
    """Take a version from PROCESSING to READY or FAILED; nothing happens to a version in another state.

    Cancelled, it lets go of the version as if it had not been tried; the queue keeps the job.
    """
    lease, pause = new_id(), FIRST_PAUSE
    try:
        while True:
            try:
                await _process(worker, version_id, lease)
            except (StoreUnavailable, DatabaseUnavailable) as error:
                _log.warning("processing waits", version=version_id.hex, error=str(error))
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
    except asyncio.CancelledError:
        await asyncio.shield(_let_go(worker, version_id, lease))
        raise


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


async def _let_go(worker: Worker, version_id: UUID, lease: UUID) -> None:
    with suppress(DatabaseUnavailable):
        async with worker.db.transaction() as session:
            await datasets.release(session, version_id, lease)


async def _process(worker: Worker, version_id: UUID, lease: UUID) -> None:
    async with worker.db.transaction() as session:
        claimed = await datasets.claim(session, version_id, lease, _progress("download", 0))
    if claimed is None:
        return
    try:
        if claimed.attempt > MOST_ATTEMPTS:
            message = f"{MOST_ATTEMPTS} workers in turn were lost while they processed this file."
            raise _Unusable(_failure(FailureCode.WORKER_LOST, message, retryable=False))
        async with _folder(worker.scratch) as folder:
            await _prepare_and_finish(worker, claimed, lease, folder)
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


async def _prepare_and_finish(worker: Worker, claimed: datasets.Claimed, lease: UUID, folder: Path) -> None:
    version = claimed.version
    source, target, scratch = folder / "upload", folder / "data.parquet", folder / "scratch"
    scratch.mkdir()
    latest = _progress("download", 0)

    def heard(message: object) -> None:
        nonlocal latest
        if isinstance(message, tuple):
            latest = _progress(*message)

    async def report() -> None:
        told = latest
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            if latest != told:
                told = latest
                with suppress(DatabaseUnavailable):
                    async with worker.db.transaction() as session:
                        await datasets.note_progress(session, version.id, lease, told)

    reporting = asyncio.create_task(report())
    try:
        digest = await _download(worker, claimed, source)
        prepared = await _prepared(worker, claimed, digest, source, target, scratch, heard)
        heard(("store", 0.0))
        key = data_key(version.dataset_id, version.id)
        await worker.store.upload_file(target, key, PARQUET)
    finally:
        reporting.cancel()
        with suppress(asyncio.CancelledError):
            await reporting
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
        )
        if ready is not None:
            await _tell(session, EventType.DATASET_VERSION_READY, claimed, "READY")
        elif version.id not in await datasets.versions_by_ids(session, [version.id]):
            await unowned.let_go(session, [key])


async def _download(worker: Worker, claimed: datasets.Claimed, source: Path) -> str:
    """The SHA-256 of the uploaded bytes, which are in `source` now."""
    assert claimed.version.upload_key is not None
    try:
        digest = await worker.store.download_file(claimed.version.upload_key, source)
    except ObjectMissing as missing:
        message = "The uploaded file is not in the object store any more. Upload it again."
        raise _Unusable(_failure(FailureCode.STORAGE_UNAVAILABLE, message, retryable=False)) from missing
    expected = claimed.expected_sha256
    if expected not in (None, digest):
        message = f"The uploaded bytes have the SHA-256 {digest}, not {expected} as the upload said. Upload them again."
        raise _Unusable(_failure(FailureCode.INVALID_DATA, message, retryable=False), digest)
    return digest


async def _prepared(
    worker: Worker, claimed: datasets.Claimed, digest: str, source: Path, target: Path, scratch: Path, heard: Any
) -> Any:
    """What `ml.intake.prepare` found, done by a child process within its limits."""
    version = claimed.version
    options = version.csv_options
    csv = CsvOptions(**{**options, "null_values": tuple(options["null_values"])}) if options else None
    try:
        run = await worker.children.run(
            "ml.intake:prepare_in_child",
            str(source),
            version.format,
            csv,
            str(target),
            str(scratch),
            min(ENGINE_MEMORY_MB, worker.run_memory_limit_mb // 2),
            controlled=True,
            memory_limit_mb=worker.run_memory_limit_mb,
            wall_timeout=LEAST_SECONDS + (version.size_bytes or 0) / BYTES_A_SECOND,
            on_message=heard,
        )
        return await run.result()
    except InvalidData as error:
        raise _Unusable(
            _failure(FailureCode.INVALID_DATA, _located(error), retryable=False, detail=error.detail), digest
        ) from error
    except OutOfMemory as error:
        message = f"The file needs more than the {worker.run_memory_limit_mb} MB that a worker may use for it."
        raise _Unusable(
            _failure(FailureCode.OUT_OF_MEMORY, message, retryable=False, detail=error.output), digest
        ) from error
    except TimedOut as error:
        message = "Reading the file took too long."
        raise _Unusable(_failure(FailureCode.TIMEOUT, message, retryable=True, detail=error.output), digest) from error
    except ChildFailure as error:
        _log.error("the child that processed a version failed", version=version.id.hex, error=str(error))
        failure = _failure(
            FailureCode.INTERNAL,
            "The process that read the file ended before it was done.",
            retryable=not isinstance(error, ChildRaised),
            detail=f"{error}\n{error.output}",
        )
        raise _Unusable(failure, digest) from error


async def _fail(worker: Worker, claimed: datasets.Claimed, lease: UUID, unusable: _Unusable) -> None:
    async with worker.db.transaction() as session:
        failed = await datasets.fail(session, claimed.version.id, lease, unusable.failure, digest=unusable.digest)
        if failed is not None:
            await _tell(session, EventType.DATASET_VERSION_FAILED, claimed, "FAILED")


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


def _progress(phase: str, fraction: float | None) -> Json:
    """The progress of the whole, from the phase it is in and how far that is."""
    start, end = _PHASES.get(phase, (None, None))
    if start is None or end is None:
        return {"phase": phase}
    return {"phase": phase, "fraction": round(start + (end - start) * min(max(fraction or 0.0, 0.0), 1.0), 4)}


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
