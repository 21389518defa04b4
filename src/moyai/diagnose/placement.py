"""Which nodes could take a pod, and why each of the others does not: the scheduler's rules that users meet.

Pure. What is judged here: readiness, cordons, taints, node selectors and required affinity, where a disk can be attached,
attach limits, CPU, memory and the number of pods. What is not (affinity between pods, spreading, preferences, extended
resources) is left to the scheduler's own words, so an empty answer means "no reason known here", never "it fits".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from moyai.kube.objects.node import CONTROL_PLANE, UNINITIALIZED, Taint
from moyai.kube.objects.scheduling import PodRequirements, Terms, matches

#: Where a node is: the well-known label first, then the label of a CSI driver (of whichever cloud).
_ZONE_LABELS = tuple(
    map(
        re.compile,
        (r"topology\.kubernetes\.io/zone", r"topology\..*\bcsi\b.*/zone", r"failure-domain\.beta\.kubernetes\.io/zone"),
    )
)


def _is_zone(label: str) -> bool:
    return any(known.fullmatch(label) for known in _ZONE_LABELS)


Kind = Literal["zone", "driver", "ready", "cordoned", "taint", "selector", "cpu", "memory", "pods", "attach"]
_MI = 1 << 20


@dataclass(frozen=True)
class Disk:
    """A volume that the pod needs. ``terms``: from which nodes it can be reached. ``at``: nodes it is attached to now."""

    claim: str
    volume: str
    driver: str = ""
    terms: Terms = ()
    at: frozenset[str] = frozenset()

    @property
    def zones(self) -> tuple[str, ...]:
        found = [value for term in self.terms for one in term if _is_zone(one.key) for value in one.values]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class CandidateNode:
    """``cpu``, ``memory``, ``pods``: what no pod has asked for yet (cores, bytes, pods).

    ``limits``: CSI driver → how many volumes may be attached, -1 for no limit; a driver that is not in it does not run there.
    ``attached``: driver → how many are.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    cordoned: bool = False
    cpu: float = 0.0
    memory: float = 0.0
    pods: int = 1
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    attached: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def zone(self) -> str:
        found = (self.labels[key] for known in _ZONE_LABELS for key in sorted(self.labels) if known.fullmatch(key))
        return next(found, "")


@dataclass(frozen=True)
class Obstacle:
    """One reason why a node does not take a pod; ``text`` continues a sentence that begins with the node's name."""

    kind: Kind
    text: str


#: Taints that only repeat what another obstacle says in plainer words.
_ECHOES = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/unschedulable")
_PLAIN = {
    CONTROL_PLANE: "is kept for the control plane",
    "node.kubernetes.io/out-of-service": "is out of service",
    "node.cloudprovider.kubernetes.io/shutdown": "is shut off in the cloud",
    UNINITIALIZED: "is not initialised by the cloud controller manager yet",
    "node.kubernetes.io/disk-pressure": "is short of disk space",
    "node.kubernetes.io/memory-pressure": "is short of memory",
    "node.kubernetes.io/pid-pressure": "is short of process numbers",
    "node.kubernetes.io/network-unavailable": "has no route to its pods yet",
}


def obstacles(node: CandidateNode, wanted: PodRequirements, *, disks: Iterable[Disk]) -> tuple[Obstacle, ...]:
    """Everything known that keeps the pod from this node, the lasting reasons first."""
    disks = tuple(disks)
    found = [
        *_unreachable(node, disks),
        *_not_selected(node, wanted),
        *_not_in_service(node),
        *_not_tolerated(node, wanted),
        *_no_room(node, wanted),
        *_full(node, disks),
    ]
    return tuple(dict.fromkeys(found))


def _unreachable(node: CandidateNode, disks: tuple[Disk, ...]) -> Iterable[Obstacle]:
    for disk in disks:
        if matches(disk.terms, node.labels):
            continue
        if disk.driver and disk.driver not in node.limits and _keys(disk.terms) - set(node.labels):
            yield Obstacle("driver", f"does not run the CSI driver {disk.driver}")
        elif disk.zones:
            yield Obstacle("zone", f"is in {node.zone or 'no zone'}, not in {' or '.join(disk.zones)} as the disk")
        else:
            yield Obstacle("zone", f"cannot reach the disk ({_words(disk.terms)})")


def _not_selected(node: CandidateNode, wanted: PodRequirements) -> Iterable[Obstacle]:
    missing = [f"{key}={value}" for key, value in wanted.selector.items() if node.labels.get(key) != value]
    if not matches(wanted.terms, node.labels):
        missing.append(_words(wanted.terms))
    if missing:
        yield Obstacle("selector", f"does not have what the pod selects ({', '.join(missing)})")


def _not_in_service(node: CandidateNode) -> Iterable[Obstacle]:
    if not node.ready:
        yield Obstacle("ready", "is not Ready")
    if node.cordoned:
        yield Obstacle("cordoned", "is cordoned")


def _not_tolerated(node: CandidateNode, wanted: PodRequirements) -> Iterable[Obstacle]:
    for taint in node.taints:
        if taint.effect == "PreferNoSchedule" or taint.key in _ECHOES or any(t.covers(taint) for t in wanted.tolerations):
            continue
        why = _PLAIN.get(taint.key, "has a taint that the pod does not tolerate")
        yield Obstacle("taint", f"{why} ({_taint(taint)})")


def _no_room(node: CandidateNode, wanted: PodRequirements) -> Iterable[Obstacle]:
    if wanted.cpu > node.cpu:
        yield Obstacle("cpu", f"has {cores(node.cpu)} CPUs free, the pod asks for {cores(wanted.cpu)}")
    if wanted.memory > node.memory:
        have, asked = mebibytes(node.memory), mebibytes(wanted.memory)
        yield Obstacle("memory", f"has {have} memory free, the pod asks for {asked}")
    if node.pods < 1:
        yield Obstacle("pods", "has as many pods as it may")


def _full(node: CandidateNode, disks: tuple[Disk, ...]) -> Iterable[Obstacle]:
    for driver in dict.fromkeys(disk.driver for disk in disks if disk.driver):
        new = sum(disk.driver == driver and node.name not in disk.at for disk in disks)
        limit, there = node.limits.get(driver, -1), node.attached.get(driver, 0)
        if 0 <= limit < there + new:
            yield Obstacle("attach", f"has {there} volumes attached and may have {limit}")


def _keys(terms: Terms) -> set[str]:
    return {one.key for term in terms for one in term}


def _words(terms: Terms) -> str:
    return " or ".join(", ".join(map(str, term)) for term in terms)


def _taint(taint: Taint) -> str:
    return f"{taint.key}{f'={taint.value}' if taint.value else ''}:{taint.effect}"


def cores(value: float) -> str:
    return f"{max(value, 0):.3f}".rstrip("0").rstrip(".") or "0"


def mebibytes(value: float) -> str:
    return f"{max(value, 0) / _MI:.0f} Mi"
