"""Which versions machines get on the way to another one: the rules of skew hold for every mixture of machines."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from moyai.cloud.model import Power, Server
from moyai.core.errors import UsageError
from moyai.core.ids import CLUSTER_TAG, TEMPLATE_KEY
from moyai.core.kubernetes_version import minor_version, version_numbers
from moyai.plan.observed import KubeFacts, KubeNode, NodeAllocation, Observed, Recorded
from moyai.plan.versions import Stage, Upgrade, Wish, decide, left, plan_links, versions_now

OLD, NEW = "1.37.1", "1.38.2"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
machines = st.lists(st.sampled_from([OLD, NEW]), max_size=5)
version = st.builds("1.{}.{}".format, st.integers(30, 40), st.integers(0, 12))


def seen(planes: list[str], workers: list[str], *, silent: bool = False) -> tuple[Observed, Recorded]:
    """A cluster of machines with these versions; ``silent``: only their kubelets say them."""
    names = {f"c-control-plane-{number}": one for number, one in enumerate(planes)}
    names |= {f"c-workers-{number}": one for number, one in enumerate(workers)}
    servers = tuple(
        Server(
            id=name,
            name=name,
            status="ACTIVE",
            zone="az1",
            flavor_name="m1.small",
            power=Power.RUNNING,
            metadata={CLUSTER_TAG: "u", **({} if silent else {TEMPLATE_KEY: f"kubernetes={one},emulates="})},
        )
        for name, one in names.items()
    )
    kube = KubeFacts(nodes=tuple(KubeNode(name, version=one) for name, one in names.items()))
    allocations = {name: NodeAllocation(index, "az1") for index, name in enumerate(names)}
    return Observed(servers=servers, kube=kube), Recorded("c", "u", allocations, ready=True)


@given(machines, machines, st.sampled_from(Stage), st.booleans())
def test_no_kubelet_is_ever_newer_than_an_api_server(planes: list[str], workers: list[str], stage: Stage, silent: bool) -> None:
    observed, recorded = seen(planes, workers, silent=silent)
    found = versions_now(Upgrade(OLD, NEW, NEW, stage), observed, recorded=recorded)
    if stage in (Stage.FORWARD, Stage.BACK):
        assert all(version_numbers(found.workers) <= version_numbers(one) for one in [*planes, found.control_planes])
        if stage is Stage.BACK:
            assert all(version_numbers(found.control_planes) >= version_numbers(one) for one in workers)
    # what an older version must be able to read is stored until the way back is closed
    if found.control_planes == NEW and stage is not Stage.FINAL:
        assert found.emulated == minor_version(OLD)


@given(machines, machines, st.sampled_from([Stage.FORWARD, Stage.BACK]))
def test_what_is_left_are_the_machines_without_the_version(planes: list[str], workers: list[str], stage: Stage) -> None:
    observed, recorded = seen(planes, workers)
    upgrade = Upgrade(OLD, NEW, NEW, stage)
    found = left(upgrade, observed, recorded=recorded)
    assert len(found) == sum(one != upgrade.end for one in (*planes, *workers))
    kinds = ["control-plane" in name for name, _ in found]
    assert kinds == sorted(kinds, reverse=stage is Stage.FORWARD)


@given(version, version, st.sets(version))
def test_a_way_passes_every_minor_version_once(current: str, goal: str, offered: set[str]) -> None:
    try:
        links = plan_links(current, goal, offered=offered)
    except UsageError:
        minors = range(version_numbers(current)[1] + 1, version_numbers(goal)[1])
        between = all(any(minor_version(one) == f"1.{number}" for one in offered) for number in minors)
        assert version_numbers(goal) <= version_numbers(current) or goal not in offered or not between
        return
    assert links[-1] == goal
    assert set(links) <= offered
    steps = [version_numbers(minor_version(one))[1] for one in (current, *links)]
    assert all(later - earlier <= 1 for earlier, later in pairwise(steps))
    assert [version_numbers(one) for one in (current, *links)] == sorted(version_numbers(one) for one in (current, *links))


def test_a_series_goes_on_from_what_it_has_reached() -> None:
    begun = Upgrade(OLD, NEW, "1.39.0")
    assert decide(OLD, begun, wish=Wish("1.39.0"), offered=(), now=NOW) == begun
    assert decide(OLD, begun, wish=Wish(), offered=(), now=NOW) == begun
    back = decide(OLD, begun, wish=Wish(back=True), offered=(), now=NOW)
    assert (back.stage, back.end, back.goal) == (Stage.BACK, OLD, OLD)
