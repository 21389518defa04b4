"""Nodes as peers, by the annotations that flannel writes, so that nodes of both kinds share a network.

Always holds: a node that has not announced itself is no peer yet; a node whose announcement is half written or contradicts
another node's is left out, with a sentence that says why.
Source of the annotations: flannel's Kubernetes subnet manager and its VXLAN backend, v0.28.9.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

from moyai.kube.objects import Node
from moyai.plan.node_network.net_conf import NetworkConf
from moyai.plan.node_network.node_state import Me, Peer

_PREFIX = "flannel.alpha.coreos.com/"
MANAGED, BACKEND_TYPE, BACKEND_DATA = f"{_PREFIX}kube-subnet-manager", f"{_PREFIX}backend-type", f"{_PREFIX}backend-data"
#: Annotation of a node whose agent can have peers of two backends, while the cluster goes from one to the other.
MOVES = "moyai.dev/pod-network-moves"
#: The same for backend bgp.
MOVES_BGP = "moyai.dev/pod-network-moves-bgp"
PUBLIC_IP, PUBLIC_IP_OVERWRITE = f"{_PREFIX}public-ip", f"{_PREFIX}public-ip-overwrite"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)


class _Unusable(Exception):
    """A field of a node is in the way. Its text: which one, and why."""


@dataclass(frozen=True)
class LeftOut:
    """A node that cannot be part of the network, with a sentence that says why."""

    why: str


@dataclass(frozen=True)
class Announcement:
    """Annotations of this node's Node object."""

    annotations: Mapping[str, str]

    def missing(self, node: Node) -> bool:
        return any(node.annotations.get(key) != value for key, value in self.annotations.items())


@dataclass(frozen=True)
class Peers:
    """``problems``: name of a node that is left out → why."""

    peers: tuple[Peer, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict[str, str])


def me_of(node: Node, conf: NetworkConf) -> Me | LeftOut:
    """This node, or what is still missing."""
    if not node.pod_cidrs:
        return LeftOut("the Node has no pod range (spec.podCIDR) yet")
    address = node.annotations.get(PUBLIC_IP_OVERWRITE) or next(iter(node.internal_ips), "")
    if not address:
        return LeftOut("the Node has no InternalIP yet")
    try:
        return Me(node.name, str(IPv4Address(address)), _range(node, conf), _own_mac(node))
    except (_Unusable, ValueError) as error:
        return LeftOut(str(error))


def announcement(me: Me, conf: NetworkConf) -> Announcement:
    """What other nodes must know of this one."""
    # flannel takes a backend's data as JSON; host-gw has none
    data = json.dumps({"VNI": conf.vni, "VtepMAC": me.mac}, separators=(",", ":")) if conf.backend == "vxlan" else "null"
    kind = conf.announced or conf.backend
    said = {MANAGED: "true", BACKEND_TYPE: kind, BACKEND_DATA: data, PUBLIC_IP: me.address}
    return Announcement({**said, MOVES: "true", MOVES_BGP: "true"})


def relevant(node: Node | None) -> tuple[object, ...] | None:
    """What of a node matters here: a change of anything else is no reason to look."""
    if node is None:
        return None
    ours = tuple(sorted((key, value) for key, value in node.annotations.items() if key.startswith(_PREFIX)))
    return (node.uid, node.pod_cidrs, node.internal_ips, ours)


class PeerReader:
    """Reads the peers among nodes: a Node object that is the same as before is not read again."""

    def __init__(self, conf: NetworkConf) -> None:
        self._conf = conf
        self._read: dict[str, tuple[Node, Peer | LeftOut | None]] = {}

    def peers(self, nodes: Iterable[Node], me: Me) -> Peers:
        """The other nodes of this network. Of two nodes that claim the same, the first by name is taken."""
        peers: list[Peer] = []
        problems: dict[str, str] = {}
        taken = {me.pod_cidr: me.name, me.mac: me.name, me.address: me.name}
        read: dict[str, tuple[Node, Peer | LeftOut | None]] = {}
        for node in sorted(nodes, key=lambda one: one.name):
            before = self._read.get(node.name)
            read[node.name] = found = before if before and before[0] is node else (node, self._peer(node))
            peer = found[1]
            if node.name == me.name or peer is None:
                continue
            if isinstance(peer, LeftOut):
                problems[node.name] = peer.why
                continue
            owner = taken.get(peer.pod_cidr) or taken.get(peer.address) or (taken.get(peer.mac) if peer.mac else None)
            if owner:
                claim = next(one for one in (peer.pod_cidr, peer.address, peer.mac) if one in taken)
                problems[node.name] = f"{claim} is node {owner}'s already"
                continue
            taken[peer.pod_cidr] = taken[peer.address] = peer.name
            if peer.mac:
                taken[peer.mac] = peer.name
            peers.append(peer)
        self._read = read
        return Peers(tuple(peers), problems)

    def _peer(self, node: Node) -> Peer | LeftOut | None:
        try:
            return _peer(node, self._conf)
        except _Unusable as error:
            return LeftOut(str(error))


def _peer(node: Node, conf: NetworkConf) -> Peer | None:
    """None for a node that is no part of the network yet."""
    given = node.annotations
    if not node.pod_cidrs:
        return None
    announced = given.get(MANAGED) == "true"
    address = given.get(PUBLIC_IP_OVERWRITE) or (given.get(PUBLIC_IP) if announced else "") or next(iter(node.internal_ips), "")
    kind = given.get(BACKEND_TYPE, "")
    if announced and conf.backend == "bgp" != kind:
        # FRR says who is there: on the way to this mode some nodes still announce another
        return None
    if announced and kind not in (conf.backend, *filter(None, [conf.also])):
        raise _Unusable(f"its annotation {BACKEND_TYPE} is {kind!r}, this network's is {conf.backend!r}")
    if not address or (conf.backend == "vxlan" and not announced):
        return None
    data = given.get(BACKEND_DATA, "")
    # one that has no tunnel yet, or no more, is reached directly
    bare = kind != conf.backend and data in ("", "null")
    mac = _announced_mac(data, conf) if conf.backend == "vxlan" and not bare else ""
    try:
        return Peer(node.name, str(IPv4Address(address)), _range(node, conf), mac)
    except ValueError as error:
        raise _Unusable(f"its address {address!r} is none of IPv4 ({error})") from None


def _range(node: Node, conf: NetworkConf) -> str:
    text = node.pod_cidrs[0]
    try:
        network = IPv4Network(text)
    except ValueError:
        raise _Unusable(f"its pod range {text!r} is no range of IPv4") from None
    if not network.subnet_of(IPv4Network(conf.network)):
        raise _Unusable(f"its pod range {text} is outside of the pod network {conf.network}")
    return str(network)


def _announced_mac(text: str, conf: NetworkConf) -> str:
    data = _data(text)
    if data is None:
        raise _Unusable(f"its annotation {BACKEND_DATA} is {text!r}, should be JSON with VNI and VtepMAC")
    if (vni := data.get("VNI", conf.vni)) != conf.vni:
        raise _Unusable(f"its VNI is {vni}, this network's is {conf.vni}")
    mac = str(data.get("VtepMAC") or "")
    if not _MAC.fullmatch(mac):
        raise _Unusable(f"its annotation {BACKEND_DATA} has VtepMAC {mac!r}, should be a MAC address")
    return mac.lower()


def _data(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else None


def _own_mac(node: Node) -> str:
    """As announced before, so that other nodes' entries stay true over a restart and over a change from flannel; else one
    that follows from the Node object: a Node of the same name has another."""
    data = _data(node.annotations.get(BACKEND_DATA, "")) or {}
    announced = str(data.get("VtepMAC") or "").lower()
    if _MAC.fullmatch(announced) and node.annotations.get(BACKEND_TYPE) == "vxlan":
        return announced
    raw = bytearray(hashlib.sha256(node.uid.encode()).digest()[:6])
    raw[0] = raw[0] & 0xFC | 0x02  # of a single station, administered locally
    return ":".join(f"{one:02x}" for one in raw)
