"""The options with which the agent starts: the node that it is on, and the controllers that run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from moyai.core.errors import UsageError

#: The controllers that there are, in the order of the start. ``cluster-policy`` is a part of ``policy``.
CONTROLLERS: tuple[str, ...] = ("pod-network", "node-files", "policy", "cluster-policy", "announce", "bgp", "egress")
#: Those that a manifest may name in its arguments (``runtime.controller_names``). No name comes to them.
SETTLED_CONTROLLERS: tuple[str, ...] = ("pod-network", "node-files", "policy", "cluster-policy", "announce", "bgp")
#: Those that run where nothing else is said.
DEFAULT_CONTROLLERS: tuple[str, ...] = ("pod-network", "policy", "cluster-policy")


@dataclass(frozen=True)
class AgentOptions:
    """``node``: name of the Node that this machine is. ``net_conf``: file of the pod network's configuration, in flannel's
    format; None where that controller does not run. ``bgp_conf``: that of BGP. ``net_conf_text``, ``bgp_conf_text``: the
    configuration itself, which then counts instead of the file's. ``node_files``: what the controller of that name does, as
    JSON. ``egress``: ranges for egress addresses, as JSON. ``boot_gate``: the marker of the node's gate, None where there is no
    gate. ``bind``: ``host:port`` of probes and metrics. ``kubeconfig`` None: as a pod of the cluster."""

    node: str
    controllers: tuple[str, ...] = DEFAULT_CONTROLLERS
    net_conf: Path | None = None
    net_conf_text: str = ""
    node_files: str = ""
    egress: str = ""
    bgp_conf: Path | None = None
    bgp_conf_text: str = ""
    boot_gate: Path | None = None
    bind: str = "127.0.0.1:9810"
    kubeconfig: Path | None = None
    log_level: str = "info"


def check_options(options: AgentOptions, known: Collection[str] = CONTROLLERS) -> None:
    """Raises UsageError for options that the agent cannot start with. ``known``: names of controllers."""
    if not options.node:
        raise UsageError("no --node-name", hint="give the name of this machine's Node; the environment's NODE_NAME counts too")
    if "pod-network" in options.controllers and options.net_conf is None:
        raise UsageError("no --net-config-path", hint="name the pod network's configuration, in the format of net-conf.json")
    if "node-files" in options.controllers and not options.node_files:
        raise UsageError("no MOYAI_NODE_FILES", hint="say what the node's files are, as `moyai net migrate` does")
    if "egress" in options.controllers and not options.egress:
        raise UsageError("no MOYAI_EGRESS", hint="say which ranges egress addresses are of, as `moyai up` does")
    if "bgp" in options.controllers and options.bgp_conf is None:
        raise UsageError("no --bgp-config-path", hint="name the configuration of BGP, a bgp.json")
    if "cluster-policy" in options.controllers and "policy" not in options.controllers:
        raise UsageError("the controller cluster-policy has no effect without policy", hint="give both, or neither")
    if unknown := sorted(set(options.controllers) - set(known)):
        raise UsageError(f"there is no controller {unknown[0]!r}", hint=f"there are: {', '.join(known)}")
