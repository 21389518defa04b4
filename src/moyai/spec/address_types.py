"""IPv4 addresses and ranges as fields of the spec: what is no such thing is refused with an example."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Annotated, Any

from pydantic import BeforeValidator

from moyai.spec.base import problem


def _network(value: Any) -> IPv4Network:
    if isinstance(value, IPv4Network):
        return value
    try:
        address = IPv4Interface(value if isinstance(value, str) and "/" in value else "?")
    except ValueError:
        raise problem("an IPv4 range such as 10.8.0.0/24") from None
    if address.ip != address.network.network_address:
        raise problem(f"{address.network} (the first address of the range)")
    return address.network


def _address(value: Any) -> IPv4Address:
    try:
        return IPv4Address(value if isinstance(value, str | IPv4Address) else "?")
    except ValueError:
        raise problem("an IPv4 address such as 192.0.2.53") from None


Cidr = Annotated[IPv4Network, BeforeValidator(_network)]
Ip = Annotated[IPv4Address, BeforeValidator(_address)]
