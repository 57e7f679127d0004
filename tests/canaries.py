"""Planted secrets, and everything that answers and logs say, in which none of them may be seen.

All answers that a test gets, and all lines that this process and its workers log, go past `WATCH`; the session fails in
the end when it has seen one (`tests/conftest.py`).
"""

import sys
from collections import Counter
from typing import Any, TextIO

MARK = "c4n4ry"
PLANTED = {
    name: f"{MARK}-{name}-58a1d0"
    for name in (
        "right-password",
        "wrong-password",
        "new-password",
        "password-of-another",
        "weak-password",
        "password-in-a-broken-document",
        "password-in-an-invalid-document",
        "password-as-a-literal",
        "password-of-a-wrong-type",
        "password-beside-an-unknown-field",
        "password-in-a-query-string",
        "password-while-we-fail",
        "access-token",
        "access-token-on-a-socket",
        "refresh-token",
    )
} | {"api-token": f"headai_{MARK}-api-token-58a1d0-58a1d0-58a1d0-58a1d0"}
"""Those that a client sends. Beside them `servers` plants those that we are started with."""


class Watch:
    """What was looked at, and the secrets that were seen in it."""

    def __init__(self) -> None:
        self.secrets = {MARK: "planted by a client"}
        self.looked: Counter[str] = Counter()
        self.seen: list[str] = []

    def look(self, where: str, said: str | bytes) -> None:
        self.looked[where] += 1
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        self.seen += [f"{name} in {where}: {text[:2000]}" for secret, name in self.secrets.items() if secret in text]


WATCH = Watch()


def watched(app: Any) -> Any:
    """The application, whose every answer goes past the watch: status line, headers, bodies, frames, close reasons."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        async def said(message: Any) -> None:
            for part in ("body", "text", "bytes", "reason"):
                if message.get(part):
                    WATCH.look("an answer", message[part])
            for name, value in message.get("headers") or ():
                WATCH.look("a header", name + b": " + value)
            await send(message)

        await app(scope, receive, said if scope["type"] in ("http", "websocket") else send)

    return call


class WatchedLog:
    """A stream for log lines: what is worth a warning goes on to stderr, everything past the watch."""

    def write(self, text: str) -> int:
        WATCH.look("a log line", text)
        if "[info " not in text[:80] and "[debug " not in text[:80]:
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return False


def watched_log() -> TextIO:
    return WatchedLog()  # type: ignore[return-value]
