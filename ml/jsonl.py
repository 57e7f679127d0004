"""JSON-lines files: one object a line, whose keys are the columns."""

# ruff: noqa: S608 -- the SQL is put together from numbered columns and quoted names only

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.arriving import Arriving
from ml.encodings import as_utf8, examine_text
from ml.engine import file_name, first_line, open_engine
from ml.formats import ColumnInfo, ColumnType, DataFormat, InvalidData, Progress, column_type
from ml.inspection import Inspection

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


def jsonl_relation(path: Path) -> str:
    """The objects of a JSON-lines file as rows, in DuckDB's SQL, typed by reading all of them."""
    return (
        f"read_json({file_name(path)}, format = 'newline_delimited', records = true, compression = 'none', "
        "sample_size = -1, map_inference_threshold = -1, maximum_object_size = 16777216)"
    )


def inspect_jsonl(source: Arriving, scratch: Path, memory_limit_mb: int, on_progress: Progress) -> Inspection:
    """Raises `InvalidData` naming the first line that is no object."""
    import duckdb

    bytes_found = examine_text(source, None, on_progress)
    readable = as_utf8(source.path, bytes_found.encoding, scratch)
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
    on_progress("inspect", 1.0)
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
