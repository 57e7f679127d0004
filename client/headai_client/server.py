"""One Head AI server, spoken to as one user: an operation in, the value of its root field out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

TIMEOUT_SECONDS = 10.0
_LATER = frozenset({"UNAVAILABLE", "RATE_LIMITED", "INTERNAL", "UNAUTHENTICATED"})
_LOGIN = """
mutation ($input: LoginInput!) { login(input: $input) { tokens { accessToken } errors { code message } } }
"""


class Unreachable(Exception):
    """The server did not take it now; it may later."""


class Refused(Exception):
    """The server will never take it. `codes` are those of its errors."""

    def __init__(self, message: str, codes: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.codes = codes


class Server:
    """`token` is a bearer token; with `username` and `password` one is fetched, and again when it has run out."""

    def __init__(
        self, url: str, *, token: str | None = None, username: str | None = None, password: str | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._credentials = None if username is None else {"username": username, "password": password or ""}
        on_this_machine = urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=not on_this_machine)

    def close(self) -> None:
        self._http.close()

    def send(self, document: str, variables: Mapping[str, Any]) -> Any:
        """Raises `Unreachable` and `Refused`."""
        if self._token is None and self._credentials is not None:
            self._sign_in()
        try:
            return self._sent(document, variables)
        except _Unauthenticated:
            if self._credentials is None:
                raise
            self._sign_in()
            return self._sent(document, variables)

    def _sign_in(self) -> None:
        self._token = None
        self._token = self._sent(_LOGIN, {"input": self._credentials})["tokens"]["accessToken"]

    def _sent(self, document: str, variables: Mapping[str, Any]) -> Any:
        headers = {} if self._token is None else {"authorization": f"Bearer {self._token}"}
        try:
            answer = self._http.post(
                f"{self.url}/graphql", json={"query": document, "variables": variables}, headers=headers
            )
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.url} does not answer: {error or type(error).__name__}") from error
        try:
            told = answer.json()
            errors, data = told.get("errors"), told.get("data")
        except (ValueError, AttributeError):
            errors, data = None, None
        if errors:
            raise _trouble(errors)
        if data is None:
            said = f"{self.url}/graphql answered {answer.status_code}"
            raise Unreachable(said) if answer.status_code >= 500 or answer.status_code == 429 else Refused(said)
        value = next(iter(data.values()), None)
        if isinstance(value, dict) and value.get("errors"):
            found = value["errors"]
            codes = frozenset(error.get("code", "") for error in found)
            raise Refused("; ".join(error["message"] for error in found), codes)
        return value


class _Unauthenticated(Unreachable):
    """The token ran out, or is none."""


def _trouble(errors: list[dict[str, Any]]) -> Exception:
    message = "; ".join(error.get("message", "") for error in errors)
    codes = frozenset(str((error.get("extensions") or {}).get("code", "")) for error in errors)
    if "UNAUTHENTICATED" in codes:
        return _Unauthenticated(message)
    return Unreachable(message) if codes & _LATER else Refused(message, codes)
