"""From a spec and a cloud as it is to the steps that are missing: the plan of ``up``.

Pure: the same input gives the same plan. Always holds: nothing is planned twice that is there already (found by tag, or by name
when an interrupted run meant to make it); objects of other clusters are never in a plan; a plan that the cloud cannot hold, or
a spec that names what the cloud has not, is refused here, before anything is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from moyai.cloud.model import Port, Power, Route, Server, SourceAddress
from moyai.core.errors import Terminal
from moyai.plan import steps as s
from moyai.plan.capacity import check_capacity
from moyai.plan.demands import Choices, choose
from moyai.plan.nodes import Node, allocation_pool, wanted_nodes
from moyai.plan.observed import Observed, Recorded, Tagged, owner, owns, server_owner
from moyai.plan.rules import missing_rules, wanted_rules
from moyai.plan.steps import Plan, Step
from moyai.spec.model import Cluster


def object_name(cluster: str, key: str) -> str:
    """The name in the cloud of the object that ``key`` stands for."""
    what = key.removeprefix("group ").removeprefix("port ").removeprefix("server ")
    return what if key.startswith(("port ", "server ")) else f"{cluster}-{what}"


def unique_name(cluster: str, uid: str, what: str = "") -> str:
    """Name of what cannot carry a tag (key pair, application credential): it ends with the UID itself."""
    return f"{cluster}-{what}-{uid}" if what else f"{cluster}-{uid}"


def floating_ip_description(uid: str) -> str:
    return f"moyai.cluster={uid} api"


def plan_up(cluster: Cluster, observed: Observed, recorded: Recorded) -> Plan:
    """What is to be done so that the cloud holds this cluster. Raises UsageError or Terminal when it cannot be."""
    return _Planner(cluster, observed, recorded).plan()


class _Planner:
    def __init__(self, cluster: Cluster, observed: Observed, recorded: Recorded) -> None:
        self.cluster = cluster
        self.spec = cluster.spec
        self.now = observed
        self.past = recorded
        self.uid = recorded.uid
        self.steps: list[Step] = []
        self.known: dict[str, str] = {}
        self.notes: list[str] = []

    def plan(self) -> Plan:
        choices = choose(self.cluster, self.now)
        own_servers = {server.name: server for server in self.now.servers if server_owner(server) == self.uid}
        self._refuse_taken_name(own_servers)
        nodes = wanted_nodes(
            self.cluster,
            zones=self.now.zones,
            seats=self.past.seats,
            used_addresses=[ip for port in self.now.ports if port.name not in self.past.seats for ip in port.fixed_ips],
        )
        self._network(choices)
        self._groups()
        leaving = self._leaving(nodes, own_servers)
        self._ports(nodes, leaving)
        self._routes(nodes, leaving)
        self._floating_ip(choices, nodes)
        self._key_pair()
        self._credential(s.CREDENTIAL, unique_name(self.cluster.name, self.uid))
        self._credential(s.VOLUMES_CREDENTIAL, unique_name(self.cluster.name, self.uid, "volumes"))
        self._servers(nodes, own_servers, choices)
        self._remove(leaving, own_servers)
        self._machines_first()
        check_capacity(self.cluster, self.now, self.steps, nodes)
        return Plan(tuple(self.steps), nodes, self.known, tuple(self.notes))

    # ---- finding what is there

    def _refuse_taken_name(self, own_servers: Mapping[str, Server]) -> None:
        if self.past.intended or own_servers:
            return
        name = object_name(self.cluster.name, s.NETWORK)
        for network in self.now.networks:
            if network.name == name:
                other = owner(network)
                hint = (
                    f"`moyai down --cloud {self.spec.cloud} --uid {other}` removes that one"
                    if other
                    else f"network {network.id} has that name and is no cluster's"
                )
                whose = f"by cluster {other}" if other else "by somebody else's network"
                raise Terminal(
                    f"metadata.name: {self.cluster.name!r} is taken in cloud {self.spec.cloud} {whose}",
                    hint=f"choose another name; {hint}",
                )

    def _find(self, key: str, kind: Any, candidates: Iterable[Any], name: str = "") -> Any | None:
        """The object for ``key``, if there is one; plans to tag it when an interrupted run of ours left it untagged."""
        name = name or object_name(self.cluster.name, key)
        named = sorted((item for item in candidates if item.name == name), key=lambda item: str(item.id))
        found = next((item for item in named if owns(self.uid, item)), None)
        if found is None and key in self.past.intended:
            found = next((item for item in named if _unowned(item)), None)
            if found is not None:
                self.steps.append(s.Adopt(key=f"adopt {key}", kind=kind, object_id=found.id, name=name))
        if found is not None:
            self.known[key] = found.id
        return found

    def _need(self, *keys: str) -> tuple[str, ...]:
        """Those of the keys that this plan makes."""
        planned = {step.key for step in self.steps}
        return tuple(key for key in keys if key in planned)

    # ---- network

    def _network(self, choices: Choices) -> None:
        name = self.cluster.name
        network = self._find(s.NETWORK, "network", self.now.networks)
        if network is None:
            self.steps.append(s.CreateNetwork(key=s.NETWORK, name=object_name(name, s.NETWORK)))
        subnets = [subnet for subnet in self.now.subnets if network is not None and subnet.network_id == network.id]
        subnet = self._find(s.SUBNET, "subnet", subnets)
        addresses = self.spec.network
        if subnet is None:
            self.steps.append(
                s.CreateSubnet(
                    key=s.SUBNET,
                    after=self._need(s.NETWORK),
                    name=object_name(name, s.SUBNET),
                    cidr=str(addresses.node_cidr),
                    dns=tuple(str(server) for server in addresses.dns),
                    pool=allocation_pool(addresses.node_cidr),
                )
            )
        router = self._find(s.ROUTER, "router", self.now.routers)
        if router is None:
            self.steps.append(s.CreateRouter(key=s.ROUTER, name=object_name(name, s.ROUTER)))
        self.router = router
        if router is None or not router.external_network_id:
            outside = choices.external_network.id
            self.steps.append(s.SetGateway(key=s.GATEWAY, after=self._need(s.ROUTER), network_id=outside))
        plugged = (
            router is not None
            and subnet is not None
            and any(port.device_id == router.id and subnet.id in port.subnet_ids for port in self.now.ports)
        )
        if not plugged:
            # behind the gateway: a connection that passes a router before it translates addresses is never answered
            self.steps.append(s.AddInterface(key=s.INTERFACE, after=self._need(s.SUBNET, s.ROUTER, s.GATEWAY)))

    def _groups(self) -> None:
        ids: dict[Any, str] = {}
        for role in ("control-plane", "worker"):
            key = s.group_key(role)
            group = self._find(key, "security_group", self.now.groups)
            if group is None:
                self.steps.append(s.CreateGroup(key=key, role=role, name=object_name(self.cluster.name, key)))
            else:
                ids[role] = group.id
        add, remove = missing_rules(wanted_rules(self.spec), self.now.rules, ids)
        for role in ("control-plane", "worker"):
            # a step a group: Neutron takes rules of one group at a time
            mine = tuple(item for item in add if item.role == role)
            stale = tuple(rule.id for rule in remove if rule.group_id == ids.get(role))
            if mine or stale:
                remotes = {s.group_key(item.remote_role) for item in mine if item.remote_role}
                after = self._need(*sorted({s.group_key(role), *remotes}))
                self.steps.append(s.SetRules(key=s.rules_key(role), after=after, role=role, add=mine, remove=stale))

    # ---- nodes

    def _leaving(self, nodes: Iterable[Node], own_servers: Mapping[str, Server]) -> tuple[str, ...]:
        """Names of nodes that are there, in whatever part, and no longer wanted; the youngest first."""
        wanted = {node.name for node in nodes}
        names = set(self.past.seats) | set(own_servers)
        names |= {port.name for port in self.now.ports if owns(self.uid, port)}
        present = {name for name in names - wanted if self._has_parts(name, own_servers)}
        return tuple(sorted(present, key=lambda name: (len(name), name), reverse=True))

    def _has_parts(self, name: str, own_servers: Mapping[str, Server]) -> bool:
        ports = {port.name for port in self.now.ports if owns(self.uid, port) and port.use.deletable}
        kube = self.now.kube_nodes or frozenset()
        return name in own_servers or name in ports or (name in self.past.seats and name in kube)

    def _ports(self, nodes: Iterable[Node], leaving: tuple[str, ...]) -> None:
        for node in nodes:
            key = s.port_key(node.name)
            port: Port | None = self._find(key, "port", self.now.ports)
            pairs = (SourceAddress(node.pod_cidr),)
            if port is None:
                after = self._need(s.NETWORK, s.SUBNET, s.group_key(node.role))
                self.steps.append(s.CreatePort(key=key, after=after, node=node))
                continue
            if {pair.address for pair in port.send_from} != {node.pod_cidr}:
                step = s.SetPairs(key=f"pairs {node.name}", port_id=port.id, name=node.name, pairs=pairs)
                self.steps.append(step)

    def _routes(self, nodes: tuple[Node, ...], leaving: tuple[str, ...]) -> None:
        wanted = {Route(node.pod_cidr, node.address) for node in nodes}
        have = set(self.router.routes) if self.router is not None else set[Route]()
        pods = self.spec.network.pod_cidr
        stale = {route for route in have - wanted if _within(route.destination, pods)}
        add, remove = tuple(sorted(wanted - have)), tuple(sorted(stale))
        if add or remove:
            # a next hop must be on one of the router's subnets; routes of leaving nodes go when their machines are gone
            after = (*self._need(s.ROUTER, s.INTERFACE), *(f"delete {s.server_key(name)}" for name in leaving if remove))
            self.steps.append(s.ChangeRoutes(key=s.ROUTES, after=after, add=add, remove=remove))

    def _floating_ip(self, choices: Choices, nodes: tuple[Node, ...]) -> None:
        description = floating_ip_description(self.uid)
        ours = [fip for fip in self.now.floating_ips if fip.description == description]
        found = next((fip for fip in ours if owns(self.uid, fip)), None)
        if found is None and s.FLOATING_IP in self.past.intended:
            found = next((fip for fip in ours if _unowned(fip)), None)
            if found is not None:
                step = s.Adopt(key=f"adopt {s.FLOATING_IP}", kind="floating_ip", object_id=found.id, name=found.address)
                self.steps.append(step)
        plane = nodes[0].name
        if found is None:
            self.steps.append(
                s.CreateFloatingIP(key=s.FLOATING_IP, network_id=choices.external_network.id, description=description)
            )
        else:
            self.known[s.FLOATING_IP] = found.id
        port_id = self.known.get(s.port_key(plane))
        if found is None or not found.port_id or found.port_id != port_id:
            after = self._need(s.FLOATING_IP, s.port_key(plane), s.INTERFACE, s.GATEWAY)
            self.steps.append(s.AttachFloatingIP(key=s.ATTACH, after=after, node=plane))

    def _key_pair(self) -> None:
        name = unique_name(self.cluster.name, self.uid)
        if name not in self.now.keypairs:
            self.steps.append(s.CreateKeypair(key=s.KEYPAIR, name=name))
        else:
            self.known[s.KEYPAIR] = name

    def _credential(self, key: str, name: str) -> None:
        there = self.now.credentials.get(name, "")
        if there and s.secret_key(key) in self.past.intended:
            self.known[key] = there
        elif not self.past.ready:
            # without its secret, which is told only once, a credential is of no use
            self.steps.append(s.CreateCredential(key=key, name=name, stale_id=there))

    def _servers(self, nodes: Iterable[Node], own: Mapping[str, Server], choices: Choices) -> None:
        for node in nodes:
            server = own.get(node.name)
            key = s.server_key(node.name)
            if server is not None and not server.power.broken:
                self.known[key] = server.id
                if server.power is Power.OFF:
                    self.steps.append(s.StartServer(key=f"start {node.name}", name=node.name, server_id=server.id))
                if server.flavor_name and server.flavor_name != choices.flavors[node.flavor].name:
                    self.notes.append(
                        f"server {node.name} keeps its flavor {server.flavor_name}; {node.flavor} is for new ones: "
                        "to change it, lower the pool's replicas, then raise them"
                    )
                continue
            if node.role == "control-plane" and self.past.ready:
                state = f"is in {server.status}" if server else "is gone"
                raise Terminal(
                    f"the control plane's machine {node.name} {state}, and with it the cluster's state",
                    hint="`moyai down`, then `moyai up` build the cluster anew",
                )
            needs = [s.port_key(node.name)]
            if node.role == "control-plane":
                needs += [s.KEYPAIR, s.CREDENTIAL, s.VOLUMES_CREDENTIAL]
                needs += [s.FLOATING_IP, s.ROUTER, s.group_key("worker"), s.SUBNET]
            else:
                needs += [s.KEYPAIR]
            self.steps.append(
                s.CreateServer(
                    key=key,
                    after=self._need(*needs),
                    node=node,
                    image_id=choices.image.id,
                    flavor_id=choices.flavors[node.flavor].id,
                    why=(server.fault or "it is broken") if server else "",
                    replaces=server.id if server else "",
                    forget=node.name in (self.now.kube_nodes or ()),
                )
            )

    def _remove(self, leaving: tuple[str, ...], own: Mapping[str, Server]) -> None:
        ports = {port.name: port for port in self.now.ports if owns(self.uid, port)}
        kube = self.now.kube_nodes or frozenset[str]()
        for name in leaving:
            drain = f"drain {name}"
            gone = f"delete {s.server_key(name)}"
            if name in kube:
                self.steps.append(s.DrainNode(key=drain, node=name))
            if name in own:
                after = self._need(drain)
                self.steps.append(s.Delete(key=gone, after=after, kind="server", object_id=own[name].id, name=name))
            if name in ports:
                key = f"delete {s.port_key(name)}"
                after = self._need(drain, gone, s.ROUTES)
                self.steps.append(s.Delete(key=key, after=after, kind="port", object_id=ports[name].id, name=name))

    def _machines_first(self) -> None:
        """Order the steps. Machines take longest, so what they do not need waits until they are asked for; and the control
        plane's is the first of them, for the others can only join what is there."""
        existing = {step.key for step in self.steps}
        servers = [step for step in self.steps if isinstance(step, s.CreateServer)]
        plane = next((step.key for step in servers if step.node.role == "control-plane"), "")
        # machines that come to a control plane are not made before it can be reached
        made = tuple(step.key for step in servers if plane)

        def after(step: Step) -> tuple[str, ...]:
            # what is before a step in time may come behind it in the list: only names that are planned stay
            needs = tuple(key for key in step.after if key in existing)
            if plane and isinstance(step, s.CreatePort) and step.node.role == "worker":
                return (*needs, plane)
            return (*needs, *made) if isinstance(step, s.SetRules | s.SetGateway | s.AddInterface) else needs

        self.steps = _ordered(replace(step, after=after(step)) for step in self.steps)


def _unowned(item: Tagged) -> bool:
    return owner(item) is None


def _within(destination: str, pods: IPv4Network) -> bool:
    try:
        return IPv4Network(destination).subnet_of(pods)
    except ValueError:
        return False


def _ordered(steps: Iterable[Step]) -> list[Step]:
    """The same steps, each behind those it needs, otherwise in the given order."""
    left, done, result = list(steps), set[str](), list[Step]()
    while left:
        ready = next(step for step in left if set(step.after) <= done)
        left.remove(ready)
        done.add(ready.key)
        result.append(ready)
    return result
