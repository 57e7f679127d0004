"""Parquet and Arrow files: their schema is in them, and it is checked before anything is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from ml.arriving import Arriving
from ml.encodings import SNIFFED
from ml.engine import first_line
from ml.formats import ColumnInfo, DataFormat, InvalidData, Progress, column_type, recognise
from ml.inspection import Inspection

if TYPE_CHECKING:
    import pyarrow as pa


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


def inspect_parquet(source: Arriving, on_progress: Progress) -> Inspection:
    """Raises `InvalidData` for a file that is none, is cut off, or has columns that cannot be named."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    head, path = source.head(SNIFFED), source.path
    if not head.startswith(b"PAR1"):
        what = recognise(head)
        raise InvalidData(
            f"This is not a Parquet file: it is {what}."
            if what
            else "This is not a Parquet file: it does not begin with PAR1. Choose the right format, or upload it again."
        )
    source.whole(on_progress)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        if file.read() != b"PAR1" or path.stat().st_size < 12:
            raise InvalidData("The Parquet file is cut off: its footer is missing. Upload it again.")
    on_progress("inspect", None)
    try:
        with pq.ParquetFile(path) as parquet:
            schema, row_count = parquet.schema_arrow, parquet.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidData(
            "The footer of the Parquet file is damaged. Write the file again and upload it.", detail=first_line(error)
        ) from error
    on_progress("inspect", 1.0)
    return Inspection(
        format=DataFormat.PARQUET,
        path=path,
        columns=_check_schema(schema),
        row_count=row_count,
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


def inspect_arrow(source: Arriving, on_progress: Progress) -> Inspection:
    """Raises `InvalidData` for a file that is none, is cut off or damaged, or has columns that cannot be named."""
    import pyarrow as pa

    head, path = source.head(SNIFFED), source.path
    if not head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        what = recognise(head)
        raise InvalidData(
            f"This is not an Arrow file: it is {what}."
            if what
            else "This is not an Arrow file or stream. Choose the right format, or upload it again."
        )
    source.whole(on_progress)
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
    on_progress("inspect", 1.0)
    return Inspection(format=DataFormat.ARROW, path=path, columns=columns, row_count=row_count)
