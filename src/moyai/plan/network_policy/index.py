"""The desired table, kept up to date with each namespace, pod and policy that comes, changes or goes.

Always holds: only policies that select a pod of this node have a chain, and only sets that such a chain refers to exist; the
pods that the same policies select share a chain; a pod that comes to such a chain or leaves it changes elements alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from moyai.kube.objects.cluster_policy import ClusterPolicy, Tier
from moyai.kube.objects.policy import NetworkPolicy, PodPeer, PolicyPod
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.compiled import FAMILIES, Compiled, compiled, compiled_tier, compiled_trial, noting
from moyai.plan.network_policy.pod_index import PodIndex, Watchers
from moyai.plan.network_policy.policy_counters import counter_name
from moyai.plan.network_policy.ruleset import EVERY_PACKET, ChainRule, Form, PolicyTable, SetKind, Verdict
from moyai.plan.network_policy.shared_chains import SharedChains
from moyai.plan.network_policy.table_names import family_of
from moyai.plan.network_policy.verdict import FirstPacket, Selecting, denial, permitted

_DENIED = ChainRule(verdict=Verdict.DROP, counted=True, comment="no policy permits it")


@dataclass(frozen=True)
class _PolicyGroup:
    """Pods that the same policies select for one direction. ``incoming``: what is sent to them. ``policies``: keys of those of
    their namespaces. ``admin``, ``baseline``: names of those of the tiers, in their order. ``trial``: keys of those on trial,
    where no other policy of the namespace decides already. ``logs``: whether one of ``policies`` wants denials logged."""

    incoming: bool
    policies: tuple[str, ...]
    admin: tuple[str, ...] = ()
    baseline: tuple[str, ...] = ()
    trial: tuple[str, ...] = ()
    logs: bool = False

    @property
    def chain(self) -> str:
        return names.group_chain(
            self.incoming, self.policies, admin=self.admin, baseline=self.baseline, trial=self.trial, logs=self.logs
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
        return self.decides or bool(self.trial)

    @property
    def tiers(self) -> Iterator[tuple[Tier, tuple[str, ...]]]:
        if self.admin:
            yield Tier.ADMIN, self.admin
        if self.baseline:
            yield Tier.BASELINE, self.baseline


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
        self._local: dict[str, tuple[_PolicyGroup, ...]] = {}
        self._members: dict[_PolicyGroup, int] = {}
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
        """How many of them are on trial."""
        return sum(1 for one in self._policies.values() if one.trial)

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
                for tier, keys in group.tiers:
                    if name in keys:
                        chain = names.tier_chain(group.incoming, tier, policies=keys)
                        self._chains.rewrite(chain, lambda way=group.incoming, keys=keys: self._tier_rules(way, keys))
        for address, groups in list(self._local.items()):
            pod = self._pods.owner(address)
            selected = policy and policy.subject and pod and self._pods.matches(policy.subject, pod)
            if selected or any(name in keys for one in groups for _, keys in one.tiers):
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

    def _asked(self, source: str, destination: str, *, protocol: str, port: int) -> Iterator[tuple[_PolicyGroup, FirstPacket]]:
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

    def _selecting(self, group: _PolicyGroup) -> Selecting:
        admin, baseline = (tuple(self._cluster_policies[name] for name in keys) for keys in (group.admin, group.baseline))
        return Selecting(admin, tuple(self._policies[key] for key in group.policies), baseline)

    def _guard(self) -> None:
        """An address of this node without a known pod has no traffic, while there is a policy that may select its pod."""
        for one in self._ranges:
            if len(self._policies) > self.trials or self._cluster_policies:
                self.table.put(names.ranges(family_of(one)), one)
            else:
                self.table.discard(names.ranges(family_of(one)), one)

    def _place(self, address: str, pod: PolicyPod | None) -> None:
        """Put an address into the groups that its pod belongs to."""
        former = self._local.pop(address, None)
        groups: tuple[_PolicyGroup, ...] = ()
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

    def _groups(self, pod: PolicyPod) -> tuple[_PolicyGroup, ...]:
        found = (self._policies[key] for key in self._subjects.candidates(pod))
        mine = sorted((one for one in found if self._pods.matches(one.subject, pod)), key=lambda one: one.key)
        of_cluster = (self._cluster_policies[name] for name in self._cluster_subjects.candidates(pod))
        tiers = sorted(
            (one for one in of_cluster if one.subject and self._pods.matches(one.subject, pod)), key=lambda one: one.rank
        )
        made: list[_PolicyGroup] = []
        for incoming in (True, False):
            said = [one for one in mine if _says(one, incoming)]
            policies = tuple(one.key for one in said if not one.trial)
            group = _PolicyGroup(
                incoming,
                policies,
                admin=tuple(one.name for one in tiers if one.tier is Tier.ADMIN and one.direction(incoming)),
                baseline=tuple(one.name for one in tiers if one.tier is Tier.BASELINE and one.direction(incoming)),
                # beside a policy that decides, one more could only permit more
                trial=() if policies else tuple(one.key for one in said if one.trial),
                logs=any(one.log for one in said if not one.trial),
            )
            if group:
                made.append(group)
        return tuple(made)

    def _mark(self, address: str, groups: tuple[_PolicyGroup, ...], *, here: bool) -> None:
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

    def _enter(self, group: _PolicyGroup) -> None:
        self._members[group] = self._members.get(group, 0) + 1
        if self._members[group] > 1:
            return
        way = group.incoming
        jumps: dict[Tier, ChainRule] = {}
        for tier, keys in group.tiers:
            chain = names.tier_chain(way, tier, policies=keys)
            self._chains.use(chain, lambda keys=keys: self._tier_rules(way, keys))
            jumps[tier] = ChainRule(jump=chain)
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
            after = tuple(rule for tier, rule in jumps.items() if tier is Tier.BASELINE)
        before = tuple(rule for tier, rule in jumps.items() if tier is Tier.ADMIN)
        self.table.set_chain(group.chain, (*before, *trial, *after))

    def _exit(self, group: _PolicyGroup) -> None:
        self._members[group] -= 1
        if self._members[group]:
            return
        del self._members[group]
        self.table.drop_chain(group.chain)
        if group.policies:
            self._chains.count_no_more(group.denials)
        for tier, keys in group.tiers:
            self._chains.leave(names.tier_chain(group.incoming, tier, policies=keys))
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
        return compiled_tier(known, incoming=incoming)

    def _is_local(self, pod: PolicyPod | None) -> bool:
        return pod is not None and pod.node == self._node


def _says(policy: NetworkPolicy, incoming: bool) -> bool:
    """Whether the policy is about this direction at all."""
    return (policy.ingress if incoming else policy.egress) is not None


def _selected(peer: PodPeer, labels: Mapping[str, str] | None) -> bool:
    return labels is not None and peer.namespaces.matches(labels)
