"""Chains that several groups of pods jump to, and the sets that their rules look into.

Always holds: a chain is there while somebody uses it, and a set while a chain refers to it; a pod that comes or goes changes
elements of sets and no rule.
"""

from __future__ import annotations

from collections.abc import Callable

from moyai.kube.objects.policy import PodPeer, PolicyPod
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.compiled import FAMILIES, Compiled, NamedPort
from moyai.plan.network_policy.pod_index import PodIndex, Watchers
from moyai.plan.network_policy.ruleset import Form, PolicyTable, SetKind


class SharedChains:
    """``is_local``: whether a pod is of this node."""

    def __init__(self, table: PolicyTable, pods: PodIndex, *, is_local: Callable[[PolicyPod | None], bool]) -> None:
        self._table, self._pods, self._is_local = table, pods, is_local
        self._uses: dict[str, int] = {}
        self._compiled: dict[str, Compiled] = {}
        self._peers: dict[PodPeer, int] = {}
        self._peer_watchers: Watchers[PodPeer] = Watchers()
        self._ports: dict[NamedPort, int] = {}
        self._counters: dict[str, int] = {}

    def count(self, counter: str) -> None:
        """One more rule counts by this name."""
        self._counters[counter] = self._counters.get(counter, 0) + 1
        if self._counters[counter] == 1:
            self._table.add_counter(counter)

    def count_no_more(self, counter: str) -> None:
        self._counters[counter] -= 1
        if not self._counters[counter]:
            del self._counters[counter]
            self._table.drop_counter(counter)

    def use(self, chain: str, content: Callable[[], Compiled]) -> None:
        """One more refers to the chain; the first gives it its content."""
        self._uses[chain] = self._uses.get(chain, 0) + 1
        if self._uses[chain] == 1:
            self._write(chain, content())

    def leave(self, chain: str) -> None:
        self._uses[chain] -= 1
        if not self._uses[chain]:
            del self._uses[chain]
            self._table.drop_chain(chain)
            self._let_go(self._compiled.pop(chain))

    def rewrite(self, chain: str, content: Callable[[], Compiled]) -> None:
        """The chain has other rules now, if it is there."""
        if chain in self._uses:
            self._write(chain, content())

    def namespace_changed(self, changed: Callable[[PodPeer], bool], *, addresses: list[str]) -> None:
        """``changed``: whether a selector of namespaces selects it now and did not before, or the reverse. ``addresses``: of
        its pods."""
        for peer in self._peers:
            if not peer.namespace and changed(peer):
                for address in addresses:
                    self._join(peer, address, pod=self._pods.owner(address))

    def pod_changed(self, address: str, before: PolicyPod | None, *, now: PolicyPod | None) -> None:
        """The address has another pod, or its pod has changed."""
        for peer in {one for each in (before, now) if each for one in self._peer_watchers.candidates(each)}:
            self._join(peer, address, pod=now)
        for each, gone in ((before, True), (now, False)):
            for protocol, name, number in each.ports if each else ():
                self._name_port(protocol, name, element=(address, number), pod=each, gone=gone)

    def _write(self, chain: str, made: Compiled) -> None:
        former = self._compiled.get(chain)
        self._compiled[chain] = made
        self._hold(made)
        self._table.set_chain(chain, made.rules)
        if former:
            self._let_go(former)

    def _hold(self, made: Compiled) -> None:
        for counter in made.counters:
            self.count(counter)
        for peer in made.peers:
            self._peers[peer] = self._peers.get(peer, 0) + 1
            if self._peers[peer] == 1:
                for family in FAMILIES:
                    self._table.add_set(names.pods(peer, family), SetKind(Form.ADDRESS, family))
                self._peer_watchers.add(peer, peer)
                sets = {family: names.pods(peer, family) for family in FAMILIES}
                for address in self._pods.selected(peer):
                    self._table.put(sets[names.family_of(address)], address)
        for port in made.ports:
            self._ports[port] = self._ports.get(port, 0) + 1
            if self._ports[port] == 1:
                protocol, name, local = port
                for family in FAMILIES:
                    where = names.named_port(protocol, name, local=local, family=family)
                    self._table.add_set(where, SetKind(Form.PORT, family))
                for address, number in self._pods.with_port(protocol, name):
                    if not local or self._is_local(self._pods.owner(address)):
                        where = names.named_port(protocol, name, local=local, family=names.family_of(address))
                        self._table.put(where, (address, number))

    def _let_go(self, made: Compiled) -> None:
        for counter in made.counters:
            self.count_no_more(counter)
        for peer in made.peers:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]
                self._peer_watchers.remove(peer, peer)
                for family in FAMILIES:
                    self._table.drop_set(names.pods(peer, family))
        for port in made.ports:
            self._ports[port] -= 1
            if not self._ports[port]:
                del self._ports[port]
                protocol, name, local = port
                for family in FAMILIES:
                    self._table.drop_set(names.named_port(protocol, name, local=local, family=family))

    def _join(self, peer: PodPeer, address: str, *, pod: PolicyPod | None) -> None:
        name = names.pods(peer, names.family_of(address))
        if pod is not None and self._pods.matches(peer, pod):
            self._table.put(name, address)
        else:
            self._table.discard(name, address)

    def _name_port(self, protocol: str, name: str, *, element: tuple[str, int], pod: PolicyPod | None, gone: bool) -> None:
        for local in (True, False):
            if (protocol, name, local) not in self._ports or (local and not self._is_local(pod)):
                continue
            where = names.named_port(protocol, name, local=local, family=names.family_of(element[0]))
            if gone:
                self._table.discard(where, element)
            else:
                self._table.put(where, element)
