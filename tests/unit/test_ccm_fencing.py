"""The fencing controller over a Kubernetes and a cloud in memory, time in the tests' hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from moyai.ccm.fencing import FENCED, LEASE_NAMESPACE, OUT_OF_SERVICE, in_use
from moyai.cloud.model import Activity, Evidence, Power, Server
from moyai.core.errors import Retriable
from moyai.kube.objects import parse_node
from moyai.kube.resources import LEASES, NODES, PODS, VOLUME_ATTACHMENTS, Json
from tests.fakes.clock import FakeClock
from tests.unit.ccm_world import World, node_object, server

pytestmark = pytest.mark.virtual_time

RUNS = {"evidence": Evidence(Activity.RUNNING, "that its server runs", may_power_off=True)}
OFF = {"power": Power.OFF, "evidence": Evidence(Activity.OFF, "that its server is off")}


class Fencing(World):
    """``beat`` renews leases; ``wait`` lets time pass for the controller (and lets it work)."""

    def __init__(self, *, nodes: int = 3, policy: str = "verify") -> None:
        super().__init__(nodes=nodes)
        self.clock = self.time = FakeClock()
        self.config = replace(self.config, cluster=replace(self.config.cluster, fencing=policy))
        self.beats = 0
        for number in range(1, nodes + 1):
            self.machine(number, **RUNS)
        self.beat(*range(1, nodes + 1))

    def beat(self, *numbers: int) -> None:
        self.beats += 1
        for number in numbers:
            spec = {"renewTime": f"beat {self.beats}", "leaseDurationSeconds": 12}
            self.kube.put(LEASES, {"metadata": {"name": f"demo-{number}", "namespace": LEASE_NAMESPACE}, "spec": spec})

    def pod(self, name: str, number: int, *, deleting: bool = True, static: bool = False) -> None:
        annotations = {"kubernetes.io/config.mirror": "x"} if static else {}
        meta: Json = {"name": name, "namespace": "default", "annotations": annotations}
        if deleting:
            # as the API server keeps it while its kubelet has not said that it ended
            meta |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["test/kubelet"]}
        body: Json = {"metadata": meta, "spec": {"nodeName": f"demo-{number}"}, "status": {"phase": "Running"}}
        self.kube.put(PODS, body)

    def taints(self, number: int) -> set[str]:
        return {one.key for one in parse_node(self.kube.find(NODES, f"demo-{number}")).taints}

    def fenced(self, number: int) -> bool:
        node = parse_node(self.kube.find(NODES, f"demo-{number}"))
        assert (FENCED in node.annotations) == (OUT_OF_SERVICE in node.taints)
        return OUT_OF_SERVICE in node.taints

    def reasons(self) -> list[str]:
        return [one.partition(":")[0] for one in self.events()]

    @asynccontextmanager
    async def running(self, *controllers: str) -> AsyncGenerator[Callable[..., Any]]:
        manager = self.manager(*(controllers or ("fencing",)))
        stop = asyncio.Event()
        task = asyncio.create_task(manager.run(stop))

        async def wait(seconds: float, *alive: int, look: float = 1.0) -> None:
            """Time passes second by second; ``alive`` renew their leases."""
            passed = 0.0
            while passed < seconds:
                self.beat(*alive)
                await self.time.advance(look)
                passed += look

        try:
            await asyncio.sleep(0.05)
            yield wait
        finally:
            stop.set()
            await task


async def test_nodes_that_answer_cost_the_cloud_nothing() -> None:
    world = Fencing()
    async with world.running() as wait:
        world.cloud.calls.clear()
        await wait(20, 1, 2, 3)
    assert not world.cloud.calls


async def test_a_silent_node_whose_machine_is_off_lets_go_of_everything_at_once() -> None:
    world = Fencing()
    world.pod("db", 1)
    world.pod("stays", 1, deleting=False)
    world.pod("static", 1, static=True)
    world.pod("elsewhere", 2)
    forced: list[str] = []
    delete = world.kube.delete

    async def spy(resource: Any, name: str, **more: Any) -> None:
        forced.append(f"{resource.plural} {name} {more.get('grace')}")
        await delete(resource, name, **more)

    world.kube.delete = spy  # pyright: ignore[reportAttributeAccessIssue]
    async with world.running() as wait:
        await wait(2, 1, 2, 3)
        world.machine(1, **OFF)
        await wait(3, 2, 3)
        assert not world.fenced(1)  # it may yet renew
        await wait(2, 2, 3)
        await world.until(lambda: "Fenced" in world.reasons())
        assert world.fenced(1)
        node = parse_node(world.kube.find(NODES, "demo-1"))
        assert node.ready is False
        assert not world.fenced(2)
        await world.until(lambda: forced)
    assert set(forced) == {"pods db 0"}
    assert world.kube.find(PODS, "db", namespace="default")["status"]["phase"] == "Failed"
    (told,) = [one for one in world.events() if one.startswith("Fenced")]
    assert "the cloud says that its server is off" in told


async def test_a_machine_that_runs_is_not_fenced_and_it_is_told_once() -> None:
    world = Fencing()
    async with world.running() as wait:
        await wait(60, 2, 3)
        await world.until(lambda: "NotFenced" in world.reasons())
    assert not world.fenced(1)
    assert world.reasons().count("NotFenced") == 1
    assert "demo-1 keeps its pods and disks" in world.events()[0]


async def test_a_cloud_that_does_not_answer_is_doubt() -> None:
    world = Fencing()

    def down(**_: Any) -> list[Server]:
        raise Retriable("no answer")

    world.inside.machines.servers = down  # pyright: ignore[reportAttributeAccessIssue]
    world.machine(1, **OFF)
    async with world.running() as wait:
        await wait(30, 2, 3)
    assert not world.fenced(1)


async def test_a_reboot_is_not_an_end() -> None:
    world = Fencing()
    async with world.running() as wait:
        world.machine(1, power=Power.UNKNOWN, evidence=Evidence(Activity.BETWEEN, "that its server restarts"))
        await wait(30, 2, 3)
    assert not world.fenced(1)


async def test_a_machine_that_was_started_between_the_look_and_the_taint_is_let_go_again() -> None:
    world = Fencing()
    async with world.running() as wait:
        await wait(2, 1, 2, 3)
        world.machine(1, **OFF)

        patches: list[str] = []

        def started(name: str, after: bool) -> None:
            if name == "patch nodes" and not after:
                world.machine(1, **RUNS)
                patches.append(name)

        world.kube.on_call = started
        await wait(10, 2, 3)
        await world.until(lambda: "FenceLifted" in world.reasons())
    assert not world.fenced(1)
    assert parse_node(world.kube.find(NODES, "demo-1")).ready is True  # nothing was taken from it
    assert "Fenced" not in world.reasons()
    assert len(patches) <= 4, "the list that said it was off is not believed any more"


async def test_a_renewal_that_the_watch_has_not_told_yet_counts() -> None:
    world = Fencing()
    async with world.running() as wait:
        await wait(2, 1, 2, 3)
        world.machine(1, **OFF)
        key = ("leases", LEASE_NAMESPACE, "demo-1")
        changed = {**world.kube.objects[key], "spec": {"renewTime": "later", "leaseDurationSeconds": 12}}
        world.kube.objects[key] = changed  # without an event
        await wait(10, 2, 3)
    assert not world.fenced(1)


async def test_the_fence_is_lifted_when_the_machine_runs_again_and_only_ours() -> None:
    world = Fencing()
    foreign = node_object(3)
    foreign["spec"]["taints"] = [{"key": OUT_OF_SERVICE.key, "value": "nodeshutdown", "effect": "NoExecute"}]
    world.kube.put(NODES, foreign)
    async with world.running() as wait:
        world.machine(1, **OFF)
        await wait(8, 2, 3)
        await world.until(lambda: world.fenced(1))
        world.machine(1, **RUNS)
        await wait(2, 2, 3)
        await world.until(lambda: not world.fenced(1))
    assert OUT_OF_SERVICE.key in world.taints(3)
    assert "FenceLifted" in world.reasons()


async def test_a_fence_that_was_cut_in_two_is_finished_by_the_next_process() -> None:
    world = Fencing()
    body = node_object(1)
    body["spec"]["taints"] = [{"key": OUT_OF_SERVICE.key, "value": "nodeshutdown", "effect": "NoExecute"}]
    body["metadata"]["annotations"] = {FENCED: "2026-01-01T00:00:00Z"}
    world.kube.put(NODES, body)
    world.machine(1, **OFF)
    async with world.running() as wait:
        await wait(2, 2, 3)
        await world.until(lambda: parse_node(world.kube.find(NODES, "demo-1")).ready is False)
    assert world.fenced(1)


async def test_where_the_spec_allows_it_what_does_not_answer_is_powered_off_first() -> None:
    world = Fencing(policy="poweroff")
    stopped: list[str] = []

    def stop_server(server_id: str) -> None:
        stopped.append(server_id)
        world.machine(1, **OFF)

    world.inside.machines.stop_server = stop_server  # pyright: ignore[reportAttributeAccessIssue]
    async with world.running() as wait:
        await wait(2, 1, 2, 3)
        await wait(35, 2, 3)
        body = node_object(1, ready=False)
        world.kube.put(NODES, body)
        assert stopped == []
        await wait(10, 2, 3)
        await world.until(lambda: world.fenced(1))
    assert stopped == [server(1).id]
    assert "PoweringOff" in world.reasons()


async def test_switched_off_nothing_is_asked_or_done() -> None:
    world = Fencing(policy="off")
    world.machine(1, **OFF)
    async with world.running() as wait:
        await wait(60, 2, 3)
        assert not world.cloud.calls
    assert not world.fenced(1)


async def test_a_node_whose_machine_is_gone_stays_until_its_disks_are_free() -> None:
    world = Fencing()
    attachment = {"metadata": {"name": "va"}, "spec": {"nodeName": "demo-3"}}
    world.kube.put(VOLUME_ATTACHMENTS, attachment)
    async with world.running("fencing", "node-lifecycle") as wait:
        await wait(2, 1, 2, 3)
        world.store.servers.drop(server(3).id)
        await wait(20, 1, 2)
        assert world.fenced(3)
        assert await in_use(world.kube, "demo-3")
        world.kube.vanish(VOLUME_ATTACHMENTS, "va")
        assert not await in_use(world.kube, "demo-3")
        await world.until(lambda: ("nodes", "", "demo-3") not in world.kube.objects)
    assert "DeletingNode" in world.reasons()
