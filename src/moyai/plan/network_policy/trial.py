"""Which policies on trial would have dropped a flow: the words for what the kernel noted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moyai.kube.objects.policy import NetworkPolicy
from moyai.plan.network_policy.pod_index import PodIndex
from moyai.plan.network_policy.verdict import FirstPacket, by_policy


@dataclass(frozen=True)
class TrialVerdict:
    """``policies``: keys of those that select the pod and would have dropped. ``incoming``: whether it is the receiver."""

    pod: str
    incoming: bool
    policies: tuple[str, ...]


def would_drop(
    policies: Iterable[NetworkPolicy], pods: PodIndex, *, source: str, destination: str, port: tuple[str, int], node: str
) -> Iterator[TrialVerdict]:
    """By the policies as they are now, for the pods of ``node``. ``port``: (protocol, destination port)."""
    known = list(policies)
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
            one for one in known if (one.ingress if incoming else one.egress) is not None and pods.matches(one.subject, pod)
        ]
        trial = [one for one in mine if one.trial]
        if len(trial) < len(mine) or not trial or any(by_policy(one, packet) for one in trial):
            continue
        yield TrialVerdict(pod.key, incoming, tuple(sorted(one.key for one in trial)))
