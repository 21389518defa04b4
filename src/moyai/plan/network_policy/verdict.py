"""What policies decide about one packet, in words: the same decision as that of the table, for a single packet.

Three tiers are asked one after the other. The first rule of an Admin policy that matches the packet decides. If no rule
matches, or if the rule says Pass, policies of namespaces decide for the pods that they select. For other pods the first
matching rule of a Baseline policy decides. A packet that no tier decides about is permitted.
Source: https://network-policy-api.sigs.k8s.io/reference/spec/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from moyai.kube.objects.cluster_policy import Action, ClusterPolicy
from moyai.kube.objects.policy import NetworkPolicy, PodPeer, PolicyRule
from moyai.plan.network_policy.compiled import permits


@dataclass(frozen=True)
class FirstPacket:
    """The first of a connection, as a direction of one pod sees it. ``port``: (protocol, destination port). ``is_one_of``:
    whether the pod at ``peer`` is such a one. ``named``: the number of the receiver's port of that name and protocol."""

    incoming: bool
    peer: str
    port: tuple[str, int]
    is_one_of: Callable[[PodPeer], bool]
    named: Callable[[str], int | None]


@dataclass(frozen=True)
class TierVerdict:
    """``policy`` and ``rule``: the names of what decided."""

    action: Action
    policy: str
    rule: str


def of_tier(policies: Iterable[ClusterPolicy], packet: FirstPacket) -> TierVerdict | None:
    """``policies``: those of one tier that select the pod, in their order. None: no rule is about the packet."""
    for policy in policies:
        for one in policy.direction(packet.incoming):
            if _about([one.rule], packet):
                return TierVerdict(one.action, policy.name, one.name)
    return None


def by_policy(policy: NetworkPolicy, packet: FirstPacket) -> bool:
    """Whether a policy that selects the pod permits the packet."""
    return _about((policy.ingress if packet.incoming else policy.egress) or (), packet)


@dataclass(frozen=True)
class Selecting:
    """All policies that select a pod for one direction, of each tier in the tier's order."""

    admin: tuple[ClusterPolicy, ...]
    namespaced: tuple[NetworkPolicy, ...]
    baseline: tuple[ClusterPolicy, ...]


def permitted(selecting: Selecting, packet: FirstPacket) -> bool:
    return not denial(selecting, packet)


def denial(selecting: Selecting, packet: FirstPacket) -> str:
    """Who denies the packet, in words; empty where nobody does."""
    first = of_tier(selecting.admin, packet)
    if first is not None and first.action is not Action.PASS:
        return _words(first)
    if selecting.namespaced:
        names = ", ".join(one.key for one in selecting.namespaced)
        return "" if any(by_policy(one, packet) for one in selecting.namespaced) else f"no policy permits it ({names})"
    last = of_tier(selecting.baseline, packet)
    return _words(last) if last else ""


def _words(found: TierVerdict) -> str:
    return f"rule {found.rule} of {found.policy} denies it" if found.action is Action.DENY else ""


def _about(rules: Iterable[PolicyRule], packet: FirstPacket) -> bool:
    return permits(rules, peer=packet.peer, port=packet.port, is_one_of=packet.is_one_of, named=packet.named)
