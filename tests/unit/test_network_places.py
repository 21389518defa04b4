"""The two ends of a trace, as users name them."""

from __future__ import annotations

from typing import Any

import pytest

from moyai.core.errors import UsageError
from moyai.diagnose.network.places import Objects, find_source, find_target, first_packet, parse_port
from moyai.diagnose.network.trace_model import service_facts
from moyai.kube.objects import parse_service
from moyai.kube.resources import Json
from tests.unit import network_world as w


def pod(name: str, address: str, *, node: str = "n1", namespace: str = "default", phase: str = "Running", **spec: Any) -> Json:
    status = {"phase": phase, "podIP": address, "podIPs": [{"ip": address}]}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"nodeName": node, **spec}, "status": status}


def service(name: str, address: str) -> Json:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
    }


def balanced(address: str, outside: str) -> Json:
    ingress = [{"ip": outside}, {"ip": "203.0.113.99", "ipMode": "Proxy"}]
    return {**service("balanced", address), "status": {"loadBalancer": {"ingress": ingress}}}


OBJECTS = Objects(
    nodes=tuple(w.node(one) for one in (1, 2)),
    pods=(
        pod("web", "10.244.1.5", containers=[{"name": "c", "ports": [{"containerPort": 8080}]}]),
        pod("done", "10.244.1.6", phase="Succeeded"),
        pod("proxy", "10.8.0.12", node="n2", namespace="kube-system", hostNetwork=True),
        pod("both", "10.244.2.5", node="n2"),
    ),
    services=tuple(
        service_facts(parse_service(one))
        for one in (service("both", "10.96.0.1"), service("headless", "None"), balanced("10.96.0.3", "203.0.113.20"))
    ),
)


@pytest.mark.parametrize(
    ("given", "kind", "name", "address"),
    [
        ("web", "pod", "default/web", "10.244.1.5"),
        ("default/web", "pod", "default/web", "10.244.1.5"),
        ("pod/web", "pod", "default/web", "10.244.1.5"),
        ("pod/default/web", "pod", "default/web", "10.244.1.5"),
        ("svc/both", "service", "default/both", "10.96.0.1"),
        ("n2", "machine", "n2", "10.8.0.12"),
        ("node/n2", "machine", "n2", "10.8.0.12"),
        ("10.244.1.5", "pod", "default/web", "10.244.1.5"),
        ("10.96.0.1", "service", "default/both", "10.96.0.1"),
        ("10.8.0.11", "machine", "n1", "10.8.0.11"),
        ("192.0.2.1", "outside", "192.0.2.1", "192.0.2.1"),
        ("203.0.113.99", "outside", "203.0.113.99", "203.0.113.99"),
        ("kube-system/proxy", "machine", "kube-system/proxy", "10.8.0.12"),
        ("pod/kube-system/proxy", "machine", "kube-system/proxy", "10.8.0.12"),
        ("203.0.113.20", "service", "default/balanced", "203.0.113.20"),
        ("svc/balanced", "service", "default/balanced", "10.96.0.3"),
    ],
)
def test_a_place_is_found_by_each_of_its_names(given: str, kind: str, name: str, address: str) -> None:
    found = find_target(given, OBJECTS, namespace="default")
    assert (found.kind, found.name, found.address) == (kind, name, address)


NONE = "there is no such pod or Service in namespace default, and no such node"
SHOULD = "is no place in the cluster: should be NAME or NAMESPACE/NAME of a pod or Service, a node's name, or an IPv4 address"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("we", f"'we': {NONE}: there is default/web"),
        ("nothing", f"'nothing': {NONE}: see `moyai kubectl get pods,services -A`"),
        ("both", "'both' may be several things: write one of pod/both, svc/both"),
        ("A_B", f"'A_B' {SHOULD}"),
        ("", f"'' {SHOULD}"),
        ("done", "pod default/done has no address of IPv4: `moyai explain` says why a pod does not run"),
        ("headless", "service default/headless has no address of IPv4: a headless Service has none: trace a pod"),
    ],
)
def test_what_is_no_place_is_one_line(given: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_target(given, OBJECTS, namespace="default")
    assert str(caught.value) == message


@pytest.mark.parametrize("given", ["svc/both", "192.0.2.1"])
def test_a_trace_begins_at_a_pod_or_a_machine(given: str) -> None:
    with pytest.raises(UsageError, match="a trace begins at a pod or at a machine"):
        find_source(given, OBJECTS, namespace="default")


@pytest.mark.parametrize(
    ("given", "meant"), [("80", ("tcp", 80)), ("53/udp", ("udp", 53)), ("ICMP", ("icmp", 0)), ("1/SCTP", ("sctp", 1))]
)
def test_ports_are_written_as_kubernetes_writes_them(given: str, meant: tuple[str, int]) -> None:
    assert parse_port(given) == meant


@pytest.mark.parametrize("given", ["0", "65536", "http", "80/icmp", "/tcp", "-1", "80/x", "8 0", "²"])
def test_what_is_no_port_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="no port"):
        parse_port(given)


@pytest.mark.parametrize(("target", "meant"), [("svc/both", ("tcp", 80)), ("web", ("tcp", 8080)), ("n2", ("icmp", 0))])
def test_without_a_port_the_first_one_of_the_target_is_meant(target: str, meant: tuple[str, int]) -> None:
    source, end = (find_target(one, OBJECTS, namespace="default") for one in ("web", target))
    packet = first_packet(source, end, objects=OBJECTS, port=None)
    assert (packet.protocol, packet.port) == meant
    assert packet.source == "10.244.1.5"
