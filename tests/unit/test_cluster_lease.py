"""Who works on a cluster: the Lease, between machines and after a kill."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from moyai.core.ids import CLUSTER_RECORD
from moyai.kube.quick import KubeApi
from moyai.kube.resources import KUBE_SYSTEM, LEASES
from moyai.lifecycle import cluster_lease
from moyai.lifecycle.cluster_lease import DURATION, ClusterBusy, ClusterLease, WorkHolder
from tests.fakes.clock import FakeClock
from tests.fakes.kubernetes import QuickKubernetes
from tests.fakes.object_store import ObjectStore

ANNA = WorkHolder("anna@mars", 4711, "moyai up", "mars/1")
BERT = WorkHolder("bert@venus", 12, "moyai upgrade", "venus/1")


class Site:
    def __init__(self) -> None:
        self.store, self.clock = ObjectStore(), FakeClock()
        self.told: list[str] = []

    def lease(self, worker: WorkHolder) -> ClusterLease:
        api = cast("KubeApi", QuickKubernetes(self.store))
        return ClusterLease(api, worker, name="quickstart", clock=self.clock, tell=self.told.append)

    @property
    def holder(self) -> str:
        return self.store.find(LEASES, CLUSTER_RECORD, namespace=KUBE_SYSTEM)["spec"]["holderIdentity"]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    # renewals come when a test says so
    monkeypatch.setattr(cluster_lease, "RENEWAL", 3600.0)
    return Site()


def test_a_free_lease_is_taken_and_handed_back(site: Site) -> None:
    lease = site.lease(ANNA)
    lease.take()
    found = site.store.find(LEASES, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
    assert site.holder == "anna@mars (process 4711)"
    assert found["metadata"]["annotations"]["moyai.dev/command"] == "moyai up"
    assert found["spec"]["acquireTime"] == "2026-01-01T00:00:00.000000Z"
    lease.release()
    assert site.holder == ""
    second = site.lease(BERT)
    second.take()
    assert (site.holder, site.clock.monotonic(), site.told) == ("bert@venus (process 12)", 0, [])
    second.release()


def test_a_holder_that_renews_is_at_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = site.lease(ANNA)
    first.take()
    looks = FakeClock.sleep

    def sleep(clock: FakeClock, seconds: float) -> None:
        looks(clock, seconds)
        if clock.monotonic() == 4:
            first.renew()

    monkeypatch.setattr(FakeClock, "sleep", sleep)
    with pytest.raises(ClusterBusy) as refused:
        site.lease(BERT).take()
    assert refused.value.message == (
        "anna@mars (process 4711) has worked with `moyai up` since 2026-01-01T00:00:00Z on cluster quickstart"
    )
    assert site.told == [f"{refused.value.message}: looking whether that goes on"]
    assert site.clock.monotonic() == 4
    first.release()


def test_a_killed_holder_loses_it_after_its_time(site: Site) -> None:
    site.lease(ANNA).take()
    second = site.lease(BERT)
    second.take()
    assert site.clock.monotonic() == DURATION
    assert site.holder == "bert@venus (process 12)"
    second.release()


@pytest.mark.parametrize("void", [False, True])
def test_a_killed_holder_on_the_same_machine_loses_it_at_once(site: Site, void: bool) -> None:
    site.lease(ANNA).take()
    next_run = site.lease(replace(ANNA, process=4712) if not void else BERT)
    next_run.take(void=void)
    assert site.clock.monotonic() == 0
    assert not site.told
    next_run.release()


def test_whoever_lost_it_is_told_by_the_next_renewal(site: Site) -> None:
    first, second = site.lease(ANNA), site.lease(BERT)
    first.take()
    second.take()
    first.renew()
    assert first.lost.startswith("bert@venus (process 12) has worked with `moyai upgrade`")
    first.release()
    assert site.holder == "bert@venus (process 12)"
    second.release()


def test_a_change_of_nobody_else_is_no_loss(site: Site) -> None:
    lease = site.lease(ANNA)
    lease.take()
    found = site.store.find(LEASES, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
    site.store.put(LEASES, {**found, "metadata": {**found["metadata"], "labels": {"a": "b"}}})
    site.clock.sleep(7)
    lease.renew()
    assert not lease.lost
    assert site.store.find(LEASES, CLUSTER_RECORD, namespace=KUBE_SYSTEM)["spec"]["renewTime"].startswith("2026-01-01T00:00:07")
    lease.release()


def test_two_that_come_at_once_do_not_both_get_it(site: Site) -> None:
    second = site.lease(BERT)
    begun = False

    def come(name: str, after: bool) -> None:
        nonlocal begun
        if name == "create leases" and not after and not begun:
            begun = True
            second.take()

    site.store.on_call = come
    first = site.lease(ANNA)
    first.take()
    # the second was quicker, and was taken for dead after its time
    assert site.clock.monotonic() == DURATION
    first.release()
    second.stop()
