"""What moyai asks of an IaaS, cut by capability; an adapter (``cloud/openstack``, ``cloud/memory``) implements it.

Every IaaS has machines, networks, a firewall and images. The other capabilities are in the enumeration
``Capability``: ``Cloud.capabilities`` says which of them a cloud has, so that plans can reason about an absence. A call to a
capability that the cloud lacks raises ``CapabilityAbsent``.

All calls block (callers in an event loop use a worker thread) and are safe to call from several threads. They raise
``core.errors``: NotFound, Conflict, Retriable, Terminal, with operation, object and request id. Deleting what is gone is
success.

Ownership. What is made for a cluster is made with ``tags`` (machines, volumes and snapshots also with ``metadata``). Where the
cloud has no tags the adapter records them in another way, in a description or in a name: that is its own matter. An adapter
promises:

- An object that was made with tags shows all of them in its field ``tags`` from then on, to every process and every login, and
  an object that was not made so shows none of moyai's. The same holds for ``core.ids.CLUSTER_TAG`` in ``metadata``.
- A list with ``tag`` returns all objects that show it, and no others.
- The field ``name`` is what creation was asked for, character by character, whatever the cloud itself calls the object; a
  floating IP has ``description`` instead.
- A process that ends during a creation leaves nothing, or an object with its tags. Only with ``Capability.TAGS`` it may leave
  an object with its name and without any tag: then the next run adds the tags (``Tags.add_tags``). Without
  ``Capability.TAGS`` nothing is ever adopted or removed by its name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, Protocol

from moyai.cloud.credentials import Credentials, Reach
from moyai.cloud.disks import Disks
from moyai.cloud.entrances import Entrances
from moyai.cloud.kind import CloudKind
from moyai.cloud.load_balancers import LoadBalancers
from moyai.cloud.machines import Machines
from moyai.cloud.model import (
    BootDisk,
    FloatingIP,
    Image,
    Network,
    Port,
    Quota,
    Route,
    Router,
    SecurityGroup,
    SecurityGroupRule,
    SourceAddress,
    Subnet,
)
from moyai.cloud.survey import Survey
from moyai.core.errors import Terminal
from moyai.core.keys import Kind


class Capability(StrEnum):
    """What a cloud may lack. The values are the words that messages use.

    ``ROUTERS``: a router of the cluster's own leads from its network to an external one. ``FLOATING_IPS``: public addresses
    are put on a port and taken off it while its machine runs. ``TAGS``: tags can be added to what exists; the owner of an
    object can be read on every cloud (see above). ``METADATA``: a server shows all the metadata that it was made with, and
    single keys of it can be deleted; without it a server shows the cluster's alone. ``SNAPSHOTS``: of volumes.
    ``EXISTING_NETWORKS``: machines can be in a network that the user has already, and behind a router of the user's.
    ``PUBLIC_CARDS``: a machine can be made with a card in an external network, and a port without a machine leaves nothing in
    the cloud. ``ENTRANCES``: see ``cloud.entrances``. ``ROOT_VOLUMES``: a server can begin on a volume of a chosen size and
    type. ``SPREAD``: servers of one group run on different hosts, always or where that is possible.
    """

    ROUTERS = "routers"
    FLOATING_IPS = "floating IPs"
    POD_ROUTING = "pod routes in the router"
    DISKS = "volumes"
    LOAD_BALANCERS = "load balancers"
    CREDENTIALS = "credentials for programs"
    QUOTAS = "quotas"
    TAGS = "tags"
    METADATA = "metadata of servers"
    SNAPSHOTS = "snapshots of volumes"
    EXISTING_NETWORKS = "networks that exist"
    PUBLIC_CARDS = "public network cards"
    ENTRANCES = "public addresses that lead to machines"
    ROOT_VOLUMES = "root disks from volumes"
    SPREAD = "groups of servers on different hosts"


#: What a cloud may have in the place of routers and floating IPs.
ALTERNATIVES = frozenset({Capability.PUBLIC_CARDS, Capability.ENTRANCES})


class CapabilityAbsent(Terminal):
    """The cloud lacks the capability that was called."""

    def __init__(self, cloud: str, capability: Capability, *, hint: str | None = None) -> None:
        super().__init__(f"cloud {cloud} has no {capability.value}", hint=hint)
        self.capability = capability


class AbsentPart:
    """Stands for a part of a cloud that lacks the capability: every call raises CapabilityAbsent."""

    def __init__(self, cloud: str, capability: Capability) -> None:
        self._cloud, self._capability = cloud, capability

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def absent(*_: object, **__: object) -> NoReturn:
            raise CapabilityAbsent(self._cloud, self._capability)

        return absent


class Tags(Protocol):
    """Tags after the fact. To take tags along at creation is not part of it: every cloud does."""

    def add_tags(self, kind: Kind, object_id: str, *, tags: Sequence[str]) -> None:
        """Add tags to an object that exists; tags already there stay. Networks, subnets, routers,
        ports, security groups and floating IPs can be tagged after the fact: a crash may leave them untagged."""
        ...


class Networks(Protocol):
    """Private networks: their subnets, and the ports of machines. Lists also show the external networks of the cloud."""

    def networks(self, *, tag: str | None = None, external: bool | None = None) -> list[Network]: ...
    def create_network(self, *, name: str, tags: Sequence[str]) -> Network: ...
    def delete_network(self, network_id: str) -> None: ...
    def subnets(self, *, tag: str | None = None, network_id: str | None = None) -> list[Subnet]: ...
    def create_subnet(
        self,
        *,
        name: str,
        network_id: str,
        cidr: str,
        dns: Sequence[str] = (),
        allocation_pools: Sequence[tuple[str, str]] = (),
        gateway: bool = True,
        tags: Sequence[str],
    ) -> Subnet:
        """``allocation_pools``: (first, last) address of each range that the cloud may choose from; empty: all. ``gateway``:
        whether its machines are told a way out, which a router of the cloud is to be."""
        ...

    def delete_subnet(self, subnet_id: str) -> None: ...
    def ports(
        self,
        *,
        tag: str | None = None,
        network_id: str | None = None,
        device_ids: Collection[str] | None = None,
        ids: Collection[str] | None = None,
    ) -> list[Port]:
        """``device_ids``: servers, routers … whose ports are wanted. ``ids``: of ports, as long as no devices are named. None
        named gives none, and an id that no port has is no error."""
        ...

    def create_port(
        self,
        *,
        name: str,
        network_id: str,
        subnet_id: str,
        fixed_ip: str = "",
        security_group_ids: Sequence[str] = (),
        send_from: Sequence[SourceAddress] = (),
        transit: bool = False,
        tags: Sequence[str],
    ) -> Port:
        """``transit``: packets of any address pass, in both directions, and no security group holds. Where the cloud has
        ``sources_allowed`` it has this."""
        ...

    def update_port(
        self,
        port_id: str,
        *,
        send_from: Sequence[SourceAddress] | None = None,
        security_group_ids: Sequence[str] | None = None,
    ) -> Port: ...
    def delete_port(self, port_id: str) -> None: ...
    def sources_allowed(self, network_id: str = "") -> bool:
        """Whether the user may give ports ``send_from``: addresses besides their own. ``network_id``: of the ports' network;
        empty: one that the user makes. Makes nothing."""
        ...


class Routers(Protocol):
    """Routers of one's own that lead from private networks to an external one."""

    def permitted(self) -> bool:
        """Whether this user may make routers with a way out. Makes nothing."""
        ...

    def routers(self, *, tag: str | None = None) -> list[Router]: ...
    def router(self, router_id: str) -> Router: ...
    def create_router(self, *, name: str, tags: Sequence[str]) -> Router: ...
    def set_router_gateway(self, router_id: str, network_id: str) -> Router: ...
    def delete_router(self, router_id: str) -> None: ...
    def add_router_interface(self, router_id: str, subnet_id: str) -> None: ...
    def remove_router_interface(self, router_id: str, subnet_id: str) -> None: ...


class PodRouting(Protocol):
    """Routes in the network's router, so that pods of one node reach those of another without an overlay."""

    def add_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        """Add routes in one atomic call; those already there are no error."""
        ...

    def remove_routes(self, router_id: str, routes: Collection[Route]) -> Router: ...


class Firewall(Protocol):
    """Groups of rules about what may reach a port."""

    def security_groups(self, *, tag: str | None = None) -> list[SecurityGroup]: ...
    def create_security_group(self, *, name: str, description: str = "", tags: Sequence[str]) -> SecurityGroup: ...
    def delete_security_group(self, group_id: str) -> None: ...
    def security_group_rules(self, group_ids: Collection[str]) -> list[SecurityGroupRule]: ...
    def create_security_group_rules(self, rules: Sequence[SecurityGroupRule]) -> list[SecurityGroupRule]:
        """Add rules of one group in one call; those already there are no error. Terminal for rules of several groups."""
        ...

    def delete_security_group_rule(self, rule_id: str) -> None: ...


class Addresses(Protocol):
    """Public addresses, each on at most one port."""

    def permitted(self) -> bool:
        """Whether this user may make them. Makes nothing."""
        ...

    def floating_ips(self, *, tag: str | None = None, port_ids: Collection[str] | None = None) -> list[FloatingIP]: ...
    def create_floating_ip(
        self,
        *,
        network_id: str,
        subnet_id: str = "",
        port_id: str = "",
        address: str = "",
        description: str = "",
        tags: Sequence[str],
    ) -> FloatingIP: ...
    def associate_floating_ip(self, floating_ip_id: str, port_id: str | None) -> FloatingIP: ...
    def describe_floating_ip(self, floating_ip_id: str, description: str) -> FloatingIP: ...
    def delete_floating_ip(self, floating_ip_id: str) -> None: ...


class Images(Protocol):
    def images(self, *, name: str | None = None) -> list[Image]: ...
    def upload(
        self, *, name: str, file: Path, distribution: str, properties: Mapping[str, str], disk: BootDisk | None = None
    ) -> Image:
        """``file``: the root file system of a machine, as an archive; with ``disk``, a disk that boots. ``distribution``: the
        ``ID`` of its os-release(5). An upload that fails leaves no image, or one that is ``empty``."""
        ...

    def delete_image(self, image_id: str) -> None: ...


class Quotas(Protocol):
    def quotas(self) -> list[Quota]:
        """The limits of machines and networks."""
        ...


class Account(Protocol):
    """The region and the project in which moyai works."""

    def project_id(self) -> str: ...
    def region(self) -> str: ...
    def login_url(self) -> str | None:
        """Where the parts inside a cluster log in; None where the cloud does not publish it."""
        ...

    def reach(self) -> Reach:
        """How this client reaches the cloud. Raises UsageError for a file of the configuration that cannot be read."""
        ...

    def image_mirror(self) -> str | None:
        """URL of a mirror of container images that the cloud offers, None where it has none."""
        ...


class Cloud(Protocol):
    """One account at one cloud: what ``cloud.factory`` connects to. Logs in at the first call, not before."""

    @property
    def kind(self) -> CloudKind: ...
    @property
    def name(self) -> str:
        """What the user calls the cloud."""
        ...

    def capabilities(self) -> frozenset[Capability]:
        """Which of the capabilities that not every cloud has this one has; asked of the cloud once."""
        ...

    @property
    def machines(self) -> Machines: ...
    @property
    def networks(self) -> Networks: ...
    @property
    def routers(self) -> Routers: ...
    @property
    def firewall(self) -> Firewall: ...
    @property
    def addresses(self) -> Addresses: ...
    @property
    def images(self) -> Images: ...
    @property
    def account(self) -> Account: ...
    @property
    def survey(self) -> Survey: ...
    @property
    def pod_routing(self) -> PodRouting: ...
    @property
    def disks(self) -> Disks: ...
    @property
    def load_balancers(self) -> LoadBalancers: ...
    @property
    def credentials(self) -> Credentials: ...
    @property
    def quotas(self) -> Quotas: ...
    @property
    def tags(self) -> Tags: ...
    @property
    def entrances(self) -> Entrances: ...
