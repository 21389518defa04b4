"""The controller of network policies: from objects in the API to transactions of a kernel that keeps what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from moyai.agent.app import agent
from moyai.agent.policy import BootGate, PolicyController, removal
from moyai.agent.policy.controller import NO_GATE
from moyai.agent.policy.flows import NotedFlow
from moyai.agent.settings import AgentOptions
from moyai.core.errors import Retriable
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import Node, parse_node
from moyai.kube.resources import CLUSTER_NETWORK_POLICIES, EVENTS, NAMESPACES, NETWORK_POLICIES, NODES, PODS
from moyai.linux.conntrack import TrackedConnection
from moyai.plan.node_network import NetworkConf, write_net_conf
from moyai.runtime.controllers import ControllerSet
from moyai.runtime.metrics import Metrics
from tests.fakes.kubernetes import Kubernetes

Json = dict[str, Any]
WEB, FAR, CLIENT = "10.244.1.2", "10.244.2.2", "10.244.2.3"


def flow(source: str, destination: str = WEB, *, port: int = 80) -> TrackedConnection:
    return TrackedConnection(
        source, destination, "tcp", port=port, family=2, identity=f"{source} {destination} {port}".encode()
    )


@dataclass
class Kernel:
    """``refusals``: how many transactions it refuses from now on; ``uncut``: how many cuts."""

    applied: list[Sequence[Mapping[str, Any]]] = field(default_factory=list[Sequence[Mapping[str, Any]]])
    tracked: list[TrackedConnection] = field(default_factory=list[TrackedConnection])
    refusals: int = 0
    uncut: int = 0
    closed: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop | None = None

    def see_bridged(self) -> bool:
        return True

    def apply(self, commands: Sequence[Mapping[str, Any]]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Retriable("the kernel refuses the table of network policies (busy)")
        self.applied.append(commands)
        self._tell()

    def counters(self) -> Mapping[str, int]:
        return {"ingress:accept:red/web": 3, "ingress:drop:red/web,red/x": 1, "foreign": 9}

    def denied(self) -> list[NotedFlow]:
        return [NotedFlow(FAR, WEB, "tcp", 80, 1)]

    def connections(self) -> list[TrackedConnection]:
        return list(self.tracked)

    def cut(self, connections: Iterable[TrackedConnection]) -> int:
        if self.uncut:
            self.uncut -= 1
            raise Retriable("connections that are no longer permitted cannot be cut (busy)")
        gone = list(connections)
        self.tracked = [one for one in self.tracked if one not in gone]
        self._tell()
        return len(gone)

    def close(self) -> None:
        self.closed += 1

    @property
    def wholes(self) -> int:
        return sum(any("table" in command.get("delete", {}) for command in one) for one in self.applied)

    def _tell(self) -> None:
        if self.loop:
            self.loop.call_soon_threadsafe(self.news.set)


@dataclass
class Running:
    kube: Kubernetes
    kernel: Kernel
    metrics: Metrics
    part_ready: Callable[[], str]

    async def ready(self) -> None:
        """Until the controller lacks nothing."""
        async with asyncio.timeout(10):
            while self.part_ready():
                await asyncio.sleep(0)

    async def until(self, condition: Callable[[Kernel], object]) -> None:
        """Waits for news of the kernel until the condition is true."""
        async with asyncio.timeout(10):
            while not condition(self.kernel):
                self.kernel.news.clear()
                await self.kernel.news.wait()


@asynccontextmanager
async def running(
    kube: Kubernetes, kernel: Kernel, *, gate: BootGate = NO_GATE, tiers: bool = False
) -> AsyncGenerator[Running]:
    metrics, stop = Metrics(), asyncio.Event()
    kernel.loop = asyncio.get_running_loop()
    nodes: Informer[Node] = Informer(kube, NODES, parse=parse_node)
    events = EventRecorder(kube, component="agent")
    made = PolicyController(
        kube=kube,
        node="n1",
        nodes=nodes,
        metrics=metrics,
        gate=gate,
        events=events if tiers else None,
        kernel=lambda: kernel,
    )
    caches = [nodes, *made.caches]
    running_set = ControllerSet(metrics=metrics, caches=caches, parts=[made.part], tasks={"events": events.run})
    task = asyncio.create_task(running_set.run(stop))
    try:
        yield Running(kube, kernel, metrics, made.not_ready)
    finally:
        stop.set()
        await task


def policy(name: str = "web", **spec: Any) -> Json:
    return {"metadata": {"name": name, "namespace": "red"}, "spec": {"podSelector": {}, **spec}}


@pytest.fixture
def kube() -> Kubernetes:
    found = Kubernetes()
    found.add(NODES.plural, {"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.1.0/24"]}}, namespace=None)
    found.add(NAMESPACES.plural, {"metadata": {"name": "red", "labels": {}}}, namespace=None)
    for name, address, node in (("web", WEB, "n1"), ("far", FAR, "n2"), ("client", CLIENT, "n2")):
        pod = {
            "metadata": {"name": name, "namespace": "red", "labels": {"app": name}},
            "spec": {"nodeName": node},
            "status": {"podIP": address, "phase": "Running"},
        }
        found.add(PODS.plural, pod, namespace="red")
    return found


async def test_a_policy_that_comes_is_one_transaction_and_cuts_what_it_forbids_alone(kube: Kubernetes) -> None:
    permitted, forbidden, foreign = flow(CLIENT), flow(FAR), flow("10.244.2.9", "10.244.2.8")
    kernel = Kernel(tracked=[permitted, forbidden, foreign])
    async with running(kube, kernel) as one:
        await one.until(lambda kernel: kernel.applied)
        assert kernel.wholes == 1
        rule = {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}
        kube.add(NETWORK_POLICIES.plural, policy(ingress=[rule]), namespace="red")
        # the first transaction may still be under way: its connections are judged by the policy that has come meanwhile
        await one.until(lambda kernel: len(kernel.tracked) == 2 and len(kernel.applied) == 2)
        assert kernel.tracked == [permitted, foreign]
        assert kernel.wholes == 1


async def test_what_policies_decided_is_read_from_the_kernel_at_each_scrape(kube: Kubernetes) -> None:
    kernel = Kernel()
    async with running(kube, kernel) as one:
        assert "moyai_policy_packets_total{" not in one.metrics.text(), "nothing stands yet"
        await one.ready()
        found = {line for line in one.metrics.text().splitlines() if line.startswith("moyai_policy_packets_total")}
    series = 'moyai_policy_packets_total{direction="ingress",policy="red/web",verdict="accept"} 3.0'
    other = 'moyai_policy_packets_total{direction="ingress",policy="red/web,red/x",verdict="drop"} 1.0'
    assert found == {series, other}


async def test_after_a_refused_transaction_the_whole_table_is_replaced(kube: Kubernetes) -> None:
    kernel = Kernel()
    async with running(kube, kernel) as one:
        await one.until(lambda kernel: kernel.applied)
        kernel.refusals = 1
        kube.add(NETWORK_POLICIES.plural, policy(), namespace="red")
        await one.until(lambda kernel: kernel.wholes == 2)
        assert "in/red/web" in str(kernel.applied[-1])


async def test_connections_that_could_not_be_cut_are_looked_for_again(kube: Kubernetes) -> None:
    kernel = Kernel(tracked=[flow(FAR)], uncut=1)
    kube.add(NETWORK_POLICIES.plural, policy(), namespace="red")
    async with running(kube, kernel) as one:
        await one.until(lambda kernel: not kernel.tracked)
    assert len(kernel.applied) == 1  # the table itself was right


async def test_a_process_that_starts_cuts_what_an_earlier_one_left(kube: Kubernetes) -> None:
    kube.add(NETWORK_POLICIES.plural, policy(ingress=[{"ports": [{"port": 80}]}]), namespace="red")
    kernel = Kernel(tracked=[flow(FAR, port=81), flow(FAR)])
    async with running(kube, kernel) as one:
        await one.until(lambda kernel: len(kernel.tracked) == 1)
    assert kernel.tracked == [flow(FAR)]


async def test_switched_off_the_table_goes_in_one_transaction_however_often_the_kernel_refuses_at_first() -> None:
    kernel, stop = Kernel(refusals=3), asyncio.Event()
    kernel.loop = asyncio.get_running_loop()
    wanted = removal(kernel=lambda: kernel)
    assert [check() for check in wanted.ready.values()] == ["the table of network policies has not been removed yet"]
    task = asyncio.create_task(ControllerSet(metrics=Metrics(), parts=[wanted.part]).run(stop))
    try:
        async with asyncio.timeout(10):
            await kernel.news.wait()
            # the thread closes its socket a moment after the transaction
            while any(check() for check in wanted.ready.values()):
                await asyncio.sleep(0)
    finally:
        stop.set()
        await task
    assert len(kernel.applied) == 1
    assert "delete" in kernel.applied[0][-1]
    assert kernel.closed == 4
    assert [check() for check in wanted.ready.values()] == [""]


async def test_the_gate_is_kept_for_the_next_boot_once_policies_are_applied_and_dropped_when_they_are_switched_off(
    kube: Kubernetes, tmp_path: Path
) -> None:
    marker = tmp_path / "policy" / "gate"
    kernel = Kernel()
    async with running(kube, kernel, gate=BootGate(marker)) as one:
        await one.until(lambda kernel: kernel.applied)
        await one.ready()
        async with asyncio.timeout(10):
            while not marker.exists():
                await asyncio.sleep(0)
    wanted = removal(BootGate(marker), kernel=Kernel)
    await wanted.part.reconcile("table")
    assert not marker.exists()
    # a folder that cannot be written keeps nobody from the policies
    (tmp_path / "file").touch()
    kernel = Kernel()
    async with running(kube, kernel, gate=BootGate(tmp_path / "file" / "gate")) as one:
        await one.until(lambda kernel: kernel.applied)
        await one.ready()


async def test_cluster_policies_are_enforced_and_one_agent_reports_what_it_does_not_know(kube: Kubernetes) -> None:
    everyone: Json = {"namespaces": {}}
    rules = [{"action": "Deny", "from": [everyone]}]
    spec = {"tier": "Admin", "priority": 1, "subject": everyone, "ingress": rules}
    kube.add(CLUSTER_NETWORK_POLICIES.plural, {"metadata": {"name": "closed"}, "spec": spec}, namespace=None)
    kernel = Kernel(tracked=[flow(FAR)])
    async with running(kube, kernel, tiers=True) as one:
        await one.until(lambda kernel: not kernel.tracked)
        assert "in-admin/" in str(kernel.applied)
        assert "moyai_cluster_policies 1" in one.metrics.text()
        unknown = {**spec, "egress": [{"action": "Accept", "to": [{"domainNames": ["example.org"]}]}]}
        kube.put(CLUSTER_NETWORK_POLICIES, {"metadata": {"name": "closed"}, "spec": unknown})
        async with asyncio.timeout(10):
            while not kube.all(EVENTS):
                await asyncio.sleep(0)
    (event,) = kube.all(EVENTS)
    assert event["reason"] == "Unsupported"
    assert "egress[0].to[0].domainNames" in event["message"]
    # another node's agent is silent
    kube.put(NODES, {"metadata": {"name": "n0"}})
    kube.put(CLUSTER_NETWORK_POLICIES, {"metadata": {"name": "second"}, "spec": unknown})
    kernel = Kernel()
    async with running(kube, kernel, tiers=True) as one:
        await one.until(lambda kernel: kernel.applied)
    assert len(kube.all(EVENTS)) == 1


async def test_a_node_whose_pod_range_is_unknown_keeps_the_table_that_it_has(kube: Kubernetes) -> None:
    node = kube.objects[NODES.plural, "", "n1"]
    kube.put(NODES, {**node, "spec": {}})
    kernel = Kernel()
    async with running(kube, kernel) as one:
        async with asyncio.timeout(10):
            while "pod range" not in one.part_ready():
                await asyncio.sleep(0)
        assert not kernel.applied
        kube.put(NODES, {**node, "spec": {"podCIDRs": ["10.244.1.0/24"]}})
        await one.until(lambda kernel: kernel.applied)
        await one.ready()


def test_an_agent_without_policies_removes_their_table(tmp_path: Path) -> None:
    path = tmp_path / "net-conf.json"
    path.write_text(write_net_conf(NetworkConf("10.244.0.0/16", "host-gw")))

    def controllers(*names: str) -> set[str]:
        options = AgentOptions("n1", names, net_conf=path, bind="127.0.0.1:0")
        return set(agent(options, kube=Kubernetes(), metrics=Metrics()).controllers)

    assert controllers("pod-network") == {"pod-network", "policy-removal", "bgp-removal"}
    assert controllers("pod-network", "policy") == {"pod-network", "policy", "bgp-removal"}
    assert controllers() == {"policy-removal", "pod-network-removal"}
