"""API tokens: what a program shows instead of a password, and what it may do with it.

A secret is `headai_` and 256 random bits, so that people and scanners recognise one that leaked. The database knows
only its digest. A token can do no more than its limits, and no more than its owner.
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import UUID

from auth.permissions import Permission

MARK = "headai_"
_SHOWN = len(MARK) + 6


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Of what its owner may do: these permissions, in these projects, from these networks, until then.

    Without projects, wherever the owner may; without networks, from everywhere.
    """

    permissions: frozenset[Permission]
    projects: frozenset[UUID] | None
    networks: tuple[str, ...] | None
    expires_at: datetime

    def admit(self, address: str | None) -> bool:
        """Whether a request may come from this address."""
        if self.networks is None:
            return True
        if address is None:
            return False
        try:
            found = ip_address(address)
        except ValueError:
            return False
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in ip_network(network) for network in self.networks)

    def cover(self, other: "TokenLimits") -> bool:
        """Whether the other token lives no longer than this one and is taken from no further networks."""
        if other.expires_at > self.expires_at:
            return False
        if self.networks is None:
            return True
        return other.networks is not None and all(_inside(network, self.networks) for network in other.networks)


@dataclass(frozen=True, slots=True)
class HeldToken:
    """The token by which somebody calls."""

    id: UUID
    limits: TokenLimits


def new_secret() -> str:
    return MARK + secrets.token_urlsafe(32)


def secret_digest(secret: str) -> bytes:
    """What the database keeps of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def prefix_of(secret: str) -> str:
    return secret[:_SHOWN]


def _inside(network: str, others: Iterable[str]) -> bool:
    inner = ip_network(network)
    return any(
        inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
        for outer in map(ip_network, others)
    )
