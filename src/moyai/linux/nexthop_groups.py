"""Objects of next hops, resilient groups of them, and routes that lead over a group, by rtnetlink.

pyroute2 does not know objects of next hops: requests are bytes here. Always holds: only objects and routes with this module's
protocol number are read or changed. Calls block, and raise OSError with the kernel's number.
Sources: linux/nexthop.h, linux/rtnetlink.h, Documentation/networking/nexthop-group-resilient.rst.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Self, cast

from moyai.linux import netns

#: In `ip nexthop` and `ip route`: ``proto 80``. The routes are in a table of their own, which is asked before the main one: for
#: a routing daemon a route in the main table would take the place of its own.
PROTOCOL, TABLE = 80, 178
_PRIORITY = 17800
_BUCKETS, _IDLE_SECONDS = 256, 120
_BGP, _MAIN = 186, 254
_ERROR, _DONE = 2, 3
_NEWROUTE, _DELROUTE, _GETROUTE, _NEWNEXTHOP, _DELNEXTHOP, _GETNEXTHOP = 24, 25, 26, 104, 105, 106
_REQUEST, _ACK, _REPLACE, _CREATE, _DUMP = 0x1, 0x4, 0x100, 0x400, 0x300
_ID, _GROUP, _GROUP_TYPE, _OIF, _GATEWAY, _RES_GROUP = 1, 2, 3, 5, 6, 12
_RES_BUCKETS, _RES_IDLE, _RES_UNBALANCED, _NESTED = 1, 2, 3, 0x8000
_RESILIENT = 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_NH_ID = 1, 4, 5, 9, 30
_HEADER = struct.Struct("=IHHII")
_NHMSG = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_MEMBER = struct.Struct("=IBBH")
#: struct rtnexthop: length, flags, hops, device.
_RTNEXTHOP = struct.Struct("=HBBi")


class NextHopGroups:
    """``with NextHopGroups(namespace) as groups``. ``namespace``: name of another one than the process's own."""

    def __init__(self, namespace: str | None = None) -> None:
        self._namespace = namespace
        with netns.inside(namespace) if namespace else nullcontext():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    # --- what there is --------------------------------------------------------------------------------------------------

    def hops(self) -> dict[int, tuple[str, int]]:
        """Number → (gateway, index of the device)."""
        return {
            number: (socket.inet_ntoa(found[_GATEWAY]), struct.unpack("=I", found[_OIF])[0])
            for number, found in self._objects()
            if _GATEWAY in found and _OIF in found
        }

    def groups(self) -> dict[int, frozenset[int]]:
        """Number → numbers of next hops."""
        return {
            number: frozenset(_MEMBER.unpack_from(found[_GROUP], at)[0] for at in range(0, len(found[_GROUP]), _MEMBER.size))
            for number, found in self._objects()
            if _GROUP in found
        }

    def routes(self) -> dict[str, int]:
        """Prefix → number of its group."""
        found = self._routes(table=TABLE, protocol=PROTOCOL)
        return {prefix: struct.unpack("=I", said.get(_RTA_NH_ID, bytes(4)))[0] for prefix, said in found}

    def ways(self) -> dict[str, frozenset[tuple[str, int]]]:
        """Prefix → (gateway, index of the device) of each way that a BGP daemon has put into the main table."""
        return {prefix: frozenset(_ways(said)) for prefix, said in self._routes(table=_MAIN, protocol=_BGP)}

    # --- what there is to be --------------------------------------------------------------------------------------------

    def put_rule(self) -> None:
        """The table is asked before the main one."""
        from pyroute2 import (  # pyright: ignore[reportMissingTypeStubs]
            IPRoute,
            NetlinkError,
            NetNS,  # pyright: ignore[reportUnknownVariableType]
        )

        with cast("Any", NetNS(self._namespace) if self._namespace else IPRoute()) as kernel:
            try:
                kernel.rule("add", priority=_PRIORITY, table=TABLE)
            except NetlinkError as error:
                if (number := int(cast("Any", error).code)) != errno.EEXIST:
                    raise OSError(number, os.strerror(number)) from error

    def put_hop(self, number: int, gateway: str, *, link: int) -> None:
        parts = [(_ID, struct.pack("=I", number)), (_OIF, struct.pack("=I", link)), (_GATEWAY, socket.inet_aton(gateway))]
        self._ask(_NEWNEXTHOP, _nexthop(parts, family=socket.AF_INET), flags=_CREATE | _REPLACE)

    def put_group(self, number: int, hops: Collection[int]) -> None:
        """Resilient: what it has of these hops stays where it is. EOPNOTSUPP or EINVAL where the kernel knows none."""
        members = b"".join(_MEMBER.pack(one, 0, 0, 0) for one in sorted(hops))
        # the kernel counts time in hundredths of seconds here
        settings = {_RES_BUCKETS: struct.pack("=HH", _BUCKETS, 0)[:2], _RES_IDLE: struct.pack("=I", _IDLE_SECONDS * 100)}
        settings[_RES_UNBALANCED] = struct.pack("=I", 0)
        nested = b"".join(_attribute(kind, value) for kind, value in settings.items())
        parts = [
            (_ID, struct.pack("=I", number)),
            (_GROUP, members),
            (_GROUP_TYPE, struct.pack("=H", _RESILIENT)),
            (_RES_GROUP | _NESTED, nested),
        ]
        self._ask(_NEWNEXTHOP, _nexthop(parts, family=socket.AF_UNSPEC), flags=_CREATE | _REPLACE)

    def drop(self, number: int) -> None:
        """A next hop or a group."""
        self._ask(_DELNEXTHOP, _nexthop([(_ID, struct.pack("=I", number))], family=socket.AF_UNSPEC), gone=True)

    def put_route(self, prefix: str, group: int) -> None:
        self._ask(_NEWROUTE, _route(prefix, [(_RTA_NH_ID, struct.pack("=I", group))]), flags=_CREATE | _REPLACE)

    def drop_route(self, prefix: str) -> None:
        self._ask(_DELROUTE, _route(prefix, []), gone=True)

    # --- the kernel -----------------------------------------------------------------------------------------------------

    def _routes(self, *, table: int, protocol: int) -> Iterator[tuple[str, Mapping[int, bytes]]]:
        self._send(_GETROUTE, _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), flags=_REQUEST | _DUMP)
        for kind, body in self._answers():
            if kind == _NEWROUTE:
                _, bits, _, _, where, who, *_ = _RTMSG.unpack_from(body)
                said = dict(_attributes(body, _RTMSG.size))
                if (where, who) == (table, protocol) and _RTA_DST in said:
                    yield f"{socket.inet_ntoa(said[_RTA_DST])}/{bits}", said

    def _objects(self) -> Iterator[tuple[int, Mapping[int, bytes]]]:
        self._send(_GETNEXTHOP, _NHMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0), flags=_REQUEST | _DUMP)
        for kind, body in self._answers():
            if kind == _NEWNEXTHOP and _NHMSG.unpack_from(body)[2] == PROTOCOL:
                found = dict(_attributes(body, _NHMSG.size))
                yield struct.unpack("=I", found[_ID])[0], found

    def _ask(self, kind: int, body: bytes, *, flags: int = 0, gone: bool = False) -> None:
        self._send(kind, body, flags=_REQUEST | _ACK | flags)
        for answer, said in self._answers():
            if answer == _ERROR and (number := -struct.unpack_from("=i", said)[0]):
                if gone and number in (errno.ENOENT, errno.ESRCH):
                    return
                raise OSError(number, os.strerror(number))

    def _send(self, kind: int, body: bytes, *, flags: int) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """(type, body) of each message, to the end of the answer."""
        while True:
            data = self._socket.recv(1 << 16)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + length]
                at += (length + 3) & ~3
                if sequence != self._sequence:
                    continue
                if kind != _DONE:
                    yield kind, body
                if kind in (_DONE, _ERROR):
                    return


def _ways(said: Mapping[int, bytes]) -> Iterator[tuple[str, int]]:
    """Of a route with one next hop or several."""
    if _RTA_GATEWAY in said and _RTA_OIF in said:
        yield socket.inet_ntoa(said[_RTA_GATEWAY]), struct.unpack("=I", said[_RTA_OIF])[0]
    several, at = said.get(_RTA_MULTIPATH, b""), 0
    while at + _RTNEXTHOP.size <= len(several):
        length, _, _, link = _RTNEXTHOP.unpack_from(several, at)
        gateway = dict(_attributes(several[at : at + length], _RTNEXTHOP.size)).get(_RTA_GATEWAY)
        if gateway is not None:
            yield socket.inet_ntoa(gateway), link
        at += (length + 3) & ~3


def _nexthop(parts: Collection[tuple[int, bytes]], *, family: int) -> bytes:
    return _NHMSG.pack(family, 0, PROTOCOL, 0, 0) + b"".join(_attribute(kind, value) for kind, value in parts)


def _route(prefix: str, parts: Collection[tuple[int, bytes]]) -> bytes:
    address, _, bits = prefix.partition("/")
    head = _RTMSG.pack(socket.AF_INET, int(bits), 0, 0, TABLE, PROTOCOL, 0, 1, 0)
    whole = [(_RTA_DST, socket.inet_aton(address)), *parts]
    return head + b"".join(_attribute(kind, value) for kind, value in whole)


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        yield kind & 0x3FFF, body[at + 4 : at + length]
        at += (length + 3) & ~3
