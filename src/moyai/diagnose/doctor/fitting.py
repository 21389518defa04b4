"""The largest cluster that a cloud can carry, by the planner that `up` uses: what is proposed here, `plan` accepts.

It is pure. Only what the node image holds is taken for granted: an image can be uploaded, and the cloud's size stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from moyai.bootstrap.cluster_plan import plan_cluster
from moyai.cloud.kind import CloudKind
from moyai.cloud.model import Flavor, Image
from moyai.cloud.survey import Feature
from moyai.core.errors import MoyaiError, one_line
from moyai.diagnose.doctor.facts import CloudSurvey, Unknown
from moyai.plan.observed import Observed, Recorded
from moyai.spec.model import API_VERSION, Cluster

T = TypeVar("T")
#: What kubeadm asks of a machine, and of a control plane's. Source: Kubernetes, "Installing kubeadm", "Before you begin".
_LEAST_MB, _LEAST_CPUS = 2048, 2
#: More nodes in one pool are no better answer to "what fits".
_MOST_WORKERS = 100


@dataclass(frozen=True)
class Fit:
    """``spec``: in the form of a spec's file, None where no cluster fits. ``why``: why no larger one, or none at all."""

    spec: dict[str, Any] | None
    why: str = ""


def fit(facts: CloudSurvey, kind: CloudKind) -> Fit:
    """Three control planes rather than one; then as many workers as there is room for, one at least."""
    try:
        observed = _observed(facts, kind)
    except _NotToldError as error:
        return Fit(None, f"the cloud does not report enough: {error}")
    plane = _smallest(observed.flavors, cpus=_LEAST_CPUS)
    worker = _smallest(observed.flavors, cpus=1)
    if plane is None or worker is None:
        return Fit(None, f"no flavor has {_LEAST_CPUS} CPUs and {_LEAST_MB:,} MB, as a control plane needs")
    refused = ""
    for planes in (3, 1):
        proposals = _Proposals(facts.name, observed, kind=kind, planes=planes, flavors=(plane, worker))
        refused = proposals.refusal(1)
        if not refused:
            return proposals.largest()
    return Fit(None, refused)


def _smallest(flavors: Iterable[Flavor], *, cpus: int) -> Flavor | None:
    enough = [one for one in flavors if one.vcpus >= cpus and one.memory_mb >= _LEAST_MB]
    return min(enough, key=lambda one: (one.memory_mb, one.vcpus, one.name), default=None)


class _NotToldError(Exception):
    """The planner needs a fact that the cloud did not give."""


def _known(fact: T | Unknown) -> T:
    if isinstance(fact, Unknown):
        raise _NotToldError(fact.why)
    return fact


def _observed(facts: CloudSurvey, kind: CloudKind) -> Observed:
    """What the planner looks at, of a project without this cluster."""
    return Observed(
        flavors=_known(facts.flavors),
        zones=_known(facts.zones),
        networks=tuple(one.network for one in _known(facts.external)),
        quotas=() if isinstance(facts.quotas, Unknown) else facts.quotas,
        capabilities=_known(facts.capabilities),
        login=_known(facts.own_login),
        sources_allowed=Feature.SOURCE_ADDRESSES in _known(facts.features),
        needs_tags=kind.needs_tags,
        starts_by_script=kind.starts_by_script,
    )


class _Proposals:
    """Clusters that differ in the number of their workers."""

    def __init__(self, cloud: str, observed: Observed, *, kind: CloudKind, planes: int, flavors: tuple[Flavor, Flavor]) -> None:
        self._cloud, self._observed, self._kind = cloud, observed, kind
        self._planes, self._flavors = planes, flavors

    def spec(self, workers: int) -> dict[str, Any]:
        plane, worker = self._flavors
        zones = list(self._observed.zones)
        pool = {"name": "workers", "replicas": workers, "flavor": worker.name, "zones": zones}
        spec: dict[str, Any] = {
            "cloud": self._cloud,
            "controlPlane": {"replicas": self._planes, "flavor": plane.name, "zones": zones[: self._planes]},
            "nodePools": [pool],
            "network": {"mode": "auto", **self._external()},
        }
        return {"apiVersion": API_VERSION, "kind": "Cluster", "metadata": {"name": "demo"}, "spec": spec}

    def _external(self) -> dict[str, str]:
        """Only where the choice is not the cloud's."""
        names = sorted(network.name for network in self._observed.networks)
        return {"externalNetwork": names[0]} if len(names) > 1 else {}

    def largest(self) -> Fit:
        """One worker is known to fit. By halves: a cluster that fits has room for every smaller one."""
        fits, refused = 1, _MOST_WORKERS + 1
        why = f"no more than {_MOST_WORKERS} workers are tried"
        while refused - fits > 1:
            middle = (fits + refused) // 2
            if refusal := self.refusal(middle):
                refused, why = middle, refusal
            else:
                fits = middle
        return Fit(self.spec(fits), why)

    def refusal(self, workers: int) -> str:
        """Why the planner refuses it; empty where it does not."""
        try:
            cluster = Cluster.model_validate(self.spec(workers))
            image = Image("any", cluster.spec.image_name, "ready")
            observed = replace(self._observed, images=(image,))
            plan_cluster(cluster, observed, kind=self._kind, recorded=Recorded(cluster.name, "doctor"))
        except MoyaiError as error:
            return one_line(error)
        return ""
