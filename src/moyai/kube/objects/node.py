"""Nodes and their leases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from moyai.kube.objects.meta import Reference, condition, deleting, part, rows, since, stamp, text, text_map, texts
from moyai.kube.resources import Json

#: The taint of a node that the cloud controller manager has not initialised yet: a kubelet with an external cloud provider
#: sets it, and no pod that does not tolerate it starts there before the cloud controller manager takes it away.
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"

#: The label and the taint of a node of the control plane, as kubeadm sets them.
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
#: Nodes with this label get no traffic from load balancers, and announce no address; kubeadm puts it on control planes.
EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
#: The addresses that a kubelet was configured with, separated by commas.
PROVIDED_IPS = "alpha.kubernetes.io/provided-node-ip"


@dataclass(frozen=True)
class Taint:
    key: str
    effect: str
    value: str = ""


@dataclass(frozen=True)
class NodeAddress:
    """``type``: InternalIP, ExternalIP, Hostname …"""

    type: str
    address: str


@dataclass(frozen=True)
class Node:
    """``ready`` None: not said yet. ``ready_since``: when that began, by the cluster's clock. ``network_unavailable``: the
    condition's status where there is one. ``kubelet``: its kubelet's version, ``v1.37.1``."""

    name: str
    uid: str
    version: str = ""
    provider_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    taints: tuple[Taint, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    ready: bool | None = None
    ready_since: datetime | None = None
    network_unavailable: bool | None = None
    deleting: bool = False
    cordoned: bool = False
    kubelet: str = ""

    @property
    def internal_ips(self) -> tuple[str, ...]:
        return tuple(one.address for one in self.addresses if one.type == "InternalIP")

    @property
    def provided_ips(self) -> tuple[str, ...]:
        """The addresses that the kubelet was configured with."""
        return tuple(filter(None, self.annotations.get(PROVIDED_IPS, "").split(",")))

    @property
    def reference(self) -> Reference:
        return Reference("Node", self.name, self.uid)

    @property
    def control_plane(self) -> bool:
        return CONTROL_PLANE in self.labels

    @property
    def uninitialized(self) -> bool:
        """Whether the cloud controller manager has yet to initialise it."""
        return any(taint.key == UNINITIALIZED for taint in self.taints)


@dataclass(frozen=True)
class Lease:
    """``renewed`` as its holder wrote it: two of them may be compared for equality only. ``seconds``: how long it lasts.
    ``holder`` is empty for one that was handed back."""

    name: str
    renewed: str
    seconds: int
    holder: str = ""


def parse_node(found: Json) -> Node:
    meta, spec, status = (part(found, key) for key in ("metadata", "spec", "status"))
    cidrs = texts(spec, "podCIDRs")
    if not cidrs and spec.get("podCIDR"):
        cidrs = (str(spec["podCIDR"]),)
    return Node(
        name=str(meta["name"]),
        uid=text(meta, "uid"),
        version=text(meta, "resourceVersion"),
        provider_id=text(spec, "providerID"),
        labels=text_map(meta, "labels"),
        annotations=text_map(meta, "annotations"),
        taints=tuple(Taint(text(one, "key"), text(one, "effect"), text(one, "value")) for one in rows(spec, "taints")),
        addresses=tuple(NodeAddress(str(one["type"]), str(one["address"])) for one in rows(status, "addresses")),
        pod_cidrs=cidrs,
        ready=condition(found, "Ready"),
        ready_since=since(found, "Ready"),
        network_unavailable=condition(found, "NetworkUnavailable"),
        deleting=deleting(found),
        cordoned=bool(spec.get("unschedulable")),
        kubelet=text(part(status, "nodeInfo"), "kubeletVersion"),
    )


def parse_lease(found: Json) -> Lease:
    spec = part(found, "spec")
    return Lease(
        name=str(part(found, "metadata")["name"]),
        renewed=text(spec, "renewTime"),
        seconds=int(spec.get("leaseDurationSeconds") or 0),
        holder=text(spec, "holderIdentity"),
    )


def network_available(*, reason: str, message: str, now: datetime) -> Json:
    """The condition by which a node's status says that its pods and those of other nodes reach each other."""
    return {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": stamp(now),
        "lastHeartbeatTime": stamp(now),
    }
