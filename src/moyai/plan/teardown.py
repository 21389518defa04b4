"""From a cloud as it is to the steps that remove a cluster: the plan of ``down``.

Pure. Always holds: only what carries the cluster's UID goes, and what hangs on its own network without being anybody's; an
object of another UID is never in a plan. The order is the one that clouds insist on: the control plane first
(its controllers would put back what is taken away), then load balancers, then floating IPs and routes, without which no
router lets go of its interface, then router, ports, subnet, network, groups. Volumes and their snapshots go or stay by the
spec's policy, and stay where it is not known; a machine is shut down before a disk that outlives it is taken off it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import Port, PortUse, Power, Server, Snapshot, Volume
from moyai.core.ids import CLUSTER_TAG, ROLE_KEY
from moyai.plan import steps as s
from moyai.plan.cluster import floating_ip_description, object_name, unique_name
from moyai.plan.observed import Observed, owner, owns, server_owner
from moyai.plan.steps import Delete, Kept, Kind, Plan, Step

#: Tag of floating IPs that outlive their Service, put on by the cloud controller manager.
KEEP_TAG = "moyai.keep=true"


@dataclass(frozen=True)
class Target:
    """Which cluster goes. ``intended``: what the record says was begun (may be untagged).

    ``volumes``: the spec's policy; None where there is no record of the spec, and then they stay.
    """

    name: str
    uid: str
    intended: frozenset[str] = frozenset()
    volumes: Literal["Delete", "Retain"] | None = None


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
        # while its controllers live, they put back what is taken away: routes, load balancers, volumes wait for their machine
        plane_servers = [server for server in self.servers.values() if server.metadata.get(ROLE_KEY) != "worker"]
        machines = {server.id: self._machine(server) for server in plane_servers}
        planes = list(machines.values())
        machines |= {server.id: self._machine(server, planes) for server in self.servers.values() if server.id not in machines}
        balancers = [self._delete("load balancer", lb.id, lb.name, planes) for lb in self._load_balancers()]
        addresses = self._floating_ips([*planes, *balancers])
        self._volumes(list(machines.values()), planes)
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

    def _machine(self, server: Server, planes: Iterable[str] = ()) -> str:
        """The end of a machine; what outlives it is taken off it first, and not while a controller may put it back."""
        staying = [volume for volume in self.now.volumes if server.id in volume.attached_server_ids and self._why_kept(volume)]
        if not staying:
            return self._delete("server", server.id, server.name)
        before = tuple(planes)
        if server.power is not Power.OFF and not server.power.broken:
            stop = s.StopServer(key=f"stop {server.name}", after=before, name=server.name, server_id=server.id)
            self.steps.append(stop)
            before = (stop.key,)
        detached: list[str] = []
        for volume in staying:
            name = volume.name or volume.id
            step = s.DetachVolume(
                key=f"detach {volume.id} from {server.name}",
                after=before,
                name=name,
                volume_id=volume.id,
                server=server.name,
                server_id=server.id,
            )
            self.steps.append(step)
            detached.append(step.key)
        return self._delete("server", server.id, server.name, detached)

    def _mine(self, item: Volume | Snapshot) -> bool:
        return item.metadata.get(CLUSTER_TAG) == self.uid

    def _why_kept(self, volume: Volume) -> str:
        """Why a volume that this cluster made or uses outlives it; empty when it goes."""
        if not self._mine(volume):
            return "not made by the cluster"
        if self.target.volumes != "Delete":
            return self._policy()
        foreign = [snap for snap in self.now.snapshots if snap.volume_id == volume.id and not self._mine(snap)]
        return f"its snapshot {foreign[0].name or foreign[0].id} was not made by the cluster" if foreign else ""

    def _policy(self) -> str:
        if self.target.volumes == "Retain":
            return "spec.volumes.reclaimPolicy is Retain"
        return "there is no record of the spec, so spec.volumes.reclaimPolicy is not known"

    def _volumes(self, machines: list[str], planes: list[str]) -> None:
        # a volume cannot go before its snapshots; they need no machine to be gone but the one whose controllers make them
        gone: dict[str, list[str]] = {}
        for snap in self.now.snapshots:
            if not self._mine(snap):
                continue
            name = snap.name or snap.id
            if self.target.volumes == "Delete":
                gone.setdefault(snap.volume_id, []).append(self._delete("snapshot", snap.id, name, planes))
            else:
                self.kept.append(Kept("snapshot", snap.id, name, self._policy()))
        for volume in self.now.volumes:
            if not self._mine(volume) and not any(server in self.servers for server in volume.attached_server_ids):
                continue
            why, name = self._why_kept(volume), volume.name or volume.id
            if why:
                self.kept.append(Kept("volume", volume.id, name, why))
            else:
                attached = tuple(volume.attached_server_ids)
                self._delete("volume", volume.id, name, [*machines, *gone.get(volume.id, ())], attached)

    def _deletable(self, port: Port) -> bool:
        if not port.use.deletable:
            return False  # the cloud's own (DHCP) or the router's, which go with subnet and interface
        if owner(port) is not None:
            return owns(self.uid, port)
        if port.network_id not in self.networks:
            return False
        alive = {lb.vip_port_id for lb in self.now.load_balancers} - {lb.vip_port_id for lb in self._load_balancers()}
        foreign_machine = port.use is PortUse.MACHINE and port.device_id not in self.servers
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
                inside = port.device_id == router.id and port.use is PortUse.ROUTER
                for subnet_id in port.subnet_ids if inside else ():
                    key = f"take subnet {subnet_id} off {router.name}"
                    if key not in plugs:
                        self.steps.append(
                            s.RemoveInterface(key=key, after=tuple(need), router_id=router.id, subnet_id=subnet_id)
                        )
                        plugs.append(key)
            keys.append(self._delete("router", router.id, router.name, [*need, *plugs]))
        return keys
