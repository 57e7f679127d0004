"""What is known of an uploaded file before it is converted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ml.formats import ColumnInfo, CsvOptions, DataFormat


@dataclass(frozen=True)
class Inspection:
    """`path` is the file to read: the source, or a copy that is unpacked or in UTF-8.

    For Parquet and Arrow the columns and `row_count` are what the file says of itself. For text formats `casts` are
    DuckDB types, one a column; those of a CSV file are what its first rows allow, which converting it puts to the test.
    `doubtful` tells that they do not seem to hold further on.
    """

    format: DataFormat
    path: Path
    columns: tuple[ColumnInfo, ...]
    row_count: int | None = None
    csv: CsvOptions | None = None
    casts: tuple[str, ...] = ()
    doubtful: bool = False
    start: CsvStart | None = None


@dataclass(frozen=True)
class CsvStart:
    """The first rows of a CSV file: `skip` blank lines, the header, where it ends, some rows after it.

    `lines` are those of the whole file, at least as many as it has rows.
    """

    names: list[str]
    header_line: int
    skip: int
    rows: list[list[str]]
    lines: int = 0
