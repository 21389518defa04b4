"""Routes for marked packets, and a tunnel for them, by rtnetlink (pyroute2).

Always holds: only rules, tables, routes and the device with the marks of this module are changed. Each call brings the kernel
to what it is given, from any state.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

#: Numbers of routing tables, and priorities of rules, begin here.
_TABLES = 7700
_MOST = 255
_IPV4, _BRIDGE, _ONLINK = 2, 7, 4
#: In `ip route`: whose routes these are.
_PROTOCOL = 79
#: Permanent, and not asked for by ARP; the entry is the device's own.
_FIXED, _PERMANENT, _SELF = 0xC0, 0x80, 2


@dataclass(frozen=True, order=True)
class MarkedRoute:
    """Packets with ``mark`` (under ``mask``) go to ``gateway`` on the link with this name. ``destinations`` empty: whatever
    they are for; else to the gateway of their range (CIDR → gateway), and by the machine's own routes for what is in none."""

    number: int
    mark: int
    mask: int
    gateway: str
    link: str
    destinations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class EgressTunnel:
    """A VXLAN device. ``local``: the machine's address. ``less``: bytes by which a packet in it is shorter than the link's."""

    name: str
    vni: int
    port: int
    local: str
    mac: str
    less: int


@dataclass(frozen=True)
class TunnelEnd:
    """Of another machine. ``gateway``: the address by which it is known in the tunnel."""

    address: str
    gateway: str
    mac: str


class EgressNet:
    """``namespace``: name of another one than the process's own. Calls block. They raise OSError with the kernel's number."""

    def __init__(self, namespace: str | None = None) -> None:
        self._namespace = namespace

    def _open(self) -> Any:
        from pyroute2 import IPRoute, NetNS  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

        return cast("Any", NetNS(self._namespace) if self._namespace else IPRoute())

    def tunnel(self, wanted: EgressTunnel, *, link: str, ends: Collection[TunnelEnd]) -> None:
        """The device with these ends and no others; without any, there is no device."""
        with _errors(), self._open() as kernel:
            index = next(iter(kernel.link_lookup(ifname=wanted.name)), 0)
            if not ends:
                if index:
                    kernel.link("del", index=index)
                return
            below = kernel.get_links(_index(kernel, link))[0]
            mtu = below.get_attr("IFLA_MTU") - wanted.less
            if index and not _same(kernel.get_links(index)[0], wanted, below=below["index"]):
                kernel.link("del", index=index)
                index = 0
            if not index:
                kernel.link(
                    "add",
                    ifname=wanted.name,
                    kind="vxlan",
                    address=wanted.mac,
                    mtu=mtu,
                    vxlan_id=wanted.vni,
                    vxlan_local=wanted.local,
                    vxlan_link=below["index"],
                    vxlan_port=wanted.port,
                    vxlan_learning=False,
                )
                index = _index(kernel, wanted.name)
            kernel.link("set", index=index, mtu=mtu, state="up")
            _entries(kernel, index, family=_IPV4, wanted={(one.gateway, one.mac) for one in ends})
            _entries(kernel, index, family=_BRIDGE, wanted={(one.address, one.mac) for one in ends})

    def route(self, routes: Iterable[MarkedRoute]) -> None:
        """These rules with their tables, and no others of ours."""
        wanted = {one.number: one for one in routes}
        with _errors(), self._open() as kernel:
            have = {
                row.get_attr("FRA_PRIORITY") - _TABLES: row.get_attr("FRA_FWMARK")
                for row in kernel.get_rules(family=_IPV4)
                if _TABLES < (row.get_attr("FRA_PRIORITY") or 0) <= _TABLES + _MOST
            }
            for number, one in sorted(wanted.items()):
                _fill(kernel, _TABLES + number, wanted=one)
                if have.get(number) != one.mark:
                    if number in have:
                        kernel.rule("del", priority=_TABLES + number, table=_TABLES + number)
                    kernel.rule(
                        "add",
                        priority=_TABLES + number,
                        table=_TABLES + number,
                        fwmark=one.mark,
                        fwmask=one.mask,
                        action="to_tbl",
                    )
            for number in sorted(set(have) - set(wanted)):
                kernel.rule("del", priority=_TABLES + number, table=_TABLES + number)
                kernel.flush_routes(family=_IPV4, table=_TABLES + number)

    def link_of(self, address: str) -> str:
        """Name of the link with this address; empty where there is none."""
        with _errors(), self._open() as kernel:
            for row in kernel.get_addr(family=_IPV4):
                if row.get_attr("IFA_LOCAL") == address:
                    return str(kernel.get_links(row["index"])[0].get_attr("IFLA_IFNAME"))
        return ""

    def has_link(self, name: str) -> bool:
        with _errors(), self._open() as kernel:
            return bool(kernel.link_lookup(ifname=name))


def _same(found: Any, wanted: EgressTunnel, *, below: int) -> bool:
    info = found.get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != "vxlan":
        return False
    data = info.get_attr("IFLA_INFO_DATA")
    have = [data.get_attr(f"IFLA_VXLAN_{name}") for name in ("ID", "LOCAL", "PORT", "LINK")]
    return have == [wanted.vni, wanted.local, wanted.port, below] and found.get_attr("IFLA_ADDRESS") == wanted.mac


def _entries(kernel: Any, index: int, *, family: int, wanted: set[tuple[str, str]]) -> None:
    """Neighbours of IPv4, or forwarding entries: (address, MAC) of each."""
    have = {
        (row.get_attr("NDA_DST"), row.get_attr("NDA_LLADDR"))
        for row in kernel.get_neighbours(family=family, ifindex=index)
        if row["state"] & _PERMANENT and row.get_attr("NDA_DST")
    }
    more: dict[str, Any] = {"state": _FIXED, "flags": _SELF} if family == _BRIDGE else {"state": "permanent"}
    for what, entries in (("del", have - wanted), ("replace", wanted - have)):
        for address, mac in sorted(entries):
            kernel.neigh(what, family=family, ifindex=index, dst=address, lladdr=mac, **more)


def _fill(kernel: Any, table: int, *, wanted: MarkedRoute) -> None:
    routes = wanted.destinations or (("default", wanted.gateway),)
    index = _index(kernel, wanted.link)
    have = {
        (f"{dst}/{row['dst_len']}" if (dst := row.get_attr("RTA_DST")) else "default"): (
            row.get_attr("RTA_GATEWAY"),
            row.get_attr("RTA_OIF"),
        )
        for row in kernel.get_routes(family=_IPV4, table=table)
    }
    for destination, gateway in routes:
        if have.pop(destination, None) != (gateway, index):
            kernel.route("replace", dst=destination, gateway=gateway, oif=index, table=table, flags=_ONLINK, proto=_PROTOCOL)
    for destination in have:
        kernel.route("del", dst=destination, table=table)


def _index(kernel: Any, link: str) -> int:
    found = list(kernel.link_lookup(ifname=link))
    if not found:
        raise OSError(19, f"there is no link {link}")
    return int(found[0])


@contextmanager
def _errors() -> Generator[None]:
    """Turns pyroute2's error into OSError."""
    from pyroute2 import NetlinkError  # pyright: ignore[reportMissingTypeStubs]

    try:
        yield
    except NetlinkError as error:
        raise OSError(int(cast("Any", error).code), str(error)) from error
