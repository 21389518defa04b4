"""Steps inside the cluster, and waits for what Kubernetes and machines make of the others.

A wait is a step like any other: what it waits for and what waits for it is in the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from moyai.core.keys import Key, Kind
from moyai.plan.steps.base import Step, StepId, Verb

#: The conditions, as a display shows them.
MACHINES = Key(Kind.CONDITION, "machines boot")
PLANE = Key(Kind.CONDITION, "control plane boots")
API = Key(Kind.CONDITION, "Kubernetes API answers")
PLANES = Key(Kind.CONDITION, "control planes Ready")
NODES = Key(Kind.CONDITION, "nodes Ready")
ADDONS = Key(Kind.CONDITION, "add-ons run")
VOLUMES = Key(Kind.CONDITION, "volumes ready")
PODS = Key(Kind.CONDITION, "pod network ready")
POLICIES = Key(Kind.CONDITION, "network policies ready")
ANNOUNCED = Key(Kind.CONDITION, "announcing nodes ready")


def balancers_without(node: str) -> Key:
    """The condition that no load balancer sends to the node."""
    return Key(Kind.CONDITION, f"load balancers without {node}")


def reached(condition: Key) -> StepId:
    """The step that waits for the condition."""
    return StepId(Verb.WAIT, condition)


@dataclass(frozen=True, kw_only=True)
class WriteKubeconfig(Step):
    """Put the API's address on record, and a kubeconfig for it beside it. ``why``: where one exists, the reason for another."""

    verb: ClassVar[Verb] = Verb.WRITE
    why: str = ""

    @property
    def text(self) -> str:
        return "write the administrator's kubeconfig" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, kw_only=True)
class DrainRules:
    """How pods leave a node. ``order``: labels, as (name, value); pods that have the first ones leave first, the others last.
    ``jobs``: seconds in which pods of Jobs may end by themselves. ``timeout``: seconds for the others. ``override``: after that
    the pods are deleted; otherwise the node stays."""

    order: tuple[tuple[tuple[str, str], ...], ...] = ()
    jobs: float = 0.0
    timeout: float = 180.0
    override: bool = False

    @property
    def text(self) -> str:
        parts = [
            *(["in order"] if self.order else []),
            *([f"Jobs have {self.jobs:.0f} s to end"] if self.jobs else []),
            *([f"after {self.timeout:.0f} s against budgets"] if self.override else []),
        ]
        return f" ({', '.join(parts)})" if parts else ""


@dataclass(frozen=True, kw_only=True)
class DrainNode(Step):
    """Let no new pods onto a node and move those away that are there."""

    verb: ClassVar[Verb] = Verb.DRAIN
    node: str
    rules: DrainRules = field(default_factory=DrainRules)

    @property
    def text(self) -> str:
        return f"drain {self.key}{self.rules.text}"


@dataclass(frozen=True, kw_only=True)
class ExcludeNode(Step):
    """Let load balancers send nothing more to a node, by the label that all cloud controller managers follow."""

    verb: ClassVar[Verb] = Verb.EXCLUDE
    node: str

    @property
    def text(self) -> str:
        return f"exclude {self.key} from load balancers"


@dataclass(frozen=True, kw_only=True)
class UncordonNode(Step):
    """Undo what an earlier `up` did to a node that it was to remove, and that is wanted again."""

    verb: ClassVar[Verb] = Verb.UNCORDON
    node: str

    @property
    def text(self) -> str:
        return f"uncordon {self.key}, whose removal was begun and is no longer wanted"


@dataclass(frozen=True, kw_only=True)
class MarkControlPlane(Step):
    """Give the Node of a control plane the labels and the taint that kubeadm gave it, and that no kubelet registers with."""

    verb: ClassVar[Verb] = Verb.SET
    node: str

    @property
    def text(self) -> str:
        return f"mark {self.key} as the control plane's, once it is registered"


@dataclass(frozen=True, kw_only=True)
class DeleteNode(Step):
    """Delete the Node object of a machine that is gone, once its disks are off it."""

    verb: ClassVar[Verb] = Verb.DELETE
    node: str


@dataclass(frozen=True, kw_only=True)
class RenewToken(Step):
    """Give the cluster a bootstrap token that lives long enough for machines that join later.

    ``keep``: the token on record, with which machines are still to join.
    """

    verb: ClassVar[Verb] = Verb.CREATE
    keep: bool = False

    @property
    def text(self) -> str:
        return "renew the bootstrap token for the machines that join"


@dataclass(frozen=True, kw_only=True)
class RevokeTokens(Step):
    """Delete the bootstrap tokens that moyai has made: with one of them anybody could join a node to the cluster."""

    verb: ClassVar[Verb] = Verb.DELETE

    @property
    def text(self) -> str:
        return "delete the bootstrap token, since all nodes have joined"


@dataclass(frozen=True, kw_only=True)
class DeleteUnsealingKey(Step):
    """Take the key away that opens a control plane's secrets, which has served once the API answers."""

    verb: ClassVar[Verb] = Verb.DELETE
    node: str

    @property
    def text(self) -> str:
        return f"delete the unsealing key from the metadata of server {self.node}"


@dataclass(frozen=True, kw_only=True)
class SetReclaimPolicy(Step):
    """Recreate the default StorageClass with another policy; volumes and claims that exist keep what they were made with."""

    verb: ClassVar[Verb] = Verb.SET
    policy: Literal["Delete", "Retain"]

    @property
    def text(self) -> str:
        return f"set the default StorageClass's reclaimPolicy to {self.policy}"


@dataclass(frozen=True, kw_only=True)
class SetCopies(Step):
    """Give a Deployment of kube-system another number of copies. Its pods stay as they are."""

    verb: ClassVar[Verb] = Verb.SET
    copies: int

    @property
    def text(self) -> str:
        return f"set the copies of {self.key} to {self.copies}"


@dataclass(frozen=True, kw_only=True)
class SetProxy(Step):
    """Let the DaemonSet kube-proxy start another image. ``pinned``: of this version, empty for the one that each node brings
    along. ``held``: pods that run stay as they are, since their nodes do not have the image."""

    verb: ClassVar[Verb] = Verb.SET
    pinned: str = ""
    held: bool = False

    @property
    def text(self) -> str:
        which = f"kube-proxy {self.pinned}" if self.pinned else "kube-proxy of each node's own version"
        return f"start {which} on {'new' if self.held else 'all'} nodes"


@dataclass(frozen=True, kw_only=True)
class SetKubeadmVersion(Step):
    """Say in kubeadm's configuration which version of Kubernetes the cluster has: machines that join read it."""

    verb: ClassVar[Verb] = Verb.SET
    version: str

    @property
    def text(self) -> str:
        return f"set the version in kubeadm's configuration to {self.version}"


@dataclass(frozen=True, kw_only=True)
class ApplyAddon(Step):
    """Apply an add-on's manifests to a cluster that runs. ``why``: in a few words."""

    verb: ClassVar[Verb] = Verb.APPLY
    addon: str
    why: str

    @property
    def text(self) -> str:
        return f"apply {self.key}: {self.why}"


@dataclass(frozen=True, kw_only=True)
class RemoveAddon(Step):
    """Delete the objects of an add-on's manifests."""

    verb: ClassVar[Verb] = Verb.REMOVE
    addon: str


@dataclass(frozen=True, kw_only=True)
class WaitMachines(Step):
    """``nodes``: names of machines that must run."""

    verb: ClassVar[Verb] = Verb.WAIT
    nodes: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"wait until {_count(self.nodes, 'machine')} run{_s(self.nodes)}"


@dataclass(frozen=True, kw_only=True)
class WaitApi(Step):
    """``node``: the control plane whose machine is looked at when the API does not answer in time."""

    verb: ClassVar[Verb] = Verb.WAIT
    node: str

    @property
    def text(self) -> str:
        return "wait until the Kubernetes API answers"


@dataclass(frozen=True, kw_only=True)
class WaitNodes(Step):
    """``nodes``: names of nodes that must be known to the cloud controller manager, and Ready unless ``ready`` is false."""

    verb: ClassVar[Verb] = Verb.WAIT
    nodes: tuple[str, ...]
    ready: bool = True

    @property
    def text(self) -> str:
        state = "Ready" if self.ready else "registered"
        return f"wait until {_count(self.nodes, 'node')} {'is' if len(self.nodes) == 1 else 'are'} {state}"


@dataclass(frozen=True, kw_only=True)
class WaitBalancers(Step):
    """Until no load balancer sends to a node that goes, and its connections through them have had time to end. ``addresses``:
    the node's."""

    verb: ClassVar[Verb] = Verb.WAIT
    node: str
    addresses: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"wait until load balancers and their connections have left node {self.node}"


@dataclass(frozen=True, kw_only=True)
class WaitAddon(Step):
    """``required``: without it the cluster is not up; otherwise what is missing is reported, and `up` succeeds. ``without``:
    what users lack then, as a sentence."""

    verb: ClassVar[Verb] = Verb.WAIT
    addon: str
    deployments: tuple[str, ...]
    daemon_sets: tuple[str, ...]
    required: bool = True
    without: str = ""

    @property
    def text(self) -> str:
        return f"wait until {', '.join((*self.deployments, *self.daemon_sets))} run"


def _count(names: tuple[str, ...], what: str) -> str:
    return f"{len(names)} {what}" + ("" if len(names) == 1 else "s")


def _s(names: tuple[str, ...]) -> str:
    return "s" if len(names) == 1 else ""
