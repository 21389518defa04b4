"""A load balancer for the data plane: plain values, read from Octavia once, for the pure planners.

``status`` of every object is Octavia's provisioning status. An object in PENDING_DELETE stays in the tree, because its
deletion must be reported. It is no part of the data plane: its ``live`` is false. The classes have Octavia's names. The cloud
adapter has other classes of the same names, on the other side of the wall (see ``moyai.localcloud.drivers``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

ACTIVE, ERROR, DELETED = "ACTIVE", "ERROR", "DELETED"
PENDING_DELETE = "PENDING_DELETE"


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What all objects have: id, provisioning and operating status, whether they are switched on."""

    id: str
    status: str = ACTIVE
    operating: str = "OFFLINE"
    enabled: bool = True

    @property
    def live(self) -> bool:
        """Part of the data plane: not about to be deleted, and switched on."""
        return self.enabled and self.status not in (PENDING_DELETE, DELETED)

    @property
    def settled(self) -> bool:
        """Nothing is to be reported about it."""
        return self.status == ACTIVE


@dataclass(frozen=True, kw_only=True)
class Member(Thing):
    """A server of a pool. ``weight`` 0: it keeps what it has and gets nothing new."""

    address: str
    port: int
    weight: int = 1
    backup: bool = False
    monitor_address: str | None = None
    monitor_port: int | None = None


@dataclass(frozen=True, kw_only=True)
class Monitor(Thing):
    """How members are checked. ``delay`` and ``timeout`` in seconds."""

    type: str
    delay: int = 5
    timeout: int = 5
    rise: int = 3
    fall: int = 3
    http_method: str = "GET"
    url_path: str = "/"
    expected_codes: str = "200"
    http_version: float | None = None
    domain_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Persistence:
    """Which requests go to the same member again. ``timeout`` in seconds (SOURCE_IP over UDP)."""

    type: str
    cookie_name: str | None = None
    timeout: int | None = None
    granularity: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pool(Thing):
    """Members, and how one of them is chosen."""

    protocol: str
    algorithm: str = "ROUND_ROBIN"
    members: tuple[Member, ...] = ()
    monitor: Monitor | None = None
    persistence: Persistence | None = None

    @property
    def live_members(self) -> tuple[Member, ...]:
        """The members that are part of the data plane, always in the same order."""
        return tuple(sorted((one for one in self.members if one.live), key=lambda one: one.id))

    @property
    def live_monitor(self) -> Monitor | None:
        """The monitor, when there is one and it is switched on."""
        return self.monitor if self.monitor is not None and self.monitor.live else None


@dataclass(frozen=True, kw_only=True)
class L7Rule(Thing):
    """A condition on a request. ``key``: the name of the header or cookie. ``invert``: it holds where it does not match."""

    type: str
    compare_type: str
    value: str
    key: str | None = None
    invert: bool = False


@dataclass(frozen=True, kw_only=True)
class L7Policy(Thing):
    """What happens to requests for which all rules hold. Which of the ``redirect_`` fields counts follows from the action."""

    action: str
    position: int = 1
    rules: tuple[L7Rule, ...] = ()
    redirect_pool_id: str | None = None
    redirect_url: str | None = None
    redirect_prefix: str | None = None
    redirect_http_code: int | None = None

    @property
    def live_rules(self) -> tuple[L7Rule, ...]:
        """The rules that must hold, always in the same order."""
        return tuple(sorted((one for one in self.rules if one.live), key=lambda one: one.id))


@dataclass(frozen=True, kw_only=True)
class Listener(Thing):
    """A port that is answered. Timeouts in milliseconds; ``connection_limit`` None: none."""

    protocol: str
    port: int
    pool_id: str | None = None
    policies: tuple[L7Policy, ...] = ()
    connection_limit: int | None = None
    allowed_cidrs: tuple[str, ...] = ()
    insert_headers: tuple[str, ...] = ()
    timeout_client_data: int = 50000
    timeout_member_connect: int = 5000
    timeout_member_data: int = 50000
    timeout_tcp_inspect: int = 0

    @property
    def live_policies(self) -> tuple[L7Policy, ...]:
        """The policies that can apply, by position. A policy without a rule applies to nothing."""
        return tuple(
            sorted((one for one in self.policies if one.live and one.live_rules), key=lambda one: (one.position, one.id))
        )


@dataclass(frozen=True, kw_only=True)
class LoadBalancer(Thing):
    """The whole tree, with the VIP's place in Neutron. ``additional_vips``: further addresses of the same port."""

    project_id: str | None = None
    vip_address: str
    vip_port_id: str
    vip_subnet_id: str | None = None
    vip_network_id: str | None = None
    additional_vips: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    pools: tuple[Pool, ...] = field(default=())

    def pool(self, pool_id: str | None) -> Pool | None:
        """The pool of that id, if it is part of the data plane."""
        return next((one for one in self.pools if one.id == pool_id and one.live), None)

    def pools_of(self, listener: Listener) -> tuple[Pool, ...]:
        """The live pools that the listener can send clients to: its own first, then those of its policies; each once."""
        wanted = [listener.pool_id, *(one.redirect_pool_id for one in listener.live_policies)]
        found = {one.id: one for one in map(self.pool, wanted) if one is not None}
        return tuple(found.values())

    @property
    def vips(self) -> tuple[str, ...]:
        """All addresses that the listeners answer on, the VIP first."""
        return (self.vip_address, *sorted(self.additional_vips))

    @property
    def live_listeners(self) -> tuple[Listener, ...]:
        """The listeners to be answered, always in the same order; none when the load balancer is switched off."""
        return tuple(sorted((one for one in self.listeners if one.live), key=lambda one: one.id)) if self.live else ()


def things(balancer: LoadBalancer) -> list[tuple[str, Thing]]:
    """Every object of the tree with its kind in Octavia's words, children before parents.

    What is in a pool goes with the pool, and what belongs to a listener goes with the listener.
    """
    found: list[tuple[str, Thing]] = []
    for pool in balancer.pools:
        inner: list[tuple[str, Thing]] = [("members", one) for one in pool.members]
        if pool.monitor:
            inner.append(("healthmonitors", pool.monitor))
        found += [*_with(pool, inner), ("pools", pool)]
    for listener in balancer.listeners:
        inner = []
        for policy in listener.policies:
            rules: list[tuple[str, Thing]] = [("l7rules", one) for one in policy.rules]
            inner += [*_with(policy, rules), ("l7policies", policy)]
        found += [*_with(listener, inner), ("listeners", listener)]
    return [*found, ("loadbalancers", balancer)]


def _with(parent: Thing, children: list[tuple[str, Thing]]) -> list[tuple[str, Thing]]:
    """The children; they are to be deleted where the parent is."""
    if parent.status != PENDING_DELETE:
        return children
    return [(kind, replace(one, status=PENDING_DELETE)) for kind, one in children]


def backend_name(pool_id: str, listener_id: str) -> str:
    """What HAProxy calls the pool as used by that listener (whose timeouts it has)."""
    return f"{pool_id}:{listener_id}"
