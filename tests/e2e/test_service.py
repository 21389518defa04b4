"""Services of a real cluster on the real local cloud, used from the host through their floating IPs, and the Nodes behind them.

The pods run a small server of moyai's own image: HTTP and UDP on port 8080, both answer with the pod's and the node's name.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest

from moyai.cloud.load_balancers import Health, LoadBalancer
from moyai.cloud.openstack import OpenStackCloud, connect
from moyai.core.ids import cluster_tag
from moyai.images.references import MOYAI
from moyai.kube.objects import parse_service
from moyai.linux.process import run
from tests.e2e.driver import MOYAI as COMMAND

SERVER = r"""
import http.server, json, os, socketserver, threading
names = {"pod": os.environ["POD"], "node": os.environ["NODE"]}
class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = json.dumps({**names, "client": self.client_address[0]}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text)
    def log_message(self, *_): pass
class Udp(socketserver.BaseRequestHandler):
    def handle(self): self.request[1].sendto(json.dumps(names).encode(), self.client_address)
threading.Thread(target=socketserver.ThreadingUDPServer(("", 8080), Udp).serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("", 8080), Web).serve_forever()
"""


@dataclass(frozen=True)
class SharedCluster:
    """A running cluster, driven by the command line as a user does it; ``cloud`` looks behind it."""

    name: str
    uid: str
    cloud: OpenStackCloud

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 120) -> str:
        """What kubectl printed; AssertionError with all it said when it failed."""
        environment = {**os.environ, "MOYAI_CLUSTER": self.name}
        argv = [*COMMAND, "kubectl", *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
        assert done.returncode == 0, f"kubectl {' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))


@pytest.fixture(scope="module")
def shared(cloud_name: str, request: pytest.FixtureRequest) -> SharedCluster:
    """The cluster that the end-to-end tests share, or the running one that ``MOYAI_TEST_CLUSTER`` names."""
    name = os.environ.get("MOYAI_TEST_CLUSTER") or request.getfixturevalue("cluster").name
    status = subprocess.run([*COMMAND, "status", name, "--output", "json"], capture_output=True, text=True, check=True)
    return SharedCluster(name, json.loads(status.stdout)["uid"], connect(cloud_name))


class Place:
    """A namespace with two pods, one on each worker."""

    def __init__(self, cluster: SharedCluster) -> None:
        self.cluster = cluster
        self.name = f"svc-{secrets.token_hex(3)}"

    def start(self) -> None:
        field = {"pod": "metadata.name", "node": "spec.nodeName"}
        container = {
            "name": "server",
            "image": MOYAI,
            "imagePullPolicy": "Never",
            "command": ["python3", "-c", SERVER],
            "env": [{"name": key.upper(), "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in field.items()],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        }
        spread = {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "echo"}},
        }
        pod = {"containers": [container], "topologySpreadConstraints": [spread], "terminationGracePeriodSeconds": 0}
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}},
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "echo", "namespace": self.name},
                "spec": {
                    "replicas": 2,
                    "selector": {"matchLabels": {"app": "echo"}},
                    "template": {"metadata": {"labels": {"app": "echo"}}, "spec": pod},
                },
            },
        )
        self.cluster.kubectl("-n", self.name, "rollout", "status", "deployment/echo", "--timeout=180s", timeout=200)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.cluster.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in objects))

    def service(self, name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        plain = {
            "type": "LoadBalancer",
            "selector": {"app": "echo"},
            "ports": [{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        }
        meta = {"name": name, "namespace": self.name, "annotations": annotations or {}}
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {**plain, **spec}})

    def patch(self, name: str, body: dict[str, Any]) -> None:
        self.cluster.kubectl("-n", self.name, "patch", "service", name, "--type=merge", "-p", json.dumps(body))

    def delete(self, name: str) -> None:
        """Returns when the finalizer is off, that is, when all is gone."""
        self.cluster.kubectl("-n", self.name, "delete", "service", name, "--timeout=120s", timeout=150)

    def read(self, name: str) -> dict[str, Any]:
        return self.cluster.get("-n", self.name, "service", name)

    def address(self, name: str) -> str:
        def found() -> str:
            ingress = parse_service(self.read(name)).ingress
            return ingress[0].ip if ingress else ""

        return until(found, 120)

    def balancer(self, name: str) -> LoadBalancer:
        calls = self.cluster.cloud.load_balancers
        (found,) = calls.load_balancers(name=f"kube_service_{self.cluster.name}_{self.name}_{name}")
        return calls.get(found.id)

    def rules(self, name: str) -> set[tuple[str, int]]:
        """The ports that are open in the cluster's groups for the Service."""
        cloud, tag = self.cluster.cloud, cluster_tag(self.cluster.uid)
        groups = [one.id for one in cloud.firewall.security_groups(tag=tag)]
        return {
            (rule.protocol or "", rule.port_min or 0)
            for rule in cloud.firewall.security_group_rules(groups)
            if rule.description == f"{tag} service {self.name}/{name}"
        }

    def left(self) -> list[str]:
        """What the cloud still holds of this namespace's Services."""
        cloud, tag = self.cluster.cloud, cluster_tag(self.cluster.uid)
        groups = [one.id for one in cloud.firewall.security_groups(tag=tag)]
        return [
            *(one.name for one in cloud.load_balancers.load_balancers(tag=tag) if self.name in one.name),
            *(one.description for one in cloud.addresses.floating_ips(tag=tag) if self.name in one.description),
            *(one.description for one in cloud.firewall.security_group_rules(groups) if self.name in one.description),
        ]


@pytest.fixture(scope="module")
def place(shared: SharedCluster) -> Generator[Place]:
    made = Place(shared)
    try:
        made.start()
        yield made
    finally:
        shared.kubectl("delete", "namespace", made.name, "--ignore-not-found", "--timeout=180s", timeout=200)
    assert made.left() == []


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first answer that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s"
        time.sleep(0.3)
    return found


def web(address: str, port: int = 80) -> dict[str, str]:
    """The server's answer by HTTP, empty for none."""
    text = run(["curl", "-s", "-m", "3", f"http://{address}:{port}/"], check=False).stdout
    return json.loads(text) if text.startswith("{") else {}


def udp(address: str, port: int) -> dict[str, str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        try:
            client.sendto(b"?", (address, port))
            return json.loads(client.recv(500))
        except OSError:
            return {}


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


def _pods(address: str, wanted: int, tries: int = 20) -> set[str]:
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
