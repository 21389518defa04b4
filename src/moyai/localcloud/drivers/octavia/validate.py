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
L7_LISTENERS = ("HTTP",)
L7_ACTIONS = ("REDIRECT_PREFIX", "REDIRECT_TO_POOL", "REDIRECT_TO_URL", "REJECT")
L7_RULES = ("COOKIE", "FILE_TYPE", "HEADER", "HOST_NAME", "PATH")
#: What flavors and availability zones of Octavia's own driver can say, and what of it is taken. All but the SR-IOV port is
#: about the virtual machines of that driver; a load balancer here is a process that is started again when it dies.
FLAVOR = {
    "loadbalancer_topology": "Accepted and without effect: one process serves, and is started again when it dies.",
    "compute_flavor": "Accepted and without effect: there is no virtual machine.",
    "amp_image_tag": "Accepted and without effect: there is no virtual machine.",
    "sriov_vip": "Only false: VIP ports are virtual.",
}
ZONE = {
    "compute_zone": "Accepted and without effect: all load balancers are on one host.",
    "management_network": "Accepted and without effect: there is no virtual machine.",
    "valid_vip_networks": "The networks that VIPs may be in.",
}
TOPOLOGIES = ("SINGLE", "ACTIVE_STANDBY")
_TLS_OF_LISTENER = (
    "default_tls_container_ref",
    "sni_container_refs",
    "client_ca_tls_container_ref",
    "client_crl_container_ref",
    "hsts_max_age",
)
_TLS_OF_POOL = ("tls_enabled", "tls_container_ref", "ca_tls_container_ref", "crl_container_ref")


def vips(vip: Data) -> str | None:
    """The VIP of a new load balancer. Additional VIPs need no check: they are further addresses of the same port."""
    return "a QoS policy on the VIP" if vip.get("vip_qos_policy_id") else None


def balancer(data: Data) -> str | None:
    """A load balancer, with all that came with it in one call."""
    if data.get("vip_qos_policy_id"):
        return "a QoS policy on the VIP"
    if data.get("vip_sg_ids"):
        return "security groups on the VIP: use allowed_cidrs"
    vips = [data.get("vip_address"), *(one.get("ip_address") for one in data.get("additional_vips") or ())]
    addresses = [one for one in vips if one]
    return _first(
        *(listener(one) for one in data.get("listeners") or ()),
        *(pool(one, addresses) for one in data.get("pools") or ()),
        *(pool(one["default_pool"], addresses) for one in data.get("listeners") or () if one.get("default_pool")),
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
    for one in data.get("l7policies") or ():
        if problem := l7_policy(one, protocol):
            return problem
    headers: Data = data.get("insert_headers") or {}
    unknown = sorted(name for name, on in headers.items() if _true(on) and name not in HEADERS)
    if unknown:
        return f"inserting the header {unknown[0]}; supported: {', '.join(HEADERS)}"
    return None


def l7_policy(data: Data, protocol: str | None) -> str | None:
    """An L7 policy, with all rules that come with it, of a listener of that protocol."""
    if protocol and protocol not in L7_LISTENERS:
        return f"L7 policies of listeners of protocol {protocol}; supported: {', '.join(L7_LISTENERS)}"
    if (action := data.get("action")) and action not in L7_ACTIONS:
        return f"L7 policies with the action {action}; supported: {', '.join(L7_ACTIONS)}"
    for key in ("redirect_url", "redirect_prefix"):
        if bad := _unfit(data.get(key), blanks=""):
            return f"a {key} with {bad}"
    return _first(*(l7_rule(one) for one in data.get("rules") or ()))


def l7_rule(data: Data) -> str | None:
    """An L7 rule. Octavia itself has checked which types of rules and comparisons go together."""
    if (kind := data.get("type")) and kind not in L7_RULES:
        why = " (there is no Barbican to hold certificates)" if kind.startswith("SSL_") else ""
        return f"L7 rules of type {kind}{why}; supported: {', '.join(L7_RULES)}"
    for key in ("key", "value"):
        if bad := _unfit(data.get(key), blanks=" \t" if key == "value" else ""):
            return f"an L7 rule whose {key} has {bad}"
    return None


def patterns(data: Data) -> list[str]:
    """The regular expressions of all L7 rules in a load balancer, listener, policy or rule; only HAProxy can judge them."""
    below = [one for key in ("listeners", "l7policies", "rules") for one in data.get(key) or ()]
    own = [str(data["value"])] if data.get("compare_type") == "REGEX" and data.get("value") else []
    return own + [pattern for one in below for pattern in patterns(one)]


def flavor(data: Data | None) -> str | None:
    """A flavor's metadata: those of Octavia's own driver are taken where they change nothing that a user could notice."""
    given = data or {}
    topology = given.get("loadbalancer_topology")
    if topology is not None and topology not in TOPOLOGIES:
        return f"the loadbalancer_topology {topology}; supported: {', '.join(TOPOLOGIES)}"
    if _true(given.get("sriov_vip")):
        return "sriov_vip: VIP ports are virtual"
    return _unknown("flavor", given, known=FLAVOR)


def zone(data: Data | None) -> str | None:
    """An availability zone's metadata."""
    return _unknown("availability zone", data or {}, known=ZONE)


def pool(data: Data, vips: Sequence[str] = ()) -> str | None:
    """A pool with its members and monitor, behind these VIPs (as far as they are known)."""
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
        *(member(one, protocol, vips=vips) for one in data.get("members") or ()),
        monitor(data["healthmonitor"]) if data.get("healthmonitor") else None,
    )


def member(data: Data, protocol: str | None, *, vips: Sequence[str]) -> str | None:
    """A member of a pool of that protocol, behind these VIPs."""
    if data.get("vnic_type") not in (None, "", "normal"):
        return f"members with vnic_type {data['vnic_type']}"
    address = data.get("address")
    if protocol == "UDP" and address and vips and _version(address) not in map(_version, vips):
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


def text_problem(value: object, *, spaces: bool = False) -> str | None:
    """What in a text would not pass unharmed through HAProxy's configuration."""
    if not isinstance(value, str):
        return None
    if "'" in value:
        return "a quote"
    if any(not one.isprintable() or ord(one) > 126 or (one == " " and not spaces) for one in value):
        return "a blank, control or non-ASCII character"
    return None


def _unfit(value: object, *, blanks: str) -> str | None:
    """What of a text can be part of no request and no answer. All else is quoted (`l7_policies`)."""
    if not isinstance(value, str):
        return None
    bad = next(
        (one for one in value if (not one.isprintable() and one not in blanks) or (one.isspace() and one not in blanks)), None
    )
    return f"the character {bad!r}" if bad is not None else None


def _unknown(what: str, data: Data, *, known: Mapping[str, str]) -> str | None:
    others = sorted(set(data) - set(known))
    return f"the {what} setting {others[0]}; supported: {', '.join(known)}" if others else None


def _true(value: object) -> bool:
    return str(value).lower() == "true"


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def _first(*problems: str | None) -> str | None:
    found: Iterable[str] = (one for one in problems if one)
    return next(iter(found), None)
