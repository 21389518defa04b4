"""The connections that the kernel tracks, read and forgotten by netlink (linux/netfilter/nfnetlink_conntrack.h).

Always holds: addresses and ports are those behind the translation of destinations, as chains at hook forward see them; a
connection is forgotten by its own identifier, so that a later one of the same ports is left alone. Of a message only the parts
that are needed are read: pyroute2, which reads all of it, takes fifteen times as long (docs/adr/0093).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
_IP, _PROTOCOL = 1, 2
_BUFFER = 1 << 18
_NAMES = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmpv6"}


@dataclass(frozen=True)
class TrackedConnection:
    """``source``: who began it. ``destination``, ``port``: who answers it. ``protocol``: its name (tcp) or else its
    number. ``identity``: what the kernel finds it by."""

    source: str
    destination: str
    protocol: str
    port: int
    family: int
    identity: bytes


class Conntrack:
    """Made in the namespace whose connections are meant; used by one thread at a time. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(10)
        self._sequence = 0

    def connections(self) -> list[TrackedConnection]:
        """All of both families."""
        found: list[TrackedConnection] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in self._ask(_GET, _REQUEST | _DUMP, body=struct.pack("=BBH", family, 0, 0)):
                connection = _parsed(body)
                if connection:
                    found.append(connection)
        return found

    def forget(self, connections: Iterable[TrackedConnection]) -> int:
        """The next packet of each is looked at as a first one. Returns how many there still were."""
        count = 0
        for one in connections:
            try:
                for _ in self._ask(_DELETE, _REQUEST | _ACK, body=struct.pack("=BBH", one.family, 0, 0) + one.identity):
                    pass
                count += 1
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
        return count

    def close(self) -> None:
        self._socket.close()

    def _ask(self, kind: int, flags: int, *, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0) + body)
        while True:
            data = self._socket.recv(_BUFFER)
            at = 0
            while at + 16 <= len(data):
                length, answer, _, sequence, _ = struct.unpack_from("=IHHII", data, at)
                payload = data[at + 16 : at + length]
                at += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # left over from a call that ran out of time
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    (code,) = struct.unpack_from("=i", payload)
                    if code:
                        raise OSError(-code, os.strerror(-code), "conntrack")
                    return
                yield payload


def _parsed(body: bytes) -> TrackedConnection | None:
    parts = dict(_attributes(body, 4))
    if _ORIGINAL not in parts or _REPLY not in parts:
        return None
    asked, answered = _tuple(parts[_ORIGINAL]), _tuple(parts[_REPLY])
    identity = b"".join(_attribute(kind, parts[kind]) for kind in (_ORIGINAL, _ID, _ZONE) if kind in parts)
    return TrackedConnection(
        source=asked[0],
        destination=answered[0],
        protocol=_NAMES.get(asked[1], str(asked[1])),
        port=answered[2],
        family=body[0],
        identity=identity,
    )


def _tuple(data: bytes) -> tuple[str, int, int]:
    """(source address, protocol, source port)"""
    parts = dict(_attributes(data))
    addresses = dict(_attributes(parts.get(_IP, b"")))
    source = addresses.get(1) or addresses.get(3) or b""
    address = socket.inet_ntop(socket.AF_INET6 if len(source) == 16 else socket.AF_INET, source) if source else ""
    protocol = dict(_attributes(parts.get(_PROTOCOL, b"")))
    return address, protocol.get(1, b"\0")[0], int.from_bytes(protocol.get(2, b"\0\0"), "big")


def _attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _attribute(kind: int, data: bytes) -> bytes:
    nested = 0x8000 if kind == _ORIGINAL else 0
    padding = b"\0" * (-len(data) % 4)
    return struct.pack("=HH", 4 + len(data), kind | nested) + data + padding
