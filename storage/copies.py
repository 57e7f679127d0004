"""Copies of objects on this machine's disk, for code that reads files: fetched once, and only with the right digest."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from storage.objects import ObjectStore

GIB = 2**30
_ABANDONED_SECONDS = 3600


class Wanted(NamedTuple):
    """An object, the name its copy gets, and the SHA-256 its bytes have to have."""

    name: str
    key: str
    sha256: str


class DamagedObject(Exception):
    """The bytes in the store are not those that were registered."""


class LocalCopies:
    """Folders of copies under `root`, the last used of them, of `limit_bytes` together.

    A folder is found by the digests of its files, so processes may share `root`, and what one process fetched another
    uses after checking it. A folder that is in use may be dropped: `forget` it when a file is gone, and ask again.
    """

    def __init__(self, store: ObjectStore, root: Path, *, limit_bytes: int = 4 * GIB) -> None:
        self._store = store
        self._root = root
        self._limit_bytes = limit_bytes
        self._ready: OrderedDict[tuple[Wanted, ...], Path] = OrderedDict()
        self._fetching: defaultdict[tuple[Wanted, ...], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def folder(self, *files: Wanted) -> Path:
        """The folder that holds these files. The disk is not touched for one this process has used before.

        Raises `DamagedObject`, `ObjectMissing`, `StoreUnavailable`, and OSError when the disk takes nothing.
        """
        folder = self._ready.get(files)
        if folder is None:
            async with self._fetching[files]:
                folder = self._ready.get(files) or await self._fetched(files)
                self._ready[files] = folder
            self._fetching.pop(files, None)
        self._ready.move_to_end(files)
        return folder

    def forget(self, *files: Wanted) -> None:
        """Look at the disk again before these files are used the next time."""
        self._ready.pop(files, None)

    async def _fetched(self, files: tuple[Wanted, ...]) -> Path:
        folder = self._root / hashlib.sha256("\n".join(f"{f.name} {f.sha256}" for f in files).encode()).hexdigest()
        if await asyncio.to_thread(_holds, folder, files):
            return folder
        await asyncio.to_thread(self._root.mkdir, parents=True, exist_ok=True)
        partial = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._root, prefix=".partial-"))
        try:
            for file in files:
                found = await self._store.download_file(file.key, partial / file.name)
                if found != file.sha256:
                    raise DamagedObject(f"{file.key} has the SHA-256 {found}, not {file.sha256}.")
            await asyncio.to_thread(_move, partial, folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
        used = [*(kept.name for kept in self._ready.values()), folder.name]
        gone = await asyncio.to_thread(_shrink, self._root, self._limit_bytes, used)
        for key in [key for key, kept in self._ready.items() if kept.name in gone]:
            del self._ready[key]
        return folder


def _holds(folder: Path, files: Sequence[Wanted]) -> bool:
    try:
        for file in files:
            with open(folder / file.name, "rb") as copy:
                if hashlib.file_digest(copy, "sha256").hexdigest() != file.sha256:
                    return False
        os.utime(folder)
    except OSError:
        return False
    return True


def _move(partial: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(FileExistsError):
        partial.rename(folder)


def _shrink(root: Path, limit_bytes: int, used: Sequence[str]) -> set[str]:
    """Drop what is too much, the longest unused first and never the last of `used`; the names that are gone."""
    sizes: dict[str, int] = {}
    ages: dict[str, float] = {}
    for folder in root.iterdir():
        with contextlib.suppress(OSError):
            age = folder.stat().st_mtime
            if not folder.name.startswith("."):
                sizes[folder.name] = sum(file.stat().st_size for file in folder.iterdir())
                ages[folder.name] = age
            elif time.time() - age > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
    rank = {name: number for number, name in enumerate(used)}
    total, gone = sum(sizes.values()), set()
    for name in sorted(sizes, key=lambda name: (rank.get(name, -1), ages[name]))[:-1]:
        if total <= limit_bytes:
            break
        shutil.rmtree(root / name, ignore_errors=True)
        total -= sizes[name]
        gone.add(name)
    return gone
