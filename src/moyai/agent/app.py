"""The agent as a process: the list of its controllers, run until a signal.

There is no election: every node's agent works for its own node. A controller is one entry of ``_BUILDERS``. An agent that has
no controller of network policies, or none of the pod network, removes what an earlier one left. An agent without any controller
does only that, and asks the API for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moyai.agent.announce.controller import AnnounceController
from moyai.agent.announce_caches import AnnounceCaches
from moyai.agent.bgp.controller import BgpController
from moyai.agent.bgp.removal import bgp_removal
from moyai.agent.egress.controller import EgressController
from moyai.agent.pod_cache import pod_cache
from moyai.agent.pod_network.controller import PodNetworkController
from moyai.agent.pod_network.node_files import NodeFilesController
from moyai.agent.pod_network.removal import pod_network_removal
from moyai.agent.policy import BootGate, PolicyController, removal
from moyai.agent.settings import AgentOptions, check_options
from moyai.core.clock import BootClock, Clock
from moyai.core.ids import AGENT
from moyai.core.reading import read_text
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import Node, parse_node
from moyai.kube.objects.policy import PolicyPod
from moyai.kube.resources import NODES
from moyai.kube.watching import Kube, KubeClient
from moyai.plan.bgp.bgp_conf import read_bgp_conf
from moyai.plan.egress import read_egress_conf
from moyai.plan.node_network import NetworkConf, read_net_conf
from moyai.plan.pod_network.live_files import read_live_files
from moyai.runtime.controllers import ControllerSet, ControllerSetup, cache, controller_set
from moyai.runtime.logs import set_up
from moyai.runtime.metrics import Metrics

#: Bytes; the file has a handful of lines.
_NET_CONF_LIMIT = 65536
#: Bytes: 16 routers with 32 ranges each.
_BGP_CONF_LIMIT = 1 << 18


def main(options: AgentOptions) -> int:
    """Runs until a signal (0) or until a part of it ends (1). Raises UsageError for what it cannot start with."""
    check_options(options)
    set_up(options.log_level)
    return asyncio.run(_main(options))


async def _main(options: AgentOptions) -> int:
    kube = KubeClient.connect(options.kubeconfig)
    try:
        return 0 if await agent(options, kube=kube, metrics=Metrics()).run() else 1
    finally:
        await kube.close()


@dataclass(frozen=True)
class Shared:
    """What several controllers use. ``node``: name of the Node that this machine is."""

    options: AgentOptions
    kube: Kube
    metrics: Metrics
    clock: Clock
    nodes: Informer[Node]
    events: EventRecorder
    announced: AnnounceCaches
    pods: Informer[PolicyPod]

    @property
    def node(self) -> str:
        return self.options.node


def _net_conf(options: AgentOptions) -> NetworkConf:
    assert options.net_conf is not None, "check_options"
    text = options.net_conf_text or read_text(options.net_conf, limit=_NET_CONF_LIMIT, should="the network's configuration")
    return read_net_conf(text)


def _pod_network(shared: Shared) -> ControllerSetup:
    controller = PodNetworkController(
        kube=shared.kube,
        nodes=shared.nodes,
        node=shared.node,
        conf=_net_conf(shared.options),
        events=shared.events,
        metrics=shared.metrics,
        clock=shared.clock,
    )
    return ControllerSetup(
        controller.part(), tasks={"kernel events": controller.listen}, ready={"pod network": controller.not_ready}
    )


def _node_files(shared: Shared) -> ControllerSetup:
    made = NodeFilesController(nodes=shared.nodes, node=shared.node, files=read_live_files(shared.options.node_files))
    return ControllerSetup(made.part(), ready={"node's files": made.not_ready})


def _policy(shared: Shared) -> ControllerSetup:
    made = PolicyController(
        kube=shared.kube,
        node=shared.node,
        nodes=shared.nodes,
        metrics=shared.metrics,
        clock=shared.clock,
        gate=BootGate(shared.options.boot_gate),
        pods=shared.pods,
        events=shared.events if "cluster-policy" in shared.options.controllers else None,
    )
    return ControllerSetup(made.part, caches=made.caches, ready={"network policies": made.not_ready})


def _announce(shared: Shared) -> ControllerSetup:
    made = AnnounceController(
        kube=shared.kube,
        node=shared.node,
        nodes=shared.nodes,
        events=shared.events,
        metrics=shared.metrics,
        clock=shared.clock,
        shared=shared.announced,
    )
    return ControllerSetup(made.part, caches=made.caches, tasks={"announced addresses": made.run})


def _bgp(shared: Shared) -> ControllerSetup:
    path = shared.options.bgp_conf
    assert path is not None, "check_options"
    made = BgpController(
        kube=shared.kube,
        node=shared.node,
        nodes=shared.nodes,
        conf=read_bgp_conf(
            shared.options.bgp_conf_text or read_text(path, limit=_BGP_CONF_LIMIT, should="the configuration of BGP")
        ),
        events=shared.events,
        metrics=shared.metrics,
        clock=shared.clock,
        shared=shared.announced,
    )
    return ControllerSetup(
        made.part, caches=made.caches, tasks={"FRR": made.run, "announced routes": made.listen}, ready={"BGP": made.not_ready}
    )


def _egress(shared: Shared) -> ControllerSetup:
    made = EgressController(
        kube=shared.kube,
        node=shared.node,
        nodes=shared.nodes,
        events=shared.events,
        metrics=shared.metrics,
        clock=shared.clock,
        conf=read_egress_conf(shared.options.egress),
        pods=shared.pods,
        slices=shared.announced.slices,
    )
    return ControllerSetup(made.part, caches=made.caches, tasks={"egress addresses": made.run})


#: Name of a controller (``settings.CONTROLLERS``) → what makes it.
_BUILDERS: Mapping[str, Callable[[Shared], ControllerSetup]] = {
    "pod-network": _pod_network,
    "node-files": _node_files,
    "policy": _policy,
    "announce": _announce,
    "bgp": _bgp,
    "egress": _egress,
}


def agent(options: AgentOptions, *, kube: Kube, metrics: Metrics, clock: Clock | None = None) -> ControllerSet:
    """All controllers of one node that ``options`` ask for."""
    events = EventRecorder(kube, component=AGENT)
    shared = Shared(
        options=options,
        kube=kube,
        metrics=metrics,
        clock=clock or BootClock(),
        nodes=cache(kube, NODES, parse=parse_node, metrics=metrics, kind="Node", events=events),
        events=events,
        announced=AnnounceCaches.make(kube, metrics),
        pods=pod_cache(kube, metrics),
    )
    wanted = [build(shared) for name, build in _BUILDERS.items() if name in options.controllers]
    if "policy" not in options.controllers:
        wanted.append(removal(BootGate(options.boot_gate)))
    if "pod-network" not in options.controllers:
        wanted.append(pod_network_removal())
    elif "bgp" not in options.controllers and options.net_conf is not None:
        wanted.append(bgp_removal(_net_conf(options).network))
    nodes = [shared.nodes] if options.controllers else []
    return controller_set(wanted, metrics=metrics, events=events, bind=options.bind, shared=nodes)
