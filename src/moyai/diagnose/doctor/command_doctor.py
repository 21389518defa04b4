"""The doctor's whole report: the cloud's facts, what they mean, a spec's own demands, and the largest spec that fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from moyai.cloud.capabilities import Cloud
from moyai.cloud.survey import Feature
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, one_line
from moyai.core.paths import Paths
from moyai.diagnose.doctor.ask import ask
from moyai.diagnose.doctor.facts import CloudSurvey, Unknown
from moyai.diagnose.doctor.finding import Finding, State
from moyai.diagnose.doctor.findings import findings
from moyai.diagnose.doctor.fitting import Fit, fit
from moyai.lifecycle.observe import Answers
from moyai.lifecycle.up import preview
from moyai.plan.demands import newest_image
from moyai.spec.model import Cluster

T = TypeVar("T")


@dataclass(frozen=True)
class DoctorReport:
    """``possible``: whether the spec can be built now; None where none was given."""

    cloud: str
    findings: tuple[Finding, ...]
    fit: Fit
    possible: bool | None

    @property
    def well(self) -> bool:
        """Whether the spec can be built; where none was given, whether any cluster can."""
        return self.fit.spec is not None if self.possible is None else self.possible

    def data(self) -> dict[str, Any]:
        return {
            "cloud": self.cloud,
            "findings": [one.data() for one in self.findings],
            "largest": self.fit.spec,
            "limit": self.fit.why,
            "possible": self.possible,
        }


def doctor(cloud: Cloud, *, image: str, paths: Paths, clock: Clock, spec: Cluster | None = None) -> DoctorReport:
    """``image``: name of the node image that a cluster without a choice of its own needs. Nothing is made.

    Raises MoyaiError where nobody can log in.
    """
    facts = ask(cloud, clock)
    wanted = _spec(spec, cloud, facts=facts, paths=paths, clock=clock) if spec else None
    return DoctorReport(
        cloud=cloud.name,
        findings=(*findings(facts), *_image(facts, image), *([wanted] if wanted else [])),
        fit=fit(facts, cloud.kind),
        possible=wanted.state is State.OK if wanted else None,
    )


def _image(facts: CloudSurvey, wanted: str) -> Iterator[Finding]:
    if isinstance(facts.images, Unknown):
        yield Finding("node image", State.UNKNOWN, facts.images.why)
        return
    found = newest_image(facts.images, wanted)
    if found is None:
        hint = "no cluster can be built without it: `moyai image build` and `moyai image upload` make one"
        yield Finding("node image", State.MISSING, f"there is no image {wanted}", hint)
    elif not found.ready:
        yield Finding("node image", State.MISSING, f"{wanted} is {found.status.lower()}", "wait, or upload it again")
    else:
        yield Finding("node image", State.OK, wanted)


def _answers(facts: CloudSurvey, spec: Cluster) -> Answers:
    existing = spec.spec.network.existing
    # a network that exists has policies of its own
    general = not (existing.network or existing.router)
    return Answers(
        networks=_known(facts.networks),
        subnets=_known(facts.subnets),
        flavors=_known(facts.flavors),
        zones=_known(facts.zones),
        images=_known(facts.images),
        quotas=_known(facts.quotas),
        login=_known(facts.own_login),
        balancer_providers=_known(facts.providers),
        sources_allowed=Feature.SOURCE_ADDRESSES in facts.features
        if general and not isinstance(facts.features, Unknown)
        else None,
        permitted=_known(facts.capabilities) if general else None,
    )


def _known(fact: T | Unknown) -> T | None:
    return None if isinstance(fact, Unknown) else fact


def _spec(spec: Cluster, cloud: Cloud, *, facts: CloudSurvey, paths: Paths, clock: Clock) -> Finding:
    """By the look that `plan` and `up` take, which asks the cloud only for what the survey does not have."""
    subject = f"cluster {spec.name}"
    try:
        plan = preview(spec, cloud, paths=paths, clock=clock, answers=_answers(facts, spec))
    except MoyaiError as error:
        return Finding(subject, State.MISSING, one_line(error), "change the spec or the cloud: `plan` and `up` refuse it")
    if not plan:
        return Finding(subject, State.OK, "it is there, and nothing is to be done")
    return Finding(subject, State.OK, f"it can be built or brought to its spec: {len(plan.steps)} steps")
