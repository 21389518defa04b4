"""Network policies in the default mode of the pod network: on one node, between nodes, and behind a load balancer."""

from __future__ import annotations

from typing import Any

from moyai.images.references import MOYAI
from tests.e2e.place import Place, until, web

CLIENT = "import time; time.sleep(100000)"
#: Of the machines; a load balancer of the cluster sends from it.
NODE_RANGE = "10.8.0.0/24"


def asks(address: str) -> str:
    return f"""
import socket
try:
    print("answer" if socket.create_connection(({address!r}, 8080), 1) else "")
except OSError:
    print("silence")
"""


def client(place: Place, node: str) -> dict[str, Any]:
    container = {"name": "python", "image": MOYAI, "imagePullPolicy": "Never", "command": ["python3", "-c", CLIENT]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": place.name, "labels": {"role": "client"}},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0},
    }


def policy(place: Place, *ingress: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "echo", "namespace": place.name},
        "spec": {"podSelector": {"matchLabels": {"app": "echo"}}, "policyTypes": ["Ingress"], "ingress": list(ingress)},
    }


def test_a_policy_holds_on_one_node_between_nodes_and_behind_a_load_balancer(place: Place) -> None:
    pods = place.cluster.get("-n", place.name, "pods", "-l", "app=echo")["items"]
    near, far = (one["status"]["podIP"] for one in pods)
    assert pods[0]["spec"]["nodeName"] != pods[1]["spec"]["nodeName"]
    place.service("guarded")
    place.apply(client(place, pods[0]["spec"]["nodeName"]))
    place.cluster.kubectl("-n", place.name, "wait", "pod/client", "--for=condition=Ready", "--timeout=60s")
    address = place.address("guarded")

    def heard() -> tuple[str, str, bool]:
        """On the client's node, on the other one, and from outside of the cluster."""
        said = [
            place.cluster.kubectl("-n", place.name, "exec", "client", "--", "python3", "-c", asks(one)).strip()
            for one in (near, far)
        ]
        return said[0], said[1], bool(web(address))

    until(lambda: heard() == ("answer", "answer", True), 30)
    place.apply(policy(place))
    until(lambda: heard() == ("silence", "silence", False), 30)
    clients = {"from": [{"podSelector": {"matchLabels": {"role": "client"}}}], "ports": [{"port": 8080}]}
    place.apply(policy(place, clients))
    until(lambda: heard() == ("answer", "answer", False), 30)
    # the port of the pod counts, not that of the Service
    place.apply(policy(place, {"from": [{"ipBlock": {"cidr": NODE_RANGE}}], "ports": [{"port": 8080}]}))
    until(lambda: heard() == ("silence", "silence", True), 30)
    place.cluster.kubectl("-n", place.name, "delete", "networkpolicy", "echo")
    until(lambda: heard() == ("answer", "answer", True), 30)
    place.delete("guarded")
