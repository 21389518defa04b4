"""A cloud in memory with Octavia's manners: PENDING after each change, 409 while PENDING, trees at creation only, ERROR.

It also keeps floating IPs, security-group rules, routes, ports and servers. Its calls are counted, and it can be told to die.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from moyai.cloud.load_balancers import BalancerState, Health, Listener, LoadBalancer, Member, Monitor, Pool
from moyai.cloud.model import FloatingIP, Network, Port, Power, Route, Router, SecurityGroupRule, Server, SourceAddress, Subnet
from moyai.cloud.openstack import octavia, provider_ids
from moyai.core.errors import Conflict, NotFound, Terminal


class Killed(BaseException):
    """The process ends here."""


PENDING = (BalancerState.BUSY, BalancerState.DELETING)


def at(found: LoadBalancer, status: str) -> LoadBalancer:
    """The load balancer with this status of Octavia."""
    return replace(found, status=status, state=octavia.state(status))


@dataclass
class FakeCloud:
    """``polls``: how many looks at the status a change takes. ``fail_create``: the next creations end in ERROR."""

    polls: int = 2
    fail_create: int = 0
    quota: int = 100
    calls: list[str] = field(default_factory=list[str])
    balancers: dict[str, LoadBalancer] = field(default_factory=dict[str, LoadBalancer])
    floating: dict[str, FloatingIP] = field(default_factory=dict[str, FloatingIP])
    rules: dict[str, SecurityGroupRule] = field(default_factory=dict[str, SecurityGroupRule])
    routes_: set[Route] = field(default_factory=set[Route])
    servers_: list[Server] = field(default_factory=list[Server])
    ports_: dict[str, Port] = field(default_factory=dict[str, Port])
    external: list[Network] = field(default_factory=lambda: [Network("net-public", "public", external=True)])
    die_after: int | None = None
    steps: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._number = 0
        self._left: dict[str, int] = {}

    # --- how it dies

    def tick(self, name: str, after: bool) -> None:
        """One point where the process may end; also for the fake Kubernetes."""
        with self._lock:
            if self.die_after is not None and self.steps >= self.die_after:
                raise Killed
            if after:
                self.steps += 1
                if self.die_after is not None and self.steps >= self.die_after:
                    raise Killed

    def _begin(self, name: str) -> None:
        self.tick(name, after=False)
        self.calls.append(name)

    def _id(self, kind: str) -> str:
        self._number += 1
        return str(UUID(int=self._number << 64)) if kind == "lb" else f"{kind}-{self._number}"

    # --- load balancers

    def load_balancers(self, *, tag: str | None = None, name: str | None = None) -> list[LoadBalancer]:
        with self._lock:
            self._begin("load_balancers")
            return [
                replace(one, listeners=(), loose_pools=())
                for one in self.balancers.values()
                if (tag is None or tag in one.tags) and (name is None or name == one.name)
            ]

    def head(self, load_balancer_id: str) -> LoadBalancer:
        with self._lock:
            self._begin("head")
            found = self._balancer(load_balancer_id)
            if found.state in PENDING:
                self._left[found.id] = self._left.get(found.id, 0) - 1
                if self._left[found.id] <= 0:
                    if found.status == "PENDING_DELETE":
                        del self.balancers[found.id]
                        for one in list(self.floating.values()):
                            if one.port_id == found.vip_port_id:
                                self.floating[one.id] = replace(one, port_id="", status="DOWN")
                        raise NotFound("no such load balancer")
                    failed = found.status == "PENDING_CREATE" and self.fail_create > 0
                    if failed:
                        self.fail_create -= 1
                    found = replace(at(found, "ERROR" if failed else "ACTIVE"), health=Health.ONLINE)
                    self.balancers[found.id] = found
            return replace(found, listeners=(), loose_pools=())

    def get(self, load_balancer_id: str) -> LoadBalancer:
        with self._lock:
            self._begin("get")
            return self._balancer(load_balancer_id)

    def create(self, wanted: LoadBalancer) -> LoadBalancer:
        with self._lock:
            self._begin("create")
            if len(self.balancers) >= self.quota:
                raise Terminal("Octavia: Quota has been met for resources: Load Balancer", hint="raise the quota")
            ident = self._id("lb")
            listeners = tuple(self._listener(one) for one in wanted.listeners)
            made = replace(
                wanted,
                id=ident,
                listeners=listeners,
                vip_port_id=wanted.vip_port_id or f"port-{ident}",
                vip_address=wanted.vip_address or f"10.0.0.{100 + self._number}",
                vip_subnet_id=wanted.vip_subnet_id or "subnet",
                provider=wanted.provider or "moyai",
            )
            made = at(made, "PENDING_CREATE")
            self.balancers[ident] = made
            self._left[ident] = self.polls
            self.tick("create", after=True)
            return replace(made, listeners=())

    def update(
        self,
        load_balancer_id: str,
        *,
        tags: Sequence[str] | None = None,
        description: str | None = None,
        name: str | None = None,
    ) -> None:
        def change(found: LoadBalancer) -> LoadBalancer:
            return replace(found, tags=tuple(tags)) if tags is not None else found

        self._change("update", load_balancer_id, change)

    def delete(self, load_balancer_id: str) -> None:
        with self._lock:
            self._begin("delete")
            if load_balancer_id not in self.balancers:
                return
            found = self._balancer(load_balancer_id)
            if found.state in PENDING:
                raise Conflict("immutable")
            self.balancers[found.id] = at(found, "PENDING_DELETE")
            self._left[found.id] = self.polls
            self.tick("delete", after=True)

    def failover(self, load_balancer_id: str) -> None:
        self._begin("failover")
        raise Terminal("Octavia: Policy does not allow this request to be performed.")

    def create_listener(self, load_balancer_id: str, wanted: Listener) -> Listener:
        made = self._listener(replace(wanted, pool=None))
        self._change("create_listener", load_balancer_id, lambda one: replace(one, listeners=(*one.listeners, made)))
        return made

    def update_listener(self, listener_id: str, changes: Mapping[str, Any]) -> None:
        self._change_listener("update_listener", listener_id, lambda one: replace(one, **changes))

    def delete_listener(self, listener_id: str) -> None:
        def change(found: LoadBalancer) -> LoadBalancer:
            gone = next(one for one in found.listeners if one.id == listener_id)
            loose = (*found.loose_pools, gone.pool) if gone.pool else found.loose_pools
            return replace(found, listeners=tuple(one for one in found.listeners if one.id != listener_id), loose_pools=loose)

        self._change("delete_listener", self._owner(listener_id), change)

    def create_pool(self, wanted: Pool, *, listener_id: str) -> Pool:
        made = replace(wanted, id=self._id("pool"), members=(), monitor=None)
        self._change_listener("create_pool", listener_id, lambda one: replace(one, pool=made))
        return made

    def update_pool(self, pool_id: str, changes: Mapping[str, Any]) -> None:
        self._change_pool("update_pool", pool_id, lambda one: replace(one, **changes))

    def delete_pool(self, pool_id: str) -> None:
        def change(found: LoadBalancer) -> LoadBalancer:
            return replace(
                found,
                loose_pools=tuple(one for one in found.loose_pools if one.id != pool_id),
                listeners=tuple(
                    replace(one, pool=None) if one.pool and one.pool.id == pool_id else one for one in found.listeners
                ),
            )

        self._change("delete_pool", self._owner(pool_id), change)

    def set_members(self, pool_id: str, members: Sequence[Member]) -> None:
        made = tuple(replace(one, id=self._id("member")) for one in members)
        self._change_pool("set_members", pool_id, lambda one: replace(one, members=made))

    def create_monitor(self, pool_id: str, wanted: Monitor) -> Monitor:
        made = replace(wanted, id=self._id("monitor"))
        self._change_pool("create_monitor", pool_id, lambda one: replace(one, monitor=made))
        return made

    def update_monitor(self, monitor_id: str, changes: Mapping[str, Any]) -> None:
        def change(pool: Pool) -> Pool:
            return replace(pool, monitor=replace(pool.monitor, **changes)) if pool.monitor else pool

        self._change_pool("update_monitor", self._pool_of_monitor(monitor_id), change)

    def delete_monitor(self, monitor_id: str) -> None:
        self._change_pool("delete_monitor", self._pool_of_monitor(monitor_id), lambda one: replace(one, monitor=None))

    def _balancer(self, ident: str) -> LoadBalancer:
        if ident not in self.balancers:
            raise NotFound(f"no load balancer {ident}")
        return self.balancers[ident]

    def _listener(self, wanted: Listener) -> Listener:
        pool = wanted.pool
        if pool:
            pool = replace(
                pool,
                id=self._id("pool"),
                members=tuple(replace(one, id=self._id("member")) for one in pool.members),
                monitor=replace(pool.monitor, id=self._id("monitor")) if pool.monitor else None,
            )
        return replace(wanted, id=self._id("listener"), pool=pool)

    def _owner(self, part: str) -> str:
        for one in self.balancers.values():
            ids = {listener.id for listener in one.listeners}
            ids |= {listener.pool.id for listener in one.listeners if listener.pool}
            ids |= {pool.id for pool in one.loose_pools}
            if part in ids:
                return one.id
        raise NotFound(f"no {part}")

    def _pool_of_monitor(self, monitor_id: str) -> str:
        for one in self.balancers.values():
            for listener in one.listeners:
                if listener.pool and listener.pool.monitor and listener.pool.monitor.id == monitor_id:
                    return listener.pool.id
        raise NotFound(f"no {monitor_id}")

    def _change(self, name: str, ident: str, change: Callable[[LoadBalancer], LoadBalancer]) -> None:
        with self._lock:
            self._begin(name)
            found = self._balancer(ident)
            if found.state is not BalancerState.ACTIVE:
                raise Conflict(f"load balancer {ident} is immutable")
            self.balancers[ident] = at(change(found), "PENDING_UPDATE")
            self._left[ident] = self.polls
            self.tick(name, after=True)

    def _change_listener(self, name: str, listener_id: str, change: Callable[[Listener], Listener]) -> None:
        def whole(found: LoadBalancer) -> LoadBalancer:
            return replace(found, listeners=tuple(change(one) if one.id == listener_id else one for one in found.listeners))

        self._change(name, self._owner(listener_id), whole)

    def _change_pool(self, name: str, pool_id: str, change: Callable[[Pool], Pool]) -> None:
        def whole(found: LoadBalancer) -> LoadBalancer:
            return replace(
                found,
                listeners=tuple(
                    replace(one, pool=change(one.pool)) if one.pool and one.pool.id == pool_id else one
                    for one in found.listeners
                ),
            )

        self._change(name, self._owner(pool_id), whole)

    # --- network

    def networks(self, *, tag: str | None = None, external: bool | None = None) -> list[Network]:
        self._begin("networks")
        return self.external

    def subnets(self, *, tag: str | None = None, network_id: str | None = None) -> list[Subnet]:
        self._begin("subnets")
        return [
            Subnet("00000000-0000-0000-0000-00000000000a", "nodes", "net", "10.0.0.0/24"),
            Subnet("subnet", "n", "net", "10.0.0.0/24"),
        ]

    def floating_ips(self, *, tag: str | None = None, port_ids: Collection[str] | None = None) -> list[FloatingIP]:
        with self._lock:
            self._begin("floating_ips")
            return list(self.floating.values())

    def create_floating_ip(
        self,
        *,
        network_id: str,
        port_id: str = "",
        address: str = "",
        description: str = "",
        tags: Sequence[str],
        subnet_id: str = "",
    ) -> FloatingIP:
        with self._lock:
            self._begin("create_floating_ip")
            ident = self._id("fip")
            made = FloatingIP(
                ident, address or f"203.0.113.{self._number}", "ACTIVE", port_id, "", network_id, description, tuple(tags)
            )
            self.floating[ident] = made
            self.tick("create_floating_ip", after=True)
            return made

    def associate_floating_ip(self, floating_ip_id: str, port_id: str | None) -> FloatingIP:
        with self._lock:
            self._begin("associate_floating_ip")
            self.floating[floating_ip_id] = replace(self.floating[floating_ip_id], port_id=port_id or "")
            self.tick("associate_floating_ip", after=True)
            return self.floating[floating_ip_id]

    def delete_floating_ip(self, floating_ip_id: str) -> None:
        with self._lock:
            self._begin("delete_floating_ip")
            self.floating.pop(floating_ip_id, None)
            self.tick("delete_floating_ip", after=True)

    def add_tags(self, kind: str, object_id: str, tags: Sequence[str]) -> None:
        self._begin("add_tags")
        self.floating[object_id] = replace(self.floating[object_id], tags=(*self.floating[object_id].tags, *tags))

    def security_group_rules(self, group_ids: Collection[str]) -> list[SecurityGroupRule]:
        with self._lock:
            self._begin("security_group_rules")
            return [one for one in self.rules.values() if one.group_id in group_ids]

    def create_security_group_rules(self, rules: Sequence[SecurityGroupRule]) -> list[SecurityGroupRule]:
        with self._lock:
            self._begin("create_security_group_rules")
            for one in rules:
                if replace(one, id="") not in {replace(have, id="") for have in self.rules.values()}:
                    ident = self._id("rule")
                    self.rules[ident] = replace(one, id=ident)
            self.tick("create_security_group_rules", after=True)
            return list(rules)

    def delete_security_group_rule(self, rule_id: str) -> None:
        with self._lock:
            self._begin("delete_security_group_rule")
            self.rules.pop(rule_id, None)
            self.tick("delete_security_group_rule", after=True)

    def router(self, router_id: str) -> Router:
        self._begin("router")
        return Router(router_id, "router", routes=tuple(sorted(self.routes_)))

    def add_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        self._begin("add_routes")
        self.routes_ |= set(routes)
        return self.router(router_id)

    def remove_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        self._begin("remove_routes")
        self.routes_ -= set(routes)
        return self.router(router_id)

    def ports(
        self, *, tag: str | None = None, network_id: str | None = None, device_ids: Collection[str] | None = None
    ) -> list[Port]:
        self._begin("ports")
        return [one for one in self.ports_.values() if device_ids is None or one.device_id in device_ids]

    def update_port(
        self,
        port_id: str,
        *,
        send_from: Sequence[SourceAddress] | None = None,
        security_group_ids: Sequence[str] | None = None,
    ) -> Port:
        self._begin("update_port")
        self.ports_[port_id] = replace(self.ports_[port_id], send_from=tuple(send_from or ()))
        return self.ports_[port_id]

    # --- compute

    def provider_id(self, server_id: str) -> str:
        return provider_ids.provider_id(server_id)

    def server_id(self, provider_id: str) -> str | None:
        return provider_ids.server_id(provider_id)

    def servers(self, *, tag: str | None = None) -> list[Server]:
        self._begin("servers")
        return [one for one in self.servers_ if tag is None or tag in one.tags]

    def settled_servers(self, *, tag: str) -> frozenset[str]:
        return frozenset(one.name for one in self.servers(tag=tag) if one.power in (Power.RUNNING, Power.FAILED))

    def server(self, server_id: str) -> Server:
        self._begin("server")
        for one in self.servers_:
            if one.id == server_id:
                return one
        raise NotFound(f"no server {server_id}")
