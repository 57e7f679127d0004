"""Passwords: argon2id digests (RFC 9106) and what makes a password too weak."""

import secrets
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH, MAX_LENGTH = 12, 1024
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
_COMMON = (
    "password", "passwort", "qwerty", "qwertz", "letmein", "welcome", "admin", "administrator", "iloveyou",
    "monkey", "dragon", "football", "baseball", "sunshine", "princess", "abc", "headai", "changeme", "secret",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weakness:
    reason: str


def weakness(password: str, *, username: str = "") -> Weakness | None:
    """Why a password is refused, or None when it is good enough.

    Length counts most (NIST SP 800-63B, 5.1.1.2): at least 12 characters. A common word with digits or symbols around
    it, one repeated character, a plain sequence and the user's own name are refused whatever their length.
    """
    if len(password) < MIN_LENGTH:
        return Weakness(f"A password has at least {MIN_LENGTH} characters.")
    if len(password) > MAX_LENGTH:
        return Weakness(f"A password has at most {MAX_LENGTH} characters.")
    letters = "".join(character for character in password.lower() if character.isalpha())
    if letters in _COMMON or letters in {word * 2 for word in _COMMON}:
        return Weakness("This password is a common word with something around it. Choose several words instead.")
    if username and username.lower() in (letters, password.lower()):
        return Weakness("A password is not the user's own name.")
    if len(set(password)) < 5:
        return Weakness("A password has at least five different characters.")
    steps = {ord(b) - ord(a) for a, b in pairwise(password)}
    if steps <= {1} or steps <= {-1}:
        return Weakness("A password is not a plain sequence of characters.")
    return None


def digest(password: str) -> str:
    """An argon2id digest with its own salt. Takes some 200 ms of one core: never call it in an event loop."""
    return _HASHER.hash(password)


def matches(password: str, stored: str | None) -> bool:
    """Whether the password fits the digest. Does the same work when there is no digest to compare with."""
    try:
        return _HASHER.verify(stored or _dummy(), password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


@cache
def _dummy() -> str:
    return digest(secrets.token_urlsafe(24))
