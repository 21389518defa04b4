"""Load balancers of a cloud: what one looks like, and what moyai asks for them.

The shapes follow Octavia's (a load balancer has listeners, a listener a default pool, a pool members and a monitor), because
that is what every OpenStack offers; other clouds fit the same tree. The same types describe what is wanted (ids empty) and
what exists. Times are milliseconds where the name says ``_ms``, else seconds. None means: the cloud's default.
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
    """``type``: TCP, UDP-CONNECT, HTTP … ``delay`` and ``timeout`` in seconds."""

    type: str
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
    """``persistence``: empty or ``SOURCE_IP``. ``protocol``: TCP, UDP, HTTP, PROXY, PROXYV2 …"""

    name: str
    protocol: str
    algorithm: str
    members: tuple[Member, ...] = ()
    monitor: Monitor | None = None
    persistence: str = ""
    tags: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Listener:
    """``allowed_cidrs`` empty: everybody. ``connection_limit`` -1: none."""

    name: str
    protocol: str
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
    def key(self) -> tuple[str, int]:
        """What no two listeners of a load balancer may share: transport and port."""
        return ("UDP" if self.protocol in ("UDP", "SCTP") else "TCP"), self.port


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
