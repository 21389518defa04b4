"""Addresses that a node has for a while, and routes for marked packets, by rtnetlink (pyroute2).

Always holds: an address goes by itself, in the kernel, within two seconds after it was last asked for, whatever becomes of the
process; only addresses, rules and tables with the marks of this module are changed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

#: In `ip address`: the label of addresses begins so, behind the link's name.
LABEL = "egress"
#: Seconds; the kernel looks for what has ended within one more.
_LIFE = 1
#: Numbers of routing tables, and priorities of rules, begin here.
_TABLES = 7700
_MOST = 255
_IPV4, _ONLINK = 2, 4
#: In `ip route`: whose routes these are.
_PROTOCOL = 79


@dataclass(frozen=True, order=True)
class MarkedRoute:
    """Packets with ``mark`` (under ``mask``) go to ``gateway`` on the link with this name."""

    number: int
    mark: int
    mask: int
    gateway: str
    link: str


class EgressNet:
    """``namespace``: name of another one than the process's own. Calls block. They raise OSError with the kernel's number."""

    def __init__(self, namespace: str | None = None) -> None:
        self._namespace = namespace

    def _open(self) -> Any:
        from pyroute2 import IPRoute, NetNS  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

        return cast("Any", NetNS(self._namespace) if self._namespace else IPRoute())

    def keep_addresses(self, link: str, addresses: Iterable[str]) -> None:
        """The link has these, for a moment, and no others of ours."""
        with _errors(), self._open() as kernel:
            index = _index(kernel, link)
            label = f"{link}:{LABEL}"[:15]
            wanted = set(addresses)
            for row in kernel.get_addr(family=_IPV4, index=index):
                address = row.get_attr("IFA_LOCAL") or row.get_attr("IFA_ADDRESS")
                if row.get_attr("IFA_LABEL") == label and address not in wanted:
                    kernel.addr("del", index=index, address=address, prefixlen=32)
            for address in sorted(wanted):
                kernel.addr(
                    "replace", index=index, address=address, prefixlen=32, label=label, preferred_lft=_LIFE, valid_lft=_LIFE
                )

    def addresses(self, link: str) -> frozenset[str]:
        """Those of ours that the link has."""
        with _errors(), self._open() as kernel:
            rows = kernel.get_addr(family=_IPV4, index=_index(kernel, link))
            label = f"{link}:{LABEL}"[:15]
            return frozenset(row.get_attr("IFA_LOCAL") for row in rows if row.get_attr("IFA_LABEL") == label)

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
                kernel.route(
                    "replace",
                    dst="default",
                    gateway=one.gateway,
                    oif=_index(kernel, one.link),
                    table=_TABLES + number,
                    flags=_ONLINK,
                    proto=_PROTOCOL,
                )
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
