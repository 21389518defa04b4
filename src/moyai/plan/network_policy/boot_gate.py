"""What keeps policies from being missed between the boot of a machine and the first transaction of its agent.

A node has a file of rules and a marker. While the marker is there, a service loads the rules before the kubelet starts: no
packet of a pod passes hook forward. The agent's first transaction replaces the table, and the gate with it. Always holds: the
marker is there only while agents enforce policies, so a gate never closes that nobody opens.
"""

from __future__ import annotations

from moyai.plan.network_policy.table_names import GATE, TABLE

#: Paths on a node, without the leading slash.
RULES = "etc/moyai/policy-gate.nft"
FOLDER = "var/lib/moyai/policy"
MARKER = f"{FOLDER}/gate"


def gate_rules(pod_range: str) -> str:
    """For ``nft -f``, where there is no table yet. ``pod_range``: of the whole cluster, as no packet of other nodes' pods
    passes this node unless the other end is one of its own."""
    drop = 'counter drop comment "the agent has not applied network policies since the machine has booted"'
    return (
        f"table inet {TABLE} {{\n"
        f"  chain {GATE} {{\n"
        "    type filter hook forward priority -1; policy accept;\n"
        f"    ip saddr {pod_range} {drop}\n"
        f"    ip daddr {pod_range} {drop}\n"
        "  }\n}\n"
    )
