"""`headai datasets push`: files become dataset versions, through the public API alone.

What a push was about to send is found again on the server: parts that the store holds are not sent twice, and a file
that is there already, byte for byte, is not sent at all. So a push that was cut off is done again by the same command.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from headai.client import Api, ApiTrouble

FORMATS = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".txt": "CSV",
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".parquet": "PARQUET",
    ".pq": "PARQUET",
    ".arrow": "ARROW",
    ".feather": "ARROW",
    ".ipc": "ARROW",
}
PACKED = (".gz", ".zst")
PARTS_AT_ONCE = 4
TRIES = 6
MIB = 1 << 20


@dataclass(frozen=True)
class Pushed:
    """What has become of a file; `sent` is how many of its bytes went to the store now."""

    path: Path
    version: dict[str, Any]
    sent: int


class Push:
    """Sends files to one project of one server, as one signed-in user."""

    def __init__(self, api: Api, console: Console, *, project: str, parts_at_once: int = PARTS_AT_ONCE) -> None:
        self._api = api
        self._console = console
        self._project = project
        self._parts_at_once = parts_at_once

    async def file(self, path: Path, *, dataset: str, format: str | None = None, wait: bool = True) -> Pushed:
        """Make a version of the dataset, which is made when there is none of that name. Raises ApiTrouble."""
        format = format or format_of(path)
        size = (await asyncio.to_thread(path.stat)).st_size
        found = await self._dataset(dataset)
        twin = await self._version_of(found, path, size)
        if twin is not None:
            return Pushed(path, twin, 0)
        with Progress(
            TextColumn("[bold cyan]•[/] {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        ) as progress:
            bar = progress.add_task(escape(path.name), total=size)
            hashing = asyncio.create_task(asyncio.to_thread(_sha256, path))
            try:
                upload, targets = await self._upload(found, path, size, format)
                etags, sent = await self._send(path, size, upload, targets, progress, bar)
                parts = [{"partNumber": number, "etag": etag} for number, etag in sorted(etags.items())]
                finish = {"uploadId": upload["id"], "parts": parts, "sha256": await hashing}
            finally:
                hashing.cancel()
        completed = await self._api.send("CompleteUpload", {"input": finish})
        version: dict[str, Any] = completed["datasetVersion"]
        return Pushed(path, await self._processed(path, version["id"]) if wait else version, sent)

    async def _dataset(self, name: str) -> dict[str, Any]:
        project = await self._api.send("FindDataset", {"project": self._project, "name": name})
        if project is None:
            raise ApiTrouble(f"There is no project {self._project!r} that you may see.")
        found: dict[str, Any] | None = next(iter(project["datasets"]["nodes"]), None)
        if found is None:
            made = await self._api.send("CreateDataset", {"input": {"projectId": project["id"], "name": name}})
            found = made["dataset"] | {"versions": {"nodes": []}, "uploads": {"nodes": []}}
        return found

    async def _version_of(self, dataset: Mapping[str, Any], path: Path, size: int) -> dict[str, Any] | None:
        """A version that was made of exactly this file, or is being made of it."""
        alike = [
            version
            for version in dataset["versions"]["nodes"]
            if version["sizeBytes"] == str(size) and version["status"] == "READY"
        ]
        if not alike:
            return None
        digest = await asyncio.to_thread(_sha256, path)
        return next((version for version in alike if version["digest"] == digest), None)

    async def _upload(
        self, dataset: Mapping[str, Any], path: Path, size: int, format: str
    ) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
        """An upload of this file, one that was cut off if there is one, and where to send its first parts."""
        for upload in dataset["uploads"]["nodes"]:
            same = (upload["fileName"], upload["sizeBytes"], upload["version"]["format"])
            if upload["status"] == "OPEN" and same == (path.name, str(size), format):
                return upload, {}
        wanted = {"datasetId": dataset["id"], "fileName": path.name, "sizeBytes": size, "format": format}
        payload = await self._api.send("StartUpload", {"input": wanted})
        return payload["upload"] | {"completedParts": []}, {part["partNumber"]: part for part in payload["parts"]}

    async def _send(
        self,
        path: Path,
        size: int,
        upload: Mapping[str, Any],
        targets: dict[int, dict[str, Any]],
        progress: Progress,
        bar: TaskID,
    ) -> tuple[dict[int, str], int]:
        """The ETag of every part, and how many bytes had to be sent."""
        part_size, held = int(upload["partSizeBytes"]), {one["partNumber"]: one for one in upload["completedParts"]}
        left, etags, sent = deque(range(1, upload["partCount"] + 1)), {}, 0

        async def send_some() -> None:
            nonlocal sent
            while left:
                number = left.popleft()
                start, stop = (number - 1) * part_size, min(number * part_size, size)
                known = held.get(number)
                if known is not None and await _is_part(path, start, stop, known):
                    etags[number] = known["etag"]
                    progress.advance(bar, stop - start)
                    continue
                etags[number] = await self._part(path, start, stop, upload["id"], number, targets.pop(number, None))
                progress.advance(bar, stop - start)
                sent += stop - start

        senders = [asyncio.create_task(send_some()) for _ in range(self._parts_at_once)]
        try:
            await asyncio.gather(*senders)
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
        return etags, sent

    async def _part(
        self, path: Path, start: int, stop: int, upload_id: str, number: int, target: dict[str, Any] | None
    ) -> str:
        """Send a part, with a fresh URL each time it has to be sent again."""
        for attempt in range(TRIES):
            try:
                if target is None:
                    wanted = {"input": {"uploadId": upload_id, "partNumbers": [number]}}
                    target = (await self._api.send("RequestUploadParts", wanted))["parts"][0]
                return await self._api.put(target, _bytes_of(path, start, stop), size=stop - start)
            except ApiTrouble:
                if attempt == TRIES - 1:
                    raise
                target = None
                await asyncio.sleep(0.5 * 2**attempt)
        raise AssertionError("unreachable")

    async def _processed(self, path: Path, version_id: str) -> dict[str, Any]:
        """The version once it is READY; raises ApiTrouble with what is wrong with the file."""
        with Progress(
            TextColumn("[bold cyan]•[/] {task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        ) as progress:
            bar = progress.add_task(f"{escape(path.name)}: queued", total=1.0)
            async with aclosing(self._api.follow("DatasetVersionUpdated", {"id": version_id})) as updates:
                async for update in updates:
                    version: dict[str, Any] | None = update["datasetVersion"]
                    if version is None:
                        raise ApiTrouble("The dataset version is gone: somebody deleted it.")
                    if version["status"] == "FAILED":
                        raise ApiTrouble(f"{path.name} cannot be used: {version['failure']['message']}")
                    if version["status"] == "READY":
                        return version
                    told = version["progress"]
                    progress.update(
                        bar, completed=told["fraction"] or 0, description=f"{escape(path.name)}: {told['phase']}"
                    )
        raise ApiTrouble(f"The server stopped telling about {path.name} before it was done.")


async def push(
    *,
    url: str,
    username: str,
    password: str,
    token: str,
    paths: Sequence[Path],
    project: str,
    dataset: str | None,
    format: str | None,
    parts_at_once: int,
    wait: bool,
    console: Console,
) -> int:
    """Push files, and those of folders, one after the other; the exit status of the command."""
    absent = [path for path in paths if not path.exists()]
    if absent:
        console.print(f"[red]There is no file {escape(str(absent[0]))}.[/]")
        return 1
    files = [file for path in paths for file in _files(path)]
    if not files:
        console.print(f"[red]There is no file to push: known endings are {', '.join(FORMATS)}.[/]")
        return 1
    failed = False
    try:
        async with Api.at(url) as api:
            if token:
                api.use_token(token)
            else:
                await api.sign_in(username, password)
            pusher = Push(api, console, project=project, parts_at_once=parts_at_once)
            for file in files:
                try:
                    pushed = await pusher.file(file, dataset=dataset or _stem(file), format=format, wait=wait)
                except ApiTrouble as trouble:
                    failed = True
                    console.print(f"[red]{escape(str(trouble))}[/]")
                else:
                    console.print(_line(pushed))
    except ApiTrouble as trouble:
        console.print(f"[red]{escape(str(trouble))}[/]")
        return 1
    return int(failed)


def format_of(path: Path) -> str:
    """The format that the ending of a file name tells, its compression left aside. Raises ApiTrouble."""
    known = FORMATS.get(Path(_unpacked(path)).suffix.lower())
    if known is None:
        raise ApiTrouble(f"The ending of {path.name} tells no format: name it with --format, or rename the file.")
    return known


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(f for f in path.iterdir() if f.is_file() and Path(_unpacked(f)).suffix.lower() in FORMATS)
    return [path]


def _unpacked(path: Path) -> str:
    return path.name.removesuffix(path.suffix) if path.suffix.lower() in PACKED else path.name


def _stem(path: Path) -> str:
    return Path(_unpacked(path)).stem


def _line(pushed: Pushed) -> str:
    version, rows = pushed.version, pushed.version.get("rowCount")
    what = f"version {version['number']} is {version['status']}" + (f" with {int(rows):,} rows" if rows else "")
    how = f"{pushed.sent:,} bytes sent" if pushed.sent else "nothing had to be sent"
    return f"[bold cyan]•[/] [bold]{escape(pushed.path.name)}[/]: {what} ({how})"


async def _bytes_of(path: Path, start: int, stop: int) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb", 0)
    try:
        await asyncio.to_thread(file.seek, start)
        while start < stop and (chunk := await asyncio.to_thread(file.read, min(MIB, stop - start))):
            start += len(chunk)
            yield chunk
    finally:
        file.close()


async def _is_part(path: Path, start: int, stop: int, held: Mapping[str, Any]) -> bool:
    """Whether the store holds these bytes: its ETag is their MD5, unless parts are encrypted with a key."""
    if held["sizeBytes"] != str(stop - start):
        return False
    return await asyncio.to_thread(_md5, path, start, stop) == str(held["etag"]).strip('"')


def _md5(path: Path, start: int, stop: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        file.seek(start)
        while start < stop and (chunk := file.read(min(MIB, stop - start))):
            digest.update(chunk)
            start += len(chunk)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
