"""The Parquet of dataset versions on this worker's disk: fetched once, shared by all jobs that read it."""

import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from db import runs
from storage.objects import ObjectMissing
from workers.worker import Worker

KEPT_BYTES = 4 * 2**30


class DataGone(Exception):
    """There is no such data any more."""


async def link_data(
    worker: Worker, version_id: UUID, own: Path, *, fetching: Callable[[], None] = lambda: None
) -> None:
    """Have the data of a version at `own`, the caller's to remove; `fetching` is called when they are not here yet.

    Raises `DataGone`, `StoreUnavailable` and `DatabaseUnavailable`.
    """
    async with worker.db.reading() as session:
        version = await runs.dataset_version(session, version_id)
    if version is None or version.data_key is None:
        raise DataGone("The dataset version has no data any more.")
    kept = worker.scratch / "data"
    kept.mkdir(exist_ok=True)
    copy = kept / f"{version_id.hex}.parquet"
    if not copy.exists():
        fetching()
        try:
            await worker.store.download_file(version.data_key, copy)
        except ObjectMissing:
            raise DataGone("The data of the dataset version is not in the store any more.") from None
    _link(copy, own)
    _drop_old(kept, KEPT_BYTES)


def _link(copy: Path, own: Path) -> None:
    os.utime(copy)
    own.unlink(missing_ok=True)
    own.hardlink_to(copy)


def _drop_old(folder: Path, limit_bytes: int) -> None:
    """Drop the files that were not used for the longest, as long as all together are too large."""
    files = sorted(((path, path.stat()) for path in folder.glob("*.parquet")), key=lambda file: file[1].st_mtime)
    total = sum(stat.st_size for _, stat in files)
    for path, stat in files[:-1]:
        if total <= limit_bytes:
            break
        path.unlink(missing_ok=True)
        total -= stat.st_size
