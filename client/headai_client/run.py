"""A run that your script trains: what it logs is on disk in half a second, and goes to Head AI in the background."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from headai_client.outbox import Outbox, spool_folder
from headai_client.server import Refused, Server, Unreachable

FLUSH_SECONDS = 0.5
SIGN_OF_LIFE_SECONDS = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
MOST_SERIES, MOST_VALUES, MOST_LINES, LONGEST_LINE = 400, 50_000, 1000, 16_384
log = logging.getLogger("headai_client")


def start_run(
    *,
    project: str,
    task: str = "BINARY_CLASSIFICATION",
    name: str | None = None,
    description: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    dataset_version_id: str | None = None,
    url: str | None = None,
    token: str | None = None,
    username: str | None = None,
    password: str | None = None,
    spool: str | Path | None = None,
) -> Run:
    """Begin a run of `project` (its slug or its ID), without waiting for the server.

    `url`, `token`, `username` and `password` are by default `HEADAI_URL`, `HEADAI_TOKEN`, `HEADAI_USERNAME` and
    `HEADAI_PASSWORD`; what waits to be sent is kept under `spool`, by default `HEADAI_CLIENT_SPOOL` or
    `~/.headai-client`.
    """
    server = Server(
        url or os.environ.get("HEADAI_URL", "http://127.0.0.1:8000"),
        token=token or os.environ.get("HEADAI_TOKEN"),
        username=username or os.environ.get("HEADAI_USERNAME"),
        password=password or os.environ.get("HEADAI_PASSWORD"),
    )
    outbox = Outbox.new(Path(spool) if spool is not None else spool_folder(), url=server.url, project=project)
    asked: dict[str, Any] = {"spec": {"task": task, "algorithm": "EXTERNAL"}}
    asked |= {"name": name, "description": description, "datasetVersionId": dataset_version_id}
    asked["tags"] = [{"key": key, "value": value} for key, value in (tags or {}).items()]
    run = Run(outbox, server, {field: value for field, value in asked.items() if value is not None})
    run.log_params(params or {})
    return run


class Run:
    """Every method may be called from any thread, and from a coroutine: none but `finish` waits for anything.

    As a context manager, also an asynchronous one, the run ends SUCCEEDED, or FAILED with the exception of its block.
    """

    def __init__(self, outbox: Outbox, server: Server, asked: dict[str, Any]) -> None:
        self._outbox, self._server, self._asked = outbox, server, asked
        self._lock, self._bell = threading.Lock(), threading.Event()
        self._id: str | None = None
        self._again_at = 0.0
        self._params: dict[str, Any] = {}
        self._series: dict[str, dict[str, Any]] = {}
        self._lines: list[dict[str, Any]] = []
        self._progress: dict[str, Any] = {}
        self._step = 0
        self._is_created = self._is_over = self._stop = self._hurry = False
        self._sent_at = time.monotonic()
        self._warned: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="headai-client", daemon=True)
        self._thread.start()
        atexit.register(self.finish, timeout=5.0)

    @property
    def id(self) -> str | None:
        """The ID of the run; None as long as the server has not been reached."""
        return self._id

    @property
    def folder(self) -> Path:
        """Where what waits to be sent is kept."""
        return self._outbox.folder

    @property
    def should_stop(self) -> bool:
        """Whether somebody canceled the run in Head AI: stop training and leave the block."""
        return self._stop

    def log(
        self,
        metrics: Mapping[str, float],
        *,
        step: int | None = None,
        higher_is_better: Mapping[str, bool] | None = None,
    ) -> None:
        """One point of each metric; without `step` each call is the next one, from 0 on. NaN and infinity are kept."""
        now = time.time_ns() // 1_000_000
        with self._lock:
            step = self._step if step is None else int(step)
            self._step = step + 1
            for name, given in metrics.items():
                try:
                    value = float(given)
                except (TypeError, ValueError):
                    self._warn(f"{name} is {type(given).__name__}, not a number; it is not logged.")
                    continue
                series = self._series.setdefault(
                    str(name), {"name": str(name), "steps": [], "at": [], "values": [], "nonFinite": []}
                )
                if name in (higher_is_better or {}):
                    series["higherIsBetter"] = (higher_is_better or {})[name]
                if not math.isfinite(value):
                    word = "NAN" if math.isnan(value) else "POSITIVE_INFINITY" if value > 0 else "NEGATIVE_INFINITY"
                    series["nonFinite"].append({"index": len(series["values"]), "value": word})
                series["steps"].append(step)
                series["at"].append(now)
                series["values"].append(value if math.isfinite(value) else None)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """What the training was given. A run keeps the parameters that are known before the first thing else is
        logged, or within half a second; later ones become lines of its log.
        """
        with self._lock:
            if not self._is_created:
                self._params |= {str(name): _plain(value) for name, value in params.items()}
                return
        for name, value in params.items():
            self.log_line(f"param {name} = {_plain(value)!r}", stream="SYSTEM")

    def log_line(self, text: str, *, level: str = "INFO", stream: str = "STDOUT") -> None:
        """Lines of the run's log. `level` is DEBUG, INFO, WARNING or ERROR; `stream` STDOUT, STDERR or SYSTEM."""
        at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")  # noqa: UP017  Python 3.10 has no UTC
        clean = str(text).replace("\x00", "�").encode(errors="replace").decode()
        with self._lock:
            for line in clean.splitlines() or [""]:
                self._lines.append({"at": at, "level": level, "stream": stream, "text": line[:LONGEST_LINE]})

    def progress(self, fraction: float | None = None, phase: str | None = None) -> None:
        """How far the training is, 0 to 1, and what it does."""
        with self._lock:
            if fraction is not None:
                self._progress["fraction"] = min(max(float(fraction), 0.0), 1.0)
            if phase:
                self._progress["phase"] = str(phase)[:100]

    def finish(self, status: str = "SUCCEEDED", message: str | None = None, *, timeout: float = 10.0) -> bool:
        """End the run, and wait until everything was sent, `timeout` seconds at most; whether it was.

        What could not be sent stays on disk; `headai-client send` sends it later. A second call changes nothing.
        """
        with self._lock:
            if self._is_over:
                return not self._thread.is_alive()
            self._is_over = True
            if self._stop and status == "SUCCEEDED":
                status = "CANCELED"
            self._progress |= {"status": status} | ({} if message is None else {"message": message[:10_000]})
        atexit.unregister(self.finish)
        self._hurry = True
        self._bell.set()
        self._thread.join(timeout)
        if self._thread.is_alive() or len(self._outbox):
            log.warning(
                "Head AI at %s has not taken everything yet; the rest is in %s. Send it with: headai-client send",
                self._server.url,
                self._outbox.folder,
            )
            return False
        return True

    async def afinish(self, status: str = "SUCCEEDED", message: str | None = None, *, timeout: float = 10.0) -> bool:
        """`finish` that leaves the event loop free."""
        return await asyncio.to_thread(self.finish, status, message, timeout=timeout)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.finish(*_end(kind, error))

    async def __aenter__(self) -> Run:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.afinish(*_end(kind, error))

    # In the background

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self._bell.wait(FLUSH_SECONDS)
            over = self._is_over
            try:
                self._write()
                pause = self._send(pause, over)
                if over and not len(self._outbox):
                    self._outbox.remove_when_done()
                    self._server.close()
                    return
            except Exception as error:  # the training goes on whatever happens here
                self._warn(f"{type(error).__name__}: {error}")
                self._bell.clear()

    def _send(self, pause: float, over: bool) -> float:
        """Send what waits, unless the pause after a failure is not over; the next pause."""
        is_due = time.monotonic() - self._sent_at >= SIGN_OF_LIFE_SECONDS
        if not len(self._outbox) and not is_due:
            return FIRST_PAUSE
        if pause > FIRST_PAUSE and time.monotonic() < self._again_at and not self._hurry:
            return pause
        self._hurry = False
        try:
            if len(self._outbox):
                self._stop = self._outbox.send(self._server) or self._stop
            elif self._outbox.run_id is not None:
                self._stop = self._outbox.sign_of_life(self._server) or self._stop
            self._sent_at = time.monotonic()
        except Refused as refused:
            self._stop = self._stop or "INVALID_STATE" in refused.codes
            self._sent_at = time.monotonic()
        except Unreachable as error:
            self._warn(f"{error}. What is logged is kept in {self._outbox.folder} and sent when it answers.")
            self._bell.clear()
            pause = min(2 * pause, 1.0 if over else LONGEST_PAUSE)
            self._again_at = time.monotonic() + pause
            return pause
        finally:
            self._id = self._outbox.run_id
        return FIRST_PAUSE

    def _write(self) -> None:
        """Put what was logged since the last time into the outbox."""
        with self._lock:
            series, self._series = list(self._series.values()), {}
            lines, self._lines = self._lines, []
            progress, self._progress = self._progress, {}
            create = not self._is_created
            self._is_created = True
        if create:
            spec = self._asked["spec"] | {"params": self._params}
            self._outbox.add("create", input=self._asked | {"spec": spec})
            self._outbox.add("report", input={"status": "RUNNING"})
        for batch in _batches(series):
            self._outbox.add("metrics", series=batch)
        for start in range(0, len(lines), MOST_LINES):
            self._outbox.add("lines", lines=lines[start : start + MOST_LINES])
        if progress:
            self._outbox.add("report", input=progress)

    def _warn(self, message: str) -> None:
        """Say a thing once."""
        if message not in self._warned and len(self._warned) < 100:
            self._warned.add(message)
            log.warning("%s", message)


def _batches(series: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Series in calls of a size that the server takes."""
    batches: list[list[dict[str, Any]]] = []
    room = 0
    for whole in series:
        for start in range(0, len(whole["values"]), MOST_VALUES):
            end = start + MOST_VALUES
            part = whole | {column: whole[column][start:end] for column in ("steps", "at", "values")}
            part["nonFinite"] = [
                {**told, "index": told["index"] - start} for told in whole["nonFinite"] if start <= told["index"] < end
            ]
            if not batches or len(batches[-1]) == MOST_SERIES or room < len(part["values"]):
                batches.append([])
                room = MOST_VALUES
            batches[-1].append(part)
            room -= len(part["values"])
    return batches


def _end(kind: type[BaseException] | None, error: BaseException | None) -> tuple[str, str | None]:
    if kind is None:
        return "SUCCEEDED", None
    if issubclass(kind, (KeyboardInterrupt, asyncio.CancelledError)):
        return "CANCELED", "The script was interrupted."
    return "FAILED", f"{kind.__name__}: {error}"


def _plain(value: Any) -> Any:
    """A parameter as JSON takes it; anything else as its text."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
