"""The folder that holds what the embedded servers keep: one stack at a time, passwords, ports."""

import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

_NEEDED_BYTES = 256 * 1024**2


class EmbeddedServerError(Exception):
    """An embedded server cannot run; the message says what to change."""


class Home:
    """HEADAI_HOME, held by one process at a time from `lock()` to `unlock()`."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Make the folder and hold it.

        Raises `EmbeddedServerError` when it cannot be written, is on a full disk, or another process holds it.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path = self.path.resolve()
            self._lock = open(self.path / "lock", "a+")  # noqa: SIM115 - open for as long as the folder is held
        except OSError as error:
            raise self.unusable(error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip()
            self._lock.close()
            self._lock = None
            raise EmbeddedServerError(
                f"Head AI already runs on {self.path}{f' as process {holder}' if holder else ''}. "
                "Stop it first, or set HEADAI_HOME to another folder (and HEADAI_PORT to another port)."
            ) from None
        try:
            self._lock.truncate(0)
            self._lock.write(f"{os.getpid()}\n")
            self._lock.flush()
            self._refuse_full_disk()
        except OSError as error:
            self.unlock()
            raise self.unusable(error) from error
        except EmbeddedServerError:
            self.unlock()
            raise

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def unusable(self, error: OSError) -> EmbeddedServerError:
        return EmbeddedServerError(
            f"HEADAI_HOME is {self.path}, and that folder cannot be used: {error.strerror}. "
            "Set HEADAI_HOME to a folder you may write to, on a disk with room."
        )

    def secret(self, name: str) -> str:
        """A random password, made the first time it is asked for and kept where only the owner reads it."""
        path = self.path / name
        if not path.exists():
            write_private(path, secrets.token_hex(24))
        return path.read_text().strip()

    def _refuse_full_disk(self) -> None:
        free = shutil.disk_usage(self.path).free
        if free < _NEEDED_BYTES:
            raise EmbeddedServerError(
                f"HEADAI_HOME is {self.path}, and its disk is full: {free // 1024**2} MiB are left and at least "
                f"{_NEEDED_BYTES // 1024**2} are needed. Make room, or set HEADAI_HOME to a folder on another disk."
            )


class Ports:
    """Ports of this home: chosen once, kept from start to start, chosen anew when somebody else has them."""

    def __init__(self, home: Home) -> None:
        self._file = home.path / "ports.json"

    def choose(
        self, server: str, names: Iterable[str], candidates: range, *, offsets: tuple[int, ...] = (0,)
    ) -> dict[str, int]:
        """A port for each name; with every port, those at `offsets` from it are free as well."""
        remembered = self._read()
        others = {port for owner, ports in remembered.items() if owner != server for port in ports.values()}
        known = remembered.get(server, {})
        chosen: dict[str, int] = {}
        for name in names:
            port = known.get(name)
            while port is None or port in others or port in chosen.values() or not _are_free(port, offsets):
                port = candidates.start + secrets.randbelow(len(candidates))
            chosen[name] = port
        if chosen != known:
            write_private(self._file, json.dumps({**self._read(), server: chosen}, indent=2))
        return chosen

    def _read(self) -> Mapping[str, dict[str, int]]:
        try:
            read: dict[str, dict[str, int]] = json.loads(self._file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return read


def _are_free(port: int, offsets: tuple[int, ...] = (0,)) -> bool:
    for offset in offsets:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port + offset))
            except OSError:
                return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads; a crash leaves the old content or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
