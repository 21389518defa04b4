"""A cluster in mode bgp: pods of different nodes reach each other, and a router outside learns of pods and Services.

The router is FRR of moyai's image, in the namespace of the cloud's router, which is no machine of the cluster.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from moyai.linux.frr import Frr, FrrPlace
from moyai.plan.announce.metallb_words import NAMESPACE
from tests.cloud.server_site import Site
from tests.e2e.disks import until
from tests.e2e.test_announced import ADDRESS, PORT, Announced
from tests.e2e.test_pod_networks import SERVER, agents_ready, asks
from tests.netns.bgp_world import CLUSTER_AS, FAST, ROUTER_AS, image_root

pytestmark = pytest.mark.long

ROUTER = "10.8.0.1"


class Speaking(Announced):
    """The cloud's router is the spec's."""

    def write(self, workers: int) -> None:
        spec = {
            "cloud": self.cloud,
            "nodePools": [{"name": "workers", "replicas": 2}],
            "network": {
                "mode": "bgp",
                "bgp": {"asn": CLUSTER_AS, "routers": [{"name": "rt-01", "address": ROUTER, "asn": ROUTER_AS}]},
            },
            "services": {"announce": {"ranges": ["10.8.0.96/28"]}},
        }
        (self.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": self.name}, "spec": spec}))

    def addresses(self) -> dict[str, str]:
        """Node → its address."""
        nodes = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        return {
            one["metadata"]["name"]: next(a["address"] for a in one["status"]["addresses"] if a["type"] == "InternalIP")
            for one in nodes
        }

    def place(self, root: Path) -> FrrPlace:
        router = next(one for one in self.provider.routers.routers() if one.name.startswith(f"{self.name}-"))
        # not the cloud's process namespace: a killed daemon must be the one that was started
        words = [one for one in Site(self.cloud, None, None).inside if one != "-p"]
        return FrrPlace((*words, "ip", "netns", "exec", f"qrouter-{router.id}", "chroot", str(root)), root, "/run/frr-rt-01")

    def hops(self, prefix: str) -> set[str]:
        """The next hops of the router's kernel."""
        words = self.in_router("ip", "route", "show", prefix).split()
        return {words[number + 1] for number, word in enumerate(words) if word == "via"}


@pytest.fixture(scope="module")
def speaking(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Speaking]:
    made = Speaking(tmp_path_factory.mktemp("bgp"), cloud_name)
    with made.removed_at_end():
        made.up()
        yield made


def lines(nodes: list[str]) -> list[str]:
    found = [f"router bgp {ROUTER_AS}", "no bgp ebgp-requires-policy", "no bgp default ipv4-unicast"]
    found += ["bgp bestpath as-path multipath-relax"]
    for one in nodes:
        found += [
            f"neighbor {one} {line}" for line in (f"remote-as {CLUSTER_AS}", "timers connect 1", "bfd", "bfd profile fast")
        ]
    activate = [f"neighbor {one} activate" for one in nodes]
    return [*found, "address-family ipv4 unicast", "maximum-paths 16", *activate, "exit-address-family", "exit"]


async def test_pods_reach_each_other_and_the_router_learns_of_pods_and_services(speaking: Speaking) -> None:
    cluster = speaking
    assert agents_ready(cluster)
    assert json.loads(cluster.moyai("plan", str(cluster.folder), "--output", "json").stdout)["steps"] == []
    server = cluster.pod("workers-0", SERVER)
    address = cluster.pod_address(server)
    # with its own address: nothing is translated on the way
    assert cluster.python("workers-1", asks(address)).startswith("10.244.")
    # the sessions between nodes are up, those with the router are not yet
    assert "no session with router rt-01" in cluster.moyai("net", "status", expect=1).stdout
    nodes = cluster.addresses()
    workers = {one for name, one in nodes.items() if "-workers-" in name}
    kind = {"metadata": {"name": "main", "namespace": NAMESPACE}, "apiVersion": "metallb.io/v1beta1"}
    cluster.apply(
        {**kind, "kind": "IPAddressPool", "spec": {"addresses": ["10.8.0.96/31"]}},
        {**kind, "kind": "BGPAdvertisement", "spec": {"ipAddressPools": ["main"]}},
    )
    cluster.kubectl("label", "pod", server, "app=web")
    with image_root() as root:
        async with Frr.running(cluster.place(root), on_start=lambda _daemon: None) as frr:
            assert await frr.configure("bfdd", FAST) == []
            assert await frr.configure("bgpd", lines(list(nodes.values()))) == []
            await asyncio.to_thread(_with_a_router, cluster, workers=workers, server=address)


def _with_a_router(cluster: Speaking, *, workers: set[str], server: str) -> None:
    until("the router has a way to pods", lambda: cluster.hops("10.244.1.0/24"), within=60)
    cluster.service("web", selector={"app": "web"})
    until("it has a path for each worker", lambda: cluster.hops(ADDRESS) == workers, within=60)
    until("the Service answers", lambda: asks_from_router(cluster, ADDRESS), within=30)
    # its port is open now, on pods' addresses too
    assert asks_from_router(cluster, server) != ""
    shown = json.loads(cluster.moyai("bgp", "sessions", "--output", "json").stdout)
    assert [len(one["sessions"]) for one in shown["nodes"].values()] == [3, 3, 3]
    seen = json.loads(cluster.moyai("bgp", "routes", "--on", f"{cluster.name}-workers-0", "--output", "json").stdout)
    assert f"{ADDRESS}/32" in {one["prefix"] for one in seen["nodes"][f"{cluster.name}-workers-0"]["paths"]}
    state = json.loads(cluster.moyai("net", "status", "--output", "json").stdout)
    assert (state["problems"], [one["reached"] for one in state["nodes"]]) == ([], [2, 2, 2])
    lost = cluster.addresses()[f"{cluster.name}-workers-1"]
    victim = cluster.server(f"{cluster.name}-workers-1")
    openstack = ("openstack", "--os-cloud", cluster.cloud, "server")
    # a machine that is killed says goodbye: its kernel ends its connections, which is how a daemon begins that restarts
    cluster.moyai(*openstack, "pause", victim.id)
    died = time.monotonic()
    try:
        until("the silent node's path is gone", lambda: cluster.hops(ADDRESS) == workers - {lost}, within=30)
        # BFD says it, long before the node is NotReady
        assert time.monotonic() - died < 10
        assert asks_from_router(cluster, ADDRESS) != ""
    finally:
        cluster.moyai(*openstack, "unpause", victim.id)
    until("the node's path is back", lambda: cluster.hops(ADDRESS) == workers, within=60)


def asks_from_router(cluster: Speaking, address: str) -> str:
    words = ["timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{PORT} && head -c 7 <&3"]
    return cluster.in_router(*words)
