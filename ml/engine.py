"""DuckDB as datasets are read with it: held to a memory limit, spilling to a given folder, without network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

SHARE_OF_MEMORY = 0.6
"""The part of the memory budget DuckDB may use; Arrow buffers and the interpreter need the rest."""


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
    return connection


def text(value: str) -> str:
    """`value` as an SQL string."""
    return "'" + value.replace("'", "''") + "'"


def texts(values: Sequence[str]) -> str:
    return ", ".join(text(value) for value in values)


def file_name(path: Path) -> str:
    """`path` as an SQL string that names exactly this file, also when it has characters of a glob."""
    escaped = "".join(f"[{char}]" if char in "*?[" else char for char in str(path))
    return text(escaped)
