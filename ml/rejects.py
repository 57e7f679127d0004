"""Rows of a CSV file that cannot be read: counted, told by line, column and reason, and tolerated or not."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ml.arriving import CHUNK
from ml.csv_files import csv_rows
from ml.formats import CsvOptions, InvalidData, RejectedRow, Rejects
from ml.inspection import Inspection

if TYPE_CHECKING:
    import duckdb

SHOWN = 100
CUT_AT = 10_000
"""Characters of a row that DuckDB keeps."""
_UNTOLD = "it cannot be told how many rows it hides"


@dataclass(frozen=True)
class _Reject:
    """What DuckDB noted about a row, with its first error; offsets count from 0."""

    row_start: int
    at: int
    column: str | None
    kind: str
    message: str
    text: str

    @property
    def hides_rows(self) -> bool:
        """A quote that is never closed makes one row of everything after it."""
        return self.kind == "UNQUOTED VALUE" and len(self.text) >= CUT_AT

    @property
    def lines(self) -> int:
        return self.text.strip("\r\n").count("\n") + 1


def rejected(engine: duckdb.DuckDBPyConnection, found: Inspection, row_count: int, tolerated: float) -> Rejects:
    """The rows that the last reading of the file left out, a row of several lines counted as that many.

    Raises `InvalidData` about the first of them when they are more than the share `tolerated` of all rows, or when
    one of them hides an unknown number of others.
    """
    noted = _noted(engine, found)
    if not noted:
        return Rejects()
    assert found.csv is not None
    total = sum(reject.lines for reject in noted)
    shown = noted[:SHOWN]
    lines = dict(zip(sorted({r.at for r in shown}), _lines_at(found.path, sorted({r.at for r in shown})), strict=True))
    rejects = Rejects(total, tuple(RejectedRow(lines[r.at], r.column, _reason(r, found)) for r in shown))
    hiding = next((reject for reject in noted if reject.hides_rows), None)
    if tolerated > 0 and hiding is None and total <= tolerated * (row_count + total):
        return rejects
    first = noted[0] if tolerated == 0 or hiding is None else hiding
    complaint = _complaint(first, found, lines.get(first.at) or _lines_at(found.path, [first.at])[0])
    if tolerated > 0:
        complaint.message = (
            f"{complaint.message} Therefore {_UNTOLD}, which is never tolerated."
            if hiding is not None
            else f"{total} of {row_count + total} rows cannot be read, more than the share of {tolerated:g} that the "
            f"dataset tolerates. The first: {complaint.message}"
        )
    if len(noted) > 1:
        complaint.detail = f"{complaint.detail} ({len(noted)} rows were rejected)"
    complaint.rejects = rejects
    raise complaint


def _noted(engine: duckdb.DuckDBPyConnection, found: Inspection) -> list[_Reject]:
    """The rejected rows in the order of the file, without blank lines, each with its first error."""
    rows = engine.execute(
        "SELECT line_byte_position, byte_position, column_idx, CAST(error_type AS VARCHAR), error_message, csv_line "
        "FROM reject_errors QUALIFY row_number() OVER (PARTITION BY line_byte_position ORDER BY byte_position) = 1 "
        "ORDER BY line_byte_position"
    ).fetchall()
    noted = []
    for row_start, cell_start, index, kind, message, row in rows:
        if row is not None and not row.strip():
            continue
        # In files with CRLF the row begins with the line ends before it.
        text = (row or "").lstrip("\r\n")
        start = row_start + len(row or "") - len(text) - 1
        in_cell = kind == "UNQUOTED VALUE" and cell_start is not None
        column = found.columns[index - 1].name if in_cell and index and index <= len(found.columns) else None
        noted.append(_Reject(start, cell_start - 1 if in_cell else start, column, kind, message, text))
    return noted


def _reason(reject: _Reject, found: Inspection) -> str:
    if reject.kind in ("MISSING COLUMNS", "TOO MANY COLUMNS"):
        return f"{_values(_width(reject, found))} where the file has {_columns(len(found.columns))}"
    if reject.kind == "UNQUOTED VALUE":
        assert found.csv is not None
        return (
            "a quote is opened and never closed"
            if _ends_inside_quotes(reject.text, found.csv)
            else "a quote is followed by other text"
        )
    if reject.kind == "LINE SIZE OVER MAXIMUM":
        return "the row is longer than 2,000,000 bytes"
    return reject.message


def _complaint(reject: _Reject, found: Inspection, line: int) -> InvalidData:
    """What to tell about a row that is not tolerated."""
    assert found.csv is not None
    column, expected = reject.column, len(found.columns)
    at_end = _reaches_end(found.path, reject.row_start, reject.text)
    if reject.kind in ("MISSING COLUMNS", "TOO MANY COLUMNS"):
        width = _width(reject, found)
        advice = (
            "It is the last line: the file may be cut off; upload it again."
            if at_end and width < expected
            else "Give every row the same number of values, and put values that contain the delimiter in quotes."
        )
        message = f"Line {line} has {_values(width)} where the file has {_columns(expected)}. {advice}"
        return InvalidData(message, line=line, detail=reject.message)
    if reject.kind == "UNQUOTED VALUE":
        cut = at_end and _ends_inside_quotes(reject.text, found.csv)
        advice = (
            "is opened and never closed: the file may be cut off, or the quote is a stray one."
            if cut or reject.hides_rows
            else f"is followed by other text. "
            f"Double a quote inside a value ({found.csv.quote * 2}) and close every quote."
        )
        message = f"A quote in line {line}{f', column {column!r},' if column else ''} {advice}"
        return InvalidData(message, line=line, column=column, detail=reject.message)
    if reject.kind == "LINE SIZE OVER MAXIMUM":
        message = f"The row at line {line} is longer than 2,000,000 bytes. A quote may be missing its end."
        return InvalidData(message, line=line, detail=reject.message)
    return InvalidData(f"Line {line} cannot be read: {reject.message}", line=line, detail=reject.message)


def _width(reject: _Reject, found: Inspection) -> int:
    assert found.csv is not None
    try:
        return len(next(csv_rows(io.StringIO(reject.text, newline=""), found.csv)))
    except (csv.Error, StopIteration):
        return int(reject.message.rsplit(" ", 1)[1])


def _values(n: int) -> str:
    return "1 value" if n == 1 else f"{n} values"


def _columns(n: int) -> str:
    return "1 column" if n == 1 else f"{n} columns"


def _lines_at(path: Path, offsets: list[int]) -> list[int]:
    """The physical lines, from 1, of the bytes at these ascending offsets; lines end with LF, CRLF or, without any
    LF, CR."""
    lines = []
    feeds = returns = at = 0
    with path.open("rb") as file:
        for offset in offsets:
            while at < offset and (chunk := file.read(min(CHUNK, offset - at))):
                feeds += chunk.count(b"\n")
                returns += chunk.count(b"\r")
                at += len(chunk)
            lines.append((feeds or returns) + 1)
    return lines


def _reaches_end(path: Path, offset: int, row: str) -> bool:
    return offset + len(row.encode(errors="replace")) + 2 >= path.stat().st_size


def _ends_inside_quotes(row: str, options: CsvOptions) -> bool:
    try:
        list(csv_rows(io.StringIO(row, newline=""), options))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False
