"""Answers to ARP requests for addresses that no interface has, and gratuitous ARP, over a packet socket.

Standard library alone. Always holds: whether an address is answered for is asked at each request, at the moment of the answer.
Sources: RFC 826, RFC 5227 (announcements and the defence of an address), packet(7).
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

_ETH_P_ARP = 0x0806
_REQUEST, _REPLY = 1, 2
_BROADCAST, _NOBODY = b"\xff" * 6, b"\0" * 6
#: linux/sockios.h
_SIOCGIFADDR, _SIOCGIFHWADDR = 0x8915, 0x8927
#: Ethernet and IPv4: hardware type, protocol type, lengths, operation, both ends' MAC and IP address.
_FORM = struct.Struct("!HHBBH6s4s6s4s")
_HEAD = struct.Struct("!6s6sH")
#: So many packets are answered before other work of the process gets its turn.
_TURN = 64


@dataclass(frozen=True)
class ArpPacket:
    operation: int
    sender_mac: bytes
    sender: str
    target_mac: bytes
    target: str


def parse_arp(frame: bytes) -> ArpPacket | None:
    """None for what is no ARP of IPv4 on Ethernet."""
    if len(frame) < _HEAD.size + _FORM.size:
        return None
    hardware, protocol, long, short, operation, mac, sender, target_mac, target = _FORM.unpack_from(frame, _HEAD.size)
    if (hardware, protocol, long, short) != (1, 0x0800, 6, 4):
        return None
    return ArpPacket(operation, mac, socket.inet_ntoa(sender), target_mac, socket.inet_ntoa(target))


def arp_frame(packet: ArpPacket, *, to: bytes) -> bytes:
    ends = (packet.sender_mac, socket.inet_aton(packet.sender), packet.target_mac, socket.inet_aton(packet.target))
    return _HEAD.pack(to, packet.sender_mac, _ETH_P_ARP) + _FORM.pack(1, 0x0800, 6, 4, packet.operation, *ends)


class ArpResponder:
    """On one interface, without blocking. ``answers``: whether an address is answered for, now. ``contested``: called with an
    address that is answered for when another machine says that it has it. Raises OSError where there is no such interface."""

    def __init__(
        self, interface: str, answers: Callable[[str], bool], *, contested: Callable[[str], None] = lambda _address: None
    ) -> None:
        self.interface = interface
        self._answers = answers
        self._contested = contested
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self._socket.setblocking(False)
            self._socket.bind((interface, _ETH_P_ARP))
            self._mac = fcntl.ioctl(self._socket, _SIOCGIFHWADDR, struct.pack("256s", interface.encode()))[18:24]
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def ready(self) -> None:
        """Answer what has come. Raises OSError where the interface is gone; one that is down loses the answer alone."""
        for _ in range(_TURN):
            try:
                heard = parse_arp(self._socket.recv(128))
                if heard is not None and heard.sender_mac != self._mac:
                    self._hear(heard)
            except BlockingIOError:
                return
            except OSError as error:
                # an interface that was deleted first reports that it is down, and has no name any more
                down = error.errno == errno.ENETDOWN and self._socket.getsockname()[0]
                if not down and error.errno != errno.ENOBUFS:
                    raise

    def announce(self, address: str) -> None:
        """A gratuitous request and reply, where the address is answered for: hosts differ in which of both they obey."""
        with suppress(OSError):
            for operation, target in ((_REQUEST, _NOBODY), (_REPLY, _BROADCAST)):
                if self._answers(address):
                    packet = ArpPacket(operation, self._mac, address, target, address)
                    self._socket.send(arp_frame(packet, to=_BROADCAST))

    def close(self) -> None:
        self._socket.close()

    def _hear(self, heard: ArpPacket) -> None:
        if heard.sender != "0.0.0.0" and self._answers(heard.sender):
            self._contested(heard.sender)
        if heard.operation == _REQUEST and heard.sender != heard.target and self._answers(heard.target):
            answer = ArpPacket(_REPLY, self._mac, heard.target, heard.sender_mac, heard.sender)
            self._socket.send(arp_frame(answer, to=heard.sender_mac))


def interfaces() -> frozenset[str]:
    """Names of this machine's network interfaces."""
    return frozenset(name for _, name in socket.if_nameindex())


def interface_of(address: str) -> str:
    """The interface that has this IPv4 address, empty where none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                found = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return ""
