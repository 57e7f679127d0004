"""The child's side of a call: take a function and its arguments, answer with its result or its exception.

A frame is four bytes of length (little endian) and a pickle. Children trust their parent; the parent reads what a child
says with `Loader`, which builds plain values and the dataclasses, enums and exceptions of `ml`, and nothing else, since
a child may have read a damaged or hostile model.
"""

from __future__ import annotations

import enum
import io
import pickle
import select
import socket
import struct
import traceback
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from ml.messages import Stop

_LENGTH = struct.Struct("<I")
_PLAIN = {
    ("datetime", "datetime"),
    ("datetime", "date"),
    ("datetime", "time"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("decimal", "Decimal"),
    ("uuid", "UUID"),
    ("pathlib", "PosixPath"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "complex"),
    ("builtins", "bytearray"),
}


class Call(NamedTuple):
    """`target` is `module:function`; with `controlled` it gets a `Control` before the arguments."""

    target: str
    args: tuple[Any, ...]
    controlled: bool = False


class Said(NamedTuple):
    message: Any


class Returned(NamedTuple):
    value: Any


class Raised(NamedTuple):
    """`error` is the exception itself when it is one of `ml`, else None."""

    error: Exception | None
    type_name: str
    message: str
    traceback: str
    out_of_memory: bool


def _member(words: type[enum.Enum], name: str) -> enum.Enum:
    if not issubclass(words, enum.Enum):
        raise pickle.UnpicklingError(f"A child answered with an attribute of {words!r}.")
    return words[name]


class Loader(pickle.Unpickler):
    """Reads a child's frame; raises `pickle.UnpicklingError` for anything that is not plain data."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        return _plain(module_name, global_name)


@lru_cache(maxsize=256)
def _plain(module_name: str, global_name: str) -> Any:
    if (module_name, global_name) == ("builtins", "getattr"):
        return _member  # how Python before 3.11.4 writes the member of an enum
    if (module_name, global_name) not in _PLAIN and not (
        module_name.split(".")[0] == "ml" and "." not in global_name and not global_name.startswith("_")
    ):
        raise pickle.UnpicklingError(f"A child answered with {module_name}.{global_name}.")
    found = getattr(import_module(module_name), global_name)
    if isinstance(found, type) and (
        (module_name, global_name) in _PLAIN
        or (
            found.__module__ == module_name
            and (is_dataclass(found) or issubclass(found, Enum | Exception) or hasattr(found, "_fields"))
        )
    ):
        return found
    raise pickle.UnpicklingError(f"A child answered with {module_name}.{global_name}.")


def load(frame: bytes) -> Any:
    return Loader(io.BytesIO(frame)).load()


def dump(value: Any) -> bytes:
    """A frame, its length in front."""
    body = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Control:
    """How a long call talks to its parent while it works."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._asked: Stop | None = None

    def report(self, message: Any) -> None:
        """Send a message now; waits while the parent is not reading."""
        self._channel.sendall(dump(Said(message)))

    def stop(self) -> Stop | None:
        """What the parent asked for, if anything; costs about a microsecond."""
        while select.select([self._channel], [], [], 0)[0]:
            request = _receive(self._channel)
            if request is None:
                raise SystemExit(0)
            if isinstance(request, Stop):
                self._asked = request
        return self._asked


def serve(channel: socket.socket) -> None:
    """Answer calls until the parent closes the channel."""
    while True:
        request = _receive(channel)
        if request is None:
            return
        if isinstance(request, Call):
            channel.sendall(_answer(request, channel))


def _answer(call: Call, channel: socket.socket) -> bytes:
    try:
        module, _, name = call.target.partition(":")
        target: Callable[..., Any] = getattr(import_module(module), name)
        args = (Control(channel), *call.args) if call.controlled else call.args
        return dump(Returned(target(*args)))
    except Exception as error:
        own = type(error).__module__.split(".")[0] == "ml"
        name = type(error).__qualname__
        memory = isinstance(error, MemoryError) or any(
            sign in str(error) for sign in ("bad_alloc", "Cannot allocate memory", "malloc of size")
        )
        return dump(Raised(error if own else None, name, str(error), traceback.format_exc(), memory))


def _receive(channel: socket.socket) -> Any:
    """The next frame, or None at the end of the stream."""
    head = _exactly(channel, _LENGTH.size)
    if head is None:
        return None
    body = _exactly(channel, _LENGTH.unpack(head)[0])
    return None if body is None else pickle.loads(body)  # noqa: S301 the parent wrote it


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    buffer = bytearray(size)
    view, filled = memoryview(buffer), 0
    while filled < size:
        count = channel.recv_into(view[filled:])
        if count == 0:
            return None
        filled += count
    return bytes(buffer)
