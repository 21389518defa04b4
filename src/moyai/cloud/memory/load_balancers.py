"""Load balancers, as Octavia has them: trees at creation only, busy after each change, and no change while busy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from moyai.cloud.load_balancers import BalancerState, Health, Listener, LoadBalancer, Member, Monitor, Pool
from moyai.cloud.memory import balancer_tree as tree
from moyai.cloud.memory.addresses import unplug
from moyai.cloud.memory.session import api
from moyai.cloud.memory.subnet_addresses import MemoryRanges
from moyai.cloud.model import Port, PortUse
from moyai.core.errors import Conflict, NotFound, Terminal


class MemoryLoadBalancers(MemoryRanges):
    service = "load_balancers"

    @api
    def load_balancers(self, *, tag: str | None = None, name: str | None = None) -> list[LoadBalancer]:
        found = self._listed(self._store.balancers, tag) if name is None else self._store.balancers.by("name", name)
        return [tree.head(one) for one in found if tag is None or tag in one.tags]

    @api
    def providers(self) -> list[str]:
        return ["memory"]

    @api
    def head(self, load_balancer_id: str) -> LoadBalancer:
        return tree.head(self._find(self._store.balancers, load_balancer_id))

    @api
    def get(self, load_balancer_id: str) -> LoadBalancer:
        return self._find(self._store.balancers, load_balancer_id)

    @api
    def create(self, wanted: LoadBalancer) -> LoadBalancer:
        store = self._store
        store.take("load_balancer")
        made = tree.planted(wanted, store.new_id)
        broken = store.faults.breakage("load_balancers.create", wanted.name)
        goal = BalancerState.FAILED if broken else BalancerState.ACTIVE
        vip, own = self._vip(made)
        made = replace(
            made,
            vip_port_id=vip.id,
            vip_address=vip.fixed_ips[0],
            vip_subnet_id=vip.subnet_ids[0],
            vip_network_id=vip.network_id,
            provider=wanted.provider or "memory",
            tags=tuple(sorted(wanted.tags)),
        )
        made = _at(made, BalancerState.BUSY)
        with self._change():
            if own:
                store.ports.put(vip)
            self._put(made)
            store.later(store.delays.balancer, lambda: self._done(made.id, goal))
        return tree.head(made)

    def _vip(self, wanted: LoadBalancer) -> tuple[Port, bool]:
        """The port of its address, and whether it is the load balancer's own."""
        store = self._store
        if wanted.vip_port_id:
            return self._find(store.ports, wanted.vip_port_id), False
        subnets = store.subnets.by("network", wanted.vip_network_id) if wanted.vip_network_id else []
        subnet = store.subnets.get(wanted.vip_subnet_id) if wanted.vip_subnet_id else next(iter(subnets), None)
        if subnet is None:
            raise self._refused(Terminal, "Validation failure: VIP must contain one of: port_id, network_id, subnet_id.")
        store.take("port")
        address = self._choose(subnet, wanted.vip_address)
        name = f"octavia-lb-{wanted.id}"
        port = Port(store.new_id(), name, subnet.network_id, "ACTIVE", (address,), (subnet.id,))
        return replace(port, device_id=f"lb-{wanted.id}", use=PortUse.OTHER), True

    @api
    def update(
        self,
        load_balancer_id: str,
        *,
        tags: Sequence[str] | None = None,
        description: str | None = None,
        name: str | None = None,
    ) -> None:
        changes: dict[str, Any] = {} if tags is None else {"tags": tuple(sorted(tags))}
        changes |= {key: value for key, value in (("description", description), ("name", name)) if value is not None}
        self._alter(load_balancer_id, lambda one: replace(one, **changes))

    @api
    def delete(self, load_balancer_id: str) -> None:
        found = self._store.balancers.get(load_balancer_id)
        if found is None:
            return
        if found.state not in (BalancerState.ACTIVE, BalancerState.FAILED):
            raise self._immutable(load_balancer_id)
        with self._change():
            self._store.balancers.put(_at(found, BalancerState.DELETING))
            self._store.later(self._store.delays.balancer, lambda: self._gone(load_balancer_id))

    @api
    def failover(self, load_balancer_id: str) -> None:
        raise self._refused(Terminal, "Policy does not allow this request to be performed.", object_id=load_balancer_id)

    @api
    def create_listener(self, load_balancer_id: str, wanted: Listener) -> Listener:
        made = tree.listener(replace(wanted, pool=None), self._store.new_id)

        def add(one: LoadBalancer) -> LoadBalancer:
            if any(other.key == made.key for other in one.listeners):
                words = f"Another Listener on this Load Balancer is already using protocol_port {made.port}"
                raise self._refused(Conflict, words, object_id=load_balancer_id)
            return replace(one, listeners=(*one.listeners, made))

        self._alter(load_balancer_id, add)
        return made

    @api
    def update_listener(self, listener_id: str, changes: Mapping[str, Any]) -> None:
        self._alter(self._owner(listener_id), lambda one: tree.change_listener(one, listener_id, changes=changes))

    @api
    def delete_listener(self, listener_id: str) -> None:
        self._remove(listener_id, lambda one: tree.without_listener(one, listener_id))

    @api
    def create_pool(self, wanted: Pool, *, listener_id: str) -> Pool:
        made = replace(wanted, id=self._store.new_id(), members=(), monitor=None)

        def add(one: LoadBalancer) -> LoadBalancer:
            if any(other.pool for other in one.listeners if other.id == listener_id):
                raise self._refused(Conflict, "Listener already has a default pool", object_id=listener_id)
            return tree.change_listener(one, listener_id, changes={"pool": made})

        self._alter(self._owner(listener_id), add)
        return made

    @api
    def update_pool(self, pool_id: str, changes: Mapping[str, Any]) -> None:
        self._alter(
            self._owner(pool_id), lambda one: tree.change_pool(one, pool_id, change=lambda pool: replace(pool, **changes))
        )

    @api
    def delete_pool(self, pool_id: str) -> None:
        self._remove(pool_id, lambda one: tree.without_pool(one, pool_id))

    @api
    def set_members(self, pool_id: str, members: Sequence[Member]) -> None:
        def change(pool: Pool) -> Pool:
            known = {one.key: one.id for one in pool.members}
            made = tuple(replace(one, id=known.get(one.key) or self._store.new_id()) for one in members)
            return replace(pool, members=made)

        self._alter(self._owner(pool_id), lambda one: tree.change_pool(one, pool_id, change=change))

    @api
    def create_monitor(self, pool_id: str, wanted: Monitor) -> Monitor:
        made = replace(wanted, id=self._store.new_id())

        def change(pool: Pool) -> Pool:
            if pool.monitor:
                raise self._refused(Conflict, "This pool already has a health monitor", object_id=pool_id)
            return replace(pool, monitor=made)

        self._alter(self._owner(pool_id), lambda one: tree.change_pool(one, pool_id, change=change))
        return made

    @api
    def update_monitor(self, monitor_id: str, changes: Mapping[str, Any]) -> None:
        if "type" in changes:
            raise self._refused(Terminal, "the type of a health monitor cannot change", object_id=monitor_id)
        self._alter(
            self._owner(monitor_id),
            lambda one: tree.change_monitor(one, monitor_id, change=lambda found: replace(found, **changes)),
        )

    @api
    def delete_monitor(self, monitor_id: str) -> None:
        self._remove(monitor_id, lambda one: tree.change_monitor(one, monitor_id, change=lambda _: None))

    # ---- what happens inside

    def _owner(self, part: str) -> str:
        found = self._store.balancer_parts.get(part)
        if found is None:
            raise self._refused(NotFound, f"the cloud knows no such object: {part}", object_id=part)
        return found

    def _alter(self, balancer_id: str, change: Callable[[LoadBalancer], LoadBalancer]) -> None:
        found: LoadBalancer = self._find(self._store.balancers, balancer_id)
        if found.state is not BalancerState.ACTIVE:
            raise self._immutable(balancer_id)
        changed = _at(change(found), BalancerState.BUSY)
        with self._change():
            self._put(changed)
            self._store.later(self._store.delays.balancer, lambda: self._done(balancer_id, BalancerState.ACTIVE))

    def _remove(self, part: str, change: Callable[[LoadBalancer], LoadBalancer]) -> None:
        """What is gone is success."""
        with suppress(NotFound):
            self._alter(self._owner(part), change)

    def _immutable(self, balancer_id: str) -> Conflict:
        return self._refused(
            Conflict, f"Load Balancer {balancer_id} is immutable and cannot be updated.", object_id=balancer_id
        )

    def _put(self, balancer: LoadBalancer) -> None:
        parts = self._store.balancer_parts
        if before := self._store.balancers.get(balancer.id):
            for part in tree.parts(before):
                parts.pop(part, None)
        parts.update(dict.fromkeys(tree.parts(balancer), balancer.id))
        self._store.balancers.put(balancer)

    def _done(self, balancer_id: str, state: BalancerState) -> None:
        found = self._store.balancers.get(balancer_id)
        if found is not None and found.state is BalancerState.BUSY:
            health = Health.ONLINE if state is BalancerState.ACTIVE else Health.FAILED
            self._store.balancers.put(replace(_at(found, state), health=health))

    def _gone(self, balancer_id: str) -> None:
        store = self._store
        found = store.balancers.drop(balancer_id)
        if found is None:
            return
        for part in tree.parts(found):
            store.balancer_parts.pop(part, None)
        for port in store.ports.by("device", f"lb-{balancer_id}"):
            unplug(store, port.id)
            store.ports.drop(port.id)


def _at(found: LoadBalancer, state: BalancerState) -> LoadBalancer:
    return replace(found, state=state, status=state.value)
