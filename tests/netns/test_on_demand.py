"""Mode vxlan with resolution on demand: the kernel asks for what it misses, and is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from moyai.kube.resources import NODES
from moyai.linux.process import run
from tests.netns.pod_world import Machine, ip, machines, ping
from tests.netns.test_pod_networks import ON_DEMAND, VXLAN, agents, until


@pytest.fixture
def three() -> Iterator[list[Machine]]:
    with machines(3) as made:
        yield made


def neighbours(machine: Machine) -> list[str]:
    """Addresses that the kernel knows on the tunnel."""
    shown = ip(machine.net, "neigh show dev flannel.1").splitlines()
    return sorted(line.split()[0] for line in shown if "lladdr" in line)


def ways(machine: Machine) -> list[str]:
    shown = run(["bridge", "-n", machine.net, "fdb", "show", "dev", "flannel.1"], timeout=20).stdout
    return sorted(line.split()[2] for line in shown.splitlines())


async def test_a_kernel_has_entries_only_for_pods_that_it_sends_to_and_loses_no_first_packet(three: list[Machine]) -> None:
    one, two, last = three
    async with agents(three, ON_DEMAND) as world:
        await until(lambda: all("flannel.1" in ip(each.net, "route show") for each in three))
        await asyncio.sleep(0.5)
        assert (neighbours(one), ways(one)) == ([], [])
        # ping tries once and waits for a second: the first packet passes, and its answer
        assert await asyncio.to_thread(ping, one, two)
        assert (neighbours(one), ways(one)) == ([two.pod_address], [two.address])
        assert (neighbours(two), ways(two)) == ([one.pod_address], [one.address])
        assert neighbours(last) == []
        text = world.metrics[one.name].text()
        assert 'moyai_agent_misses_total{answered="yes"}' in text
        # nobody has this pod range: the sender hears it
        words = ["ip", "netns", "exec", one.pod, "ping", "-c", "1", "-W", "8", "10.244.77.5"]
        done = await asyncio.to_thread(run, words, timeout=20, check=False)
        assert "Destination Host Unreachable" in done.stdout
        assert 'moyai_agent_misses_total{answered="no"}' in world.metrics[one.name].text()


async def test_a_node_that_changes_its_tunnel_or_leaves_is_forgotten(three: list[Machine]) -> None:
    one, two, _ = three
    async with agents(three, ON_DEMAND) as world:
        await until(lambda: ping(one, two))
        node = world.kube.find(NODES, two.name)
        prefix = "flannel.alpha.coreos.com/"
        moved = json.dumps({"VNI": 1, "VtepMAC": "02:00:00:00:00:77"})
        other = {**node["metadata"]["annotations"], f"{prefix}backend-data": moved}
        await world.stop_one(two)
        world.kube.put(NODES, {**node, "metadata": {**node["metadata"], "annotations": other}})
        await until(lambda: not neighbours(one) and not ways(one))
        world.start(two, ON_DEMAND)
        await until(lambda: ping(one, two))


async def test_nodes_with_known_entries_are_in_the_same_network(three: list[Machine]) -> None:
    one, two, third = three
    async with agents(three[:2], ON_DEMAND) as world:
        world.kube.add("nodes", third.object(), namespace=None)
        world.start(third, VXLAN)
        await until(lambda: ping(one, third) and ping(third, two) and ping(one, two))
        assert neighbours(third) == ["10.244.1.0", "10.244.2.0"]


async def test_a_lost_way_to_a_machine_is_asked_for_alone(three: list[Machine]) -> None:
    one, two, _ = three
    async with agents(three, ON_DEMAND) as world:
        await until(lambda: ping(one, two))
        before = world.metrics[one.name].value("moyai_agent_misses_total", answered="yes")
        (shown,) = run(["bridge", "-n", one.net, "fdb", "show", "dev", "flannel.1"], timeout=20).stdout.splitlines()
        run(["bridge", "-n", one.net, "fdb", "del", shown.split()[0], "dev", "flannel.1", "dst", two.address], timeout=20)
        await until(lambda: ping(one, two))
        assert ways(one) == [two.address]
        assert world.metrics[one.name].value("moyai_agent_misses_total", answered="yes") > before
