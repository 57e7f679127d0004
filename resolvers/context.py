"""What one operation carries with it, from the transport down to the last resolver."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from strawberry import Info as StrawberryInfo

from auth.permissions import Permission
from auth.principals import EVERYWHERE, Place, Principal
from auth.tokens import TokenIssuer
from dataloaders.batching import Batches
from db.database import Database
from domain.predictions import Predictor
from events.attempts import Attempts
from events.budgets import Account, Balance, Budgets
from events.callers import Callers
from events.log import user_actor
from events.wakeups import Bell, Wakeups
from ml.processes import ChildPool
from monitoring.health import HealthChecks
from storage.objects import ObjectStore

if TYPE_CHECKING:
    from resolvers.audit import Trail


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the service allows, as `serviceInfo` tells it."""

    max_page_size: int = 100
    max_depth: int = 12
    max_cost: int = 10_000
    max_aliases: int = 30
    max_points_per_ingest: int = 100_000
    max_subscriptions_per_connection: int = 50
    max_sockets_per_caller: int = 2000
    slow_client_timeout: timedelta = timedelta(seconds=15)
    event_retention: timedelta = timedelta(days=30)
    refresh_token_lifetime: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a process of the API holds for as long as it runs."""

    db: Database
    wakeups: Wakeups
    callers: Callers
    attempts: Attempts
    store: ObjectStore
    children: ChildPool
    predictor: Predictor
    tokens: TokenIssuer
    budgets: Budgets
    health: HealthChecks
    limits: Limits
    epoch: UUID
    version: str
    instance: str
    schema_hash: str
    introspection: Literal["signed-in", "system-read", "public", "off"]
    executor: Literal["core", "plans"]


class SignInRequired(Exception):
    """The operation needs a caller, and this one brought no valid credentials."""


class SessionRequired(Exception):
    """The operation is for somebody who signed in, and this caller came by an API token."""


class PermissionRequired(Exception):
    """A stream needs a permission that its reader does not hold, or holds no longer.

    `cursor` is the place to go on from, should the reader hold it again.
    """

    def __init__(self, permission: Permission, cursor: str | None = None) -> None:
        super().__init__(permission)
        self.permission = permission
        self.cursor = cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Where an operation came from, for the audit log."""

    request_id: str
    ip_address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """What an operation costs, and what its caller had left then."""

    cost: int
    balance: Balance


@dataclass(slots=True, kw_only=True)
class Context:
    """`rejected` says why the credentials that came were not accepted, when there were some."""

    services: Services
    request: Request
    principal: Principal | None
    rejected: str | None = None
    charge: Charge | None = None
    dataloaders: dict[Any, Batches] = field(default_factory=dict)
    trail: "Trail | None" = None
    bells: set[Bell] = field(default_factory=set)

    def for_operation(self) -> "Context":
        """A copy with loaders of its own, so what one operation loaded never reaches another."""
        return replace(self, charge=None, dataloaders={}, bells=set())

    @contextmanager
    def following(self) -> Iterator[None]:
        """While a stream is open: its caller is the one of this moment, and its bells ring when the rights change."""
        if self.principal is None:
            yield
            return
        with self.services.callers.following(self.principal, self._moved):
            yield

    def _moved(self, principal: Principal) -> None:
        self.principal = principal
        for bell in self.bells:
            bell.ring()

    @contextmanager
    def watching(self, *topics: str) -> Iterator[Bell]:
        """A bell for a stream, which also rings when the rights of its caller change."""
        with self.services.wakeups.watching(*topics) as bell:
            self.bells.add(bell)
            try:
                yield bell
            finally:
                self.bells.discard(bell)

    @property
    def db(self) -> Database:
        """The database as this caller sees it; a transaction of an audited mutation ends with its entry."""
        database = self.services.db if self.trail is None else self.trail.db
        return database.seen_by(self.principal)

    @property
    def caller(self) -> Principal:
        """Who calls. Raises `SignInRequired`."""
        if self.principal is None:
            raise SignInRequired
        return self.principal

    @property
    def actor(self) -> str:
        """The caller as events and the audit log name it."""
        return user_actor(self.caller.user_id)

    @property
    def account(self) -> Account:
        """Whose points an operation takes: the caller's, or those of an address that is not signed in."""
        if self.principal is not None:
            return Account(f"user:{self.principal.user_id.hex}", self.services.budgets.signed_in)
        return Account(f"address:{self.request.ip_address or 'unknown'}", self.services.budgets.anonymous)

    def require_session(self) -> UUID:
        """The session the caller came by. Raises `SignInRequired`, or `SessionRequired` for an API token."""
        if self.caller.session_id is None:
            raise SessionRequired
        return self.caller.session_id

    def may(self, permission: Permission, place: Place = EVERYWHERE) -> bool:
        return self.principal is not None and self.principal.may(permission, place)

    def sees(self, permission: Permission) -> bool:
        """Whether a permission to see something is held anywhere."""
        return self.principal is not None and bool(self.principal.reach(permission))

    def require(self, permission: Permission, *places: Place, cursor: str | None = None) -> None:
        """What a stream asks before each look: whether a permission is held anywhere, or at one of these places.

        Raises `PermissionRequired`.
        """
        held = any(self.may(permission, place) for place in places) if places else self.sees(permission)
        if not held:
            raise PermissionRequired(permission, cursor)


Info = StrawberryInfo[Context, None]
