"""An inspected file becomes Parquet: zstd, row groups that fit in memory, every row there or nothing written."""

# ruff: noqa: S608 -- the SQL is put together from numbered columns and quoted names only

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ml.engine import open_engine
from ml.formats import DataFormat, InvalidData
from ml.inspection import (
    Inspection,
    Progress,
    arrow_batches,
    csv_cast,
    csv_relation,
    first_line,
    forget_rejects,
    jsonl_relation,
)

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_A_GROUP = 131_072
CELLS_A_GROUP = 8_000_000
BYTES_A_GROUP = 128 << 20
ROWS_A_BATCH = 16_384


@dataclass(frozen=True)
class Conversion:
    path: Path
    row_count: int
    size_bytes: int


def convert(
    found: Inspection,
    target: Path,
    *,
    scratch: Path,
    memory_limit_mb: int = 1024,
    on_progress: Progress = lambda phase, fraction: None,
) -> Conversion:
    """Write the rows of an inspected file to `target`, which appears only when it is whole.

    A row group holds at most 131,072 rows, fewer when there are thousands of columns or long values. Memory
    stays near a few row groups. Raises `InvalidData` when the file cannot be read to its end or has another
    number of rows than the inspection counted.
    """
    import pyarrow as pa

    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        match found.format:
            case DataFormat.CSV:
                rows = _write_csv(found, unfinished, scratch, memory_limit_mb, on_progress)
            case DataFormat.JSONL:
                rows = _write_jsonl(found, unfinished, scratch, memory_limit_mb, on_progress)
            case DataFormat.PARQUET:
                with closing(_parquet_batches(found)) as batches:
                    rows = _write(batches, unfinished, found, on_progress)
            case DataFormat.ARROW:
                with closing(arrow_batches(found.path)) as batches:
                    rows = _write(batches, unfinished, found, on_progress)
        if rows != found.row_count:
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
    return Conversion(path=target, row_count=rows, size_bytes=target.stat().st_size)


def _rows_a_batch(columns: int) -> int:
    return max(2048, min(ROWS_A_BATCH, CELLS_A_GROUP // (4 * columns)))


def _write_csv(found: Inspection, target: Path, scratch: Path, memory_limit_mb: int, on_progress: Progress) -> int:
    values = ", ".join(f"{csv_cast(found, i)} AS v{i}" for i in range(len(found.columns)))
    return _write_query(
        f"SELECT {values} FROM {csv_relation(found)}", found, target, scratch, memory_limit_mb, on_progress
    )


def _write_jsonl(found: Inspection, target: Path, scratch: Path, memory_limit_mb: int, on_progress: Progress) -> int:
    names = [f"c{i}" for i in range(len(found.columns))]
    values = ", ".join(
        f"{name} ->> '$'" if cast == "JSON" else name for name, cast in zip(names, found.casts, strict=True)
    )
    query = f"SELECT {values} FROM {jsonl_relation(found.path)} AS t({', '.join(names)})"
    return _write_query(query, found, target, scratch, memory_limit_mb, on_progress)


def _write_query(
    query: str, found: Inspection, target: Path, scratch: Path, memory_limit_mb: int, on_progress: Progress
) -> int:
    import duckdb
    import pyarrow as pa

    names = [column.name for column in found.columns]
    with open_engine(scratch=scratch, memory_limit_mb=memory_limit_mb) as engine:
        forget_rejects(engine)
        try:
            with engine.sql(query).to_arrow_reader(_rows_a_batch(len(names))) as reader:
                schema = pa.schema(
                    [pa.field(name, _settled(dtype)) for name, dtype in zip(names, reader.schema.types, strict=True)]
                )
                batches = (pa.RecordBatch.from_arrays(batch.columns, names=names) for batch in reader)
                return _write(_with_schema(batches, schema), target, found, on_progress)
        except duckdb.Error as error:
            if isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException):
                raise
            raise InvalidData("The file cannot be converted.", detail=first_line(error)) from error


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


def _write(batches: Iterator[pa.RecordBatch], target: Path, found: Inspection, on_progress: Progress) -> int:
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
    group_rows = max(1024, min(ROWS_A_GROUP, CELLS_A_GROUP // len(schema)))
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
                on_progress("convert", min(1.0, written / max(1, found.row_count)))
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
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return written
