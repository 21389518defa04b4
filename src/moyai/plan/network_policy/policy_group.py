"""Pods that the same policies select for one direction: they have one chain in common.

Always holds: the name of a chain follows from what the chain is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moyai.kube.objects.cluster_policy import Tier
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.policy_counters import counter_name


@dataclass(frozen=True)
class PolicyGroup:
    """``incoming``: what is sent to them. ``policies``: keys of those of their namespaces. ``admin``, ``baseline``: names of
    those of the tiers, in their order. ``trial``: keys of those on trial, where no other policy of the namespace decides
    already. ``tried_admin``, ``tried_baseline``: all of a tier, in their order, where one of them is on trial. ``logs``:
    whether one of ``policies`` wants denials logged."""

    incoming: bool
    policies: tuple[str, ...]
    admin: tuple[str, ...] = ()
    baseline: tuple[str, ...] = ()
    trial: tuple[str, ...] = ()
    tried_admin: tuple[str, ...] = ()
    tried_baseline: tuple[str, ...] = ()
    logs: bool = False

    @property
    def chain(self) -> str:
        tried = (self.tried_admin, self.tried_baseline)
        return names.group_chain(
            self.incoming,
            self.policies,
            admin=self.admin,
            baseline=self.baseline,
            trial=self.trial,
            tried=tried if any(tried) else (),
            logs=self.logs,
        )

    @property
    def denials(self) -> str:
        """The counter of what no policy of the namespace permits."""
        return counter_name(",".join(self.policies), incoming=self.incoming, verdict="drop")

    @property
    def decides(self) -> bool:
        """Whether a packet may be dropped here."""
        return bool(self.policies or self.admin or self.baseline)

    def __bool__(self) -> bool:
        return self.decides or bool(self.trial or self.tried_admin or self.tried_baseline)

    @property
    def tiers(self) -> Iterator[tuple[Tier, tuple[str, ...]]]:
        if self.admin:
            yield Tier.ADMIN, self.admin
        if self.baseline:
            yield Tier.BASELINE, self.baseline

    @property
    def tried(self) -> Iterator[tuple[Tier, tuple[str, ...]]]:
        if self.tried_admin:
            yield Tier.ADMIN, self.tried_admin
        if self.tried_baseline:
            yield Tier.BASELINE, self.tried_baseline

    @property
    def tier_chains(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(names.tier_chain(self.incoming, tier, policies=keys), keys) for tier, keys in self.tiers]

    @property
    def tried_chains(self) -> list[tuple[str, tuple[str, ...]]]:
        """Those that note what policies of the tier on trial would deny."""
        return [(names.tried_chain(self.incoming, tier, policies=keys), keys) for tier, keys in self.tried]

    def chains_of(self, tier: Tier) -> Iterator[str]:
        """What packets pass in this tier: it is noted before it is decided."""
        for one, keys in self.tried:
            if one is tier:
                yield names.tried_chain(self.incoming, tier, policies=keys)
        for one, keys in self.tiers:
            if one is tier:
                yield names.tier_chain(self.incoming, tier, policies=keys)
