"""From a cloud as it is to the steps that remove a cluster: the plan of ``down``.

Pure. Always holds: only what carries the cluster's UID goes, and what hangs on its own network without being anybody's; an
object of another UID is never in a plan. The order is the one that clouds insist on: the control plane first
(its controllers would put back what is taken away), then load balancers, then floating IPs and routes, without which no
router lets go of its interface, then router, ports, subnet, network, groups. Volumes go or stay by the spec's policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from moyai.cloud.loadbalancer import LoadBalancer
from moyai.cloud.model import Port, Volume
from moyai.core.ids import CLUSTER_TAG, ROLE_KEY
from moyai.plan import steps as s
from moyai.plan.cluster import floating_ip_description, object_name, unique_name
from moyai.plan.observed import Observed, owner, owns, server_owner
from moyai.plan.steps import Delete, Kept, Kind, Plan, Step

#: Tag of floating IPs that outlive their Service, put on by the cloud controller manager.
KEEP_TAG = "moyai.keep=true"


@dataclass(frozen=True)
class Target:
    """Which cluster goes. ``intended``: what the record says was begun (may be untagged). ``volumes``: the spec's policy."""

    name: str
    uid: str
    intended: frozenset[str] = frozenset()
    volumes: Literal["Delete", "Retain"] = "Delete"


@dataclass(frozen=True)
class Found:
    """An object of the cluster, as it is listed in the cloud."""

    kind: Kind
    object_id: str
    name: str


def owned(observed: Observed, target: Target) -> tuple[Found, ...]:
    """Everything in the cloud that is the cluster's, for plans and reports."""
    plan = plan_down(observed, target)
    found = [Found(step.kind, step.object_id, step.name) for step in plan.steps if isinstance(step, Delete)]
    return tuple(found)


def plan_down(observed: Observed, target: Target) -> Plan:
    """What is to be done so that nothing of the cluster is left in the cloud."""
    return _Teardown(observed, target).plan()


class _Teardown:
    def __init__(self, observed: Observed, target: Target) -> None:
        self.now = observed
        self.target = target
        self.uid = target.uid
        self.steps: list[Step] = []
        self.kept: list[Kept] = []
        self.networks = {n.id for n in observed.networks if self._ours(n, s.NETWORK)}
        self.subnets = {n.id for n in observed.subnets if self._ours(n, s.SUBNET) or n.network_id in self.networks}
        self.routers = [r for r in observed.routers if self._ours(r, s.ROUTER)]
        self.servers = {server.id: server for server in observed.servers if server_owner(server) == self.uid}

    def _ours(self, item: object, *keys: str) -> bool:
        """By tag, or untagged under the name that an interrupted run meant to give it."""
        if owns(self.uid, item):  # type: ignore[arg-type]
            return True
        if owner(item) is not None:  # type: ignore[arg-type]
            return False
        name = str(getattr(item, "name", ""))
        return any(key in self.target.intended and name == object_name(self.target.name, key) for key in keys)

    def plan(self) -> Plan:
        machines = {server.id: self._delete("server", server.id, server.name) for server in self.servers.values()}
        # while its controllers live, they put back what is taken away: routes and load balancers wait for their machine
        planes = [machines[i] for i, server in self.servers.items() if server.metadata.get(ROLE_KEY) != "worker"]
        balancers = [self._delete("load balancer", lb.id, lb.name, planes) for lb in self._load_balancers()]
        addresses = self._floating_ips([*planes, *balancers])
        self._volumes(list(machines.values()))
        ports = [
            self._delete("port", port.id, port.name or port.id, [*self._machine_of(port, machines), *planes, *balancers])
            for port in self.now.ports
            if self._deletable(port)
        ]
        routers = self._routers(planes, addresses)
        subnets = [
            self._delete("subnet", subnet.id, subnet.name, [*ports, *routers, *balancers])
            for subnet in self.now.subnets
            if subnet.id in self.subnets
        ]
        for network in self.now.networks:
            if network.id in self.networks:
                self._delete("network", network.id, network.name, [*subnets, *ports])
        for group in self.now.groups:
            if self._ours(group, s.group_key("control-plane"), s.group_key("worker")):
                self._delete("security group", group.id, group.name, [*machines.values(), *balancers, *ports])
        name = unique_name(self.target.name, self.uid)
        if name in self.now.keypairs:
            self._delete("key pair", name, name)
        for credential, identity in self.now.credentials.items():
            if credential.endswith(self.uid):
                self._delete("credential", identity, credential)
        return Plan(tuple(self.steps), kept=tuple(self.kept))

    def _delete(
        self, kind: Kind, identity: str, name: str, after: Iterable[str] = (), attached_to: tuple[str, ...] = ()
    ) -> str:
        key = f"delete {kind} {name}"
        if any(step.key == key for step in self.steps):
            key = f"{key} ({identity})"
        self.steps.append(
            Delete(
                key=key, after=tuple(dict.fromkeys(after)), kind=kind, object_id=identity, name=name, attached_to=attached_to
            )
        )
        return key

    def _load_balancers(self) -> list[LoadBalancer]:
        prefix = f"kube_service_{self.target.name}_"

        def ours(lb: LoadBalancer) -> bool:
            if owner(lb) is not None:
                return owns(self.uid, lb)
            # an untagged one with a Service's name on our own subnet: made by an interrupted controller
            return lb.name.startswith(prefix) and lb.vip_subnet_id in self.subnets

        return [lb for lb in self.now.load_balancers if ours(lb)]

    def _floating_ips(self, after: list[str]) -> list[str]:
        own_ports = {port.id for port in self.now.ports if port.network_id in self.networks}
        keys: list[str] = []
        for fip in self.now.floating_ips:
            begun = fip.description == floating_ip_description(self.uid) and owner(fip) is None
            if KEEP_TAG in fip.tags and (owns(self.uid, fip) or fip.port_id in own_ports):
                self.kept.append(Kept("floating ip", fip.id, fip.address, "its Service asked to keep it"))
            elif owns(self.uid, fip) or begun:
                # the API's own one is nobody's business any more; those of Services are their controller's while it lives
                own = fip.description == floating_ip_description(self.uid)
                keys.append(self._delete("floating ip", fip.id, fip.address, () if own else after))
            elif fip.port_id in own_ports:
                # somebody's own address on one of our ports: it stays his, and comes free with the port
                self.kept.append(Kept("floating ip", fip.id, fip.address, "not made by the cluster"))
        return keys

    def _volumes(self, after: list[str]) -> None:
        for volume in self.now.volumes:
            if volume.metadata.get(CLUSTER_TAG) == self.uid:
                if self.target.volumes == "Retain":
                    self.kept.append(
                        Kept("volume", volume.id, volume.name or volume.id, "spec.volumes.reclaimPolicy is Retain")
                    )
                else:
                    attached = tuple(volume.attached_server_ids)
                    self._delete("volume", volume.id, volume.name or volume.id, after, attached)
            elif self._on_our_server(volume):
                self.kept.append(Kept("volume", volume.id, volume.name or volume.id, "not made by the cluster"))

    def _on_our_server(self, volume: Volume) -> bool:
        return any(server in self.servers for server in volume.attached_server_ids)

    def _deletable(self, port: Port) -> bool:
        if port.device_owner.startswith("network:"):
            return False  # the cloud's own (DHCP) or the router's, which go with subnet and interface
        if owner(port) is not None:
            return owns(self.uid, port)
        if port.network_id not in self.networks:
            return False
        alive = {lb.vip_port_id for lb in self.now.load_balancers} - {lb.vip_port_id for lb in self._load_balancers()}
        foreign_machine = port.device_owner.startswith("compute:") and port.device_id not in self.servers
        return port.id not in alive and not (foreign_machine and port.device_id)

    def _machine_of(self, port: Port, machines: Mapping[str, str]) -> list[str]:
        return [machines[port.device_id]] if port.device_id in machines else []

    def _routers(self, planes: list[str], addresses: list[str]) -> list[str]:
        keys: list[str] = []
        for router in self.routers:
            need = [*planes, *addresses]
            if router.routes:
                # a router does not let go of an interface that its routes lead over
                key = f"remove routes of {router.name}"
                self.steps.append(s.ClearRoutes(key=key, after=tuple(planes), router_id=router.id, routes=router.routes))
                need.append(key)
            plugs: list[str] = []
            for port in self.now.ports:
                inside = port.device_id == router.id and port.device_owner.startswith("network:router_interface")
                for subnet_id in port.subnet_ids if inside else ():
                    key = f"take subnet {subnet_id} off {router.name}"
                    if key not in plugs:
                        self.steps.append(
                            s.RemoveInterface(key=key, after=tuple(need), router_id=router.id, subnet_id=subnet_id)
                        )
                        plugs.append(key)
            keys.append(self._delete("router", router.id, router.name, [*need, *plugs]))
        return keys
