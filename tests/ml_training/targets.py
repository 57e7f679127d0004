"""Functions that children run in the tests of processes: well-behaved, failing, dying, hanging, greedy."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from ml.children import Control
from ml.messages import DataProblem, Phase


def add(a: int, b: int) -> int:
    return a + b


def pid() -> int:
    return os.getpid()


def environment() -> dict[str, str]:
    return dict(os.environ)


def modules() -> list[str]:
    return sorted(sys.modules)


def fail() -> None:
    raise ZeroDivisionError("by zero")


def refuse() -> None:
    raise DataProblem("no good", ("input", "spec", "target"))


def die() -> None:
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def crash(*_: Any) -> None:
    os.abort()


def leave(code: int) -> None:
    os._exit(code)


def hang() -> None:
    time.sleep(600)


def spin() -> None:
    while True:
        pass


def grow(megabytes: int) -> int:
    held = []
    for _ in range(megabytes):
        held.append(os.urandom(1) * 2**20)
        time.sleep(0.001)
    return len(held)


def grow_at_once() -> int:
    return len(bytearray(2**40))


def sneak() -> Any:
    class Sneaky:
        def __reduce__(self) -> Any:
            return os.system, ("true",)

    return Sneaky()


def count_until_stopped(control: Control) -> tuple[int, str]:
    count = 0
    while (asked := control.stop()) is None:
        control.report(Phase("counting", None))
        count += 1
        time.sleep(0.01)
    return count, asked.value


def write_lines(control: Control) -> None:
    sys.stdout.write("to stdout\n")
    sys.stderr.write("to stderr\n")
    control.report(Phase("written", 1.0))
    sys.stdout.flush()


def spawn_and_hang(control: Control) -> None:
    import subprocess

    grandchild = subprocess.Popen(["sleep", "600"])
    control.report(Phase(str(grandchild.pid), None))
    time.sleep(600)
