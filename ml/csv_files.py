"""CSV files: how one is written, what its columns seem to be, and its rows in DuckDB's SQL."""

# ruff: noqa: S608 -- the SQL is put together from numbered columns and quoted names only

from __future__ import annotations

import contextlib
import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.arriving import Arriving
from ml.encodings import SNIFFED, as_utf8, examine_text, with_plain_newlines
from ml.engine import file_name, first_line, text, texts
from ml.formats import ColumnInfo, ColumnType, CsvOptions, DataFormat, InvalidData, Progress
from ml.inspection import CsvStart, Inspection
from ml.spellings import SPELLINGS, fits, narrowest

if TYPE_CHECKING:
    import duckdb

DELIMITERS = (",", ";", "\t", "|")
COLUMNS_AT_ONCE = 100
"""Columns whose types one statement checks; more would make the statement itself the slow part."""
FIRST_ROWS = 100
PLACES = 16
"""Places in a file, evenly spread, where rows are looked at for the types of their values."""
REJECTS_KEPT = 1000


def inspect_csv(source: Arriving, options: CsvOptions | None, scratch: Path, on_progress: Progress) -> Inspection:
    """Raises `InvalidData` for a file that is no text, or whose header does not name columns."""
    bytes_found = examine_text(source, options.encoding if options else None, on_progress)
    on_progress("inspect", None)
    readable = as_utf8(source.path, bytes_found.encoding, scratch)
    if options is None:
        options = CsvOptions(delimiter=_delimiter(readable), encoding=bytes_found.encoding)
    else:
        options = replace(options, encoding=bytes_found.encoding)
    if bytes_found.mixed_newlines:
        readable = with_plain_newlines(readable, options.quote, scratch)
    start = replace(_read_start(readable, options), lines=bytes_found.lines)
    _check_names(start)
    casts = _guessed(start.rows, len(start.names), options)
    elsewhere = list(_rows_elsewhere(readable, options, len(start.names)))
    on_progress("inspect", 1.0)
    return Inspection(
        format=DataFormat.CSV,
        path=readable,
        columns=tuple(
            ColumnInfo(name=name, position=i, type=ColumnType.UNKNOWN, nullable=False)
            for i, name in enumerate(start.names)
        ),
        csv=options,
        casts=casts,
        doubtful=bool(elsewhere) and _guessed([*start.rows, *elsewhere], len(start.names), options) != casts,
        start=start,
    )


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


def csv_rows(file: io.TextIOBase, options: CsvOptions) -> Any:
    if options.quote:
        return csv.reader(file, delimiter=options.delimiter, quotechar=options.quote, strict=True)
    return csv.reader(file, delimiter=options.delimiter, quoting=csv.QUOTE_NONE)


def _read_start(path: Path, options: CsvOptions) -> CsvStart:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv_rows(file, options)
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
        with contextlib.suppress(csv.Error):  # converting it tells the line and the reason
            sample.extend(islice((row for row in rows if len(row) > 1 or any(v.strip() for v in row)), FIRST_ROWS))
    if options.has_header:
        names = [name.strip() or f"column_{i}" for i, name in enumerate(first)]
    else:
        names = [f"column_{i}" for i in range(len(first))]
        sample.insert(0, first)
    return CsvStart(names=names, header_line=header_line, skip=before, rows=sample)


def _guessed(rows: Sequence[list[str]], width: int, options: CsvOptions) -> tuple[str, ...]:
    nulls = {"", *options.null_values}
    return tuple(narrowest([row[i] for row in rows if len(row) > i and row[i] not in nulls]) for i in range(width))


def _rows_elsewhere(path: Path, options: CsvOptions, width: int) -> Iterator[list[str]]:
    """Rows from places all over a large file: a guess at them, since a quoted line break may look like a row's end."""
    size, window = path.stat().st_size, SNIFFED // PLACES
    if size < 2 * SNIFFED:
        return
    with path.open("rb") as file:
        for place in range(1, PLACES + 1):
            file.seek(size * place // PLACES - window)
            lines = file.read(window).decode("utf-8", errors="ignore").replace("\r\n", "\n").split("\n")[1:-1]
            with contextlib.suppress(csv.Error):
                yield from (
                    row for row in csv_rows(io.StringIO("\n".join(lines), newline=""), options) if len(row) == width
                )


def _check_names(start: CsvStart) -> None:
    repeated = [name for name, times in Counter(start.names).items() if times > 1]
    if repeated:
        shown = ", ".join(repr(name) for name in repeated[:5]) + (" and others" if len(repeated) > 5 else "")
        raise InvalidData(
            f"The header names {shown} more than once. Give every column its own name; "
            "if the file has no header row, say so with hasHeader: false.",
            line=start.header_line,
            column=repeated[0],
        )


def csv_relation(found: Inspection, *, rejects_kept: int = REJECTS_KEPT) -> str:
    """The rows of an inspected CSV file as text columns c0, c1, …, in DuckDB's SQL."""
    assert found.csv is not None
    assert found.start is not None
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(found.columns)))
    one_column = len(found.columns) == 1
    quote = text(found.csv.quote)
    relation = (
        f"read_csv({file_name(found.path)}, columns = {{{columns}}}, auto_detect = false, compression = 'none', "
        f"delim = {text(found.csv.delimiter)}, quote = {quote}, escape = {quote}, "
        f"header = {str(found.csv.has_header).lower()}, skip = {found.start.skip}, nullstr = [''], "
        f"allow_quoted_nulls = {str(not one_column).lower()}, "
        f"store_rejects = true, rejects_limit = {rejects_kept})"
    )
    # In a single column only the quotes tell an empty cell from a blank line.
    return f"(SELECT * FROM {relation} WHERE c0 IS NOT NULL)" if one_column else relation


def csv_value(found: Inspection, position: int) -> str:
    """The text of one cell of `csv_relation`, null where the options call it so."""
    assert found.csv is not None
    nulls = (*found.csv.null_values, *([""] if len(found.columns) == 1 else []))
    name = f"c{position}"
    return f"CASE WHEN {name} NOT IN ({texts(nulls)}) THEN {name} END" if nulls else name


def agree_on_types(engine: duckdb.DuckDBPyConnection, found: Inspection, on_progress: Progress) -> Inspection:
    """Weigh the columns that do not keep the type they seemed to have against every type, over all rows."""
    count = len(found.columns)
    casts = list(found.casts)
    wrong: list[int] = []
    on_progress("inspect", 0.0)
    for low in range(0, count, COLUMNS_AT_ONCE):
        batch = [i for i in range(low, min(count, low + COLUMNS_AT_ONCE)) if casts[i] != "VARCHAR"]
        measures = []
        for i in batch:
            value = csv_value(found, i)
            measures.append(f"count({value})")
            measures.append("0" if casts[i] == "NULL" else f"count(*) FILTER ({fits(casts[i], value)})")
        numbers = iter(_measured(engine, found, measures))
        wrong += [i for i in batch if next(numbers) != next(numbers)]
        on_progress("inspect", 0.5 * min(count, low + COLUMNS_AT_ONCE) / count)
    at_once = COLUMNS_AT_ONCE // 4
    for low in range(0, len(wrong), at_once):
        positions = wrong[low : low + at_once]
        measures = []
        for i in positions:
            value = csv_value(found, i)
            measures.append(f"count({value})")
            measures.extend(f"count(*) FILTER ({fits(cast, value)})" for cast in SPELLINGS)
        numbers = iter(_measured(engine, found, measures))
        for i in positions:
            present = next(numbers)
            fitting_types = {cast: next(numbers) for cast in SPELLINGS}
            casts[i] = next((cast for cast, fitting in fitting_types.items() if fitting == present), "VARCHAR")
        on_progress("inspect", 0.5 + 0.5 * min(len(wrong), low + at_once) / len(wrong))
    on_progress("inspect", 1.0)
    return replace(found, casts=tuple(casts))


def _measured(engine: duckdb.DuckDBPyConnection, found: Inspection, measures: list[str]) -> tuple[int, ...]:
    """Aggregates over all rows that can be read."""
    if not measures:
        return ()
    forget_rejects(engine)
    with told_apart():
        return tuple(engine.execute(f"SELECT {', '.join(measures)} FROM {csv_relation(found)}").fetchall()[0])


@contextlib.contextmanager
def told_apart() -> Iterator[None]:
    """Reading rows inside of it raises `InvalidData` where DuckDB finds no rows at all."""
    import duckdb

    try:
        yield
    except duckdb.InvalidInputException as error:
        raise InvalidData(
            "The rows of the file cannot be told apart. Check its quotes and line ends.", detail=first_line(error)
        ) from error


def forget_rejects(engine: duckdb.DuckDBPyConnection) -> None:
    engine.execute("DROP TABLE IF EXISTS reject_errors")
    engine.execute("DROP TABLE IF EXISTS reject_scans")
