"""The first look at an uploaded file: is it what it says, is every row whole, what type has each column.

Nothing is guessed from a sample: encoding, row shape and column types hold for the whole file. A file that
cannot be used raises `InvalidData`, with the physical line where there is one.
"""

# ruff: noqa: S608 -- the SQL is put together from numbered columns and quoted names only

from __future__ import annotations

import codecs
import contextlib
import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.engine import file_name, open_engine, text, texts
from ml.formats import ColumnInfo, ColumnType, CsvOptions, DataFormat, InvalidData, codec, column_type, recognise
from ml.unpacking import compression, unpack

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Progress = Callable[[str, float | None], None]

CHUNK = 1 << 20
SNIFFED = 1 << 16
DELIMITERS = (",", ";", "\t", "|")
COLUMNS_AT_ONCE = 100
"""Columns whose types one statement checks; more would make the statement itself the slow part."""
REJECTS_KEPT = 1000


@dataclass(frozen=True)
class Inspection:
    """What is known of a file that can be converted.

    `path` is the file to read: the source, or a copy in UTF-8. `casts` are DuckDB types, one a column, and
    `skip` the blank lines before the first row; both are for text formats only.
    """

    format: DataFormat
    path: Path
    columns: tuple[ColumnInfo, ...]
    row_count: int
    size_bytes: int
    sha256: str
    csv: CsvOptions | None = None
    casts: tuple[str, ...] = ()
    skip: int = 0


@dataclass(frozen=True)
class Fingerprint:
    """What one pass over the bytes of a text file found; `encoding` is a Python codec name.

    `mixed_newlines` tells that some lines, or line breaks in values, end in another way than the rest.
    """

    sha256: str
    size_bytes: int
    encoding: str
    mixed_newlines: bool = True


def inspect(
    path: Path,
    format: DataFormat,
    options: CsvOptions | None = None,
    *,
    scratch: Path,
    memory_limit_mb: int = 1024,
    on_progress: Progress = lambda phase, fraction: None,
) -> Inspection:
    """Check a whole file and agree on its schema; `scratch` takes an unpacked or a UTF-8 copy if one is needed.

    A file that is compressed with gzip or zstd is unpacked first; lines are then counted in what was in it.
    Raises `InvalidData` for a file that is empty, damaged, ragged, or not of the format it claims.
    """
    if options is not None:
        options.check()
    with path.open("rb") as file:
        head = file.read(SNIFFED)
    if not head:
        raise InvalidData("The file is empty. Upload a file with at least a header row.")
    how = compression(head)
    if how is not None:
        packed = unpack(path, how, scratch, on_progress)
        with packed.path.open("rb") as file:
            head = file.read(SNIFFED)
        if not head:
            raise InvalidData(f"There is nothing in the {how} file. Upload a file with at least a header row.")
        found = _inspected(packed.path, head, format, options, scratch, memory_limit_mb, on_progress)
        return replace(found, sha256=packed.sha256, size_bytes=packed.size_bytes)
    return _inspected(path, head, format, options, scratch, memory_limit_mb, on_progress)


def _inspected(
    path: Path,
    head: bytes,
    format: DataFormat,
    options: CsvOptions | None,
    scratch: Path,
    memory_limit_mb: int,
    on_progress: Progress,
) -> Inspection:
    match format:
        case DataFormat.CSV:
            return _inspect_csv(path, head, options, scratch, memory_limit_mb, on_progress)
        case DataFormat.JSONL:
            return _inspect_jsonl(path, head, scratch, memory_limit_mb, on_progress)
        case DataFormat.PARQUET:
            return _inspect_parquet(path, head, on_progress)
        case DataFormat.ARROW:
            return _inspect_arrow(path, head, on_progress)


# ── bytes and encodings ──


def _chunks(path: Path, on_progress: Progress) -> Iterator[bytes]:
    size = path.stat().st_size
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            done += len(chunk)
            on_progress("read", min(1.0, done / size))


def _digest(path: Path, on_progress: Progress) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    for chunk in _chunks(path, on_progress):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _marked_encoding(head: bytes) -> str | None:
    """The encoding that the first bytes show: by a byte order mark, or by where the zeros of UTF-16 are."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    start = head[: 4096 - 4096 % 2]
    pairs = len(start) // 2
    first, second = start[0::2].count(0), start[1::2].count(0)
    if pairs >= 2 and second > 0.4 * pairs and first == 0:
        return "utf-16-le"
    if pairs >= 2 and first > 0.4 * pairs and second == 0:
        return "utf-16-be"
    return None


def _examine_text(path: Path, head: bytes, wanted: str | None, on_progress: Progress) -> Fingerprint:
    """Digest a text file and decide its encoding, reading every byte once.

    A `wanted` encoding is kept unless the bytes contradict it.
    """
    what = recognise(head)
    if what is not None:
        raise InvalidData(f"This is not a text file: it is {what}.")
    marked = _marked_encoding(head)
    chosen = None if wanted is None else codec(wanted)
    if chosen == "utf-8" and marked == "utf-8-sig":
        chosen = marked
    if chosen is not None and marked is not None and chosen.split("-")[:2] != marked.split("-")[:2]:
        raise InvalidData(
            f"The file is encoded as {marked}, not {wanted}. Set the encoding to {marked}, or leave the options out.",
            line=1,
        )
    encoding = chosen or marked or "utf-8"

    digest = hashlib.sha256()
    size = 0
    lines = 1
    pairs = returns = 0
    ended_with_return = False
    blank = True
    fault: InvalidData | None = None
    high_control = False
    decoder = codecs.getincrementaldecoder(encoding)()
    in_bytes = encoding in ("utf-8", "utf-8-sig")
    stored: Iterator[bytes] = _chunks(path, on_progress)
    for chunk in stored:
        digest.update(chunk)
        size += len(chunk)
        high_control = high_control or len(chunk.translate(None, HIGH_CONTROL)) != len(chunk)
        if fault is not None:
            continue
        try:
            decoded = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            fault = InvalidData(
                f"The file is not encoded as {encoding}.",
                line=lines + error.object[: error.start].count(b"\n"),
                detail=str(error.reason),
            )
            continue
        except UnicodeError as error:
            raise InvalidData(
                f"The file does not begin with the byte order mark of {encoding}. "
                "Set the encoding it has, or leave the options out.",
                line=1,
                detail=str(error),
            ) from error
        searched: Any = chunk if in_bytes else decoded
        newline: Any = b"\n" if in_bytes else "\n"
        zero = searched.find(b"\0" if in_bytes else "\0")
        if zero >= 0:
            line = lines + searched[:zero].count(newline)
            raise InvalidData(f"Line {line} holds a NUL byte. Remove it, or export the file again as text.", line=line)
        lines += searched.count(newline)
        cr, crlf = (b"\r", b"\r\n") if in_bytes else ("\r", "\r\n")
        pairs += searched.count(crlf) + (ended_with_return and searched.startswith(newline))
        returns += searched.count(cr)
        ended_with_return = searched.endswith(cr)
        blank = blank and not decoded.strip("\ufeff \t\r\n\v\f")
    if fault is None:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            fault = InvalidData(
                f"The file is cut off in the middle of a character of {encoding}. Upload it again.",
                line=lines,
                detail=str(error.reason),
            )
    if fault is not None:
        likely = "cp1252" if high_control else "latin-1"
        if in_bytes and BINARY.search(head):
            raise InvalidData("This is not a text file: it holds binary data.", line=fault.line)
        if not in_bytes:
            raise fault
        if chosen is not None or marked is not None:
            advice = f" It may be {likely}: set the encoding, or leave the options out."
            raise InvalidData(fault.message + advice, line=fault.line, detail=fault.detail)
        return Fingerprint(digest.hexdigest(), size, _western(path, likely))
    if blank:
        raise InvalidData("The file holds nothing but white space. Upload a file with at least a header row.")
    styles = (pairs, lines - 1 - pairs, returns - pairs)
    return Fingerprint(digest.hexdigest(), size, encoding, mixed_newlines=sum(n > 0 for n in styles) > 1)


HIGH_CONTROL = bytes(range(0x80, 0xA0))
"""Control characters in Latin-1, printable ones in Windows-1252."""
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def _western(path: Path, likely: str) -> str:
    """`likely`, or Latin-1 when the file holds a byte that Windows-1252 does not define."""
    if likely == "cp1252":
        undefined = b"\x81\x8d\x8f\x90\x9d"
        for chunk in _chunks(path, lambda phase, fraction: None):
            if len(chunk.translate(None, undefined)) != len(chunk):
                return "latin-1"
    return likely


def _as_utf8(path: Path, encoding: str, scratch: Path) -> Path:
    """`path` itself when its bytes are UTF-8, else a copy in UTF-8 without a byte order mark."""
    if encoding in ("utf-8", "utf-8-sig", "ascii"):
        return path
    copy = scratch / "utf8.txt"
    with path.open(encoding=encoding, newline="") as source, copy.open("w", encoding="utf-8", newline="") as target:
        while decoded := source.read(CHUNK):
            target.write(decoded)
    return copy


def _with_plain_newlines(path: Path, quote: str, scratch: Path) -> Path:
    """A copy in which every row ends with a line feed; line breaks inside quotes stay as they are.

    DuckDB takes the first line end for all of them and can lose rows without a word when they differ.
    """
    copy = scratch / "newlines.txt"
    outside = True
    with (
        path.open(encoding="utf-8-sig", newline="") as source,
        copy.open("w", encoding="utf-8", newline="") as target,
    ):
        while decoded := source.read(CHUNK):
            if decoded.endswith("\r"):
                decoded += source.read(1)
            pieces = decoded.split(quote) if quote else [decoded]
            for i, piece in enumerate(pieces):
                if i:
                    outside = not outside
                    target.write(quote)
                target.write(piece.replace("\r\n", "\n").replace("\r", "\n") if outside else piece)
    return copy


# ── CSV ──


@dataclass(frozen=True)
class _Start:
    """The first rows of a CSV file: `skip` blank lines, the header, where it ends, some rows after it."""

    names: list[str]
    header_line: int
    skip: int
    rows: list[list[str]]


def _inspect_csv(
    path: Path,
    head: bytes,
    options: CsvOptions | None,
    scratch: Path,
    memory_limit_mb: int,
    on_progress: Progress,
) -> Inspection:
    bytes_found = _examine_text(path, head, options.encoding if options else None, on_progress)
    readable = _as_utf8(path, bytes_found.encoding, scratch)
    if options is None:
        options = CsvOptions(delimiter=_delimiter(readable), encoding=bytes_found.encoding)
    else:
        options = replace(options, encoding=bytes_found.encoding)
    if bytes_found.mixed_newlines:
        readable = _with_plain_newlines(readable, options.quote, scratch)
    start = _read_start(readable, options)
    _check_names(start)

    on_progress("inspect", None)
    found = Inspection(
        format=DataFormat.CSV,
        path=readable,
        columns=tuple(
            ColumnInfo(name=name, position=i, type=ColumnType.UNKNOWN, nullable=False)
            for i, name in enumerate(start.names)
        ),
        row_count=0,
        size_bytes=bytes_found.size_bytes,
        sha256=bytes_found.sha256,
        csv=options,
        casts=tuple(_candidate(start.rows, i, options) for i in range(len(start.names))),
        skip=start.skip,
    )
    with open_engine(scratch=scratch, memory_limit_mb=memory_limit_mb) as engine:
        found = _agree_on_types(engine, found, on_progress)
    if found.row_count < len(start.rows):
        raise InvalidData("The rows of the file cannot be told apart. Check its quotes and line ends.")
    return found


def _delimiter(path: Path) -> str:
    """The delimiter under which the first rows agree best on a number of values; a comma when none does."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        sample = file.read(SNIFFED)
    complete = sample[: sample.rfind("\n") + 1] or sample
    best, best_score = ",", 0.0
    for delimiter in DELIMITERS:
        widths: Counter[int] = Counter()
        try:
            widths.update(len(row) for row in csv.reader(io.StringIO(complete, newline=""), delimiter=delimiter) if row)
        except csv.Error:
            continue
        width, rows = max(((w, n) for w, n in widths.items() if w > 1), key=lambda item: item[1], default=(1, 0))
        score = rows / max(1, widths.total()) + min(width, 1000) / 1e6
        if rows and score > best_score:
            best, best_score = delimiter, score
    return best


def _csv_rows(file: io.TextIOBase, options: CsvOptions) -> Any:
    if options.quote:
        return csv.reader(file, delimiter=options.delimiter, quotechar=options.quote, strict=True)
    return csv.reader(file, delimiter=options.delimiter, quoting=csv.QUOTE_NONE)


def _read_start(path: Path, options: CsvOptions) -> _Start:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = _csv_rows(file, options)
        before = 0
        first: list[str] = []
        try:
            for first in rows:
                if len(first) > 1 or any(value.strip() for value in first):
                    break
                before = rows.line_num
        except csv.Error as error:
            raise InvalidData(
                f"The first row, at line {before + 1}, cannot be read: {error}. Check its quotes.",
                line=before + 1,
                detail=str(error),
            ) from error
        header_line = before + 1
        sample: list[list[str]] = []
        with contextlib.suppress(csv.Error):  # the full pass tells the line and the reason
            sample.extend(islice((row for row in rows if len(row) > 1 or any(v.strip() for v in row)), 100))
    if options.has_header:
        names = [name.strip() or f"column_{i}" for i, name in enumerate(first)]
    else:
        names = [f"column_{i}" for i in range(len(first))]
        sample.insert(0, first)
    return _Start(names=names, header_line=header_line, skip=before, rows=sample)


def _check_names(start: _Start) -> None:
    repeated = [name for name, times in Counter(start.names).items() if times > 1]
    if repeated:
        shown = ", ".join(repr(name) for name in repeated[:5]) + (" and others" if len(repeated) > 5 else "")
        raise InvalidData(
            f"The header names {shown} more than once. Give every column its own name; "
            "if the file has no header row, say so with hasHeader: false.",
            line=start.header_line,
            column=repeated[0],
        )


INTEGER = r"\s*[+-]?[0-9]+\s*"
NUMBER = (
    r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
    r"|\s*[+-]?([nN][aA][nN]|[iI][nN][fF]([iI][nN][iI][tT][yY])?)\s*"
)
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?"
SPELLINGS = {
    "BOOLEAN": r"true|false|True|False|TRUE|FALSE",
    "BIGINT": INTEGER,
    "DECIMAL(38,0)": INTEGER,
    "DOUBLE": NUMBER,
    "DATE": DATE,
    "TIMESTAMP": rf"{DATE}([ T]{CLOCK})?",
    "TIMESTAMPTZ": rf"{DATE}[ T]{CLOCK} ?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)",
}
"""How the values of each type are written, narrowest type first; DuckDB's own casts are more generous
(`1_000`, `0x1F`, 12.7 as 13) and would change what a file says."""
PATTERNS = {cast: re.compile(pattern) for cast, pattern in SPELLINGS.items()}
KINDS = {
    "BOOLEAN": ColumnType.BOOLEAN,
    "BIGINT": ColumnType.INTEGER,
    "DECIMAL(38,0)": ColumnType.DECIMAL,
    "DOUBLE": ColumnType.FLOAT,
    "DATE": ColumnType.DATE,
    "TIMESTAMP": ColumnType.DATETIME,
    "TIMESTAMPTZ": ColumnType.DATETIME,
    "VARCHAR": ColumnType.STRING,
    "NULL": ColumnType.UNKNOWN,
}


def _candidate(rows: Sequence[list[str]], position: int, options: CsvOptions) -> str:
    """The narrowest type that the first rows allow; NULL when they hold no value."""
    nulls = {"", *options.null_values}
    values = [row[position] for row in rows if len(row) > position and row[position] not in nulls]
    if not values:
        return "NULL"
    return next((cast for cast, p in PATTERNS.items() if all(p.fullmatch(value) for value in values)), "VARCHAR")


def csv_relation(found: Inspection) -> str:
    """The rows of an inspected CSV file as text columns c0, c1, …, in DuckDB's SQL."""
    assert found.csv is not None
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(found.columns)))
    one_column = len(found.columns) == 1
    quote = text(found.csv.quote)
    relation = (
        f"read_csv({file_name(found.path)}, columns = {{{columns}}}, auto_detect = false, compression = 'none', "
        f"delim = {text(found.csv.delimiter)}, quote = {quote}, escape = {quote}, "
        f"header = {str(found.csv.has_header).lower()}, skip = {found.skip}, nullstr = [''], "
        f"allow_quoted_nulls = {str(not one_column).lower()}, "
        f"store_rejects = true, rejects_limit = {REJECTS_KEPT})"
    )
    # In a single column only the quotes tell an empty cell from a blank line.
    return f"(SELECT * FROM {relation} WHERE c0 IS NOT NULL)" if one_column else relation


def csv_value(found: Inspection, position: int) -> str:
    """The text of one cell of `csv_relation`, null where the options call it so."""
    assert found.csv is not None
    nulls = (*found.csv.null_values, *([""] if len(found.columns) == 1 else []))
    name = f"c{position}"
    return f"CASE WHEN {name} NOT IN ({texts(nulls)}) THEN {name} END" if nulls else name


def csv_cast(found: Inspection, position: int) -> str:
    """One column of an inspected CSV file in the type agreed on."""
    cast, value = found.casts[position], csv_value(found, position)
    if cast in ("VARCHAR", "NULL"):
        return value
    return (
        f"CAST(trim({value}, ' \t') AS {cast})"
        if cast in ("BIGINT", "DECIMAL(38,0)", "DOUBLE")
        else f"CAST({value} AS {cast})"
    )


def _fits(cast: str, value: str) -> str:
    """SQL that holds for a text that is written as `cast` and is a value of it."""
    matched = f"regexp_full_match({value}, {text(SPELLINGS[cast])})"
    trimmed = f"trim({value}, ' \t')" if cast in ("BIGINT", "DECIMAL(38,0)", "DOUBLE") else value
    return f"(TRY_CAST({trimmed} AS {cast}) IS NOT NULL AND {matched})"


def _agree_on_types(engine: duckdb.DuckDBPyConnection, found: Inspection, on_progress: Progress) -> Inspection:
    """Check the shape of every row and each column's type over all rows; columns that do not keep the type
    of the first rows are weighed against every type."""
    count = len(found.columns)
    row_count = 0
    casts = list(found.casts)
    nullable = [False] * count
    wrong: list[int] = []
    for low in range(0, count, COLUMNS_AT_ONCE):
        batch = range(low, min(count, low + COLUMNS_AT_ONCE))
        measures = ["count(*)"]
        for i in batch:
            value = csv_value(found, i)
            measures.append(f"count({value})")
            if casts[i] not in ("VARCHAR", "NULL"):
                measures.append(f"count(*) FILTER ({_fits(casts[i], value)})")
        numbers = iter(_measure(engine, found, measures))
        row_count = next(numbers)
        for i in batch:
            present = next(numbers)
            fitting = {"VARCHAR": present, "NULL": 0}.get(casts[i])
            if fitting is None:
                fitting = next(numbers)
            nullable[i] = present < row_count
            if fitting != present:
                wrong.append(i)
        on_progress("inspect", (batch.stop / count) * (0.9 if wrong else 1.0))
    for low in range(0, len(wrong), COLUMNS_AT_ONCE // 4):
        positions = wrong[low : low + COLUMNS_AT_ONCE // 4]
        measures = []
        for i in positions:
            value = csv_value(found, i)
            measures.append(f"count({value})")
            measures.extend(f"count(*) FILTER ({_fits(cast, value)})" for cast in SPELLINGS)
        numbers = iter(_measure(engine, found, measures))
        for i in positions:
            present = next(numbers)
            fitting_types = {cast: next(numbers) for cast in SPELLINGS}
            casts[i] = next((cast for cast, fitting in fitting_types.items() if fitting == present), "VARCHAR")
    on_progress("inspect", 1.0)
    return replace(
        found,
        row_count=row_count,
        casts=tuple(casts),
        columns=tuple(
            replace(column, type=KINDS[casts[i]], nullable=nullable[i]) for i, column in enumerate(found.columns)
        ),
    )


def _measure(engine: duckdb.DuckDBPyConnection, found: Inspection, measures: list[str]) -> tuple[int, ...]:
    """Aggregates over all rows; raises `InvalidData` when a row is not whole."""
    import duckdb

    forget_rejects(engine)
    try:
        values = engine.execute(f"SELECT {', '.join(measures)} FROM {csv_relation(found)}").fetchall()
    except duckdb.InvalidInputException as error:
        raise InvalidData(
            "The rows of the file cannot be told apart. Check its quotes and line ends.", detail=first_line(error)
        ) from error
    _complain_about_rejects(engine, found)
    return values[0]


def forget_rejects(engine: duckdb.DuckDBPyConnection) -> None:
    engine.execute("DROP TABLE IF EXISTS reject_errors")
    engine.execute("DROP TABLE IF EXISTS reject_scans")


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]


def _complain_about_rejects(engine: duckdb.DuckDBPyConnection, found: Inspection) -> None:
    rejects = engine.execute(
        "SELECT line_byte_position, byte_position, column_idx, CAST(error_type AS VARCHAR), error_message, csv_line "
        "FROM reject_errors ORDER BY line_byte_position, byte_position"
    ).fetchall()
    if not rejects:
        return
    assert found.csv is not None
    rejected = [row for row in rejects if row[5] is None or row[5].strip()]
    if not rejected and len(rejects) < REJECTS_KEPT:
        return
    row_start, cell_start, index, kind, message, row_text = (rejected or rejects)[0]
    in_cell = kind == "UNQUOTED VALUE" and cell_start is not None
    # In files with CRLF the row begins with the line ends before it.
    line_ends = len(row_text or "") - len((row_text or "").lstrip("\r\n"))
    row_start, row_text = row_start + line_ends, (row_text or "")[line_ends:]
    line = _line_at(found.path, (cell_start if in_cell else row_start) - 1)
    at_end = _reaches_end(found.path, row_start - 1, row_text or "")
    expected = len(found.columns)
    column = found.columns[index - 1].name if in_cell and index and index <= expected else None
    detail = f"{message} ({len(rejects)} rows were rejected)" if len(rejects) > 1 else message
    if kind in ("MISSING COLUMNS", "TOO MANY COLUMNS"):
        try:
            width = len(next(_csv_rows(io.StringIO(row_text, newline=""), found.csv)))
        except (csv.Error, StopIteration):
            width = int(message.rsplit(" ", 1)[1])
        advice = (
            "It is the last line: the file may be cut off; upload it again."
            if at_end and width < expected
            else "Give every row the same number of values, and put values that contain the delimiter in quotes."
        )
        raise InvalidData(
            f"Line {line} has {_values(width)} where the file has {_columns(expected)}. {advice}",
            line=line,
            detail=detail,
        )
    if kind == "UNQUOTED VALUE":
        cut = at_end and _ends_inside_quotes(row_text or "", found.csv)
        advice = (
            "is opened and never closed: the file may be cut off, or the quote is a stray one."
            if cut
            else f"is followed by other text. "
            f"Double a quote inside a value ({found.csv.quote * 2}) and close every quote."
        )
        raise InvalidData(
            f"A quote in line {line}{f', column {column!r},' if column else ''} {advice}",
            line=line,
            column=column,
            detail=detail,
        )
    if kind == "LINE SIZE OVER MAXIMUM":
        raise InvalidData(
            f"The row at line {line} is longer than 2,000,000 bytes. A quote may be missing its end.",
            line=line,
            detail=detail,
        )
    raise InvalidData(f"Line {line} cannot be read: {message}", line=line, detail=detail)


def _values(n: int) -> str:
    return "1 value" if n == 1 else f"{n} values"


def _columns(n: int) -> str:
    return "1 column" if n == 1 else f"{n} columns"


def _line_at(path: Path, offset: int) -> int:
    """The physical line, from 1, of the byte at `offset`; lines end with LF, CRLF or, without any LF, CR."""
    feeds = returns = 0
    with path.open("rb") as file:
        left = offset
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            feeds += chunk.count(b"\n")
            returns += chunk.count(b"\r")
            left -= len(chunk)
    return (feeds or returns) + 1


def _reaches_end(path: Path, offset: int, row: str) -> bool:
    return offset + len(row.encode(errors="replace")) + 2 >= path.stat().st_size


def _ends_inside_quotes(row: str, options: CsvOptions) -> bool:
    try:
        list(_csv_rows(io.StringIO(row, newline=""), options))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


# ── JSON lines ──


def jsonl_relation(path: Path) -> str:
    """The objects of a JSON-lines file as rows, in DuckDB's SQL, typed by reading all of them."""
    return (
        f"read_json({file_name(path)}, format = 'newline_delimited', records = true, compression = 'none', "
        "sample_size = -1, map_inference_threshold = -1, maximum_object_size = 16777216)"
    )


def _inspect_jsonl(path: Path, head: bytes, scratch: Path, memory_limit_mb: int, on_progress: Progress) -> Inspection:
    import duckdb

    bytes_found = _examine_text(path, head, None, on_progress)
    readable = _as_utf8(path, bytes_found.encoding, scratch)
    on_progress("inspect", None)
    with open_engine(scratch=scratch, memory_limit_mb=memory_limit_mb) as engine:
        try:
            described = engine.execute(f"DESCRIBE SELECT * FROM {jsonl_relation(readable)}").fetchall()
            names, casts = [row[0] for row in described], [row[1] for row in described]
            counts = engine.execute(
                f"SELECT count(*), {', '.join(f'count(c{i})' for i in range(len(names)))} "
                f"FROM {jsonl_relation(readable)} AS t({', '.join(f'c{i}' for i in range(len(names)))})"
            ).fetchall()[0]
            dtypes = _arrow_types(engine, f"SELECT * FROM {jsonl_relation(readable)}")
        except duckdb.Error as error:
            raise _jsonl_complaint(error, readable) from error
    return Inspection(
        format=DataFormat.JSONL,
        path=readable,
        columns=tuple(
            ColumnInfo(
                name=name,
                position=i,
                type=ColumnType.STRING if casts[i] == "JSON" else column_type(dtypes[i]),
                nullable=counts[i + 1] < counts[0],
            )
            for i, name in enumerate(names)
        ),
        row_count=counts[0],
        size_bytes=bytes_found.size_bytes,
        sha256=bytes_found.sha256,
        casts=tuple(casts),
    )


def _arrow_types(engine: duckdb.DuckDBPyConnection, query: str) -> list[pa.DataType]:
    return list(engine.sql(f"{query} LIMIT 0").to_arrow_table().schema.types)


def _jsonl_complaint(error: Exception, path: Path) -> InvalidData:
    """What is wrong with a file that DuckDB would not read; its own line numbers are not reliable."""
    detail = first_line(error)
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for line, content in enumerate(file, start=1):
            if not content.strip():
                continue
            try:
                row = json.loads(content, object_pairs_hook=_unrepeated)
            except _RepeatedKey as repeated:
                return InvalidData(
                    f"Line {line} has the key {repeated.key!r} more than once. Give every value its own key.",
                    line=line,
                    column=repeated.key,
                    detail=detail,
                )
            except (ValueError, RecursionError):
                return InvalidData(
                    f"Line {line} is not valid JSON. Write one whole JSON object a line.", line=line, detail=detail
                )
            if not isinstance(row, dict) or not row:
                return InvalidData(
                    f"Line {line} is not a JSON object with columns as keys. Write one such object a line.",
                    line=line,
                    detail=detail,
                )
    return InvalidData("The JSON lines cannot be read. Write one whole JSON object a line.", detail=detail)


class _RepeatedKey(Exception):
    def __init__(self, key: str) -> None:
        self.key = key


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in pairs:
        if key in row:
            raise _RepeatedKey(key)
        row[key] = value
    return row


# ── Parquet and Arrow ──


def _check_schema(schema: pa.Schema) -> tuple[ColumnInfo, ...]:
    if not len(schema):
        raise InvalidData("The file has no columns.")
    repeated = [name for name, times in Counter(schema.names).items() if times > 1]
    if repeated:
        raise InvalidData(
            f"The column {repeated[0]!r} is there more than once. Give every column its own name.",
            column=repeated[0],
        )
    for name in schema.names:
        if not name or "\0" in name:
            raise InvalidData("A column has no name, or a NUL character in it. Rename it.", column=name or None)
    return tuple(
        ColumnInfo(name=field.name, position=i, type=column_type(field.type), nullable=field.nullable)
        for i, field in enumerate(schema)
    )


def _inspect_parquet(path: Path, head: bytes, on_progress: Progress) -> Inspection:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not head.startswith(b"PAR1"):
        what = recognise(head)
        raise InvalidData(
            f"This is not a Parquet file: it is {what}."
            if what
            else "This is not a Parquet file: it does not begin with PAR1. Choose the right format, or upload it again."
        )
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        if file.read() != b"PAR1" or path.stat().st_size < 12:
            raise InvalidData("The Parquet file is cut off: its footer is missing. Upload it again.")
    sha256, size = _digest(path, on_progress)
    try:
        with pq.ParquetFile(path) as parquet:
            schema, row_count = parquet.schema_arrow, parquet.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidData(
            "The footer of the Parquet file is damaged. Write the file again and upload it.", detail=first_line(error)
        ) from error
    return Inspection(
        format=DataFormat.PARQUET,
        path=path,
        columns=_check_schema(schema),
        row_count=row_count,
        size_bytes=size,
        sha256=sha256,
    )


def arrow_batches(path: Path) -> Generator[pa.RecordBatch, None, None]:
    """The record batches of an Arrow file or stream, each one checked, in file order; the first is an empty
    one that carries the schema."""
    import pyarrow as pa
    import pyarrow.ipc as ipc

    with pa.OSFile(str(path)) as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        with ipc.open_file(file) if is_file else ipc.open_stream(file) as reader:
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader
            for batch in batches:
                batch.validate(full=True)
                yield batch


def _inspect_arrow(path: Path, head: bytes, on_progress: Progress) -> Inspection:
    import pyarrow as pa

    if not head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        what = recognise(head)
        raise InvalidData(
            f"This is not an Arrow file: it is {what}."
            if what
            else "This is not an Arrow file or stream. Choose the right format, or upload it again."
        )
    sha256, size = _digest(path, on_progress)
    on_progress("inspect", None)
    row_count = 0
    columns: tuple[ColumnInfo, ...] = ()
    try:
        for batch in arrow_batches(path):
            columns = columns or _check_schema(batch.schema)
            row_count += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidData(
            "The Arrow file is damaged or cut off. Write it again and upload it.", detail=first_line(error)
        ) from error
    return Inspection(
        format=DataFormat.ARROW, path=path, columns=columns, row_count=row_count, size_bytes=size, sha256=sha256
    )
