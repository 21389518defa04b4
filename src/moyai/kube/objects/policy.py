"""Network policies, and the little of namespaces and pods that they look at.

Selectors are canonical: two that say the same in another order are equal, so that a set by selector is kept
once.
A field that this version does not know never widens what a policy permits: a peer of an unknown kind is nobody, and so is a
range or a port that cannot be read. (The API server of an older version took ranges with leading zeros.)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from sys import intern

from moyai.kube.objects.meta import deleting, part, rows, text, text_map, texts
from moyai.kube.objects.scheduling import Requirement
from moyai.kube.resources import Json


@dataclass(frozen=True)
class Selector:
    """All requirements have to be met; without any, everything is selected."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(one.holds(labels) for one in self.requirements)

    @property
    def anchor(self) -> tuple[str, str] | None:
        """A label that each selected object has, None where there is no such label."""
        return next(((one.key, one.values[0]) for one in self.requirements if _single(one)), None)


EVERYTHING = Selector()
#: The annotation that puts a policy on trial, with the value "true".
TRIAL = "policy.moyai.dev/trial"
#: The annotation that has a policy's denials logged, with the value "denied".
LOG = "policy.moyai.dev/log"
PROTOCOLS = ("tcp", "udp", "sctp")
#: So many different labels, and ports, are remembered.
_ALIKE = 4096


@dataclass(frozen=True)
class PodPeer:
    """Pods of the namespace of this name, or of the namespaces that ``namespaces`` selects (then ``namespace`` is empty)."""

    pods: Selector = EVERYTHING
    namespace: str = ""
    namespaces: Selector = EVERYTHING


@dataclass(frozen=True)
class Block:
    """Addresses of a range without some ranges in it, all as ``address/length``."""

    cidr: str
    excepts: tuple[str, ...] = ()


@dataclass(frozen=True)
class PolicyPort:
    """Of a protocol: all ports (``first`` 0 and no name), a range, or the port that each pod calls ``name``."""

    protocol: str
    first: int = 0
    last: int = 0
    name: str = ""


Peer = PodPeer | Block


@dataclass(frozen=True)
class PolicyRule:
    """``peers`` None: everyone. ``ports`` None: everything that is sent, of each protocol."""

    peers: tuple[Peer, ...] | None = None
    ports: tuple[PolicyPort, ...] | None = None


@dataclass(frozen=True)
class NetworkPolicy:
    """``ingress``, ``egress`` None: the policy says nothing about that direction. Empty: it permits nothing. ``trial``: it is
    evaluated, and nothing is dropped because of it. ``log``: what it denies is logged."""

    namespace: str
    name: str
    pods: Selector
    ingress: tuple[PolicyRule, ...] | None = None
    egress: tuple[PolicyRule, ...] | None = None
    trial: bool = False
    log: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def subject(self) -> PodPeer:
        return PodPeer(self.pods, namespace=self.namespace)


@dataclass(frozen=True)
class PolicyPod:
    """``addresses`` is empty for a pod on its node's network and for one that has ended: policies do not see them.
    ``ports``: (protocol, name, number). ``ending``: another pod may have its address already."""

    namespace: str
    name: str
    node: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...] = ()
    ports: tuple[tuple[str, str, int], ...] = ()
    ending: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class PolicyNamespace:
    name: str
    labels: Mapping[str, str]


def parse_policy(found: Json) -> NetworkPolicy:
    meta, spec = part(found, "metadata"), part(found, "spec")
    namespace = text(meta, "namespace")
    kinds = texts(spec, "policyTypes") or ("Ingress", *(("Egress",) if rows(spec, "egress") else ()))
    return NetworkPolicy(
        namespace,
        text(meta, "name"),
        pods=parse_selector(part(spec, "podSelector")),
        ingress=_rules(spec, "ingress", side="from", namespace=namespace) if "Ingress" in kinds else None,
        egress=_rules(spec, "egress", side="to", namespace=namespace) if "Egress" in kinds else None,
        trial=text_map(meta, "annotations").get(TRIAL) == "true",
        log=text_map(meta, "annotations").get(LOG) == "denied",
    )


class Alike:
    """Labels and ports that many pods have in common, each in memory once: the pods of one ReplicaSet have one mapping. The
    owner of the pods has it."""

    def __init__(self) -> None:
        self.labels = lru_cache(_ALIKE)(_labels)
        self.ports = lru_cache(_ALIKE)(_same)


def parse_policy_pod(found: Json, alike: Alike | None = None) -> PolicyPod:
    """``alike``: of the pods that are kept together."""
    meta, spec, status = (part(found, key) for key in ("metadata", "spec", "status"))
    seen = not spec.get("hostNetwork") and text(status, "phase") not in ("Succeeded", "Failed")
    addresses = [text(one, "ip") for one in rows(status, "podIPs")] or [text(status, "podIP")]
    containers = [*rows(spec, "containers"), *(one for one in rows(spec, "initContainers") if one.get("restartPolicy"))]
    labels = tuple(sorted(text_map(meta, "labels").items()))
    named = (one for container in containers for one in rows(container, "ports") if one.get("name"))
    ports = tuple((_protocol(one), text(one, "name"), int(one["containerPort"])) for one in named)
    return PolicyPod(
        namespace=intern(text(meta, "namespace")),
        name=text(meta, "name"),
        node=intern(text(spec, "nodeName")),
        labels=alike.labels(labels) if alike else _labels(labels),
        addresses=tuple(_address(one) for one in addresses if one) if seen else (),
        ports=alike.ports(ports) if alike else ports,
        ending=deleting(found),
    )


def parse_policy_namespace(found: Json) -> PolicyNamespace:
    return PolicyNamespace(text(part(found, "metadata"), "name"), text_map(found, "metadata", "labels"))


def parse_selector(found: Json) -> Selector:
    """Of a LabelSelector."""
    equal = [Requirement(key, "In", (value,)) for key, value in text_map(found, "matchLabels").items()]
    said = [
        Requirement(text(one, "key"), text(one, "operator"), tuple(sorted(texts(one, "values"))))
        for one in rows(found, "matchExpressions")
    ]
    return Selector(tuple(sorted({*equal, *said})))


def _rules(spec: Json, direction: str, *, side: str, namespace: str) -> tuple[PolicyRule, ...]:
    return tuple(
        PolicyRule(
            peers=tuple(peer for one in rows(rule, side) for peer in _peers(one, namespace)) if rule.get(side) else None,
            ports=tuple(port for one in rows(rule, "ports") if (port := _port(one))) if rule.get("ports") else None,
        )
        for rule in rows(spec, direction)
    )


def _peers(found: Json, namespace: str) -> list[Peer]:
    if "ipBlock" in found:
        block = part(found, "ipBlock")
        with suppress(ValueError):
            return [Block(network(text(block, "cidr")), tuple(sorted(network(one) for one in texts(block, "except"))))]
        return []
    if found.get("namespaceSelector") is not None:
        pods = parse_selector(part(found, "podSelector"))
        return [PodPeer(pods, namespaces=parse_selector(part(found, "namespaceSelector")))]
    if found.get("podSelector") is not None:
        return [PodPeer(parse_selector(part(found, "podSelector")), namespace=namespace)]
    return []


def _port(found: Json) -> PolicyPort | None:
    protocol, port = _protocol(found), found.get("port")
    if protocol not in PROTOCOLS:
        return None
    if port is None:
        return PolicyPort(protocol)
    if isinstance(port, str):
        return PolicyPort(protocol, name=port)
    last = found.get("endPort") or port
    readable = isinstance(port, int) and isinstance(last, int) and 0 < port <= last < 1 << 16
    return PolicyPort(protocol, port, last) if readable else None


def _protocol(found: Json) -> str:
    return intern((text(found, "protocol") or "TCP").lower())


def _single(one: Requirement) -> bool:
    return one.operator == "In" and len(one.values) == 1


def _labels(found: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return {intern(key): intern(value) for key, value in found}


def _same(ports: tuple[tuple[str, str, int], ...]) -> tuple[tuple[str, str, int], ...]:
    return ports


def _address(said: str) -> str:
    return str(ipaddress.ip_address(said))


def network(said: str) -> str:
    """With the bits behind the length cleared, as the API server accepts ranges that have some."""
    return str(ipaddress.ip_network(said, strict=False))
