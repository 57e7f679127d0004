"""Operations: batch predictions, evaluations and checks of uploaded models, from QUEUED to their end.

A worker that works on an operation holds a lease on it. Whoever has lost the lease writes nothing any more, so the job
can be done twice, and again after a kill -9. A store or a database that is away is waited for.
"""

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import structlog

from db import operations as queries
from db import predictions
from db.connections import DatabaseUnavailable
from db.ids import new_id
from db.operations import Held, operation_topic
from db.predictions import TargetRef
from db.rows import Json
from db.vocabulary import FailureCode, OperationStatus
from domain import operations
from domain.models import MANIFEST, MODEL
from domain.operations import LeaseLost
from domain.texts import as_stored
from ml.messages import DataProblem, DigestMismatch, ModelUnreadable
from ml.processes import ChildDied, ChildFailure, ChildRaised, ChildRun, OutOfMemory, TimedOut
from storage.objects import ObjectMissing, StoreUnavailable
from workers.data import DataGone, link_data
from workers.patience import patiently
from workers.worker import Worker

MOST_ATTEMPTS = 4
BEAT_SECONDS = 1.0
_AGAIN_SECONDS = 0.5
_MOST_CRASHES = 3
_LONGEST_DETAIL = 10_000
_log = structlog.get_logger(__name__)
ResultT = TypeVar("ResultT")


class Unusable(Exception):
    """The operation cannot succeed; the message says why, for the one who asked for it."""

    def __init__(self, code: FailureCode, message: str, *, retryable: bool = False, detail: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.detail = detail


class _Canceled(Exception):
    """Somebody wants it ended."""


class Attempt:
    """One attempt at an operation: what it is about, a folder of its own, and children that end with it."""

    def __init__(self, worker: Worker, held: Held, folder: Path) -> None:
        self.worker = worker
        self.held = held
        self.folder = folder
        self._progress: Json | None = None
        self._phase, self._phase_since = "", 0.0

    def advance(self, phase: str, done: int, total: int, *, within: tuple[float, float], begun_at: int = 0) -> None:
        """How far the work is, told with the next sign of life; `within` is the phase's share of the whole."""
        if phase != self._phase:
            self._phase, self._phase_since = phase, time.monotonic()
        low, high = within
        share = done / total if total else 1.0
        taken, since = time.monotonic() - self._phase_since, done - begun_at
        left = taken / since * (total - done) if since > 0 else None
        self._progress = {
            "phase": phase,
            "fraction": round(low + (high - low) * share, 4),
            "completed": done,
            "total": total,
            "unit": "rows",
            "estimated_finish_at": None if left is None else (datetime.now(UTC) + timedelta(seconds=left)).isoformat(),
        }

    async def model(self) -> tuple[Path, str]:
        """The folder with the files of the model version, and the digest its text has to have. Raises `Unusable`."""
        async with self.worker.db.reading() as session:
            target = await predictions.target(session, TargetRef(version_id=self.held.model_version_id))
        if target is None:
            raise LeaseLost(self.held.id)
        folder = self.folder / "model"
        folder.mkdir(exist_ok=True)
        files = ((MODEL, target.model_key, target.sha256), (MANIFEST, target.manifest_key, target.manifest_sha256))
        for name, key, sha256 in files:
            try:
                found = await self.worker.store.download_file(key, folder / name)
            except ObjectMissing:
                found = None
            if found != sha256:
                message = "The stored files of this version are gone or were changed since it was registered."
                raise Unusable(FailureCode.INVALID_DATA, message)
        return folder, target.sha256

    async def data(self) -> Path:
        """The Parquet of the dataset version. Raises `DataGone`."""
        assert self.held.dataset_version_id is not None
        path = self.folder / "data.parquet"
        await link_data(self.worker, self.held.dataset_version_id, path)
        return path

    async def call(
        self, target: str, *args: Any, hear: Callable[[Any], None] = lambda _: None, seconds: float | None = None
    ) -> Any:
        """Run a function of `ml` in a child of its own, within the limits of a worker. Killed with this attempt."""
        run: ChildRun = await self.worker.children.run(
            target,
            *args,
            controlled=True,
            memory_limit_mb=self.worker.run_memory_limit_mb,
            wall_timeout=seconds,
            nice=5,
            on_message=hear,
        )
        return await run.result()

    async def crashing(self, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Do it once more when the child was lost in between; what crashes again and again is given up."""
        crashes = 0
        while True:
            try:
                return await work()
            except ChildDied as error:
                crashes += 1
                _log.warning("a child was lost", operation=self.held.id.hex, error=str(error))
                if crashes == _MOST_CRASHES:
                    raise

    async def write(self, step: Callable[..., Awaitable[ResultT]], /, *args: Any, **values: Any) -> ResultT:
        """One step of the operation's life in a transaction of its own; waits while the database is away."""
        while True:
            try:
                async with self.worker.db.transaction() as session:
                    return await step(session, self.held, *args, **values)
            except DatabaseUnavailable as error:
                _log.warning("waiting", error=str(error))
                await asyncio.sleep(_AGAIN_SECONDS)

    async def store(self, path: Path, key: str, content_type: str) -> None:
        """Put a file into the store; waits while it is away. Should nothing point at it in the end, it is deleted."""
        await self.write(operations.will_store, key)
        while True:
            try:
                await self.worker.store.upload_file(path, key, content_type)
            except StoreUnavailable as error:
                _log.warning("waiting", error=str(error))
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    async def beating(self) -> None:
        """Signs of life, until this is cancelled. Raises `_Canceled` and `LeaseLost`."""
        with self.worker.wakeups.watching(operation_topic(self.held.id)) as bell:
            told: Json | None = None
            while True:
                with suppress(DatabaseUnavailable):
                    latest = self._progress
                    async with self.worker.db.transaction() as session:
                        now = await operations.note(session, self.held, None if latest is told else latest)
                    told = latest
                    if now.status == OperationStatus.CANCELING:
                        raise _Canceled
                began = time.monotonic()
                await bell.wait(min(BEAT_SECONDS, self.worker.wakeups.patience))
                await asyncio.sleep(max(0.0, 0.1 - (time.monotonic() - began)))


Work = Callable[[Attempt], Awaitable[None]]


async def operate(work: Mapping[str, Work], worker: Worker, operation_id: UUID) -> None:
    """Take an operation to its end; nothing happens to one that is over. `work` says what to do for each kind.

    Cancelled, it lets go of the operation as if it had not been tried; the queue keeps the job.
    """
    await patiently(worker, operation_id, new_id(), partial(_attempt, work), queries.release, what="an operation")


async def requeue_stranded(worker: Worker) -> None:
    """See to it that every operation that is not over has a job: one may have ended without finishing its work."""
    async with worker.db.transaction() as session:
        await queries.requeue_stranded(session)


async def _attempt(work: Mapping[str, Work], worker: Worker, operation_id: UUID, lease: UUID) -> None:
    async with worker.db.transaction() as session:
        held = await queries.claim(session, operation_id, lease)
    if held is None:
        return
    with structlog.contextvars.bound_contextvars(operation=held.id.hex, kind=held.kind, attempt=held.attempt):
        try:
            async with _folder(worker.scratch) as folder:
                await _see_through(Attempt(worker, held, folder), work[held.kind])
        except LeaseLost:
            _log.warning("the operation went on without us")


async def _see_through(attempt: Attempt, work: Work) -> None:
    if attempt.held.status == OperationStatus.CANCELING:
        await attempt.write(operations.canceled)
        return
    if attempt.held.attempt > MOST_ATTEMPTS:
        message = f"{MOST_ATTEMPTS} workers in turn were lost before they got any further with this."
        await _fail(attempt, Unusable(FailureCode.WORKER_LOST, message))
        return
    working = asyncio.ensure_future(work(attempt))
    beating = asyncio.create_task(attempt.beating())
    try:
        await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await _stopped(working)
            await beating
        await working
    except _Canceled:
        await attempt.write(operations.canceled)
    except (LeaseLost, StoreUnavailable, DatabaseUnavailable):
        raise
    except Exception as error:
        await _fail(attempt, _why(error, attempt.worker.run_memory_limit_mb))
    finally:
        await _stopped(working)
        await _stopped(beating)


async def _stopped(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _why(error: Exception, memory_mb: int) -> Unusable:
    """What went wrong, in words for the one who asked for it."""
    if isinstance(error, Unusable):
        return error
    if isinstance(error, DataProblem | DataGone | DigestMismatch | ModelUnreadable):
        return Unusable(FailureCode.INVALID_DATA, str(error))
    if isinstance(error, OutOfMemory):
        message = f"The work needed more than the {memory_mb} MB of memory that a worker may use for it."
        return Unusable(FailureCode.OUT_OF_MEMORY, message, detail=error.output)
    if isinstance(error, TimedOut):
        return Unusable(FailureCode.TIMEOUT, "The work took too long.", retryable=True, detail=error.output)
    if isinstance(error, ChildDied):
        how = "was killed from outside" if error.signal == signal.SIGKILL else "crashed"
        message = f"The process that did the work {how}, {_MOST_CRASHES} times."
        return Unusable(FailureCode.INTERNAL, message, retryable=True, detail=f"{error}\n{error.output}")
    _log.exception("an operation failed", exc_info=error)
    if isinstance(error, OSError):
        message = f"The worker could not keep files on its disk: {error.strerror or error}."
        return Unusable(FailureCode.INTERNAL, message, retryable=True)
    detail = error.traceback if isinstance(error, ChildRaised) else f"{error}\n{getattr(error, 'output', '')}"
    retryable = isinstance(error, ChildFailure) and not isinstance(error, ChildRaised)
    return Unusable(FailureCode.INTERNAL, "The work failed on our side.", retryable=retryable, detail=detail)


async def _fail(attempt: Attempt, why: Unusable) -> None:
    detail = as_stored((why.detail or "")[-_LONGEST_DETAIL:] or None)
    message = as_stored(str(why))
    await attempt.write(operations.fail, why.code, message, retryable=why.retryable, detail=detail)


@asynccontextmanager
async def _folder(parent: Path) -> AsyncIterator[Path]:
    """A folder of our own, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="operation-", dir=parent))
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
