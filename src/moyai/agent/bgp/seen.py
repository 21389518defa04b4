"""What FRR of this node says of its sessions and of the routes that it knows, for `moyai bgp`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from moyai.core.errors import Terminal
from moyai.linux.frr import Frr, FrrGone, FrrPlace
from moyai.linux.kernel_routes import BgpKernelRoute, bgp_routes


@dataclass(frozen=True)
class SeenSession:
    """``about``: whom it is with (``node n2``, ``router rt-01``). ``state``: FRR's word, ``Established`` for one that is up.
    ``seconds``: since the state changed. ``bfd``: ``up``, ``down``, empty for none. ``received``, ``sent``: prefixes."""

    address: str
    about: str
    asn: int
    state: str
    seconds: int
    bfd: str
    received: int
    sent: int


@dataclass(frozen=True)
class SeenPath:
    """``gateway`` empty: the node's own. ``used``: it is in the kernel, or is announced. ``asns``: the way, own AS left out."""

    prefix: str
    gateway: str
    used: bool
    asns: str


@dataclass(frozen=True)
class SeenBgp:
    """``kernel``: the routes that FRR has put there."""

    sessions: tuple[SeenSession, ...] = ()
    paths: tuple[SeenPath, ...] = ()
    kernel: tuple[BgpKernelRoute, ...] = ()


def read_bgp(place: FrrPlace | None = None) -> SeenBgp:
    """Raises Terminal where FRR does not run: a node without routers and without pods' routes by BGP has none."""
    try:
        seen = asyncio.run(_read(place or FrrPlace()))
    except FrrGone as error:
        raise Terminal(f"FRR does not run on this node ({error})") from error
    # a client of the kernel that runs an event loop of its own
    return replace(seen, kernel=bgp_routes())


async def _read(place: FrrPlace) -> SeenBgp:
    frr = Frr(place, on_start=lambda _daemon: None)
    summary = await frr.show("bgpd", "show bgp ipv4 unicast summary json")
    table = await frr.show("bgpd", "show bgp ipv4 unicast json")
    bfd = await frr.show("bfdd", "show bfd peers json")
    up = {str(one.get("peer")): str(one.get("status")) for one in bfd}
    return SeenBgp(
        tuple(_session(address, one, bfd=up) for address, one in sorted(summary.get("peers", {}).items())),
        tuple(_path(prefix, one) for prefix, paths in sorted(table.get("routes", {}).items()) for one in paths),
    )


def _session(address: str, found: Mapping[str, Any], *, bfd: Mapping[str, str]) -> SeenSession:
    return SeenSession(
        address,
        str(found.get("desc", "")),
        int(found.get("remoteAs", 0)),
        str(found.get("state", "")),
        int(found.get("peerUptimeMsec", 0)) // 1000,
        bfd.get(address, ""),
        int(found.get("pfxRcd", 0)),
        int(found.get("pfxSnt", 0)),
    )


def _path(prefix: str, found: Mapping[str, Any]) -> SeenPath:
    hops: list[Mapping[str, Any]] = found.get("nexthops", [])
    gateway = str(hops[0].get("ip", "")) if hops else ""
    used = bool(found.get("bestpath") or found.get("multipath"))
    return SeenPath(prefix, "" if gateway == "0.0.0.0" else gateway, used, str(found.get("path", "")))
