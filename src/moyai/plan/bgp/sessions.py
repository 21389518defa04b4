"""Which sessions a node has: with other nodes, for pods, and with routers outside.

Always holds: nodes that see the same objects come to fitting answers: if one node has a session with another, then the other
has one with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from moyai.core.ids import AGENT
from moyai.kube.objects import Node
from moyai.kube.objects.bgp import BfdProfile, BgpPeer
from moyai.kube.objects.meta import Reference
from moyai.kube.resources import KUBE_SYSTEM
from moyai.plan.announce.metallb_words import NAMESPACE
from moyai.plan.bgp.bgp_conf import BgpConf

#: Name of the BFD profile that sessions have where nobody names one.
DEFAULT_PROFILE = "moyai.dev/default"


@dataclass(frozen=True)
class MeshSession:
    """With another node. ``client``: this node reflects routes to it."""

    node: str
    address: str
    client: bool = False


@dataclass(frozen=True)
class PeerSession:
    """With a router outside. ``password`` empty: none. ``local_asn`` 0: the cluster's."""

    peer: BgpPeer
    password: str = field(default="", repr=False)
    local_asn: int = 0


@dataclass(frozen=True)
class Remark:
    """What a user is to know of an object. ``warning``: something is not done."""

    about: Reference
    message: str
    warning: bool = True


@dataclass(frozen=True)
class Sessions:
    """``asn`` 0: there is no BGP. ``too_many``: the mesh is larger than it should be, and no node is a reflector."""

    asn: int = 0
    router_id: str = ""
    mesh: tuple[MeshSession, ...] = ()
    peers: tuple[PeerSession, ...] = ()
    remarks: tuple[Remark, ...] = ()
    too_many: bool = False


@dataclass(frozen=True)
class Speakers:
    """``secrets``: name of a Secret → its password. ``profiles``: by name."""

    nodes: Collection[Node]
    peers: Collection[BgpPeer] = ()
    profiles: Mapping[str, BfdProfile] = field(default_factory=dict[str, BfdProfile])
    secrets: Mapping[str, str] = field(default_factory=dict[str, str])


def sessions(me: Node, now: Speakers, *, conf: BgpConf) -> Sessions:
    """Of the node ``me``, which must have an address."""
    remarks: list[Remark] = []
    # an address has one session, and without the node's own one its pods cannot be reached
    taken = {ip: one.name for one in now.nodes for ip in one.internal_ips} if conf.pods else {}
    for router in conf.peers:
        # the spec keeps its routers apart from nodes, and no Node object takes them away
        taken.pop(router.address, None)
    usable = _usable(_all(me, now.peers, conf=conf), remarks, taken=taken)
    asn = conf.asn or (usable[0].my_asn if usable else 0)
    tried = [_session(peer, now, asn=asn, remarks=remarks) for peer in usable if peer.on(me.labels)]
    found = tuple(one for one in tried if one)
    mesh, too_many = _mesh(me, now.nodes, conf=conf) if conf.pods else ((), False)
    chosen = next((one.peer.router_id for one in found if one.peer.router_id), "")
    return Sessions(asn, chosen or address_of(me), mesh, found, tuple(remarks), too_many)


def address_of(node: Node) -> str:
    """Empty where it has none of IPv4."""
    return next((one for one in node.internal_ips if _is_v4(one)), "")


def own_range(node: Node) -> str:
    """The node's pod range, empty where it has none."""
    return next(iter(node.pod_cidrs), "")


def _all(me: Node, peers: Collection[BgpPeer], *, conf: BgpConf) -> list[BgpPeer]:
    named = [
        BgpPeer(
            one.name,
            one.address,
            Reference("ConfigMap", AGENT, "", KUBE_SYSTEM),
            my_asn=conf.asn,
            asn=one.asn,
            secret=one.secret,
            bfd=DEFAULT_PROFILE if one.bfd else "",
            graceful=one.bfd,
            multihop=one.multihop,
            pods=one.pods and bool(conf.pods),
            accept=one.accept,
            most=one.most,
            hold=9,
            keepalive=3,
        )
        for one in conf.peers
        if not one.within or IPv4Address(address_of(me)) in IPv4Network(one.within)
    ]
    return named + sorted(peers, key=lambda one: (one.created, one.name))


def _usable(peers: Iterable[BgpPeer], remarks: list[Remark], *, taken: Mapping[str, str]) -> list[BgpPeer]:
    """Without those that cannot be used, and of two for one address the first. ``taken``: address → node that has it."""
    found: dict[str, BgpPeer] = {}
    names: set[str] = set()
    for peer in peers:
        remarks += [Remark(peer.about, one, warning=False) for one in peer.remarks]
        if peer.problems:
            remarks.append(Remark(peer.about, "; ".join(peer.problems)))
        elif peer.address in taken:
            remarks.append(Remark(peer.about, f"spec.peerAddress: {peer.address} is node {taken[peer.address]}'s address"))
        elif peer.address in found:
            remarks.append(Remark(peer.about, f"{peer.address} is {found[peer.address].name}'s already, which is older"))
        elif peer.name in names:
            remarks.append(Remark(peer.about, f"a router of the spec has the name {peer.name} already"))
        else:
            found[peer.address] = peer
            names.add(peer.name)
    return list(found.values())


def _session(peer: BgpPeer, now: Speakers, *, asn: int, remarks: list[Remark]) -> PeerSession | None:
    """None for one that cannot be: without its password it would never come up, and without its profile silence would last."""
    if peer.secret and not now.secrets.get(peer.secret):
        message = (
            f"Secret {peer.secret} is missing in namespace {NAMESPACE}, or its password is not of 1 to 80 visible characters"
        )
        remarks.append(Remark(peer.about, message))
        return None
    if peer.bfd not in ("", DEFAULT_PROFILE) and peer.bfd not in now.profiles:
        remarks.append(Remark(peer.about, f"spec.bfdProfile: there is no BFDProfile {peer.bfd}"))
        return None
    local = peer.my_asn if peer.my_asn != asn else 0
    if local and local == peer.asn:
        remarks.append(
            Remark(peer.about, f"spec.myASN: {local}, should be {asn} for a session within one AS: nodes are in {asn}")
        )
        return None
    if local and peer.dynamic == "internal":
        remarks.append(Remark(peer.about, f"spec.myASN: {local}, should be {asn}: dynamicASN is internal"))
        return None
    return PeerSession(peer, now.secrets.get(peer.secret, "") if peer.secret else peer.password, local)


def _mesh(me: Node, nodes: Collection[Node], *, conf: BgpConf) -> tuple[tuple[MeshSession, ...], bool]:
    others = [one for one in sorted(nodes, key=lambda one: one.name) if one.name != me.name and address_of(one)]
    reflectors = {one.name for one in (me, *others) if conf.reflector in one.labels}
    if len(others) < conf.mesh_up_to or not reflectors:
        return tuple(MeshSession(one.name, address_of(one)) for one in others), len(others) >= conf.mesh_up_to
    if me.name in reflectors:
        return tuple(MeshSession(one.name, address_of(one), one.name not in reflectors) for one in others), False
    return tuple(MeshSession(one.name, address_of(one)) for one in others if one.name in reflectors), False


def _is_v4(said: str) -> bool:
    try:
        IPv4Address(said)
    except ValueError:
        return False
    return True
