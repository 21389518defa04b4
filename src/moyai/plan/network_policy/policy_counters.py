"""Counters of the table that have names: how many connections a policy permitted or denied, as metrics have it.

Always holds: the name of a counter contains the policy and the verdict, so a reader of the kernel needs nothing else. nftables
accepts the name.
"""

from __future__ import annotations

from dataclasses import dataclass

from moyai.plan.network_policy.table_names import digest

#: nftables takes 255 bytes.
_LONGEST = 200
_CUT = 20


@dataclass(frozen=True)
class CounterMeaning:
    """``policy``: ``NAMESPACE/NAME``, several of one namespace with commas between, or the name of a ClusterNetworkPolicy.
    ``verdict``: accept, drop or pass."""

    policy: str
    direction: str
    verdict: str


def counter_name(policy: str, *, incoming: bool, verdict: str) -> str:
    """Longer names keep their beginning, and a digest tells them apart."""
    said = policy if len(policy) <= _LONGEST else f"{policy[: _LONGEST - _CUT]}~{digest(policy)}"
    return f"{'ingress' if incoming else 'egress'}:{verdict}:{said}"


def meaning(name: str) -> CounterMeaning | None:
    """None for a counter that is not one of these."""
    direction, _, rest = name.partition(":")
    verdict, _, policy = rest.partition(":")
    return CounterMeaning(policy, direction, verdict) if policy else None
