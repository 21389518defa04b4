"""The cluster spec as validated models: what a user may write in ``cluster.yaml``, with every default.

Always holds: an empty spec is a whole cluster; an unknown field is refused; what a model accepts, the planner can use
without asking again (names are DNS labels, ranges do not overlap, the pod ranges fit), and nodes can register with it. The
spec of a cluster that exists need not keep rules that are younger than the cluster. Field names in YAML are camelCase.
Each field's description is the reference documentation (docs/reference/spec.md is generated from here).
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from moyai.core.ids import NODE_IMAGE, is_dns_label, node_image
from moyai.core.kubernetes_version import DEFAULT_KUBERNETES_VERSION, is_version
from moyai.spec.address_types import Cidr
from moyai.spec.announced_services import Services, check_announced
from moyai.spec.backups import Backups
from moyai.spec.base import Model, problem
from moyai.spec.beside import NODES, FurtherNetwork, MachineSpec, check_beside
from moyai.spec.bgp_network import check_bgp_use
from moyai.spec.cluster_network import NetworkSpec, check_once
from moyai.spec.control_plane import ControlPlane
from moyai.spec.forbidden_ranges import special_home
from moyai.spec.kubernetes import is_key, is_value, label_taken, taint_taken
from moyai.spec.object_names import Choice, CloudName, Name, is_new
from moyai.spec.rolling import Drain, RollingUpdate
from moyai.spec.root_volume import MachineForm
from moyai.spec.security import Security

API_VERSION = "moyai.dev/v1alpha1"
#: Names of servers are host names (63) and get "-<pool>-<number>" behind the cluster's name.
MAX_CLUSTER_NAME = 30
MAX_POOL_NAME = 20
_LABEL_VALUE = "at most 63 letters, digits, '-', '_', '.', a letter or digit at either end"


def _dns_label(limit: int) -> AfterValidator:
    def check(value: str) -> str:
        if not is_dns_label(value, max_length=limit):
            raise problem(f"a DNS label (a-z, 0-9, '-'; begins with a letter, at most {limit} characters)")
        return value

    return AfterValidator(check)


def _version(value: Any) -> str:
    if not isinstance(value, str) or not is_version(value.removeprefix("v")):
        raise problem(f"a version such as {DEFAULT_KUBERNETES_VERSION} (in quotes)")
    return value.removeprefix("v")


def _key(key: str, info: ValidationInfo) -> str:
    if is_new(info) and not is_key(key):
        raise problem(f"keys such as example.com/name, not {key!r}")
    return key


def _value(value: str, info: ValidationInfo) -> str:
    if is_new(info) and not is_value(value):
        raise problem(_LABEL_VALUE)
    return value


def _taint_key(key: str, info: ValidationInfo) -> str:
    taken = taint_taken(_key(key, info))
    if is_new(info) and taken:
        raise problem(f"another key: {taken}")
    return key


def _labels(labels: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    for key, value in labels.items():
        _key(key, info)
        taken = label_taken(key)
        if is_new(info) and taken:
            raise problem(f"under another key: {taken}", at=(key,))
        if is_new(info) and not is_value(value):
            raise problem(_LABEL_VALUE, at=(key,))
    return labels


def _sources(ranges: list[IPv4Network], info: ValidationInfo) -> list[IPv4Network]:
    for number, cidr in enumerate(ranges if is_new(info) else ()):
        home = special_home(cidr)
        if home:
            raise problem(f"a range that clients have, not one of {home}", at=(number,))
    check_once(ranges if is_new(info) else (), "range")
    return ranges


Labels = Annotated[dict[str, str], AfterValidator(_labels)]
Sources = Annotated[list[Cidr], AfterValidator(_sources)]


class TaintSpec(Model):
    """A taint that the pool's nodes register with."""

    key: Annotated[str, AfterValidator(_taint_key)] = Field(
        description="Key, such as example.com/gpu; not of node.kubernetes.io, node.cloudprovider.kubernetes.io, moyai.dev."
    )
    value: Annotated[str, AfterValidator(_value)] = Field(
        default="", description="Value: at most 63 letters, digits, `-`, `_`, `.`; may be empty."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        description="What it does to pods without a toleration."
    )


class NodePool(MachineForm):
    """A group of like workers."""

    name: Annotated[str, _dns_label(MAX_POOL_NAME)] = Field(
        default="workers", description="Name of the pool: part of its nodes' names."
    )
    flavor: Name = Field(default="m1.small", description="The cloud's flavor for its machines.")
    zones: list[Name] = Field(
        default_factory=list[str], description="Availability zones its nodes take turns in; empty: all that the cloud offers."
    )
    replicas: Annotated[int, Field(ge=0, le=500)] = Field(default=2, description="How many nodes (0 to 500).")
    labels: Labels = Field(
        default_factory=dict[str, str],
        description=(
            "Labels that its nodes register with: none of moyai.dev, and of kubernetes.io and k8s.io only those that a node "
            "may give itself (node.kubernetes.io, without instance-type)."
        ),
    )
    taints: list[TaintSpec] = Field(
        default_factory=list[TaintSpec],
        description="Taints that its nodes register with; each key once with each effect.",
    )
    rolling_update: RollingUpdate = Field(
        default_factory=RollingUpdate, description="How machines that are out of date are replaced."
    )
    drain: Drain = Field(default_factory=Drain, description="How pods leave a node that goes.")
    network: str = Field(default=NODES, description="The network that its machines are in: `nodes`, or one of `networks`.")

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if self.name == "control-plane":
            raise problem("another name: control-plane is the control plane's own", at=("name",))
        if len(set(self.zones)) != len(self.zones):
            raise problem("zones, each of them once", at=("zones",))
        seen: dict[tuple[str, str], int] = {}
        for number, taint in enumerate(self.taints if is_new(info) else ()):
            first = seen.setdefault((taint.key, taint.effect), number)
            if first != number:
                should = f"another key or effect: taints[{first}] has both {taint.key} and {taint.effect}"
                raise problem(should, at=("taints", number, "key"))
        return self


class LoadBalancerSpec(Model):
    """Load balancers for Services of `type: LoadBalancer`."""

    provider: Choice = Field(default="", description="The cloud's load balancer provider; empty: its default.")
    floating_network: Choice = Field(default="", description="Network of their floating addresses; empty: externalNetwork.")
    create_monitor: bool = Field(default=True, description="Whether members are health-checked.")


class AccessSpec(Model):
    """Addresses outside that may reach the cluster."""

    api_cidrs: Sources = Field(
        default_factory=lambda: [IPv4Network("0.0.0.0/0")],
        alias="apiCIDRs",
        description="Ranges that may reach the API (port 6443).",
    )
    ssh_cidrs: Sources = Field(
        default_factory=lambda: [IPv4Network("0.0.0.0/0")],
        alias="sshCIDRs",
        description="Ranges that may log in to the control plane by SSH (keys only); the workers are reached through it.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.api_cidrs:
            raise problem(
                "at least one range: without a range neither moyai nor anybody else reaches the API", at=("apiCIDRs",)
            )
        return self


class Volumes(Model):
    """What becomes of volumes when the cluster or one of its machines goes."""

    reclaim_policy: Literal["Delete", "Retain"] = Field(
        default="Delete",
        description="`Delete`: `down` deletes the volumes that the cluster made; `Retain`: it keeps and names them.",
    )
    fencing: Literal["verify", "poweroff", "off"] = Field(
        default="verify",
        description=(
            "When a node's machine dies. `verify`: its pods and disks move at once if the cloud says that it is off, never on "
            "doubt. `poweroff`: a machine that runs but has not answered for 40 s is powered off first. `off`: only Kubernetes "
            "decides, after more than 6 minutes."
        ),
    )


class ClusterSpec(Model):
    """The machines, network, access and add-ons of the cluster."""

    cloud: CloudName = Field(
        default="moyai",
        description="Entry of clouds.yaml (left out: `$OS_CLOUD` if set, else the cloud of `OS_*` variables if `$OS_AUTH_URL` "
        "is set); `moyai` is the local cloud, which `moyai up` starts. `envvars` is the cloud of `OS_*` variables. A kind of "
        "cloud with its settings is a mapping, such as `{nifcloud: {region: jp-east-1}}`.",
    )
    kubernetes_version: Annotated[str, BeforeValidator(_version)] = Field(
        default=DEFAULT_KUBERNETES_VERSION,
        description="Kubernetes version; the node image must hold it. For the local cloud moyai makes images of 1.36.3 and "
        "1.37.1. A cluster that exists keeps its version; `moyai upgrade` changes it.",
    )
    image: Choice = Field(default="", description=f"Name or id of the node image; empty: {NODE_IMAGE}<kubernetesVersion>.")
    control_plane: ControlPlane = Field(default_factory=ControlPlane, description="The control plane.")
    node_pools: list[NodePool] = Field(default_factory=lambda: [NodePool()], description="The workers; empty: none.")
    network: NetworkSpec = Field(default_factory=NetworkSpec, description="Addresses and routing.")
    load_balancer: LoadBalancerSpec = Field(default_factory=LoadBalancerSpec, description="Load balancers of Services.")
    access: AccessSpec = Field(default_factory=AccessSpec, description="Addresses outside that may reach the cluster.")
    services: Services = Field(default_factory=Services, description="Addresses of Services that nodes announce themselves.")
    volumes: Volumes = Field(default_factory=Volumes, description="Volumes made from inside the cluster.")
    security: Security = Field(default_factory=Security, description="What nodes and the API server permit.")
    backup: Backups = Field(default_factory=Backups, description="Backups that are made again and again.")
    networks: list[FurtherNetwork] = Field(
        default_factory=list[FurtherNetwork], description="Networks beside the cluster's own."
    )
    machines: list[MachineSpec] = Field(default_factory=list[MachineSpec], description="Machines beside the cluster.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        seen: dict[str, int] = {}
        for number, pool in enumerate(self.node_pools):
            if pool.name in seen:
                raise problem(f"a name of its own: nodePools[{seen[pool.name]}] has it too", at=("nodePools", number, "name"))
            seen[pool.name] = number
        network = self.network
        ranges = dict(network.ranges)
        self._check_existing()
        if network.settled:
            check_beside(self.networks, self.machines, ranges=ranges, pools=self.node_pools, mode=network.mode)
        homes = [*ranges.values(), *(one.cidr for one in self.networks)]
        check_bgp_use(network.bgp, mode=network.mode, announces=bool(self.services.announce.ranges))
        if network.settled:
            check_announced(self.services.announce, homes=homes, nodes=network.node_addresses)
        nodes = self.control_plane.replicas + sum(pool.replicas for pool in self.node_pools)
        if nodes > self.max_nodes:
            most = max(range(len(self.node_pools)), key=lambda n: self.node_pools[n].replicas)
            raise problem(
                f"less: {nodes} nodes in all do not fit, nodeCIDR {self.network.node_cidr} and podCIDR {self.network.pod_cidr} "
                f"with nodePodPrefix {self.network.node_pod_prefix}{self._without} hold {self.max_nodes}",
                at=("nodePools", most, "replicas"),
            )
        return self

    def _check_existing(self) -> None:
        existing = self.network.existing
        given = existing.network or existing.router
        for field, there in (("networks", self.networks), ("machines", self.machines)):
            if given and there:
                raise problem("left out where network.existing is given", at=(field,))
        for number, pool in enumerate(self.node_pools):
            if given and pool.network != NODES:
                raise problem("left out where network.existing is given", at=("nodePools", number, "network"))
        needs_address, has_address = (
            bool(existing.network) and self.control_plane.virtual,
            self.control_plane.api_server_fixed_ip,
        )
        if needs_address != (has_address is not None):
            should = "an address of existing.network" if needs_address else "left out: it is for several control planes on a "
            should += ", as the API has a virtual one" if needs_address else "network that exists"
            raise problem(should, at=("controlPlane", "apiServerFixedIP"))
        if self.network.disable_external_network and self.load_balancer.floating_network:
            raise problem("left out where network.disableExternalNetwork is true", at=("loadBalancer", "floatingNetwork"))

    @property
    def max_nodes(self) -> int:
        """How many nodes the ranges hold beside the addresses of announced Services."""
        if self.network.existing.network:
            return self.network.max_nodes
        first, most = self.network.node_addresses[0], self.network.max_nodes
        taken = {int(address) - int(first) for cidr in self.services.announce.ranges for address in cidr}
        return sum(index not in taken for index in range(most))

    @property
    def _without(self) -> str:
        ranges = ", ".join(map(str, self.services.announce.ranges))
        return f", without services.announce.ranges {ranges}," if ranges else ""

    @property
    def image_name(self) -> str:
        return self.image_of(self.kubernetes_version)

    def image_of(self, version: str) -> str:
        """The name or id of the image that machines with this version of Kubernetes are made from."""
        return self.image or node_image(version)


class Metadata(Model):
    """What the cluster is called."""

    name: Annotated[str, _dns_label(MAX_CLUSTER_NAME)] = Field(
        default="quickstart", description="Name of the cluster: the beginning of every name in the cloud."
    )


class Cluster(Model):
    """The file as a whole."""

    api_version: Literal["moyai.dev/v1alpha1"] = Field(default=API_VERSION, description="Version of this format.")
    kind: Literal["Cluster"] = Field(default="Cluster", description="Always Cluster.")
    metadata: Metadata = Field(default_factory=Metadata, description="The cluster's name.")
    spec: ClusterSpec = Field(
        default_factory=ClusterSpec, description="The machines, network, access and add-ons of the cluster."
    )

    @property
    def name(self) -> str:
        return self.metadata.name

    def in_cloud(self, cloud: str) -> Cluster:
        """The same cluster in another cloud."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"cloud": cloud})})

    def with_version(self, version: str) -> Cluster:
        """The same cluster with another version of Kubernetes."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"kubernetes_version": version})})
