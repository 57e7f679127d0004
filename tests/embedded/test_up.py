"""`headai up` from the outside: ready, watched, stopped, killed, and again."""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from embedded.processes import with_environment
from tests.embedded.conftest import running_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SIGN_IN = "mutation ($input: LoginInput!) { login(input: $input) { tokens { accessToken } errors { __typename } } }"


@dataclass
class Up:
    """A running `headai up` and the lines it has printed."""

    process: asyncio.subprocess.Process
    home: Path
    port: int
    lines: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def line(self, beginning: str) -> str:
        """The next line that begins like this."""
        assert self.process.stdout is not None
        async with asyncio.timeout(120):
            while printed := await self.process.stdout.readline():
                line = printed.decode().strip()
                self.lines.append(line)
                if line.startswith(beginning):
                    return line
        raise AssertionError(f"no line begins with {beginning!r}: {self.lines}")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit status; everything that was printed until then is in `lines`."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        rest, _ = await asyncio.wait_for(self.process.communicate(), 90)
        self.lines += [line for line in rest.decode().splitlines() if line]
        assert self.process.returncode is not None
        return self.process.returncode

    def parts(self) -> list[int]:
        """The API, the worker and what they started."""
        return with_environment("HEADAI_STACK", str(self.home))

    def part(self, command: str) -> int:
        (pid,) = [
            pid for pid in self.parts() if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(f"\0{command}\0".encode())
        ]
        return pid


@asynccontextmanager
async def up(home: Path, port: int, **settings: str) -> AsyncIterator[Up]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADAI_")}
    environment |= {"HEADAI_HOME": str(home), "HEADAI_PORT": str(port), "HEADAI_DEMO": "0", **settings}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headai", "up"),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    started = Up(process, home, port, [])
    try:
        yield started
    finally:
        await started.stop()


@pytest.fixture
def port() -> int:
    """Free now, and below those that outgoing connections get."""
    while True:
        candidate = 18000 + secrets.randbelow(2000)
        with suppress(OSError), socket.create_server(("127.0.0.1", candidate)):
            return candidate


async def test_it_starts_says_how_to_sign_in_and_stops_without_a_trace(home: Path, port: int) -> None:
    async with up(home, port) as stack:
        assert await stack.line("Head AI is ready") == f"Head AI is ready at {stack.url}"
        password = (await stack.line("Sign in as admin with the password")).rpartition(" ")[2]
        assert await _can_sign_in(stack.url, password)
        async with up(home, port) as second:
            assert await second.process.wait() == 1
        assert second.lines[0].startswith(f"Head AI already runs on {home} as process {stack.process.pid}. ")
        assert await stack.stop() == 0
        assert stack.parts() == []
        assert running_in(home) == []
    async with up(home, port) as stack:
        await stack.line("Head AI is ready")
        assert (await stack.line("Sign in as admin")).startswith("Sign in as admin; ")
        assert await _can_sign_in(stack.url, password)
        assert await stack.stop(signal.SIGINT) == 0


async def test_every_part_that_is_killed_comes_back(home: Path, port: int) -> None:
    async with up(home, port, HEADAI_ADMIN_PASSWORD="correct horse battery") as stack:
        await stack.line("Logs are in")
        for part in ("API", "Worker"):
            os.kill(stack.part({"API": "api", "Worker": "worker"}[part]), signal.SIGKILL)
            assert await stack.line(part) == f"{part} ended (killed by SIGKILL); starting it again"
            assert await stack.line(part) == f"{part} is up again"
        for server in ("PostgreSQL", "Valkey", "SeaweedFS"):
            os.kill(_main_process(home, server), signal.SIGKILL)
            assert await stack.line(server) == f"{server} ended (killed by SIGKILL); starting it again"
            assert await stack.line(server) == f"{server} is up again"
        await _until_ready(stack)
        assert await _can_sign_in(stack.url, "correct horse battery")


async def test_after_a_kill_of_everything_the_next_start_has_it_all(home: Path, port: int) -> None:
    async with up(home, port, HEADAI_ADMIN_PASSWORD="correct horse battery") as stack:
        await stack.line("Logs are in")
        for pid in (stack.process.pid, *stack.parts(), *running_in(home)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    async with up(home, port, HEADAI_ADMIN_PASSWORD="another horse battery") as stack:
        await stack.line("Logs are in")
        assert await _can_sign_in(stack.url, "correct horse battery")


async def test_what_outlives_a_killed_supervisor_is_ended_by_the_next_start(home: Path, port: int) -> None:
    async with AsyncExitStack() as stopped, up(home, port) as stack:
        await stack.line("Logs are in")
        left = [stack.part("api"), stack.part("worker")]
        for pid in left:
            os.kill(pid, signal.SIGSTOP)
            stopped.callback(_continue, pid)
        os.kill(stack.process.pid, signal.SIGKILL)
        await stack.process.wait()
        async with up(home, port) as again:
            await again.line("Head AI is ready")
            assert "Ended what an earlier start had left running." in again.lines
            assert not set(left) & set(again.parts())


async def test_a_busy_port_names_its_setting(home: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        async with up(home, port) as stack:
            assert await stack.process.wait() == 1
    assert stack.lines[-1] == (
        f"The API was to listen on 127.0.0.1:{port}, but another program listens on 127.0.0.1:{port}. "
        "End it, or set HEADAI_PORT to a free port."
    )


async def _can_sign_in(url: str, password: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        variables = {"input": {"username": "admin", "password": password}}
        answer = await client.post(f"{url}/graphql", json={"query": SIGN_IN, "variables": variables})
    login = answer.json()["data"]["login"]
    return login["errors"] == [] and login["tokens"] is not None


async def _until_ready(stack: Up) -> None:
    seen = "no answer"
    try:
        async with asyncio.timeout(150), httpx.AsyncClient(trust_env=False, timeout=5) as client:
            while not seen.startswith("200"):
                try:
                    answer = await client.get(f"{stack.url}/readyz")
                    seen = f"{answer.status_code} {answer.text}"
                except httpx.TransportError as error:  # a part that was just started takes a while until it listens
                    seen = repr(error)
                await asyncio.sleep(0.1)
    except TimeoutError:
        log = (stack.home / "api.log").read_text()[-3000:]
        raise AssertionError(f"never ready: {seen}\n{stack.lines}\n{log}") from None


def _main_process(home: Path, server: str) -> int:
    """The one whose parent is the supervisor: PostgreSQL has children of its own."""
    folder = {"PostgreSQL": "postgres", "Valkey": "valkey", "SeaweedFS": "seaweed"}[server]
    pids = [pid for pid in running_in(home) if os.readlink(f"/proc/{pid}/cwd").startswith(str(home / folder))]
    (pid,) = [pid for pid in pids if _parent(pid) not in pids]
    return pid


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _continue(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
