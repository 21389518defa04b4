"""The place of a load balancer in the network: its namespace, with the VIP's port plugged into Neutron's bridge.

Neutron's answer about the port is kept in a file, so that load balancers come back after a reboot before Neutron does, and an
update of members asks Neutron nothing.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from moyai.linux import netns
from moyai.linux.files import write_durably

PREFIX = "moyai-lb-"
INSIDE = "vip"
# in a load balancer's folder
TAKEN = "port-before.json"  # `PortBefore`
MADE = "port-made.json"  # `MadePort`
WIRED_WITHIN = 30.0  # seconds for Neutron's agent to put the port into its bridge


class NotWired(Exception):
    """Neutron's agent did not put the port into a bridge."""


@dataclass(frozen=True)
class Plug:
    """Neutron's answer about a VIP's port."""

    port_id: str
    mac: str
    network_id: str
    mtu: int
    addresses: tuple[netns.LinkAddress, ...]

    @property
    def link(self) -> netns.Link:
        """The veth pair; its outer end has the name by which Neutron's linuxbridge agent finds and wires it."""
        return netns.Link(f"tap{self.port_id[:11]}", INSIDE, self.mac, self.mtu, self.addresses)

    @property
    def bridge(self) -> str:
        """The bridge that Neutron's linuxbridge agent makes for a tunnelled network."""
        return f"brq{self.network_id[:11]}"

    def save(self, file: Path) -> None:
        """Keep it in a file."""
        write_durably(file, json.dumps(asdict(self)))

    @staticmethod
    def read(file: Path) -> Plug | None:
        """Read it back; None when there is no such file or it is not whole."""
        try:
            data = json.loads(file.read_text())
            addresses = tuple(
                netns.LinkAddress(one["address"], one["prefix"], one["gateway"], tuple((a, b) for a, b in one["routes"]))
                for one in data["addresses"]
            )
            return Plug(data["port_id"], data["mac"], data["network_id"], data["mtu"], addresses)
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class PortBefore:
    """What a user's own port was before a load balancer took it."""

    secured: bool
    groups: tuple[str, ...]

    def save(self, file: Path) -> None:
        """Keep it in a file."""
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(file, json.dumps({"secured": self.secured, "groups": self.groups}))

    @staticmethod
    def read(file: Path) -> PortBefore | None:
        """Read it back; None when there is no such file."""
        try:
            data = json.loads(file.read_text())
        except (OSError, ValueError):
            return None
        return PortBefore(data["secured"], tuple(data["groups"]))


@dataclass(frozen=True)
class MadePort:
    """A port as Neutron made it for the driver. ``fixed_ips``: (subnet's id, address)."""

    port_id: str
    mac: str
    network_id: str
    fixed_ips: tuple[tuple[str, str], ...]

    def save(self, file: Path) -> None:
        """Keep it in a file."""
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(file, json.dumps(asdict(self)))

    @staticmethod
    def read(file: Path) -> MadePort | None:
        """Read it back; None when there is no such file or it is not whole."""
        try:
            data = json.loads(file.read_text())
            fixed_ips = tuple((subnet, address) for subnet, address in data["fixed_ips"])
            return MadePort(data["port_id"], data["mac"], data["network_id"], fixed_ips)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def namespace(balancer_id: str) -> str:
    """The namespace's name."""
    return PREFIX + balancer_id


def plugged(balancer_id: str, plug: Plug) -> bool:
    """Whether namespace and link are there, with all addresses."""
    return netns.plugged(namespace(balancer_id), plug.link)


def make(balancer_id: str, plug: Plug) -> None:
    """Make namespace and link, again if need be."""
    name = namespace(balancer_id)
    netns.add(name)
    # an address that arrives with the first packet must be known before anything may pass
    netns.sysctl(name, "net/ipv4/ip_forward", value="1")
    netns.sysctl(name, "net/ipv6/conf/all/forwarding", value="1")
    netns.sysctl(name, "net/ipv4/ip_local_port_range", value="10240 65535")
    netns.sysctl(name, "net/ipv4/tcp_tw_reuse", value="1")
    netns.plug(name, plug.link)


def finish(balancer_id: str, plug: Plug) -> None:
    """Give the link routes by source, the neighbours' timings, and its bridge. May be done any number of times."""
    name = namespace(balancer_id)
    netns.route_by_source(name, plug.link)
    for family in ("ipv4", "ipv6"):
        # a member's host that vanished is noticed within seconds, not within a minute
        for key, value in (("retrans_time_ms", "200"), ("base_reachable_time_ms", "5000"), ("delay_first_probe_time", "1")):
            netns.sysctl(name, f"net/{family}/neigh/{INSIDE}/{key}", value=value)
    if netns.link_exists(plug.bridge):
        # the network is already on this host: plugged as Nova does it, without waiting for the agent's next poll
        netns.enslave(plug.link.outside, plug.bridge)


def wait_wired(plug: Plug) -> None:
    """Return when the port is in a bridge. Raises NotWired."""
    deadline = time.monotonic() + WIRED_WITHIN
    while netns.master(plug.link.outside) is None:
        if time.monotonic() > deadline:
            raise NotWired(
                f"port {plug.port_id} is in no bridge after {WIRED_WITHIN:.0f} s: is Neutron's agent on this host alive?"
            )
        time.sleep(0.05)


def remove(balancer_id: str, plug: Plug | None, *, empty: bool) -> None:
    """Take away link and namespace. ``empty``: no process is in the namespace."""
    if plug is not None:
        netns.unplug(plug.link.outside)
    netns.remove(namespace(balancer_id), empty=empty)
