"""An inspected file becomes Parquet: zstd, row groups that fit in memory, every row there or nothing written."""

# ruff: noqa: S608 -- the SQL is put together from numbered columns and quoted names only

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ml.columnar import arrow_batches
from ml.csv_files import REJECTS_KEPT, agree_on_types, csv_relation, csv_value, forget_rejects, told_apart
from ml.engine import first_line, open_engine, quoted, rows_of, text
from ml.formats import ColumnInfo, DataFormat, InvalidData, Progress, Rejects
from ml.inspection import Inspection
from ml.jsonl import jsonl_relation
from ml.rejects import rejected
from ml.spellings import KINDS, MISFIT, agreed

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ROWS_A_GROUP = 131_072
CELLS_A_GROUP = 8_000_000
BYTES_A_GROUP = 128 << 20
ROWS_A_BATCH = 16_384
WIDE = 200
"""Columns from which on looking for common expressions, which takes the square of their number, is not worth it."""
COLUMNS_A_SLICE = 2000


@dataclass(frozen=True)
class Conversion:
    """`columns` have their types now; `rejects` are rows that are not in it."""

    path: Path
    row_count: int
    columns: tuple[ColumnInfo, ...]
    rejects: Rejects


def convert(
    found: Inspection,
    target: Path,
    *,
    scratch: Path,
    memory_limit_mb: int,
    tolerated: float = 0.0,
    on_progress: Progress = lambda phase, fraction: None,
) -> Conversion:
    """Write the rows of an inspected file to `target`, which appears only when it is whole.

    A row group holds at most 131,072 rows, fewer when there are thousands of columns or long values. Memory
    stays near a few row groups. `tolerated` is the share of the rows of a CSV file that may be left out because they
    cannot be read. Raises `InvalidData` when there are more, when the file cannot be read to its end, or has another
    number of rows than it says.
    """
    import pyarrow as pa

    unfinished = target.with_name(f"{target.name}.unfinished")
    rejects = Rejects()
    try:
        match found.format:
            case DataFormat.CSV:
                found, rows, rejects = _write_csv(found, unfinished, scratch, memory_limit_mb, tolerated, on_progress)
            case DataFormat.JSONL:
                rows = _write_jsonl(found, unfinished, scratch, memory_limit_mb, on_progress)
            case DataFormat.PARQUET:
                with closing(_parquet_batches(found)) as batches:
                    rows = _write(batches, unfinished, found.row_count, on_progress)
            case DataFormat.ARROW:
                with closing(arrow_batches(found.path)) as batches:
                    rows = _write(batches, unfinished, found.row_count, on_progress)
        if found.row_count not in (None, rows):
            raise InvalidData(f"The file holds {rows} rows but says {found.row_count}. Write it again and upload it.")
        unfinished.replace(target)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, pa.ArrowException):
            raise
        raise InvalidData(
            f"The {found.format.capitalize()} file is damaged. Write it again and upload it.",
            detail=first_line(error),
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return Conversion(target, rows, found.columns, rejects)


def _rows_a_group(columns: int) -> int:
    return max(1024, min(ROWS_A_GROUP, CELLS_A_GROUP // columns))


def _rows_a_batch(columns: int) -> int:
    return max(2048, min(ROWS_A_BATCH, CELLS_A_GROUP // (4 * columns)))


def _write_csv(
    found: Inspection,
    target: Path,
    scratch: Path,
    memory_limit_mb: int,
    tolerated: float,
    on_progress: Progress,
) -> tuple[Inspection, int, Rejects]:
    """One pass over the file when its columns keep the types of the first rows; else two more that find them out."""
    import duckdb

    with open_engine(scratch=scratch, memory_limit_mb=memory_limit_mb) as engine:
        if found.doubtful:
            found = agree_on_types(engine, found, on_progress)
        try:
            row_count = _copy_csv(engine, found, target, tolerated, on_progress)
        except (duckdb.ConversionException, duckdb.InvalidInputException) as error:
            if isinstance(error, duckdb.InvalidInputException) and MISFIT not in str(error):
                with told_apart():
                    raise
            found = agree_on_types(engine, found, on_progress)
            with told_apart():
                row_count = _copy_csv(engine, found, target, tolerated, on_progress)
        rejects = rejected(engine, found, row_count, tolerated)
    assert found.start is not None
    if row_count + rejects.count < len(found.start.rows):
        raise InvalidData("The rows of the file cannot be told apart. Check its quotes and line ends.")
    columns = tuple(replace(column, type=KINDS[cast]) for column, cast in zip(found.columns, found.casts, strict=True))
    return replace(found, columns=columns), row_count, rejects


def _copy_csv(
    engine: duckdb.DuckDBPyConnection, found: Inspection, target: Path, tolerated: float, on_progress: Progress
) -> int:
    """Thousands of columns are copied in slices, which are then put side by side: each has a vector of its own for
    every step of its way. So are columns whose names DuckDB takes for the same."""
    assert found.start is not None
    names = [column.name for column in found.columns]
    relation = csv_relation(found, rejects_kept=REJECTS_KEPT + int(tolerated * found.start.lines))
    cells = [agreed(cast, csv_value(found, i)) for i, cast in enumerate(found.casts)]
    row_bytes = found.path.stat().st_size // max(1, found.start.lines)
    group_rows = max(1024, min(_rows_a_group(len(names)), BYTES_A_GROUP // max(1, row_bytes)))
    if len(names) > WIDE:
        engine.execute("SET disabled_optimizers = 'common_subexpressions'")
    distinct = len({name.lower() for name in names}) == len(names)
    slices = [range(low, min(len(names), low + COLUMNS_A_SLICE)) for low in range(0, len(names), COLUMNS_A_SLICE)]
    whole = distinct and len(slices) == 1
    parts = [target] if whole else [target.with_name(f"{target.name}.{i}") for i in range(len(slices))]
    row_count = 0
    try:
        for done, (part, columns) in enumerate(zip(parts, slices, strict=True)):
            values = ", ".join(f"{cells[i]} AS {quoted(names[i]) if whole else f'v{i}'}" for i in columns)
            query = (
                f"COPY (SELECT {values} FROM {relation}) TO {text(str(part))} "
                f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {group_rows})"
            )

            def heard(share: float, before: int = done) -> None:
                on_progress("convert", (before + share) / len(slices))

            forget_rejects(engine)
            heard(0.0)
            rows = rows_of(engine, query, heard)
            row_count = rows[0][0]
        if whole:
            _flush(target)
        else:
            with closing(_side_by_side(parts, names)) as batches:
                _write(batches, target, None, on_progress)
    finally:
        for part in parts:
            if part != target:
                part.unlink(missing_ok=True)
    return row_count


def _side_by_side(parts: Sequence[Path], names: Sequence[str]) -> Generator[pa.RecordBatch, None, None]:
    """The rows of Parquet files with the same number of rows, as one table; first an empty batch with the schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        files = [stack.enter_context(pq.ParquetFile(part)) for part in parts]
        types = [dtype for file in files for dtype in file.schema_arrow.types]
        schema = pa.schema([pa.field(name, dtype) for name, dtype in zip(names, types, strict=True)])
        yield pa.RecordBatch.from_pylist([], schema=schema)
        rows = _rows_a_batch(len(names))
        for pieces in zip(*(file.iter_batches(batch_size=rows) for file in files), strict=True):
            yield pa.RecordBatch.from_arrays([column for piece in pieces for column in piece.columns], schema=schema)


def _write_jsonl(found: Inspection, target: Path, scratch: Path, memory_limit_mb: int, on_progress: Progress) -> int:
    import duckdb

    names = [f"c{i}" for i in range(len(found.columns))]
    values = ", ".join(
        f"{name} ->> '$'" if cast == "JSON" else name for name, cast in zip(names, found.casts, strict=True)
    )
    query = f"SELECT {values} FROM {jsonl_relation(found.path)} AS t({', '.join(names)})"
    with open_engine(scratch=scratch, memory_limit_mb=memory_limit_mb) as engine:
        try:
            return _write_rows(engine, query, [column.name for column in found.columns], target, on_progress)
        except duckdb.Error as error:
            if isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException):
                raise
            raise InvalidData("The file cannot be converted.", detail=first_line(error)) from error


def _write_rows(
    engine: duckdb.DuckDBPyConnection, query: str, names: Sequence[str], target: Path, on_progress: Progress
) -> int:
    import pyarrow as pa

    with engine.sql(query).to_arrow_reader(_rows_a_batch(len(names))) as reader:
        schema = pa.schema(
            [pa.field(name, _settled(dtype)) for name, dtype in zip(names, reader.schema.types, strict=True)]
        )
        batches = (pa.RecordBatch.from_arrays(batch.columns, names=list(names)) for batch in reader)
        return _write(_with_schema(batches, schema), target, None, on_progress)


def _settled(dtype: pa.DataType) -> pa.DataType:
    """The type that DuckDB's Arrow type is stored as."""
    import pyarrow as pa

    return pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(dtype) and dtype.tz else dtype


def _with_schema(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    yield pa.RecordBatch.from_pylist([], schema=schema)
    for batch in batches:
        yield batch.cast(schema)


def _parquet_batches(found: Inspection) -> Generator[pa.RecordBatch, None, None]:
    """All rows of a Parquet file, every page decoded; first an empty batch that carries the schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(found.path, pre_buffer=False, page_checksum_verification=True) as parquet:
        yield pa.RecordBatch.from_pylist([], schema=parquet.schema_arrow)
        for batch in parquet.iter_batches(batch_size=_rows_a_batch(len(found.columns))):
            batch.validate(full=True)
            yield batch


def _write(batches: Iterator[pa.RecordBatch], target: Path, due: int | None, on_progress: Progress) -> int:
    """Write the batches after the first, which only carries the schema, in row groups of bounded size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = next(batches).schema.remove_metadata()
    unstorable = {
        i: field for i, field in enumerate(schema) if pa.types.is_union(field.type) or pa.types.is_interval(field.type)
    }
    for field in unstorable.values():
        raise InvalidData(
            f"The column {field.name!r} has the type {field.type}, which cannot be stored. Convert or drop it.",
            column=field.name,
        )
    for i, field in enumerate(schema):
        if pa.types.is_float16(field.type):
            schema = schema.set(i, field.with_type(pa.float32()))
    group_rows = _rows_a_group(len(schema))
    written = 0
    waiting: list[pa.RecordBatch] = []
    waiting_rows = waiting_bytes = 0
    on_progress("convert", 0.0)
    with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:

        def flush() -> None:
            nonlocal written, waiting_rows, waiting_bytes
            if waiting:
                table = pa.Table.from_batches(waiting).unify_dictionaries()
                writer.write_table(table, row_group_size=group_rows)
                written += waiting_rows
                on_progress("convert", None if due is None else min(1.0, written / max(1, due)))
            waiting.clear()
            waiting_rows = waiting_bytes = 0

        for batch in batches:
            start = 0
            while start < batch.num_rows:
                piece = batch.slice(start, group_rows - waiting_rows).cast(schema)
                start += piece.num_rows
                waiting.append(piece)
                waiting_rows += piece.num_rows
                waiting_bytes += piece.nbytes
                if waiting_rows >= group_rows or waiting_bytes >= BYTES_A_GROUP:
                    flush()
        flush()
    on_progress("convert", 1.0)
    _flush(target)
    return written


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
