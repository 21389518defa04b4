"""One node's part of the pod network: from Node objects and settings to links, addresses, neighbours, forwarding entries and
routes of the kernel, and to the steps that are missing.

Nothing here reads or changes anything outside of its arguments and itself. ``PeerReader`` and ``PeerEntries`` remember their
last answer, so that the next one is cheap; what they remember changes no answer.

Always holds: the steps lead from any observed state to the desired one, also from a state that an earlier agent left
between two steps; what others made is in no step, unless it leads where the desired state leads as well.
"""

from moyai.plan.node_network.desired import Desired, PeerEntries, desired, until_bgp
from moyai.plan.node_network.difference import difference, without_obstacles
from moyai.plan.node_network.flannel import (
    MOVES,
    MOVES_BGP,
    Announcement,
    LeftOut,
    PeerReader,
    Peers,
    announcement,
    me_of,
    relevant,
)
from moyai.plan.node_network.misses import PeerIndex
from moyai.plan.node_network.net_conf import (
    OVERHEAD,
    Backend,
    NetworkConf,
    node_prefix,
    read_net_conf,
    tunnel_name,
    write_net_conf,
)
from moyai.plan.node_network.node_state import (
    BESIDE_METRIC,
    ROUTE_PROTOCOL,
    UNREACHABLE_METRIC,
    AdjustTunnel,
    CreateTunnel,
    DeleteLink,
    Forwarding,
    KernelStep,
    Me,
    Neighbour,
    NodeNetwork,
    ObservedNetwork,
    Peer,
    PodRoute,
    Put,
    Remove,
    RouteDevice,
    Tunnel,
    TunnelAddress,
    Uplink,
)

__all__ = [
    "BESIDE_METRIC",
    "MOVES",
    "MOVES_BGP",
    "OVERHEAD",
    "ROUTE_PROTOCOL",
    "UNREACHABLE_METRIC",
    "AdjustTunnel",
    "Announcement",
    "Backend",
    "CreateTunnel",
    "DeleteLink",
    "Desired",
    "Forwarding",
    "KernelStep",
    "LeftOut",
    "Me",
    "Neighbour",
    "NetworkConf",
    "NodeNetwork",
    "ObservedNetwork",
    "Peer",
    "PeerEntries",
    "PeerIndex",
    "PeerReader",
    "Peers",
    "PodRoute",
    "Put",
    "Remove",
    "RouteDevice",
    "Tunnel",
    "TunnelAddress",
    "Uplink",
    "announcement",
    "desired",
    "difference",
    "me_of",
    "node_prefix",
    "read_net_conf",
    "relevant",
    "tunnel_name",
    "until_bgp",
    "without_obstacles",
    "write_net_conf",
]
