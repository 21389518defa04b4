"""Pure: what of a request this provider cannot do. Each function returns the words for it, or None when all is well.

Octavia itself has checked types, ranges and names before. Anything not named here as supported is refused, so that the API says
so (501) and nothing is ever accepted and then left undone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Data = Mapping[str, Any]
LISTENER_PROTOCOLS = ("HTTP", "HTTPS", "TCP", "UDP")
POOL_PROTOCOLS = ("HTTP", "HTTPS", "PROXY", "PROXYV2", "TCP", "UDP")
ALGORITHMS = ("LEAST_CONNECTIONS", "ROUND_ROBIN", "SOURCE_IP", "SOURCE_IP_PORT")
UDP_ALGORITHMS = ("ROUND_ROBIN", "SOURCE_IP", "SOURCE_IP_PORT")
MONITORS = ("HTTP", "HTTPS", "PING", "TCP", "TLS-HELLO", "UDP-CONNECT")
HEADERS = ("X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto")
_TLS_OF_LISTENER = (
    "default_tls_container_ref",
    "sni_container_refs",
    "client_ca_tls_container_ref",
    "client_crl_container_ref",
    "hsts_max_age",
)
_TLS_OF_POOL = ("tls_enabled", "tls_container_ref", "ca_tls_container_ref", "crl_container_ref")


def vips(vip: Data, additional: Sequence[Data]) -> str | None:
    """The VIP and additional VIPs of a new load balancer."""
    if additional:
        return "additional VIPs: make a load balancer for each address"
    return "a QoS policy on the VIP" if vip.get("vip_qos_policy_id") else None


def balancer(data: Data) -> str | None:
    """A load balancer, with all that came with it in one call."""
    if data.get("vip_qos_policy_id"):
        return "a QoS policy on the VIP"
    if data.get("additional_vips"):
        return "additional VIPs: make a load balancer for each address"
    if data.get("vip_sg_ids"):
        return "security groups on the VIP: use allowed_cidrs"
    vip = data.get("vip_address")
    return _first(
        *(listener(one) for one in data.get("listeners") or ()),
        *(pool(one, vip) for one in data.get("pools") or ()),
        *(pool(one["default_pool"], vip) for one in data.get("listeners") or () if one.get("default_pool")),
    )


def listener(data: Data) -> str | None:
    """A listener."""
    protocol = data.get("protocol")
    if protocol and protocol not in LISTENER_PROTOCOLS:
        why = " (there is no Barbican to hold certificates)" if protocol == "TERMINATED_HTTPS" else ""
        return f"listeners of protocol {protocol}{why}; supported: {', '.join(LISTENER_PROTOCOLS)}"
    for key in _TLS_OF_LISTENER:
        if data.get(key):
            return f"{key} (there is no Barbican to hold certificates)"
    if data.get("l7policies"):
        return "L7 policies"
    headers: Data = data.get("insert_headers") or {}
    unknown = sorted(name for name, on in headers.items() if _true(on) and name not in HEADERS)
    if unknown:
        return f"inserting the header {unknown[0]}; supported: {', '.join(HEADERS)}"
    return None


def pool(data: Data, vip: str | None = None) -> str | None:
    """A pool with its members and monitor."""
    protocol, algorithm = data.get("protocol"), data.get("lb_algorithm")
    if protocol and protocol not in POOL_PROTOCOLS:
        return f"pools of protocol {protocol}; supported: {', '.join(POOL_PROTOCOLS)}"
    if algorithm and algorithm not in ALGORITHMS:
        return f"the algorithm {algorithm}; supported: {', '.join(ALGORITHMS)}"
    if protocol == "UDP" and algorithm and algorithm not in UDP_ALGORITHMS:
        return f"the algorithm {algorithm} over UDP; supported: {', '.join(UDP_ALGORITHMS)}"
    for key in _TLS_OF_POOL:
        if data.get(key):
            return f"TLS to members ({key})"
    how: Data = data.get("session_persistence") or {}
    if protocol == "UDP" and how:
        if how.get("type") != "SOURCE_IP":
            return f"session persistence {how.get('type')} over UDP; supported: SOURCE_IP"
        if how.get("persistence_granularity") not in (None, "", "255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"):
            return "a persistence_granularity other than single addresses"
    if protocol not in (None, "HTTP", "PROXY", "PROXYV2") and how.get("type") in ("HTTP_COOKIE", "APP_COOKIE"):
        return f"session persistence {how['type']} in a pool of protocol {protocol}"
    if bad := text_problem(how.get("cookie_name")):
        return f"a cookie_name with {bad}"
    return _first(
        *(member(one, protocol, vip=vip) for one in data.get("members") or ()),
        monitor(data["healthmonitor"]) if data.get("healthmonitor") else None,
    )


def member(data: Data, protocol: str | None, *, vip: str | None) -> str | None:
    """A member of a pool of that protocol, behind that VIP."""
    if data.get("vnic_type") not in (None, "", "normal"):
        return f"members with vnic_type {data['vnic_type']}"
    address = data.get("address")
    if protocol == "UDP" and address and vip and _version(address) != _version(vip):
        return "UDP members whose IP version differs from the VIP's"
    return None


def monitor(data: Data) -> str | None:
    """A health monitor."""
    kind = data.get("type")
    if kind and kind not in MONITORS:
        return f"health monitors of type {kind}; supported: {', '.join(MONITORS)}"
    for key in ("url_path", "domain_name", "expected_codes"):
        if bad := text_problem(data.get(key), spaces=key == "expected_codes"):
            return f"a {key} with {bad}"
    return None


def no_choice(what: str, data: Data | None) -> str | None:
    """A flavor or a zone: nothing can be chosen."""
    return f"the {what} setting {sorted(data)[0]}" if data else None


def text_problem(value: object, *, spaces: bool = False) -> str | None:
    """What in a text would not pass unharmed through HAProxy's configuration."""
    if not isinstance(value, str):
        return None
    if "'" in value:
        return "a quote"
    if any(not one.isprintable() or ord(one) > 126 or (one == " " and not spaces) for one in value):
        return "a blank, control or non-ASCII character"
    return None


def _true(value: object) -> bool:
    return str(value).lower() == "true"


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _first(*problems: str | None) -> str | None:
    found: Iterable[str] = (one for one in problems if one)
    return next(iter(found), None)
