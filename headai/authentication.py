"""From an Authorization header to a caller."""

from dataclasses import dataclass
from datetime import datetime

from starlette.requests import HTTPConnection

from auth.principals import Principal
from auth.tokens import Claims, ExpiredToken, InvalidToken
from db import access
from headai.requests import address_of
from monitoring.requests import current_request_id
from resolvers.context import Context, Request, Services


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: nobody, somebody, or somebody whose credentials were not accepted, and why not."""

    principal: Principal | None = None
    claims: Claims | None = None
    rejected: str | None = None

    @property
    def until(self) -> datetime | None:
        return self.claims.expires_at if self.claims else None


NOBODY = Caller()
SESSION_ENDED = "This session has ended. Sign in again."
TOKEN_EXPIRED = "The access token has expired. Renew it with `refreshTokens`, or sign in again."  # noqa: S105


async def authenticate(services: Services, authorization: str | None) -> Caller:
    """The caller behind `Bearer <access token>`, with the rights in force now."""
    if not authorization:
        return NOBODY
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return Caller(rejected="Send the access token as `Authorization: Bearer <token>`.")
    try:
        claims = services.tokens.verify(token.strip())
    except ExpiredToken:
        return Caller(rejected=TOKEN_EXPIRED)
    except InvalidToken:
        return Caller(rejected="The access token is not one of this server. Sign in again.")
    return await reload(services, claims)


async def reload(services: Services, claims: Claims) -> Caller:
    """The same caller with the rights of this moment."""
    async with services.db.reading() as session:
        principal = await access.principal(session, session_id=claims.session_id, user_id=claims.user_id)
    if principal is None:
        return Caller(rejected=SESSION_ENDED)
    return Caller(principal, claims)


def context_for(services: Services, connection: HTTPConnection, caller: Caller) -> Context:
    request = Request(
        request_id=current_request_id() or "",
        ip_address=address_of(connection),
        user_agent=connection.headers.get("user-agent"),
    )
    return Context(services=services, request=request, principal=caller.principal, rejected=caller.rejected)
