"""What a cloud can do with machines (``cloud.capabilities.Machines``): the part of the seam that every cloud has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from moyai.cloud.model import Flavor, RootDisk, Server, SpreadGroup


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
    def provider_id(self, server_id: str, zone: str = "") -> str:
        """How a Node of Kubernetes names this server (``spec.providerID``). ``zone``: the server's, which some clouds name
        there as well. Asks the cloud nothing."""
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
        root: RootDisk | None = None,
        group_id: str = "",
    ) -> Server:
        """Ask for a server; returns while it is still STARTING. ``user_data`` is plain text (the adapter encodes it).

        ``root``: its root disk is a volume that goes with the server, with ``Capability.ROOT_VOLUMES`` alone; None: it is the
        flavor's. ``group_id``: of a group that keeps its servers on different hosts, with ``Capability.SPREAD`` alone."""
        ...

    def delete_server_metadata(self, server_id: str, keys: Collection[str]) -> None: ...
    def delete_server(self, server_id: str) -> None: ...
    def stop_server(self, server_id: str) -> None: ...
    def start_server(self, server_id: str) -> None: ...
    def resume_server(self, server_id: str) -> None:
        """Let a SUSPENDED server go on. One that runs is success."""
        ...

    def reboot_server(self, server_id: str) -> None:
        """Ask a running server's system to end and to start again; returns while it is still STARTING."""
        ...

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
    def spread_groups(self) -> list[SpreadGroup]:
        """Groups that keep their servers on different hosts. Owned by their name, which has the cluster's UID in it. These
        calls are of ``Capability.SPREAD``."""
        ...

    def create_spread_group(self, name: str, *, strict: bool) -> SpreadGroup:
        """``strict``: a server that finds no host of its own is not made."""
        ...

    def delete_spread_group(self, group_id: str) -> None: ...
