"""Keeps passwords, tokens and signed URLs out of whatever operators read."""

import re
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache

SECRET_WORDS = (
    "accesskey",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "passphrase",
    "passwd",
    "password",
    "privatekey",
    "secret",
    "token",
)
DEEPEST = 8
_NOT_ALNUM = re.compile(r"[^a-z0-9]")
_IN_TEXT = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s@/]+@", re.I), r"\1:***@"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]+", re.I), r"\1 ***"),
    (re.compile(r"\b(headai_)[\w-]{20,}"), r"\1***"),
    (re.compile(r"\b(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"']+", re.I), r"\1***"),
)


@lru_cache(maxsize=1024)
def is_secret(key: str) -> bool:
    """Whether a value of this name is never shown: `refreshToken`, `s3_secret_key`, `X-Api-Key`."""
    plain = _NOT_ALNUM.sub("", key.lower())
    return any(word in plain for word in SECRET_WORDS)


def without_secrets(value: object, *, depth: int = DEEPEST) -> object:
    """The same data without secret keys, and with passwords, tokens and signatures inside texts masked.

    Below eight levels of nesting data is left out, so that what refers to itself ends too.
    """
    match value:
        case str():
            return without_secrets_in_text(value)
        case Mapping() | Sequence() | Set() if depth == 0:
            return "..."
        case bytes() | bytearray():
            return f"<{len(value)} bytes>"
        case Mapping():
            return {
                key: without_secrets(inner, depth=depth - 1) for key, inner in value.items() if not is_secret(str(key))
            }
        case Sequence() | Set():
            return [without_secrets(inner, depth=depth - 1) for inner in value]
    return value


def without_secrets_in_text(text: str) -> str:
    """The text with the password of a URL, a bearer token and the signature of a signed URL masked."""
    if "://" not in text and "=" not in text and len(text.split(None, 1)) < 2:
        return text  # one word, as most values of a log line are: no pattern matches it
    for pattern, masked in _IN_TEXT:
        text = pattern.sub(masked, text)
    return text
