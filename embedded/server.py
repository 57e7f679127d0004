"""What the embedded servers have in common: a data folder, a log, ports, starting, stopping, recovering."""

import asyncio
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from embedded import launch, processes
from embedded.home import EmbeddedServerError, Home, Ports, write_private

_LONGEST_LOG = 20 * 1024**2
_TRANSIENT_SECONDS = 30.0


class Server(ABC):
    """One server over one data folder. Needs the `Home` to be locked while it runs."""

    title: ClassVar[str]
    setting: ClassVar[str]
    """The variable whose URL takes this server's place."""
    programs: ClassVar[frozenset[str]]
    port_names: ClassVar[tuple[str, ...]] = ("port",)
    port_candidates: ClassVar[range]
    port_offsets: ClassVar[tuple[int, ...]] = (0,)
    ready_line: ClassVar[str]
    """What the server writes once it listens; before that, whoever answers on its port is another program."""
    stop_signals: ClassVar[Sequence[tuple[signal.Signals, float]]]
    """What ends the server gently, and the seconds each signal gets; SIGKILL follows."""
    patience: ClassVar[float] = 120.0
    """Seconds a start may take; recovery after a crash is part of it."""

    def __init__(self, home: Home, folder: str) -> None:
        self._home = home
        self._name = folder
        self._process: asyncio.subprocess.Process | None = None
        self._begin = 0
        self.ports: Mapping[str, int] = {}

    @property
    def folder(self) -> Path:
        return self._home.path / self._name

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def _working_folders(self) -> Sequence[Path]:
        """Where processes of this server work, and nobody else's."""
        return (self.data,)

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def exited(self) -> int:
        """Wait for the running server to end; its exit status, negative for a signal."""
        if self._process is None:
            raise RuntimeError(f"{self.title} was not started")
        return await self._process.wait()

    async def start(self) -> None:
        """Start the server and wait until it serves. What an earlier start left running is ended first.

        A second start keeps the ports of the first, so that clients find the server again.
        Raises `EmbeddedServerError` with what to change.
        """
        if self.is_running:
            return
        try:
            await self._end_processes()
            self._prepare_folder()
            await self._prepare_data()
        except OSError as error:
            raise self._home.unusable(error) from error
        keep_ports = bool(self.ports)
        deadline = asyncio.get_running_loop().time() + _TRANSIENT_SECONDS
        while True:
            if not keep_ports:
                self.ports = Ports(self._home).choose(
                    self._name, self.port_names, self.port_candidates, offsets=self.port_offsets
                )
            said = await self._try_to_start()
            if said is None:
                return
            busy_port = self._is_about_a_busy_port(said)
            if not (busy_port or self._will_pass(said)):
                raise self._failure(said)
            if asyncio.get_running_loop().time() > deadline:
                raise self._port_is_taken() if busy_port else self._failure(said)
            await asyncio.sleep(0.3)

    async def stop(self) -> None:
        """Stop the server and everything it started; bounded in time."""
        if self._process is not None and self._process.returncode is None:
            for number, seconds in (*self.stop_signals, (signal.SIGKILL, 10.0)):
                try:
                    self._process.send_signal(number)
                    await asyncio.wait_for(self._process.wait(), seconds)
                    break
                except ProcessLookupError:
                    break
                except TimeoutError:
                    continue
        await self._end_processes()

    @abstractmethod
    async def _prepare_data(self) -> None:
        """Make the data folder and configuration where they are missing."""

    @abstractmethod
    def _command(self) -> tuple[str, Sequence[str], Mapping[str, str]]:
        """Who the server runs as (see `launch`), its command line and its environment."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether the server does its work now."""

    @abstractmethod
    def _version(self) -> str:
        """The version of the data that this server reads."""

    def _version_of_data(self) -> str | None:
        try:
            return (self.folder / "version").read_text().strip()
        except FileNotFoundError:
            return None

    def _is_about_a_busy_port(self, said: str) -> bool:
        return "address already in use" in said.lower()

    def _will_pass(self, said: str) -> bool:
        """Whether what kept the server from starting goes away when one waits."""
        return False

    async def _end_processes(self) -> None:
        await processes.end(
            lambda: [pid for folder in self._working_folders for pid in processes.working_in(folder, self.programs)],
            self.stop_signals,
        )

    def _prepare_folder(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        found, ours = self._version_of_data(), self._version()
        if found is None:
            write_private(self.folder / "version", f"{ours}\n")
        elif found != ours:
            raise EmbeddedServerError(
                f"{self.data} was written by {self.title} {found}, and this installation brings {self.title} {ours}. "
                f"Set HEADAI_HOME to another folder, or {self.setting} to a server that reads this data."
            )

    async def _try_to_start(self) -> str | None:
        """None once the server answers, else what it said before it ended."""
        identity, command, environment = self._command()
        with self._open_log() as log:
            self._begin = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *launched(identity, self.stop_signals[0][0], command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env={"PATH": os.defpath, "LC_ALL": "C", **environment},
                start_new_session=True,
            )
        deadline = asyncio.get_running_loop().time() + self.patience
        try:
            while self._process.returncode is None and asyncio.get_running_loop().time() < deadline:
                if self.ready_line in self._said() and await self._answers():
                    return None
                await asyncio.sleep(0.02)
        except BaseException:
            await self.stop()
            raise
        await self.stop()
        return self._said()

    def _open_log(self) -> BinaryIO:
        if self.log.exists() and self.log.stat().st_size > _LONGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.old"))
        return open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def _said(self) -> str:
        """What the server wrote since its last start."""
        with open(self.log, "rb") as log:
            log.seek(self._begin)
            return log.read().decode(errors="replace")

    def _port_is_taken(self) -> EmbeddedServerError:
        return EmbeddedServerError(
            f"{self.title} cannot listen on port {', '.join(map(str, self.ports.values()))}: another program has "
            f"taken it. End that program, or set {self.setting} to a server of your own."
        )

    def _failure(self, said: str) -> EmbeddedServerError:
        if "no space left on device" in said.lower():
            reason = f"the disk of HEADAI_HOME ({self._home.path}) is full. Make room, or set HEADAI_HOME elsewhere"
        else:
            last = "\n".join(f"  {line}" for line in said.strip().splitlines()[-8:])
            reason = f"the end of {self.log} says:\n{last}\nSet {self.setting} to use a server of your own"
        return EmbeddedServerError(f"{self.title} does not start: {reason}.")


def launched(identity: str, signal_number: signal.Signals, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` as `identity` and sends it the signal when this process dies."""
    script = os.path.abspath(launch.__file__)
    return [sys.executable, "-I", "-S", script, identity, str(int(signal_number)), str(os.getpid()), *command]
