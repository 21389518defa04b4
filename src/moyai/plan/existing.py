"""What of a cluster exists in the cloud already: each object by its key, and which of them an interrupted run left untagged.

Always holds: an object is the cluster's by its tag, or, on a cloud that adds tags after the fact, by its name where an
interrupted run of this cluster meant to make it;
an object of another cluster is never taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, TypeVar

from moyai.cloud.entrances import Entrance
from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import FloatingIP, Network, Port, Router, SecurityGroup, Server, SpreadGroup, Subnet
from moyai.core.ids import Role, machine_tag
from moyai.core.keys import Key
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.given_network import NOTHING_GIVEN, GivenNetwork
from moyai.plan.graph import Made
from moyai.plan.machines_beside import PlannedMachine
from moyai.plan.observed import Observed, Recorded, Tagged, owner, owns, server_owner

ROLES: tuple[Role, ...] = ("control-plane", "worker")
#: Those of security groups.
GROUPS: tuple[Role, ...] = (*ROLES, "machine")
#: What a network is taken to carry where the cloud does not say.
_DEFAULT_MTU = 1450


class _Named(Tagged, Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Named)


@dataclass(frozen=True)
class Existing:
    """``groups`` are by role, ``ports`` by node or by a machine's place, ``servers`` by node. ``machines``: those beside the
    cluster, by name; ``addresses``: their floating IPs. ``networks`` and ``subnets``: those beside the cluster's own, by the
    network's name. ``balancer``: the one before the API. ``spread_groups``: by pool. ``adopt``: steps that tag what is
    untagged."""

    network: Network | None = None
    subnet: Subnet | None = None
    router: Router | None = None
    groups: Mapping[Role, SecurityGroup] = field(default_factory=dict[Role, SecurityGroup])
    ports: Mapping[str, Port] = field(default_factory=dict[str, Port])
    servers: Mapping[str, Server] = field(default_factory=dict[str, Server])
    machines: Mapping[str, Server] = field(default_factory=dict[str, Server])
    addresses: Mapping[str, FloatingIP] = field(default_factory=dict[str, FloatingIP])
    networks: Mapping[str, Network] = field(default_factory=dict[str, Network])
    subnets: Mapping[str, Subnet] = field(default_factory=dict[str, Subnet])
    floating_ip: FloatingIP | None = None
    entrance: Entrance | None = None
    balancer: LoadBalancer | None = None
    key_pair: str = ""
    spread_groups: Mapping[str, SpreadGroup] = field(default_factory=dict[str, SpreadGroup])
    credentials: Mapping[Key, str] = field(default_factory=dict[Key, str])
    adopt: tuple[s.Adopt, ...] = ()

    def made(self, *, fixed: str = "") -> Made:
        """The same as ids and facts for the steps. ``fixed``: the API's address, where no object of the cloud gives it."""
        ids: dict[Key, str] = dict(self.credentials)
        for key, item in ((keys.NETWORK, self.network), (keys.SUBNET, self.subnet), (keys.ROUTER, self.router)):
            if item is not None:
                ids[key] = item.id
        ids |= {keys.security_group(role): group.id for role, group in self.groups.items()}
        ids |= {keys.port(name): port.id for name, port in self.ports.items()}
        ids |= {keys.server(name): server.id for name, server in (*self.servers.items(), *self.machines.items())}
        ids |= {keys.network(name): network.id for name, network in self.networks.items()}
        ids |= {keys.subnet(name): subnet.id for name, subnet in self.subnets.items()}
        ids |= {keys.machine_address(name): address.id for name, address in self.addresses.items()}
        if self.floating_ip is not None:
            ids[keys.FLOATING_IP] = self.floating_ip.id
        if self.entrance is not None:
            ids[keys.ENTRANCE] = self.entrance.id
        if self.balancer is not None:
            ids[keys.API_BALANCER] = self.balancer.id
        ids |= {keys.spread_group(pool): group.id for pool, group in self.spread_groups.items()}
        if self.key_pair:
            ids[keys.KEY_PAIR] = self.key_pair
        return Made(
            MappingProxyType(ids),
            network_mtu=(self.network.mtu if self.network else 0) or _DEFAULT_MTU,
            api_address=reached.address if (reached := self.floating_ip or self.entrance) else fixed,
        )


def find_existing(
    cluster: str,
    observed: Observed,
    *,
    recorded: Recorded,
    nodes: Iterable[str] = (),
    networks: Iterable[str] = (),
    machines: Iterable[PlannedMachine] = (),
    pools: Iterable[str] = (),
    given: GivenNetwork = NOTHING_GIVEN,
) -> Existing:
    """``nodes``: names of the nodes whose ports count when they are untagged. ``networks``: names of those beside the cluster's
    own. ``machines``: those beside the cluster. ``pools``: whose groups count that keep machines apart. ``given``: networks of
    the user's, in place of the cluster's own."""
    uid = recorded.uid
    adopt: list[s.Adopt] = []
    machines = tuple(machines)
    places = {place.port: machine.entry.name for machine in machines for place in machine.places}

    def find(key: Key, candidates: Iterable[T], *, name: str = "", called: Callable[[T], str] | None = None) -> T | None:
        name = name or keys.object_name(cluster, key)
        named = sorted(
            (item for item in candidates if (called(item) if called else getattr(item, "name", "")) == name),
            key=lambda item: item.id,
        )
        found = next((item for item in named if owns(uid, item)), None)
        if found is None and observed.may_be_untagged and key in recorded.intended:
            found = next((item for item in named if owner(item) is None), None)
            if found is not None:
                shown = found.address if isinstance(found, FloatingIP) else name
                more = (machine_tag(places[name]),) if name in places else ()
                adopt.append(s.Adopt(key=key, object_id=found.id, name=shown, tags=more))
        return found

    network = given.network or find(keys.NETWORK, observed.networks)
    subnets = [subnet for subnet in observed.subnets if network is not None and subnet.network_id == network.id]
    groups: dict[Role, SecurityGroup | None] = {role: find(keys.security_group(role), observed.groups) for role in GROUPS}
    further = {one: found for one in networks if (found := find(keys.network(one), observed.networks)) is not None}
    # where machines have cards in networks of others, these are called like the machine, too
    own = {one.id for one in observed.networks if owns(uid, one)} | {one.id for one in (network, *further.values()) if one}
    inside = [port for port in observed.ports if network is None or port.network_id in own]
    ports = {name: find(keys.port(name), inside) for name in (*nodes, *places)}
    subnet = given.subnet or find(keys.SUBNET, subnets)
    if subnet is None and not observed.may_be_untagged:
        # a cloud whose networks are made with their only subnet may have one name for both
        subnet = next((one for one in subnets if owns(uid, one)), None)
    name = keys.unique_name(cluster, uid)
    cut = {one: [subnet for subnet in observed.subnets if subnet.network_id == net.id] for one, net in further.items()}
    addresses = {
        one.name: find(
            keys.machine_address(one.name),
            observed.floating_ips,
            name=keys.machine_address_description(uid, one.name),
            called=lambda item: item.description,
        )
        for one in machines
    }
    return Existing(
        network=network,
        subnet=subnet,
        router=given.router or find(keys.ROUTER, observed.routers),
        groups={role: group for role, group in groups.items() if group is not None},
        ports={name: port for name, port in ports.items() if port is not None},
        servers={server.name: server for server in observed.servers if server_owner(server) == uid},
        machines={server.name: server for server in observed.machines if server_owner(server) == uid},
        addresses={one: address for one, address in addresses.items() if address is not None},
        networks=further,
        subnets={one: subnet for one in further if (subnet := find(keys.subnet(one), cut[one])) is not None},
        floating_ip=find(
            keys.FLOATING_IP,
            observed.floating_ips,
            name=keys.api_address_description(uid),
            called=lambda item: item.description,
        ),
        entrance=observed.entrance,
        balancer=observed.api_balancer,
        key_pair=name if name in observed.keypairs else "",
        spread_groups={
            pool: one
            for pool in pools
            for one in observed.spread_groups
            if one.name == keys.unique_name(cluster, uid, what=pool)
        },
        credentials={
            key: observed.credentials[credential]
            for key, credential in _credentials(cluster, uid, there=observed.credentials).items()
            if keys.secret(key) in recorded.intended
        },
        adopt=tuple(adopt),
    )


def _credentials(cluster: str, uid: str, *, there: Mapping[str, str]) -> dict[Key, str]:
    """Credential → the youngest name in the cloud: a rotation gives another one."""
    found: dict[Key, str] = {}
    for key, first in credential_names(cluster, uid).items():
        known = sorted((name for name in there if keys.is_later_name(name, cluster, what=key.name, uid=uid)), reverse=True)
        if name := next((one for one in (*known, first) if one in there), ""):
            found[key] = name
    return found


def credential_names(cluster: str, uid: str) -> dict[Key, str]:
    """Credential → its name in the cloud."""
    return {
        keys.CONTROLLERS_CREDENTIAL: keys.unique_name(cluster, uid),
        keys.VOLUMES_CREDENTIAL: keys.unique_name(cluster, uid, what="volumes"),
    }
