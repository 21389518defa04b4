"""Mode ``routes``: the cloud's router has a route for each node's pod range, so that nothing is encapsulated.

These are the routes that `up` makes. While the cluster runs, the route controller keeps them by ``plan.route_table``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Route, SourceAddress
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.existing import Existing
from moyai.plan.nodes import PlannedNode
from moyai.plan.route_table import within
from moyai.spec.model import NetworkSpec

#: Where clouds have their metadata service. Link-local addresses of a node are nothing that a pod needs.
LINK_LOCAL = "169.254.0.0/16"


@dataclass(frozen=True)
class RoutedPods:
    network: NetworkSpec
    needs: Capability | None = Capability.POD_ROUTING

    def send_from(self, node: PlannedNode) -> tuple[SourceAddress, ...]:
        return (SourceAddress(node.pod_cidr),)

    def routes(self, nodes: Sequence[PlannedNode]) -> int:
        return len(nodes)

    def steps(self, nodes: Sequence[PlannedNode], *, existing: Existing, leaving: Sequence[str]) -> Iterator[s.Step]:
        for node in nodes:
            port = existing.ports.get(node.name)
            if port is not None and {pair.address for pair in port.send_from} != {node.pod_cidr}:
                yield s.SetSendFrom(key=keys.port(node.name), port_id=port.id, send_from=self.send_from(node))
        wanted = {Route(node.pod_cidr, node.address) for node in nodes}
        router = existing.router
        have = set(router.routes) if router is not None else set[Route]()
        add = tuple(sorted(wanted - have))
        stale = tuple(sorted(route for route in have - wanted if within(route.destination, [str(self.network.pod_cidr)])))
        if add:
            # a next hop must be on one of the router's subnets
            after = (s.created(keys.ROUTER), s.created(keys.INTERFACE))
            yield s.AddRoutes(key=keys.ROUTES, after=after, routes=add)
        if stale and router is not None:
            after = tuple(s.deleted(keys.server(name)) for name in leaving)
            yield s.RemoveRoutes(key=keys.ROUTES, after=after, router_id=router.id, routes=stale)

    def files(self, node: PlannedNode, *, mtu: int) -> Mapping[str, str]:
        return {"etc/cni/net.d/10-moyai.conflist": conflist(node, mtu), "etc/moyai/masquerade.nft": masquerade(self.network)}


def masquerade(network: NetworkSpec) -> str:
    """The nftables table for what pods send. It leaves the cluster with their node's address, and only then. It never reaches
    the cloud's metadata service, which would give a pod the user data of its node.
    """
    inside = f"{{ {network.pod_cidr}, {network.node_cidr}, {network.service_cidr} }}"
    return (
        "table ip moyai\ndelete table ip moyai\ntable ip moyai {\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f"    ip saddr {network.pod_cidr} ip daddr != {inside} counter masquerade\n"
        "  }\n"
        "  chain forward {\n"
        "    type filter hook forward priority filter; policy accept;\n"
        f"    ip saddr {network.pod_cidr} ip daddr {LINK_LOCAL} counter reject with icmp type admin-prohibited\n"
        "  }\n}\n"
    )


def conflist(node: PlannedNode, mtu: int) -> str:
    """The node's pod network: a bridge with addresses of its own pod range; other nodes' pods are reached over the router."""
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "moyai",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "ipMasq": False,
                    "hairpinMode": True,
                    "mtu": mtu,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": node.pod_cidr}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"},
            ],
        },
        indent=1,
    )
