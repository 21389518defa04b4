"""Ranges of addresses that no cluster can be given, and addresses that no machine can reach or come from."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

#: Range → what its addresses mean. Source: IANA IPv4 Special-Purpose Address Registry.
SPECIAL = {
    IPv4Network("0.0.0.0/8"): "no host",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local addresses, with the cloud's metadata service",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "reserved addresses",
}


def special_overlap(cidr: IPv4Network) -> str:
    """The special range that ``cidr`` reaches into, with its meaning; empty for none."""
    return next((_text(special) for special in SPECIAL if cidr.overlaps(special)), "")


def special_home(addresses: IPv4Network | IPv4Address) -> str:
    """The special range that holds all of ``addresses``, with its meaning; empty for none."""
    cidr = IPv4Network(addresses)
    return next((_text(special) for special in SPECIAL if cidr.subnet_of(special)), "")


def _text(special: IPv4Network) -> str:
    return f"{special} ({SPECIAL[special]})"
