"""Services that share a load balancer, and what users, backups and other controllers write on Services."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.e2e.place import Place, until, web

NAME = "moyai-cloud-controller-manager"
CONTROLLER = ("-n", "kube-system", f"deployment/{NAME}")
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"


def port(number: int) -> dict[str, Any]:
    return {"name": f"p{number}", "port": number, "targetPort": 8080, "protocol": "TCP"}


def pair(place: Place, first: str, *, second: str) -> str:
    """Two Services on the load balancer of the first; returns its address."""
    place.service(first, ports=[port(80)])
    address = place.address(first)
    note = {"loadbalancer.openstack.org/load-balancer-id": place.balancer(first).id}
    place.service(second, ports=[port(81)], annotations=note)
    assert place.address(second) == address
    until(lambda: web(address) and web(address, 81), 30)
    return address


@contextmanager
def controller_stopped(place: Place) -> Generator[None]:
    place.cluster.kubectl("scale", *CONTROLLER, "--replicas=0")
    # a pod that has failed runs no controller, and no Deployment deletes it
    running = ("--field-selector=status.phase!=Failed", "-l", f"app.kubernetes.io/name={NAME}")
    pods = ("-n", "kube-system", "pods", *running)
    try:
        until(lambda: not place.cluster.get(*pods)["items"])
        yield
    finally:
        place.cluster.kubectl("scale", *CONTROLLER, "--replicas=1")
        place.cluster.kubectl("rollout", "status", *CONTROLLER, "--timeout=120s")


def test_the_second_service_keeps_answering_when_the_first_goes(place: Place) -> None:
    address = pair(place, "first", second="second")
    place.delete("first")
    assert place.address("second") == address
    assert web(address, 81)
    assert not web(address)
    place.delete("second")
    assert place.left() == []


def test_both_go_by_one_command_and_nothing_is_left(place: Place) -> None:
    pair(place, "one", second="two")
    place.cluster.kubectl("-n", place.name, "delete", "service", "one", "two", "--timeout=120s", timeout=150)
    assert place.left() == []


def test_a_restored_service_gets_an_address_although_it_carries_its_old_one(place: Place) -> None:
    place.service("saved")
    assert place.address("saved")
    written = place.read("saved")["metadata"]["annotations"]
    kept = {key: value for key, value in written.items() if not key.startswith("kubectl.")}
    assert "loadbalancer.openstack.org/load-balancer-id" in kept
    place.delete("saved")
    place.service("saved", annotations=kept)
    address = place.address("saved")
    until(lambda: web(address), 30)
    assert not [one for one in place.events("saved") if one.startswith("SyncLoadBalancerFailed")]
    place.delete("saved")


def test_a_wrong_load_balancer_id_that_is_taken_away_is_forgotten_at_once(place: Place) -> None:
    note = {"loadbalancer.openstack.org/load-balancer-id": "00000000-0000-4000-8000-000000000000"}
    place.service("typo", annotations=note)
    until(lambda: any("must be the id of a load balancer" in one for one in place.events("typo")), 30)
    place.annotate("typo", load_balancer_id=None)
    address = place.address("typo")
    until(lambda: web(address), 30)
    place.delete("typo")


def test_ranges_of_both_families_let_in_those_of_the_load_balancers_family(place: Place) -> None:
    place.service("ranges", loadBalancerSourceRanges=["0.0.0.0/0", "2001:db8:7::/48"])
    address = place.address("ranges")
    until(lambda: web(address), 30)
    until(lambda: any("SourceRangesLeftOut" in one and "2001:db8:7::/48" in one for one in place.events("ranges")), 30)
    place.patch("ranges", {"spec": {"loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8:7::/48"]}})
    until(lambda: not web(address))
    assert place.balancer("ranges").listeners[0].allowed_cidrs == ("192.0.2.0/24",)
    place.delete("ranges")


def test_a_service_that_changed_type_and_class_while_the_controller_was_down_can_be_deleted(place: Place) -> None:
    place.service("changed")
    assert place.address("changed")
    with controller_stopped(place):
        place.patch("changed", {"spec": {"type": "ClusterIP"}})
        place.patch("changed", {"spec": {"type": "LoadBalancer", "loadBalancerClass": "example.org/other"}})
    until(lambda: FINALIZER not in place.read("changed")["metadata"].get("finalizers", []), 60)
    place.delete("changed")
    assert place.left() == []
