"""What FRR on a node is configured with: sessions and classes of routes become neighbours, maps and lists.

Always holds: each session has a map in both directions. A map for what comes permits pods' ranges from nodes and the ranges
that the spec accepts from a router; a map for what goes permits the node's own pods, and prefixes within the Services' ranges.
So a mistake of others stays outside, and a mistake of a node inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from ipaddress import IPv4Network, summarize_address_range

from moyai.kube.objects import parse_range
from moyai.kube.objects.bgp import BGP_PORT, BfdProfile
from moyai.kube.objects.meta import Reference
from moyai.plan.bgp.announced_prefixes import Attributes, RouteClass
from moyai.plan.bgp.bgp_conf import BgpConf
from moyai.plan.bgp.frr_config import FrrConfig, MapEntry, NeighbourLines
from moyai.plan.bgp.sessions import DEFAULT_PROFILE, MeshSession, PeerSession, Sessions

_MESH_IN, _MESH_OUT, _SERVICES = "moyai-mesh-in", "moyai-mesh-out", "moyai-services"
_PODS, _OWN = "moyai-pods", "moyai-own"
_LONGEST_PROFILE = 64
_DENY = {65535: MapEntry(permit=False)}
#: Of the node's own pods, behind all classes.
_OWN_PODS = 65000
#: Seconds between keepalives, until silence ends a session, until the next attempt.
_MESH_TIMERS = ("timers 3 9", "timers connect 3")
#: Prefixes that a node may send: more than a cluster has nodes.
_MOST_OF_NODE = 10000


def frr_config(
    now: Sessions,
    classes: Iterable[RouteClass],
    *,
    address: str,
    pods: str,
    conf: BgpConf,
    profiles: Mapping[str, BfdProfile],
) -> FrrConfig:
    """``address``: the node's. ``pods``: its pod range, empty for none. ``profiles``: by name."""
    if not now.asn:
        return FrrConfig()
    own = pods if conf.pods else ""
    used = {one.number: one for one in classes}
    lists: dict[str, Mapping[int, str]] = {_SERVICES: _ranges(conf.ranges)}
    maps: dict[str, Mapping[int, MapEntry]] = {
        _SERVICES: {10: MapEntry((f"match ip address prefix-list {_SERVICES}",)), **_DENY}
    }
    neighbours: dict[str, NeighbourLines] = {}
    if conf.pods:
        lists[_PODS] = {5: f"permit {conf.pods} ge {IPv4Network(conf.pods).prefixlen + 1}"}
        through = {10: MapEntry((f"match ip address prefix-list {_PODS}",)), **_DENY}
        maps |= {_MESH_IN: through, _MESH_OUT: through}
        neighbours |= {one.address: _of_node(one, asn=now.asn, address=address) for one in now.mesh}
    if own:
        lists[_OWN] = {5: f"permit {own}"}
    for one in now.peers:
        peer = one.peer
        neighbours[peer.address] = _of_router(one, asn=now.asn)
        maps[_map_out(peer.address)] = _out(peer.name, used, pods=bool(own) and peer.pods)
        maps[_map_in(peer.address)] = _in(peer.address, peer.accept)
        if peer.accept:
            lists[_map_in(peer.address)] = {5 + n: f"permit {cidr} le 32" for n, cidr in enumerate(peer.accept)}
    named = {one.peer.bfd for one in now.peers} - {"", DEFAULT_PROFILE}
    return FrrConfig(
        now.asn,
        now.router_id,
        networks=frozenset({own} if own else ()),
        redistribute=_SERVICES if conf.ranges else "",
        neighbours=neighbours,
        lists={name: entries for name, entries in lists.items() if entries},
        maps=maps,
        profiles={
            profile_name(DEFAULT_PROFILE): _profile(_default()),
            **{profile_name(name): _profile(profiles[name]) for name in sorted(named)},
        },
    )


def profile_name(name: str) -> str:
    """In FRR, which takes 64 characters, and objects have 253. A user's profile never has the name of moyai's own."""
    if name == DEFAULT_PROFILE:
        return "moyai-default"
    said = f"user-{name}"
    # after a name that FRR refuses, the lines of its profile would stand elsewhere
    return said if len(said) < _LONGEST_PROFILE else f"user.{blake2b(name.encode(), digest_size=16).hexdigest()}"


def _default() -> BfdProfile:
    return BfdProfile(DEFAULT_PROFILE, Reference("BFDProfile", DEFAULT_PROFILE, ""))


def _profile(one: BfdProfile) -> tuple[str, ...]:
    return (
        f"detect-multiplier {one.multiplier}",
        f"receive-interval {one.receive}",
        f"transmit-interval {one.transmit}",
        f"echo transmit-interval {one.echo or 50}",
        f"echo receive-interval {one.echo or 50}",
        "echo-mode" if one.echo_mode else "no echo-mode",
        "passive-mode" if one.passive else "no passive-mode",
        f"minimum-ttl {one.ttl}" if one.ttl else "no minimum-ttl",
    )


def _of_node(one: MeshSession, *, asn: int, address: str) -> NeighbourLines:
    session = (
        f"remote-as {asn}",
        f"description node {one.node}",
        f"update-source {address}",
        *_bfd(DEFAULT_PROFILE),
        "graceful-restart",
        *_MESH_TIMERS,
    )
    family = (
        "activate",
        *(("route-reflector-client",) if one.client else ()),
        f"route-map {_MESH_IN} in",
        f"route-map {_MESH_OUT} out",
        f"maximum-prefix {_MOST_OF_NODE} restart 1",
    )
    return NeighbourLines(session, family)


def _of_router(one: PeerSession, *, asn: int) -> NeighbourLines:
    peer = one.peer
    remote = peer.dynamic or str(peer.asn)
    internal = remote in ("internal", str(asn)) and not one.local_asn
    session = [f"remote-as {remote}", f"description router {peer.name}"]
    session += [f"port {peer.port}"] if peer.port != BGP_PORT else []
    session += [f"local-as {one.local_asn} no-prepend replace-as"] if one.local_asn else []
    session += [f"update-source {peer.source}"] if peer.source else []
    session += ["ebgp-multihop"] if peer.multihop and not internal else []
    session += [f"password {one.password}"] if one.password else []
    session += _bfd(peer.bfd) if peer.bfd else []
    session += ["graceful-restart"] if peer.graceful else ["graceful-restart-disable"] if not peer.bfd else []
    if peer.hold or peer.keepalive:
        hold = peer.hold or max(180, 3 * peer.keepalive)
        session.append(f"timers {min(peer.keepalive or hold // 3, hold)} {hold}")
    session.append(f"timers connect {peer.connect or 3}")
    family = ["activate", f"route-map {_map_in(peer.address)} in", f"route-map {_map_out(peer.address)} out"]
    family += [f"maximum-prefix {peer.most} restart 1"] if peer.most else []
    return NeighbourLines(tuple(session), tuple(family))


def _bfd(profile: str) -> tuple[str, str]:
    return ("bfd", f"bfd profile {profile_name(profile)}")


def _out(name: str, classes: Mapping[int, RouteClass], *, pods: bool) -> dict[int, MapEntry]:
    found = {
        number: MapEntry((f"match ip address prefix-list {_SERVICES}", f"match metric {number}", *_set(one.peers[name])))
        for number, one in sorted(classes.items())
        if name in one.peers
    }
    if pods:
        found[_OWN_PODS] = MapEntry((f"match ip address prefix-list {_OWN}",))
    return {**found, **_DENY}


def _set(one: Attributes) -> list[str]:
    # the metric is a class here, and nothing that a router should know
    found = ["set metric 0"]
    found += [f"set local-preference {one.local_pref}"] if one.local_pref else []
    found += [f"set community {' '.join(one.communities)}"] if one.communities else []
    return found + ([f"set large-community {' '.join(one.large)}"] if one.large else [])


def _in(address: str, accept: tuple[str, ...]) -> dict[int, MapEntry]:
    # a router's metric must not look like a class
    entry = MapEntry((f"match ip address prefix-list {_map_in(address)}", "set metric 0"))
    return {**({10: entry} if accept else {}), **_DENY}


def _map_in(address: str) -> str:
    return f"moyai-in-{address}"


def _map_out(address: str) -> str:
    return f"moyai-out-{address}"


def _ranges(ranges: Iterable[str]) -> dict[int, str]:
    found = [parse_range(one) for one in ranges]
    cidrs = [cidr for one in found for cidr in summarize_address_range(one.first, one.last)]
    return {5 + n: f"permit {cidr} le 32" for n, cidr in enumerate(cidrs)}
