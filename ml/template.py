"""The warm process that learning children are forked from, so that a child starts in milliseconds.

Run as `python -m ml.template <fd>`; `ml.processes` starts it and holds the other end of the socket `fd`. It imports the
learning stack once and never uses it: no thread of OpenMP or OpenBLAS is alive when it forks. LightGBM is imported as
if scikit-learn were absent (its documented optional dependency), which saves a second and 60 MB.

Protocol, one JSON object a datagram: `{"fork": id, "limits": {...}}` with three descriptors (the child's channel, the
write ends of the pipes for its stdout and stderr) → `{"forked": id, "pid": n}`; `{"kill": id}`;
`{"exited": id, "status": n, "over": bool}` where `status` is that of waitpid and `over` says that the child was killed
for using more than its memory limit.
When the socket closes the template kills its children and ends; when the template dies the kernel kills the children.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any

PRELOADED = (
    "numpy",
    "lightgbm",
    "pyarrow",
    "pyarrow.compute",
    "pyarrow.parquet",
    "orjson",
    "ml.training",
    "ml.scoring",
)
_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.1
_PAGE = resource.getpagesize()
_DATA_SLACK = 512 * 2**20
"""Room in RLIMIT_DATA beyond the limit on resident memory: stacks and arenas that are reserved and never touched."""


def preload() -> None:
    """Import the learning stack without starting a thread."""
    absent = [name for name in ("sklearn", "pandas", "matplotlib", "graphviz", "dask") if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        for name in PRELOADED:
            importlib.import_module(name)
    finally:
        for name in absent:
            del sys.modules[name]


def main(control_fd: int) -> None:
    control = socket.socket(fileno=control_fd)
    preload()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, tuple[str, int | None]] = {}
    over: set[int] = set()
    try:
        while True:
            timeout = _WATCH_SECONDS if any(limit for _, limit in children.values()) else None
            ready = select.select([control.fileno(), wake_read], [], [], timeout)[0]
            if wake_read in ready:
                with suppress(BlockingIOError):
                    os.read(wake_read, 4096)
            if control.fileno() in ready and not _serve(control, children, (wake_read, wake_write)):
                return
            _watch_memory(children, over)
            _reap(control, children, over)
    finally:
        for pid in children:
            _kill(pid)


def _serve(control: socket.socket, children: dict[int, tuple[str, int | None]], wake: tuple[int, int]) -> bool:
    """Handle one message of the parent; False when it has gone."""
    message, descriptors, _, _ = socket.recv_fds(control, 65536, 3)
    if not message:
        return False
    request: dict[str, Any] = json.loads(message)
    if "kill" in request:
        for pid, (child_id, _) in children.items():
            if child_id == request["kill"]:
                _kill(pid)
        return True
    template = os.getpid()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            control.close()
            for fd in wake:
                os.close(fd)
            _become_child(template, descriptors, request["limits"])
        os._exit(70)
    for fd in descriptors:
        os.close(fd)
    limit = request["limits"].get("memory_mb")
    children[pid] = (request["fork"], limit * 2**20 if limit else None)
    _send(control, {"forked": request["fork"], "pid": pid})
    return True


def _watch_memory(children: dict[int, tuple[str, int | None]], over: set[int]) -> None:
    for pid, (_, limit) in children.items():
        if limit and pid not in over and _resident(pid) > limit:
            over.add(pid)
            _kill(pid)


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _reap(control: socket.socket, children: dict[int, tuple[str, int | None]], over: set[int]) -> None:
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _kill_group(pid)
        child_id, _ = children.pop(pid)
        _send(control, {"exited": child_id, "status": status, "over": pid in over})
        over.discard(pid)


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):
        control.send(json.dumps(message).encode())


def _kill(pid: int) -> None:
    _kill_group(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    """The rest of the child's process group, which carries the child's number while any of it lives."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _become_child(template: int, descriptors: list[int], limits: dict[str, Any]) -> None:
    """Never returns: serve the calls that arrive on the channel, then exit."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != template:
        os._exit(0)
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(100_000, 50, 50)
    channel, stdout, stderr = descriptors
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.get("memory_mb"):
        ceiling = _data_size() + limits["memory_mb"] * 2**20 + _DATA_SLACK
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    if limits.get("cpu_seconds"):
        seconds = int(limits["cpu_seconds"])
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    if limits.get("nice"):
        os.nice(limits["nice"])
    channel_socket = socket.socket(fileno=channel)
    from ml.children import serve

    try:
        serve(channel_socket)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _data_size() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[5]) * _PAGE


if __name__ == "__main__":
    main(int(sys.argv[1]))
