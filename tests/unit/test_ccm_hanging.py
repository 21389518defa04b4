"""A cloud whose load balancer service takes calls and does not answer them. In real time, for the calls hang in threads."""

from __future__ import annotations

import threading
from typing import Any

from moyai.core.clock import SystemClock
from moyai.kube.objects import parse_node
from moyai.kube.resources import NODES, SERVICES
from tests.unit.ccm_world import World, node_object, server, service_object


async def test_calls_that_hang_hold_neither_nodes_nor_fencing_up() -> None:
    world = World(nodes=1)
    world.clock = SystemClock()
    hanging, release = threading.Semaphore(0), threading.Event()

    def hang(**_: Any) -> list[Any]:
        hanging.release()
        release.wait()
        return []

    world.inside.load_balancers.load_balancers = hang  # pyright: ignore[reportAttributeAccessIssue]
    for number in range(30):
        world.kube.put(SERVICES, service_object(f"s{number}"))
    async with world.run("service", "node", "fencing", "node-lifecycle"):
        try:
            await world.until(lambda: hanging.acquire(blocking=False))
            world.store.servers.drop(server(1).id)
            world.add_machine(3)
            world.kube.put(NODES, node_object(3, initialised=False))
            await world.until(lambda: parse_node(world.kube.find(NODES, "demo-3")).provider_id)
            world.kube.put(NODES, node_object(1, ready=False))
            await world.until(lambda: "machines.server" in world.cloud.calls)
        finally:
            release.set()
