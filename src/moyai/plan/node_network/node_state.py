"""What a node's part of the pod network consists of, as it is to be and as it is, and the steps between the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Where a route leads: to the tunnel, to the machines' network, or nowhere (``""``: the kernel answers "unreachable").
#: ``other``: to a device that is neither.
RouteDevice = Literal["tunnel", "uplink", "other", ""]
#: Of the route for the whole pod range: every other route to a part of the range is preferred.
UNREACHABLE_METRIC = 9999
#: Of a route beside one of BGP's, which has 20 in the kernel. FRR reads the first byte as the distance (240), by which its own
#: route (20, or 200 within one autonomous system) goes first.
BESIDE_METRIC = 0xF000000A
#: Who has made a route, as the kernel keeps it. In `ip route`: ``proto 77``. Announced addresses have another number.
ROUTE_PROTOCOL = 77


@dataclass(frozen=True)
class Uplink:
    """The link with the node's own address. ``subnets``: CIDRs of its addresses; ``mtu`` in bytes."""

    name: str
    index: int
    mtu: int
    subnets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Me:
    """This node. ``mac``: of its tunnel."""

    name: str
    address: str
    pod_cidr: str
    mac: str


@dataclass(frozen=True)
class Peer:
    """Another node. ``mac``: of its tunnel, empty where there is none."""

    name: str
    address: str
    pod_cidr: str
    mac: str = ""


@dataclass(frozen=True)
class Tunnel:
    """A VXLAN device. ``parent``: index of the link that carries it. ``marked``: it has the mark of the agent. ``misses``: the
    kernel reports what it would need to send a packet."""

    name: str
    vni: int
    port: int
    local: str
    parent: int
    mac: str
    mtu: int
    learning: bool = False
    misses: bool = False
    up: bool = True
    marked: bool = True

    @property
    def made_as(self) -> tuple[object, ...]:
        """What cannot be changed in a device that exists, without loss of its neighbours."""
        return (self.name, self.vni, self.port, self.local, self.parent, self.mac, self.learning, self.misses)


@dataclass(frozen=True, order=True)
class TunnelAddress:
    """Of the tunnel, /32: the source address of what the node itself sends to pods."""

    address: str

    @property
    def key(self) -> tuple[object, ...]:
        return ("address", self.address)


@dataclass(frozen=True, order=True)
class Neighbour:
    """The tunnel address of another node, and the MAC address of its tunnel."""

    address: str
    mac: str

    @property
    def key(self) -> tuple[object, ...]:
        return ("neighbour", self.address)


@dataclass(frozen=True, order=True)
class Forwarding:
    """Frames for ``mac`` are sent to the machine at ``address``."""

    mac: str
    address: str

    @property
    def key(self) -> tuple[object, ...]:
        return ("forwarding", self.mac)


@dataclass(frozen=True, order=True)
class PodRoute:
    """``destination``: a CIDR. Without a gateway only where ``device`` is ``""``."""

    destination: str
    gateway: str = ""
    device: RouteDevice = ""
    metric: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        return ("route", self.destination, self.metric)


Entry = TunnelAddress | Neighbour | Forwarding | PodRoute


@dataclass(frozen=True)
class NodeNetwork:
    """The tunnel, None for none, and the entries: those on the tunnel, and the agent's routes."""

    tunnel: Tunnel | None = None
    entries: frozenset[Entry] = frozenset()


@dataclass(frozen=True)
class ObservedNetwork:
    """What the kernel has. ``strays``: names of devices with the agent's mark, but for ``network.tunnel``.

    ``foreign``: key of a route that others made → that route, of those that may be in the way.

    ``occupied``: what has the tunnel's name and is no tunnel: the
    kind of the device, empty for nothing.
    """

    network: NodeNetwork = NodeNetwork()
    strays: frozenset[str] = frozenset()
    foreign: Mapping[tuple[object, ...], PodRoute] = field(default_factory=dict[tuple[object, ...], PodRoute])
    occupied: str = ""


@dataclass(frozen=True)
class DeleteLink:
    name: str


@dataclass(frozen=True)
class CreateTunnel:
    tunnel: Tunnel


@dataclass(frozen=True)
class AdjustTunnel:
    """Brings MTU, mark and state of a device that exists to those of ``tunnel``."""

    tunnel: Tunnel


@dataclass(frozen=True)
class Put:
    """Makes the entry, or changes the one with its key."""

    entry: Entry


@dataclass(frozen=True)
class Remove:
    entry: Entry


KernelStep = DeleteLink | CreateTunnel | AdjustTunnel | Put | Remove
