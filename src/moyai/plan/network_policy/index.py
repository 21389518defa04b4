"""The desired table, kept up to date with each namespace, pod and policy that comes, changes or goes.

Always holds: only policies that select a pod of this node have a chain, and only sets that such a chain refers to exist; the
pods that the same policies select share a chain; a pod that comes to such a chain or leaves it changes elements alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from moyai.kube.objects.cluster_policy import ClusterPolicy, Tier
from moyai.kube.objects.policy import NetworkPolicy, PodPeer, PolicyPod
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.compiled import (
    FAMILIES,
    Compiled,
    compiled,
    compiled_tier,
    compiled_tier_trial,
    compiled_trial,
    noting,
)
from moyai.plan.network_policy.pod_index import PodIndex, Watchers
from moyai.plan.network_policy.policy_group import PolicyGroup
from moyai.plan.network_policy.ruleset import EVERY_PACKET, ChainRule, Form, PolicyTable, SetKind, Verdict
from moyai.plan.network_policy.shared_chains import SharedChains
from moyai.plan.network_policy.table_names import family_of
from moyai.plan.network_policy.verdict import FirstPacket, Selecting, denial, permitted

_DENIED = ChainRule(verdict=Verdict.DROP, counted=True, comment="no policy permits it")


class PolicyIndex:
    """``node``: whose pods are guarded. ``table`` has what is desired."""

    def __init__(self, node: str) -> None:
        self.table = PolicyTable()
        self._node = node
        self._pods = PodIndex()
        self._policies: dict[str, NetworkPolicy] = {}
        self._subjects: Watchers[str] = Watchers()
        self._cluster_policies: dict[str, ClusterPolicy] = {}
        self._cluster_subjects: Watchers[str] = Watchers()
        self._ranges: tuple[str, ...] = ()
        #: Address of a pod of this node → the groups that it is in.
        self._local: dict[str, tuple[PolicyGroup, ...]] = {}
        self._members: dict[PolicyGroup, int] = {}
        self._chains = SharedChains(self.table, self._pods, is_local=self._is_local)
        for family in FAMILIES:
            self.table.add_set(names.isolated_to(family), SetKind(Form.MAP, family))
            self.table.add_set(names.isolated_from(family), SetKind(Form.MAP, family))
            self.table.add_set(names.isolated(family), SetKind(Form.ADDRESS, family))
            self.table.add_set(names.here(family), SetKind(Form.ADDRESS, family))
            self.table.add_set(names.itself(family), SetKind(Form.PAIR, family))
            self.table.add_set(names.ranges(family), SetKind(Form.RANGE, family))
            self.table.add_set(names.trial(family), SetKind(Form.FLOW, family))
            self.table.add_set(names.denied(family), SetKind(Form.FLOW, family))

    @property
    def policies(self) -> int:
        return len(self._policies)

    @property
    def trials(self) -> int:
        """How many policies are on trial, with those of the cluster's tiers."""
        return sum(1 for one in (*self._policies.values(), *self._cluster_policies.values()) if one.trial)

    @property
    def cluster_policies(self) -> int:
        return len(self._cluster_policies)

    @property
    def isolated(self) -> int:
        """How many addresses of this node a policy selects."""
        return sum(1 for address in self._local if self.is_isolated(address))

    @property
    def has_ranges(self) -> bool:
        """Whether it is known which addresses this node's pods have."""
        return bool(self._ranges)

    def set_ranges(self, ranges: Iterable[str]) -> None:
        """The ranges that this node's pods have their addresses from."""
        for one in self._ranges:
            self.table.discard(names.ranges(family_of(one)), one)
        self._ranges = tuple(ranges)
        self._guard()

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """None: the namespace is gone."""
        before = self._pods.namespaces.get(name)
        if labels == before:
            return
        if labels is None:
            del self._pods.namespaces[name]
        else:
            self._pods.namespaces[name] = labels
        addresses = list(self._pods.in_namespace(name))
        self._chains.namespace_changed(lambda peer: _selected(peer, before) != _selected(peer, labels), addresses=addresses)
        for address in addresses if self._cluster_policies else ():
            if address in self._local:
                self._place(address, self._pods.owner(address))

    def set_pod(self, key: str, pod: PolicyPod | None) -> None:
        """None: the pod is gone."""
        for address, before, now in self._pods.change(key, pod):
            self._chains.pod_changed(address, before, now=now)
            self._place(address, now)

    def set_policy(self, key: str, policy: NetworkPolicy | None) -> None:
        """None: the policy is gone."""
        before = self._policies.get(key)
        if policy == before:
            return
        if before is not None:
            self._subjects.remove(before.subject, key)
        if policy is None:
            del self._policies[key]
        else:
            self._policies[key] = policy
            self._subjects.add(policy.subject, key)
            for incoming in (True, False):
                if _says(policy, incoming):
                    self._chains.rewrite(names.policy_chain(incoming, key), lambda way=incoming: self._rules(way, key))
            for group in self._members:
                if key in group.trial:
                    chain = names.trial_chain(group.incoming, group.trial)
                    self._chains.rewrite(chain, lambda one=group: self._trial_rules(one.incoming, one.trial))
        for address, groups in list(self._local.items()):
            pod = self._pods.owner(address)
            if any(key in (*one.policies, *one.trial) for one in groups) or (
                policy and pod and self._pods.matches(policy.subject, pod)
            ):
                self._place(address, pod)
        self._guard()

    def set_cluster_policy(self, name: str, policy: ClusterPolicy | None) -> None:
        """None: the policy is gone."""
        before = self._cluster_policies.get(name)
        if policy == before:
            return
        if before is not None and before.subject:
            self._cluster_subjects.remove(before.subject, name)
        if policy is None:
            del self._cluster_policies[name]
        else:
            self._cluster_policies[name] = policy
            if policy.subject:
                self._cluster_subjects.add(policy.subject, name)
            for group in self._members:
                for chain, keys in group.tier_chains:
                    if name in keys:
                        self._chains.rewrite(chain, lambda way=group.incoming, keys=keys: self._tier_rules(way, keys))
                for chain, keys in group.tried_chains:
                    if name in keys:
                        self._chains.rewrite(chain, lambda way=group.incoming, keys=keys: self._tried_rules(way, keys))
        for address, groups in list(self._local.items()):
            pod = self._pods.owner(address)
            selected = policy and policy.subject and pod and self._pods.matches(policy.subject, pod)
            if selected or any(name in keys for one in groups for _, keys in (*one.tiers, *one.tried)):
                self._place(address, pod)
        self._guard()

    def permits(self, source: str, destination: str, *, protocol: str, port: int) -> bool:
        """Whether the policies of this node's pods let a first packet pass. ``protocol``: tcp, udp, sctp or another name."""
        asked = self._asked(source, destination, protocol=protocol, port=port)
        return all(permitted(self._selecting(group), packet) for group, packet in asked)

    def denier(self, source: str, destination: str, *, protocol: str, port: int) -> str:
        """Which policy denies a first packet and why, in words; empty where it is permitted."""
        for group, packet in self._asked(source, destination, protocol=protocol, port=port):
            if why := denial(self._selecting(group), packet):
                return why
        return ""

    def named(self, address: str) -> str:
        """The pod at the address, or the address."""
        pod = self._pods.owner(address)
        return pod.key if pod else address

    @property
    def logs(self) -> bool:
        """Whether a policy that selects a pod of this node wants denials logged."""
        tiers = {name for group in self._members for _, keys in group.tiers for name in keys}
        return any(group.logs for group in self._members) or any(self._cluster_policies[name].log for name in tiers)

    def _asked(self, source: str, destination: str, *, protocol: str, port: int) -> Iterator[tuple[PolicyGroup, FirstPacket]]:
        """The groups of this node that a first packet concerns, the sender's before the receiver's."""
        if source == destination:
            return
        receiver = self._pods.owner(destination)
        numbers = {name: n for p, name, n in receiver.ports if p == protocol} if receiver else dict[str, int]()
        for address, peer, incoming in ((source, destination, False), (destination, source, True)):
            other = self._pods.owner(peer)
            packet = FirstPacket(
                incoming,
                peer,
                (protocol, port),
                is_one_of=lambda one, other=other: other is not None and self._pods.matches(one, other),
                named=numbers.get,
            )
            yield from ((group, packet) for group in self._local.get(address, ()) if group.incoming is incoming)

    def is_isolated(self, address: str) -> bool:
        return any(group.decides for group in self._local.get(address, ()))

    def _selecting(self, group: PolicyGroup) -> Selecting:
        admin, baseline = (tuple(self._cluster_policies[name] for name in keys) for keys in (group.admin, group.baseline))
        return Selecting(admin, tuple(self._policies[key] for key in group.policies), baseline)

    def _guard(self) -> None:
        """An address of this node without a known pod has no traffic, while there is a policy that may select its pod."""
        enforced = any(not one.trial for one in (*self._policies.values(), *self._cluster_policies.values()))
        for one in self._ranges:
            if enforced:
                self.table.put(names.ranges(family_of(one)), one)
            else:
                self.table.discard(names.ranges(family_of(one)), one)

    def _place(self, address: str, pod: PolicyPod | None) -> None:
        """Put an address into the groups that its pod belongs to."""
        former = self._local.pop(address, None)
        groups: tuple[PolicyGroup, ...] = ()
        if pod is not None and self._is_local(pod):
            groups = self._groups(pod)
            self._local[address] = groups
        elif former is None:
            return
        for group in groups:
            self._enter(group)
        self._mark(address, groups, here=address in self._local)
        for group in former or ():
            self._exit(group)

    def _groups(self, pod: PolicyPod) -> tuple[PolicyGroup, ...]:
        found = (self._policies[key] for key in self._subjects.candidates(pod))
        mine = sorted((one for one in found if self._pods.matches(one.subject, pod)), key=lambda one: one.key)
        of_cluster = (self._cluster_policies[name] for name in self._cluster_subjects.candidates(pod))
        tiers = sorted(
            (one for one in of_cluster if one.subject and self._pods.matches(one.subject, pod)), key=lambda one: one.rank
        )
        made: list[PolicyGroup] = []
        for incoming in (True, False):
            said = [one for one in mine if _says(one, incoming)]
            policies = tuple(one.key for one in said if not one.trial)
            admin, baseline = (
                [one for one in tiers if one.tier is tier and one.direction(incoming)] for tier in (Tier.ADMIN, Tier.BASELINE)
            )
            group = PolicyGroup(
                incoming,
                policies,
                admin=tuple(one.name for one in admin if not one.trial),
                baseline=tuple(one.name for one in baseline if not one.trial),
                tried_admin=_with_trial(admin),
                # a pod that a policy of its namespace selects is none of the baseline's
                tried_baseline=() if policies else _with_trial(baseline),
                # beside a policy that decides, one more could only permit more
                trial=() if policies else tuple(one.key for one in said if one.trial),
                logs=any(one.log for one in said if not one.trial),
            )
            if group:
                made.append(group)
        return tuple(made)

    def _mark(self, address: str, groups: tuple[PolicyGroup, ...], *, here: bool) -> None:
        family = family_of(address)
        chains = {group.incoming: group.chain for group in groups}
        for incoming, name in ((True, names.isolated_to(family)), (False, names.isolated_from(family))):
            if incoming in chains:
                self.table.put(name, address, target=chains[incoming])
            else:
                self.table.discard(name, address)
        for name, element, wanted in (
            (names.isolated(family), address, any(group.decides for group in groups)),
            (names.itself(family), (address, address), bool(groups)),
            (names.here(family), address, here),
        ):
            if wanted:
                self.table.put(name, element)
            else:
                self.table.discard(name, element)

    def _enter(self, group: PolicyGroup) -> None:
        self._members[group] = self._members.get(group, 0) + 1
        if self._members[group] > 1:
            return
        way = group.incoming
        for chain, keys in group.tier_chains:
            self._chains.use(chain, lambda keys=keys: self._tier_rules(way, keys))
        for chain, keys in group.tried_chains:
            self._chains.use(chain, lambda keys=keys: self._tried_rules(way, keys))
        for key in group.policies:
            self._chains.use(names.policy_chain(way, key), lambda key=key: self._rules(way, key))
        trial: tuple[ChainRule, ...] = ()
        if group.trial:
            chain = names.trial_chain(way, group.trial)
            self._chains.use(chain, lambda: self._trial_rules(way, group.trial))
            trial = (ChainRule(jump=chain),)
        policies = tuple(ChainRule(jump=names.policy_chain(way, key)) for key in group.policies)
        if policies:
            self._chains.count(group.denials)
            noted = noting(EVERY_PACKET) if group.logs else ()
            after = (*policies, *noted, replace(_DENIED, counter=group.denials))
        else:
            # a pod that a policy of its namespace selects is none of the baseline's
            after = tuple(ChainRule(jump=chain) for chain in group.chains_of(Tier.BASELINE))
        before = tuple(ChainRule(jump=chain) for chain in group.chains_of(Tier.ADMIN))
        self.table.set_chain(group.chain, (*before, *trial, *after))

    def _exit(self, group: PolicyGroup) -> None:
        self._members[group] -= 1
        if self._members[group]:
            return
        del self._members[group]
        self.table.drop_chain(group.chain)
        if group.policies:
            self._chains.count_no_more(group.denials)
        for chain, _ in (*group.tier_chains, *group.tried_chains):
            self._chains.leave(chain)
        if group.trial:
            self._chains.leave(names.trial_chain(group.incoming, group.trial))
        for key in group.policies:
            self._chains.leave(names.policy_chain(group.incoming, key))

    def _rules(self, incoming: bool, key: str) -> Compiled:
        policy = self._policies[key]
        return compiled((policy.ingress if incoming else policy.egress) or (), incoming=incoming, key=key)

    def _trial_rules(self, incoming: bool, keys: tuple[str, ...]) -> Compiled:
        known = (self._policies[key] for key in keys if key in self._policies)
        rules = ((one.ingress if incoming else one.egress) or () for one in known)
        return compiled_trial(rules, incoming=incoming)

    def _tier_rules(self, incoming: bool, keys: tuple[str, ...]) -> Compiled:
        known = (self._cluster_policies[name] for name in keys if name in self._cluster_policies)
        return compiled_tier((one for one in known if not one.trial), incoming=incoming)

    def _tried_rules(self, incoming: bool, keys: tuple[str, ...]) -> Compiled:
        known = (self._cluster_policies[name] for name in keys if name in self._cluster_policies)
        return compiled_tier_trial(known, incoming=incoming)

    def _is_local(self, pod: PolicyPod | None) -> bool:
        return pod is not None and pod.node == self._node


def _with_trial(tier: list[ClusterPolicy]) -> tuple[str, ...]:
    """Names of all of a tier, where one is on trial."""
    return tuple(one.name for one in tier) if any(one.trial for one in tier) else ()


def _says(policy: NetworkPolicy, incoming: bool) -> bool:
    """Whether the policy is about this direction at all."""
    return (policy.ingress if incoming else policy.egress) is not None


def _selected(peer: PodPeer, labels: Mapping[str, str] | None) -> bool:
    return labels is not None and peer.namespaces.matches(labels)
