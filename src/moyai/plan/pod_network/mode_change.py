"""From one mode of the pod network to another, on a cluster that runs: through which modes, and in which stages of the agents.

Pure. Always holds: at each moment of a stage, with any part of the nodes at the stage and the others at the one before, each
node reaches each other one's pods in a way that the other accepts. So a stage may be interrupted, and goes on from there.

Between `host-gw` and `vxlan` there is a stage in which all nodes have tunnels and send directly: whoever then begins to send
through its tunnel, or gives it up, is understood. Between `host-gw` and `bgp` there is one in which nodes speak BGP and have
the routes of `host-gw` beside, for nodes that do not. Which backend a node announces in a stage is what nodes of the stage
before expect of a peer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moyai.core.errors import UsageError
from moyai.plan.bgp.bgp_conf import BgpConf
from moyai.plan.node_network import OVERHEAD, NetworkConf
from moyai.plan.pod_network import pod_network_of
from moyai.plan.pod_network.bgp import bgp_conf_of
from moyai.plan.pod_network.live_files import LiveFiles
from moyai.plan.pod_network.node_files import rules
from moyai.spec.cluster_network import NetworkSpec
from moyai.spec.model import ClusterSpec

#: A mode → the next one on the way to each other mode.
_NEXT: Mapping[str, Mapping[str, str]] = {
    "routes": {"host-gw": "host-gw", "vxlan": "host-gw", "bgp": "host-gw"},
    "host-gw": {"routes": "routes", "vxlan": "vxlan", "bgp": "bgp"},
    "vxlan": {"host-gw": "host-gw", "routes": "host-gw", "bgp": "host-gw"},
    "bgp": {"host-gw": "host-gw", "routes": "host-gw", "vxlan": "host-gw"},
}
MOVABLE = tuple(_NEXT)


@dataclass(frozen=True)
class AgentStage:
    """``name``: what the agents' pods of the stage are known by. ``files``: what nodes are configured with from now on, None:
    as before. ``bgp``: what they do with BGP, None: what their mode says. ``text``: in a few words for people."""

    name: str
    conf: NetworkConf
    text: str
    files: LiveFiles | None = None
    bgp: BgpConf | None = None


def way(begin: str, target: str) -> tuple[str, ...]:
    """The modes that the cluster has in turn, without ``begin``. Raises UsageError where no way leads there."""
    if begin == target:
        return ()
    step = _NEXT.get(begin, {}).get(target)
    if step is None:
        known = " or ".join(sorted(_NEXT.get(begin, {})))
        right = f"{known}, the cluster has {begin}" if known else f"left out: nothing leads from mode {begin} to another one"
        raise UsageError(f"--to {target}: should be {right}")
    return (step, *way(step, target))


def stages(begin: ClusterSpec, target: ClusterSpec) -> Sequence[AgentStage]:
    """Those between two modes that follow each other on a ``way``; the agents' own configuration for ``target`` comes last."""
    have, want = pod_network_of(begin).conf, pod_network_of(target).conf
    pair = (begin.network.mode, target.network.mode)
    if have is None or want is None:
        return ()
    if pair == ("host-gw", "vxlan"):
        both = replace(want, direct_routing=True, also="host-gw", announced="host-gw")
        return (
            AgentStage("vxlan-1", both, "each node gets a tunnel, and sends directly", live_files(target.network)),
            AgentStage("vxlan-2", replace(want, also="host-gw"), "nodes begin to send through their tunnels"),
        )
    if pair == ("vxlan", "host-gw"):
        both = replace(have, direct_routing=True, also="host-gw")
        return (
            AgentStage("host-gw-1", both, "nodes begin to send directly"),
            AgentStage("host-gw-2", replace(want, also="vxlan"), "nodes give up their tunnels", live_files(target.network)),
        )
    if pair == ("host-gw", "bgp"):
        beside = replace(have, also="bgp", beside=True)
        return (AgentStage("bgp-1", beside, "nodes speak BGP beside their own routes", bgp=bgp_conf_of(target)),)
    if pair == ("bgp", "host-gw"):
        speaks = bgp_conf_of(begin)
        beside = replace(want, also="bgp", announced="bgp", beside=True)
        return (
            AgentStage("host-gw-1", beside, "nodes get routes of their own beside those of BGP", bgp=speaks),
            AgentStage("host-gw-2", replace(want, also="bgp"), "nodes begin to send by their own routes", bgp=speaks),
        )
    return ()


def live_files(network: NetworkSpec) -> LiveFiles:
    """What nodes are configured with in this mode, which is one with agents."""
    tunnel = network.mode == "vxlan"
    bare = not tunnel or network.vxlan.direct_routing
    return LiveFiles(OVERHEAD if tunnel else 0, rules(network, masquerade=True, bare=bare))
