"""A load balancer of the cloud before three control planes: the machine of etcd's leader dies without a word, one that works is
replaced, three become one, and clients go on through the floating IP."""

from __future__ import annotations

import json
import time
from collections.abc import Generator

import pytest

from moyai.cloud.load_balancers import BalancerState
from moyai.core.paths import default_paths
from moyai.kube.resources import NAMESPACES
from tests.e2e.disks import until
from tests.e2e.planes import ANSWERS_WITHIN, Client, Planes, gaps, taken

pytestmark = pytest.mark.long

SPACE = "api-balancer"


class Balanced(Planes):
    """A cluster whose API a load balancer leads to, with one worker."""

    def write(self, workers: int, planes: int = 3) -> None:
        spec = {
            "cloud": self.cloud,
            "controlPlane": {"replicas": planes, "flavor": "m1.small", "endpoint": "load-balancer"},
            "nodePools": [{"name": "workers", "replicas": 1}],
        }
        (self.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": self.name}, "spec": spec}))

    def led(self) -> set[str]:
        """Names of the control planes that the load balancer sends to."""
        (found,) = self.provider.load_balancers.load_balancers(name=f"{self.name}-api")
        tree = self.provider.load_balancers.get(found.id)
        assert tree.state is BalancerState.ACTIVE
        return {member.name for listener in tree.listeners if listener.pool for member in listener.pool.members}

    def client(self, first: int) -> Client:
        return Client(default_paths().clusters / self.name / "kubeconfig", SPACE, first=first).start()

    def has_nothing_to_do(self) -> bool:
        return json.loads(self.moyai("plan", str(self.folder), "--output", "json").stdout)["steps"] == []


@pytest.fixture(scope="module")
def balanced(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Balanced]:
    made = Balanced(tmp_path_factory.mktemp("balanced"), cloud_name)
    with made.removed_at_end():
        began = time.monotonic()
        made.moyai("up", str(made.folder))
        print(f"\n`up` of three control planes behind a load balancer: {time.monotonic() - began:.0f} s")
        made.api.create(NAMESPACES, {"metadata": {"name": SPACE}})
        yield made


def test_all_control_planes_are_led_in_and_a_second_up_has_nothing_to_do(balanced: Balanced) -> None:
    assert balanced.led() == {f"{balanced.name}-control-plane-{number}" for number in range(3)}
    assert balanced.has_nothing_to_do()
    assert len(balanced.kubectl("get", "nodes", "--no-headers").splitlines()) == 4


def test_the_api_and_every_acknowledged_write_outlive_the_machine_of_etcds_leader(balanced: Balanced) -> None:
    old = next(one.name for one in balanced.settled() if one.member == "leader")
    server = balanced.server(old)
    client = balanced.client(0)
    try:
        until("a hundred writes", lambda: len(client.writes.acknowledged) >= 100, within=60)
        # a machine without power closes no connection
        balanced.inside(server, "ip link set eth0 down")
        died = time.monotonic()
        balanced.crash(server)
        until("writes go on", lambda: client.writes.since(died + ANSWERS_WITHIN) > 50, within=60)
    finally:
        client.stop()
    print(f"\nthe machine of etcd's leader died: {gaps(client, died)}")
    assert client.lost(balanced.api) == set()
    assert max(client.reads.gap(died), client.writes.gap(died)) < ANSWERS_WITHIN


def test_up_brings_the_machine_back(balanced: Balanced) -> None:
    balanced.moyai("up", str(balanced.folder))
    assert len(balanced.settled()) == len(balanced.led()) == 3


def test_a_control_plane_that_works_is_replaced_while_clients_go_on(balanced: Balanced) -> None:
    name = next(one.name for one in balanced.settled() if one.member == "leader")
    client = balanced.client(1_000_000)
    began = time.monotonic()
    try:
        said = balanced.moyai("up", str(balanced.folder), "--replace", name).stderr
    finally:
        client.stop()
    print(f"\n{name} replaced by another one in {time.monotonic() - began:.0f} s; {gaps(client, began)}\n{taken(said)}")
    assert client.lost(balanced.api) == set()
    assert max(client.reads.gap(began), client.writes.gap(began)) < ANSWERS_WITHIN
    assert name not in balanced.led()
    assert len(balanced.led()) == 3


def test_three_become_one_while_clients_go_on(balanced: Balanced) -> None:
    balanced.write(1, planes=1)
    client = balanced.client(2_000_000)
    began = time.monotonic()
    try:
        said = balanced.moyai("up", str(balanced.folder)).stderr
    finally:
        client.stop()
    print(f"\nfrom three control planes to one in {time.monotonic() - began:.0f} s; {gaps(client, began)}\n{taken(said)}")
    assert client.lost(balanced.api) == set()
    assert max(client.reads.gap(began), client.writes.gap(began)) < ANSWERS_WITHIN
    assert len(balanced.led()) == 1
    assert balanced.has_nothing_to_do()


def test_a_load_balancer_that_somebody_deleted_is_made_again_with_the_same_address(balanced: Balanced) -> None:
    (found,) = balanced.provider.load_balancers.load_balancers(name=f"{balanced.name}-api")
    balanced.provider.load_balancers.delete(found.id)
    until("it is gone", lambda: not balanced.provider.load_balancers.load_balancers(name=found.name), within=60)
    began = time.monotonic()
    balanced.moyai("up", str(balanced.folder))
    print(f"\na load balancer that was deleted made again in {time.monotonic() - began:.0f} s")
    (made,) = balanced.provider.load_balancers.load_balancers(name=found.name)
    assert (made.vip_port_id, made.vip_address) == (found.vip_port_id, found.vip_address)
    assert balanced.kubectl("get", "nodes", "--no-headers")
    assert balanced.has_nothing_to_do()
