"""DuckDB as datasets are read with it: held to a memory limit, spilling to a given folder, without network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

SHARE_OF_MEMORY = 0.6
"""The part of the memory budget DuckDB may use; Arrow buffers and the interpreter need the rest."""
TELL_SECONDS = 0.25


def open_engine(*, scratch: Path, memory_limit_mb: int) -> duckdb.DuckDBPyConnection:
    """An empty in-memory DuckDB; close it when done. One result can be open at a time."""
    import duckdb

    connection = duckdb.connect(
        config={
            "memory_limit": f"{max(128, int(memory_limit_mb * SHARE_OF_MEMORY))}MiB",
            "threads": 2,
            "temp_directory": str(scratch / "spill"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = true")
    connection.execute("SET enable_progress_bar_print = false")
    return connection


def rows_of(engine: duckdb.DuckDBPyConnection, query: str, heard: Callable[[float], None]) -> list[tuple[Any, ...]]:
    """All rows that a long statement answers; `heard` is told four times a second how much of it is done."""
    rows: list[tuple[Any, ...]] = []
    failed: list[BaseException] = []

    def execute() -> None:
        try:
            rows.extend(engine.execute(query).fetchall())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=execute, name="duckdb")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(TELL_SECONDS)
            done = engine.query_progress() if thread.is_alive() else 100.0
            if done >= 0:
                heard(min(1.0, done / 100))
    except BaseException:
        engine.interrupt()
        thread.join()
        raise
    if failed:
        raise failed[0]
    return rows


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


def text(value: str) -> str:
    """`value` as an SQL string."""
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def texts(values: Sequence[str]) -> str:
    return ", ".join(text(value) for value in values)


def file_name(path: Path) -> str:
    """`path` as an SQL string that names exactly this file, also when it has characters of a glob."""
    escaped = "".join(f"[{char}]" if char in "*?[" else char for char in str(path))
    return text(escaped)
