"""How the parts inside a cluster log in: with which credential, by which way, and which calls each part makes.

``CALLS`` is the one list of those calls. An adapter limits a credential to them as far as its cloud can. Where the cloud
cannot, ``IssuedCredential.notes`` says so: a credential that may do more than asked for is never made silently. A part gets
the user's own login only where that is a credential which may not make others (``OwnLogin.given``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Use(StrEnum):
    """Which part of a cluster logs in. The values are the words that people read."""

    CONTROLLERS = "cloud controller manager"
    VOLUMES = "CSI driver"


#: Use → its calls, as ``capability.method`` of ``capabilities.Cloud``. ``account`` is everybody's own: it asks nothing.
CALLS: Mapping[Use, frozenset[str]] = {
    Use.CONTROLLERS: frozenset(
        {
            "machines.servers", "machines.server", "machines.stop_server",
            "networks.networks", "networks.subnets", "networks.ports", "networks.update_port",
            "networks.create_port",
            "routers.router", "pod_routing.add_routes", "pod_routing.remove_routes",
            "firewall.security_group_rules", "firewall.create_security_group_rules", "firewall.delete_security_group_rule",
            "addresses.floating_ips", "addresses.create_floating_ip", "addresses.associate_floating_ip",
            "addresses.describe_floating_ip", "addresses.delete_floating_ip", "tags.add_tags",
            "load_balancers.load_balancers", "load_balancers.head", "load_balancers.get", "load_balancers.create",
            "load_balancers.update", "load_balancers.delete", "load_balancers.failover",
            "load_balancers.create_listener", "load_balancers.update_listener", "load_balancers.delete_listener",
            "load_balancers.create_pool", "load_balancers.update_pool", "load_balancers.delete_pool",
            "load_balancers.set_members",
            "load_balancers.create_monitor", "load_balancers.update_monitor", "load_balancers.delete_monitor",
        }
    ),
    Use.VOLUMES: frozenset(
        {
            "machines.servers", "machines.server", "machines.zones", "machines.attach_volume", "machines.detach_volume",
            "disks.volumes", "disks.volume", "disks.create_volume", "disks.extend_volume", "disks.delete_volume",
            "disks.change_volume_type",
            "disks.forget_attachment", "disks.snapshots", "disks.snapshot", "disks.create_snapshot", "disks.delete_snapshot",
            "disks.types", "disks.zones", "disks.faults", "disks.quotas",
        }
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Credential:
    """``limited``: whether it may make certain calls only. ``expires``: None for one that never ends. ``owner``: the user with
    whom it ends; empty where the cloud does not say."""

    id: str
    name: str
    limited: bool = False
    expires: datetime | None = None
    owner: str = field(default="", compare=False)


@dataclass(frozen=True)
class IssuedCredential:
    """``notes``: sentences for the user about what it may do besides its use; empty where it is limited to that."""

    id: str
    secret: str = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnLogin:
    """What the user's own login can do for the parts inside a cluster.

    ``may_issue``: it may make credentials for them. ``given``: the name of the credential that it is itself, where the parts
    can use that instead; empty: they cannot. ``refusal``: why neither is possible, one line. ``notes``: sentences for the user.
    """

    may_issue: bool = True
    given: str = ""
    refusal: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reach:
    """By which way the user's client reaches the cloud's addresses; the parts inside a cluster go the same way.

    ``authorities``: certificates (PEM) that sign the cloud's; empty: those of the system. ``certificate``: a client's
    certificate with its key (PEM), empty: none. ``insecure``: the cloud's certificates are not checked. ``interface``: the
    adapter's word for which of a service's several addresses is used; empty: the public one. ``endpoints``: service → address,
    where the user's configuration names the address. ``proxies``: environment variable → value. ``notes``: sentences for the
    user about what the parts get of his own, or do without.
    """

    authorities: str = ""
    certificate: str = field(default="", repr=False)
    insecure: bool = False
    interface: str = ""
    endpoints: Mapping[str, str] = field(default_factory=dict[str, str])
    proxies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    notes: tuple[str, ...] = ()


#: A login that may make credentials; the plain way: the public addresses, the system's authorities, no proxy.
MAY_ISSUE, DIRECT = OwnLogin(), Reach()


class Credentials(Protocol):
    def own_login(self) -> OwnLogin:
        """What the user's own login can do for the parts inside a cluster. Nothing is made."""
        ...

    def own_credential(self) -> IssuedCredential:
        """The credential that the user is logged in with. Raises Terminal where it is none (``OwnLogin.given``)."""
        ...

    def create_credential(self, *, name: str, use: Use, description: str) -> IssuedCredential:
        """A credential that may make the calls of ``use``. Its secret cannot be read again. A taken name raises Conflict."""
        ...

    def credentials(self, *, name_prefix: str) -> list[Credential]:
        """This user's credentials whose name starts so."""
        ...

    def delete_credential(self, credential_id: str) -> None: ...
