"""Files that cannot become a dataset version are refused with the line, the column and what to do."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml.formats import CsvOptions, InvalidData
from ml.intake import Prepared, prepare

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"


def run(tmp_path: Path, content: bytes, *, format: str = "CSV", csv: CsvOptions | None = None) -> Prepared:
    source = tmp_path / "source"
    source.write_bytes(content)
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return prepare(
        source, format=format, csv=csv, target=tmp_path / "data.parquet", scratch=scratch, memory_limit_mb=512
    )


def refusal(tmp_path: Path, content: bytes, *, format: str = "CSV", csv: CsvOptions | None = None) -> InvalidData:
    with pytest.raises(InvalidData) as caught:
        run(tmp_path, content, format=format, csv=csv)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch", "source"]
    assert caught.value.code == "INVALID_DATA"
    return caught.value


@pytest.mark.parametrize(
    ("content", "message", "line", "column"),
    [
        pytest.param(
            b"a,b\n1,2\n3,4,5,6\n7,8\n",
            "Line 3 has 4 values where the file has 2 columns. Give every row the same number of values, "
            "and put values that contain the delimiter in quotes.",
            3,
            None,
            id="long-row",
        ),
        pytest.param(
            b"a,b,c\n1,2,3\n4\n5,6,7\n",
            "Line 3 has 1 value where the file has 3 columns. Give every row the same number of values, "
            "and put values that contain the delimiter in quotes.",
            3,
            None,
            id="short-row",
        ),
        pytest.param(
            b'a,b\n"x\ny\nz",2\n3\n4,5\n',
            "Line 5 has 1 value where the file has 2 columns. Give every row the same number of values, "
            "and put values that contain the delimiter in quotes.",
            5,
            None,
            id="short-row-after-quoted-newlines",
        ),
        pytest.param(
            b"\xef\xbb\xbf\n\na,b\r\n1,2\r\n\r\n3\r\n4,5\r\n",
            "Line 6 has 1 value where the file has 2 columns. Give every row the same number of values, "
            "and put values that contain the delimiter in quotes.",
            6,
            None,
            id="short-row-after-bom-blank-lines-and-crlf",
        ),
        pytest.param(
            b"a,b,c\n1,2,3\n4,5",
            "Line 3 has 2 values where the file has 3 columns. It is the last line: the file may be cut off; "
            "upload it again.",
            3,
            None,
            id="cut-last-line",
        ),
        pytest.param(
            b'a,b\n1,2\n3,"x',
            "A quote in line 3, column 'b', is opened and never closed: the file may be cut off, "
            "or the quote is a stray one.",
            3,
            "b",
            id="cut-inside-quotes",
        ),
        pytest.param(
            b'a,b\n1,"x"y\n3,4\n',
            "A quote in line 2, column 'b', is followed by other text. "
            'Double a quote inside a value ("") and close every quote.',
            2,
            "b",
            id="stray-quote",
        ),
        pytest.param(
            b"a,b\n1,2\n3,\x00\n",
            "Line 3 holds a NUL byte. Remove it, or export the file again as text.",
            3,
            None,
            id="nul-byte",
        ),
        pytest.param(
            b"a,b,a\n1,2,3\n",
            "The header names 'a' more than once. Give every column its own name; "
            "if the file has no header row, say so with hasHeader: false.",
            1,
            "a",
            id="duplicate-header",
        ),
        pytest.param(b"", "The file is empty. Upload a file with at least a header row.", None, None, id="empty-file"),
        pytest.param(
            b" \n\t\r\n  \n",
            "The file holds nothing but white space. Upload a file with at least a header row.",
            None,
            None,
            id="white-space",
        ),
        pytest.param(PNG, "This is not a text file: it is a PNG image.", None, None, id="png"),
        pytest.param(
            gzip.compress(gzip.compress(b"a,b\n1,2\n")),
            "This is not a text file: it is compressed with gzip; unpack it first.",
            None,
            None,
            id="gzip-in-gzip",
        ),
        pytest.param(
            b"\x00\xff\x01\xfe\x02" * 100,
            "This is not a text file: it holds binary data.",
            1,
            None,
            id="random-bytes-with-zeros",
        ),
        pytest.param(
            b"\x07\xff\x01\xfe\x02" * 100,
            "This is not a text file: it holds binary data.",
            1,
            None,
            id="random-bytes",
        ),
        pytest.param(
            "a,b\n1,ü\n".encode("utf-16")[:-1],
            "The file is cut off in the middle of a character of utf-16. Upload it again.",
            2,
            None,
            id="cut-utf-16",
        ),
    ],
)
def test_broken_csv_is_refused_in_plain_words(
    tmp_path: Path, content: bytes, message: str, line: int | None, column: str | None
) -> None:
    refused = refusal(tmp_path, content)
    assert (refused.message, refused.line, refused.column) == (message, line, column)


def test_zip_and_parquet_given_as_csv_are_named(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.csv", "a,b\n1,2\n")
    assert refusal(tmp_path, archive.getvalue()).message == (
        "This is not a text file: it is a ZIP archive (perhaps an Excel workbook); unpack it or export it first."
    )
    assert refusal(tmp_path, parquet_bytes()).message == "This is not a text file: it is a Parquet file."


def test_a_fault_far_into_a_large_file_keeps_its_line(tmp_path: Path) -> None:
    rows = [f'{i},"value\n{i}"\n'.encode() for i in range(300_000)]
    rows[250_000] = b"250000\n"
    refused = refusal(tmp_path, b"a,b\n" + b"".join(rows))
    assert refused.line == 2 + 2 * 250_000


def test_bytes_that_contradict_the_given_encoding_are_refused(tmp_path: Path) -> None:
    content = "name,n\nZoe,1\nZoë,2\n".encode("latin-1")
    refused = refusal(tmp_path, content, csv=CsvOptions(encoding="utf-8"))
    assert (refused.message, refused.line) == (
        "The file is not encoded as utf-8. It may be latin-1: set the encoding, or leave the options out.",
        3,
    )
    refused = refusal(tmp_path, b"a,b\n1,22\n30,44\n", csv=CsvOptions(encoding="utf-16"))
    assert refused.message == (
        "The file does not begin with the byte order mark of utf-16. Set the encoding it has, or leave the options out."
    )
    refused = refusal(tmp_path, "a,b\n1,2\n".encode("utf-16"), csv=CsvOptions(encoding="utf-8"))
    assert refused.message == (
        "The file is encoded as utf-16, not utf-8. Set the encoding to utf-16, or leave the options out."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CsvOptions(delimiter=",,"), "The delimiter of a CSV file is one character, such as , ; | or a tab."),
        (CsvOptions(delimiter=""), "The delimiter of a CSV file is one character, such as , ; | or a tab."),
        (
            CsvOptions(delimiter='"'),
            "The quote and the delimiter of a CSV file cannot be the same character.",
        ),
        (
            CsvOptions(quote="''"),
            'The quote of a CSV file is one ASCII character, such as ", or empty when nothing is quoted.',
        ),
        (
            CsvOptions(encoding="klingon"),
            "The encoding 'klingon' is not known. Use for example utf-8, utf-16, latin-1 or cp1252.",
        ),
        (
            CsvOptions(encoding="rot13"),
            "The encoding 'rot13' is not known. Use for example utf-8, utf-16, latin-1 or cp1252.",
        ),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options: CsvOptions, message: str) -> None:
    assert refusal(tmp_path, b"a,b\n1,2\n", csv=options).message == message


def parquet_bytes(rows: int = 1000) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": range(rows), "b": [f"text {i}" for i in range(rows)]}), sink)
    return sink.getvalue()


def test_parquet_that_is_none_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"a,b\n1,2\n", format="PARQUET").message == (
        "This is not a Parquet file: it does not begin with PAR1. Choose the right format, or upload it again."
    )
    assert refusal(tmp_path, PNG, format="PARQUET").message == ("This is not a Parquet file: it is a PNG image.")
    assert refusal(tmp_path, parquet_bytes()[:-9], format="PARQUET").message == (
        "The Parquet file is cut off: its footer is missing. Upload it again."
    )


@pytest.mark.parametrize("length", [0, 5, 1 << 20, 0xFFFFFFFF])
def test_parquet_with_a_wrong_footer_is_refused(tmp_path: Path, length: int) -> None:
    content = parquet_bytes()
    broken = content[:-8] + struct.pack("<I", length) + b"PAR1"
    assert refusal(tmp_path, broken, format="PARQUET").message == (
        "The footer of the Parquet file is damaged. Write the file again and upload it."
    )


def test_parquet_with_damaged_pages_is_refused(tmp_path: Path) -> None:
    content = bytearray(parquet_bytes(100_000))
    content[2000:6000] = b"\xaa" * 4000
    assert refusal(tmp_path, bytes(content), format="PARQUET").message == (
        "The Parquet file is damaged. Write it again and upload it."
    )


def test_parquet_with_repeated_or_no_columns_is_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), sink)
    refused = refusal(tmp_path, sink.getvalue(), format="PARQUET")
    assert (refused.message, refused.column) == (
        "The column 'a' is there more than once. Give every column its own name.",
        "a",
    )
    sink = io.BytesIO()
    pq.write_table(pa.table({}), sink)
    assert refusal(tmp_path, sink.getvalue(), format="PARQUET").message == "The file has no columns."


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        (
            b'{"a": 1}\n{"a": }\n{"a": 3}\n',
            "Line 2 is not valid JSON. Write one whole JSON object a line.",
            2,
        ),
        (
            b'{"a": 1}\n5\n',
            "Line 2 is not a JSON object with columns as keys. Write one such object a line.",
            2,
        ),
        (
            b'{"a": 1, "a": 2}\n',
            "Line 1 has the key 'a' more than once. Give every value its own key.",
            1,
        ),
    ],
)
def test_broken_json_lines_are_refused(tmp_path: Path, content: bytes, message: str, line: int | None) -> None:
    refused = refusal(tmp_path, content, format="JSONL")
    assert (refused.message, refused.line) == (message, line)


def test_broken_arrow_is_refused(tmp_path: Path) -> None:
    table = pa.table({"a": range(1000)})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    message = "The Arrow file is damaged or cut off. Write it again and upload it."
    assert refusal(tmp_path, sink.getvalue()[:-20], format="ARROW").message == message
    assert refusal(tmp_path, b"a,b\n1,2\n", format="ARROW").message == (
        "This is not an Arrow file or stream. Choose the right format, or upload it again."
    )
