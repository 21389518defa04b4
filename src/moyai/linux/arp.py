"""Answers to ARP requests for addresses that no interface has, and gratuitous ARP, over a packet socket.

Standard library alone. Always holds: whether an address is answered for is asked at each request, at the moment of the answer.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

_ETH_P_ARP = 0x0806
_REQUEST, _REPLY = 1, 2
_BROADCAST = b"\xff" * 6
#: linux/sockios.h
_SIOCGIFADDR, _SIOCGIFHWADDR = 0x8915, 0x8927
#: Ethernet and IPv4: hardware type, protocol type, lengths, operation, both ends' MAC and IP address.
_FORM = struct.Struct("!HHBBH6s4s6s4s")
_HEAD = struct.Struct("!6s6sH")


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
    """On one interface, without blocking. ``answers``: whether an address is answered for, now."""

    def __init__(self, interface: str, answers: Callable[[str], bool]) -> None:
        self.interface = interface
        self._answers = answers
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP))
        try:
            self._socket.setblocking(False)
            self._socket.bind((interface, _ETH_P_ARP))
            self._mac = _mac(self._socket, interface)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def ready(self) -> None:
        """Answer what has come. An interface that is down loses the answer, not the responder."""
        with suppress(BlockingIOError, OSError):
            while True:
                asked = parse_arp(self._socket.recv(128))
                if asked is None or asked.operation != _REQUEST or asked.sender == asked.target:
                    continue
                if self._answers(asked.target):
                    answer = ArpPacket(_REPLY, self._mac, asked.target, asked.sender_mac, asked.sender)
                    self._socket.send(arp_frame(answer, to=asked.sender_mac))

    def announce(self, address: str) -> None:
        """A gratuitous request and reply, where the address is answered for: hosts differ in which of both they obey."""
        with suppress(OSError):
            for operation, target in ((_REQUEST, b"\0" * 6), (_REPLY, _BROADCAST)):
                if self._answers(address):
                    packet = ArpPacket(operation, self._mac, address, target, address)
                    self._socket.send(arp_frame(packet, to=_BROADCAST))

    def close(self) -> None:
        self._socket.close()


def interface_of(address: str) -> str:
    """The interface that has this IPv4 address, empty where none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                found = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return ""


def _mac(asking: socket.socket, interface: str) -> bytes:
    return fcntl.ioctl(asking, _SIOCGIFHWADDR, struct.pack("256s", interface.encode()))[18:24]
