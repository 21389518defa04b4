"""What a planner for clusters looks at: the cloud as it is, and what the record says was meant.

Plain facts, taken at one time by ``lifecycle.observe``. Lists hold what the whole project has (``ports``: what is on the
cluster's network and whatever carries its tag; ``rules``: those of the cluster's groups), because a name that is taken and an
object that a crash left without its tag can only be seen so. The helpers here name the owner of an object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Protocol

from moyai.cloud.capabilities import Capability
from moyai.cloud.credentials import DIRECT, MAY_ISSUE, OwnLogin, Reach
from moyai.cloud.entrances import Entrance
from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import (
    Flavor,
    FloatingIP,
    Image,
    Network,
    Port,
    Quota,
    Router,
    SecurityGroup,
    SecurityGroupRule,
    Server,
    Snapshot,
    SpreadGroup,
    Subnet,
    Volume,
)
from moyai.core.ids import CLUSTER_TAG, MACHINE_KEY, NODE_KUBE_PROXY, Role, cluster_tag, tag_owner
from moyai.core.keys import Key
from moyai.kube.objects import PersistentVolume, Service
from moyai.plan.certificates import Life


class Tagged(Protocol):
    @property
    def tags(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class KubeNode:
    """A Node object. ``known``: the cloud controller manager has initialised it. ``version``: its kubelet's, without ``v``.

    ``ready_since``: when it became Ready, or ceased to be. ``role``: by the label that kubeadm gives. ``cordoned``: no new pods
    are placed on it. ``removing``: an `up` has begun to remove it. ``excluded``: load balancers send nothing to it.

    ``stopped``: a control plane whose API server an `up` has ended; it does not come back.
    """

    name: str
    ready: bool = True
    known: bool = True
    version: str = ""
    role: Role = "worker"
    ready_since: datetime | None = None
    cordoned: bool = False
    removing: bool = False
    excluded: bool = False
    stopped: bool = False


@dataclass(frozen=True)
class KubeFacts:
    """What a cluster's API said. ``workloads``: names of the Deployments and DaemonSets of kube-system. ``running``: those of
    them that have all their pods.

    ``reclaim_policy``: of the default StorageClass, empty where there is none. ``tokens``: ids of the bootstrap tokens that
    moyai made and that are valid still. ``copies``: how many copies the Deployments of kube-system are to have. ``elected``:
    those of which one copy alone works. ``policies``: whether the nodes' agents enforce network policies.

    ``proxy_image``: that the DaemonSet kube-proxy starts, empty where there is none. ``proxy_held``: its pods that run stay
    when it changes. ``kubeadm``: the version in kubeadm's configuration, empty where it was not read.
    """

    nodes: tuple[KubeNode, ...] = ()
    running: frozenset[str] = frozenset()
    reclaim_policy: str = ""
    tokens: frozenset[str] = frozenset()
    workloads: frozenset[str] = frozenset()
    copies: Mapping[str, int] = field(default_factory=dict[str, int])
    elected: frozenset[str] = frozenset()
    policies: bool = False
    proxy_image: str = ""
    proxy_held: bool = False
    kubeadm: str = ""

    @property
    def proxy_own(self) -> bool:
        """Whether each node runs the kube-proxy that it brings along."""
        return self.proxy_image == NODE_KUBE_PROXY

    def node(self, name: str) -> KubeNode | None:
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> Mapping[str, KubeNode]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(node.name for node in self.nodes)

    @cached_property
    def registered(self) -> frozenset[str]:
        """Nodes that are known, Ready or not."""
        return frozenset(node.name for node in self.nodes if node.known)

    @cached_property
    def in_service(self) -> frozenset[str]:
        """Nodes that are Ready and known."""
        return frozenset(node.name for node in self.nodes if node.ready and node.known)


@dataclass(frozen=True)
class KubeUse:
    """What a cluster's API said of what must end in order before the cluster goes.

    ``services``: those of type LoadBalancer. ``open_nodes``: names of the nodes that take new pods. ``volumes``: the claimed
    PersistentVolumes of the cloud's CSI driver.
    """

    services: tuple[Service, ...] = ()
    open_nodes: tuple[str, ...] = ()
    volumes: tuple[PersistentVolume, ...] = ()


@dataclass(frozen=True)
class AccountFacts:
    """Where and how the parts inside a cluster reach the cloud; empty where the cloud does not publish it. ``serves``: whether
    the cloud makes load balancers for Services itself (``cloud.service_balancers``)."""

    region: str = ""
    login_url: str = ""
    image_mirror: str = ""
    reach: Reach = DIRECT
    serves: bool = False


@dataclass(frozen=True)
class Observed:
    """``keypairs``: names. ``credentials``: name → id. ``subnets``: also the external networks'.

    ``spread_groups``: those of the whole project. ``volume_types``: names, where a spec asks for one; empty where the cloud
    does not list them.

    ``balancer_providers``: empty where they were not asked for, or the cloud does not list them. ``host_addresses``: external
    network's id → this host's own address on the way there, where it is known.

    ``servers``: those of nodes. ``machines``: those beside the cluster.

    ``credential_ends``: name → when the credential ends, of those that do. ``login``: what the user's own login can
    do, where that was asked for. ``sources_allowed``: whether ports can be allowed to send from other addresses than their own,
    where that was asked for. ``needs_tags``: whether objects have their owner in tags alone. ``starts_by_script``: whether `up`
    sends machines their start. ``entrance``: the cluster's own. ``api_balancer``: the
    whole load balancer before the API, where that was asked for. ``served``: names of load balancers that the cloud itself made
    for the cluster's Services, for a removal alone. ``kube``: None when the cluster's API did not answer, or there is none.
    ``in_use``: the same, for a removal alone. ``sources_of_port``: the kind's (``CloudKind``).
    """

    flavors: tuple[Flavor, ...] = ()
    zones: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()
    networks: tuple[Network, ...] = ()
    subnets: tuple[Subnet, ...] = ()
    routers: tuple[Router, ...] = ()
    ports: tuple[Port, ...] = ()
    groups: tuple[SecurityGroup, ...] = ()
    rules: tuple[SecurityGroupRule, ...] = ()
    floating_ips: tuple[FloatingIP, ...] = ()
    servers: tuple[Server, ...] = ()
    machines: tuple[Server, ...] = ()
    volumes: tuple[Volume, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    load_balancers: tuple[LoadBalancer, ...] = ()
    entrance: Entrance | None = None
    api_balancer: LoadBalancer | None = None
    served: frozenset[str] = frozenset()
    keypairs: tuple[str, ...] = ()
    spread_groups: tuple[SpreadGroup, ...] = ()
    volume_types: tuple[str, ...] = ()
    credentials: Mapping[str, str] = field(default_factory=dict[str, str])
    credential_ends: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    quotas: tuple[Quota, ...] = ()
    balancer_providers: tuple[str, ...] = ()
    host_addresses: Mapping[str, str] = field(default_factory=dict[str, str])
    capabilities: frozenset[Capability] = frozenset(Capability)
    account: AccountFacts = AccountFacts()
    login: OwnLogin = MAY_ISSUE
    sources_allowed: bool = True
    sources_of_port: int = 0
    needs_tags: bool = False
    starts_by_script: bool = False
    kube: KubeFacts | None = None
    in_use: KubeUse | None = None

    @property
    def may_be_untagged(self) -> bool:
        """Whether an interrupted run may have left an object without its tags: then an object without any owner, under the name
        that the run meant to give it, is the cluster's. Elsewhere tags come with the object, and a name proves nothing."""
        return Capability.TAGS in self.capabilities

    @property
    def kube_nodes(self) -> frozenset[str]:
        """Names of the Node objects; none where the API did not answer."""
        return self.kube.names if self.kube else frozenset()


@dataclass(frozen=True)
class NodeAllocation:
    """What the record keeps of a node, so that it never moves: its index in the cluster's ranges, its zone. ``address``: the
    one that the cloud chose, on a network that exists; empty where it follows from the index."""

    index: int
    zone: str
    address: str = ""


@dataclass(frozen=True)
class Recorded:
    """What the planner must know of the past. ``intended``: keys of objects whose creation was begun at some time.

    ``ready``: the control plane has answered once, so its machine holds the cluster's state. ``api_address``: the address that
    the kubeconfig on disk leads to, empty while there is no kubeconfig. ``token_fresh``: the bootstrap token lives long enough
    for machines that join now. ``token_id``: its public half, empty where there is no token. ``kubeconfig_life``: of the client
    certificate in the kubeconfig on disk, None while there is no kubeconfig. ``now``: when all this was read, None where
    nothing is on record.

    ``awaited``: nodes whose machines `up` has made or started and that it has not seen Ready since. ``joining``: those of them
    whose machines were started so lately that they may still come by themselves. ``applied``: the control plane first answered
    so long ago that all add-ons have been applied.

    ``unstarted``: nodes whose machines were made and have not run their start, which is kept for them.

    ``restores``: when the backup was made (ISO 8601) that the cluster is being made again from, and which knows less than the
    cloud may have; empty for any other cluster.
    """

    name: str
    uid: str
    allocations: Mapping[str, NodeAllocation] = field(default_factory=dict[str, NodeAllocation])
    intended: frozenset[Key] = frozenset()
    ready: bool = False
    api_address: str = ""
    token_fresh: bool = False
    token_id: str = ""
    kubeconfig_life: Life | None = None
    now: datetime | None = None
    awaited: frozenset[str] = frozenset()
    joining: frozenset[str] = frozenset()
    applied: bool = False
    restores: str = ""
    unstarted: frozenset[str] = frozenset()

    @property
    def kubeconfig_due(self) -> Life | None:
        """The life of the kubeconfig's certificate where it is to be renewed, else None."""
        life = self.kubeconfig_life
        return life if life is not None and self.now is not None and life.due(self.now) else None


def owner(tagged: Tagged) -> str | None:
    """The UID of the cluster that the object belongs to, None when it carries none."""
    return next((uid for tag in tagged.tags if (uid := tag_owner(tag))), None)


def owns(uid: str, tagged: Tagged) -> bool:
    return cluster_tag(uid) in tagged.tags


def is_beside(port: Tagged) -> bool:
    """Whether the port is that of a machine beside the cluster."""
    return any(tag.startswith(f"{MACHINE_KEY}=") for tag in port.tags)


def server_owner(server: Server) -> str | None:
    return server.metadata.get(CLUSTER_TAG) or owner(server)
