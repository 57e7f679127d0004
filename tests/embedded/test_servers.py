"""The embedded servers start, keep what is written to them, and recover from being killed."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import embedded.server
from embedded.postgres import Identity
from embedded.processes import working_in
from embedded.servers import EmbeddedServerError, EmbeddedStack, Server
from embedded.valkey import Valkey
from tests.embedded.conftest import NOTHING, WRITTEN, read, running_in, write


async def test_data_ports_and_passwords_stay_from_one_start_to_the_next(home: Path) -> None:
    async with EmbeddedStack(home) as servers:
        await write(servers)
        before = (servers.database_url, servers.redis_url, servers.s3)
    assert running_in(home) == []
    async with EmbeddedStack(home) as servers:
        assert (servers.database_url, servers.redis_url, servers.s3) == before
        assert await read(servers) == WRITTEN


async def test_only_the_wanted_servers_start(home: Path) -> None:
    async with EmbeddedStack(home, want_postgres=False, want_seaweed=False) as servers:
        assert [server.title for server in servers.servers] == ["Valkey"]
        assert sorted(os.listdir(home)) == ["lock", "ports.json", "valkey"]


@pytest.mark.slow
async def test_a_killed_server_comes_back_on_its_ports_with_everything(home: Path) -> None:
    async with EmbeddedStack(home) as servers:
        await write(servers)
        for server in servers.servers:
            ports = dict(server.ports)
            await _kill(server)
            assert not server.is_running
            await server.start()
            assert server.ports == ports, server.title
            assert await read(servers) == WRITTEN, server.title


@pytest.mark.slow
async def test_everything_killed_at_once_comes_back_at_the_next_start(home: Path) -> None:
    servers = EmbeddedStack(home)
    await servers.start()
    await write(servers)
    for server in servers.servers:
        await _kill(server)
    await servers.stop()
    async with EmbeddedStack(home) as again:
        assert await read(again) == WRITTEN


@pytest.mark.slow
async def test_two_stacks_run_side_by_side(home: Path, tmp_path: Path) -> None:
    async with EmbeddedStack(home) as one, EmbeddedStack(tmp_path / "other") as other:
        await write(one)
        await write(other, NOTHING)
        assert await read(one) == WRITTEN
        assert await read(other) == NOTHING


async def test_a_home_belongs_to_one_stack_at_a_time(home: Path) -> None:
    async with EmbeddedStack(home, want_postgres=False, want_seaweed=False):
        with pytest.raises(EmbeddedServerError) as refused:
            EmbeddedStack(home).hold()
    assert str(refused.value) == (
        f"Head AI already runs on {home} as process {os.getpid()}. "
        "Stop it first, or set HEADAI_HOME to another folder (and HEADAI_PORT to another port)."
    )


@pytest.mark.parametrize(
    ("name", "title", "variable"),
    [
        ("postgres", "PostgreSQL", "HEADAI_DATABASE_URL"),
        ("valkey", "Valkey", "HEADAI_REDIS_URL"),
        ("seaweed", "SeaweedFS", "HEADAI_S3_ENDPOINT_URL"),
    ],
)
async def test_data_of_another_version_is_left_alone(home: Path, name: str, title: str, variable: str) -> None:
    marker = home / name / ("data/PG_VERSION" if name == "postgres" else "version")
    marker.parent.mkdir(parents=True)
    marker.write_text("3\n")
    with pytest.raises(EmbeddedServerError) as refused:
        await EmbeddedStack(home).start()
    message = str(refused.value)
    assert message.startswith(f"{home / name / 'data'} was written by {title} 3, and this installation brings {title} ")
    assert message.endswith(f"Set HEADAI_HOME to another folder, or {variable} to a server that reads this data.")
    assert marker.read_text() == "3\n"


@pytest.mark.slow
async def test_a_port_that_somebody_took_is_chosen_anew_and_the_data_stays(home: Path) -> None:
    async with EmbeddedStack(home) as servers:
        await write(servers)
        ports = [port for server in servers.servers for port in server.ports.values()]
    listeners = [socket.create_server(("127.0.0.1", port)) for port in ports]
    try:
        async with EmbeddedStack(home) as servers:
            assert not {port for server in servers.servers for port in server.ports.values()} & set(ports)
            assert await read(servers) == WRITTEN
    finally:
        for listener in listeners:
            listener.close()


async def test_a_restart_keeps_its_port_and_says_who_cannot_have_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded.server, "_TRANSIENT_SECONDS", 0)
    async with EmbeddedStack(home, want_postgres=False, want_seaweed=False) as servers:
        (valkey,) = servers.servers
        await _kill(valkey)
        port = valkey.ports["port"]
        with socket.create_server(("127.0.0.1", port)), pytest.raises(EmbeddedServerError) as refused:
            await valkey.start()
        assert str(refused.value) == (
            f"Valkey cannot listen on port {port}: another program has taken it. "
            "End that program, or set HEADAI_REDIS_URL to a server of your own."
        )
        await valkey.start()
        assert valkey.ports == {"port": port}


async def test_a_home_that_cannot_be_written_names_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServerError) as refused:
        EmbeddedStack(tmp_path / "file" / "home").hold()
    assert str(refused.value) == (
        f"HEADAI_HOME is {tmp_path / 'file' / 'home'}, and that folder cannot be used: Not a directory. "
        "Set HEADAI_HOME to a folder you may write to, on a disk with room."
    )


def test_a_full_disk_names_its_setting(tmp_path: Path) -> None:
    """On a file system of 64 MiB, mounted where only the child process sees it."""
    hold = "import sys, pathlib; from embedded.servers import EmbeddedStack as S; S(pathlib.Path(sys.argv[1])).hold()"
    mount = 'mount -t tmpfs -o size=64m none "$1" || exit 99; exec "$2" -c "$3" "$1"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    try:
        ended = subprocess.run([*command, "-", tmp_path, sys.executable, hold], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if ended.returncode == 99 or "unshare" in ended.stderr:
        pytest.skip("this machine allows no user namespaces")
    assert ended.stderr.splitlines()[-1] == (
        f"embedded.home.EmbeddedServerError: HEADAI_HOME is {tmp_path}, and its disk is full: 63 MiB are left and "
        "at least 256 are needed. Make room, or set HEADAI_HOME to a folder on another disk."
    )


@pytest.mark.slow
async def test_servers_end_with_the_process_that_started_them(home: Path) -> None:
    supervisor = await _supervise(home)
    assert running_in(home) != []
    supervisor.kill()
    await supervisor.wait()
    async with asyncio.timeout(20):
        while running_in(home):  # noqa: ASYNC110 - other people's processes set no event
            await asyncio.sleep(0.05)
    async with EmbeddedStack(home) as servers:
        assert await read(servers) == WRITTEN


@pytest.mark.slow
async def test_what_a_killed_stack_left_running_is_ended_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process cannot act on the signal that its parent's death sends."""
    monkeypatch.setattr(Valkey, "stop_signals", ((signal.SIGTERM, 0.2),))
    supervisor = await _supervise(home)
    (left,) = working_in(home / "valkey/data", ["valkey-server"])
    os.kill(left, signal.SIGSTOP)
    supervisor.kill()
    await supervisor.wait()
    async with EmbeddedStack(home) as servers:
        assert await read(servers) == WRITTEN
        assert left not in running_in(home)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
@pytest.mark.parametrize("identity", ["namespace", "nobody"])
async def test_root_runs_postgresql_without_being_root(home: Path, identity: Identity) -> None:
    turns: tuple[Identity, ...] = (identity, "namespace", identity)
    for now in turns:
        async with EmbeddedStack(home, want_valkey=False, want_seaweed=False, postgres_identity=now) as servers:
            capabilities = _capabilities(servers.servers[0])
            assert capabilities == {"namespace": 0, "nobody": 1 << 1}[now], "at most reading files of others"


async def test_secrets_are_their_owners_and_ports_leave_room_for_their_twins(home: Path) -> None:
    async with EmbeddedStack(home):
        ports = json.loads((home / "ports.json").read_text())
    for secret in ("postgres/password", "valkey/password", "valkey/valkey.conf", "seaweed/password", "seaweed/s3.json"):
        assert stat.filemode(os.stat(home / secret).st_mode) == "-rw-------", secret
    assert stat.filemode(os.stat(home).st_mode) == "drwx------"
    chosen = [port for server in ports.values() for port in server.values()]
    assert len(set(chosen)) == 7
    assert all(20000 <= port < 30000 for port in chosen)
    assert all(port + 10_000 < 32768 for port in ports["seaweed"].values()), "below the ports of outgoing connections"


@pytest.mark.slow
async def test_a_start_that_is_cancelled_leaves_nothing_running(home: Path) -> None:
    servers = EmbeddedStack(home)
    first = asyncio.Event()
    starting = asyncio.create_task(servers.start(lambda server: first.set()))
    await first.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert running_in(home) == []
    async with EmbeddedStack(home) as again:
        await write(again)
        assert await read(again) == WRITTEN


async def test_a_lost_password_file_is_told(home: Path) -> None:
    async with EmbeddedStack(home, want_valkey=False, want_seaweed=False):
        pass
    (home / "postgres/password").unlink()
    with pytest.raises(EmbeddedServerError, match=r"is not the password of .*postgres/data"):
        await EmbeddedStack(home, want_valkey=False, want_seaweed=False).start()


def _capabilities(server: Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)


async def _kill(server: Server) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert await server.exited() == -signal.SIGKILL


async def _supervise(home: Path) -> asyncio.subprocess.Process:
    """Another process that starts the servers, writes to them and waits."""
    script = (
        "import asyncio, sys, pathlib\n"
        "from embedded.servers import EmbeddedStack\n"
        "from tests.embedded.conftest import write\n"
        "async def main():\n"
        "    async with EmbeddedStack(pathlib.Path(sys.argv[1])) as servers:\n"
        "        await write(servers)\n"
        "        print('written', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(home), stdout=asyncio.subprocess.PIPE, cwd=root
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"written\n"
    return process
