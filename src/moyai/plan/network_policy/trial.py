"""Which policies on trial would have dropped a flow: the words for what the kernel noted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moyai.kube.objects.cluster_policy import Action, ClusterPolicy, Tier
from moyai.kube.objects.policy import NetworkPolicy
from moyai.plan.network_policy.evaluation import Policies
from moyai.plan.network_policy.pod_index import PodIndex
from moyai.plan.network_policy.verdict import FirstPacket, Selecting, by_policy, of_tier, permitted


@dataclass(frozen=True)
class TrialVerdict:
    """``policies``: keys of those that select the pod and would have dropped. ``incoming``: whether it is the receiver."""

    pod: str
    incoming: bool
    policies: tuple[str, ...]


def would_drop(
    policies: Policies, pods: PodIndex, *, source: str, destination: str, port: tuple[str, int], node: str
) -> Iterator[TrialVerdict]:
    """By the policies as they are now, for the pods of ``node``. ``port``: (protocol, destination port)."""
    receiver = pods.owner(destination)
    numbers = {name: number for protocol, name, number in receiver.ports if protocol == port[0]} if receiver else {}
    for subject, peer, incoming in ((source, destination, False), (destination, source, True)):
        pod, other = pods.owner(subject), pods.owner(peer)
        if pod is None or pod.node != node:
            continue
        packet = FirstPacket(
            incoming,
            peer,
            port,
            is_one_of=lambda one, other=other: other is not None and pods.matches(one, other),
            named=numbers.get,
        )
        mine = [
            one
            for one in policies.namespaced
            if (one.ingress if incoming else one.egress) is not None and pods.matches(one.subject, pod)
        ]
        tiers = sorted(
            (one for one in policies.cluster if one.subject and pods.matches(one.subject, pod)), key=lambda one: one.rank
        )
        dropping = _of_namespace(mine, packet) or _of_tiers(mine, tiers, packet=packet)
        if dropping:
            yield TrialVerdict(pod.key, incoming, dropping)


def _of_namespace(mine: Sequence[NetworkPolicy], packet: FirstPacket) -> tuple[str, ...]:
    """Keys of the policies on trial that would drop the packet together; none where another policy decides already."""
    trial = [one for one in mine if one.trial]
    if len(trial) < len(mine) or any(by_policy(one, packet) for one in trial):
        return ()
    return tuple(sorted(one.key for one in trial))


def _of_tiers(mine: Sequence[NetworkPolicy], tiers: Sequence[ClusterPolicy], *, packet: FirstPacket) -> tuple[str, ...]:
    """The name of the policy on trial that would deny a packet which is permitted now."""
    enforced = [one for one in tiers if not one.trial]
    admin, baseline = (tuple(one for one in enforced if one.tier is tier) for tier in (Tier.ADMIN, Tier.BASELINE))
    namespaced = tuple(one for one in mine if not one.trial)
    if not permitted(Selecting(admin, namespaced, baseline), packet):
        return ()
    names = {one.name for one in tiers if one.trial}
    first = of_tier([one for one in tiers if one.tier is Tier.ADMIN], packet)
    if first is None or first.action is Action.PASS:
        # a pod that a policy of its namespace selects is none of the baseline's
        first = None if namespaced else of_tier([one for one in tiers if one.tier is Tier.BASELINE], packet)
    return (first.policy,) if first and first.action is Action.DENY and first.policy in names else ()
