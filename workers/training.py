"""One attempt at a training run: fetch the data, train in a child process, stream what it says, keep what it leaves.

The attempt holds a lease on the run; when that is over it stops at once and writes nothing more. While the database or
the store is away it goes on as far as it can and waits: an outage is no failure of the run.
"""

import asyncio
import os
import platform
import shutil
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import structlog

from db import run_logs
from db.connections import DatabaseUnavailable
from db.rows import Json
from db.runs import Held
from db.vocabulary import FailureCode, LogLevel, LogStream
from domain import training
from domain.models import outcome_of
from domain.training import LeaseLost, Line, StoredFile, cancel_topic
from ml import checkpoints
from ml.messages import (
    Checkpoint,
    DataProblem,
    Ended,
    LogLine,
    Phase,
    ResourceUsage,
    RoundDone,
    Stop,
    TrainJob,
    TrainResult,
)
from ml.processes import ChildDied, ChildFailure, ChildRaised, ChildRun, Killed, OutOfMemory, TimedOut
from ml.spec import TrainingSpec
from storage.keys import artifact_key
from storage.objects import ObjectMissing, StoreUnavailable
from workers.data import DataGone, link_data
from workers.worker import Worker

BEAT_SECONDS = 1.5
FLUSH_SECONDS = 0.05
"""The least time between two writes of what a run says; the first is written at once."""
PROGRESS_SECONDS = 0.25
SAMPLE_SECONDS = 1.0
HAND_BACK_SECONDS = 5.0
_AGAIN_SECONDS = 0.5
_CONTENT_TYPES = {".txt": "text/plain; charset=utf-8", ".json": "application/json", ".md": "text/markdown"}
_PACKAGES = ("lightgbm", "numpy", "pyarrow", "polars", "duckdb")
_log = structlog.get_logger(__name__)
ResultT = TypeVar("ResultT")


async def train_run(worker: Worker, run_id: UUID) -> None:
    """Take the run, if it waits to be taken, and see its next attempt through.

    Cancelled, it hands the run back. Raises `DatabaseUnavailable` when the run could not even be taken.
    """
    async with worker.db.transaction() as session:
        run = await training.claim(session, run_id, worker=worker.name)
    if run is None:
        return
    with structlog.contextvars.bound_contextvars(run=run_id.hex, attempt=run.attempt):
        attempt = _Attempt(worker, run)
        try:
            await attempt.see_through()
        except LeaseLost:
            _log.warning("the run went on without us")
        except asyncio.CancelledError:
            await attempt.hand_back()
            raise


@dataclass(slots=True)
class _Said:
    """What the child has said and is not written yet."""

    points: dict[str, tuple[list[int], list[int], list[float]]] = field(default_factory=dict)
    system_points: dict[str, tuple[None, list[int], list[float]]] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)

    def before(self, later: "_Said") -> "_Said":
        """Both, this one first: what could not be written goes back to the front."""
        for name, (steps, at, values) in later.points.items():
            mine = self.points.setdefault(name, ([], [], []))
            mine[0].extend(steps)
            mine[1].extend(at)
            mine[2].extend(values)
        for name, (_, at, values) in later.system_points.items():
            sampled = self.system_points.setdefault(name, (None, [], []))
            sampled[1].extend(at)
            sampled[2].extend(values)
        self.lines.extend(later.lines)
        return self


class _Attempt:
    def __init__(self, worker: Worker, run: Held) -> None:
        self._worker = worker
        self._run = run
        self._spec = TrainingSpec.from_json(run.spec)
        self._folder = worker.scratch / f"{run.id.hex}-{run.attempt}"
        self._child: ChildRun | None = None
        self._cancellation: Json | None = None
        self._said = _Said()
        self._bell = asyncio.Event()
        self._afresh = True
        self._last_line: int | None = None
        self._progress: Json | None = None
        self._progress_due = 0.0
        self._training_since = 0.0
        self._began_at = 0
        self._stored: str | None = None if run.checkpoint is None else run.checkpoint["object_key"]
        self._checkpoint: Checkpoint | None = None
        self._checkpoint_bell = asyncio.Event()
        self._writing = asyncio.Lock()

    async def see_through(self) -> None:
        """Raises `LeaseLost`."""
        try:
            self._last_line = await self._patiently(self._newest_line)
            async with self._alongside(self._beating(), self._flushing()):
                await self._work()
        except LeaseLost:
            raise
        except Killed:
            await self._write(training.canceled)
        except Exception as error:
            self._said, self._last_line = _Said(), None
            await self._broken(error)
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    @asynccontextmanager
    async def _alongside(self, *jobs: Any) -> AsyncIterator[None]:
        """Run jobs beside the block; the first that raises ends the block with its exception."""
        block = asyncio.current_task()
        assert block is not None
        tasks = [asyncio.create_task(job) for job in jobs]
        ended_by: list[BaseException] = []

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None and not ended_by:
                ended_by.append(error)
                block.cancel()

        for task in tasks:
            task.add_done_callback(ended)
        try:
            yield
        except asyncio.CancelledError:
            if ended_by and block.uncancel() == 0:
                raise ended_by[0] from None
            raise
        finally:
            for task in tasks:
                task.remove_done_callback(ended)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # The work itself

    async def _work(self) -> None:
        try:
            await self._train()
        except LeaseLost:
            raise
        except DataProblem as problem:
            await self._failed(FailureCode.INVALID_DATA, str(problem))
        except DataGone as gone:
            await self._failed(FailureCode.INVALID_DATA, str(gone))
        except OutOfMemory as error:
            message = f"Training needed more than the {self._worker.run_memory_limit_mb} MB of memory it may use."
            await self._failed(FailureCode.OUT_OF_MEMORY, message, detail=error.output)
        except TimedOut as error:
            await self._failed(
                FailureCode.TIMEOUT, f"Training took longer than {self._spec.timeout:g} s.", detail=error.output
            )
        except Killed:
            await self._write(training.canceled)
        except ChildDied as error:
            if error.signal == signal.SIGKILL:
                await self._write(training.lose, "Its training process was killed from outside.")
            else:
                await self._failed(FailureCode.INTERNAL, str(error), detail=error.output, retryable=True)
        except ChildRaised as error:
            await self._failed(FailureCode.INTERNAL, str(error), detail=error.traceback, retryable=True)
        except ChildFailure as error:
            await self._failed(FailureCode.INTERNAL, str(error), detail=error.output, retryable=True)
        except Exception as error:
            await self._broken(error)

    async def _broken(self, error: Exception) -> None:
        _log.exception("an attempt failed", exc_info=error)
        detail = "".join(traceback.format_exception(error))
        await self._failed(FailureCode.INTERNAL, f"{type(error).__name__}: {error}", detail=detail, retryable=True)

    async def _train(self) -> None:
        data = await self._fetched(self._run.dataset_version_id, "data")
        assert data is not None, "a run of LightGBM names its data"
        validation = await self._fetched(self._run.validation_dataset_version_id, "validation")
        checkpoint = await self._reached()
        job = TrainJob(
            spec=self._spec,
            data=str(data),
            output=str(self._folder / "artifact"),
            validation_data=None if validation is None else str(validation),
            threads=self._worker.threads,
            checkpoint=None if checkpoint is None else str(checkpoint),
            checkpoints=str(self._folder / "checkpoints"),
            checkpoint_seconds=self._worker.checkpoint_seconds,
            explicit_params=tuple(p["name"] for p in self._run.params if p["explicit"]),
            provenance={
                "run": self._run.id.hex,
                "attempt": self._run.attempt,
                "dataset_version": None if self._run.dataset_version_id is None else self._run.dataset_version_id.hex,
                "validation_dataset_version": None
                if self._run.validation_dataset_version_id is None
                else self._run.validation_dataset_version_id.hex,
            },
        )
        self._child = await self._worker.children.run(
            "ml.training:train_in_child",
            job,
            controlled=True,
            memory_limit_mb=self._worker.run_memory_limit_mb,
            wall_timeout=self._spec.timeout,
            nice=5,
            on_message=self._heard,
            sample_seconds=SAMPLE_SECONDS,
        )
        self._heed()
        asking = asyncio.create_task(self._child.result())
        try:
            await self._write(training.started, environment=_environment())
            async with self._alongside(self._storing_checkpoints()):
                result: TrainResult = await asking
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await self._keep(result)

    async def _keep(self, result: TrainResult) -> None:
        """Put the files into the store, then tell of everything in one transaction."""
        files = []
        for file in result.files:
            key = artifact_key(self._run.id, self._run.attempt, file.path)
            content_type = _CONTENT_TYPES.get(Path(file.path).suffix, "application/octet-stream")
            path = self._folder / "artifact" / file.path
            await self._patiently(self._worker.store.upload_file, path, key, content_type)
            files.append(
                StoredFile(
                    path=file.path,
                    size_bytes=file.size_bytes,
                    sha256=file.sha256,
                    content_type=content_type,
                    object_key=key,
                )
            )
        outcome = outcome_of(result, {file.path: file.object_key for file in files})
        await self._write(
            training.complete,
            outcome=outcome,
            files=files,
            progress=self._final_progress(result),
            reason=_reason(result),
        )
        if self._stored is not None and result.ended is not Ended.CANCELED:
            await self._discard(self._stored)

    # Checkpoints

    async def _reached(self) -> Path | None:
        """The checkpoint to go on from as a file of this attempt; None when there is none that can be used."""
        kept = self._run.checkpoint
        if kept is None:
            return None
        path = self._folder / "checkpoint.json"
        problem: str | None = None
        if kept["maker"] != checkpoints.maker():
            problem = f"was made with {kept['maker']}, and this is {checkpoints.maker()}"
        else:
            try:
                found = await self._patiently(self._worker.store.download_file, kept["object_key"], path)
                problem = "is damaged" if found != kept["sha256"] else None
            except ObjectMissing:
                problem = "is not in the store any more"
        if problem is not None:
            self._line(LogLevel.WARNING, f"Training starts over: its checkpoint {problem}.")
            return None
        self._began_at = kept["rounds"]
        self._line(LogLevel.INFO, f"Going on after round {kept['rounds'] - 1}.")
        if not checkpoints.repeats(self._spec.params):
            self._line(
                LogLevel.WARNING,
                "LightGBM draws its random numbers anew from here on: the model differs from one trained in one go.",
            )
        return path

    async def _storing_checkpoints(self) -> None:
        """Put the newest checkpoint into the store, then say so, then delete the one before."""
        while True:
            await self._checkpoint_bell.wait()
            self._checkpoint_bell.clear()
            newest, self._checkpoint = self._checkpoint, None
            if newest is None:
                continue
            path = Path(newest.path)
            key = artifact_key(self._run.id, self._run.attempt, f"checkpoints/{path.name}")
            await self._patiently(self._worker.store.upload_file, path, key, _CONTENT_TYPES[path.suffix])
            await self._write(
                training.keep_checkpoint,
                rounds=newest.rounds,
                maker=checkpoints.maker(),
                sha256=newest.sha256,
                object_key=key,
            )
            before, self._stored = self._stored, key
            await asyncio.to_thread(path.unlink)
            if before is not None:
                await self._discard(before)

    async def _discard(self, key: str) -> None:
        """Best effort: what stays is deleted with the run."""
        with suppress(StoreUnavailable):
            await self._worker.store.delete([key])

    async def _failed(
        self, code: FailureCode, message: str, *, detail: str | None = None, retryable: bool = False
    ) -> None:
        await self._write(
            training.fail, code=code, message=_storable(message), detail=_storable(detail), retryable=retryable
        )

    async def _write(self, step: Callable[..., Awaitable[None]], *args: Any, **values: Any) -> None:
        """One step of the run's life, after everything said so far; waits while the database is away."""

        async def write() -> None:
            await self._flush()
            async with self._worker.db.transaction() as session:
                await step(session, self._run, *args, **values)

        await self._patiently(write)

    async def _patiently(self, work: Callable[..., Awaitable[ResultT]], *args: Any) -> ResultT:
        while True:
            try:
                return await work(*args)
            except (StoreUnavailable, DatabaseUnavailable) as error:
                _log.warning("waiting", error=str(error))
                await asyncio.sleep(_AGAIN_SECONDS)

    # Data

    async def _fetched(self, version_id: UUID | None, name: str) -> Path | None:
        """The Parquet of a version as a file of this attempt; None when no version is named."""
        if version_id is None:
            return None
        self._folder.mkdir(parents=True, exist_ok=True)
        own = self._folder / f"{name}.parquet"
        fetching = cache(partial(self._line, LogLevel.INFO, "Fetching the data."))  # said once, however often it tries
        await self._patiently(partial(link_data, self._worker, version_id, own, fetching=fetching))
        return own

    # What the child says

    async def _newest_line(self) -> int:
        async with self._worker.db.reading() as session:
            return await run_logs.last_line(session, self._run.id)

    def _heard(self, message: Any) -> None:
        match message:
            case RoundDone(step, at_ms, metrics):
                for name, value in metrics.items():
                    steps, at, values = self._said.points.setdefault(name, ([], [], []))
                    steps.append(step)
                    at.append(at_ms)
                    values.append(value)
                self._progress = self._training_progress(step + 1)
            case LogLine(at_ms, level, stream, text):
                at_time = datetime.fromtimestamp(at_ms / 1000, UTC)
                self._said.lines.append(Line(at_time, level, stream, _storable(text) or ""))
            case ResourceUsage(cpu_percent, rss_bytes, at_ms):
                for name, value in (("system.cpu_percent", cpu_percent), ("system.rss_bytes", float(rss_bytes))):
                    _, at, values = self._said.system_points.setdefault(name, (None, [], []))
                    at.append(at_ms)
                    values.append(value)
            case Phase(name, fraction):
                self._line(LogLevel.DEBUG, f"Phase: {name}")
                if name == "training":
                    self._training_since = time.monotonic()
                    self._progress = self._training_progress(self._began_at)
                else:
                    self._progress = (self._progress or {"fraction": fraction}) | {"phase": name}
                self._progress_due = 0.0
            case Checkpoint():
                if self._checkpoint is not None:
                    Path(self._checkpoint.path).unlink(missing_ok=True)
                self._checkpoint = message
                self._checkpoint_bell.set()
        self._bell.set()

    def _line(self, level: LogLevel, text: str) -> None:
        self._said.lines.append(Line(datetime.now(UTC), level, LogStream.SYSTEM, text))
        self._bell.set()

    def _training_progress(self, rounds: int) -> Json:
        total = self._spec.num_rounds
        taken = time.monotonic() - self._training_since
        done = rounds - self._began_at
        finish = datetime.now(UTC) + timedelta(seconds=taken / done * (total - rounds)) if done else None
        return {
            "fraction": rounds / total,
            "phase": "training",
            "completed": rounds,
            "total": total,
            "unit": "rounds",
            "estimated_finish_at": None if finish is None else finish.isoformat(),
        }

    def _final_progress(self, result: TrainResult) -> Json:
        canceled = result.ended is Ended.CANCELED
        return {
            "fraction": result.rounds / self._spec.num_rounds if canceled else 1.0,
            "phase": "canceled" if canceled else "finished",
            "completed": result.rounds,
            "total": self._spec.num_rounds,
            "unit": "rounds",
            "began_at": self._began_at,
        }

    async def _flushing(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            began = time.monotonic()
            await self._patiently(self._flush)
            await asyncio.sleep(FLUSH_SECONDS - (time.monotonic() - began))

    async def _flush(self) -> None:
        """Write what was said. Raises `LeaseLost`, and `DatabaseUnavailable`: then nothing is forgotten."""
        async with self._writing:
            said, self._said = self._said, _Said()
            progress = None
            if self._progress is not None and time.monotonic() >= self._progress_due:
                progress, self._progress = self._progress, None
            if not (said.points or said.system_points or said.lines or progress):
                return
            try:
                async with self._worker.db.transaction() as session:
                    await training.record(
                        session,
                        self._run,
                        points=said.points,
                        system_points=said.system_points,
                        lines=said.lines,
                        progress=progress,
                        afresh=self._afresh,
                        lines_after=self._last_line,
                    )
            except BaseException:
                self._said = said.before(self._said)
                self._progress = self._progress or progress
                raise
            if said.points:
                self._afresh = False
            if self._last_line is not None:
                self._last_line += len(said.lines)
            if progress is not None:
                self._progress_due = time.monotonic() + PROGRESS_SECONDS

    # Signs of life, and the wish to end

    async def _beating(self) -> None:
        with self._worker.wakeups.watching(cancel_topic(self._run.id)) as bell:
            while True:
                with suppress(DatabaseUnavailable):
                    async with self._worker.db.transaction() as session:
                        self._cancellation = await training.beat(session, self._run)
                    self._heed()
                await bell.wait(min(BEAT_SECONDS, self._worker.wakeups.patience))

    def _heed(self) -> None:
        """Pass a cancellation on to the child; there may be none yet to pass it on to."""
        if self._cancellation is None:
            return
        if self._child is None:
            if self._cancellation["force"]:
                raise Killed("Canceled before there was a child.")
        elif self._cancellation["force"]:
            self._child.kill()
        else:
            self._child.stop(Stop.KEEP_BEST if self._cancellation["keep_best"] else Stop.DISCARD)

    async def hand_back(self) -> None:
        """Best effort: what is not handed back in time is found to be lost a little later."""

        async def hand_back() -> None:
            await self._flush()
            async with self._worker.db.transaction() as session:
                await training.hand_back(session, self._run)

        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await hand_back()
        except (LeaseLost, DatabaseUnavailable, TimeoutError) as error:
            _log.warning("a run could not be handed back", error=str(error) or type(error).__name__)


def _reason(result: TrainResult) -> str | None:
    if result.ended is Ended.EARLY_STOPPED and result.best_step is not None:
        return f"Stopped early after {result.rounds} rounds: round {result.best_step} was the best."
    return None


def _environment() -> Json:
    packages = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {
        "head_ai_version": metadata.version("headai"),
        "python_version": platform.python_version(),
        "packages": packages,
        "git_commit": None,
        "git_dirty": None,
        "cpu_count": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _storable(text: str | None) -> str | None:
    """What a child wrote, without what PostgreSQL cannot hold."""
    return None if text is None else text.replace("\x00", "�").encode(errors="replace").decode()
