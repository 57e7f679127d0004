"""Uploads become Parquet with the same values, and types that hold for every row."""

import csv as csv_module
import io
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.arriving import Arriving
from ml.conversion import convert
from ml.csv_files import inspect_csv
from ml.formats import ColumnType, CsvOptions
from ml.intake import Prepared, prepare


def run(
    tmp_path: Path, content: bytes, *, format: str = "CSV", csv: CsvOptions | None = None
) -> tuple[Prepared, pl.DataFrame]:
    source = tmp_path / "source"
    source.write_bytes(content)
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    target = tmp_path / "data.parquet"
    prepared = prepare(source, format=format, csv=csv, target=target, scratch=scratch, memory_limit_mb=512)
    frame = pl.read_parquet(target)
    assert frame.height == prepared.row_count
    assert frame.columns == [column.name for column in prepared.columns]
    assert [column.position for column in prepared.columns] == list(range(frame.width))
    return prepared, frame


def column(tmp_path: Path, *cells: str, csv: CsvOptions | None = None) -> tuple[ColumnType, list[Any]]:
    """The type and the values that a column with these cells gets."""
    content = "x,n\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells))
    prepared, frame = run(tmp_path, content.encode(), csv=csv)
    return prepared.columns[0].type, frame["x"].to_list()


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-2", "+3", ""], ColumnType.INTEGER, [1, -2, 3, None]),
        ([" 1", "2 "], ColumnType.INTEGER, [1, 2]),
        (["9223372036854775807", "-9223372036854775808"], ColumnType.INTEGER, [2**63 - 1, -(2**63)]),
        (["9223372036854775808", "1"], ColumnType.DECIMAL, [Decimal(2**63), Decimal(1)]),
        (["1", "2.5", "1e3", ".5", "3."], ColumnType.FLOAT, [1.0, 2.5, 1000.0, 0.5, 3.0]),
        (["1", "inf", "-Infinity"], ColumnType.FLOAT, [1.0, float("inf"), float("-inf")]),
        (["1_000", "2"], ColumnType.STRING, ["1_000", "2"]),
        (["0x1F", "2"], ColumnType.STRING, ["0x1F", "2"]),
        (["true", "False", "TRUE", ""], ColumnType.BOOLEAN, [True, False, True, None]),
        (["yes", "no"], ColumnType.STRING, ["yes", "no"]),
        (["2024-02-29", "1999-12-31"], ColumnType.DATE, [date(2024, 2, 29), date(1999, 12, 31)]),
        (["2023-02-29", "1999-12-31"], ColumnType.STRING, ["2023-02-29", "1999-12-31"]),
        (["01/02/2024"], ColumnType.STRING, ["01/02/2024"]),
        (
            ["2024-02-29 12:30:00", "2024-02-29T12:30:00.25", "2024-03-01"],
            ColumnType.DATETIME,
            [datetime(2024, 2, 29, 12, 30), datetime(2024, 2, 29, 12, 30, 0, 250_000), datetime(2024, 3, 1)],
        ),
        (
            ["2024-02-29T12:30:00Z", "2024-02-29 12:30:00+02:00"],
            ColumnType.DATETIME,
            [datetime(2024, 2, 29, 12, 30, tzinfo=UTC), datetime(2024, 2, 29, 10, 30, tzinfo=UTC)],
        ),
        (["2024-02-29T12:30:00Z", "2024-02-29 12:30:00"], ColumnType.STRING, None),
        (["", ""], ColumnType.UNKNOWN, [None, None]),
        (["naïve", "日本", '"a,b"'], ColumnType.STRING, ["naïve", "日本", "a,b"]),
    ],
)
def test_types_are_what_every_value_allows(
    tmp_path: Path, cells: list[str], kind: ColumnType, values: list[Any] | None
) -> None:
    assert column(tmp_path, *cells) == (kind, cells if values is None else values)


@pytest.mark.parametrize(
    ("late", "kind"),
    [
        ("2.5", ColumnType.FLOAT),
        ("x", ColumnType.STRING),
        ("99999999999999999999", ColumnType.DECIMAL),
        ("", ColumnType.INTEGER),
    ],
)
def test_a_column_that_changes_type_late_keeps_every_value(tmp_path: Path, late: str, kind: ColumnType) -> None:
    found, values = column(tmp_path, *["7"] * 50_000, late)
    assert found is kind
    assert str(values[-1]) == (late or "None")
    assert str(values[0]).startswith("7")


def test_nan_is_a_value_and_given_null_values_are_null(tmp_path: Path) -> None:
    prepared, frame = run(tmp_path, b"a,b\n1,x\nNaN,NA\n-,y\n", csv=CsvOptions(null_values=("NA", "-")))
    assert [(c.type, c.nullable) for c in prepared.columns] == [
        (ColumnType.FLOAT, True),
        (ColumnType.STRING, True),
    ]
    assert frame["a"].is_nan().to_list() == [False, True, None]
    assert frame["b"].to_list() == ["x", None, "y"]


@pytest.mark.parametrize(
    ("encoding", "detected"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("latin-1", "latin-1"),
    ],
)
def test_encodings_are_detected(tmp_path: Path, encoding: str, detected: str) -> None:
    prepared, frame = run(tmp_path, "größe,n\nzoë,1\nÀ,2\n".encode(encoding))
    assert frame.rows() == [("zoë", 1), ("À", 2)]
    assert frame.columns == ["größe", "n"]
    assert prepared.csv == CsvOptions(encoding=detected)


def test_windows_1252_and_given_encodings(tmp_path: Path) -> None:
    prepared, frame = run(tmp_path, "a,b\n“€”,1\n".encode("cp1252"))
    assert (frame["a"].to_list(), prepared.csv) == (["“€”"], CsvOptions(encoding="cp1252"))
    _, frame = run(tmp_path, "a,b\nЖ,1\n".encode("koi8-r"), csv=CsvOptions(encoding="KOI8-R"))
    assert frame["a"].to_list() == ["Ж"]


def test_an_invalid_byte_late_in_the_file_decides_the_encoding(tmp_path: Path) -> None:
    prepared, frame = run(tmp_path, b"a,b\n" + b"plain,1\n" * 300_000 + b"caf\xe9,2\n")
    assert prepared.csv == CsvOptions(encoding="latin-1")
    assert frame["a"].to_list()[-1] == "café"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_detected(tmp_path: Path, delimiter: str) -> None:
    content = delimiter.join(["a", "b", "c"]) + "\n" + delimiter.join(["1", '"x,;|y"', "1.5"]) + "\n"
    prepared, frame = run(tmp_path, content.encode())
    assert frame.rows() == [(1, "x,;|y", 1.5)]
    assert prepared.csv == CsvOptions(delimiter=delimiter)


@pytest.mark.parametrize(
    "content",
    [
        b'a,b\r\n1,"x\ny"\r\n\r\n2,z\r\n',
        b'\n\na,b\n1,"x\ny"\n\n   \n2,z',
        b'\xef\xbb\xbfa,b\n1,"x\ny"\n2,z\n\n',
        b'a,b\r1,"x\ny"\r2,z\r',
        b'a,b\n1,"x\ny"\r\n2,z\n',
        b' a , "b"\n1,"x\ny"\n2,z\n',
    ],
)
def test_blank_lines_line_ends_and_quoted_newlines(tmp_path: Path, content: bytes) -> None:
    assert run(tmp_path, content)[1].rows() == [(1, "x\ny"), (2, "z")]


def test_header_only_is_a_version_without_rows(tmp_path: Path) -> None:
    for content in (b"a,b\n", b"a,b"):
        prepared, frame = run(tmp_path, content)
        assert (frame.shape, [c.type for c in prepared.columns]) == ((0, 2), [ColumnType.UNKNOWN] * 2)
        assert [p["count"] for p in prepared.profiles] == [0, 0]


def test_without_header_columns_are_numbered(tmp_path: Path) -> None:
    _, frame = run(tmp_path, b"1,x\n2,y\n", csv=CsvOptions(has_header=False))
    assert frame.to_dict(as_series=False) == {"column_0": [1, 2], "column_1": ["x", "y"]}


def test_names_that_differ_only_in_case_and_a_nameless_index(tmp_path: Path) -> None:
    _, frame = run(tmp_path, b",A,a\n0,1,2\n")
    assert frame.to_dict(as_series=False) == {"column_0": [0], "A": [1], "a": [2]}


def test_nothing_is_quoted_when_the_quote_is_empty(tmp_path: Path) -> None:
    _, frame = run(tmp_path, b'a,b\n"1,5"\n', csv=CsvOptions(quote=""))
    assert frame.rows() == [('"1', '5"')]


def test_two_thousand_columns(tmp_path: Path) -> None:
    header = ",".join(f"x{i}" for i in range(2000))
    rows = "\n".join(",".join(str(i * j) for i in range(2000)) for j in range(50))
    prepared, frame = run(tmp_path, f"{header}\n{rows}\n".encode())
    assert frame.row(49) == tuple(i * 49 for i in range(2000))
    assert {c.type for c in prepared.columns} == {ColumnType.INTEGER}
    assert prepared.profiles[1999]["numeric"]["max"] == 1999 * 49
    assert prepared.profiles[1999]["distinct_count"] == 50


def test_ten_thousand_columns(tmp_path: Path) -> None:
    header = ",".join(f"x{i}" for i in range(10_000))
    rows = "\n".join(",".join(f"{i * j}{'.5' * (i == 7_000)}" for i in range(10_000)) for j in range(5))
    source, target = tmp_path / "source", tmp_path / "data.parquet"
    source.write_text(f"{header}\n{rows}\n")
    found = inspect_csv(Arriving(source, source.stat().st_size), None, tmp_path, lambda phase, fraction: None)
    converted = convert(found, target, scratch=tmp_path, memory_limit_mb=1024)
    frame = pl.read_parquet(target)
    assert (converted.row_count, frame.columns) == (5, [f"x{i}" for i in range(10_000)])
    assert frame.row(4) == tuple(28_000.5 if i == 7_000 else i * 4 for i in range(10_000))
    assert [c.name for c in converted.columns if c.type is not ColumnType.INTEGER] == ["x7000"]


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=30), newline=st.sampled_from(["\n", "\r\n"]))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives(tmp_path: Path, rows: list[tuple[str, str]], newline: str) -> None:
    sink = io.StringIO(newline="")
    writer = csv_module.writer(sink, lineterminator=newline, quoting=csv_module.QUOTE_ALL)
    writer.writerow(["a", "b", "kind"])
    writer.writerows([*row, "text"] for row in rows)
    _, frame = run(tmp_path, sink.getvalue().encode(), csv=CsvOptions())
    for name, expected in zip(("a", "b"), zip(*rows, strict=True), strict=True):
        if frame[name].dtype == pl.String:
            assert frame[name].to_list() == [value or None for value in expected]


def test_parquet_keeps_values_and_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "int": pa.array([1, None, 3], pa.int8()),
            "unsigned": pa.array([0, 1, 2**64 - 1], pa.uint64()),
            "half": pa.array([1.5, 2.5, None], pa.float16()),
            "decimal": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(10, 2)),
            "category": pa.array(["a", "b", "a"]).dictionary_encode(),
            "text": pa.array(["x\0y", None, "z"], pa.large_string()),
            "flag": [True, None, False],
            "day": [date(2024, 1, 1), None, date(2024, 1, 2)],
            "at": pa.array([0, 1, None], pa.timestamp("ns", tz="Europe/Berlin")),
            "bytes": [b"\0\xff", None, b""],
            "list": [[1, 2], None, []],
            "struct": [{"a": 1}, {"a": None}, None],
            "nothing": pa.nulls(3),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    prepared, frame = run(tmp_path, sink.getvalue(), format="PARQUET")
    assert [c.type.value for c in prepared.columns] == [
        "INTEGER", "INTEGER", "FLOAT", "DECIMAL", "CATEGORY", "STRING", "BOOLEAN",
        "DATE", "DATETIME", "BINARY", "LIST", "STRUCT", "UNKNOWN",
    ]  # fmt: skip
    assert [c.name for c in prepared.columns if not c.nullable] == ["unsigned", "category"]
    assert frame["unsigned"].to_list() == [0, 1, 2**64 - 1]
    assert frame["category"].to_list() == ["a", "b", "a"]
    assert frame["struct"].to_list() == [{"a": 1}, {"a": None}, None]
    assert frame["half"].to_list() == [1.5, 2.5, None]
    assert prepared.profiles[5]["top_values"] == [{"value": "x\ufffdy", "count": 1}, {"value": "z", "count": 1}]


def test_row_groups_stay_small_and_compressed(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": range(300_000)}), sink, row_group_size=300_000, compression="none")
    run(tmp_path, sink.getvalue(), format="PARQUET")
    metadata = pq.read_metadata(tmp_path / "data.parquet")
    assert [metadata.row_group(i).num_rows for i in range(3)] == [131_072, 131_072, 37_856]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_file_and_stream(tmp_path: Path, kind: str) -> None:
    table = pa.table({"a": [1, 2, 3], "b": pa.array(["x", "y", "x"]).dictionary_encode()})
    sink = io.BytesIO()
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    prepared, frame = run(tmp_path, sink.getvalue(), format="ARROW")
    assert frame.rows() == [(1, "x"), (2, "y"), (3, "x")]
    assert [c.type for c in prepared.columns] == [ColumnType.INTEGER, ColumnType.CATEGORY]


def test_json_lines(tmp_path: Path) -> None:
    content = b'{"a": 1, "b": "x", "c": [1, 2]}\n\n{"a": 2.5, "b": 7}\n{"c": [], "d": {"e": true}}\n'
    prepared, frame = run(tmp_path, content, format="JSONL")
    assert [c.type.value for c in prepared.columns] == ["FLOAT", "STRING", "LIST", "STRUCT"]
    assert frame.rows() == [
        (1.0, "x", [1, 2], None),
        (2.5, "7", None, None),
        (None, None, [], {"e": True}),
    ]


def test_progress_names_each_phase_and_ends_at_one(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a,b\n" + b"1,2\n" * 1000)
    heard: list[tuple[str, float | None]] = []
    prepare(
        source,
        format="CSV",
        target=tmp_path / "data.parquet",
        scratch=tmp_path,
        memory_limit_mb=512,
        on_progress=lambda phase, fraction: heard.append((phase, fraction)),
    )
    assert dict(heard) == {"read": 1.0, "inspect": 1.0, "convert": 1.0, "profile": 1.0}
    assert list(dict(heard)) == ["read", "inspect", "convert", "profile"]


def test_a_file_is_read_while_it_arrives(tmp_path: Path) -> None:
    content = b"a,b\n" + b"".join(b"%d,word\n" % i for i in range(400_000))
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    scratch.mkdir()
    source.touch()
    heard: list[float | None] = []
    begun = threading.Event()

    def hear(phase: str, fraction: float | None) -> None:
        if phase == "read":
            heard.append(fraction)
            begun.set()

    def send() -> None:
        with source.open("ab", 0) as file:
            file.write(content[:3_000_000])
            begun.wait(60)
            file.write(content[3_000_000:])

    sender = threading.Thread(target=send)
    sender.start()
    prepared = prepare(
        source,
        format="CSV",
        target=tmp_path / "data.parquet",
        scratch=scratch,
        memory_limit_mb=512,
        size_bytes=len(content),
        on_progress=hear,
    )
    sender.join()
    assert prepared.row_count == 400_000
    assert heard[-1] == 1.0


def test_a_type_that_ends_in_the_middle_of_the_file_is_told_from_there(tmp_path: Path) -> None:
    rows = [f"{i},{i},x" for i in range(100_000)]
    rows[60_000] = "60000.5,60000,x"
    prepared, frame = run(tmp_path, ("a,b,c\n" + "\n".join(rows) + "\n").encode())
    assert [c.type.value for c in prepared.columns] == ["FLOAT", "INTEGER", "STRING"]
    assert frame["a"][60_000] == 60_000.5
