"""A file that another process is still writing: what has arrived is read at once, the rest is waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml.formats import Progress

CHUNK = 1 << 20
LOOK_AGAIN_SECONDS = 0.005


@dataclass(frozen=True)
class Arriving:
    """`size_bytes` is what the file will have; whoever started this process ends it when the rest does not come."""

    path: Path
    size_bytes: int

    def head(self, size: int) -> bytes:
        """The first bytes, `size` of them or all there are."""
        self._wait(min(size, self.size_bytes))
        with self.path.open("rb") as file:
            return file.read(size)

    def chunks(self, on_progress: Progress) -> Iterator[bytes]:
        """All bytes in order, while they arrive; tells the phase `read`."""
        done = 0
        with self.path.open("rb") as file:
            while done < self.size_bytes:
                chunk = file.read(CHUNK)
                if not chunk:
                    time.sleep(LOOK_AGAIN_SECONDS)
                    continue
                yield chunk
                done += len(chunk)
                on_progress("read", min(1.0, done / self.size_bytes))

    def whole(self, on_progress: Progress) -> Path:
        """The file, once every byte is there."""
        self._wait(self.size_bytes, on_progress)
        on_progress("read", 1.0)
        return self.path

    def _wait(self, size: int, on_progress: Progress | None = None) -> None:
        while (arrived := self.path.stat().st_size) < size:
            if on_progress is not None:
                on_progress("read", arrived / size)
            time.sleep(LOOK_AGAIN_SECONDS)
