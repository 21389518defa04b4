"""What a Service says of its announced address: its class, and MetalLB's annotations in both spellings.

Always holds: an annotation that cannot be meant is an error that names it, never a guess.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from moyai.core.errors import UsageError
from moyai.kube.objects import Service

#: The class (``spec.loadBalancerClass``) of Services whose addresses nodes announce.
ANNOUNCED_CLASS = "moyai.dev/announced"
#: moyai's own class, and the classes that users of MetalLB write.
CLASSES = (ANNOUNCED_CLASS, "metallb.io/metallb", "metallb.universe.tf/metallb")
#: Where MetalLB's resources are, and the Leases of addresses.
NAMESPACE = "metallb-system"
PREFIXES = ("metallb.io/", "metallb.universe.tf/")
_ADDRESSES, _POOL, _SHARED = "loadBalancerIPs", "address-pool", "allow-shared-ip"
KNOWN = frozenset(prefix + name for prefix in PREFIXES for name in (_ADDRESSES, _POOL, _SHARED))
#: Which pool the address is of; MetalLB writes it too.
FROM_POOL = "metallb.io/ip-allocated-from-pool"


@dataclass(frozen=True)
class RequestedAddress:
    """``address`` None: any. ``pool`` empty: any. ``sharing`` empty: the address is the Service's alone."""

    address: IPv4Address | None = None
    pool: str = ""
    sharing: str = ""


def requested_address(service: Service) -> RequestedAddress:
    """Raises UsageError."""
    said = _said(service.annotations, _ADDRESSES)
    if said and service.load_balancer_ip and said != service.load_balancer_ip:
        raise UsageError(f"annotation {_ADDRESSES} is {said}, and spec.loadBalancerIP is {service.load_balancer_ip}")
    said = said or service.load_balancer_ip
    return RequestedAddress(_address(said) if said else None, _said(service.annotations, _POOL), sharing_key(service))


def sharing_key(service: Service) -> str:
    return _said(service.annotations, _SHARED)


def unknown_annotations(annotations: Mapping[str, str]) -> list[str]:
    """MetalLB's that have no effect here."""
    return sorted(one for one in annotations if one.startswith(PREFIXES) and one not in KNOWN and one != FROM_POOL)


def lease_name(address: str) -> str:
    """Of the Lease that the owner of an address holds, in ``NAMESPACE``."""
    return f"announced-{address.replace('.', '-')}"


def status_name(service: str) -> str:
    """Of the ServiceL2Status, in ``NAMESPACE``, of a Service (``namespace/name``)."""
    return f"l2-{hashlib.sha256(service.encode()).hexdigest()[:16]}"


def bgp_status_name(service: str, node: str) -> str:
    """Of the ServiceBGPStatus, in ``NAMESPACE``, of a Service and a node that announces it."""
    return f"bgp-{hashlib.sha256(f'{service}@{node}'.encode()).hexdigest()[:16]}"


def _said(annotations: Mapping[str, str], name: str) -> str:
    return next((annotations[prefix + name].strip() for prefix in PREFIXES if annotations.get(prefix + name)), "")


def _address(said: str) -> IPv4Address:
    try:
        found = ip_address(said)
    except ValueError:
        raise UsageError(f"{said!r} is not one IP address") from None
    if not isinstance(found, IPv4Address):
        raise UsageError(f"{said}: IPv6 addresses are not supported")
    return found
