"""Compressed uploads: gzip and zstd are unpacked once, and only as far as a real file would grow."""

from __future__ import annotations

from pathlib import Path

from ml.formats import InvalidData, Progress

GZIP, ZSTD = "gzip", "zstd"
SIGNATURES = {b"\x1f\x8b": GZIP, b"\x28\xb5\x2f\xfd": ZSTD}
CHUNK = 1 << 20
MOST_TIMES = 100
"""How many times its own size a file may unpack to: tables pack 3 to 20 times, very repetitive ones 60."""
ALWAYS_ALLOWED = 256 << 20


def compression(head: bytes) -> str | None:
    """How a file that starts with `head` is compressed, or None when it is not."""
    return next((name for signature, name in SIGNATURES.items() if head.startswith(signature)), None)


def unpack(path: Path, how: str, scratch: Path, on_progress: Progress) -> Path:
    """Unpack a file into `scratch` in bounded memory.

    Raises `InvalidData` when it is damaged or cut off, or grows to more than 100 times its size (and 256 MiB): then
    it is a decompression bomb, and what was unpacked of it is gone.
    """
    import pyarrow as pa

    size = path.stat().st_size
    limit = max(ALWAYS_ALLOWED, MOST_TIMES * size)
    target, written = scratch / "unpacked", 0
    try:
        with (
            pa.OSFile(str(path)) as packed,
            target.open("wb") as file,
            pa.CompressedInputStream(packed, how) as stream,
        ):
            while chunk := stream.read(CHUNK):
                written += len(chunk)
                if written > limit:
                    raise InvalidData(
                        f"The file has {size} bytes and unpacks to more than {limit}. "
                        "That is no table: upload it unpacked if it is one.",
                    )
                file.write(chunk)
                on_progress("unpack", min(1.0, packed.tell() / size))
    except (pa.ArrowException, OSError, ValueError) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, pa.ArrowException):
            raise
        raise InvalidData(
            f"The {how} file is damaged or cut off. Pack it again and upload it.", detail=str(error).split("\n", 1)[0]
        ) from error
    except InvalidData:
        target.unlink(missing_ok=True)
        raise
    return target
