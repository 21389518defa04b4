"""Load balancers of a cloud: what one looks like, and what moyai asks for them.

A load balancer has listeners, a listener has a default pool, a pool has members and a monitor (ADR 0082 says why). The same
types describe what is wanted (ids empty) and what exists. Times are milliseconds where the name says ``_ms``, else seconds.
None means: the cloud's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class BalancerState(StrEnum):
    """Whether the cloud takes a change of a load balancer."""

    ACTIVE = "active"
    #: Being built or changed: no change is taken, a deletion neither.
    BUSY = "busy"
    DELETING = "deleting"
    DELETED = "deleted"
    #: It cannot be mended by a change, only be deleted or failed over.
    FAILED = "failed"
    UNKNOWN = "unknown"


class Health(StrEnum):
    """Whether traffic gets through."""

    ONLINE = "online"
    #: To some of the backends.
    DEGRADED = "degraded"
    FAILED = "failed"
    #: Not carrying traffic, not checked, or the cloud does not say.
    UNKNOWN = "unknown"


class TrafficProtocol(StrEnum):
    """What a listener takes, and what a pool sends to its members. The values are the words that messages use."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    HTTP = "HTTP"
    #: TCP, and the client's address by the PROXY protocol; pools only.
    PROXY_V1 = "PROXY protocol version 1"
    PROXY_V2 = "PROXY protocol version 2"
    #: One that moyai never asks for.
    OTHER = "another protocol"


class BalancingAlgorithm(StrEnum):
    """Which member gets the next connection."""

    ROUND_ROBIN = "round robin"
    LEAST_CONNECTIONS = "least connections"
    SOURCE_ADDRESS = "source address"
    SOURCE_ADDRESS_AND_PORT = "source address and port"
    #: One that moyai never asks for.
    OTHER = "another algorithm"


class SessionPersistence(StrEnum):
    """Which connections go to the same member. ``NONE`` is false."""

    NONE = ""
    #: All of one client's address.
    SOURCE_ADDRESS = "source address"
    #: One that moyai never asks for.
    OTHER = "another persistence"


class CheckType(StrEnum):
    """By what a monitor sees that a member works."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    HTTP = "HTTP"
    #: HTTP over TLS, whatever certificate is shown.
    HTTPS = "HTTPS"
    #: One that moyai never asks for.
    OTHER = "another check"


@dataclass(frozen=True)
class Member:
    """One backend. ``monitor_port`` None: the health check goes to ``port``."""

    address: str
    port: int
    subnet_id: str = ""
    weight: int = 1
    monitor_port: int | None = None
    name: str = ""
    health: Health = Health.UNKNOWN
    id: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What makes two members the same one to the cloud."""
        return self.address, self.port


@dataclass(frozen=True)
class Monitor:
    """``delay`` and ``timeout`` in seconds."""

    type: CheckType
    delay: int
    timeout: int
    max_retries: int
    max_retries_down: int = 3
    url_path: str | None = None
    http_method: str | None = None
    expected_codes: str | None = None
    name: str = ""
    id: str = ""


@dataclass(frozen=True)
class Pool:
    name: str
    protocol: TrafficProtocol
    algorithm: BalancingAlgorithm
    members: tuple[Member, ...] = ()
    monitor: Monitor | None = None
    persistence: SessionPersistence = SessionPersistence.NONE
    tags: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Listener:
    """``allowed_cidrs`` empty: everybody. ``connection_limit`` -1: none."""

    name: str
    protocol: TrafficProtocol
    port: int
    pool: Pool | None = None
    allowed_cidrs: tuple[str, ...] = ()
    connection_limit: int | None = None
    timeout_client_data_ms: int | None = None
    timeout_member_connect_ms: int | None = None
    timeout_member_data_ms: int | None = None
    timeout_tcp_inspect_ms: int | None = None
    insert_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: tuple[str, ...] = ()
    id: str = ""

    @property
    def key(self) -> tuple[TrafficProtocol, int]:
        """What no two listeners of a load balancer may share: transport and port."""
        datagrams = self.protocol in (TrafficProtocol.UDP, TrafficProtocol.SCTP)
        return (TrafficProtocol.UDP if datagrams else TrafficProtocol.TCP), self.port


@dataclass(frozen=True)
class LoadBalancer:
    """``listeners`` is filled by ``get`` and to be filled for ``create``; lists leave it empty.

    ``vip_address`` may be wished for on creation. ``loose_pools``: pools that no listener uses, left by an interrupted change.
    ``status``: the cloud's own word for ``state``, for people.
    """

    name: str
    vip_subnet_id: str = ""
    vip_network_id: str = ""
    vip_port_id: str = ""
    vip_address: str = ""
    provider: str = ""
    zone: str = ""
    flavor_id: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    loose_pools: tuple[Pool, ...] = ()
    status: str = ""
    state: BalancerState = BalancerState.UNKNOWN
    health: Health = Health.UNKNOWN
    id: str = ""


class LoadBalancers(Protocol):
    """All calls block and are safe from several threads; errors as in ``cloud.capabilities``.

    A change is refused with Conflict while the load balancer is BUSY or DELETING. Every change makes it BUSY for a while:
    wait for ACTIVE between two changes.
    """

    def load_balancers(self, *, tag: str | None = None, name: str | None = None) -> list[LoadBalancer]:
        """Without their listeners, in one call."""
        ...

    def providers(self) -> list[str]:
        """Names that ``LoadBalancer.provider`` may have when a load balancer is made."""
        ...

    def head(self, load_balancer_id: str) -> LoadBalancer:
        """One cheap call, without the tree: for waiting. Raises NotFound."""
        ...

    def get(self, load_balancer_id: str) -> LoadBalancer:
        """The whole tree. Raises NotFound."""
        ...

    def create(self, wanted: LoadBalancer) -> LoadBalancer:
        """The whole tree in one call; returns (without the tree) while still BUSY, with ``vip_port_id`` known."""
        ...

    def update(
        self,
        load_balancer_id: str,
        *,
        tags: Sequence[str] | None = None,
        description: str | None = None,
        name: str | None = None,
    ) -> None: ...
    def delete(self, load_balancer_id: str) -> None:
        """With everything in it. What is gone is success."""
        ...

    def failover(self, load_balancer_id: str) -> None:
        """Rebuild its data plane; the address stays. Not every account may."""
        ...

    def create_listener(self, load_balancer_id: str, wanted: Listener) -> Listener:
        """Without a pool: into a load balancer that is there, a cloud takes no trees."""
        ...

    def update_listener(self, listener_id: str, changes: Mapping[str, Any]) -> None:
        """``changes``: field names of ``Listener`` to new values; ``pool`` is not among them."""
        ...

    def delete_listener(self, listener_id: str) -> None: ...
    def create_pool(self, wanted: Pool, *, listener_id: str) -> Pool:
        """As the listener's default pool, without members and monitor."""
        ...

    def update_pool(self, pool_id: str, changes: Mapping[str, Any]) -> None:
        """``changes``: field names of ``Pool`` (algorithm, persistence, name) to new values."""
        ...

    def delete_pool(self, pool_id: str) -> None:
        """With its members and monitor."""
        ...

    def set_members(self, pool_id: str, members: Sequence[Member]) -> None:
        """Make these the pool's members, in one call."""
        ...

    def create_monitor(self, pool_id: str, wanted: Monitor) -> Monitor: ...
    def update_monitor(self, monitor_id: str, changes: Mapping[str, Any]) -> None:
        """``changes``: field names of ``Monitor``; its type cannot change."""
        ...

    def delete_monitor(self, monitor_id: str) -> None: ...
