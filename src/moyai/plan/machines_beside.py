"""Which machines a spec has beside its nodes: names, places in networks, and what each is made with.

Pure. Always holds: the same spec gives the same machines; what a machine is made with is one short text, by which a plan knows
a machine whose entry in the spec has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses
from typing import Any

from moyai.plan.nodes import range_of_network
from moyai.spec.beside import NODES, MachineSpec
from moyai.spec.model import Cluster, ClusterSpec

#: What `moyai agent-bgp` and FRR's configuration call the group of all nodes.
NODES_GROUP = "nodes"
#: More than all nodes' pod ranges and addresses of Services.
_MOST_PREFIXES = 20000


@dataclass(frozen=True)
class MachinePlace:
    """``port``: the name of its port."""

    port: str
    network: str
    address: str


@dataclass(frozen=True)
class PlannedMachine:
    """``name``: in the cloud. ``entry``: what the spec says of it. ``template``: what it is made with.

    ``transit``: it sends and receives packets of others. ``default_by``: address of the machine that leads out of its first
    network, empty where the cloud's router does."""

    name: str
    entry: MachineSpec
    places: tuple[MachinePlace, ...]
    template: str
    default_by: str = ""

    @property
    def transit(self) -> bool:
        return self.entry.role == "router"


def machine_name(cluster: str, machine: str) -> str:
    """What a machine of the spec is called in the cloud."""
    return f"{cluster}-{machine}"


def wanted_machines(cluster: Cluster) -> tuple[PlannedMachine, ...]:
    """In the order of the spec."""
    return tuple(_machine(cluster, entry) for entry in cluster.spec.machines)


def _machine(cluster: Cluster, entry: MachineSpec) -> PlannedMachine:
    spec, name = cluster.spec, machine_name(cluster.name, entry.name)
    places = tuple(MachinePlace(f"{name}-{place.network}", place.network, str(place.address)) for place in entry.networks)
    default_by = _led_by(spec, entry.networks[0].network)
    made: dict[str, Any] = {
        "entry": entry.model_dump(mode="json"),
        "default": default_by,
        "router": router_commands(spec, entry),
    }
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]
    return PlannedMachine(name, entry, places, f"entry={digest}", default_by)


def _led_by(spec: ClusterSpec, network: str) -> str:
    """Address of the machine that leads out of a network; empty where the cloud's router does."""
    gateway = next((one.gateway for one in spec.networks if one.name == network), "")
    machine = next((one for one in spec.machines if one.name == gateway), None)
    return next((str(place.address) for place in machine.networks if place.network == network), "") if machine else ""


def led_networks(spec: ClusterSpec, machine: MachineSpec) -> tuple[IPv4Network, ...]:
    """Ranges of the networks that the machine leads out of."""
    return tuple(one.cidr for one in spec.networks if one.gateway == machine.name)


def inside_ranges(spec: ClusterSpec) -> tuple[IPv4Network, ...]:
    """All ranges that are the cluster's: nobody translates addresses between them."""
    network = spec.network
    further = (one.cidr for one in spec.networks)
    announced = spec.services.announce.ranges
    return tuple(collapse_addresses((network.node_cidr, network.pod_cidr, network.service_cidr, *further, *announced)))


def router_commands(spec: ClusterSpec, machine: MachineSpec) -> Mapping[str, list[str]]:
    """Daemon of FRR → commands that configure it on a machine with BGP; nothing for another one.

    Nodes come and go without any change here: whoever calls from their networks, in the nodes' autonomous system, has a
    session. It announces no graceful restart of its own: nodes would wait to be called by it, and a router that listens calls
    nobody. What they announce is accepted where it is a pod range or an address of a Service, and the router tells them the
    ranges that it leads to.
    """
    if machine.bgp is None:
        return {}
    homes = sorted({NODES, *(pool.network for pool in spec.node_pools)})
    own = {place.address for place in machine.networks}
    # both ends of a session agree: BFD over several hops has a port of its own
    far = any(one.multihop and one.address in own for one in spec.network.bgp.routers)
    places = {place.network for place in machine.networks}
    near = [range_of_network(spec, network) for network in homes if far or network in places]
    led = led_networks(spec, machine)
    accepted = [f"{spec.network.pod_cidr} le 32", *(f"{one} le 32" for one in spec.services.announce.ranges)]
    group, listed = NODES_GROUP, "prefix-list"
    lists = [f"ip {listed} from-nodes seq {5 * n} permit {one}" for n, one in enumerate(accepted, 1)]
    lists += [f"ip {listed} to-nodes seq {5 * n} permit {one}" for n, one in enumerate(led, 1)]
    neighbour = (
        f"remote-as {spec.network.bgp.asn}",
        "bfd",
        "timers 3 9",
        "ebgp-multihop" if far else "",
    )
    commands = [
        *lists,
        f"router bgp {machine.bgp.asn}",
        f"bgp router-id {machine.networks[0].address}",
        "no bgp ebgp-requires-policy",
        "bgp bestpath as-path multipath-relax",
        "bgp listen limit 1000",
        f"neighbor {group} peer-group",
        *(f"neighbor {group} {one}" for one in neighbour if one),
        *(f"bgp listen range {one} peer-group {group}" for one in near),
        "address-family ipv4 unicast",
        *(f"network {one}" for one in led),
        f"neighbor {group} {listed} from-nodes in",
        *([f"neighbor {group} {listed} to-nodes out"] if led else []),
        f"neighbor {group} maximum-prefix {_MOST_PREFIXES} restart 1",
        "maximum-paths 64",
        "exit-address-family",
        "exit",
    ]
    return {"bgpd": commands}
