"""What a run has to tell, as files in a folder until the server has taken them: one after the other, each once.

An entry is written before it is sent and removed after it was taken, so neither an outage nor the death of the process
loses what was written, and an answer that got lost costs a second sending that the server recognises by its batch ID.
What the server refuses for good is kept in `refused/`, with the reason.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headai_client.server import Refused, Server, Unreachable

if sys.platform != "win32":
    import fcntl

log = logging.getLogger("headai_client")

_PROJECT = "query ($slug: String) { project(slug: $slug) { id } }"
_CREATE = """
mutation ($input: CreateTrainingRunInput!) {
  createTrainingRun(input: $input) { trainingRun { id name } errors { code message } }
}
"""
_REPORT = "mutation ($input: ReportRunInput!) { reportRun(input: $input) { cancelRequested errors { code message } } }"
_INGEST = """
mutation ($input: IngestMetricsInput!) {
  ingestMetrics(input: $input) { accepted duplicates rejected { message } errors { code message } }
}
"""
_APPEND = "mutation ($input: AppendRunLogsInput!) { appendRunLogs(input: $input) { appended errors { code message } } }"


class Outbox:
    """The folder of one run. One process at a time sends from it; any may look at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._next = 1 + max((int(path.stem) for path in self._entries()), default=0)

    @classmethod
    def new(cls, spool: Path, *, url: str, project: str) -> Outbox:
        folder = spool / uuid.uuid4().hex
        folder.mkdir(parents=True)
        outbox = cls(folder)
        outbox._write("run.json", {"url": url, "project": project})
        return outbox

    @property
    def run_id(self) -> str | None:
        """The ID the server gave the run; None until it has."""
        found: str | None = self._about().get("run_id")
        return found

    @property
    def url(self) -> str:
        return str(self._about()["url"])

    def __len__(self) -> int:
        """How many entries wait to be sent."""
        return len(self._entries())

    def add(self, kind: str, **content: Any) -> None:
        """Keep an entry: `create`, `metrics`, `lines` or `report`."""
        number, self._next = self._next, self._next + 1
        self._write(f"{number:08}.json", {"kind": kind, **content})

    def send(self, server: Server) -> bool:
        """Send all that waits, in order; whether the run's script was asked to stop. Raises `Unreachable`."""
        stop = False
        with self._alone() as ours:
            if not ours:
                return False
            for path in self._entries():
                entry = json.loads(path.read_text())
                try:
                    stop = self._send(server, entry, int(path.stem)) or stop
                except Refused as refused:
                    if entry["kind"] == "create" or self.run_id is None:
                        log.warning("Head AI refused the run: %s", refused)
                    else:
                        log.warning("Head AI refused what was logged (%s): %s", entry["kind"], refused)
                    stop = stop or (entry["kind"] == "report" and "INVALID_STATE" in refused.codes)
                    self._set_aside(path, entry, str(refused))
                else:
                    path.unlink()
        return stop

    def sign_of_life(self, server: Server) -> bool:
        """Whether the run's script was asked to stop. Raises `Unreachable` and `Refused`."""
        return bool(server.send(_REPORT, {"input": {"id": self.run_id}})["cancelRequested"])

    def remove_when_done(self) -> None:
        """Remove the folder when everything was taken; what was refused stays."""
        if not len(self) and not (self.folder / "refused").exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self, server: Server, entry: dict[str, Any], number: int) -> bool:
        kind = entry["kind"]
        if kind == "create":
            about = self._about()
            project = self._project(server, about["project"])
            made = server.send(
                _CREATE, {"input": {**entry["input"], "projectId": project, "idempotencyKey": self.folder.name}}
            )["trainingRun"]
            self._write("run.json", about | {"project": project, "run_id": made["id"], "name": made["name"]})
            return False
        run_id, batch_id = self.run_id, f"{self.folder.name}-{number}"
        if run_id is None:
            raise Refused("The run itself was refused.")
        if kind == "report":
            answer = server.send(_REPORT, {"input": {"id": run_id, **entry["input"]}})
            return bool(answer["cancelRequested"])
        if kind == "metrics":
            series = [{**one, "runId": run_id} for one in entry["series"]]
            input = {"projectId": self._about()["project"], "batchId": batch_id, "series": series}
            for rejected in server.send(_INGEST, {"input": input})["rejected"][:1]:
                log.warning("Head AI left out some points: %s", rejected["message"])
        else:
            server.send(_APPEND, {"input": {"id": run_id, "batchId": batch_id, "lines": entry["lines"]}})
        return False

    def _project(self, server: Server, named: str) -> str:
        if named.startswith("project_"):
            return named
        found = server.send(_PROJECT, {"slug": named})
        if found is None:
            raise Refused(f"There is no project {named!r}.")
        return str(found["id"])

    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return about

    def _entries(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.json") if path.stem.isdigit())

    def _write(self, name: str, content: dict[str, Any]) -> None:
        """The whole file or none of it."""
        partial = self.folder / f".{name}.partial"
        partial.write_text(json.dumps(content))
        partial.replace(self.folder / name)

    def _set_aside(self, path: Path, entry: dict[str, Any], reason: str) -> None:
        (self.folder / "refused").mkdir(exist_ok=True)
        self._write(path.name, entry | {"reason": reason})
        path.replace(self.folder / "refused" / path.name)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether nobody else sends from this folder, for the length of the block."""
        if sys.platform == "win32":
            yield True
            return
        with open(self.folder / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True


def spool_folder() -> Path:
    """`HEADAI_CLIENT_SPOOL`, by default `~/.headai-client`."""
    return Path(os.environ.get("HEADAI_CLIENT_SPOOL") or Path.home() / ".headai-client")


def send_left_behind(spool: Path | None, server: Server) -> int:
    """Send what earlier runs left behind for this server; how many entries still wait. Raises nothing."""
    left = 0
    for about in sorted((spool or spool_folder()).glob("*/run.json"), key=lambda path: path.stat().st_mtime):
        outbox = Outbox(about.parent)
        if outbox.url != server.url:
            continue
        try:
            outbox.send(server)
        except Unreachable as error:
            log.warning("%s", error)
        left += len(outbox)
        outbox.remove_when_done()
    return left
