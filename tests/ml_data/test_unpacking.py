"""Compressed files are read as what is in them; damaged ones and decompression bombs are refused."""

import gzip
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from ml import unpacking
from ml.formats import InvalidData
from ml.intake import Prepared, prepare

ROWS = 20_000
CSV = b"x,y\n" + b"".join(b"%d,word %d\n" % (i, i % 7) for i in range(ROWS))
JSONL = b"".join(b'{"x": %d}\n' % i for i in range(ROWS))


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def parquet(folder: Path) -> bytes:
    path = folder / "made.parquet"
    pl.DataFrame({"x": range(ROWS)}).write_parquet(path)
    return path.read_bytes()


def run(tmp_path: Path, content: bytes, *, format: str = "CSV") -> Prepared:
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    source.write_bytes(content)
    scratch.mkdir(exist_ok=True)
    return prepare(source, format=format, target=tmp_path / "data.parquet", scratch=scratch, memory_limit_mb=512)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("format", ["CSV", "JSONL", "PARQUET"])
def test_what_is_in_a_compressed_file_is_read(tmp_path: Path, pack: object, format: str) -> None:
    assert callable(pack)
    content = {"CSV": CSV, "JSONL": JSONL, "PARQUET": parquet(tmp_path)}[format]
    packed = pack(content)

    found = run(tmp_path, packed, format=format)

    assert found.row_count == ROWS
    assert pl.read_parquet(tmp_path / "data.parquet")["x"].to_list() == list(range(ROWS))


def test_several_members_are_one_file(tmp_path: Path) -> None:
    assert run(tmp_path, gzip.compress(CSV[:1000]) + gzip.compress(CSV[1000:])).row_count == ROWS


def test_a_fault_is_told_by_its_line_in_the_unpacked_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as caught:
        run(tmp_path, gzip.compress(b"x,y\n1,2\n3\n4,5\n"))
    assert caught.value.line == 3


@pytest.mark.parametrize(
    "broken",
    [
        gzip.compress(CSV)[:5000],
        gzip.compress(CSV)[:-4],
        gzip.compress(CSV)[:5000] + b"\xff" * 40 + gzip.compress(CSV)[5040:],
        zstd(CSV)[:5000],
        zstd(CSV) + b"and more",
    ],
    ids=["gzip-cut", "gzip-cut-in-its-trailer", "gzip-changed", "zstd-cut", "zstd-with-a-tail"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, broken: bytes) -> None:
    with pytest.raises(InvalidData, match="damaged or cut off"):
        run(tmp_path, broken)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="There is nothing in the gzip file"):
        run(tmp_path, gzip.compress(b""))


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_bomb_is_given_up_on_before_it_fills_the_disk(
    tmp_path: Path, pack: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(pack)
    monkeypatch.setattr(unpacking, "ALWAYS_ALLOWED", 4 << 20)
    bomb = pack(b"1,2\n" * (16 << 20))

    with pytest.raises(InvalidData, match="unpacks to more than"):
        run(tmp_path, bomb)
    assert list((tmp_path / "scratch").iterdir()) == []
