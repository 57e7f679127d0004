"""The one way to run learning work outside the calling process: fresh children for jobs, warm ones for predictions.

    template = Template()                                    # one a process; starts at the first use, or by start()
    run = await template.run("ml.training:train_in_child", job, controlled=True, on_message=print)
    run.stop(Stop.KEEP_BEST)
    result = await run.result()

    pool = ChildPool(template)
    outputs = await pool.score(folder, sha256, rows, probabilities=True)

Whatever happens to a child, the parent gets an exception and goes on. A child is killed with its process group when it
passes a limit, when the caller is cancelled, and when the parent or the template dies. Everything here belongs to one
event loop (asyncio's or uvloop's) and imports none of the learning stack.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from ml.children import Call, Raised, Returned, Said, dump, load
from ml.messages import LogLine, ResourceUsage, Stop

_LENGTH = struct.Struct("<I")
_TAIL_LINES = 50
_LINE_CHARACTERS = 16_384
_FRAME_LIMIT = 512 * 2**20
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")

OnMessage = Callable[[Any], None]


class ChildFailure(Exception):
    """A child did not return; the class says why, `output` is the end of what it wrote."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class ChildRaised(ChildFailure):
    """The function raised an exception that is not one of `ml` (those are raised as they are)."""

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        super().__init__(f"{type_name}: {message}", traceback)
        self.type_name = type_name
        self.traceback = traceback


class ChildDied(ChildFailure):
    """The process ended by itself; `signal` or `exit_code` says how."""

    def __init__(self, *, exit_code: int | None, signal_number: int | None, output: str) -> None:
        how = f"exit code {exit_code}" if signal_number is None else signal.Signals(signal_number).name
        super().__init__(f"The child process died with {how}.", output)
        self.exit_code = exit_code
        self.signal = signal_number


class OutOfMemory(ChildFailure):
    """The child needed more memory than its limit."""


class TimedOut(ChildFailure):
    """The child took longer than its wall-clock or CPU limit."""


class Killed(ChildFailure):
    """The child was killed on request."""


def _reference(target: str | Callable[..., Any]) -> str:
    if isinstance(target, str):
        return target
    if "." in target.__qualname__:
        raise ValueError(f"{target.__qualname__} must be a function of a module.")
    return f"{target.__module__}:{target.__qualname__}"


class Template:
    """The warm process children are forked from; started in the background, and again when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._children: dict[str, Child] = {}
        self._count = 0
        self._closed = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process unless it runs; returns at once, it warms up in the background."""
        if self._closed:
            raise RuntimeError("This template was closed.")
        if self._process is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {
            "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads that spin took 2 to 5 times as long on busy cores
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONUNBUFFERED": "1",
        }
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 our own interpreter and module
                [sys.executable, "-m", "ml.template", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    async def close(self) -> None:
        """End the template and every child."""
        self._closed = True
        self._end()

    async def run(
        self,
        target: str | Callable[..., Any],
        *args: Any,
        controlled: bool = False,
        memory_limit_mb: int | None = None,
        cpu_seconds: int | None = None,
        wall_timeout: float | None = None,
        nice: int = 0,
        on_message: OnMessage | None = None,
        sample_seconds: float | None = None,
    ) -> ChildRun:
        """Run a function in a child of its own.

        `target` is a function of a module, or `"module:function"`; with `controlled` it is called with a
        `ml.children.Control` first. `on_message` gets what the function reports, a `LogLine` for every line the child
        writes and, every `sample_seconds`, a `ResourceUsage`; it must return quickly.
        """
        child = await self.fork(
            memory_limit_mb=memory_limit_mb, cpu_seconds=cpu_seconds, nice=nice, on_message=on_message
        )
        call = Call(_reference(target), args, controlled)
        return ChildRun(child, child.begin(call), wall_timeout, sample_seconds)

    async def fork(
        self,
        *,
        memory_limit_mb: int | None = None,
        cpu_seconds: int | None = None,
        nice: int = 0,
        on_message: OnMessage | None = None,
    ) -> Child:
        """A child that waits for calls."""
        self.start()
        assert self._control is not None
        self._count += 1
        child_id = f"{os.getpid()}-{self._count}"
        child = Child(self, child_id, memory_limit_mb, on_message)
        ours, theirs = socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        limits = {"memory_mb": memory_limit_mb, "cpu_seconds": cpu_seconds, "nice": nice}
        request = json.dumps({"fork": child_id, "limits": limits}).encode()
        self._children[child_id] = child
        try:
            await child.connect(ours, out_read, err_read)
            socket.send_fds(self._control, [request], [theirs.fileno(), out_write, err_write])
        except (BrokenPipeError, ConnectionResetError):
            self._end()
        finally:
            theirs.close()
            os.close(out_write)
            os.close(err_write)
        try:
            await asyncio.shield(child.forked)
        except asyncio.CancelledError:
            child.kill()
            raise
        return child

    def kill(self, child_id: str) -> None:
        if self._control is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._control.send(json.dumps({"kill": child_id}).encode())

    def _read(self) -> None:
        assert self._control is not None
        while True:
            try:
                message = self._control.recv(65536)
            except BlockingIOError:
                return
            except ConnectionResetError:
                message = b""
            if not message:
                self._end()
                return
            event = json.loads(message)
            if "forked" in event:
                child = self._children.get(event["forked"])
                if child is not None:
                    child.was_forked(event["pid"])
            else:
                child = self._children.pop(event["exited"], None)
                if child is not None:
                    child.has_exited(event["status"], over=event["over"])

    def _end(self) -> None:
        process, control = self._process, self._control
        self._process = self._control = None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control.fileno())
            control.close()
        if process is not None:
            process.kill()
            process.wait()
        children, self._children = self._children, {}
        for child in children.values():
            child.has_exited(int(signal.SIGKILL), over=False)


class Child:
    """A forked process that answers one call at a time."""

    def __init__(
        self, template: Template, child_id: str, memory_limit_mb: int | None, on_message: OnMessage | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._template = template
        self._id = child_id
        self._memory_limit_mb = memory_limit_mb
        self._on_message = on_message
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._answer: asyncio.Future[Any] | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._channel: asyncio.Transport | None = None
        self._open_streams = 0
        self._status: tuple[int, bool] | None = None
        self._why: ChildFailure | None = None
        self.forked: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.pid: int | None = None

    async def connect(self, channel: socket.socket, stdout: int, stderr: int) -> None:
        loop = asyncio.get_running_loop()
        channel.setblocking(False)
        transport, _ = await loop.create_unix_connection(lambda: _Frames(self), sock=channel)
        self._channel = transport
        self._transports.append(transport)
        self._open_streams = 3
        for name, fd in (("STDOUT", stdout), ("STDERR", stderr)):
            lines = _Lines(self, name)
            pipe, _ = await loop.connect_read_pipe(lambda lines=lines: lines, os.fdopen(fd, "rb", 0))  # type: ignore[misc]
            self._transports.append(pipe)

    @property
    def alive(self) -> bool:
        return not self.gone.done() and self._status is None and self._why is None

    def begin(self, call: Call) -> asyncio.Future[Any]:
        """Send the call; the future gives its value, or raises its exception or a `ChildFailure`."""
        if self._answer is not None and not self._answer.done():
            raise RuntimeError("The child is busy.")
        self._answer = asyncio.get_running_loop().create_future()
        if self.gone.done():
            self._settle()
        else:
            assert self._channel is not None
            self._channel.write(dump(call))
        return self._answer

    def stop(self, how: Stop) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(dump(how))

    def kill(self, why: ChildFailure | None = None) -> None:
        """Kill the process; its call raises `why`, by default `Killed`."""
        if self._why is None:
            self._why = why or Killed("The child process was killed on request.")
        self._template.kill(self._id)

    def close(self) -> None:
        """Let the process end when it has nothing to do."""
        for transport in self._transports:
            if not transport.is_closing():
                transport.close()

    def was_forked(self, pid: int) -> None:
        self.pid = pid
        if not self.forked.done():
            self.forked.set_result(None)

    def has_exited(self, status: int, *, over: bool) -> None:
        self._status = (status, over)
        if not self.forked.done():
            self.forked.set_result(None)
        if self._open_streams <= 0:
            self._settle()
        else:
            asyncio.get_running_loop().call_later(1.0, self._settle)

    def stream_closed(self) -> None:
        self._open_streams -= 1
        if self._open_streams == 0 and self._status is not None:
            self._settle()

    def say(self, message: Any) -> None:
        if self._on_message is not None:
            self._on_message(message)

    def wrote(self, stream: str, text: str) -> None:
        self._tail.append(text)
        level = "WARNING" if stream == "STDERR" else "INFO"
        self.say(LogLine(time.time_ns() // 1_000_000, level, stream, text))

    def received(self, frame: bytes) -> None:
        try:
            message = load(frame)
        except Exception as error:
            self.kill(ChildFailure(f"The child process answered with something unreadable: {error}"))
            return
        if isinstance(message, Said):
            self.say(message.message)
        elif self._answer is not None and not self._answer.done():
            if isinstance(message, Returned):
                self._answer.set_result(message.value)
            elif isinstance(message, Raised):
                self._answer.set_exception(self._raised(message))

    def _raised(self, raised: Raised) -> Exception:
        if raised.out_of_memory:
            return self._out_of_memory(raised.traceback)
        if raised.error is not None:
            raised.error.add_note(raised.traceback)
            return raised.error
        return ChildRaised(raised.type_name, raised.message, raised.traceback)

    def _out_of_memory(self, output: str) -> OutOfMemory:
        return OutOfMemory(f"The child process needed more than its {self._memory_limit_mb} MB of memory.", output)

    def _settle(self) -> None:
        """The process is gone and has said all it had to say."""
        self.close()
        if not self.gone.done():
            self.gone.set_result(None)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._failure())

    def _failure(self) -> ChildFailure:
        output = "\n".join(self._tail)
        status, over = self._status or (int(signal.SIGKILL), False)
        if over or "memory allocation of" in output or "bad_alloc" in output:
            return self._out_of_memory(output)
        if self._why is not None:
            self._why.output = self._why.output or output
            return self._why
        code = os.waitstatus_to_exitcode(status)
        if -code == signal.SIGXCPU:
            return TimedOut("The child process used more CPU time than its limit.", output)
        return ChildDied(exit_code=None if code < 0 else code, signal_number=-code if code < 0 else None, output=output)


class ChildRun:
    """One function at work in a child of its own."""

    def __init__(
        self, child: Child, answer: asyncio.Future[Any], wall_timeout: float | None, sample_seconds: float | None
    ) -> None:
        self._child = child
        self._answer = answer
        self._wall_timeout = wall_timeout
        self._deadline = None if wall_timeout is None else time.monotonic() + wall_timeout
        self._sampling = None if sample_seconds is None else asyncio.create_task(_sample(child, sample_seconds))

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def stop(self, how: Stop) -> None:
        """Ask the function to end at its next `Control.stop()`."""
        self._child.stop(how)

    def kill(self) -> None:
        """Kill at once; `result` raises `Killed`."""
        self._child.kill()

    async def result(self) -> Any:
        """What the function returned; raises its exception or a `ChildFailure`. The process is gone afterwards."""
        try:
            remaining = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            done, _ = await asyncio.wait([self._answer], timeout=remaining)
            if not done:
                self._child.kill(TimedOut(f"The child process took longer than {self._wall_timeout:g} s."))
            return await self._answer
        finally:
            if self._sampling is not None:
                self._sampling.cancel()
            if not self._answer.done():
                self._child.kill()
            self._answer.add_done_callback(_retrieved)
            self._child.close()


def _retrieved(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()


async def run_in_child(
    template: Template,
    target: str | Callable[..., Any],
    *args: Any,
    controlled: bool = False,
    memory_limit_mb: int | None = None,
    cpu_seconds: int | None = None,
    wall_timeout: float | None = None,
    nice: int = 0,
    on_message: OnMessage | None = None,
    sample_seconds: float | None = None,
) -> Any:
    """`Template.run` for callers that only want the result."""
    run = await template.run(
        target,
        *args,
        controlled=controlled,
        memory_limit_mb=memory_limit_mb,
        cpu_seconds=cpu_seconds,
        wall_timeout=wall_timeout,
        nice=nice,
        on_message=on_message,
        sample_seconds=sample_seconds,
    )
    return await run.result()


async def _sample(child: Child, seconds: float) -> None:
    """Report the child's use of CPU and memory until it is gone."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(child.pid)
        process.cpu_percent()
        while True:
            await asyncio.sleep(seconds)
            with process.oneshot():
                usage = ResourceUsage(process.cpu_percent(), process.memory_info().rss, time.time_ns() // 1_000_000)
            child.say(usage)


class ChildPool:
    """Warm children that keep what they have loaded; nothing is started before the first call.

    A call that fails takes its child with it only when the child died, hung or grew too large; the next call finds
    another one.
    """

    def __init__(
        self, template: Template, *, size: int = 1, memory_limit_mb: int | None = 2048, timeout: float = 30.0
    ) -> None:
        self._template = template
        self._memory_limit_mb = memory_limit_mb
        self._timeout = timeout
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Child] = []

    async def score(
        self,
        folder: str | Path,
        sha256: str,
        rows: Sequence[dict[str, Any]],
        *,
        probabilities: bool = False,
        contributions: bool = False,
        timeout: float | None = None,
    ) -> list[dict[str, Any]]:
        """Predict rows with the model in `folder`, loaded once a child and kept while it is in use.

        A child that dies of it, or is killed from outside, costs time: a new one is asked, once. Raises
        `SchemaMismatch`, `UnknownCategory`, `DataProblem`, `DigestMismatch`, `ModelUnreadable` or a `ChildFailure`.
        """
        asked = (str(folder), sha256, rows, probabilities, contributions)
        outputs: list[dict[str, Any]]
        try:
            outputs = await self.call("ml.scoring:score", *asked, timeout=timeout)
        except ChildDied:
            outputs = await self.call("ml.scoring:score", *asked, timeout=timeout, fresh=True)
        return outputs

    async def call(
        self, target: str | Callable[..., Any], *args: Any, timeout: float | None = None, fresh: bool = False
    ) -> Any:
        """Call a function in one of the children, one call at a time in each; in a new one, if `fresh`."""
        seconds = self._timeout if timeout is None else timeout
        async with self._slots:
            child = await (self._fork() if fresh else self._child())
            answer = child.begin(Call(_reference(target), args))
            expiry = asyncio.get_running_loop().call_later(
                seconds, child.kill, TimedOut(f"The child process took longer than {seconds:g} s.")
            )
            try:
                value = await answer
            except asyncio.CancelledError:
                child.kill()
                raise
            except OutOfMemory:
                child.kill()
                raise
            finally:
                expiry.cancel()
                if child.alive:
                    self._idle.append(child)
            return value

    async def close(self) -> None:
        for child in self._idle:
            child.close()
        self._idle.clear()

    async def _child(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
        return await self._fork()

    async def _fork(self) -> Child:
        return await self._template.fork(memory_limit_mb=self._memory_limit_mb)


class _Frames(asyncio.Protocol):
    def __init__(self, child: Child) -> None:
        self._child = child
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, start)
            if size > _FRAME_LIMIT:
                self._child.kill(ChildFailure("The child process answered with more than 512 MB."))
                return
            end = start + _LENGTH.size + size
            if len(buffer) < end:
                break
            self._child.received(bytes(buffer[start + _LENGTH.size : end]))
            start = end
        del buffer[:start]

    def connection_lost(self, error: Exception | None) -> None:
        self._child.stream_closed()


class _Lines(asyncio.Protocol):
    def __init__(self, child: Child, stream: str) -> None:
        self._child = child
        self._stream = stream
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_CHARACTERS:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._say(line)

    def connection_lost(self, error: Exception | None) -> None:
        if self._rest:
            self._say(self._rest)
        self._child.stream_closed()

    def _say(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").replace("\0", "�").rstrip()[:_LINE_CHARACTERS]
        if text:
            self._child.wrote(self._stream, text)
