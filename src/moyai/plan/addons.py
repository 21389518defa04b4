"""What a cluster starts with besides Kubernetes itself: named, with its manifests and with what shows that it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from moyai.cloud.capabilities import Capability
from moyai.cloud.kind import CloudKind
from moyai.core.keys import Key
from moyai.plan.demands import Choices
from moyai.plan.graph import Made
from moyai.plan.observed import AccountFacts
from moyai.spec.model import Cluster, ClusterSpec


@dataclass(frozen=True)
class AddonFacts:
    """What manifests are made from. ``api_server``: ``host:port`` on the node network. ``secrets``: credential → its secret."""

    cluster: Cluster
    uid: str
    choices: Choices
    made: Made
    account: AccountFacts
    cloud_kind: CloudKind
    api_server: str
    capabilities: frozenset[Capability]
    secrets: Mapping[Key, str] = field(repr=False, default_factory=dict[Key, str])


def copies(spec: ClusterSpec) -> int:
    """How many copies a controller has that runs on control planes: one works, the other takes over."""
    return min(2, spec.control_plane.replicas)


@dataclass(frozen=True)
class Addon:
    """``condition``: what `up` waits for: these Deployments and DaemonSets of kube-system with all their pods.

    ``after_network``: those of them whose pods start only on nodes that are Ready. ``copied``: those that run on control
    planes, in as many ``copies`` as the spec asks for.

    ``required``: a cluster is not up without it. ``manifests``: None where kubeadm installs it. ``needs``: the capability
    without which the cloud has no use for it. ``credential``: with which it reaches the cloud. ``without``: what users
    lack while it does not run, where that is more than its name says.

    ``live``: whether `up` applies it to a cluster that runs as well, when it is missing or not as the spec wants it.
    ``unwanted``: the cluster is to go without it. Where it is, its manifests are applied once more, so that its pods clear up,
    and then it is removed.
    """

    name: str
    condition: Key
    deployments: tuple[str, ...] = ()
    daemon_sets: tuple[str, ...] = ()
    after_network: frozenset[str] = frozenset()
    copied: tuple[str, ...] = ()
    required: bool = True
    needs: Capability | None = None
    credential: Key | None = None
    manifests: Callable[[AddonFacts], str] | None = None
    without: str = ""
    live: bool = False
    unwanted: bool = False

    @property
    def names(self) -> frozenset[str]:
        return frozenset((*self.deployments, *self.daemon_sets))
