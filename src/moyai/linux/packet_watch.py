"""A program that runs on a node and sends marked packets, or reports where marked packets pass, as JSON.

It travels as text into pods whose image has Python, whatever version of moyai is in it: the standard library alone. A mark has
four bytes: the sequence number of a TCP SYN, or the first bytes of what UDP or an echo request carries. An ICMP error quotes
the packet that it is about, so the packet is recognised in it as well, and inside of VXLAN.

``watch SECONDS MARK,MARK… PORT`` reports; PORT is that of VXLAN. ``send NAMESPACE PROTOCOL SOURCE DESTINATION PORT MARK,MARK…
PAUSE`` sends a packet for each mark; an empty NAMESPACE is the node's.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL, _IPV4 = 0x0003, 0x0800
_TCP, _UDP, _ICMP = 6, 17, 1
_ECHO, _ECHO_REPLY, _UNREACHABLE, _EXCEEDED = 8, 0, 3, 11
#: linux/if_packet.h
_OUTGOING, _OTHER_HOST = 4, 3
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
#: asm-generic/socket.h; Python has no name for it.
_SO_TIMESTAMPNS = 35
_BUFFER = 1 << 22


def watch(seconds: float, marks: frozenset[bytes], *, port: int) -> list[dict[str, Any]]:
    """What passes the links of this namespace, in the order in which the kernel reports it."""
    found: list[dict[str, Any]] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as packets:
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        packets.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        packets.setblocking(False)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([packets], [], [], left)[0]:
                break
            data, told, _, (link, kind, way, *_) = packets.recvmsg(65535, 64)
            if kind != _IPV4 or way == _OTHER_HOST:
                continue
            seen = recognise(data, marks, port=port)
            if seen is not None:
                direction = "out" if way == _OUTGOING else "in"
                found.append({"time": _stamp(told), "link": link, "direction": direction, **seen})
    return found


def _stamp(told: list[tuple[int, int, bytes]]) -> float:
    """When the kernel saw it, in seconds since 1970."""
    for level, kind, data in told:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= 16:
            seconds, nanoseconds = struct.unpack_from("qq", data)
            return seconds + nanoseconds / 1e9
    return time.time()


def recognise(packet: bytes, marks: frozenset[bytes], *, port: int) -> dict[str, Any] | None:
    """What a marked IPv4 packet is, None for any other: ``mark``, addresses, ``ttl``, ``says`` (what an answer or an error
    means, else empty), and of one within VXLAN ``vni`` and ``outer``, the addresses around it."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    protocol, body = packet[9], packet[(packet[0] & 15) * 4 :]
    source, destination = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    if protocol == _UDP and len(body) > 30 and struct.unpack_from("!H", body, 2)[0] == port and body[28:30] == b"\x08\x00":
        inner = recognise(body[30:], marks, port=port)
        return inner and {**inner, "vni": int.from_bytes(body[12:15], "big"), "outer": [source, destination]}
    read = {_TCP: _of_tcp, _UDP: _of_udp, _ICMP: _of_icmp}.get(protocol)
    mark, says = read(body) if read and len(body) >= 8 else (b"", "")
    if mark not in marks:
        return None
    return {"mark": mark.hex(), "source": source, "destination": destination, "ttl": packet[8], "says": says}


def _of_tcp(body: bytes) -> tuple[bytes, str]:
    """(mark, meaning) of the first packet, or of the first answer."""
    if len(body) < 14:
        return b"", ""
    flags = body[13]
    if not flags & _ACK:
        return (body[4:8], "") if flags & _SYN else (b"", "")
    if not flags & (_SYN | _RST):
        return b"", ""
    acknowledged = (int.from_bytes(body[8:12], "big") - 1) & 0xFFFFFFFF
    return acknowledged.to_bytes(4, "big"), "refused (RST)" if flags & _RST else "accepted (SYN, ACK)"


def _of_udp(body: bytes) -> tuple[bytes, str]:
    return body[8:12], ""


def _of_icmp(body: bytes) -> tuple[bytes, str]:
    if body[0] in (_ECHO, _ECHO_REPLY):
        return body[8:12], "echo reply" if body[0] == _ECHO_REPLY else ""
    if body[0] not in (_UNREACHABLE, _EXCEEDED) or len(body) < 36:
        return b"", ""
    # the error quotes the packet that it is about, the first eight bytes of its content at least
    quoted, words = body[8:], "time exceeded" if body[0] == _EXCEEDED else f"unreachable (code {body[1]})"
    inner = quoted[(quoted[0] & 15) * 4 :]
    return (inner[4:8] if quoted[9] == _TCP else inner[8:12]), f"ICMP: {words}"


def send(protocol: str, source: str, *, destination: str, port: int, mark: bytes) -> None:
    """One marked packet, from the namespace of the calling thread."""
    if protocol == "udp":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(mark + b"moyai trace", (destination, port))
        return
    kind = socket.IPPROTO_ICMP if protocol == "icmp" else socket.IPPROTO_TCP
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, kind) as one:
        one.connect((destination, 0))
        mine = source or one.getsockname()[0]
        data = _echo(mark) if protocol == "icmp" else _syn(mine, destination, port=port, mark=mark)
        one.send(data)


def _echo(mark: bytes) -> bytes:
    head = struct.pack("!BBHHH", _ECHO, 0, 0, os.getpid() & 0xFFFF, 1)
    data = head + mark + b"moyai trace"
    return data[:2] + struct.pack("!H", _checksum(data)) + data[4:]


def _syn(source: str, destination: str, *, port: int, mark: bytes) -> bytes:
    own = 49152 + int.from_bytes(mark, "big") % 16384
    head = struct.pack("!HH4sIBBHHH", own, port, mark, 0, 5 << 4, 0x02, 64240, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, _TCP, len(head))
    return head[:16] + struct.pack("!H", _checksum(pseudo + head)) + head[18:]


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _enter(namespace: str) -> None:
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(there, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "the pod's namespace cannot be entered")
    os.close(there)


def main(words: list[str]) -> None:
    if words[0] == "watch":
        marks = frozenset(map(bytes.fromhex, words[2].split(",")))
        found = watch(float(words[1]), marks, port=int(words[3]))
        names = dict(socket.if_nameindex())
        json.dump([{**one, "link": names.get(one["link"], str(one["link"]))} for one in found], sys.stdout)
        return
    _, namespace, protocol, source, destination, port, given, pause = words
    if namespace:
        _enter(namespace)
    for number, mark in enumerate(map(bytes.fromhex, given.split(","))):
        time.sleep(float(pause) if number else 0)
        send(protocol, source, destination=destination, port=int(port), mark=mark)


if __name__ == "__main__":
    main(sys.argv[1:])
