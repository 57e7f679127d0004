"""The file formats, column types and complaints that everything done to a dataset agrees on."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

Progress = Callable[[str, float | None], None]
"""Hears the name of a phase, and how much of it is done, or None when that is not known."""


@dataclass(frozen=True)
class RejectedRow:
    """A row that cannot be read: the physical line it begins on, the column where one is to blame, and why."""

    line: int
    column: str | None
    reason: str


@dataclass(frozen=True)
class Rejects:
    """The rows of a file that cannot be read: how many lines they take, and the first hundred of them."""

    count: int = 0
    first: tuple[RejectedRow, ...] = ()


class InvalidData(Exception):
    """The file cannot become a dataset version; the message says why and what to do about it.

    `line` is the physical line of the file counted from 1, `column` the name of the column, `detail` what
    the reader underneath said. `rejects` are the rows to blame. `code` is the FailureCode of the contract.
    """

    code = "INVALID_DATA"

    def __init__(
        self,
        message: str,
        *,
        line: int | None = None,
        column: str | None = None,
        detail: str | None = None,
        rejects: Rejects | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.detail = detail
        self.rejects = rejects or Rejects()


class DataFormat(StrEnum):
    CSV = "CSV"
    PARQUET = "PARQUET"
    ARROW = "ARROW"
    JSONL = "JSONL"


class ColumnType(StrEnum):
    BOOLEAN = "BOOLEAN"
    INTEGER = "INTEGER"
    FLOAT = "FLOAT"
    DECIMAL = "DECIMAL"
    STRING = "STRING"
    CATEGORY = "CATEGORY"
    DATE = "DATE"
    DATETIME = "DATETIME"
    BINARY = "BINARY"
    LIST = "LIST"
    STRUCT = "STRUCT"
    UNKNOWN = "UNKNOWN"

    @property
    def is_numeric(self) -> bool:
        return self in (ColumnType.INTEGER, ColumnType.FLOAT, ColumnType.DECIMAL)

    @property
    def is_text(self) -> bool:
        return self in (ColumnType.STRING, ColumnType.CATEGORY)


@dataclass(frozen=True)
class ColumnInfo:
    """One column of a dataset version; `position` counts from 0, `nullable` means that it has nulls."""

    name: str
    position: int
    type: ColumnType
    nullable: bool


@dataclass(frozen=True)
class CsvOptions:
    """How a CSV file is written. An empty `quote` means that nothing is quoted.

    Empty cells, quoted or not, are always null; `null_values` names further spellings of null.
    """

    delimiter: str = ","
    quote: str = '"'
    has_header: bool = True
    encoding: str = "utf-8"
    null_values: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises `InvalidData` for options no CSV file can have."""
        if len(self.delimiter) != 1 or self.delimiter in "\r\n\0 ":
            raise InvalidData("The delimiter of a CSV file is one character, such as , ; | or a tab.")
        if len(self.quote) > 1 or not self.quote.isascii() or self.quote in ("\r", "\n", "\0"):
            raise InvalidData(
                'The quote of a CSV file is one ASCII character, such as ", or empty when nothing is quoted.'
            )
        if self.quote == self.delimiter:
            raise InvalidData("The quote and the delimiter of a CSV file cannot be the same character.")
        if codec(self.encoding) is None:
            raise InvalidData(
                f"The encoding {self.encoding!r} is not known. Use for example utf-8, utf-16, latin-1 or cp1252."
            )


def codec(encoding: str) -> str | None:
    """Python's canonical name of a text encoding, or None when there is no such encoding."""
    try:
        found = codecs.lookup(encoding)
    except (LookupError, ValueError):
        return None
    # Escape codecs, punycode and the like can be looked up but are not how files are written.
    unusual = {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "mbcs", "oem", "utf-7"}
    if not found._is_text_encoding or found.name in unusual:
        return None
    return found.name


SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "a Parquet file"),
    (b"PARE", "an encrypted Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"PK\x03\x04", "a ZIP archive (perhaps an Excel workbook); unpack it or export it first"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ\x00", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word document; export it as CSV first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
)
"""First bytes of files that are often uploaded by mistake, and what they are."""


def recognise(head: bytes) -> str | None:
    """What a file starting with `head` is, in words, or None when its first bytes are nothing special."""
    return next((what for signature, what in SIGNATURES if head.startswith(signature)), None)


def column_type(dtype: pa.DataType) -> ColumnType:
    """The column type of the contract that an Arrow type belongs to."""
    import pyarrow.types as t

    for matches, kind in (
        (t.is_boolean, ColumnType.BOOLEAN),
        (t.is_integer, ColumnType.INTEGER),
        (t.is_floating, ColumnType.FLOAT),
        (t.is_decimal, ColumnType.DECIMAL),
        (t.is_dictionary, ColumnType.CATEGORY),
        (t.is_string, ColumnType.STRING),
        (t.is_large_string, ColumnType.STRING),
        (t.is_string_view, ColumnType.STRING),
        (t.is_date, ColumnType.DATE),
        (t.is_timestamp, ColumnType.DATETIME),
        (t.is_binary, ColumnType.BINARY),
        (t.is_large_binary, ColumnType.BINARY),
        (t.is_binary_view, ColumnType.BINARY),
        (t.is_fixed_size_binary, ColumnType.BINARY),
        (t.is_list, ColumnType.LIST),
        (t.is_large_list, ColumnType.LIST),
        (t.is_fixed_size_list, ColumnType.LIST),
        (t.is_struct, ColumnType.STRUCT),
    ):
        if matches(dtype):
            return kind
    return ColumnType.UNKNOWN
