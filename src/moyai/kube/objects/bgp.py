"""MetalLB's custom resources of BGP: routers, what they are told, how silence is noticed, names of communities.

What this version does not do is in ``problems`` (the object is not used) or ``remarks`` (a field has no effect), a sentence
each; nothing is silently ignored. Source of fields and defaults: MetalLB's API reference.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

from moyai.kube.objects.announce import L2Advertisement, parse_l2_advertisement
from moyai.kube.objects.meta import Reference, number, part, reference, rows, text, text_map, texts
from moyai.kube.objects.policy import Selector, parse_selector
from moyai.kube.resources import Json

BGP_PORT = 179
_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
#: What FRR takes as a word. A password with a space or a line break would end its command.
_WORD = re.compile(r"[!-~]{1,80}")
_WHOLE = (65535, 2**32 - 1)


@dataclass(frozen=True)
class BgpPeer:
    """A router outside of the cluster. ``asn`` 0: as ``dynamic`` says (``internal``, ``external``). Times in seconds, 0: the
    usual. ``nodes`` empty: each node speaks to it. ``secret``: name of the Secret with the password. ``bfd``: a profile's name.

    ``pods``: it is told the nodes' pod ranges. ``accept``: ranges that are learned from it. ``most``: prefixes of it that end
    the session, 0: any number. These three are the spec's; a BGPPeer learns and tells no pods.
    """

    name: str
    address: str
    about: Reference
    my_asn: int = 0
    asn: int = 0
    created: str = ""
    dynamic: str = ""
    port: int = BGP_PORT
    source: str = ""
    hold: int = 0
    keepalive: int = 0
    connect: int = 0
    router_id: str = ""
    nodes: tuple[Selector, ...] = ()
    password: str = field(default="", repr=False)
    secret: str = ""
    bfd: str = ""
    multihop: bool = False
    graceful: bool = False
    pods: bool = False
    accept: tuple[str, ...] = ()
    most: int = 0
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def on(self, labels: Mapping[str, str]) -> bool:
        """Whether nodes with these labels speak to it."""
        return not self.nodes or any(one.matches(labels) for one in self.nodes)


@dataclass(frozen=True)
class BgpAdvertisement:
    """``chosen``: which pools, Services and nodes it is for. ``peers`` empty: all. ``length``: of the announced prefix.
    ``local_pref`` 0: none."""

    chosen: L2Advertisement
    about: Reference
    peers: tuple[str, ...] = ()
    communities: tuple[str, ...] = ()
    length: int = 32
    local_pref: int = 0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class BfdProfile:
    """Intervals in milliseconds. ``ttl``: the least that an answer may have left, 0: any."""

    name: str
    about: Reference
    multiplier: int = 3
    receive: int = 300
    transmit: int = 300
    echo: int = 0
    echo_mode: bool = False
    passive: bool = False
    ttl: int = 0


@dataclass(frozen=True)
class CommunityNames:
    """Name → community."""

    name: str
    about: Reference
    values: Mapping[str, str]


def is_community(said: str) -> bool:
    """``65535:65282``, or ``large:1:2:3``."""
    words = said.split(":")
    large = words[0] == "large"
    numbers, most = (words[1:], _WHOLE[1]) if large else (words, _WHOLE[0])
    right = len(numbers) == (3 if large else 2)
    # Python refuses to read a number of thousands of digits
    return right and all(one.isascii() and one.isdigit() and len(one) <= 10 and int(one) <= most for one in numbers)


def is_password(said: str) -> bool:
    """Whether FRR can take it: up to 80 visible characters of ASCII."""
    return bool(_WORD.fullmatch(said))


def parse_bgp_peer(found: Json) -> BgpPeer:
    meta, spec = part(found, "metadata"), part(found, "spec")
    problems: list[str] = []
    address, source, router_id = (_v4(spec, key, problems=problems) for key in ("peerAddress", "sourceAddress", "routerID"))
    if text(spec, "interface"):
        problems.append("spec.interface is not supported: name the router by peerAddress")
    elif not address and not problems:
        problems.append("spec.peerAddress is missing")
    elif address and _is_nobodys(IPv4Address(address)):
        problems.append(f"spec.peerAddress: {address} is no router's address")
    if text(spec, "vrf"):
        problems.append("spec.vrf is not supported: nodes have one routing table")
    my_asn, asn, dynamic = number(spec, "myASN"), number(spec, "peerASN"), text(spec, "dynamicASN")
    if bool(asn) == bool(dynamic):
        problems.append("give either spec.peerASN or spec.dynamicASN")
    if not my_asn:
        problems.append("spec.myASN is missing")
    hold, keepalive, connect = (_seconds(spec, key, problems=problems) for key in ("holdTime", "keepaliveTime", "connectTime"))
    password, secret = text(spec, "password"), part(spec, "passwordSecret")
    if password and secret:
        problems.append("give either spec.password or spec.passwordSecret")
    if password and not is_password(password):
        problems.append("spec.password has a character that BGP programs do not take, or more than 80")
    if text(secret, "namespace") not in ("", text(meta, "namespace")):
        problems.append(f"spec.passwordSecret.namespace should be {text(meta, 'namespace')}")
    graceful, bfd = spec.get("enableGracefulRestart") is True, text(spec, "bfdProfile")
    remarks = [
        f"spec.{key} has no effect: {why}"
        for key, why in (
            ("dualStackAddressFamily", "addresses are of IPv4"),
            ("disableMP", "a session is of IPv4 alone in any case"),
        )
        if spec.get(key) is True
    ]
    if graceful and not bfd:
        remarks.append(
            "spec.enableGracefulRestart has no effect without spec.bfdProfile: the router would send packets to a dead node"
        )
    return BgpPeer(
        name=str(meta["name"]),
        address=address,
        about=reference(found, "BGPPeer"),
        my_asn=my_asn,
        asn=asn,
        created=text(meta, "creationTimestamp"),
        dynamic=dynamic,
        port=number(spec, "peerPort") or BGP_PORT,
        source=source,
        hold=hold,
        keepalive=keepalive,
        connect=connect,
        router_id=router_id,
        nodes=tuple(parse_selector(one) for one in rows(spec, "nodeSelectors")),
        password=password,
        secret=text(secret, "name"),
        bfd=bfd,
        multihop=spec.get("ebgpMultiHop") is True,
        graceful=graceful and bool(bfd),
        problems=tuple(problems),
        remarks=tuple(remarks),
    )


def parse_bgp_advertisement(found: Json) -> BgpAdvertisement:
    spec = part(found, "spec")
    said = number(spec, "aggregationLengthV6", default=128)
    return BgpAdvertisement(
        chosen=parse_l2_advertisement(found),
        about=reference(found, "BGPAdvertisement"),
        peers=texts(spec, "peers"),
        communities=texts(spec, "communities"),
        length=number(spec, "aggregationLength", default=32),
        local_pref=number(spec, "localPref"),
        remarks=() if said == 128 else ("spec.aggregationLengthV6 has no effect: addresses are of IPv4",),
    )


def parse_bfd_profile(found: Json) -> BfdProfile:
    spec = part(found, "spec")
    return BfdProfile(
        name=str(part(found, "metadata")["name"]),
        about=reference(found, "BFDProfile"),
        multiplier=number(spec, "detectMultiplier", default=3),
        receive=number(spec, "receiveInterval", default=300),
        transmit=number(spec, "transmitInterval", default=300),
        echo=number(spec, "echoInterval"),
        echo_mode=spec.get("echoMode") is True,
        passive=spec.get("passiveMode") is True,
        ttl=number(spec, "minimumTtl"),
    )


def parse_community(found: Json) -> CommunityNames:
    values = {text(one, "name"): text(one, "value") for one in rows(part(found, "spec"), "communities")}
    return CommunityNames(str(part(found, "metadata")["name"]), reference(found, "Community"), values)


def parse_password(found: Json) -> str:
    """Of a Secret of the type kubernetes.io/basic-auth, empty where it has none that can be used."""
    try:
        said = base64.b64decode(text_map(found, "data").get("password", ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return said if is_password(said) else ""


def unknown_communities(values: Iterable[str], names: Mapping[str, str]) -> list[str]:
    """Those that are neither a community nor the name of one."""
    return sorted({one for one in values if not is_community(names.get(one, one))})


def _v4(spec: Json, key: str, *, problems: list[str]) -> str:
    said = text(spec, key)
    if not said:
        return ""
    try:
        found = ip_address(said)
    except ValueError:
        problems.append(f"spec.{key}: {said!r} is no IP address")
        return ""
    if not isinstance(found, IPv4Address):
        problems.append(f"spec.{key}: IPv6 addresses are not supported")
        return ""
    return str(found)


def _is_nobodys(address: IPv4Address) -> bool:
    return address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved


def _seconds(spec: Json, key: str, *, problems: list[str]) -> int:
    said = text(spec, key)
    found = _DURATION.fullmatch(said)
    if found is None:
        problems.append(f"spec.{key}: {said!r} is no number of whole seconds such as 90s or 1m30s")
        return 0
    hours, minutes, seconds = (int(one or 0) for one in found.groups())
    return hours * 3600 + minutes * 60 + seconds
