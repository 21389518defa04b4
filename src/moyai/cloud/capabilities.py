"""What moyai asks of an IaaS, cut by capability; an adapter (``cloud/openstack``, ``cloud/memory``) implements it.

Every IaaS has machines, networks, a firewall, public addresses and images. The other capabilities are in the enumeration
``Capability``: ``Cloud.capabilities`` says which of them a cloud has, so that plans can reason about an absence. A call to a
capability that the cloud lacks raises ``CapabilityAbsent``.

All calls block (callers in an event loop use a worker thread) and are safe to call from several threads. They raise
``core.errors``: NotFound, Conflict, Retriable, Terminal, with operation, object and request id. Deleting what is gone is
success. Lists with ``tag`` return only objects that carry it. Creation takes the tags along, so that nothing is untagged
for longer than the cloud itself makes it so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from moyai.cloud.load_balancers import LoadBalancers
from moyai.cloud.model import (
    Flavor,
    FloatingIP,
    Image,
    Instance,
    Network,
    Port,
    Quota,
    Route,
    Router,
    SecurityGroup,
    SecurityGroupRule,
    Server,
    Snapshot,
    SourceAddress,
    Subnet,
    Volume,
    VolumeType,
)
from moyai.core.errors import Terminal
from moyai.core.keys import Kind


class Capability(StrEnum):
    """What a cloud may lack. The values are the words that messages use."""

    POD_ROUTING = "pod routes in the router"
    DISKS = "volumes"
    LOAD_BALANCERS = "load balancers"
    CREDENTIALS = "application credentials"
    QUOTAS = "quotas"
    TAGS = "tags"


class CapabilityAbsent(Terminal):
    """The cloud lacks the capability that was called."""

    def __init__(self, cloud: str, capability: Capability) -> None:
        super().__init__(f"cloud {cloud} has no {capability.value}")
        self.capability = capability


class Machines(Protocol):
    """Servers, their flavors and zones, and the key pairs that are put on them."""

    def flavors(self) -> list[Flavor]: ...
    def zones(self) -> list[str]:
        """Availability zones that can take servers now."""
        ...

    def servers(self, *, tag: str | None = None) -> list[Server]: ...
    def settled_servers(self, *, tag: str) -> frozenset[str]:
        """Names of those that run or have failed: what a wait asks for, as it costs a cloud little."""
        ...

    def server(self, server_id: str) -> Server: ...
    def provider_id(self, server_id: str) -> str:
        """How a Node of Kubernetes names this server (``spec.providerID``). Asks the cloud nothing."""
        ...

    def server_id(self, provider_id: str) -> str | None:
        """The server that a Node names; None for a node of another cloud, or of none. Asks the cloud nothing."""
        ...

    def create_server(
        self,
        *,
        name: str,
        image_id: str,
        flavor_id: str,
        port_ids: Sequence[str],
        user_data: str,
        zone: str = "",
        key_name: str = "",
        metadata: Mapping[str, str],
        tags: Sequence[str],
    ) -> Server:
        """Ask for a server; returns while it is still STARTING. ``user_data`` is plain text (the adapter encodes it)."""
        ...

    def delete_server_metadata(self, server_id: str, keys: Collection[str]) -> None: ...
    def delete_server(self, server_id: str) -> None: ...
    def stop_server(self, server_id: str) -> None: ...
    def start_server(self, server_id: str) -> None: ...
    def console_log(self, server_id: str, lines: int = 100) -> str: ...
    def attach_volume(self, server_id: str, volume_id: str) -> None:
        """Ask for it; returns before the volume is in use."""
        ...

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        """Ask for it; returns before the volume is free. A server that is gone or never had it is success."""
        ...

    def keypairs(self) -> list[str]:
        """Names of this user's key pairs."""
        ...

    def create_keypair(self, name: str, public_key: str) -> None:
        """A taken name raises Conflict."""
        ...

    def delete_keypair(self, name: str) -> None: ...


class Tags(Protocol):
    def add_tags(self, kind: Kind, object_id: str, *, tags: Sequence[str]) -> None:
        """Add tags to an object that exists; tags already there stay. Networks, subnets, routers,
        ports, security groups and floating IPs can be tagged after the fact: a crash may leave them untagged."""
        ...


class Networks(Protocol):
    """Private networks: their subnets, the router that leads out of them, and the ports of machines."""

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
        tags: Sequence[str],
    ) -> Subnet:
        """``allocation_pools``: (first, last) address of each range that the cloud may choose from; empty: all."""
        ...

    def delete_subnet(self, subnet_id: str) -> None: ...
    def routers(self, *, tag: str | None = None) -> list[Router]: ...
    def router(self, router_id: str) -> Router: ...
    def create_router(self, *, name: str, tags: Sequence[str]) -> Router: ...
    def set_router_gateway(self, router_id: str, network_id: str) -> Router: ...
    def delete_router(self, router_id: str) -> None: ...
    def add_router_interface(self, router_id: str, subnet_id: str) -> None: ...
    def remove_router_interface(self, router_id: str, subnet_id: str) -> None: ...
    def ports(
        self, *, tag: str | None = None, network_id: str | None = None, device_ids: Collection[str] | None = None
    ) -> list[Port]: ...
    def create_port(
        self,
        *,
        name: str,
        network_id: str,
        subnet_id: str,
        fixed_ip: str = "",
        security_group_ids: Sequence[str] = (),
        send_from: Sequence[SourceAddress] = (),
        tags: Sequence[str],
    ) -> Port: ...
    def update_port(
        self,
        port_id: str,
        *,
        send_from: Sequence[SourceAddress] | None = None,
        security_group_ids: Sequence[str] | None = None,
    ) -> Port: ...
    def delete_port(self, port_id: str) -> None: ...


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
    def delete_floating_ip(self, floating_ip_id: str) -> None: ...


class Images(Protocol):
    def images(self, *, name: str | None = None) -> list[Image]: ...
    def upload(
        self, *, name: str, file: Path, disk_format: str, container_format: str, properties: Mapping[str, str]
    ) -> Image: ...
    def delete_image(self, image_id: str) -> None: ...


class Disks(Protocol):
    """Volumes, their attachment excepted, and snapshots of them."""

    def volumes(self, *, metadata: Mapping[str, str] | None = None, name: str | None = None) -> list[Volume]:
        """Only those that have all of ``metadata``, and that are called ``name``."""
        ...

    def volume(self, volume_id: str) -> Volume: ...
    def create_volume(
        self,
        *,
        name: str,
        size_gb: int,
        zone: str = "",
        type_name: str = "",
        metadata: Mapping[str, str],
        snapshot_id: str = "",
        source_volume_id: str = "",
    ) -> Volume:
        """Ask for a volume, empty or with the content of one snapshot or volume; returns while it is still CREATING."""
        ...

    def extend_volume(self, volume_id: str, size_gb: int) -> None:
        """Ask for it, also while the volume is in use; returns before it is done."""
        ...

    def delete_volume(self, volume_id: str) -> None:
        """Ask for it; returns before it is gone."""
        ...

    def forget_attachment(self, attachment_id: str) -> None:
        """Free a volume of a server that does not exist any more; Conflict when it does."""
        ...

    def snapshots(self, *, volume_id: str | None = None, name: str | None = None) -> list[Snapshot]: ...
    def snapshot(self, snapshot_id: str) -> Snapshot: ...
    def create_snapshot(self, *, name: str, volume_id: str, metadata: Mapping[str, str]) -> Snapshot:
        """Ask for a snapshot, also of a volume in use; returns while it is still CREATING."""
        ...

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Ask for it; returns before it is gone."""
        ...

    def types(self) -> list[VolumeType]: ...
    def zones(self) -> list[str]:
        """Availability zones that can take volumes now."""
        ...

    def faults(self, object_id: str) -> list[str]:
        """What the cloud says went wrong with a volume or snapshot, newest first; empty where it keeps no such messages."""
        ...

    def quotas(self) -> list[Quota]: ...


class Credentials(Protocol):
    """Credentials that the parts inside a cluster log in with, instead of with the user's own."""

    def create_credential(self, *, name: str, roles: Sequence[str], description: str) -> tuple[str, str]:
        """Returns (id, secret); the secret cannot be read again."""
        ...

    def credentials(self, *, name_prefix: str) -> dict[str, str]:
        """Name → id of this user's credentials whose name starts so."""
        ...

    def delete_credential(self, credential_id: str) -> None: ...


class Quotas(Protocol):
    def quotas(self) -> list[Quota]:
        """The limits of machines and networks."""
        ...


class Account(Protocol):
    """Where and as whom moyai works."""

    def project_id(self) -> str: ...
    def region(self) -> str: ...
    def login_url(self) -> str | None:
        """Where the parts inside a cluster log in; None where the cloud does not publish it."""
        ...

    def image_mirror(self) -> str | None:
        """URL of a mirror of container images that the cloud offers, None where it has none."""
        ...


class Guest(Protocol):
    """What a machine of a cloud knows of itself without logging in: ``cloud.factory.guest`` on the machine."""

    def instance(self) -> Instance | None:
        """Which machine this is; None while nothing tells. Blocks for some seconds."""
        ...

    def disk_links(self, volume_id: str) -> tuple[str, ...]:
        """Where a volume shows in /dev once it is attached, the likeliest place first."""
        ...


class Cloud(Protocol):
    """One account at one cloud: what ``cloud.openstack.connect`` returns. Logs in at the first call, not before."""

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
    def firewall(self) -> Firewall: ...
    @property
    def addresses(self) -> Addresses: ...
    @property
    def images(self) -> Images: ...
    @property
    def account(self) -> Account: ...
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
