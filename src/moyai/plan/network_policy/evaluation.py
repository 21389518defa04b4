"""Which policies decide about one packet, by name: `moyai trace` shows them. ``index`` computes the same for the kernel.

The cost grows with the number of all policies, which is acceptable for one packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moyai.kube.objects.cluster_policy import Action, ClusterPolicy, Tier
from moyai.kube.objects.policy import NetworkPolicy
from moyai.plan.network_policy.pod_index import PodIndex
from moyai.plan.network_policy.verdict import FirstPacket, TierVerdict, by_policy, of_tier


@dataclass(frozen=True)
class Policies:
    """All of a cluster: those of namespaces, and those of the tiers around them."""

    namespaced: Sequence[NetworkPolicy] = ()
    cluster: Sequence[ClusterPolicy] = ()


@dataclass(frozen=True)
class PolicyEvaluation:
    """``incoming``: about what is sent to the pod. ``selecting``: keys of the namespace's policies that select the pod for this
    direction, without those on trial. ``permitting``: those of them that let the packet pass. ``admin``, ``baseline``: the rule
    of the tier that is about the packet; None also where that tier is not asked."""

    incoming: bool
    selecting: tuple[str, ...] = ()
    permitting: tuple[str, ...] = ()
    admin: TierVerdict | None = None
    baseline: TierVerdict | None = None

    @property
    def decided(self) -> TierVerdict | None:
        """The rule of a tier that decides; None where the namespace's policies do, or nobody."""
        found = self.admin if self.admin and self.admin.action is not Action.PASS else self.baseline
        return found if found and found.action is not Action.PASS else None

    @property
    def permitted(self) -> bool:
        if self.decided:
            return self.decided.action is Action.ACCEPT
        return not self.selecting or bool(self.permitting)


def evaluate(
    policies: Policies,
    pods: PodIndex,
    *,
    source: str,
    destination: str,
    port: tuple[str, int],
    incoming: bool,
) -> PolicyEvaluation:
    """About the first packet of a connection, after address translation of Services. ``port``: (protocol, destination port).

    ``incoming``: whether the receiver's policies are asked, or the sender's.
    """
    subject, peer = (destination, source) if incoming else (source, destination)
    pod, other, receiver = pods.owner(subject), pods.owner(peer), pods.owner(destination)
    if pod is None or source == destination:
        return PolicyEvaluation(incoming)
    numbers = {name: number for protocol, name, number in receiver.ports if protocol == port[0]} if receiver else {}
    packet = FirstPacket(
        incoming, peer, port, is_one_of=lambda one: other is not None and pods.matches(one, other), named=numbers.get
    )

    def tier(wanted: Tier) -> TierVerdict | None:
        mine = (
            one
            for one in policies.cluster
            if one.tier is wanted and not one.trial and one.subject and pods.matches(one.subject, pod)
        )
        return of_tier(sorted(mine, key=lambda one: one.rank), packet)

    admin = tier(Tier.ADMIN)
    if admin and admin.action is not Action.PASS:
        return PolicyEvaluation(incoming, admin=admin)
    selecting = [
        one
        for one in policies.namespaced
        if not one.trial and (one.ingress if incoming else one.egress) is not None and pods.matches(one.subject, pod)
    ]
    permitting = [one for one in selecting if by_policy(one, packet)]
    return PolicyEvaluation(
        incoming,
        tuple(sorted(one.key for one in selecting)),
        tuple(sorted(one.key for one in permitting)),
        admin=admin,
        baseline=None if selecting else tier(Tier.BASELINE),
    )
