"""What has no object in NIFCLOUD as long as nothing needs it: network cards without a machine, networks without a subnet.

A server is made with its cards, and loses none of them. So a port without a machine is a value: its id says what the server
is to be made with, and it is in no list. Once the server is there, the card is a port with its server's name, found by
network and name.

A private LAN is made with its range. So a network without a subnet is a value, too: its id has cluster and name, and the LAN
that ``create_subnet`` makes has the same id. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from moyai.cloud.nifcloud.marks import Mark, wire_name, zonal_name
from moyai.core.errors import NotFound

_BEGIN = "nic"
#: The public network that every zone has. Its addresses come by DHCP.
PUBLIC = "net-COMMON_GLOBAL"
#: The network that the servers of an account share. Its addresses come by DHCP.
SHARED_PRIVATE = "net-COMMON_PRIVATE"
GIVEN_NETWORKS = (PUBLIC, SHARED_PRIVATE)


@dataclass(frozen=True)
class NicPlan:
    """``network``: the id of one, as ``lan_id`` makes it, or the API's own. ``address`` empty: the cloud chooses, by DHCP."""

    network: str
    uid: str
    name: str
    group: str = ""
    address: str = ""

    @property
    def id(self) -> str:
        return "/".join((_BEGIN, self.network, self.uid, self.name, self.group, self.address))

    @property
    def place(self) -> tuple[str, str, str]:
        """What a card and its plan have in common."""
        return self.network, self.uid, self.name


def is_plan(port_id: str) -> bool:
    """Whether this adapter may have given the id."""
    return port_id.startswith(f"{_BEGIN}/") and port_id.count("/") == 5


def read_plan(port_id: str) -> NicPlan:
    """The inverse of ``NicPlan.id``. Raises NotFound for an id that this adapter never gave."""
    if not is_plan(port_id):
        raise NotFound(f"NIFCLOUD has no port {port_id}", object_id=port_id)
    return NicPlan(*port_id.split("/")[1:])


def lan_id(mark: Mark) -> str:
    """The id of a cluster's private LAN, known before the LAN is made."""
    return f"lan.{mark.uid}.{mark.name}"


def lan_mark(network_id: str) -> Mark | None:
    """The inverse of ``lan_id``; None for another network's id."""
    begin, _, rest = network_id.partition(".")
    uid, dot, name = rest.partition(".")
    return Mark(uid, name) if begin == "lan" and dot else None


def wire_network(network_id: str, zone: str = "") -> str:
    """What the API calls the network: an id (``net-…``), or a private LAN's name. ``zone``: that of its counterpart, where it
    is not the first."""
    mark = lan_mark(network_id)
    if mark is None:
        return network_id
    return zonal_name(mark, zone) if zone else wire_name(mark)
