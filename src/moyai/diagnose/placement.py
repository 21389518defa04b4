"""Which nodes could take a pod, and why each of the others does not: the scheduler's rules that users meet.

Pure. What is judged here: readiness, cordons, taints, node selectors and required affinity, where a disk can be attached,
attach limits, CPU, memory and the number of pods. What is not (affinity between pods, spreading, preferences, extended
resources) is left to the scheduler's own words, so an empty answer means "no reason known here", never "it fits".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from moyai.kube.objects import Taint

#: Where a node is: the well-known label first, then the CSI driver's own.
ZONE_LABELS = (
    "topology.kubernetes.io/zone",
    "topology.cinder.csi.openstack.org/zone",
    "failure-domain.beta.kubernetes.io/zone",
)

Kind = Literal["zone", "driver", "ready", "cordoned", "taint", "selector", "cpu", "memory", "pods", "attach"]
_MI = 1 << 20


@dataclass(frozen=True)
class Requirement:
    """One line of a node selector term. ``operator``: In, NotIn, Exists, DoesNotExist, Gt, Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt" if value is not None and value.lstrip("-").isdigit() and self.values:
                return int(value) > int(self.values[0]) if self.operator == "Gt" else int(value) < int(self.values[0])
            case _:
                return False

    def __str__(self) -> str:
        match self.operator:
            case "In":
                return f"{self.key}={'|'.join(self.values)}"
            case "NotIn":
                return f"{self.key}!={'|'.join(self.values)}"
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case _:
                return f"{self.key} {self.operator} {' '.join(self.values)}"


#: All requirements of a term must hold; one term of several must.
Terms = tuple[tuple[Requirement, ...], ...]


def matches(terms: Terms, labels: Mapping[str, str]) -> bool:
    return not terms or any(all(one.holds(labels) for one in term) for term in terms)


@dataclass(frozen=True)
class Toleration:
    """As in a pod: ``key`` empty with operator Exists tolerates everything, ``effect`` empty every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def covers(self, taint: Taint) -> bool:
        if self.effect and self.effect != taint.effect:
            return False
        if self.operator == "Exists":
            return not self.key or self.key == taint.key
        return self.key == taint.key and self.value == taint.value


@dataclass(frozen=True)
class Wish:
    """What a pod asks of its node. ``cpu`` in cores, ``memory`` in bytes."""

    cpu: float = 0.0
    memory: float = 0.0
    selector: Mapping[str, str] = field(default_factory=dict[str, str])
    terms: Terms = ()
    tolerations: tuple[Toleration, ...] = ()


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
        found = [value for term in self.terms for one in term if one.key in ZONE_LABELS for value in one.values]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class NodeFacts:
    """``free``: what no pod has asked for yet (cores, bytes, pods). ``limits``: CSI driver → how many volumes may be attached,
    -1 for no limit; a driver that is not in it does not run there. ``attached``: driver → how many are."""

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
        return next((self.labels[key] for key in ZONE_LABELS if key in self.labels), "")


@dataclass(frozen=True)
class Obstacle:
    """One reason why a node does not take a pod; ``text`` continues a sentence that begins with the node's name."""

    kind: Kind
    text: str


#: Taints that only repeat what another obstacle says in plainer words.
_ECHOES = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/unschedulable")
_PLAIN = {
    "node-role.kubernetes.io/control-plane": "is kept for the control plane",
    "node.kubernetes.io/out-of-service": "is out of service",
    "node.cloudprovider.kubernetes.io/shutdown": "is shut off in the cloud",
    "node.cloudprovider.kubernetes.io/uninitialized": "is not initialised by the cloud controller manager yet",
    "node.kubernetes.io/disk-pressure": "is short of disk space",
    "node.kubernetes.io/memory-pressure": "is short of memory",
    "node.kubernetes.io/pid-pressure": "is short of process numbers",
    "node.kubernetes.io/network-unavailable": "has no route to its pods yet",
}


def obstacles(node: NodeFacts, wish: Wish, disks: Iterable[Disk]) -> tuple[Obstacle, ...]:
    """Everything known that keeps the pod from this node, the lasting reasons first."""
    found: list[Obstacle] = []
    disks = tuple(disks)
    for disk in disks:
        if matches(disk.terms, node.labels):
            continue
        if disk.driver and disk.driver not in node.limits and _keys(disk.terms) - set(node.labels):
            found.append(Obstacle("driver", f"does not run the CSI driver {disk.driver}"))
        elif disk.zones:
            found.append(Obstacle("zone", f"is in {node.zone or 'no zone'}, not in {' or '.join(disk.zones)} as the disk"))
        else:
            found.append(Obstacle("zone", f"cannot reach the disk ({_words(disk.terms)})"))
    wanted = [f"{key}={value}" for key, value in wish.selector.items() if node.labels.get(key) != value]
    if not matches(wish.terms, node.labels):
        wanted.append(_words(wish.terms))
    if wanted:
        found.append(Obstacle("selector", f"does not have what the pod selects ({', '.join(wanted)})"))
    if not node.ready:
        found.append(Obstacle("ready", "is not Ready"))
    if node.cordoned:
        found.append(Obstacle("cordoned", "is cordoned"))
    found += [
        Obstacle("taint", f"{_PLAIN.get(taint.key, 'has a taint that the pod does not tolerate')} ({_taint(taint)})")
        for taint in node.taints
        if taint.effect != "PreferNoSchedule"
        and taint.key not in _ECHOES
        and not any(t.covers(taint) for t in wish.tolerations)
    ]
    if wish.cpu > node.cpu:
        found.append(Obstacle("cpu", f"has {cores(node.cpu)} CPUs free, the pod asks for {cores(wish.cpu)}"))
    if wish.memory > node.memory:
        found.append(Obstacle("memory", f"has {mebibytes(node.memory)} memory free, the pod asks for {mebibytes(wish.memory)}"))
    if node.pods < 1:
        found.append(Obstacle("pods", "has as many pods as it may"))
    found += _full(node, disks)
    return tuple(dict.fromkeys(found))


def _full(node: NodeFacts, disks: tuple[Disk, ...]) -> Iterable[Obstacle]:
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


_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def quantity(text: object) -> float:
    """A Kubernetes quantity (``500m``, ``2Gi``, ``1e3``) as a number; 0 for what is none."""
    word = str(text).strip()
    for suffix, factor in _BINARY.items():
        if word.endswith(suffix):
            return _number(word.removesuffix(suffix)) * factor
    if word and word[-1] in _DECIMAL:
        return _number(word[:-1]) * _DECIMAL[word[-1]]
    return _number(word)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return 0.0
