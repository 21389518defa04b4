"""What the doctor says of a cloud: each fact by itself, and a proposal that the planner accepts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from moyai.cloud.capabilities import ALTERNATIVES, Capability
from moyai.cloud.memory import MemoryCloud
from moyai.cloud.model import Image
from moyai.cloud.survey import CloudService, Feature, OwnIdentity, ServerCertificate
from moyai.core.errors import CredentialsRefused, Retriable
from moyai.core.paths import Paths
from moyai.diagnose.doctor.ask import ask
from moyai.diagnose.doctor.command_doctor import DoctorReport, doctor
from moyai.diagnose.doctor.facts import CloudSurvey
from moyai.diagnose.doctor.finding import Finding, State
from moyai.diagnose.doctor.findings import findings
from moyai.diagnose.doctor.fitting import fit
from moyai.spec.model import Cluster
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import memory
from tests.unit.test_given_network import corp

IMAGE = Cluster().spec.image_name


def facts_of(cloud: MemoryCloud) -> CloudSurvey:
    return ask(cloud, FakeClock())


def found(facts: CloudSurvey, subject: str) -> Finding:
    return next(one for one in findings(facts) if one.subject == subject)


def examine(cloud: MemoryCloud, folder: Any, *, spec: dict[str, Any] | None = None) -> DoctorReport:
    wanted = Cluster.model_validate({"spec": {"cloud": "memory", **spec}}) if spec else None
    return doctor(cloud, image=IMAGE, paths=Paths(folder / "cache", folder / "state"), clock=FakeClock(), spec=wanted)


def with_image(cloud: MemoryCloud) -> MemoryCloud:
    cloud.store.images.put(Image(cloud.store.new_id(), IMAGE, "ACTIVE"))
    return cloud


def test_a_cloud_that_has_all_has_nothing_to_be_said_against_it(tmp_path: Any) -> None:
    report = examine(with_image(memory()), tmp_path)
    assert [one for one in report.findings if one.state is not State.OK] == []
    assert report.well


@pytest.mark.parametrize("absent", sorted(set(Capability) - ALTERNATIVES))
def test_each_absence_says_what_it_costs(absent: Capability) -> None:
    facts = facts_of(memory(capabilities=set(Capability) - {absent}))
    told = found(facts, absent.value)
    assert told.state is State.MISSING
    assert told.advice


@pytest.mark.parametrize("lacking", [Feature.SOURCE_ADDRESSES, Feature.SINGLE_ROUTES, Feature.NETWORK_MTU])
def test_each_feature_that_networks_lack_says_what_it_costs(lacking: Feature) -> None:
    facts = replace(facts_of(memory()), features=frozenset(Feature) - {lacking})
    assert found(facts, lacking.value).state is State.MISSING
    assert found(facts, lacking.value).advice


@pytest.mark.parametrize(("cards", "one_only"), [(False, True), (True, False)])
def test_several_control_planes_need_networks_or_cards_that_let_them_share_an_address(cards: bool, one_only: bool) -> None:
    offered = frozenset(Capability) - ({Capability.PUBLIC_CARDS} if not cards else set[Capability]())
    facts = replace(facts_of(memory()), features=frozenset[Feature](), capabilities=offered)
    assert ("one control plane only" in found(facts, Feature.SOURCE_ADDRESSES.value).advice) is one_only


@pytest.mark.parametrize(
    ("call", "subject"),
    [
        ("survey.login", "login"),
        ("survey.services", "services"),
        ("survey.features", "networks"),
        ("survey.clock_ahead", "clock"),
        ("survey.certificates", "certificates"),
        ("credentials.own_login", "controllers' logins"),
        ("quotas.quotas", "quotas"),
        ("machines.zones", "zones"),
        ("disks.zones", "zones of volumes"),
        ("disks.types", "volume types"),
        ("load_balancers.providers", "load balancer providers"),
    ],
)
def test_what_cannot_be_asked_is_unknown_and_hides_nothing_else(call: str, subject: str) -> None:
    cloud = memory()
    cloud.faults.fail_next(call, Retriable("it is busy"), times=99)
    facts = facts_of(cloud)
    told = [one for one in findings(facts) if one.state is State.UNKNOWN]
    assert [(one.subject, one.text) for one in told] == [(subject, "it is busy")]


def test_who_may_not_log_in_is_told_once() -> None:
    cloud = memory()
    cloud.faults.fail_next("account.project_id", CredentialsRefused("the cloud does not accept these credentials"), times=99)
    with pytest.raises(CredentialsRefused):
        facts_of(cloud)


def test_what_ends_soon_is_told() -> None:
    facts = facts_of(memory())
    soon, late = facts.now + timedelta(days=3), facts.now + timedelta(days=300)
    facts = replace(
        facts,
        login=OwnIdentity("token", "me", "mine", soon),
        certificates=(ServerCertificate("a:443", soon), ServerCertificate("b:443", late)),
    )
    assert found(facts, "login").state is State.MISSING
    assert found(facts, "certificate of a:443").state is State.MISSING
    assert found(facts, "certificate of b:443").state is State.OK


@pytest.mark.parametrize(
    ("ahead", "state"), [(0.4, State.OK), (-29.0, State.OK), (300.0, State.MISSING), (None, State.UNKNOWN)]
)
def test_clocks_that_are_apart_are_told(ahead: float | None, state: State) -> None:
    assert found(replace(facts_of(memory()), clock_ahead=ahead), "clock").state is state


def test_a_service_that_does_not_answer_is_told_by_its_name() -> None:
    facts = replace(
        facts_of(memory()), services=(CloudService("Nova", "http://n", "2.1 to 2.96"), CloudService("Cinder", "", fault="no"))
    )
    assert found(facts, "Nova").state is State.OK
    assert found(facts, "Cinder").text == "no"


def test_addresses_and_quotas_that_are_used_up_are_told() -> None:
    cloud = memory()
    cloud.store.limits["router"] = 0
    facts = facts_of(cloud)
    assert found(facts, "quota router").state is State.MISSING
    assert isinstance(facts.external, tuple)
    (public,) = facts.external
    assert found(replace(facts, external=(replace(public, free=0),)), "external network public").state is State.MISSING
    assert found(replace(facts, external=(replace(public, free=None),)), "external network public").state is State.UNKNOWN
    assert found(replace(facts, external=()), "external networks").state is State.MISSING


def workers(report_spec: dict[str, Any] | None) -> int:
    assert report_spec is not None
    return int(report_spec["spec"]["nodePools"][0]["replicas"])


def test_the_largest_cluster_that_fits_is_planned_and_one_more_worker_is_not(tmp_path: Any) -> None:
    cloud = with_image(memory())
    cloud.store.limits |= {"instances": 9, "cores": 40}
    fitting = fit(facts_of(cloud), cloud.kind)
    assert workers(fitting.spec) == 6, "three control planes take three of the nine"
    assert "instances" in fitting.why
    assert fitting.spec is not None
    assert examine(cloud, tmp_path, spec=fitting.spec["spec"]).possible
    fitting.spec["spec"]["nodePools"][0]["replicas"] += 1
    assert examine(cloud, tmp_path, spec=fitting.spec["spec"]).possible is False


def test_where_three_control_planes_do_not_fit_it_is_one() -> None:
    cloud = memory()
    cloud.store.limits["instances"] = 3
    fitting = fit(facts_of(cloud), cloud.kind)
    assert fitting.spec is not None
    assert fitting.spec["spec"]["controlPlane"]["replicas"] == 1
    assert workers(fitting.spec) == 2
    without_sources = replace(facts_of(memory()), features=frozenset[Feature]())
    alone = fit(without_sources, cloud.kind)
    assert alone.spec is not None
    assert alone.spec["spec"]["controlPlane"]["replicas"] == 1


def test_where_nothing_fits_it_says_why(tmp_path: Any) -> None:
    cloud = memory(capabilities=set(Capability) - {Capability.ROUTERS})
    report = examine(cloud, tmp_path)
    assert not report.well
    assert report.fit.spec is None
    assert "router" in report.fit.why
    assert found(facts_of(cloud), "routers").advice == "a cluster needs a network of yours: name it in network.existing"
    cloud = memory()
    cloud.store.flavors.clear()
    assert "no flavor" in fit(facts_of(cloud), cloud.kind).why


def test_where_users_may_not_make_routers_a_network_that_exists_is_proposed(tmp_path: Any) -> None:
    cloud = with_image(memory())
    corp(cloud)
    facts = facts_of(cloud)
    assert found(facts, "routers").state is found(facts, "floating IPs").state is State.MISSING
    fitting = fit(facts, cloud.kind)
    assert fitting.spec is not None
    section = fitting.spec["spec"]["network"]
    assert section == {"mode": "auto", "existing": {"network": "corp"}, "disableExternalNetwork": True}
    assert examine(cloud, tmp_path, spec=fitting.spec["spec"]).possible
    assert examine(cloud, tmp_path, spec={"controlPlane": {"replicas": 1}}).possible is False


def test_where_the_cloud_has_no_load_balancers_announced_addresses_are_proposed(tmp_path: Any) -> None:
    cloud = with_image(memory(capabilities=set(Capability) - {Capability.LOAD_BALANCERS}))
    cloud.store.limits["instances"] = 6
    fitting = fit(facts_of(cloud), cloud.kind)
    assert fitting.spec is not None
    assert fitting.spec["spec"]["services"] == {"announce": {"ranges": ["10.8.0.112/28"]}}
    assert workers(fitting.spec) == 3
    assert examine(cloud, tmp_path, spec=fitting.spec["spec"]).possible
    cloud.store.sources_allowed = False
    alone = fit(replace(facts_of(cloud), features=frozenset[Feature]()), cloud.kind)
    assert alone.spec is not None
    assert "services" not in alone.spec["spec"]


def test_the_report_says_whether_the_spec_can_be_built(tmp_path: Any) -> None:
    cloud = with_image(memory())
    assert examine(cloud, tmp_path, spec={"controlPlane": {"replicas": 1}}).possible
    refused = examine(cloud, tmp_path, spec={"controlPlane": {"flavor": "huge"}})
    assert refused.possible is False
    assert "'huge'" in refused.findings[-1].text
    assert len(list(cloud.store.networks)) == 1, "nothing was made"


def test_a_spec_asks_the_cloud_nothing_that_its_facts_have_answered(tmp_path: Any) -> None:
    cloud = with_image(memory())
    cloud.store.calls.clear()
    wanted = {"controlPlane": {"replicas": 1}, "loadBalancer": {"provider": "moyai"}}
    assert examine(cloud, tmp_path, spec=wanted).findings
    assert {call: times for call, times in cloud.store.calls.items() if times > 1} == {}


def test_a_fact_that_the_cloud_did_not_give_is_asked_once_more_for_the_spec(tmp_path: Any) -> None:
    cloud = with_image(memory())
    cloud.store.faults.fail_next("machines.flavors", Retriable("the cloud is busy"))
    assert examine(cloud, tmp_path, spec={"controlPlane": {"replicas": 1}}).possible


def test_the_data_are_those_of_the_text(tmp_path: Any) -> None:
    report = examine(memory(), tmp_path)
    data = report.data()
    assert {"subject": "node image", "state": "missing"}.items() <= data["findings"][-1].items()
    assert data["largest"] == report.fit.spec
