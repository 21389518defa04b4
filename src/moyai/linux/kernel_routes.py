"""Routes that a routing daemon has put into the kernel, with all their next hops."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, cast

#: rtnetlink(7): whose routes these are, as FRR's bgpd marks them.
_BGP = 186
_IPV4 = 2


@dataclass(frozen=True)
class BgpKernelRoute:
    """``gateways``: several for a route of several equal ways."""

    prefix: str
    gateways: tuple[str, ...]


def bgp_routes() -> tuple[BgpKernelRoute, ...]:
    """Those of IPv4, of this process's network."""
    from pyroute2 import IPRoute  # pyright: ignore[reportMissingTypeStubs]  # its import takes a tenth of a second

    with IPRoute() as kernel:
        rows = list(cast("Any", kernel).get_routes(family=_IPV4, proto=_BGP))
    found = (_route(row) for row in rows if row["proto"] == _BGP)
    return tuple(sorted(found, key=lambda one: one.prefix))


def drop_bgp_routes(within: str, *, namespace: str | None = None) -> None:
    """Remove those to parts of this range. Blocks. Raises OSError with the kernel's number."""
    from pyroute2 import IPRoute, NetlinkError, NetNS  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    opened = cast("Any", NetNS(namespace) if namespace else IPRoute())
    with opened as kernel:
        for row in list(kernel.get_routes(family=_IPV4, proto=_BGP)):
            found = _route(row)
            if row["proto"] != _BGP or not IPv4Network(found.prefix).subnet_of(IPv4Network(within)):
                continue
            try:
                kernel.route("del", dst=found.prefix, proto=_BGP, priority=row.get_attr("RTA_PRIORITY") or 0)
            except NetlinkError as error:
                if (number := int(cast("Any", error).code)) != errno.ESRCH:
                    raise OSError(number, str(error)) from error


def _route(row: Any) -> BgpKernelRoute:
    destination = row.get_attr("RTA_DST") or "0.0.0.0"
    hops: list[Any] = row.get_attr("RTA_MULTIPATH") or [row]
    gateways: list[str] = [one.get_attr("RTA_GATEWAY") for one in hops]
    return BgpKernelRoute(f"{destination}/{row['dst_len']}", tuple(sorted(filter(None, gateways))))
