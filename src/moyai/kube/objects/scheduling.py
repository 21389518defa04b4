"""What a pod asks of its node, by the scheduler's own rules: selectors, tolerations, requests.

Always holds: matching is Kubernetes' own (``Requirement.holds``, ``Toleration.covers``); nothing here decides about a pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from moyai.kube.objects.meta import part, rows, text, text_map, texts
from moyai.kube.objects.node import Taint
from moyai.kube.quantities import parse_quantity
from moyai.kube.resources import Json


@dataclass(frozen=True, order=True)
class Requirement:
    """One line of a selector of labels. ``operator``: In, NotIn, Exists, DoesNotExist, and for nodes also Gt and Lt. One of
    another name never holds."""

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
class Capacity:
    """What a node has to give, or a pod takes. ``cpu`` in cores, ``memory`` in bytes."""

    cpu: float = 0.0
    memory: float = 0.0
    pods: int = 0


@dataclass(frozen=True)
class PodRequirements:
    """What a pod asks of its node. ``cpu`` in cores, ``memory`` in bytes."""

    cpu: float = 0.0
    memory: float = 0.0
    selector: Mapping[str, str] = field(default_factory=dict[str, str])
    terms: Terms = ()
    tolerations: tuple[Toleration, ...] = ()


def parse_requirements(pod: Json) -> PodRequirements:
    spec, asked = part(pod, "spec"), parse_requests(pod)
    required = part(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    return PodRequirements(
        cpu=asked.cpu,
        memory=asked.memory,
        selector=text_map(spec, "nodeSelector"),
        terms=parse_terms(required),
        tolerations=tuple(
            Toleration(text(one, "key"), text(one, "operator") or "Equal", text(one, "value"), text(one, "effect"))
            for one in rows(spec, "tolerations")
        ),
    )


def parse_requests(pod: Json) -> Capacity:
    """The containers together, or the largest init container, as the scheduler counts."""
    spec = part(pod, "spec")
    starters = rows(spec, "initContainers")
    sidecars = [one for one in starters if one.get("restartPolicy") == "Always"]

    def total(what: str) -> float:
        def asked(container: Json) -> float:
            return parse_quantity(part(container, "resources", "requests").get(what, 0))

        steady = sum(map(asked, [*rows(spec, "containers"), *sidecars]))
        first = [asked(one) for one in starters if one not in sidecars]
        return max([steady, *first]) + parse_quantity(part(spec, "overhead").get(what, 0))

    return Capacity(total("cpu"), total("memory"), 1)


def parse_allocatable(node: Json) -> Capacity:
    room = part(node, "status", "allocatable")
    cpu, memory, pods = (parse_quantity(room.get(what, 0)) for what in ("cpu", "memory", "pods"))
    return Capacity(cpu, memory, int(pods))


def parse_terms(selector: Json) -> Terms:
    """Of a node selector (a pod's required affinity, a volume's)."""

    def lines(term: Json) -> Iterable[Json]:
        yield from rows(term, "matchExpressions")
        # matchFields knows one field, the node's name, which every node also has as a label
        yield from ({**one, "key": "kubernetes.io/hostname"} for one in rows(term, "matchFields"))

    return tuple(
        tuple(Requirement(text(one, "key"), text(one, "operator"), texts(one, "values")) for one in lines(term))
        for term in rows(selector, "nodeSelectorTerms")
    )
