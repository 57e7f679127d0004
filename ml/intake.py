"""From an uploaded file to a dataset version in one call: check it, convert it, describe it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml.children import Control
from ml.conversion import convert
from ml.formats import ColumnInfo, CsvOptions, DataFormat
from ml.inspection import Progress, inspect
from ml.profiling import profile


@dataclass(frozen=True)
class Prepared:
    """A dataset version: `sha256` and `size_bytes` are of the uploaded bytes, `parquet_bytes` of the result.

    `columns` and `profiles` run in parallel. `csv` is how the CSV file was read, given or detected.
    """

    row_count: int
    columns: tuple[ColumnInfo, ...]
    profiles: tuple[dict[str, Any], ...]
    csv: CsvOptions | None
    sha256: str
    size_bytes: int
    parquet_bytes: int


def prepare(
    source: Path,
    *,
    format: str,
    csv: CsvOptions | None = None,
    target: Path,
    scratch: Path,
    memory_limit_mb: int,
    on_progress: Progress = lambda phase, fraction: None,
) -> Prepared:
    """Inspect `source`, write it as Parquet to `target`, profile the result.

    `scratch` is an existing folder for copies and spilled data, the caller's to remove. `on_progress` hears
    the phases unpack (of compressed files), read, inspect, convert and profile with a fraction of each, or None when
    it is not known.
    Raises `InvalidData`; `target` exists only when everything went well.
    """
    found = inspect(
        source,
        DataFormat(format),
        csv,
        scratch=scratch,
        memory_limit_mb=memory_limit_mb,
        on_progress=on_progress,
    )
    converted = convert(found, target, scratch=scratch, memory_limit_mb=memory_limit_mb, on_progress=on_progress)
    try:
        profiles = profile(
            target, found.columns, scratch=scratch, memory_limit_mb=memory_limit_mb, on_progress=on_progress
        )
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    columns = tuple(
        replace(column, nullable=described["null_count"] > 0)
        for column, described in zip(found.columns, profiles, strict=True)
    )
    return Prepared(
        row_count=converted.row_count,
        columns=columns,
        profiles=tuple(profiles),
        csv=found.csv,
        sha256=found.sha256,
        size_bytes=found.size_bytes,
        parquet_bytes=converted.size_bytes,
    )


def prepare_in_child(
    control: Control,
    source: str,
    format: str,
    csv: CsvOptions | None,
    target: str,
    scratch: str,
    memory_limit_mb: int,
) -> Prepared:
    """`prepare` at work in a child process: it reports the pair (phase, fraction) as it goes on."""
    return prepare(
        Path(source),
        format=format,
        csv=csv,
        target=Path(target),
        scratch=Path(scratch),
        memory_limit_mb=memory_limit_mb,
        on_progress=lambda phase, fraction: control.report((phase, fraction)),
    )
