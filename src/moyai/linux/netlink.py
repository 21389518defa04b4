"""Links, addresses, neighbours, forwarding entries and IPv4 routes of a network namespace, by rtnetlink (pyroute2).

Always holds: each change is one request, and is repeated without harm: what stands is replaced, what is gone is gone. Failures
are OSError with the kernel's number. pyroute2 is imported on first use: it takes a tenth of a second.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from moyai.linux import netns
from moyai.linux.netlink_messages import (
    AF_BRIDGE,
    AF_INET,
    MAIN_TABLE,
    NUD_PERMANENT,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    EntryChange,
    KernelNeighbour,
    KernelRoute,
    answers,
    ask_programs,
    messages,
    request,
)

# linux/if.h, linux/rtnetlink.h
_IFF_UP = 0x1
_NETLINK_ROUTE = 0
#: Bytes: of the largest report, and of what may wait to be read.
_DATAGRAM, _BUFFER = 1 << 16, 1 << 22
_RTMGRP_LINK, _RTMGRP_NEIGH, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV4_ROUTE = 0x1, 0x4, 0x10, 0x40
_GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)
#: Requests that the kernel gets at once: some 16 KiB, and their answers fit into the socket many times over.
_TOGETHER = 256


@dataclass(frozen=True)
class VxlanOptions:
    vni: int
    port: int
    local: str
    parent: int
    learning: bool
    misses: bool = False


@dataclass(frozen=True)
class KernelLink:
    """``kind``: ``vxlan``, ``veth`` …, empty for a device of hardware. ``alias``: free text that a user or program set."""

    index: int
    name: str
    kind: str
    mtu: int
    mac: str
    up: bool
    alias: str = ""
    vxlan: VxlanOptions | None = None


@dataclass(frozen=True)
class KernelAddress:
    """Of IPv4."""

    index: int
    address: str
    prefix: int


@dataclass(frozen=True)
class KernelMiss:
    """A packet waits on a device for the MAC address of ``address``, or for the machine with ``mac``. One of both is empty."""

    index: int
    address: str = ""
    mac: str = ""


Fact = KernelLink | KernelAddress | KernelRoute | KernelNeighbour


@dataclass(frozen=True)
class KernelChange:
    """What the kernel reports: ``fact`` is there, or gone."""

    fact: Fact
    gone: bool


class Netlink:
    """``async with Netlink.open() as netlink``. ``namespace``: path or name of another one than the process's own."""

    def __init__(self, route: Any, entries: socket.socket) -> None:
        self._route, self._entries = route, entries
        self._sequence = 0
        #: Answers on the socket are to one set of requests.
        self._changing = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, namespace: str | None = None) -> AsyncGenerator[Self]:
        async with _socket(namespace) as route:
            # the kernel gives the socket its port with the first request
            await route.link("get", ifname="lo")
            with _raw_socket(namespace) as entries:
                entries.bind((0, 0))
                yield cls(route, entries)

    @property
    def ports(self) -> frozenset[int]:
        """By which the kernel knows who makes a change."""
        return frozenset({int(self._route.getsockname()[0]), int(self._entries.getsockname()[0])})

    async def links(self) -> list[KernelLink]:
        return [_link(one) async for one in self._dump("link")]

    async def addresses(self, index: int | None = None) -> list[KernelAddress]:
        """Of one link, or of all."""
        wanted = {} if index is None else {"index": index}
        found = [_address(one) async for one in self._dump("addr", family=AF_INET, **wanted)]
        return [one for one in found if one]

    async def routes(self) -> list[KernelRoute]:
        found = [_route(one) async for one in self._dump("route", family=AF_INET, table=MAIN_TABLE)]
        return [one for one in found if one]

    async def neighbours(self, index: int) -> list[KernelNeighbour]:
        """The permanent ones of a link, and its permanent forwarding entries."""
        found = [_neighbour(one) async for one in self._dump("neigh", family=AF_INET, ifindex=index)]
        found += [_neighbour(one) async for one in self._dump("fdb", ifindex=index)]
        return [one for one in found if one]

    async def passing(self, index: int) -> list[KernelNeighbour]:
        """The others, which the kernel forgets when they are not used."""
        found = [_entry(one) async for one in self._dump("neigh", family=AF_INET, ifindex=index)]
        found += [_entry(one) async for one in self._dump("fdb", ifindex=index)]
        return [replace(one, lasting=False) for one in found if one and one.lasting is False]

    async def ask_programs(self, index: int) -> None:
        """See ``netlink_messages.ask_programs``. Raises OSError."""
        async with self._changing:
            self._sequence += 1
            loop, wanted = asyncio.get_running_loop(), self._sequence
            await loop.sock_sendall(self._entries, ask_programs(index, wanted))
            while True:
                for answer in answers(await loop.sock_recv(self._entries, _DATAGRAM)):
                    if answer.sequence == wanted:
                        if answer.error:
                            raise OSError(answer.error, f"ask programs for neighbours: {os.strerror(answer.error)}")
                        return

    async def create_vxlan(self, name: str, options: VxlanOptions, *, mac: str, mtu: int) -> None:
        """As flannel makes it. EEXIST where the name or the VNI and port are taken."""
        await self._call(
            "link",
            "add",
            ifname=name,
            kind="vxlan",
            vxlan_id=options.vni,
            vxlan_local=options.local,
            vxlan_link=options.parent,
            vxlan_port=options.port,
            vxlan_learning=options.learning,
            **({"vxlan_l2miss": True, "vxlan_l3miss": True} if options.misses else {}),
            address=mac,
            mtu=mtu,
        )

    async def adjust_link(self, index: int, *, mtu: int, alias: str) -> None:
        """Set MTU and alias, and put it up."""
        await self._call("link", "set", index=index, mtu=mtu, ifalias=alias, state="up")

    async def delete_link(self, index: int) -> None:
        await self._remove("link", "del", index=index)

    async def put_address(self, address: KernelAddress) -> None:
        await self._call("addr", "replace", index=address.index, address=address.address, prefixlen=address.prefix)

    async def delete_address(self, address: KernelAddress) -> None:
        await self._remove("addr", "del", index=address.index, address=address.address, prefixlen=address.prefix)

    async def change(self, changes: Sequence[EntryChange]) -> None:
        """Carry out the changes in their order, each in one request, with many requests in one message to the kernel.

        Raises OSError for the first change that the kernel refuses. Changes after it may have been made.
        """
        async with self._changing:
            for start in range(0, len(changes), _TOGETHER):
                await self._change(changes[start : start + _TOGETHER])

    async def _change(self, changes: Sequence[EntryChange]) -> None:
        loop = asyncio.get_running_loop()
        first = self._sequence + 1
        self._sequence += len(changes)
        waiting = {first + number: one for number, one in enumerate(changes)}
        await loop.sock_sendall(self._entries, b"".join(request(one, number) for number, one in waiting.items()))
        refused: dict[int, OSError] = {}
        while waiting:
            for answer in answers(await loop.sock_recv(self._entries, _DATAGRAM)):
                change = waiting.pop(answer.sequence, None)
                if change is not None and answer.error and not (change.gone and answer.error in _GONE):
                    doing = f"{'delete' if change.gone else 'replace'} {change.entry}"
                    refused[answer.sequence] = OSError(answer.error, f"{doing}: {os.strerror(answer.error)}")
        if refused:
            raise refused[min(refused)]

    async def _dump(self, what: str, **chosen: Any) -> AsyncIterator[Any]:
        with _kernel_words(f"list {what}"):
            async for one in await getattr(self._route, what)("dump", **chosen):
                yield one

    async def _call(self, what: str, verb: str, **words: Any) -> None:
        with _kernel_words(f"{verb} {what} {_told(words)}"):
            await getattr(self._route, what)(verb, **words)

    async def _remove(self, what: str, verb: str, **words: Any) -> None:
        try:
            await self._call(what, verb, **words)
        except OSError as error:
            if error.errno not in _GONE:
                raise


class Events:
    """What the kernel reports of links, permanent neighbours, forwarding entries, addresses and routes of IPv4.

    ``with Events.open() as events``: from then on nothing is missed. ``OSError`` (ENOBUFS) where the kernel reported more
    than the socket holds: then reports are lost, and the state is to be read again. A socket of its own, because
    pyroute2 would decode each report, also those of our own changes.
    """

    def __init__(self, reports: socket.socket, own: Collection[int]) -> None:
        from pyroute2.netlink.rtnl.marshal import (  # pyright: ignore[reportMissingTypeStubs]
            MarshalRtnl,  # pyright: ignore[reportUnknownVariableType]
        )

        self._reports, self._own = reports, own
        self._marshal = cast("Any", MarshalRtnl)()

    @classmethod
    @contextmanager
    def open(cls, *, own: Collection[int] = (), namespace: str | None = None) -> Generator[Self]:
        """``own``: ports of a ``Netlink`` whose changes are not reported, where the kernel names who made them."""
        with _raw_socket(namespace) as reports:
            reports.bind((0, _RTMGRP_LINK | _RTMGRP_NEIGH | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE))
            yield cls(reports, own)

    async def changes(self) -> AsyncIterator[KernelChange | KernelMiss]:
        loop = asyncio.get_running_loop()
        while True:
            data = await loop.sock_recv(self._reports, _DATAGRAM)
            for message in self._foreign(data):
                if change := _change(message):
                    yield change

    def _foreign(self, data: bytes) -> Iterator[Any]:
        for start, length, port in messages(data):
            if not (port and port in self._own):
                yield from self._marshal.parse(data[start : start + length])


@contextmanager
def _raw_socket(namespace: str | None) -> Generator[socket.socket]:
    with netns.inside(namespace) if namespace else nullcontext():
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
    with made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        yield made


@asynccontextmanager
async def _socket(namespace: str | None) -> AsyncGenerator[Any]:
    from pyroute2 import AsyncIPRoute  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    route = cast("Any", AsyncIPRoute)(**({"netns": namespace} if namespace else {}))
    async with route as opened:
        yield opened


@contextmanager
def _kernel_words(doing: str) -> Generator[None]:
    """Turns pyroute2's error into OSError with the kernel's number; ``doing``: what was asked."""
    from pyroute2 import NetlinkError  # pyright: ignore[reportMissingTypeStubs]

    try:
        yield
    except NetlinkError as error:
        number = abs(cast("int", cast("Any", error).code))
        raise OSError(number, f"{doing}: {os.strerror(number)}") from error


def _told(words: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in words.items())


def _link(message: Any) -> KernelLink:
    information = message.get_attr("IFLA_LINKINFO")
    kind = (information.get_attr("IFLA_INFO_KIND") or "") if information else ""
    data = information.get_attr("IFLA_INFO_DATA") if kind == "vxlan" else None
    vxlan = None
    if data:
        vxlan = VxlanOptions(
            vni=data.get_attr("IFLA_VXLAN_ID") or 0,
            port=data.get_attr("IFLA_VXLAN_PORT") or 0,
            local=data.get_attr("IFLA_VXLAN_LOCAL") or "",
            parent=data.get_attr("IFLA_VXLAN_LINK") or 0,
            learning=bool(data.get_attr("IFLA_VXLAN_LEARNING")),
            misses=bool(data.get_attr("IFLA_VXLAN_L2MISS")),
        )
    return KernelLink(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME") or "",
        kind=kind,
        mtu=message.get_attr("IFLA_MTU") or 0,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        up=bool(message["flags"] & _IFF_UP),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        vxlan=vxlan,
    )


def _address(message: Any) -> KernelAddress | None:
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return KernelAddress(message["index"], text, message["prefixlen"]) if text and message["family"] == AF_INET else None


def _route(message: Any) -> KernelRoute | None:
    table = message.get_attr("RTA_TABLE") or message["table"]
    if table != MAIN_TABLE or message["family"] != AF_INET or message["type"] not in (RTN_UNICAST, RTN_UNREACHABLE):
        return None
    unreachable = message["type"] == RTN_UNREACHABLE
    return KernelRoute(
        destination=f"{message.get_attr('RTA_DST') or '0.0.0.0'}/{message['dst_len']}",
        protocol=message["proto"],
        metric=message.get_attr("RTA_PRIORITY") or 0,
        gateway=message.get_attr("RTA_GATEWAY") or "",
        index=0 if unreachable else message.get_attr("RTA_OIF") or 0,
        unreachable=unreachable,
    )


def _neighbour(message: Any) -> KernelNeighbour | None:
    forwarding = message["family"] == AF_BRIDGE
    address, mac = message.get_attr("NDA_DST") or "", message.get_attr("NDA_LLADDR") or ""
    # what is reported as gone is not permanent any more, and may have no MAC address
    gone = message["event"] == "RTM_DELNEIGH"
    known = gone or (mac and message["state"] & NUD_PERMANENT)
    if message["family"] not in (AF_INET, AF_BRIDGE) or not address or not known:
        return None
    return KernelNeighbour(message["ifindex"], address, mac, forwarding)


def _entry(message: Any) -> KernelNeighbour | None:
    """Also one that passes."""
    address, mac = message.get_attr("NDA_DST") or "", message.get_attr("NDA_LLADDR") or ""
    if message["family"] not in (AF_INET, AF_BRIDGE) or not address or not mac:
        return None
    lasting = bool(message["state"] & NUD_PERMANENT)
    return KernelNeighbour(message["ifindex"], address, mac, message["family"] == AF_BRIDGE, lasting)


def _change(message: Any) -> KernelChange | KernelMiss | None:
    if message["event"] == "RTM_GETNEIGH":
        address, mac = message.get_attr("NDA_DST") or "", message.get_attr("NDA_LLADDR") or ""
        # a neighbour that was known is asked for by both
        return KernelMiss(message["ifindex"], address, "" if address else mac) if address or mac else None
    parse, gone = _REPORTS.get(message["event"], (None, False))
    fact = parse(message) if parse else None
    return KernelChange(fact, gone) if fact else None


#: Type of a report (linux/rtnetlink.h) → what reads it, and whether it is about the end of something.
_REPORTS: Mapping[str, tuple[Callable[[Any], Fact | None], bool]] = {
    "RTM_NEWLINK": (_link, False),
    "RTM_DELLINK": (_link, True),
    "RTM_NEWADDR": (_address, False),
    "RTM_DELADDR": (_address, True),
    "RTM_NEWROUTE": (_route, False),
    "RTM_DELROUTE": (_route, True),
    "RTM_NEWNEIGH": (_neighbour, False),
    "RTM_DELNEIGH": (_neighbour, True),
}
