"""Nodes that leave a real cluster, and nodes that users lose: what clients notice, and what the next `up` makes of it."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from moyai.cloud.load_balancers import Health, LoadBalancer
from moyai.cloud.openstack import connect
from tests.e2e.driver import Cluster
from tests.e2e.place import until

_CLIENTS = 4


class Answers:
    """What clients got that ask one after the other, each request on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url, self._end = url, threading.Event()
        self.count = 0
        self.failures: list[str] = []

    def ask(self) -> None:
        while not self._end.wait(0.01):
            try:
                with urllib.request.urlopen(self._url, timeout=10) as answer:
                    answer.read()
                self.count += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{time.strftime('%X')}: {error}")

    def end(self) -> None:
        self._end.set()


@contextmanager
def asked(url: str) -> Generator[Answers]:
    answers = Answers(url)
    clients = [threading.Thread(target=answers.ask) for _ in range(_CLIENTS)]
    for one in clients:
        one.start()
    try:
        yield answers
    finally:
        answers.end()
        for one in clients:
            one.join()


def balancer(cluster: Cluster) -> LoadBalancer:
    calls = connect(cluster.cloud).load_balancers
    (found,) = calls.load_balancers(name=f"kube_service_{cluster.name}_default_web")
    return calls.get(found.id)


def healthy(cluster: Cluster) -> int:
    """How many members of the web server's load balancer get traffic."""
    pools = [one.pool for one in balancer(cluster).listeners if one.pool]
    return sum(member.health is Health.ONLINE for pool in pools for member in pool.members)


def test_a_pool_that_shrinks_loses_no_request(cluster: Cluster) -> None:
    """The node that goes has none of the pods: it only passes on what the load balancer sends to it."""
    cluster.write(workers=3)
    url = cluster.up()["endpoints"][0]["url"]
    until(lambda: healthy(cluster) == 3, 60)
    cluster.write(workers=2)
    with asked(url) as answers:
        until(lambda: answers.count > 100, 60)
        cluster.up()
        before = answers.count
        until(lambda: answers.count > before + 100, 60)
    assert answers.failures == []
    assert healthy(cluster) == 2


def test_a_node_whose_pods_alone_answer_loses_no_request_when_it_goes(cluster: Cluster) -> None:
    """Load balancers send only to nodes with pods (externalTrafficPolicy Local), and the node that goes has some."""
    file = cluster.folder / "nginx.yaml"
    quickstart = file.read_text()
    local = quickstart.replace("replicas: 2", "replicas: 6").replace("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    local = local.replace("type: LoadBalancer", "type: LoadBalancer\n  externalTrafficPolicy: Local")
    # what the page on nodes asks of users: a pod answers until nobody sends to it any more
    local = local.replace(
        "          image: nginx\n", "          image: nginx\n          lifecycle: {preStop: {sleep: {seconds: 5}}}\n"
    )
    try:
        cluster.write(workers=3)
        cluster.up()
        file.write_text(local)
        url = cluster.up()["endpoints"][0]["url"]
        until(lambda: f"{cluster.name}-workers-2" in pod_nodes(cluster) and healthy(cluster) == 3, 90)
        cluster.write(workers=2)
        with asked(url) as answers:
            until(lambda: answers.count > 100, 60)
            cluster.up()
            before = answers.count
            until(lambda: answers.count > before + 100, 60)
        print(f"\n{answers.count} requests answered, {len(answers.failures)} failed")
        assert answers.failures == []
    finally:
        file.write_text(quickstart.replace("type: LoadBalancer", "type: LoadBalancer\n  externalTrafficPolicy: Cluster"))
        cluster.write(workers=2)
        cluster.up()
        file.write_text(quickstart)


def pod_nodes(cluster: Cluster) -> list[str]:
    """Where the web server's pods are."""
    return cluster.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}").split()


@pytest.mark.parametrize("node", ["workers-1", "control-plane-0"])
def test_a_node_object_that_was_deleted_comes_back_as_it_was(cluster: Cluster, node: str) -> None:
    name = f"{cluster.name}-{node}"
    before = marks(cluster, name)
    cluster.kubectl("delete", "node", name)
    said = cluster.moyai("plan", str(cluster.folder)).stdout
    assert f"restart server {name}: it has no Node object" in said
    cluster.up()
    assert {one["node"] for one in cluster.status()["nodes"]} == {"Ready"}
    assert marks(cluster, name) == before
    assert "nothing to do" in cluster.moyai("plan", str(cluster.folder)).stdout


def marks(cluster: Cluster, name: str) -> str:
    """The labels and lasting taints of a node."""
    return cluster.kubectl("get", "node", name, "-o", "jsonpath={.metadata.labels} {.spec.taints} {.spec.podCIDR}")
