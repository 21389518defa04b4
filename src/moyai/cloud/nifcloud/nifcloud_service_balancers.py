"""Load balancers of NIFCLOUD for Services (``cloud.service_balancers.ServiceBalancers``). What always holds:

- A load balancer is called by its Service's UID, as the cloud's own controller manager calls it: what either of the two made,
  or half made, the other one carries on.
- Members are the servers of the nodes that are named, by the ids in their provider IDs. No nodes means no members. A node whose
  server is gone is left out, and keeps no other one out.
- A Service that changes its type gets the new load balancer first. The old one goes in the same call.
- A load balancer is its cluster's only if all servers that are its members have the cluster's mark. Names do not say whose
  Service it is, so every other one is left alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from moyai.cloud.nifcloud.balancer_model import PairBalancer
from moyai.cloud.nifcloud.balancer_rules import BalancerRules
from moyai.cloud.nifcloud.instance_calls import InstanceCalls, WireInstance
from moyai.cloud.nifcloud.lan_calls import LanCalls
from moyai.cloud.nifcloud.machines import NifcloudMachines
from moyai.cloud.nifcloud.marks import NAME_LENGTH, read_mark
from moyai.cloud.nifcloud.nifcloud_limits import ELB, Terms
from moyai.cloud.nifcloud.pair_balancers import PairBalancers
from moyai.cloud.nifcloud.service_orders import (
    BalancerOrder,
    balancer_name,
    lasting,
    read_order,
    unknown_annotations,
    wanted_balancer,
)
from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.service_balancers import BackendNode, BalancerChanging, ServedService, ServiceToServe
from moyai.core.errors import UsageError

_NAME = re.compile(rf"[0-9a-f]{{{NAME_LENGTH}}}")


@dataclass(frozen=True)
class BalancerTypes:
    """The two types of load balancers, and the rules that the second one needs."""

    l4: PairBalancers
    elastic: PairBalancers
    rules: BalancerRules


class NifcloudServiceBalancers:
    def __init__(self, wire: Wire, types: BalancerTypes, *, machines: NifcloudMachines, terms: Terms) -> None:
        self._types, self._machines, self._terms = types, machines, terms
        self._instances, self._lans = InstanceCalls(wire), LanCalls(wire)

    def unknown_annotations(self, annotations: Mapping[str, str]) -> list[str]:
        return unknown_annotations(annotations)

    def check(self, service: ServiceToServe) -> None:
        read_order(service)

    def balancer_name(self, uid: str) -> str:
        return balancer_name(uid)

    # ---- making

    def ensure_balancer(self, service: ServiceToServe, nodes: Collection[BackendNode]) -> ServedService:
        order, name = read_order(service), balancer_name(service.uid)
        elastic = order.limits is ELB
        kind, other = (self._types.elastic, self._types.l4) if elastic else (self._types.l4, self._types.elastic)
        found, servers = kind.get(name), self._servers(nodes)
        zone = self._zone(order, servers) if elastic and not (found and found.zone) else ""
        members = {one.name for one in servers}
        wanted = wanted_balancer(order, name=name, members=members, zone=zone, terms=self._terms, found=found)
        groups = {group for one in servers for group in one.groups} if elastic else set[str]()
        ports = {one.node_port for one in wanted.pairs}
        if elastic and found is not None:
            self._types.rules.open(found, groups=groups, ports=ports)
        now = kind.ensure(wanted, checked=True)
        if elastic:
            self._types.rules.open(now, groups=groups, ports=ports)
            self._types.rules.close(now, groups=groups, ports=ports)
        if not now.address:
            raise BalancerChanging(f"load balancer {name} has no address yet", object_id=name)
        changes = changes_in_words(found, now)
        if other.get(name) is not None:
            self._remove(other, name)
            changes = (*changes, f"the load balancer of type {other.limits.name} deleted")
        kept = lasting(order, found) if found else []
        message = f"A load balancer keeps these until its Service is deleted: {'; '.join(kept)}"
        return ServedService(now.address, changes, (("BalancerKeepsSetting", message),) if kept else ())

    def _servers(self, nodes: Collection[BackendNode]) -> list[WireInstance]:
        """Of these nodes, by name. The cloud is not asked about none: it would answer with all."""
        ids = {self._machines.server_id(one.provider_id) for one in nodes} - {None}
        if not ids:
            return []
        found = [one for one in self._instances.all() if one.id in ids and one.state != "terminated"]
        return sorted(found, key=lambda one: one.name)

    def _zone(self, order: BalancerOrder, servers: Collection[WireInstance]) -> str:
        """Of a new elastic load balancer: that of its private LANs, else the zone that has most of its members."""
        networks = {one.network for one in order.arms}
        zones = {one.id: one.zone for one in self._lans.all() if one.id in networks} if order.arms else {}
        if missing := sorted(one for one in networks - zones.keys() if not one.startswith("net-COMMON_")):
            raise UsageError(f"NIFCLOUD has no private LAN {', '.join(missing)}")
        if len(set(zones.values())) > 1:
            named = ", ".join(f"{network} in {zone}" for network, zone in sorted(zones.items()))
            raise UsageError(f"an elastic load balancer is in one zone, and its private LANs are in two: {named}")
        counted = Counter(one.zone for one in servers if one.zone)
        usual = min(counted, key=lambda zone: (-counted[zone], zone), default=self._terms.zone)
        zone = next(iter(zones.values()), "") or usual
        if not zone:
            hint = "wait for nodes, or name a zone in section [Global] of the cloud config"
            raise UsageError("an elastic load balancer is made in the zone of its members, and there are none", hint=hint)
        return zone

    # ---- taking away

    def remove_balancer(self, name: str) -> None:
        for kind in (self._types.l4, self._types.elastic):
            self._remove(kind, name)

    def _remove(self, kind: PairBalancers, name: str) -> None:
        found = kind.get(name)
        if found is None:
            return
        if kind.limits is ELB:
            # while its addresses can still be read: the cloud gives them to somebody else afterwards
            self._types.rules.close(found, groups=(), ports=())
        kind.delete(name)

    def cluster_balancers(self, cluster_uid: str) -> frozenset[str]:
        balancers = [*self._types.l4.all().values(), *self._types.elastic.all().values()]
        named = [one for one in balancers if _NAME.fullmatch(one.name)]
        if not named:
            return frozenset()
        marks = {one.name: read_mark(one.description) for one in self._instances.all()}
        found: set[str] = set()
        for one in named:
            owners = {mark.uid if (mark := marks[server]) else "" for server in _members(one) if server in marks}
            if owners == {cluster_uid}:
                found.add(one.name)
        return frozenset(found)


def _members(balancer: PairBalancer) -> frozenset[str]:
    return frozenset[str]().union(*(one.members for one in balancer.pairs))


def changes_in_words(before: PairBalancer | None, after: PairBalancer) -> tuple[str, ...]:
    """What a user has of it."""
    nodes = len(_members(after))
    if before is None:
        return (f"created with {len(after.pairs)} ports and {nodes} nodes",)
    words: list[str] = []
    has, had = {one.key: one for one in after.pairs}, {one.key: one for one in before.pairs}
    if has.keys() != had.keys():
        words.append(f"ports {', '.join(f'{port}→{node}' for _, port, node in sorted(has))}")
    if _members(before) != _members(after):
        words.append(f"{nodes} nodes")
    both = [(had[key], has[key]) for key in has.keys() & had.keys()]
    if any(old.members != new.members for old, new in both) and _members(before) == _members(after):
        words.append("missing members completed")
    if any(old.check != new.check for old, new in both):
        words.append("health check")
    if any(old.balancing != new.balancing for old, new in both):
        words.append("balancing type")
    if any(old.allowed != new.allowed for old, new in both):
        words.append("allowed ranges")
    if before.volume != after.volume:
        words.append(f"network volume {after.volume}")
    if before.accounting != after.accounting:
        words.append(f"accounting type {after.accounting}")
    return tuple(words)
