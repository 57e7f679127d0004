"""Access tokens: a signed statement of who the caller is, good for a quarter of an hour at most.

JWT (RFC 7519) signed with Ed25519 (RFC 8037). Nothing about rights is in the token: they are read for each request, so
that a change acts at once. Refresh tokens are opaque random strings; the database knows only their digests.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

_ISSUER, _AUDIENCE = "headai", "headai-api"
_LEEWAY = timedelta(seconds=30)
_MAX_BYTES = 8192
_MAX_REMEMBERED = 4096
_REQUIRED = ["exp", "iat", "nbf", "iss", "aud", "sub", "jti", "sid"]
MAX_LIFETIME = timedelta(minutes=15)


class InvalidToken(Exception):
    """The token is malformed, was signed by someone else, or is not for us."""


class ExpiredToken(InvalidToken):
    """The token was good, and its time is over."""


@dataclass(frozen=True, slots=True)
class Claims:
    user_id: UUID
    session_id: UUID
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Signs with one key, verifies with every key it knows (by `kid`, the digest of the public key)."""

    key: Ed25519PrivateKey = field(repr=False)
    lifetime: timedelta = MAX_LIFETIME
    known: Mapping[str, Ed25519PublicKey] = field(init=False, repr=False)
    kid: str = field(init=False)
    _verified: dict[str, Claims] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not timedelta(0) < self.lifetime <= MAX_LIFETIME:
            raise ValueError(f"An access token lives at most {MAX_LIFETIME}.")
        public = self.key.public_key()
        kid = hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
        object.__setattr__(self, "known", {kid: public})
        object.__setattr__(self, "kid", kid)

    @classmethod
    def from_pem(cls, pem: bytes, lifetime: timedelta = MAX_LIFETIME) -> "TokenIssuer":
        """Raises `ValueError` when the PEM does not hold an Ed25519 private key."""
        key = load_pem_private_key(pem, password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("The signing key has to be an Ed25519 private key in PEM form.")
        return cls(key, lifetime)

    def issue(self, user_id: UUID, session_id: UUID) -> tuple[str, datetime]:
        now = datetime.now(UTC)
        expires_at = now + self.lifetime
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": user_id.hex,
            "sid": session_id.hex,
            "jti": uuid4().hex,
            "iat": now,
            "nbf": now,
            "exp": expires_at,
        }
        token = jwt.encode(claims, self.key, algorithm="EdDSA", headers={"kid": self.kid})
        return token, expires_at

    def verify(self, token: str) -> Claims:
        """Raises `ExpiredToken`, or `InvalidToken` for everything else that is wrong.

        A signature is good for as long as its token: what was verified once is only asked for its time again.
        """
        if len(token) > _MAX_BYTES:
            raise InvalidToken
        claims = self._verified.get(token)
        if claims is None:
            claims = self._read(token)
            if len(self._verified) >= _MAX_REMEMBERED:
                self._verified.clear()
            self._verified[token] = claims
        elif claims.expires_at + _LEEWAY <= datetime.now(UTC):
            del self._verified[token]
            raise ExpiredToken
        return claims

    def _read(self, token: str) -> Claims:
        try:
            key = self.known[jwt.get_unverified_header(token).get("kid", "")]
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=_AUDIENCE,
                issuer=_ISSUER,
                leeway=_LEEWAY,
                options={"require": _REQUIRED},
            )
            expires_at = datetime.fromtimestamp(claims["exp"], UTC)
            return Claims(UUID(claims["sub"]), UUID(claims["sid"]), expires_at)
        except jwt.ExpiredSignatureError as error:
            raise ExpiredToken from error
        except (jwt.InvalidTokenError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise InvalidToken from error


def new_refresh_token() -> str:
    return secrets.token_urlsafe(32)


def refresh_digest(token: str) -> bytes:
    """What the database keeps of a refresh token."""
    return hashlib.sha256(token.encode()).digest()
