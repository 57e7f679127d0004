"""The bytes of a text file: in which encoding they are, and whether they are text at all.

Nothing is guessed from a sample: what is found holds for every byte of the file.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.arriving import CHUNK, Arriving
from ml.formats import InvalidData, Progress, codec, recognise

SNIFFED = 1 << 16
HIGH_CONTROL = bytes(range(0x80, 0xA0))
"""Control characters in Latin-1, printable ones in Windows-1252."""
UNDEFINED_IN_1252 = b"\x81\x8d\x8f\x90\x9d"
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


@dataclass(frozen=True)
class Fingerprint:
    """What one pass over the bytes of a text file found; `encoding` is a Python codec name.

    `lines` is one more than the file has line feeds, those inside of values included.
    `mixed_newlines` tells that some lines, or line breaks in values, end in another way than the rest.
    """

    encoding: str
    lines: int
    mixed_newlines: bool = True


def _marked_encoding(head: bytes) -> str | None:
    """The encoding that the first bytes show: by a byte order mark, or by where the zeros of UTF-16 are."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    start = head[: 4096 - 4096 % 2]
    pairs = len(start) // 2
    first, second = start[0::2].count(0), start[1::2].count(0)
    if pairs >= 2 and second > 0.4 * pairs and first == 0:
        return "utf-16-le"
    if pairs >= 2 and first > 0.4 * pairs and second == 0:
        return "utf-16-be"
    return None


def examine_text(source: Arriving, wanted: str | None, on_progress: Progress) -> Fingerprint:
    """Decide the encoding of a text file, reading every byte once, as it arrives.

    A `wanted` encoding is kept unless the bytes contradict it.
    """
    head = source.head(SNIFFED)
    what = recognise(head)
    if what is not None:
        raise InvalidData(f"This is not a text file: it is {what}.")
    marked = _marked_encoding(head)
    chosen = None if wanted is None else codec(wanted)
    if chosen == "utf-8" and marked == "utf-8-sig":
        chosen = marked
    if chosen is not None and marked is not None and chosen.split("-")[:2] != marked.split("-")[:2]:
        raise InvalidData(
            f"The file is encoded as {marked}, not {wanted}. Set the encoding to {marked}, or leave the options out.",
            line=1,
        )
    encoding = chosen or marked or "utf-8"

    lines = 1
    newlines = pairs = returns = 0
    ended_with_return = False
    blank = True
    fault: InvalidData | None = None
    decoder = codecs.getincrementaldecoder(encoding)()
    in_bytes = encoding in ("utf-8", "utf-8-sig")
    for chunk in source.chunks(on_progress):
        feeds = chunk.count(b"\n")
        newlines += feeds
        if fault is not None:
            continue
        try:
            decoded = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            fault = InvalidData(
                f"The file is not encoded as {encoding}.",
                line=lines + error.object[: error.start].count(b"\n"),
                detail=str(error.reason),
            )
            continue
        except UnicodeError as error:
            raise InvalidData(
                f"The file does not begin with the byte order mark of {encoding}. "
                "Set the encoding it has, or leave the options out.",
                line=1,
                detail=str(error),
            ) from error
        searched: Any = chunk if in_bytes else decoded
        newline: Any = b"\n" if in_bytes else "\n"
        zero = searched.find(b"\0" if in_bytes else "\0")
        if zero >= 0:
            line = lines + searched[:zero].count(newline)
            raise InvalidData(f"Line {line} holds a NUL byte. Remove it, or export the file again as text.", line=line)
        lines += feeds if in_bytes else searched.count(newline)
        cr, crlf = (b"\r", b"\r\n") if in_bytes else ("\r", "\r\n")
        here = searched.count(cr)
        pairs += (searched.count(crlf) if here else 0) + (ended_with_return and searched.startswith(newline))
        returns += here
        ended_with_return = searched.endswith(cr)
        blank = blank and not decoded.strip("\ufeff \t\r\n\v\f")
    if fault is None:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            fault = InvalidData(
                f"The file is cut off in the middle of a character of {encoding}. Upload it again.",
                line=lines,
                detail=str(error.reason),
            )
    if fault is not None:
        if in_bytes and BINARY.search(head):
            raise InvalidData("This is not a text file: it holds binary data.", line=fault.line)
        if not in_bytes:
            raise fault
        if chosen is not None or marked is not None:
            advice = f" It may be {_western(source)}: set the encoding, or leave the options out."
            raise InvalidData(fault.message + advice, line=fault.line, detail=fault.detail)
        return Fingerprint(_western(source), newlines + 1)
    if blank:
        raise InvalidData("The file holds nothing but white space. Upload a file with at least a header row.")
    styles = (pairs, lines - 1 - pairs, returns - pairs)
    return Fingerprint(encoding, newlines + 1, mixed_newlines=sum(n > 0 for n in styles) > 1)


def _western(source: Arriving) -> str:
    """Windows-1252 when the file holds bytes that only it gives a meaning, and none that it does not define; else
    Latin-1."""
    printable_there = False
    for chunk in source.chunks(lambda phase, fraction: None):
        if len(chunk.translate(None, UNDEFINED_IN_1252)) != len(chunk):
            return "latin-1"
        printable_there = printable_there or len(chunk.translate(None, HIGH_CONTROL)) != len(chunk)
    return "cp1252" if printable_there else "latin-1"


def as_utf8(path: Path, encoding: str, scratch: Path) -> Path:
    """`path` itself when its bytes are UTF-8, else a copy in UTF-8 without a byte order mark."""
    if encoding in ("utf-8", "utf-8-sig", "ascii"):
        return path
    copy = scratch / "utf8.txt"
    with path.open(encoding=encoding, newline="") as source, copy.open("w", encoding="utf-8", newline="") as target:
        while decoded := source.read(CHUNK):
            target.write(decoded)
    return copy


def with_plain_newlines(path: Path, quote: str, scratch: Path) -> Path:
    """A copy in which every row ends with a line feed; line breaks inside quotes stay as they are.

    DuckDB takes the first line end for all of them and can lose rows without a word when they differ.
    """
    copy = scratch / "newlines.txt"
    outside = True
    with (
        path.open(encoding="utf-8-sig", newline="") as source,
        copy.open("w", encoding="utf-8", newline="") as target,
    ):
        while decoded := source.read(CHUNK):
            if decoded.endswith("\r"):
                decoded += source.read(1)
            pieces = decoded.split(quote) if quote else [decoded]
            for i, piece in enumerate(pieces):
                if i:
                    outside = not outside
                    target.write(quote)
                target.write(piece.replace("\r\n", "\n").replace("\r", "\n") if outside else piece)
    return copy
