"""From an Authorization header to a caller: by the access token of a session, or by the secret of an API token."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from starlette.requests import HTTPConnection

from auth.api_tokens import MARK, secret_digest
from auth.principals import Principal
from auth.tokens import Claims, ExpiredToken, InvalidToken
from db import access, api_tokens
from headai.requests import address_of
from monitoring.requests import current_request_id
from resolvers.context import Context, Request, Services


@dataclass(frozen=True, slots=True)
class Secret:
    """An API token's secret that was accepted, and until when it counts."""

    digest: bytes
    expires_at: datetime


Credential = Claims | Secret


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: nobody, somebody, or somebody whose credentials were not accepted, and why not."""

    principal: Principal | None = None
    credential: Credential | None = None
    rejected: str | None = None

    @property
    def until(self) -> datetime | None:
        return self.credential.expires_at if self.credential else None

    @property
    def presence(self) -> UUID | bytes | None:
        """What ends the caller's connections when it ends: the session, or the secret."""
        match self.credential:
            case Claims(session_id=session_id):
                return session_id
            case Secret(digest=digest):
                return digest
        return None

    @property
    def farewell(self) -> str:
        """What is said when it has ended."""
        return API_TOKEN_ENDED if isinstance(self.credential, Secret) else SESSION_ENDED

    @property
    def expired(self) -> str:
        """What is said when its time is over."""
        return API_TOKEN_ENDED if isinstance(self.credential, Secret) else TOKEN_EXPIRED


NOBODY = Caller()
SESSION_ENDED = "This session has ended. Sign in again."
TOKEN_EXPIRED = "The access token has expired. Renew it with `refreshTokens`, or sign in again."  # noqa: S105
API_TOKEN_ENDED = "This API token does not count, or not any more."  # noqa: S105


async def authenticate(services: Services, authorization: str | None, address: str | None) -> Caller:
    """The caller behind `Bearer <access token or API token>`, with the rights in force now."""
    if not authorization:
        return NOBODY
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer":
        return Caller(rejected="Send the token as `Authorization: Bearer <token>`.")
    if token.startswith(MARK):
        return await _by_secret(services, secret_digest(token), address)
    try:
        claims = services.tokens.verify(token)
    except ExpiredToken:
        return Caller(rejected=TOKEN_EXPIRED)
    except InvalidToken:
        return Caller(rejected="The access token is not one of this server. Sign in again.")
    return await _by_session(services, claims)


async def reload(services: Services, caller: Caller, address: str | None) -> Caller:
    """The same caller with the rights of this moment."""
    match caller.credential:
        case Claims() as claims:
            return await _by_session(services, claims)
        case Secret(digest=digest):
            return await _by_secret(services, digest, address)
    return caller


async def _by_session(services: Services, claims: Claims) -> Caller:
    async with services.db.reading() as session:
        principal = await access.principal(session, session_id=claims.session_id, user_id=claims.user_id)
    if principal is None:
        return Caller(rejected=SESSION_ENDED)
    return Caller(principal, claims)


async def _by_secret(services: Services, digest: bytes, address: str | None) -> Caller:
    async with services.db.reading() as session:
        found = await api_tokens.principal(session, digest, ip_address=address)
    if found is None:
        return Caller(rejected=API_TOKEN_ENDED)
    principal, until = found
    if principal.token is not None and not principal.token.limits.admit(address):
        return Caller(rejected="This API token is not taken from your address.")
    return Caller(principal, Secret(digest, until))


def context_for(services: Services, connection: HTTPConnection, caller: Caller) -> Context:
    request = Request(
        request_id=current_request_id() or "",
        ip_address=address_of(connection),
        user_agent=connection.headers.get("user-agent"),
    )
    return Context(services=services, request=request, principal=caller.principal, rejected=caller.rejected)
