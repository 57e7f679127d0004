"""Processes of a server that are still there from an earlier start, and ending them.

A process is ours when it runs the server's program and works in the server's data folder; a process number
written down somewhere may by now be somebody else's.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path


def working_in(folder: Path, programs: Collection[str]) -> list[int]:
    """Process numbers of `programs` (names of executables) whose working folder is `folder`."""
    return [pid for pid in _all() if _works_in(pid, folder, programs)]


def with_environment(name: str, value: str) -> list[int]:
    """Process numbers, without the caller's own, that were started with `name=value` in their environment."""
    entry = f"{name}={value}".encode()
    return [pid for pid in _all() if pid != os.getpid() and entry in _environment(pid)]


async def end(
    find: Callable[[], list[int]], steps: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 10.0),)
) -> bool:
    """Send each signal of `steps` to what `find` finds, waiting up to its seconds; SIGKILL is the last resort.

    Answers whether there was anything to end. Raises `TimeoutError` when something survives SIGKILL for 10 s.
    """
    found = find()
    if not found:
        return False
    for number, patience in (*steps, (signal.SIGKILL, 10.0)):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = asyncio.get_running_loop().time() + patience
        while found and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
            found = find()
        if not found:
            return True
    raise TimeoutError(f"processes {found} do not end")


def _all() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _works_in(pid: int, folder: Path, programs: Collection[str]) -> bool:
    try:
        program = Path(os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")).name
        return program in programs and os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except PermissionError:
        # Another user's process: a server that we started as nobody. Its command names its data folder.
        with suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return Path(os.fsdecode(arguments[0])).name in programs and os.fsencode(folder) in arguments
        return False
    except OSError:
        return False


def _environment(pid: int) -> list[bytes]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return []
