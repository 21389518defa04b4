"""Which policies decide about one packet, by name: what a person asks, where ``index`` answers the kernel.

The cost is that of all policies, which is right for one packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moyai.kube.objects.policy import NetworkPolicy
from moyai.plan.network_policy.compiled import permits
from moyai.plan.network_policy.pod_index import PodIndex


@dataclass(frozen=True)
class Judgement:
    """``incoming``: about what is sent to the pod. ``selecting``: keys of the policies that select the pod for this direction;
    without any, everything is permitted. ``permitting``: those of them that let the packet pass."""

    incoming: bool
    selecting: tuple[str, ...] = ()
    permitting: tuple[str, ...] = ()

    @property
    def permitted(self) -> bool:
        return not self.selecting or bool(self.permitting)


def judge(
    policies: Iterable[NetworkPolicy],
    pods: PodIndex,
    *,
    source: str,
    destination: str,
    port: tuple[str, int],
    incoming: bool,
) -> Judgement:
    """About the first packet of a connection, after address translation of Services. ``port``: (protocol, destination port).

    ``incoming``: whether the receiver's policies are asked, or the sender's.
    """
    subject, peer = (destination, source) if incoming else (source, destination)
    pod, other, receiver = pods.owner(subject), pods.owner(peer), pods.owner(destination)
    if pod is None or source == destination:
        return Judgement(incoming)
    numbers = {name: number for protocol, name, number in receiver.ports if protocol == port[0]} if receiver else {}
    selecting: list[str] = []
    permitting: list[str] = []
    for policy in policies:
        rules = policy.ingress if incoming else policy.egress
        if rules is None or not pods.matches(policy.subject, pod):
            continue
        selecting.append(policy.key)
        if permits(
            rules,
            peer=peer,
            port=port,
            is_one_of=lambda one: other is not None and pods.matches(one, other),
            named=numbers.get,
        ):
            permitting.append(policy.key)
    return Judgement(incoming, tuple(sorted(selecting)), tuple(sorted(permitting)))
