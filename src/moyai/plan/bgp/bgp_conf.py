"""``bgp.json``: what the spec says of BGP, as the agents read it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, cast

from moyai.core.errors import UsageError

#: Full mesh up to so many nodes: each join adds a session to each node.
MESH_UP_TO = 10
REFLECTOR = "moyai.dev/route-reflector"


@dataclass(frozen=True)
class PeerConf:
    """A router that the spec names. ``secret``: name of a Secret in ``metallb-system``, empty for no password. ``within``: the
    range whose nodes have a session with it, empty for all nodes."""

    name: str
    address: str
    asn: int
    secret: str = ""
    bfd: bool = True
    multihop: bool = False
    pods: bool = True
    accept: tuple[str, ...] = ()
    most: int = 100
    within: str = ""


@dataclass(frozen=True)
class BgpConf:
    """``asn`` 0: that of the first BGPPeer. ``pods``: range of all pods, empty where they are not reached by BGP. ``ranges``:
    addresses of Services that may be announced. ``mesh_up_to``: with more nodes those that have the label ``reflector`` are
    route reflectors."""

    asn: int = 0
    pods: str = ""
    ranges: tuple[str, ...] = ()
    mesh_up_to: int = MESH_UP_TO
    reflector: str = REFLECTOR
    peers: tuple[PeerConf, ...] = ()


def write_bgp_conf(conf: BgpConf) -> str:
    # an agent of before reads what its own moyai would write
    peers = [{name: value for name, value in asdict(one).items() if name != "within" or value} for one in conf.peers]
    return json.dumps({**asdict(conf), "peers": peers}, indent=2) + "\n"


def read_bgp_conf(text: str) -> BgpConf:
    """Raises UsageError for a text that ``write_bgp_conf`` has not written."""
    try:
        found = cast("dict[str, Any]", json.loads(text))
        peers: list[dict[str, Any]] = [{**one, "accept": tuple(one["accept"])} for one in found["peers"]]
        whole: dict[str, Any] = {**found, "ranges": tuple(found["ranges"])}
        whole["peers"] = tuple(PeerConf(**one) for one in peers)
        return BgpConf(**whole)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"bgp.json: should be what moyai writes ({type(error).__name__}: {error})") from None
