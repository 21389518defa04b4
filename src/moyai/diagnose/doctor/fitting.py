"""The largest cluster that a cloud can carry, by the planner that `up` uses: what is proposed here, `plan` accepts.

It is pure. Only what the node image holds is taken for granted: an image can be uploaded, and the cloud's size stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from moyai.bootstrap.cluster_plan import plan_cluster
from moyai.cloud.capabilities import Capability
from moyai.cloud.kind import CloudKind
from moyai.cloud.model import Flavor, Image, Network
from moyai.cloud.survey import Feature
from moyai.core.errors import MoyaiError, one_line
from moyai.diagnose.doctor.facts import CloudSurvey, Unknown
from moyai.plan.given_network import addresses_given
from moyai.plan.observed import Observed, Recorded
from moyai.spec.model import API_VERSION, Cluster

T = TypeVar("T")
#: What kubeadm asks of a machine, and of a control plane's. Source: Kubernetes, "Installing kubeadm", "Before you begin".
_LEAST_MB, _LEAST_CPUS = 2048, 2
#: More nodes in one pool are no better answer to "what fits".
_MOST_WORKERS = 100
_ANNOUNCED = "10.8.0.112/28"


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
    home = _home(observed)
    if home is not None and home.foreign:
        # as a rule, the owner of a network alone may let ports send from other addresses
        observed = replace(observed, sources_allowed=False)
    plane = _smallest(observed.flavors, cpus=_LEAST_CPUS)
    worker = _smallest(observed.flavors, cpus=1)
    if plane is None or worker is None:
        return Fit(None, f"no flavor has {_LEAST_CPUS} CPUs and {_LEAST_MB:,} MB, as a control plane needs")
    refused = ""
    # several control planes need an address that the user of a network has to choose
    for planes in (1,) if home else (3, 1):
        proposals = _Proposals(
            facts.name, observed, kind=kind, planes=planes, flavors=(plane, worker), home=home, serves=facts.serves
        )
        refused = proposals.refusal(1)
        if not refused:
            return proposals.largest()
    return Fit(None, refused)


def _home(observed: Observed) -> Network | None:
    """A network that exists, where the user may not make one with a way out: the one that gives away most addresses."""
    offered = observed.capabilities
    if {Capability.ROUTERS, Capability.FLOATING_IPS} <= offered or Capability.EXISTING_NETWORKS not in offered:
        return None
    sizes = {one.network_id: addresses_given(one) for one in observed.subnets if one.dhcp and ":" not in one.cidr}
    fit = (one for one in observed.networks if one.id in sizes and not one.external)
    return max(fit, key=lambda one: (sizes[one.id], one.name), default=None)


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
        networks=_known(facts.networks),
        subnets=() if isinstance(facts.subnets, Unknown) else facts.subnets,
        quotas=() if isinstance(facts.quotas, Unknown) else facts.quotas,
        capabilities=_known(facts.capabilities),
        login=_known(facts.own_login),
        sources_allowed=Feature.SOURCE_ADDRESSES in _known(facts.features),
        needs_tags=kind.needs_tags,
        starts_by_script=kind.starts_by_script,
    )


class _Proposals:
    """Clusters that differ in the number of their workers."""

    def __init__(
        self,
        cloud: str,
        observed: Observed,
        *,
        kind: CloudKind,
        planes: int,
        flavors: tuple[Flavor, Flavor],
        home: Network | None,
        serves: bool,
    ) -> None:
        self._cloud, self._observed, self._kind = cloud, observed, kind
        self._planes, self._flavors, self._home = planes, flavors, home
        self._announces = not (Capability.LOAD_BALANCERS in observed.capabilities or serves or home)

    def spec(self, workers: int) -> dict[str, Any]:
        plane, worker = self._flavors
        zones = list(self._observed.zones)
        pool = {"name": "workers", "replicas": workers, "flavor": worker.name, "zones": zones}
        spec: dict[str, Any] = {
            "cloud": self._cloud,
            "controlPlane": {"replicas": self._planes, "flavor": plane.name, "zones": zones[: self._planes]},
            "nodePools": [pool],
            "network": {"mode": "auto", **self._network()},
        }
        if self._announces and self._observed.sources_allowed:
            # the end of the addresses that moyai gives away in its default range
            spec["services"] = {"announce": {"ranges": [_ANNOUNCED]}}
        return {"apiVersion": API_VERSION, "kind": "Cluster", "metadata": {"name": "demo"}, "spec": spec}

    def _network(self) -> dict[str, Any]:
        """Only where the choice is not the cloud's."""
        if self._home:
            return {"existing": {"network": self._home.name or self._home.id}, "disableExternalNetwork": True}
        names = sorted(network.name for network in self._observed.networks if network.external)
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
