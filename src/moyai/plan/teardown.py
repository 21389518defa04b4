"""From a cloud as it is to the steps that remove a cluster: the plan of ``down``.

Pure. Always holds: a plan removes objects that carry the cluster's UID, and objects without any UID on the cluster's own
network. An object of another UID is never in a plan. Where the Kubernetes API answers, Services of type LoadBalancer and pods
with volumes that outlive the cluster end through it before all else (``plan.ending``), since that needs the machines, the
credentials and the API's address. From there the order is the one that clouds insist on. The control plane goes first, since
its controllers would recreate the rest. Load balancers follow, then floating IPs and routes, without which no router lets go of
its interface, then router, ports, subnet, network, groups. The spec's policy decides about volumes and their snapshots; they
stay where it is not known. A machine is shut down before a disk that outlives it is detached from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import Port, PortUse, Power, Router, Server, Snapshot, Volume
from moyai.core.ids import CLUSTER_TAG, KEEP_TAG, ROLE_KEY
from moyai.core.keys import Key, Kind
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.ending import plan_ending
from moyai.plan.existing import GROUPS
from moyai.plan.graph import KeptObject, Plan, ordered
from moyai.plan.load_balancer.names import names_service_of
from moyai.plan.observed import Observed, owner, owns, server_owner
from moyai.plan.steps import Delete, Step, StepId, Verb
from moyai.spec.existing_network import NONE_EXISTING, ExistingNetwork

#: Roles of machines without controllers that would recreate what is removed.
_NO_PLANES = ("worker", "machine")


@dataclass(frozen=True)
class Target:
    """Which cluster goes. ``intended``: what the record says was begun (may be untagged).

    ``existing``: ids of the user's networks that the cluster is in.

    ``volumes``: the spec's policy; None where there is no record of the spec, and then they stay.
    """

    name: str
    uid: str
    intended: frozenset[Key] = frozenset()
    existing: ExistingNetwork = NONE_EXISTING
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
        self.kept: list[KeptObject] = []
        # those beside the cluster's own as well, which an interrupted run may have left untagged
        networks = [key for key in target.intended if key.kind is Kind.NETWORK and key != keys.NETWORK]
        self.networks = {n.id for n in observed.networks if self._ours(n, keys.NETWORK, *networks)}
        self.subnets = {n.id for n in observed.subnets if self._ours(n, keys.SUBNET) or n.network_id in self.networks}
        self.routers = [r for r in observed.routers if self._ours(r, keys.ROUTER)]
        servers = (*observed.servers, *observed.machines)
        self.servers = {server.id: server for server in servers if server_owner(server) == self.uid}
        staying = {volume.id for server in self.servers.values() for volume in self._staying(server)}
        self.ending = plan_ending(observed.in_use, staying)

    def _ours(self, item: object, *wanted: Key) -> bool:
        """By tag, or untagged under the name that an interrupted run meant to give it."""
        if owns(self.uid, item):  # type: ignore[arg-type]
            return True
        if owner(item) is not None or not self.now.may_be_untagged:  # type: ignore[arg-type]
            return False
        name = str(getattr(item, "name", ""))
        return any(key in self.target.intended and name == keys.object_name(self.target.name, key) for key in wanted)

    def plan(self) -> Plan:
        # while its controllers live, they put back what is taken away: routes, load balancers, volumes wait for their machine
        plane_servers = [server for server in self.servers.values() if server.metadata.get(ROLE_KEY) not in _NO_PLANES]
        machines = {server.id: self._machine(server) for server in plane_servers}
        planes = list(machines.values())
        machines |= {server.id: self._machine(server, planes) for server in self.servers.values() if server.id not in machines}
        balancers = [self._delete(Kind.LOAD_BALANCER, lb.id, name=lb.name, after=planes) for lb in self._load_balancers()]
        addresses = self._floating_ips([*planes, *balancers])
        if entrance := self.now.entrance:
            self._delete(Kind.ENTRANCE, entrance.id, name=entrance.name)
        self._volumes(list(machines.values()), planes)
        others = self._routers_of_others(planes, addresses)
        ports = [
            self._delete(
                Kind.PORT,
                port.id,
                name=port.name or port.id,
                # a route of somebody else's router is ours by the port that it leads to
                after=[*self._machine_of(port, machines), *planes, *balancers, *others],
            )
            for port in self.now.ports
            if self._deletable(port)
        ]
        routers = self._routers(planes, addresses)
        subnets = [
            self._delete(Kind.SUBNET, subnet.id, name=subnet.name, after=[*ports, *routers, *others, *balancers])
            for subnet in self.now.subnets
            if subnet.id in self.subnets
        ]
        for network in self.now.networks:
            if network.id in self.networks:
                self._delete(Kind.NETWORK, network.id, name=network.name, after=[*subnets, *ports])
        for group in self.now.groups:
            if self._ours(group, *(keys.security_group(role) for role in GROUPS)):
                self._delete(Kind.SECURITY_GROUP, group.id, name=group.name, after=[*machines.values(), *balancers, *ports])
        for spread in self.now.spread_groups:
            if keys.is_unique_name(spread.name, self.uid):
                self._delete(Kind.SPREAD_GROUP, spread.id, name=spread.name, after=list(machines.values()))
        name = keys.unique_name(self.target.name, self.uid)
        if name in self.now.keypairs:
            self._delete(Kind.KEY_PAIR, name, name=name)
        for credential, identity in self.now.credentials.items():
            if keys.is_unique_name(credential, self.uid):
                self._delete(Kind.CREDENTIAL, identity, name=credential)
        ended = tuple(step.id for step in self.ending[-1:])
        steps = self._after_served() if self.now.served else self.steps
        removal = [step if step.after else replace(step, after=ended) for step in steps]
        return Plan(ordered([*self.ending, *removal]), kept=tuple(self.kept))

    def _after_served(self) -> list[Step]:
        """With the end of the load balancers that the cloud made for Services before that of the machines: by their members
        alone they are known as the cluster's."""
        machines = [step for step in self.steps if isinstance(step, Delete) and step.kind is Kind.SERVER]
        self.steps = [step for step in self.steps if step not in machines]
        served = tuple(self._delete(Kind.LOAD_BALANCER, name, name=name) for name in sorted(self.now.served))
        return [*self.steps, *(replace(step, after=(*step.after, *served)) for step in machines)]

    def _delete(self, kind: Kind, identity: str, *, name: str, after: Iterable[StepId] = ()) -> StepId:
        key, detail = Key(kind, name), ""
        if any(step.id == s.deleted(key) for step in self.steps):
            detail = f"({identity})"
        step = Delete(key=key, after=tuple(after), detail=detail, object_id=identity)
        self.steps.append(step)
        return step.id

    def _load_balancers(self) -> list[LoadBalancer]:
        def ours(lb: LoadBalancer) -> bool:
            if owner(lb) is not None:
                return owns(self.uid, lb)
            # an untagged one with a Service's name on our own subnet: made by an interrupted controller
            return names_service_of(self.target.name, lb.name) and lb.vip_subnet_id in self.subnets

        return [lb for lb in self.now.load_balancers if ours(lb)]

    def _floating_ips(self, after: list[StepId]) -> list[StepId]:
        own_ports = {port.id for port in self.now.ports if port.network_id in self.networks or owns(self.uid, port)}
        begun_machines = [key.name for key in self.target.intended if key.kind is Kind.FLOATING_IP and key.name]
        machines = [keys.machine_address_description(self.uid, one) for one in begun_machines]
        gone: list[StepId] = []
        for fip in self.now.floating_ips:
            described = (keys.api_address_description(self.uid), *machines)
            begun = fip.description in described and owner(fip) is None and self.now.may_be_untagged
            if KEEP_TAG in fip.tags and (owns(self.uid, fip) or fip.port_id in own_ports):
                self.kept.append(KeptObject(Kind.FLOATING_IP, fip.id, fip.address, "its Service asked to keep it"))
            elif owns(self.uid, fip) or begun:
                # no controller uses the API's own address; those of Services belong to their controller while it lives
                own = fip.description in described
                gone.append(self._delete(Kind.FLOATING_IP, fip.id, name=fip.address, after=() if own else after))
            elif fip.port_id in own_ports:
                # a user's own address on a port of the cluster: it stays, and becomes free when the port goes
                self.kept.append(KeptObject(Kind.FLOATING_IP, fip.id, fip.address, "not made by the cluster"))
        return gone

    def _machine(self, server: Server, planes: Iterable[StepId] = ()) -> StepId:
        """The end of a machine; what outlives it is taken off it first, and not while a controller may put it back."""
        staying = self._staying(server)
        if not staying:
            return self._delete(Kind.SERVER, server.id, name=server.name)
        before = tuple(planes)
        if server.power is not Power.OFF and not server.power.broken:
            volumes = tuple(volume.id for volume in staying)
            stop = s.StopServer(key=Key(Kind.SERVER, server.name), after=before, server_id=server.id, volume_ids=volumes)
            self.steps.append(stop)
            before = (stop.id,)
        detached: list[StepId] = []
        for volume in staying:
            step = s.DetachVolume(
                key=Key(Kind.VOLUME, volume.name or volume.id),
                after=before,
                detail=f"from {server.name} ({volume.id})",
                volume_id=volume.id,
                server=server.name,
                server_id=server.id,
            )
            self.steps.append(step)
            detached.append(step.id)
        return self._delete(Kind.SERVER, server.id, name=server.name, after=detached)

    def _staying(self, server: Server) -> list[Volume]:
        return [volume for volume in self.now.volumes if server.id in volume.attached_server_ids and self._why_kept(volume)]

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

    def _volumes(self, machines: list[StepId], planes: list[StepId]) -> None:
        # a volume cannot go before its snapshots; they need no machine to be gone but the one whose controllers make them
        gone: dict[str, list[StepId]] = {}
        for snap in self.now.snapshots:
            if not self._mine(snap):
                continue
            name = snap.name or snap.id
            if self.target.volumes == "Delete":
                gone.setdefault(snap.volume_id, []).append(self._delete(Kind.SNAPSHOT, snap.id, name=name, after=planes))
            else:
                self.kept.append(KeptObject(Kind.SNAPSHOT, snap.id, name, self._policy()))
        for volume in self.now.volumes:
            if not self._mine(volume) and not any(server in self.servers for server in volume.attached_server_ids):
                continue
            why, name = self._why_kept(volume), volume.name or volume.id
            if why:
                self.kept.append(KeptObject(Kind.VOLUME, volume.id, name, why))
            else:
                free = [self._free(volume, machines)] if volume.attached_server_ids else []
                self._delete(Kind.VOLUME, volume.id, name=name, after=[*machines, *free, *gone.get(volume.id, ())])

    def _free(self, volume: Volume, machines: list[StepId]) -> StepId:
        key = Key(Kind.CONDITION, f"volume {volume.name or volume.id} free")
        detail = f"({volume.id})" if any(step.id == s.reached(key) for step in self.steps) else ""
        step = s.WaitFree(key=key, after=tuple(machines), detail=detail, volume=volume.name or volume.id, volume_id=volume.id)
        self.steps.append(step)
        return step.id

    def _deletable(self, port: Port) -> bool:
        if not port.use.deletable:
            return False  # the cloud's own (DHCP) or the router's, which go with subnet and interface
        if owner(port) is not None:
            return owns(self.uid, port)
        if port.network_id == self.target.existing.network:
            return self.now.may_be_untagged and keys.port(port.name) in self.target.intended
        if port.network_id not in self.networks:
            return False
        alive = {lb.vip_port_id for lb in self.now.load_balancers} - {lb.vip_port_id for lb in self._load_balancers()}
        foreign_machine = port.use is PortUse.MACHINE and port.device_id not in self.servers
        return port.id not in alive and not (foreign_machine and port.device_id)

    def _machine_of(self, port: Port, machines: Mapping[str, StepId]) -> list[StepId]:
        return [machines[port.device_id]] if port.device_id in machines else []

    def _routers(self, planes: list[StepId], addresses: list[StepId]) -> list[StepId]:
        gone: list[StepId] = []
        for router in self.routers:
            need = [*planes, *addresses]
            if router.routes:
                # a router does not let go of an interface that its routes lead over
                routes = s.RemoveRoutes(
                    key=keys.ROUTES, after=tuple(planes), detail=f"of {router.name}", router_id=router.id, routes=router.routes
                )
                self.steps.append(routes)
                need.append(routes.id)
            plugs = self._unplug(router, need)
            gone.append(self._delete(Kind.ROUTER, router.id, name=router.name, after=[*need, *plugs]))
        return gone

    def _unplug(self, router: Router, need: Iterable[StepId], *, only: Collection[str] | None = None) -> list[StepId]:
        """Takes the router off its subnets, or ``only`` off these."""
        plugs: list[StepId] = []
        for port in self.now.ports:
            inside = port.device_id == router.id and port.use is PortUse.ROUTER
            for subnet_id in port.subnet_ids if inside else ():
                off = StepId(Verb.REMOVE, keys.INTERFACE, f"of subnet {subnet_id} on {router.name}")
                if off not in plugs and (only is None or subnet_id in only):
                    self.steps.append(
                        s.RemoveInterface(
                            key=off.key, after=tuple(need), detail=off.detail, router_id=router.id, subnet_id=subnet_id
                        )
                    )
                    plugs.append(off)
        return plugs

    def _routers_of_others(self, planes: list[StepId], addresses: list[StepId]) -> list[StepId]:
        """Takes off routers that stay what the cluster has there: routes to its machines, interfaces in its subnets."""
        own = {router.id for router in self.routers}
        gone: list[StepId] = []
        for router in self.now.routers:
            if router.id in own:
                continue
            need = [*planes, *addresses]
            # other networks may have machines with the same addresses
            legs = (one for one in self.now.ports if one.device_id == router.id and one.use is PortUse.ROUTER)
            near = {one.network_id for one in legs}
            ports = (one for one in self.now.ports if owns(self.uid, one) and one.network_id in near)
            mine = {address for one in ports for address in one.fixed_ips}
            if routes := tuple(route for route in router.routes if route.nexthop in mine):
                step = s.RemoveRoutes(
                    key=keys.ROUTES, after=tuple(planes), detail=f"of {router.name}", router_id=router.id, routes=routes
                )
                self.steps.append(step)
                need.append(step.id)
                gone.append(step.id)
            gone += self._unplug(router, need, only=self.subnets)
        return gone
