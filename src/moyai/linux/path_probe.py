"""A program that runs with the network of a machine and measures how large packets to other machines may be.

It travels as text like ``pod_probe``: the standard library alone. A path's MTU is measured by ICMP echo requests that may not
be fragmented. What the kernel believes of the path, and has perhaps kept from earlier, counts for nothing: each size is sent.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

#: Seconds for one answer, and tries of a packet that may be lost.
ANSWER, TRIES = 0.4, 3
#: What every network of IPv4 carries (RFC 791).
SMALLEST = 576
#: Bytes that IPv4 and ICMP put before what is sent.
HEADERS = 28
# linux/in.h: send each size with "do not fragment", whatever is known of the path
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_SIOCGIFMTU, _SIOCGIFADDR = 0x8921, 0x8915
_ECHO, _ANSWERED = 8, 0
_AT_ONCE = 64


def measure(targets: dict[str, str]) -> dict[str, object]:
    """``targets``: node → its address. ``link``: MTU of the link that leads to them, the smallest where there are several.
    ``paths``: node → the largest packet that is answered, 0 for none."""
    links = {node: link_mtu(address) for node, address in targets.items()}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = {node: pool.submit(path_mtu, address, links[node]) for node, address in targets.items()}
        return {"link": min(links.values(), default=0), "paths": {node: one.result() for node, one in found.items()}}


def link_mtu(address: str) -> int:
    """Of the link by which this machine reaches the address; 0 for none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, suppress(OSError):
        asking.connect((address, 9))
        own = asking.getsockname()[0]
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                request = struct.pack("256s", name.encode())
                if socket.inet_ntoa(fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, request)[20:24]) == own:
                    return int(struct.unpack_from("=i", fcntl.ioctl(asking.fileno(), _SIOCGIFMTU, request[:32]), 16)[0])
    return 0


def path_mtu(address: str, most: int) -> int:
    """The largest packet to the address, of ``most`` bytes at most, that is answered; 0 for none."""
    if answered(address, most):
        return most
    if most <= SMALLEST or not answered(address, SMALLEST):
        return 0
    largest, above = SMALLEST, most
    while above - largest > 1:
        middle = (largest + above) // 2
        largest, above = (middle, above) if answered(address, middle) else (largest, middle)
    return largest


def answered(address: str, size: int) -> bool:
    """Whether an echo request of so many bytes comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as asking:
        asking.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        asking.settimeout(ANSWER)
        mark = secrets.token_bytes(8)
        number = secrets.randbelow(1 << 16)
        data = mark + bytes(max(0, size - HEADERS - len(mark)))
        head = struct.pack("!BBHHH", _ECHO, 0, 0, number, 1)
        packet = struct.pack("!BBHHH", _ECHO, 0, checksum(head + data), number, 1) + data
        for _ in range(TRIES):
            with suppress(OSError):
                asking.sendto(packet, (address, 0))
                end = time.monotonic() + ANSWER
                while time.monotonic() < end:
                    said, sender = asking.recvfrom(65535)
                    inner = said[(said[0] & 15) * 4 :]
                    if sender[0] == address and inner[0] == _ANSWERED and inner[8:16] == mark:
                        return len(said) == size
    return False


def checksum(data: bytes) -> int:
    """Of ICMP (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    json.dump(measure(json.loads(sys.argv[1])), sys.stdout)
