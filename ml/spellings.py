"""How values are written in text files, and the type that a column of them gets: the narrowest that holds for all.

DuckDB's own casts are more generous (`1_000`, `0x1F`, 12.7 as 13) and would change what a file says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ml.engine import text
from ml.formats import ColumnType

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
"""How the values of each type are written, narrowest type first."""
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
MISFIT = "a value is not of the type that its column seemed to have"


def narrowest(values: Sequence[str]) -> str:
    """The DuckDB type, narrowest first, that all of these texts are written as; NULL when there are none."""
    if not values:
        return "NULL"
    return next((cast for cast, p in PATTERNS.items() if all(p.fullmatch(value) for value in values)), "VARCHAR")


def fits(cast: str, value: str) -> str:
    """SQL that holds for a text that is written as `cast` and is a value of it."""
    return f"(TRY_CAST({value} AS {cast}) IS NOT NULL AND regexp_full_match({value}, {text(SPELLINGS[cast])}))"


def agreed(cast: str, value: str) -> str:
    """SQL of a text in the type agreed on: an error that says `MISFIT`, or a cast that fails, for any other text.

    It means the same as `fits`, put so that the usual text is told from the rest without a regular expression.
    """
    match cast:
        case "VARCHAR":
            return value
        case "NULL":
            return f"CASE WHEN {value} IS NOT NULL THEN error({text(MISFIT)}) ELSE CAST(NULL AS VARCHAR) END"
        case "BOOLEAN":
            written = f"{value} IN ({', '.join(text(word) for word in SPELLINGS[cast].split('|'))})"
        case "DOUBLE":
            written = " AND ".join(f"NOT contains({value}, {text(odd)})" for odd in ("_", "(", "+-", "\v"))
        case "DATE" | "TIMESTAMP" | "TIMESTAMPTZ":
            cell = f"CAST({value} AS {cast})"
            usual = f"CAST({cell} AS VARCHAR) = {value} AND {cell} >= '0001-01-01' AND {cell} < '10000-01-01'"
            written = f"({usual} OR regexp_full_match({value}, {text(SPELLINGS[cast])}))"
        case _:
            written = f"regexp_full_match({value}, {text(SPELLINGS[cast])})"
    return f"CASE WHEN {value} IS NULL OR ({written}) THEN CAST({value} AS {cast}) ELSE error({text(MISFIT)}) END"
