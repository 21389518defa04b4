"""Which pod has which address, and which addresses a selector selects.

Always holds: an address belongs to one pod, the one that is not ending where several claim it; no selector of namespaces
selects a namespace that is not known yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from moyai.kube.objects.policy import PodPeer, PolicyPod

T = TypeVar("T")
#: (address, its pod before, its pod now)
Change = tuple[str, PolicyPod | None, PolicyPod | None]


class PodIndex:
    """All pods of the cluster by address, label, namespace and named port."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Mapping[str, str]] = {}
        self._pods: dict[str, PolicyPod] = {}
        self._claims: dict[str, tuple[str, ...]] = {}
        self._owners: dict[str, PolicyPod] = {}
        self._by_label: dict[tuple[str, str, str], set[str]] = {}
        self._by_namespace: dict[str, set[str]] = {}
        self._by_port: dict[tuple[str, str], set[tuple[str, int]]] = {}

    def change(self, key: str, pod: PolicyPod | None) -> list[Change]:
        """The pod is now as said, None: gone. Returns the addresses whose pod is another one than before, or has changed."""
        before = self._pods.pop(key, None)
        if pod is not None and pod.addresses:
            self._pods[key] = pod
        touched = dict.fromkeys((*(before.addresses if before else ()), *(pod.addresses if pod else ())))
        return [change for address in touched if (change := self._settle(address, key, pod=pod))]

    def owner(self, address: str) -> PolicyPod | None:
        return self._owners.get(address)

    def in_namespace(self, name: str) -> Iterable[str]:
        return self._by_namespace.get(name, ())

    def with_port(self, protocol: str, name: str) -> Iterable[tuple[str, int]]:
        """(address, number) of the pods that call a port of theirs by this name."""
        return self._by_port.get((protocol, name), ())

    def matches(self, peer: PodPeer, pod: PolicyPod) -> bool:
        if peer.namespace:
            return pod.namespace == peer.namespace and peer.pods.matches(pod.labels)
        labels = self.namespaces.get(pod.namespace)
        return labels is not None and peer.namespaces.matches(labels) and peer.pods.matches(pod.labels)

    def selected(self, peer: PodPeer) -> Iterator[str]:
        """The addresses of the pods that the peer stands for."""
        names = (
            [peer.namespace]
            if peer.namespace
            else [n for n, labels in self.namespaces.items() if peer.namespaces.matches(labels)]
        )
        anchor = peer.pods.anchor
        for name in names:
            found = self._by_label.get((name, *anchor), ()) if anchor else self._by_namespace.get(name, ())
            yield from (address for address in found if peer.pods.matches(self._owners[address].labels))

    def _settle(self, address: str, key: str, *, pod: PolicyPod | None) -> Change | None:
        claims = [one for one in self._claims.get(address, ()) if one != key]
        if pod is not None and address in pod.addresses:
            claims.append(key)
        if claims:
            self._claims[address] = tuple(claims)
        else:
            self._claims.pop(address, None)
        before = self._owners.get(address)
        now = min((self._pods[one] for one in claims), key=lambda one: (one.ending, one.key), default=None)
        if now == before:
            return None
        if before is not None:
            self._unlist(address, before)
        if now is not None:
            self._list(address, now)
        return address, before, now

    def _list(self, address: str, pod: PolicyPod) -> None:
        self._owners[address] = pod
        self._by_namespace.setdefault(pod.namespace, set()).add(address)
        for key, value in pod.labels.items():
            self._by_label.setdefault((pod.namespace, key, value), set()).add(address)
        for protocol, name, number in pod.ports:
            self._by_port.setdefault((protocol, name), set()).add((address, number))

    def _unlist(self, address: str, pod: PolicyPod) -> None:
        del self._owners[address]
        _leave(self._by_namespace, pod.namespace, member=address)
        for key, value in pod.labels.items():
            _leave(self._by_label, (pod.namespace, key, value), member=address)
        for protocol, name, number in pod.ports:
            _leave(self._by_port, (protocol, name), member=(address, number))


class Watchers(Generic[T]):
    """Values by the selector that they wait for, so that a pod finds those that may select it without asking all."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, ...], set[T]] = {}

    def add(self, peer: PodPeer, value: T) -> None:
        self._buckets.setdefault(_bucket(peer), set()).add(value)

    def remove(self, peer: PodPeer, value: T) -> None:
        _leave(self._buckets, _bucket(peer), member=value)

    def candidates(self, pod: PolicyPod) -> Iterator[T]:
        """Those whose selector may select the pod, and all whose selector does."""
        for namespace in (pod.namespace, ""):
            yield from self._buckets.get((namespace,), ())
            for label in pod.labels.items():
                yield from self._buckets.get((namespace, *label), ())


def _bucket(peer: PodPeer) -> tuple[str, ...]:
    return (peer.namespace, *(peer.pods.anchor or ()))


K = TypeVar("K")
M = TypeVar("M")


def _leave(groups: dict[K, set[M]], key: K, *, member: M) -> None:
    """Empty groups are not kept."""
    group = groups.get(key)
    if group is not None:
        group.discard(member)
        if not group:
            del groups[key]
