"""What a cloud says about itself to somebody who is about to build on it. Nothing is made or changed.

Every call stands alone, so that a cloud which refuses one of them can still be asked the others. An answer is None where the
cloud keeps it from this user. Calls raise ``core.errors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Feature(StrEnum):
    """What the networks of a cloud may be able to do besides what all can. The values are words for messages."""

    SOURCE_ADDRESSES = "ports that send from other addresses than their own"
    SINGLE_ROUTES = "routes that are added to a router without sending all others"
    PORT_SECURITY = "ports whose filter can be switched off"
    TRUNKS = "trunk ports"
    NETWORK_MTU = "an MTU for each network"


@dataclass(frozen=True)
class OwnIdentity:
    """Who is logged in. ``method``: by which means, in words.

    ``ends``: when the credential does, or the token that cannot be renewed; None: it does not end, or the cloud does not say.
    """

    method: str
    user: str
    project: str
    ends: datetime | None = None


@dataclass(frozen=True)
class CloudService:
    """One service of the cloud. ``versions``: of its API, in the service's own words, empty where it gives none. ``fault``: why
    it cannot be used, empty where it answers."""

    name: str
    address: str
    versions: str = ""
    fault: str = ""


@dataclass(frozen=True)
class ServerCertificate:
    """What one address of the cloud shows by TLS, and when that ends."""

    address: str
    ends: datetime


class Survey(Protocol):
    def login(self) -> OwnIdentity: ...
    def services(self) -> list[CloudService]:
        """Those that moyai uses and the cloud has, each asked for its versions."""
        ...

    def features(self) -> frozenset[Feature]: ...
    def free_addresses(self, network_id: str) -> int | None:
        """How many addresses of a network nobody has."""
        ...

    def clock_ahead(self) -> float | None:
        """By how many seconds the cloud's clock is ahead of this machine's, to one or two seconds."""
        ...

    def certificates(self) -> list[ServerCertificate]:
        """One for each address of the cloud that speaks TLS."""
        ...
