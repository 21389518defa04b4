"""ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2: rules of the cluster's administrator before and after those of
namespaces.

A field that this version does not know fails closed, as the API demands: a rule that accepts then accepts nobody by it, and a
rule that denies or passes denies everyone.

Source: https://network-policy-api.sigs.k8s.io/reference/spec/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from moyai.kube.objects.meta import Reference, part, reference, rows, text, text_map, texts
from moyai.kube.objects.policy import (
    LOG,
    PROTOCOLS,
    TRIAL,
    Block,
    Peer,
    PodPeer,
    PolicyPort,
    PolicyRule,
    network,
    parse_selector,
)
from moyai.kube.resources import Json

KIND = "ClusterNetworkPolicy"


class Tier(StrEnum):
    ADMIN = "Admin"
    BASELINE = "Baseline"


class Action(StrEnum):
    """``PASS``: the tier says no more of the packet."""

    ACCEPT = "Accept"
    DENY = "Deny"
    PASS = "Pass"


@dataclass(frozen=True)
class TierRule:
    """The first rule that is about a packet decides. ``name``: the user's, or its place in the list."""

    action: Action
    rule: PolicyRule
    name: str


@dataclass(frozen=True)
class ClusterPolicy:
    """``ingress``, ``egress`` empty: the policy says nothing about that direction. ``unsupported``: what this version does not
    enforce, by its path. ``trial``: it is evaluated, and nothing is dropped by it. ``log``: what it
    denies is logged."""

    about: Reference
    tier: Tier
    priority: int
    subject: PodPeer | None
    ingress: tuple[TierRule, ...] = ()
    egress: tuple[TierRule, ...] = ()
    unsupported: tuple[str, ...] = ()
    trial: bool = False
    log: bool = False

    @property
    def name(self) -> str:
        return self.about.name

    @property
    def rank(self) -> tuple[int, str]:
        """Policies of one tier are asked in this order."""
        return self.priority, self.name

    def direction(self, incoming: bool) -> tuple[TierRule, ...]:
        return self.ingress if incoming else self.egress


def parse_cluster_policy(found: Json) -> ClusterPolicy:
    spec = part(found, "spec")
    unsupported: list[str] = []
    subjects = list(_peers(part(spec, "subject"), where="subject", unsupported=unsupported))
    priority = spec.get("priority")
    return ClusterPolicy(
        reference(found, KIND),
        Tier.BASELINE if text(spec, "tier") == Tier.BASELINE else Tier.ADMIN,
        priority if isinstance(priority, int) else 0,
        next((one for one in subjects if isinstance(one, PodPeer)), None),
        ingress=tuple(_rules(spec, "ingress", side="from", unsupported=unsupported)),
        egress=tuple(_rules(spec, "egress", side="to", unsupported=unsupported)),
        unsupported=tuple(unsupported),
        trial=text_map(found, "metadata", "annotations").get(TRIAL) == "true",
        log=text_map(found, "metadata", "annotations").get(LOG) == "denied",
    )


def _rules(spec: Json, direction: str, *, side: str, unsupported: list[str]) -> Iterator[TierRule]:
    for number, found in enumerate(rows(spec, direction)):
        where, before = f"{direction}[{number}]", len(unsupported)
        said = text(found, "action")
        action = Action(said) if said in tuple(Action) else Action.DENY
        if said != action:
            unsupported.append(f"{where}.action")
        peers = [
            peer
            for place, one in enumerate(rows(found, side))
            for peer in _peers(one, where=f"{where}.{side}[{place}]", unsupported=unsupported)
        ]
        ports = [
            port
            for place, one in enumerate(rows(found, "protocols"))
            for port in _ports(one, where=f"{where}.protocols[{place}]", unsupported=unsupported)
        ]
        rule = PolicyRule(tuple(peers), tuple(ports) if found.get("protocols") else None)
        name = text(found, "name") or where
        if len(unsupported) > before and action is not Action.ACCEPT:
            yield TierRule(Action.DENY, PolicyRule(), name)
        else:
            yield TierRule(action, rule, name)


def _peers(found: Json, *, where: str, unsupported: list[str]) -> Iterator[Peer]:
    """Those that one entry of ``from``, ``to`` or ``subject`` names."""
    if found.get("namespaces") is not None:
        yield PodPeer(namespaces=parse_selector(part(found, "namespaces")))
    elif found.get("pods") is not None:
        pods = part(found, "pods")
        spaces = parse_selector(part(pods, "namespaceSelector"))
        yield PodPeer(parse_selector(part(pods, "podSelector")), namespaces=spaces)
    elif networks := texts(found, "networks"):
        for one in networks:
            try:
                yield Block(network(one))
            except ValueError:
                unsupported.append(f"{where}.networks")
    else:
        unsupported.append(f"{where}.{next(iter(found), '')}".rstrip("."))


def _ports(found: Json, *, where: str, unsupported: list[str]) -> Iterator[PolicyPort]:
    if name := text(found, "destinationNamedPort"):
        yield from (PolicyPort(protocol, name=name) for protocol in PROTOCOLS)
        return
    protocol = next((one for one in PROTOCOLS if found.get(one) is not None), "")
    match = part(found, protocol)
    port = part(match, "destinationPort")
    number, limits = port.get("number"), part(port, "range")
    first, last = (number, number) if number is not None else (limits.get("start"), limits.get("end"))
    if isinstance(first, int) and isinstance(last, int) and 0 < first <= last < 1 << 16:
        yield PolicyPort(protocol, first, last)
    elif protocol and not match:
        yield PolicyPort(protocol)
    else:
        unsupported.append(where)
