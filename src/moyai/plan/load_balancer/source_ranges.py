"""Which of a Service's source ranges a load balancer can follow. Pure.

A load balancer has one address, of one family, and takes ranges of that family only. Charts for dual-stack clusters list both.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from moyai.core.errors import UsageError

_EVERYBODY = ("0.0.0.0/0", "::/0")


def fitting_ranges(ranges: Sequence[str], version: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ranges (CIDRs) of IP ``version``, empty for no limit, and those that are left out. Raises UsageError when none is of
    that family: an empty list would let everybody in."""
    fits = tuple(one for one in ranges if ip_network(one).version == version)
    left_out = tuple(one for one in ranges if one not in fits)
    if ranges and not fits:
        raise UsageError(
            f"no source range ({', '.join(ranges)}) is of IPv{version} like the load balancer's address: nobody could connect",
            hint=f"add the IPv{version} ranges of the clients to spec.loadBalancerSourceRanges",
        )
    return (() if any(one in fits for one in _EVERYBODY) else fits), left_out


def family(address: str) -> int:
    """The IP version of an address or a CIDR."""
    return ip_address(address.partition("/")[0]).version
