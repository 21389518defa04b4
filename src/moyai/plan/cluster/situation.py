"""What every aspect of a cluster's plan looks at: facts, found once, never changed while the plan is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from moyai.cloud.model import Network, Power
from moyai.plan import keys
from moyai.plan.addons import Addon
from moyai.plan.changes import Change
from moyai.plan.demands import Choices
from moyai.plan.existing import Existing
from moyai.plan.given_network import NOTHING_GIVEN, GivenNetwork
from moyai.plan.machine_template import Versions
from moyai.plan.machines_beside import PlannedMachine, wanted_machines
from moyai.plan.nodes import CONTROL_PLANE_POOL, PlannedNode, address_in_pool, pool_of_node
from moyai.plan.observed import Observed, Recorded, is_beside, owns
from moyai.spec.model import Cluster, ClusterSpec


@dataclass(frozen=True)
class Situation:
    """``leaving``: names of nodes that exist, in whatever part, and are no longer wanted; the youngest first. ``rolled``: those
    of them that leave because of what their machines were made with, once the others are Ready. ``spared``: nodes that are no
    longer wanted and stay all the same. ``versions``: of Kubernetes, while machines get others than the spec's. ``given``: what
    exists of the networks that the spec names."""

    cluster: Cluster
    observed: Observed
    recorded: Recorded
    choices: Choices
    nodes: tuple[PlannedNode, ...]
    existing: Existing
    leaving: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    addons: tuple[Addon, ...] = ()
    changes: tuple[Change, ...] = ()
    rolled: frozenset[str] = frozenset()
    versions: Versions | None = None
    given: GivenNetwork = NOTHING_GIVEN

    @property
    def spec(self) -> ClusterSpec:
        return self.cluster.spec

    @property
    def external_network(self) -> Network:
        """For a network of machines that leads to one (``MachineNetwork.external``)."""
        found = self.choices.external_network
        if found is None:
            raise ValueError("the machines' network leads to no external network, so none was chosen")
        return found

    @cached_property
    def machines(self) -> tuple[PlannedMachine, ...]:
        """Those beside the cluster."""
        return wanted_machines(self.cluster)

    @cached_property
    def control_planes(self) -> tuple[PlannedNode, ...]:
        return tuple(node for node in self.nodes if node.role == "control-plane")

    @property
    def makes_cluster(self) -> bool:
        """Whether the API has never answered yet, so that all machines begin together."""
        return bool(self.founder)

    @cached_property
    def missing(self) -> tuple[PlannedNode, ...]:
        """Nodes whose machines are to be made."""
        return tuple(node for node in self.nodes if not self.lives(node.name))

    @property
    def renews_token(self) -> bool:
        """Whether machines join a control plane that exists, whose bootstrap token may end before they have joined."""
        joins = any(node.role == "worker" for node in self.missing) or self.unjoined
        alive = any(self.lives(node.name) for node in self.control_planes)
        return alive and bool(joins) and not self._token_joins

    @cached_property
    def unjoined(self) -> tuple[PlannedNode, ...]:
        """Workers whose machines have the token on record, and have not joined with it yet."""
        kube, past = self.observed.kube, self.recorded
        if kube is None or not past.token_id:
            return ()
        names = past.awaited - kube.names
        return tuple(node for node in self.nodes if node.name in names and node.role == "worker" and self.lives(node.name))

    @cached_property
    def held(self) -> frozenset[str]:
        """Wanted nodes whose machines stay as they are until somebody decides in the cloud what becomes of them."""
        servers = self.existing.servers
        return frozenset(n.name for n in self.nodes if n.name in servers and servers[n.name].power is Power.HELD)

    @property
    def _token_joins(self) -> bool:
        """Whether the token on record lets machines join. What the cluster has counts more than the record and the clock."""
        kube, past = self.observed.kube, self.recorded
        return past.token_fresh and (kube is None or not past.ready or past.token_id in kube.tokens)

    @cached_property
    def stale_nodes(self) -> frozenset[str]:
        """Nodes that are to be made and whose Node object of an earlier machine is still there."""
        begun_again = {self.founder, *self.obsolete}
        missing = (node for node in self.missing if not self.only_plane(node) and node.name not in begun_again)
        return frozenset(node.name for node in missing) & self.observed.kube_nodes

    def only_plane(self, node: PlannedNode) -> bool:
        """Whether the cluster's state is in this machine alone."""
        return node.role == "control-plane" and len(self._plane_machines | {one.name for one in self.control_planes}) == 1

    @cached_property
    def founder(self) -> str:
        """Name of the control plane whose machine begins the cluster; empty where there is a cluster to join.

        A cluster that has answered once is never begun again, however silent it is. Nor is one without its first machine whose
        API answers: a killed run has not put that on record.
        """
        first = self.control_planes[0].name
        others = self._plane_machines - {first}
        exists = self.recorded.ready or (self.observed.kube is not None and others and not self._works(first))
        return "" if exists else first

    @cached_property
    def obsolete(self) -> frozenset[str]:
        """Control planes whose machines go before the founder's is made: they may have joined a founder that is gone, and what
        they hold would be a second cluster with the same address. Nobody has seen that cluster answer."""
        return self._plane_machines - {self.founder} if self.founder and not self._works(self.founder) else frozenset()

    @cached_property
    def leaving_planes(self) -> tuple[str, ...]:
        """Names of the control planes that leave; first those whose machines do not run, so that the others gain a spare."""
        names = (name for name in self.leaving if pool_of_node(name, self.cluster.name) == CONTROL_PLANE_POOL)
        return tuple(sorted(names, key=lambda name: self._works(name)))

    def plane_address(self, name: str) -> str:
        """The address of a control plane that leaves; empty where nothing says it."""
        if name in self.recorded.allocations:
            return address_in_pool(self.spec, CONTROL_PLANE_POOL, allocation=self.recorded.allocations[name])
        port = next((one for one in self.observed.ports if one.name == name and owns(self.recorded.uid, one)), None)
        return port.fixed_ips[0] if port and port.fixed_ips else ""

    @cached_property
    def _plane_machines(self) -> frozenset[str]:
        """Names of all machines of control planes that exist, wanted or not."""
        return frozenset(name for name in self.existing.servers if pool_of_node(name, self.cluster.name) == CONTROL_PLANE_POOL)

    def lives(self, name: str) -> bool:
        """Whether a machine of this name exists, is not broken, and stays."""
        return self._works(name) and name not in self.obsolete

    def _works(self, name: str) -> bool:
        server = self.existing.servers.get(name)
        return server is not None and not server.power.broken


def leaving_nodes(
    observed: Observed, recorded: Recorded, *, existing: Existing, nodes: Iterable[PlannedNode]
) -> tuple[str, ...]:
    """Names of nodes that exist, in whatever part, and are not among ``nodes``; the youngest first. A control plane
    may be left in etcd alone, as a member: it counts as long as it is on record."""
    planes = {name for name in recorded.allocations if pool_of_node(name, recorded.name) == CONTROL_PLANE_POOL}
    reserved = keys.virtual_port(recorded.name).name
    ports = {port.name for port in observed.ports if owns(recorded.uid, port) and port.use.deletable and not is_beside(port)}
    registered = {name for name in recorded.allocations if name in observed.kube_nodes}
    names = {*existing.servers, *ports, *registered, *planes} - {node.name for node in nodes} - {reserved}
    return tuple(sorted(names, key=lambda name: (len(name), name), reverse=True))
