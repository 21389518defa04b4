"""What a node is configured with before any agent runs: the CNI plugins' configuration, and rules for packets of pods that
leave the pod network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from moyai.plan.nodes import PlannedNode
from moyai.spec.cluster_network import NetworkSpec

#: Where clouds have their metadata service. Link-local addresses of a node are nothing that a pod needs.
LINK_LOCAL = "169.254.0.0/16"
CONFLIST = "etc/cni/net.d/10-moyai.conflist"
RULES = "etc/moyai/masquerade.nft"


def node_files(node: PlannedNode, network: NetworkSpec, *, mtu: int, bare: bool) -> Mapping[str, str]:
    """Path without the leading slash → text. ``mtu``: of pods. ``bare``: whether pods' packets may be on the machines' network
    with the pods' own addresses."""
    return {CONFLIST: conflist(node.pod_cidr, mtu), RULES: rules(network, masquerade=True, bare=bare)}


def rules(network: NetworkSpec, *, masquerade: bool, bare: bool = True) -> str:
    """The nftables table for what pods send. It leaves the cluster with their node's address, and only then; where the cloud
    drops pods' own addresses, also what goes to other nodes' addresses leaves so. It never reaches the cloud's metadata
    service, which would give a pod the user data of its node.
    """
    ranges = (network.pod_cidr, network.node_cidr, network.service_cidr) if bare else (network.pod_cidr, network.service_cidr)
    inside = f"{{ {', '.join(map(str, ranges))} }}"
    translation = (
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f"    ip saddr {network.pod_cidr} ip daddr != {inside} counter masquerade\n"
        "  }\n"
    )
    return (
        "table ip moyai\ndelete table ip moyai\ntable ip moyai {\n"
        f"{translation if masquerade else ''}"
        "  chain forward {\n"
        "    type filter hook forward priority filter; policy accept;\n"
        f"    ip saddr {network.pod_cidr} ip daddr {LINK_LOCAL} counter reject with icmp type admin-prohibited\n"
        "  }\n}\n"
    )


def conflist(pod_cidr: str, mtu: int) -> str:
    """A node's pod network: a bridge with addresses of its own pod range; the kernel's routes lead to other nodes' pods."""
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
                        "ranges": [[{"subnet": pod_cidr}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"},
            ],
        },
        indent=1,
    )
