"""Steps that make objects of the cloud, or bring them to what the cluster needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.cloud.credentials import Use
from moyai.cloud.model import RootDisk, Route, SecurityGroupRule, SourceAddress
from moyai.core.ids import Role
from moyai.plan.nodes import PlannedNode
from moyai.plan.steps.base import Step, Verb


@dataclass(frozen=True, kw_only=True)
class CreateNetwork(Step):
    verb: ClassVar[Verb] = Verb.CREATE
    name: str

    @property
    def text(self) -> str:
        return f"create network {self.name}"


@dataclass(frozen=True, kw_only=True)
class CreateSubnet(Step):
    """``gateway``: whether a router of the cloud leads out of it."""

    verb: ClassVar[Verb] = Verb.CREATE
    name: str
    cidr: str
    dns: tuple[str, ...]
    pool: tuple[str, str]
    gateway: bool = True

    @property
    def text(self) -> str:
        return f"create subnet {self.name} {self.cidr}"


@dataclass(frozen=True, kw_only=True)
class CreateRouter(Step):
    """Without a way out: the gateway takes a cloud longest, and a control plane only needs to know the router's id."""

    verb: ClassVar[Verb] = Verb.CREATE
    name: str

    @property
    def text(self) -> str:
        return f"create router {self.name}"


@dataclass(frozen=True, kw_only=True)
class SetGateway(Step):
    verb: ClassVar[Verb] = Verb.CREATE
    network_id: str

    @property
    def text(self) -> str:
        return "put the router on the external network"


@dataclass(frozen=True, kw_only=True)
class AddInterface(Step):
    verb: ClassVar[Verb] = Verb.CREATE

    @property
    def text(self) -> str:
        return f"put the subnet {self.key.name} on the router" if self.key.name else "put the subnet on the router"


@dataclass(frozen=True, kw_only=True)
class CreateGroup(Step):
    verb: ClassVar[Verb] = Verb.CREATE
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

    verb: ClassVar[Verb] = Verb.CREATE
    role: Role
    add: tuple[GroupRule, ...]
    remove: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        gone = f", remove {len(self.remove)}" if self.remove else ""
        return f"add {len(self.add)} rules to security group {self.role}{gone}"


@dataclass(frozen=True, kw_only=True)
class CreatePort(Step):
    """``send_from``: ranges that the port may send from besides its own address."""

    verb: ClassVar[Verb] = Verb.CREATE
    node: PlannedNode
    send_from: tuple[SourceAddress, ...] = ()

    @property
    def text(self) -> str:
        where = f"{self.node.address} or another address" if self.node.guessed else self.node.address
        return f"create port {self.node.name} {where}, pods {self.node.pod_cidr}"


@dataclass(frozen=True, kw_only=True)
class CreatePublicPort(Step):
    """The port of a node's card in the external network ``network_id``."""

    verb: ClassVar[Verb] = Verb.CREATE
    node: PlannedNode
    network_id: str

    @property
    def text(self) -> str:
        return f"create port {self.key.name} in the external network"


@dataclass(frozen=True, kw_only=True)
class CreateEntrance(Step):
    """A public address for the API, which leads nowhere yet."""

    verb: ClassVar[Verb] = Verb.CREATE
    name: str
    port: int

    @property
    def text(self) -> str:
        return f"create entrance {self.name} for port {self.port}"


@dataclass(frozen=True, kw_only=True)
class LeadEntrance(Step):
    """Lead the API's public address to these control planes and to no others."""

    verb: ClassVar[Verb] = Verb.SET
    nodes: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"lead the entrance to {', '.join(self.nodes)}"


@dataclass(frozen=True, kw_only=True)
class ReserveAddress(Step):
    """Make a port without a machine, so that its address is nobody else's: machines take the address in turns."""

    verb: ClassVar[Verb] = Verb.CREATE
    name: str
    address: str

    @property
    def text(self) -> str:
        return f"create port {self.name} {self.address}, the API's virtual address"


@dataclass(frozen=True, kw_only=True)
class SetSendFrom(Step):
    """Let a port send from these ranges, and from no others, besides its own address."""

    verb: ClassVar[Verb] = Verb.SET
    port_id: str
    send_from: tuple[SourceAddress, ...]

    @property
    def text(self) -> str:
        return f"let {self.key} send from {', '.join(pair.address for pair in self.send_from)}"


@dataclass(frozen=True, kw_only=True)
class AddRoutes(Step):
    verb: ClassVar[Verb] = Verb.ADD
    routes: tuple[Route, ...]

    @property
    def text(self) -> str:
        return ", ".join(f"add route {route.destination} via {route.nexthop}" for route in self.routes)


@dataclass(frozen=True, kw_only=True)
class CreateFloatingIP(Step):
    verb: ClassVar[Verb] = Verb.CREATE
    network_id: str
    description: str

    @property
    def text(self) -> str:
        return "create floating ip for the API"


@dataclass(frozen=True, kw_only=True)
class AttachFloatingIP(Step):
    verb: ClassVar[Verb] = Verb.ATTACH
    node: str

    @property
    def text(self) -> str:
        return f"put the floating ip on port {self.node}"


@dataclass(frozen=True, kw_only=True)
class CreateKeypair(Step):
    verb: ClassVar[Verb] = Verb.CREATE
    name: str

    @property
    def text(self) -> str:
        return f"create key pair {self.name}"


@dataclass(frozen=True, kw_only=True)
class CreateSpreadGroup(Step):
    """``strict``: a machine that finds no host of its own is not made."""

    verb: ClassVar[Verb] = Verb.CREATE
    name: str
    strict: bool

    @property
    def text(self) -> str:
        return f"create server group {self.name}, {'always' if self.strict else 'if possible'} on different hosts"


@dataclass(frozen=True, kw_only=True)
class CreateCredential(Step):
    """``use``: whose calls it may make."""

    verb: ClassVar[Verb] = Verb.CREATE
    name: str
    purpose: str
    use: Use

    @property
    def text(self) -> str:
        return f"create credential {self.name}"


@dataclass(frozen=True, kw_only=True)
class HandOverCredential(Step):
    """``name``: of the credential that the user is logged in with. ``use``: which part gets it. It stays the user's own."""

    verb: ClassVar[Verb] = Verb.HAND_OVER
    name: str
    use: Use

    @property
    def text(self) -> str:
        return f"give your credential {self.name} to the {self.use}"


@dataclass(frozen=True, kw_only=True)
class CreateServer(Step):
    """``first``: this machine begins a new cluster; otherwise it joins the one that exists. ``peers``: addresses of a control
    plane's others, of those that leave too.

    ``restores``: when the backup was made whose etcd's data it begins with, and waits for; empty for none. ``living``: names of
    the nodes whose machines run already, so that what the backup knows of them counts. ``public``: it has a card in an external
    network as well. ``root``: its root disk, None for the flavor's. ``spread``: the pool whose group keeps it apart from the
    others, empty for none."""

    verb: ClassVar[Verb] = Verb.CREATE
    node: PlannedNode
    image_id: str
    flavor_id: str
    first: bool = False
    peers: tuple[str, ...] = ()
    restores: str = ""
    living: tuple[str, ...] = ()
    public: bool = False
    root: RootDisk | None = None
    spread: str = ""

    @property
    def by_token(self) -> bool:
        """Whether the cluster has a bootstrap token because of this machine, which makes one or joins with it."""
        return self.first or self.node.role == "worker"

    @property
    def text(self) -> str:
        where = f" in {self.node.zone}" if self.node.zone else ""
        root = f", root volume of {self.root.size_gb} GiB" if self.root else ""
        return f"create server {self.node.name} ({self.node.flavor}{where}{root})"


@dataclass(frozen=True, kw_only=True)
class SendEtcdData(Step):
    """Give the machine that a restored cluster begins with etcd's data from the backup. ``address``: the node's."""

    verb: ClassVar[Verb] = Verb.SEND
    node: str
    address: str

    @property
    def text(self) -> str:
        return f"send etcd's data from the backup to server {self.node}"


@dataclass(frozen=True, kw_only=True)
class SendStart(Step):
    """Give a machine what it runs first, where its user data is too small for it. Done when the machine has run it."""

    verb: ClassVar[Verb] = Verb.SEND
    node: str

    @property
    def text(self) -> str:
        return f"send its start to server {self.node}"


@dataclass(frozen=True, kw_only=True)
class StartServer(Step):
    verb: ClassVar[Verb] = Verb.START
    server_id: str


@dataclass(frozen=True, kw_only=True)
class ResumeServer(Step):
    """Let a machine go on that is paused, suspended or shelved."""

    verb: ClassVar[Verb] = Verb.RESUME
    server_id: str


@dataclass(frozen=True, kw_only=True)
class RestartServer(Step):
    """Reboot a machine whose kubelet does not do its work. ``why``: what shows it."""

    verb: ClassVar[Verb] = Verb.RESTART
    server_id: str
    why: str

    @property
    def text(self) -> str:
        return f"restart {self.key}: {self.why}"


@dataclass(frozen=True, kw_only=True)
class Adopt(Step):
    """Tag an object that an interrupted run left untagged. ``tags``: besides the cluster's."""

    verb: ClassVar[Verb] = Verb.ADOPT
    object_id: str
    name: str
    tags: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return f"adopt {self.key.kind} {self.name}, left untagged by an interrupted run"
