"""A router beside a cluster with the configuration that moyai makes for it, on a real FRR."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from moyai.plan.bgp.bgp_conf import PeerConf
from moyai.plan.machines_beside import router_commands
from moyai.spec.load import parse
from tests.netns.bgp_world import CLIENTS, ROUTER_AS, Speaking, image_root
from tests.netns.pod_world import ip, machines


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with image_root() as made:
        yield made


class Lab(Speaking):
    """The router has the configuration of a spec."""

    def _router(self, more: Sequence[str]) -> list[str]:
        cluster = parse(
            f"""
spec:
  network: {{nodeCIDR: 172.17.0.0/24}}
  services: {{announce: {{ranges: [10.8.0.192/26]}}}}
  networks: [{{name: clients, cidr: {CLIENTS}, gateway: rt-01}}]
  machines:
    - name: rt-01
      role: router
      bgp: {{asn: 64512}}
      networks: [{{address: 172.17.0.2}}, {{network: clients, address: 10.9.0.1}}]
"""
        )
        commands = router_commands(cluster.spec, cluster.spec.machines[0])["bgpd"]
        # the addresses of the world, in which the router is the last machine
        theirs = {"router-id 172.17.0.2": f"router-id {self.router.address}"}
        text = "\n".join(commands)
        for ours, other in theirs.items():
            assert ours in text
            text = text.replace(ours, other)
        return text.split("\n")


async def test_nodes_find_a_session_and_the_router_leads_to_a_service_over_all_of_them(root: Path) -> None:
    with machines(4) as four:
        world = Lab(four, root, peer=PeerConf("rt-01", four[-1].address, ROUTER_AS, accept=(CLIENTS,)), pods=False)
        world.service()
        world.endpoints(*world.nodes)
        async with world.running():
            await world.until(lambda: world.hops() == world.addresses(*world.nodes))
            assert {await world.asks() for _ in range(40)} == {one.name for one in world.nodes}
            assert CLIENTS in ip(world.nodes[0].net, "route show proto bgp")
            await world.settled()
            _, two, three = world.nodes
            ip(f"pn{os.getpid()}-sw", "link set s1 down")
            assert await world.until(lambda: world.hops() == world.addresses(two, three)) <= 1.5
            assert await world.asks() in (two.name, three.name)
            ip(f"pn{os.getpid()}-sw", "link set s1 up")
            await world.until(lambda: len(world.hops()) == 3)
