"""``net-conf.json``: the network's configuration in flannel's format, which the agent reads and which the spec becomes.

Backends are ``vxlan`` and ``host-gw``; ``bgp`` is none of flannel's, and leaves the routes to others. Source of keys and
defaults: flannel's documentation of its configuration and backends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Literal, cast

from moyai.core.errors import UsageError

Backend = Literal["vxlan", "host-gw", "bgp"]
BACKENDS: tuple[Backend, ...] = ("vxlan", "host-gw", "bgp")
#: The kernel's own port for VXLAN, which flannel takes as well; IANA's is 4789.
PORT = 8472
VNI = 1
#: Bytes that VXLAN over IPv4 adds to a packet.
OVERHEAD = 50
#: Below this a network does not carry what IP promises to applications (RFC 8200's minimum; DNS over UDP expects it too).
LEAST_MTU = 1280
_NOT_YET = ("GBP", "Learning")
#: A section that flannel does not have: how a node behaves while the cluster changes its backend, and how it finds peers.
_MOVES = "Moyai"
_RESOLVE, _ON_DEMAND = "Resolve", "onDemand"
_BESIDE: Backend = "bgp"


@dataclass(frozen=True)
class NetworkConf:
    """``network``: the range of all pods. ``mtu``: of the machines' network, 0: what the kernel says. ``direct_routing``: peers
    on the same subnet are reached without encapsulation. ``on_demand``: the kernel asks for the entries of a peer with the
    first packet to one of its pods.

    While a cluster goes from one backend to another, nodes of both are peers: ``also``: the other one, empty for none.
    ``announced``: the backend that this node says it has, empty: its own. ``beside``: the routes are there for
    when BGP has none."""

    network: str
    backend: Backend
    vni: int = VNI
    port: int = PORT
    mtu: int = 0
    direct_routing: bool = False
    also: Backend | Literal[""] = ""
    announced: Backend | Literal[""] = ""
    on_demand: bool = False
    beside: bool = False


def tunnel_name(vni: int) -> str:
    return f"flannel.{vni}"


def read_net_conf(text: str) -> NetworkConf:
    """Raises UsageError that names the key and what would be right."""
    whole = _object(text)
    given: object = whole.get("Backend") or {}
    if not isinstance(given, dict):
        raise UsageError(f"net-conf.json: Backend: {given!r}, should be an object with Type")
    backend = cast("Mapping[str, Any]", given)
    if whole.get("EnableIPv4") is False or whole.get("EnableIPv6"):
        raise UsageError("net-conf.json: EnableIPv6, should be left out: the pod network is of IPv4")
    for key in _NOT_YET:
        if backend.get(key):
            raise UsageError(f"net-conf.json: Backend.{key}: {backend[key]!r}, should be left out or false")
    kind = str(backend.get("Type") or "udp")
    if kind not in BACKENDS:
        raise UsageError(f"net-conf.json: Backend.Type: {kind!r}, should be one of {', '.join(BACKENDS)}")
    try:
        network = str(IPv4Network(str(whole.get("Network"))))
    except ValueError:
        raise UsageError(f"net-conf.json: Network: {whole.get('Network')!r}, should be a range such as 10.244.0.0/16") from None
    return NetworkConf(
        network,
        kind,
        vni=_number(backend, "VNI", default=VNI, most=2**24 - 1),
        # 0 means the kernel's own
        port=_number(backend, "Port", default=PORT, most=65535) or PORT,
        mtu=_number(backend, "MTU", default=0, most=65535),
        direct_routing=_is_true(backend, "DirectRouting"),
        also=_other(whole, "Also"),
        announced=_other(whole, "Announced"),
        on_demand=_own(whole, _RESOLVE) == _ON_DEMAND,
        beside=_own(whole, "Beside") == _BESIDE,
    )


def node_prefix(text: str) -> int:
    """Prefix length of one node's range, as flannel takes it: 24, or two more than the network's where that is longer than 22.

    ``text``: one that ``read_net_conf`` accepts. Raises UsageError for what moyai gives nodes in another way.
    """
    whole = _object(text)
    for key in ("SubnetMin", "SubnetMax"):
        if whole.get(key):
            raise UsageError(
                f"net-conf.json: {key}: {whole[key]!r}, should be left out: nodes get the ranges of Network in turn"
            )
    network = IPv4Network(str(whole["Network"])).prefixlen
    length = whole.get("SubnetLen") or (24 if network <= 22 else network + 2)
    if isinstance(length, bool) or not isinstance(length, int):
        raise UsageError(f"net-conf.json: SubnetLen: {length!r}, should be a number such as 24")
    return length


def write_net_conf(conf: NetworkConf) -> str:
    """The file's text, with all that a backend knows."""
    backend: dict[str, Any] = {"Type": conf.backend}
    if conf.backend == "vxlan":
        backend |= {"VNI": conf.vni, "Port": conf.port, "DirectRouting": conf.direct_routing}
    if conf.mtu:
        backend["MTU"] = conf.mtu
    own = (("Also", conf.also), ("Announced", conf.announced), (_RESOLVE, _ON_DEMAND if conf.on_demand else ""))
    own = (*own, ("Beside", _BESIDE if conf.beside else ""))
    moves = {key: value for key, value in own if value}
    whole = {"Network": conf.network, "Backend": backend, **({_MOVES: moves} if moves else {})}
    return json.dumps(whole, indent=2) + "\n"


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"net-conf.json is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise UsageError("net-conf.json: should be an object with Network and Backend")
    return cast("Mapping[str, Any]", found)


def _other(whole: Mapping[str, Any], key: str) -> Backend | Literal[""]:
    value = _own(whole, key)
    if value not in ("", *BACKENDS):
        raise UsageError(f"net-conf.json: {_MOVES}.{key}: {value!r}, should be one of {', '.join(BACKENDS)}")
    return value


def _own(whole: Mapping[str, Any], key: str) -> str:
    section: object = whole.get(_MOVES) or {}
    return str(cast("Mapping[str, Any]", section).get(key, "")) if isinstance(section, dict) else "?"


def _is_true(found: Mapping[str, Any], key: str) -> bool:
    """As flannel reads it: text such as "false" is neither."""
    value = found.get(key) or False
    if not isinstance(value, bool):
        raise UsageError(f"net-conf.json: Backend.{key}: {value!r}, should be true or false")
    return value


def _number(found: Mapping[str, Any], key: str, *, default: int, most: int) -> int:
    value = found.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise UsageError(f"net-conf.json: Backend.{key}: {value!r}, should be a number from 0 to {most}")
    return value
