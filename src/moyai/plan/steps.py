"""The steps of cluster plans, as data: what is done to which object, and what must be done before.

A step names objects by *key* (``network``, ``port NAME``, ``server NAME`` …), because ids are only known when it runs; every
key is unique in a plan and is at the same time what the record calls the object. Each step may be run again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from moyai.cloud.capabilities import Taggable
from moyai.cloud.model import Route, SecurityGroupRule, SourceAddress
from moyai.plan.nodes import Node, Role

#: Kinds of objects, as reports call them.
Kind = Literal[
    "network",
    "subnet",
    "router",
    "interface",
    "routes",
    "security group",
    "rules",
    "port",
    "floating ip",
    "key pair",
    "credential",
    "server",
    "load balancer",
    "volume",
    "snapshot",
    "node",
]

NETWORK, SUBNET, ROUTER, ROUTES = "network", "subnet", "router", "routes"
INTERFACE, GATEWAY = "interface", "gateway"
FLOATING_IP, ATTACH, KEYPAIR = "floating-ip", "floating-ip attached", "key-pair"
#: Application credentials: the cloud controller manager's and the CSI driver's.
CREDENTIAL, VOLUMES_CREDENTIAL = "credential", "volumes-credential"


def port_key(node: str) -> str:
    return f"port {node}"


def server_key(node: str) -> str:
    return f"server {node}"


def rules_key(role: Role) -> str:
    return f"rules {role}"


def group_key(role: Role) -> str:
    return f"group {role}"


def secret_key(credential: str) -> str:
    """What the record intends once a credential's secret, which is told only once, is on disk."""
    return f"{credential} secret"


@dataclass(frozen=True, kw_only=True)
class Step:
    """``key``: the object's and the step's own name. ``after``: keys of the steps that must be done before."""

    key: str
    after: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class CreateNetwork(Step):
    name: str

    @property
    def text(self) -> str:
        return f"create network {self.name}"


@dataclass(frozen=True, kw_only=True)
class CreateSubnet(Step):
    name: str
    cidr: str
    dns: tuple[str, ...]
    pool: tuple[str, str]

    @property
    def text(self) -> str:
        return f"create subnet {self.name} {self.cidr}"


@dataclass(frozen=True, kw_only=True)
class CreateRouter(Step):
    """Without a way out: that takes a cloud longest, and a control plane only needs to know the router's id."""

    name: str

    @property
    def text(self) -> str:
        return f"create router {self.name}"


@dataclass(frozen=True, kw_only=True)
class SetGateway(Step):
    network_id: str

    @property
    def text(self) -> str:
        return "put the router on the external network"


@dataclass(frozen=True, kw_only=True)
class AddInterface(Step):
    @property
    def text(self) -> str:
        return "put the subnet on the router"


@dataclass(frozen=True, kw_only=True)
class CreateGroup(Step):
    role: Role
    name: str

    @property
    def text(self) -> str:
        return f"create security group {self.name}"


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """A rule with groups named by role, since their ids are not known yet."""

    role: Role
    rule: SecurityGroupRule
    remote_role: Role | None = None


@dataclass(frozen=True, kw_only=True)
class SetRules(Step):
    """Add ``add`` to one group; delete the rules with ids ``remove`` (rules of ours that the spec no longer has)."""

    role: Role
    add: tuple[GroupRule, ...]
    remove: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        gone = f", remove {len(self.remove)}" if self.remove else ""
        return f"add {len(self.add)} rules to security group {self.role}{gone}"


@dataclass(frozen=True, kw_only=True)
class CreatePort(Step):
    node: Node

    @property
    def text(self) -> str:
        return f"create port {self.node.name} {self.node.address}, pods {self.node.pod_cidr}"


@dataclass(frozen=True, kw_only=True)
class SetPairs(Step):
    port_id: str
    name: str
    pairs: tuple[SourceAddress, ...]

    @property
    def text(self) -> str:
        return f"let port {self.name} send from {', '.join(p.address for p in self.pairs)}"


@dataclass(frozen=True, kw_only=True)
class ChangeRoutes(Step):
    add: tuple[Route, ...] = ()
    remove: tuple[Route, ...] = ()

    @property
    def text(self) -> str:
        words = [f"add route {r.destination} via {r.nexthop}" for r in self.add]
        return ", ".join(words + [f"remove route {r.destination} via {r.nexthop}" for r in self.remove])


@dataclass(frozen=True, kw_only=True)
class CreateFloatingIP(Step):
    network_id: str
    description: str

    @property
    def text(self) -> str:
        return "create floating ip for the API"


@dataclass(frozen=True, kw_only=True)
class AttachFloatingIP(Step):
    node: str

    @property
    def text(self) -> str:
        return f"put the floating ip on port {self.node}"


@dataclass(frozen=True, kw_only=True)
class CreateKeypair(Step):
    name: str

    @property
    def text(self) -> str:
        return f"create key pair {self.name}"


@dataclass(frozen=True, kw_only=True)
class CreateCredential(Step):
    """``stale_id``: one whose secret was never recorded, to be deleted first."""

    name: str
    stale_id: str = ""

    @property
    def text(self) -> str:
        return f"create application credential {self.name}" + (" anew (its secret was lost)" if self.stale_id else "")


@dataclass(frozen=True, kw_only=True)
class CreateServer(Step):
    """``replaces``: id of a broken server of this name, deleted first. ``forget``: a stale Node object stands in the way."""

    node: Node
    image_id: str
    flavor_id: str
    why: str = ""
    replaces: str = ""
    forget: bool = False

    @property
    def text(self) -> str:
        where = f" in {self.node.zone}" if self.node.zone else ""
        verb = "replace" if self.replaces else "create"
        return f"{verb} server {self.node.name} ({self.node.flavor}{where})" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, kw_only=True)
class StartServer(Step):
    name: str
    server_id: str

    @property
    def text(self) -> str:
        return f"start server {self.name}"


@dataclass(frozen=True, kw_only=True)
class Adopt(Step):
    """Tag what an interrupted run left untagged."""

    kind: Taggable
    object_id: str
    name: str

    @property
    def text(self) -> str:
        return f"adopt {self.kind.replace('_', ' ')} {self.name}, left untagged by an interrupted run"


@dataclass(frozen=True, kw_only=True)
class DrainNode(Step):
    """Let no new pods onto a node and move those away that are there."""

    node: str

    @property
    def text(self) -> str:
        return f"drain node {self.node}"


@dataclass(frozen=True, kw_only=True)
class Delete(Step):
    """Delete an object by its id. ``wait`` is done by the executor where the cloud deletes asynchronously."""

    kind: Kind
    object_id: str
    name: str
    attached_to: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return f"delete {self.kind} {self.name}"


@dataclass(frozen=True, kw_only=True)
class StopServer(Step):
    """Shut a machine down, so that it writes what it still holds to the disks that outlive it."""

    name: str
    server_id: str

    @property
    def text(self) -> str:
        return f"stop server {self.name}, whose volumes outlive it"


@dataclass(frozen=True, kw_only=True)
class DetachVolume(Step):
    name: str
    volume_id: str
    server: str
    server_id: str

    @property
    def text(self) -> str:
        return f"detach volume {self.name} from server {self.server}"


@dataclass(frozen=True, kw_only=True)
class RemoveInterface(Step):
    router_id: str
    subnet_id: str

    @property
    def text(self) -> str:
        return "take the subnet off the router"


@dataclass(frozen=True, kw_only=True)
class ClearRoutes(Step):
    router_id: str
    routes: tuple[Route, ...]

    @property
    def text(self) -> str:
        return f"remove {len(self.routes)} routes"


@dataclass(frozen=True)
class Kept:
    """An object that stays on purpose, and why."""

    kind: Kind
    object_id: str
    name: str
    why: str


@dataclass(frozen=True)
class Plan:
    """``steps`` in an order that respects ``after``. ``known``: key → id of what is there. ``notes``: lines for the user."""

    steps: tuple[Step, ...] = ()
    nodes: tuple[Node, ...] = ()
    known: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)
