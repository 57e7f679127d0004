"""`headai up`: every part of Head AI on this machine, started in order, watched, and stopped in order."""

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Protocol

import httpx
from rich.console import Console

from embedded import processes
from embedded.server import Server, launched
from embedded.servers import EmbeddedServerError, EmbeddedStack
from headai.serving import listen
from headai.settings import Settings, SettingsError, StackSettings

_MARK = "HEADAI_STACK"
"""In the environment of every process of a stack: the home it belongs to."""
_READY_SECONDS = 90.0
_LONGEST_PAUSE = 5.0
_STEADY_SECONDS = 60.0
_LONGEST_LOG = 20 * 1024**2


class StackError(Exception):
    """The stack cannot start; the message says why."""


class Watched(Protocol):
    """What the stack keeps alive: an embedded server, the API, a worker."""

    @property
    def title(self) -> str: ...
    @property
    def log(self) -> Path: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def exited(self) -> int: ...


class Part:
    """A `headai` command as a process of its own that writes to a log file and ends with this process."""

    def __init__(self, title: str, command: str, settings: Settings, *, drain_seconds: float) -> None:
        self.title = title
        self.log = settings.home / f"{command}.log"
        self._command = command
        self._drain_seconds = drain_seconds
        self._environment = settings.environment() | {_MARK: str(settings.home)}
        self._environment.pop("HEADAI_ADMIN_PASSWORD", None)
        # There is no other process that clients could go to, and nobody likes to wait after Ctrl-C.
        self._environment["HEADAI_DRAIN_TIME"] = "0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                *launched("same", signal.SIGTERM, (sys.executable, "-m", "headai", self._command)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL when it has not drained in its time."""
        if self._process is None or self._process.returncode is not None:
            return
        for number, seconds in ((signal.SIGTERM, self._drain_seconds), (signal.SIGKILL, 10.0)):
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), seconds)
                return

    async def exited(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    def _open_log(self) -> BinaryIO:
        if self.log.exists() and self.log.stat().st_size > _LONGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.old"))
        return open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def run_stack(settings: StackSettings) -> int:
    """Run until Ctrl-C, SIGTERM or a closed terminal; the exit status.

    What keeps the stack from starting is printed as one message that names the setting to change.
    """
    return asyncio.run(_until_told_to_stop(Stack(settings)))


async def _until_told_to_stop(stack: "Stack") -> int:
    try:
        stack.hold()
    except EmbeddedServerError as error:
        stack.complain(str(error))
        return 1
    running = asyncio.create_task(stack.run())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    complaint: Exception | None = None
    try:
        await running
    except asyncio.CancelledError:
        pass
    except (EmbeddedServerError, SettingsError, StackError) as error:
        complaint = error
    finally:
        await stack.stop()
    if complaint is not None:
        stack.complain(str(complaint))
    return 0 if complaint is None else 1


class Stack:
    def __init__(self, settings: StackSettings) -> None:
        self._given = settings
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._began = time.monotonic()
        self._servers = EmbeddedStack(
            settings.home,
            want_postgres=settings.database_url is None,
            want_valkey=settings.redis_url is None,
            want_seaweed=not settings.has_store,
        )
        self._parts: list[Part] = []
        self._settings: Settings | None = None
        self._demo: asyncio.subprocess.Process | None = None

    def say(self, line: str) -> None:
        self._console.print(line)

    def complain(self, message: str) -> None:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(message, style="red")

    def hold(self) -> None:
        """Take the home, until `stop()`. Raises `EmbeddedServerError` when another stack has it."""
        self._servers.hold()

    async def run(self) -> None:
        """Start everything, say so, and keep it running until this task is cancelled."""
        settings, password = await self._start()
        everything: list[Watched] = [*self._servers.servers, *self._parts]
        async with asyncio.TaskGroup() as group:
            for watched in everything:
                group.create_task(self._keep_alive(watched))
            if password is not None and settings.demo:
                group.create_task(self._run_demo(settings, password))

    async def _start(self) -> tuple[Settings, str | None]:
        """The settings everything runs with, and the administrator's password if this start made the account."""
        await self._end_leftovers()
        listen(self._given).close()
        self.say(f"Starting Head AI in {self._given.home}")
        loading = asyncio.create_task(asyncio.to_thread(_load_libraries))
        await self._step("Servers", self._servers.start(self._server_started), quiet=True)
        settings = self._settings = self._completed()
        await loading
        await self._step("Object store", _ensure_bucket(settings))
        await self._step("Database tables", _migrate(settings))
        settings.announce_services()
        self._parts = [
            Part("API", "api", settings, drain_seconds=20),
            Part("Worker", "worker", settings, drain_seconds=40),
        ]
        for part in self._parts:
            await part.start()
        await self._step("API and worker", self._until_ready(settings, self._parts[0]))
        # Last, so that a password that was made up is never lost with a start that failed.
        password = await _ensure_administrator(settings)
        self._welcome(settings, password)
        return settings, password

    def _completed(self) -> Settings:
        services: dict[str, str] = {}
        if self._given.database_url is None:
            services["database_url"] = self._servers.database_url
        if self._given.redis_url is None:
            services["redis_url"] = self._servers.redis_url
        if not self._given.has_store:
            store = self._servers.s3
            services |= {
                "s3_endpoint_url": store.endpoint_url,
                "s3_region": store.region,
                "s3_access_key": store.access_key,
                "s3_secret_key": store.secret_key,
            }
        return self._given.completed(**services)

    async def _end_leftovers(self) -> None:
        """What a stack on this home left running when it was killed."""
        mark = str(self._given.home)
        if await processes.end(lambda: processes.with_environment(_MARK, mark), ((signal.SIGTERM, 20.0),)):
            self.say("Ended what an earlier start had left running.")

    def _server_started(self, server: Server) -> None:
        self.say(f"  {server.title} is up")

    async def _step(self, title: str, work: Awaitable[None], *, quiet: bool = False) -> None:
        with self._console.status(f"{title} …"):
            await work
        if not quiet:
            self.say(f"  {title}: done")

    async def _until_ready(self, settings: Settings, api: Part) -> None:
        url = f"{_base_url(settings)}/readyz"
        ended = asyncio.create_task(api.exited())
        deadline = time.monotonic() + _READY_SECONDS
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
                while time.monotonic() < deadline and not ended.done():
                    with suppress(httpx.HTTPError):
                        if (await client.get(url)).status_code == 200:
                            return
                    await asyncio.wait([ended], timeout=0.1)
        finally:
            ended.cancel()
        said = "\n".join(f"  {line}" for line in _last_lines(api.log, 12))
        raise StackError(f"The API does not become ready; the end of {api.log} says:\n{said}")

    def _welcome(self, settings: Settings, password: str | None) -> None:
        url = _base_url(settings)
        self.say("")
        self.say(f"Head AI is ready at {url}")
        self.say(f"  GraphiQL: {url}/graphql (started in {time.monotonic() - self._began:.1f} s)")
        if password is not None and settings.admin_password is None:
            self.say(f"  Sign in as admin with the password {password}")
            self.say(f"  It is not shown again; `{_command()} admin set-password admin` sets another one.")
        elif password is not None:
            self.say("  Sign in as admin with the password in HEADAI_ADMIN_PASSWORD")
        else:
            self.say(f"  Sign in as admin; `{_command()} admin set-password admin` sets a password you forgot")
        self.say(f"  Logs are in {settings.home}; Ctrl-C stops everything.")
        self.say("")

    async def _keep_alive(self, watched: Watched) -> None:
        pause = 0.5
        while True:
            began = time.monotonic()
            status = await watched.exited()
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = 0.5
            reason = f": {''.join(_last_lines(watched.log, 1)).strip()}" if status > 0 else ""
            self.say(f"{watched.title} ended ({_how(status)}{reason}); starting it again")
            while True:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                try:
                    await watched.start()
                except (EmbeddedServerError, OSError) as error:
                    self.say(f"{watched.title}: {error} Trying again in {pause:.0f} s.")
                else:
                    self.say(f"{watched.title} is up again")
                    break

    async def _run_demo(self, settings: Settings, password: str) -> None:
        self.say("The demo: upload, train, register and predict through the public API (HEADAI_DEMO=0 leaves it out)")
        command = (sys.executable, "-m", "headai", "demo", "--url", _base_url(settings))
        self._demo = await asyncio.create_subprocess_exec(
            *launched("same", signal.SIGTERM, command),
            stdin=asyncio.subprocess.DEVNULL,
            env=settings.environment() | {_MARK: str(settings.home), "HEADAI_ADMIN_PASSWORD": password},
            start_new_session=True,
        )
        if status := await self._demo.wait():
            self.say(
                f"The demo did not work out ({_how(status)}). Head AI runs on; `{_command()} demo` tries it again."
            )

    async def stop(self) -> None:
        """The demo, then API and worker, which drain, then the servers they need; bounded in time."""
        was_up = bool(self._parts) or any(server.is_running for server in self._servers.servers)
        if was_up:
            self.say("Stopping …")
        if self._demo is not None and self._demo.returncode is None:
            with suppress(ProcessLookupError):
                self._demo.terminate()
        await asyncio.gather(*(part.stop() for part in self._parts))
        await processes.end(lambda: processes.with_environment(_MARK, str(self._given.home)), ((signal.SIGTERM, 5.0),))
        await self._servers.stop()
        if self._settings is not None:
            self._settings.withdraw_services()
        if was_up:
            self.say("Stopped.")


def _load_libraries() -> None:
    """While the servers start: what the steps after them need takes a second to import."""
    for module in ("headai.administration", "headai.migrating", "storage.objects"):
        import_module(module)


async def _ensure_bucket(settings: Settings) -> None:
    from storage.objects import ObjectStore, StoreUnavailable

    try:
        async with ObjectStore.open(settings.store()) as store:
            await store.ensure_bucket()
    except StoreUnavailable as error:
        raise StackError(f"The object store cannot be used: {error}. See HEADAI_S3_ENDPOINT_URL.") from error


async def _migrate(settings: Settings) -> None:
    from headai.migrating import migrate

    await asyncio.to_thread(migrate, settings)


async def _ensure_administrator(settings: Settings) -> str | None:
    from headai.administration import ensure_administrator

    given = settings.admin_password
    return await ensure_administrator(settings, given.get_secret_value() if given else None)


def _command() -> str:
    """How to call `headai` from here."""
    beside = Path(sys.executable).with_name("headai")
    shown = beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside
    return shlex.quote(str(shown))


def _base_url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{settings.port}"


def _last_lines(log: Path, count: int) -> list[str]:
    return log.read_text("utf-8", errors="replace").splitlines()[-count:]


def _how(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
