"""Requests of rtnetlink for neighbours, forwarding entries and IPv4 routes as bytes, and the kernel's answers: pure.

A node has thousands of these entries. pyroute2 builds an object for each attribute of a request, which costs some 0.3 ms of
processor time an entry; here it is a few microseconds. Sources: linux/netlink.h, linux/rtnetlink.h, linux/neighbour.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

AF_INET, AF_BRIDGE = 2, 7
RTN_UNICAST, RTN_UNREACHABLE, MAIN_TABLE = 1, 7, 254
NUD_PERMANENT, NUD_NOARP = 0x80, 0x40
_NUD_REACHABLE = 0x02
#: struct nlmsghdr: length, type, flags, sequence, port of who caused it.
HEADER = struct.Struct("=IHHII")
_NLMSG_ERROR = 2
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_SETNEIGHTBL = 24, 25, 28, 29, 67
_REQUEST, _ACK, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 0, 253, 255
_RTNH_F_ONLINK = 0x4
_NTF_SELF = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_NDA_DST, _NDA_LLADDR = 1, 2
#: family, bits of the destination, bits of the source, TOS, table, protocol, scope, type, flags
_RTMSG = struct.Struct("=BBBBBBBBI")
#: family, device, state, flags, type
_NDMSG = struct.Struct("=BxxxiHBB")
#: Of a table of neighbours: its name, the settings of one device, and of these the device and how often whom is asked.
_NDTA_NAME, _NDTA_PARMS, _NESTED = 1, 6, 0x8000
_NDTPA_IFINDEX, _NDTPA_APP_PROBES, _NDTPA_UCAST_PROBES, _NDTPA_MCAST_PROBES = 1, 9, 10, 11
_ERROR = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True)
class KernelRoute:
    """Of IPv4, in the main table. ``index``: of its device, 0 where it leads nowhere (``unreachable``) or to several."""

    destination: str
    protocol: int
    metric: int = 0
    gateway: str = ""
    index: int = 0
    unreachable: bool = False


@dataclass(frozen=True)
class KernelNeighbour:
    """An entry: ``address`` has ``mac``, or, of the forwarding table, frames for ``mac`` go to ``address``. ``lasting`` False:
    the kernel forgets it when it is not used."""

    index: int
    address: str
    mac: str
    forwarding: bool
    lasting: bool = True


@dataclass(frozen=True)
class EntryChange:
    """``gone``: the entry goes, else it comes or is replaced. ``onlink``: the gateway of a route is a neighbour, whatever the
    addresses of the link say."""

    entry: KernelRoute | KernelNeighbour
    gone: bool = False
    onlink: bool = False


@dataclass(frozen=True)
class Answer:
    """To the request with this sequence number. ``error``: the kernel's number, 0 for success."""

    sequence: int
    error: int


def request(change: EntryChange, sequence: int) -> bytes:
    """One request, which the kernel answers."""
    entry = change.entry
    if isinstance(entry, KernelRoute):
        kind = _RTM_DELROUTE if change.gone else _RTM_NEWROUTE
        body = _route(entry, change)
    else:
        kind = _RTM_DELNEIGH if change.gone else _RTM_NEWNEIGH
        body = _neighbour(entry)
    flags = _REQUEST | _ACK | (0 if change.gone else _CREATE | _REPLACE)
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def ask_programs(index: int, sequence: int) -> bytes:
    """From now on the kernel asks programs for neighbours on this device. It asks the network once, which on a tunnel without
    forwarding entries goes nowhere; without that it would give up before a program has answered."""
    counts = {_NDTPA_APP_PROBES: 3, _NDTPA_UCAST_PROBES: 0, _NDTPA_MCAST_PROBES: 1}
    settings = [_attribute(kind, struct.pack("=I", value)) for kind, value in ((_NDTPA_IFINDEX, index), *counts.items())]
    # struct ndtmsg: the family, and nothing
    body = struct.pack("=BBH", AF_INET, 0, 0) + _attribute(_NDTA_NAME, b"arp_cache\0")
    body += _attribute(_NDTA_PARMS | _NESTED, b"".join(settings))
    return HEADER.pack(HEADER.size + len(body), _RTM_SETNEIGHTBL, _REQUEST | _ACK, sequence, 0) + body


def answers(data: bytes) -> Iterator[Answer]:
    """What the kernel says in one datagram."""
    for start, length, _ in messages(data):
        _, kind, _, sequence, _ = HEADER.unpack_from(data, start)
        if kind == _NLMSG_ERROR and length >= HEADER.size + _ERROR.size:
            yield Answer(sequence, -_ERROR.unpack_from(data, start + HEADER.size)[0])


def messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(offset, length, port of who caused it) of each message of a datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, _, _, _, port = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            return
        yield offset, length, port
        offset += (length + 3) & ~3


def _route(route: KernelRoute, change: EntryChange) -> bytes:
    address, _, bits = route.destination.partition("/")
    if change.gone:
        # the kernel takes this scope for any
        scope = _RT_SCOPE_NOWHERE
    else:
        scope = _RT_SCOPE_UNIVERSE if route.gateway or route.unreachable else _RT_SCOPE_LINK
    fields = _RTMSG.pack(
        AF_INET,
        int(bits),
        0,
        0,
        MAIN_TABLE,
        route.protocol,
        scope,
        RTN_UNREACHABLE if route.unreachable else RTN_UNICAST,
        _RTNH_F_ONLINK if change.onlink else 0,
    )
    parts = [fields]
    if int(bits):
        parts.append(_attribute(_RTA_DST, socket.inet_aton(address)))
    if route.metric:
        parts.append(_attribute(_RTA_PRIORITY, struct.pack("=I", route.metric)))
    if not route.unreachable:
        parts.append(_attribute(_RTA_OIF, struct.pack("=I", route.index)))
        if route.gateway:
            parts.append(_attribute(_RTA_GATEWAY, socket.inet_aton(route.gateway)))
    return b"".join(parts)


def _neighbour(entry: KernelNeighbour) -> bytes:
    if entry.forwarding:
        state = NUD_PERMANENT | NUD_NOARP if entry.lasting else _NUD_REACHABLE
        fields = _NDMSG.pack(AF_BRIDGE, entry.index, state, _NTF_SELF, 0)
    else:
        fields = _NDMSG.pack(AF_INET, entry.index, NUD_PERMANENT if entry.lasting else _NUD_REACHABLE, 0, 0)
    parts = [fields, _attribute(_NDA_DST, socket.inet_aton(entry.address))]
    if entry.mac:
        parts.append(_attribute(_NDA_LLADDR, bytes.fromhex(entry.mac.replace(":", ""))))
    return b"".join(parts)


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)
