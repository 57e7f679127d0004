"""Access tokens: what is accepted, for how long, and what is refused."""

import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auth import tokens
from auth.tokens import ExpiredToken, InvalidToken, TokenIssuer

USER, SESSION = uuid4(), uuid4()


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer(Ed25519PrivateKey.generate())


def forged(issuer: TokenIssuer, key: object, algorithm: str = "EdDSA", **changes: object) -> str:
    now = datetime.now(UTC)
    claims = {
        "iss": "headai", "aud": "headai-api", "sub": USER.hex, "sid": SESSION.hex, "jti": uuid4().hex,
        "iat": now, "nbf": now, "exp": now + timedelta(minutes=5), **changes,
    }  # fmt: skip
    given = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(given, key, algorithm=algorithm, headers={"kid": issuer.kid})


def test_a_token_tells_who_signed_in_and_until_when(issuer):
    token, expires_at = issuer.issue(USER, SESSION)

    claims = issuer.verify(token)

    assert (claims.user_id, claims.session_id) == (USER, SESSION)
    assert claims.expires_at == expires_at.replace(microsecond=0)
    assert issuer.verify(token) is claims


def test_what_was_verified_once_expires_all_the_same(issuer, monkeypatch):
    token, expires_at = issuer.issue(USER, SESSION)
    issuer.verify(token)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return expires_at + timedelta(seconds=31)

    monkeypatch.setattr(tokens, "datetime", Later)
    with pytest.raises(ExpiredToken):
        issuer.verify(token)


def test_an_expired_token_is_told_apart(issuer):
    past = datetime.now(UTC) - timedelta(minutes=1)

    with pytest.raises(ExpiredToken):
        issuer.verify(forged(issuer, issuer.key, exp=past))


@pytest.mark.parametrize("missing", ["exp", "iat", "nbf", "iss", "aud", "sub", "jti", "sid"])
def test_every_claim_is_required(issuer, missing):
    with pytest.raises(InvalidToken):
        issuer.verify(forged(issuer, issuer.key, **{missing: None}))


@pytest.mark.parametrize("changes", [{"iss": "others"}, {"aud": "others"}, {"sub": "ada"}, {"sid": 5}])
def test_claims_of_others_are_not_accepted(issuer, changes):
    with pytest.raises(InvalidToken):
        issuer.verify(forged(issuer, issuer.key, **changes))


def test_a_token_signed_with_another_key_or_way_is_not_accepted(issuer):
    unsigned = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "none", "kid": issuer.kid}, {"sub": USER.hex})
    )

    for token in (
        forged(issuer, Ed25519PrivateKey.generate()),
        forged(issuer, "a secret of thirty-two characters", "HS256"),
        f"{unsigned}.",
        "",
        "not a token",
        "x" * 10_000,
    ):
        with pytest.raises(InvalidToken):
            issuer.verify(token)


def test_no_token_lives_longer_than_a_quarter_of_an_hour():
    with pytest.raises(ValueError, match="at most"):
        TokenIssuer(Ed25519PrivateKey.generate(), timedelta(minutes=16))
