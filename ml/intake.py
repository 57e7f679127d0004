"""From an uploaded file to a dataset version in one call: check it, convert it, describe it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml.arriving import Arriving
from ml.children import Control
from ml.columnar import inspect_arrow, inspect_parquet
from ml.conversion import convert
from ml.csv_files import inspect_csv
from ml.encodings import SNIFFED
from ml.formats import ColumnInfo, CsvOptions, DataFormat, InvalidData, Progress, Rejects
from ml.inspection import Inspection
from ml.jsonl import inspect_jsonl
from ml.profiling import profile
from ml.unpacking import compression, unpack


@dataclass(frozen=True)
class Prepared:
    """A dataset version; `columns` and `profiles` run in parallel.

    `csv` is how the CSV file was read, given or detected; `rejects` are the rows of it that were left out.
    """

    row_count: int
    columns: tuple[ColumnInfo, ...]
    profiles: tuple[dict[str, Any], ...]
    csv: CsvOptions | None
    rejects: Rejects


@dataclass(frozen=True)
class Converted:
    """The Parquet file is whole; only its description is missing."""


def prepare(
    source: Path,
    *,
    format: str,
    csv: CsvOptions | None = None,
    target: Path,
    scratch: Path,
    memory_limit_mb: int,
    size_bytes: int | None = None,
    tolerated: float = 0.0,
    on_progress: Progress = lambda phase, fraction: None,
    on_converted: Callable[[], None] = lambda: None,
) -> Prepared:
    """Inspect `source`, write it as Parquet to `target`, profile the result.

    `source` may still grow to `size_bytes` while it is read. `scratch` is an existing folder for copies and spilled
    data, the caller's to remove. `tolerated` is the share of the rows of a CSV file that may be left out. `on_progress`
    hears the phases read, unpack (of compressed files), inspect, convert and profile with a fraction of each, or None
    when it is not known. Raises `InvalidData`; `target` exists only when everything went well.
    """
    arriving = Arriving(source, source.stat().st_size if size_bytes is None else size_bytes)
    found = _inspect(arriving, DataFormat(format), csv, scratch, memory_limit_mb, on_progress)
    converted = convert(
        found,
        target,
        scratch=scratch,
        memory_limit_mb=memory_limit_mb,
        tolerated=tolerated,
        on_progress=on_progress,
    )
    on_converted()
    try:
        profiles = profile(
            target, converted.columns, scratch=scratch, memory_limit_mb=memory_limit_mb, on_progress=on_progress
        )
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    columns = tuple(
        replace(column, nullable=described["null_count"] > 0)
        for column, described in zip(converted.columns, profiles, strict=True)
    )
    return Prepared(converted.row_count, columns, tuple(profiles), found.csv, converted.rejects)


def _inspect(
    source: Arriving,
    format: DataFormat,
    options: CsvOptions | None,
    scratch: Path,
    memory_limit_mb: int,
    on_progress: Progress,
) -> Inspection:
    """The first look at a file. One that is compressed is unpacked first; lines are then counted in what was in it."""
    if options is not None:
        options.check()
    head = source.head(SNIFFED)
    if not head:
        raise InvalidData("The file is empty. Upload a file with at least a header row.")
    how = compression(head)
    if how is not None:
        unpacked = unpack(source.whole(on_progress), how, scratch, on_progress)
        source = Arriving(unpacked, unpacked.stat().st_size)
        if not source.size_bytes:
            raise InvalidData(f"There is nothing in the {how} file. Upload a file with at least a header row.")
    match format:
        case DataFormat.CSV:
            return inspect_csv(source, options, scratch, on_progress)
        case DataFormat.JSONL:
            return inspect_jsonl(source, scratch, memory_limit_mb, on_progress)
        case DataFormat.PARQUET:
            return inspect_parquet(source, on_progress)
        case DataFormat.ARROW:
            return inspect_arrow(source, on_progress)


def prepare_in_child(
    control: Control,
    source: str,
    size_bytes: int,
    format: str,
    csv: CsvOptions | None,
    tolerated: float,
    target: str,
    scratch: str,
    memory_limit_mb: int,
) -> Prepared:
    """`prepare` at work in a child process: it reports the pair (phase, fraction) as it goes on, and `Converted`."""
    return prepare(
        Path(source),
        format=format,
        csv=csv,
        target=Path(target),
        scratch=Path(scratch),
        memory_limit_mb=memory_limit_mb,
        size_bytes=size_bytes,
        tolerated=tolerated,
        on_progress=lambda phase, fraction: control.report((phase, fraction)),
        on_converted=lambda: control.report(Converted()),
    )
