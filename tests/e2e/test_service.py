"""Services of a real cluster on the real local cloud, used from the host by their floating IPs, and the Nodes behind them."""

from __future__ import annotations

from typing import Any

from moyai.cloud.load_balancers import Health
from moyai.core.ids import cluster_tag
from tests.e2e.conftest import SharedCluster
from tests.e2e.place import Place, udp, until, web


def test_nodes_say_what_their_machines_are(shared: SharedCluster) -> None:
    servers = {one.name: one for one in shared.cloud.machines.servers(tag=cluster_tag(shared.uid))}
    nodes = shared.get("nodes")["items"]
    assert {node["metadata"]["name"] for node in nodes} == set(servers)
    for node in nodes:
        server, labels = servers[node["metadata"]["name"]], node["metadata"]["labels"]
        assert node["spec"]["providerID"] == f"openstack:///{server.id}"
        assert labels["topology.kubernetes.io/zone"] == server.zone
        assert labels["topology.kubernetes.io/region"]
        assert labels["node.kubernetes.io/instance-type"] == server.flavor_name
        assert node["spec"]["podCIDR"] == server.metadata["moyai.pod-cidr"]
        assert not [taint for taint in node["spec"].get("taints", []) if "cloudprovider" in taint["key"]]
        fixed = [one.address for one in server.addresses if one.kind == "fixed"]
        assert [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"] == fixed
        conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
        assert conditions["NetworkUnavailable"] == "False"


def test_tcp_and_udp_answer_from_both_nodes_and_rules_come_and_go_with_the_ports(place: Place) -> None:
    ports = [
        {"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        {"name": "talk", "port": 5000, "targetPort": 8080, "protocol": "UDP"},
    ]
    place.service("both", ports=ports)
    address = place.address("both")
    until(lambda: web(address), 20)
    until(lambda: udp(address, 5000), 20)
    assert len(until(lambda: _pods(address, 2))) == 2
    node_ports = {(one["protocol"].lower(), one["nodePort"]) for one in place.read("both")["spec"]["ports"]}
    assert place.rules("both") == node_ports
    place.patch("both", {"spec": {"ports": place.read("both")["spec"]["ports"][:1]}})
    until(lambda: place.rules("both") == {one for one in node_ports if one[0] == "tcp"})
    until(lambda: not udp(address, 5000))
    assert web(address)
    events = place.cluster.get("-n", place.name, "events", "--field-selector", "involvedObject.name=both")["items"]
    assert {"EnsuringLoadBalancer", "EnsuredLoadBalancer"} <= {one["reason"] for one in events}
    assert not [one["message"] for one in events if one["type"] == "Warning"]
    place.delete("both")
    assert not web(address)
    assert place.left() == []


def _pods(address: str, wanted: int, *, tries: int = 20) -> set[str]:
    found = {web(address).get("pod", "") for _ in range(tries)} - {""}
    return found if len(found) >= wanted else set()


def test_only_the_ranges_of_the_service_may_connect(place: Place) -> None:
    place.service("fenced")
    address = place.address("fenced")
    client = until(lambda: web(address), 20)
    assert client
    place.patch("fenced", {"spec": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}})
    until(lambda: not web(address))
    place.patch("fenced", {"spec": {"loadBalancerSourceRanges": None}})
    until(lambda: web(address))
    place.delete("fenced")


def test_local_traffic_goes_only_to_nodes_that_have_a_pod_and_affinity_keeps_one(place: Place) -> None:
    place.service("near", externalTrafficPolicy="Local", sessionAffinity="ClientIP")
    address = place.address("near")
    until(lambda: web(address), 30)
    assert len({web(address).get("pod") for _ in range(10)}) == 1
    monitor = place.balancer("near").listeners[0].pool
    assert monitor
    assert monitor.monitor
    assert (monitor.monitor.type, monitor.monitor.url_path) == ("HTTP", "/healthz")
    assert ("tcp", place.read("near")["spec"]["healthCheckNodePort"]) in place.rules("near")
    try:
        place.cluster.kubectl("-n", place.name, "scale", "deployment/echo", "--replicas=1")
        place.cluster.kubectl("-n", place.name, "rollout", "status", "deployment/echo", "--timeout=60s")
        # the node without a pod fails its health check; every request then ends at the node that has one
        until(lambda: {one.health for one in _members(place, "near")} == {Health.FAILED, Health.ONLINE}, 60)
        assert all(web(address) for _ in range(10))
    finally:
        place.cluster.kubectl("-n", place.name, "scale", "deployment/echo", "--replicas=2")
        place.cluster.kubectl("-n", place.name, "rollout", "status", "deployment/echo", "--timeout=60s")
    place.delete("near")


def _members(place: Place, name: str) -> list[Any]:
    pool = place.balancer(name).listeners[0].pool
    return list(pool.members) if pool else []


def test_a_kept_floating_ip_outlives_its_service_and_serves_the_next(place: Place) -> None:
    cloud = place.cluster.cloud
    place.service("old", annotations={"loadbalancer.openstack.org/keep-floatingip": "true"})
    address = place.address("old")
    place.delete("old")
    kept = next(one for one in cloud.addresses.floating_ips() if one.address == address)
    try:
        assert not kept.port_id
        assert "moyai.keep=true" in kept.tags
        place.service("new", loadBalancerIP=address)
        assert place.address("new") == address
        until(lambda: web(address), 20)
        place.delete("new")
        # the new Service did not make it, so it does not take it away
        assert any(one.address == address for one in cloud.addresses.floating_ips())
    finally:
        cloud.addresses.delete_floating_ip(kept.id)


def test_an_internal_one_answers_in_the_cluster_only(place: Place) -> None:
    place.service("inner", annotations={"service.beta.kubernetes.io/openstack-internal-load-balancer": "true"})
    address = place.address("inner")
    assert address == place.balancer("inner").vip_address
    code = f"import urllib.request;print(urllib.request.urlopen('http://{address}/',timeout=10).status)"
    until(lambda: place.cluster.kubectl("-n", place.name, "exec", "deploy/echo", "--", "python3", "-c", code).strip() == "200")
    assert not [one for one in place.cluster.cloud.addresses.floating_ips() if place.name in one.description]
    place.delete("inner")


def test_a_wrong_annotation_is_told_where_users_look(place: Place) -> None:
    name = "loadbalancer.openstack.org/connection-limit"
    place.service("wrong", annotations={name: "many"})

    def told() -> str:
        return place.cluster.kubectl("-n", place.name, "describe", "service", "wrong")

    text = until(lambda: told() if "SyncLoadBalancerFailed" in told() else "", 30)
    assert f"annotation {name} is 'many'" in text
    assert "it must be a whole number" in text
    place.patch("wrong", {"metadata": {"annotations": {name: "50"}}})
    assert place.address("wrong")
    place.delete("wrong")
