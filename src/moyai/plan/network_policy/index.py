"""The desired table, kept up to date with each namespace, pod and policy that comes, changes or goes.

Always holds: only policies that select a pod of this node have a chain, and only sets that such a chain refers to exist; the
pods that the same policies select share a chain; a pod that comes to such a chain or leaves it changes elements alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from moyai.kube.objects.policy import NetworkPolicy, PodPeer, PolicyPod, PolicyRule
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.compiled import FAMILIES, Compiled, NamedPort, compiled, permits
from moyai.plan.network_policy.pod_index import PodIndex, Watchers
from moyai.plan.network_policy.ruleset import ChainRule, Form, PolicyTable, SetKind, Verdict

#: Whether what is sent to the pods is meant, and the policies that select them for that direction.
_Group = tuple[bool, tuple[str, ...]]
_DENIED = ChainRule(verdict=Verdict.DROP, counted=True, comment="no policy permits it")


class PolicyIndex:
    """``node``: whose pods are guarded. ``table`` has what is desired."""

    def __init__(self, node: str) -> None:
        self.table = PolicyTable()
        self._node = node
        self._pods = PodIndex()
        self._policies: dict[str, NetworkPolicy] = {}
        self._subjects: Watchers[str] = Watchers()
        self._ranges: tuple[str, ...] = ()
        #: Address of a pod of this node → the groups that it is in.
        self._local: dict[str, tuple[_Group, ...]] = {}
        self._members: dict[_Group, int] = {}
        #: Policies with a chain → how many groups refer to it, and what it refers to.
        self._uses: dict[tuple[bool, str], int] = {}
        self._compiled: dict[tuple[bool, str], Compiled] = {}
        self._peers: dict[PodPeer, int] = {}
        self._peer_watchers: Watchers[PodPeer] = Watchers()
        self._ports: dict[NamedPort, int] = {}
        for family in FAMILIES:
            self.table.add_set(names.isolated_to(family), SetKind(Form.MAP, family))
            self.table.add_set(names.isolated_from(family), SetKind(Form.MAP, family))
            self.table.add_set(names.isolated(family), SetKind(Form.ADDRESS, family))
            self.table.add_set(names.here(family), SetKind(Form.ADDRESS, family))
            self.table.add_set(names.itself(family), SetKind(Form.PAIR, family))
            self.table.add_set(names.ranges(family), SetKind(Form.RANGE, family))

    @property
    def policies(self) -> int:
        return len(self._policies)

    @property
    def isolated(self) -> int:
        """How many addresses of this node a policy selects."""
        return sum(1 for groups in self._local.values() if groups)

    @property
    def has_ranges(self) -> bool:
        """Whether it is known which addresses this node's pods have."""
        return bool(self._ranges)

    def set_ranges(self, ranges: Iterable[str]) -> None:
        """The ranges that this node's pods have their addresses from."""
        for one in self._ranges:
            self.table.discard(names.ranges(_family(one)), one)
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
        for peer in self._peers:
            if peer.namespace:
                continue
            if _selected(peer, before) != _selected(peer, labels):
                for address in addresses:
                    self._join(peer, address, pod=self._pods.owner(address))

    def set_pod(self, key: str, pod: PolicyPod | None) -> None:
        """None: the pod is gone."""
        for address, before, now in self._pods.change(key, pod):
            watching = {one for each in (before, now) if each for one in self._peer_watchers.candidates(each)}
            for peer in watching:
                self._join(peer, address, pod=now)
            for each, gone in ((before, True), (now, False)):
                for protocol, name, number in each.ports if each else ():
                    self._name_port(protocol, name, element=(address, number), pod=each, gone=gone)
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
                if (incoming, key) in self._uses and _direction(policy, incoming) is not None:
                    self._write(incoming, key)
        for address, groups in list(self._local.items()):
            pod = self._pods.owner(address)
            if any(key in keys for _, keys in groups) or (policy and pod and self._pods.matches(policy.subject, pod)):
                self._place(address, pod)
        self._guard()

    def permits(self, source: str, destination: str, *, protocol: str, port: int) -> bool:
        """Whether the policies of this node's pods let a first packet pass. ``protocol``: tcp, udp, sctp or another name."""
        if source == destination:
            return True
        receiver = self._pods.owner(destination)
        numbers = {name: n for p, name, n in receiver.ports if p == protocol} if receiver else dict[str, int]()
        for address, peer, incoming in ((source, destination, False), (destination, source, True)):
            for direction, keys in self._local.get(address, ()):
                if direction is not incoming:
                    continue
                other = self._pods.owner(peer)
                rules = (rule for key in keys for rule in _direction(self._policies[key], incoming) or ())
                if not permits(
                    rules,
                    peer=peer,
                    port=(protocol, port),
                    is_one_of=lambda one, other=other: other is not None and self._pods.matches(one, other),
                    named=numbers.get,
                ):
                    return False
        return True

    def is_isolated(self, address: str) -> bool:
        return bool(self._local.get(address))

    def _guard(self) -> None:
        """An address of this node without a known pod has no traffic, while there is a policy that may select its pod."""
        for one in self._ranges:
            if self._policies:
                self.table.put(names.ranges(_family(one)), one)
            else:
                self.table.discard(names.ranges(_family(one)), one)

    def _join(self, peer: PodPeer, address: str, *, pod: PolicyPod | None) -> None:
        name = names.pods(peer, _family(address))
        if pod is not None and self._pods.matches(peer, pod):
            self.table.put(name, address)
        else:
            self.table.discard(name, address)

    def _name_port(self, protocol: str, name: str, *, element: tuple[str, int], pod: PolicyPod | None, gone: bool) -> None:
        for local in (True, False):
            if (protocol, name, local) not in self._ports or (local and not self._is_local(pod)):
                continue
            where = names.named_port(protocol, name, local=local, family=_family(element[0]))
            if gone:
                self.table.discard(where, element)
            else:
                self.table.put(where, element)

    def _place(self, address: str, pod: PolicyPod | None) -> None:
        """Put an address into the groups that its pod belongs to."""
        former = self._local.pop(address, None)
        groups: tuple[_Group, ...] = ()
        if pod is not None and self._is_local(pod):
            found = (self._policies[key] for key in self._subjects.candidates(pod))
            mine = sorted(one.key for one in found if self._pods.matches(one.subject, pod))
            groups = tuple(
                (incoming, keys)
                for incoming in (True, False)
                if (keys := tuple(key for key in mine if _direction(self._policies[key], incoming) is not None))
            )
            self._local[address] = groups
        elif former is None:
            return
        for group in groups:
            self._enter(group)
        self._mark(address, groups, here=address in self._local)
        for group in former or ():
            self._exit(group)

    def _mark(self, address: str, groups: tuple[_Group, ...], *, here: bool) -> None:
        family = _family(address)
        chains = {incoming: names.group_chain(incoming, keys) for incoming, keys in groups}
        for incoming, name in ((True, names.isolated_to(family)), (False, names.isolated_from(family))):
            if incoming in chains:
                self.table.put(name, address, target=chains[incoming])
            else:
                self.table.discard(name, address)
        for name, element, wanted in (
            (names.isolated(family), address, bool(groups)),
            (names.itself(family), (address, address), bool(groups)),
            (names.here(family), address, here),
        ):
            if wanted:
                self.table.put(name, element)
            else:
                self.table.discard(name, element)

    def _enter(self, group: _Group) -> None:
        self._members[group] = self._members.get(group, 0) + 1
        if self._members[group] > 1:
            return
        incoming, keys = group
        for key in keys:
            self._uses[incoming, key] = self._uses.get((incoming, key), 0) + 1
            if self._uses[incoming, key] == 1:
                self._write(incoming, key)
        jumps = tuple(ChainRule(jump=names.policy_chain(incoming, key)) for key in keys)
        self.table.set_chain(names.group_chain(*group), (*jumps, _DENIED))

    def _exit(self, group: _Group) -> None:
        self._members[group] -= 1
        if self._members[group]:
            return
        del self._members[group]
        self.table.drop_chain(names.group_chain(*group))
        incoming, keys = group
        for key in keys:
            self._uses[incoming, key] -= 1
            if not self._uses[incoming, key]:
                del self._uses[incoming, key]
                self.table.drop_chain(names.policy_chain(incoming, key))
                self._let_go(self._compiled.pop((incoming, key)))

    def _write(self, incoming: bool, key: str) -> None:
        """Make or change a policy's chain, and the sets that it refers to."""
        rules = _direction(self._policies[key], incoming) or ()
        made = compiled(rules, incoming=incoming, key=key)
        former = self._compiled.get((incoming, key))
        self._compiled[incoming, key] = made
        self._hold(made)
        self.table.set_chain(names.policy_chain(incoming, key), made.rules)
        if former:
            self._let_go(former)

    def _hold(self, made: Compiled) -> None:
        for peer in made.peers:
            self._peers[peer] = self._peers.get(peer, 0) + 1
            if self._peers[peer] == 1:
                for family in FAMILIES:
                    self.table.add_set(names.pods(peer, family), SetKind(Form.ADDRESS, family))
                self._peer_watchers.add(peer, peer)
                sets = {family: names.pods(peer, family) for family in FAMILIES}
                for address in self._pods.selected(peer):
                    self.table.put(sets[_family(address)], address)
        for port in made.ports:
            self._ports[port] = self._ports.get(port, 0) + 1
            if self._ports[port] == 1:
                protocol, name, local = port
                for family in FAMILIES:
                    self.table.add_set(names.named_port(protocol, name, local=local, family=family), SetKind(Form.PORT, family))
                for address, number in self._pods.with_port(protocol, name):
                    if not local or self._is_local(self._pods.owner(address)):
                        where = names.named_port(protocol, name, local=local, family=_family(address))
                        self.table.put(where, (address, number))

    def _let_go(self, made: Compiled) -> None:
        for peer in made.peers:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]
                self._peer_watchers.remove(peer, peer)
                for family in FAMILIES:
                    self.table.drop_set(names.pods(peer, family))
        for port in made.ports:
            self._ports[port] -= 1
            if not self._ports[port]:
                del self._ports[port]
                protocol, name, local = port
                for family in FAMILIES:
                    self.table.drop_set(names.named_port(protocol, name, local=local, family=family))

    def _is_local(self, pod: PolicyPod | None) -> bool:
        return pod is not None and pod.node == self._node


def _direction(policy: NetworkPolicy, incoming: bool) -> tuple[PolicyRule, ...] | None:
    return policy.ingress if incoming else policy.egress


def _selected(peer: PodPeer, labels: Mapping[str, str] | None) -> bool:
    return labels is not None and peer.namespaces.matches(labels)


def _family(said: str) -> int:
    return 6 if ":" in said else 4
