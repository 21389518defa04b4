"""Which of a Service's source ranges a load balancer can follow. Pure.

A load balancer has one address, of one family, and takes ranges of that family only. Charts for dual-stack clusters list both.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from moyai.core.errors import UsageError

_EVERYBODY = ("0.0.0.0/0", "::/0")


def fitting_ranges(ranges: Sequence[str], version: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ranges (CIDRs) of IP ``version`` as clouds write them, empty for no limit, and those that are left out. Raises
    UsageError when none is of that family: an empty list would let everybody in."""
    read = {one: _network(one) for one in ranges}
    fits = tuple(dict.fromkeys(str(found) for found in read.values() if found is not None and found.version == version))
    left_out = tuple(one for one, found in read.items() if found is None or found.version != version)
    if ranges and not fits:
        raise UsageError(
            f"no source range ({', '.join(ranges)}) is of IPv{version} like the load balancer's address: nobody could connect",
            hint=f"add the IPv{version} ranges of the clients to spec.loadBalancerSourceRanges",
        )
    return (() if any(one in fits for one in _EVERYBODY) else fits), left_out


def _network(said: str) -> IPv4Network | IPv6Network | None:
    """None for what is none. The API server clears no bits behind the length, and took other forms in older versions."""
    try:
        return ip_network(said.strip(), strict=False)
    except ValueError:
        return None


def family(address: str) -> int:
    """The IP version of an address or a CIDR."""
    return ip_address(address.partition("/")[0]).version
