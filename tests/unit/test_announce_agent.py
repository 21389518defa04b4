"""Agents that announce addresses: one owner at a time, whatever happens to nodes and to their way to the API."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from moyai.agent.announce.controller import AnnounceController, Ethernet
from moyai.kube.events import EventRecorder
from moyai.kube.objects import parse_node
from moyai.kube.resources import (
    ADDRESS_POOLS,
    ENDPOINT_SLICES,
    EVENTS,
    L2_ADVERTISEMENTS,
    LEASES,
    NODES,
    SERVICE_L2_STATUSES,
    SERVICES,
    Json,
)
from moyai.plan.announce.metallb_words import FROM_POOL, NAMESPACE, status_name
from moyai.runtime.controllers import ControllerSet, ControllerSetup, cache, controller_set
from moyai.runtime.metrics import Metrics
from tests.fakes.clock import FakeClock
from tests.fakes.kubernetes import Kubernetes, Way
from tests.unit.ccm_world import node_object, service_object

pytestmark = pytest.mark.virtual_time

ADDRESS = "192.0.2.1"


class Wire:
    """Who answers on the network, and who announced."""

    def __init__(self) -> None:
        self.nodes: dict[str, Callable[[str], bool]] = {}
        self.contested: dict[str, Callable[[str], None]] = {}
        self.announced: list[str] = []

    def who(self, address: str = ADDRESS) -> list[str]:
        return sorted(name for name, answers in self.nodes.items() if answers(address))


class Responder:
    """In place of a packet socket, which is of no use without a network."""

    def __init__(self, wire: Wire, node: str, *, answers: Callable[[str], bool], contested: Callable[[str], None]) -> None:
        self._wire, self._node, self._answers = wire, node, answers
        self._ends = socket.socketpair()
        wire.nodes[node], wire.contested[node] = answers, contested

    def fileno(self) -> int:
        return self._ends[0].fileno()

    def ready(self) -> None:
        raise AssertionError("nothing comes")

    def announce(self, address: str) -> None:
        if self._answers(address):
            self._wire.announced.append(f"{self._node} {address}")

    def close(self) -> None:
        self._wire.nodes.pop(self._node, None)
        for one in self._ends:
            one.close()


class Nodes:
    """Three nodes with an agent each, one Service with an address."""

    def __init__(self, count: int = 3) -> None:
        self.kube, self.wire, self.clock = Kubernetes(), Wire(), FakeClock()
        self.ways: dict[str, Way] = {}
        self.stops: dict[str, asyncio.Event] = {}
        self.names = [f"demo-{number}" for number in range(1, count + 1)]
        for number in range(1, count + 1):
            self.kube.put(NODES, node_object(number))
        meta = {"name": "main", "namespace": NAMESPACE}
        self.kube.put(ADDRESS_POOLS, {"metadata": meta, "spec": {"addresses": ["192.0.2.0/24"]}})
        self.advert()
        self.service()

    def advert(self, **spec: Any) -> None:
        self.kube.put(L2_ADVERTISEMENTS, {"metadata": {"name": "all", "namespace": NAMESPACE}, "spec": spec})

    def service(self, name: str = "web", address: str = ADDRESS, **spec: Any) -> None:
        body = service_object(name, annotations={FROM_POOL: "main"}, **spec)
        self.kube.put(SERVICES, {**body, "status": {"loadBalancer": {"ingress": [{"ip": address}]}}})

    def agent(self, node: str, interfaces: frozenset[str]) -> ControllerSet:
        way: Any = Way(self.kube)
        self.ways[node] = way
        metrics = Metrics()
        nodes = cache(way, NODES, parse=parse_node, metrics=metrics)
        events = EventRecorder(way, component="test")

        def responder(interface: str, answers: Callable[[str], bool], *, contested: Callable[[str], None]) -> Any:
            return Responder(self.wire, node, answers=answers, contested=contested)

        made = AnnounceController(
            kube=way,
            node=node,
            nodes=nodes,
            events=events,
            metrics=metrics,
            clock=self.clock,
            network=Ethernet(responder, lambda _address: "eth0", lambda: interfaces),
        )
        wanted = ControllerSetup(made.part, caches=made.caches, tasks={"addresses": made.run})
        return controller_set([wanted], metrics=metrics, events=events, bind="127.0.0.1:0", shared=[nodes])

    @asynccontextmanager
    async def one(self, node: str, interfaces: frozenset[str] = frozenset({"eth0"})) -> AsyncGenerator[ControllerSet]:
        self.stops[node] = asyncio.Event()
        agent = self.agent(node, interfaces)
        task = asyncio.create_task(agent.run(self.stops[node]))
        try:
            yield agent
        finally:
            self.stops[node].set()
            await task

    @asynccontextmanager
    async def all(self) -> AsyncGenerator[dict[str, ControllerSet]]:
        async with AsyncExitStack() as stack:
            made = {name: await stack.enter_async_context(self.one(name)) for name in self.names}
            await self.pass_time(3)
            yield made

    async def pass_time(self, seconds: float) -> float:
        """Looks ten times a second; returns how long nobody answered, in seconds."""
        silent = 0
        for _ in range(round(seconds * 10)):
            await asyncio.sleep(0.1)
            assert len(self.wire.who()) <= 1
            silent += not self.wire.who()
        return silent / 10

    def statuses(self) -> list[Json]:
        return [one["status"] for one in self.kube.all(SERVICE_L2_STATUSES)]


def reconciles(metrics: str) -> list[str]:
    return [line for line in metrics.splitlines() if line.startswith("moyai_reconcile_total")]


async def test_one_node_answers_and_says_so() -> None:
    nodes = Nodes()
    async with nodes.all():
        (owner,) = nodes.wire.who()
        assert await nodes.pass_time(10) == 0
        # several times, as some switches lose the first
        assert nodes.wire.announced == [f"{owner} {ADDRESS}"] * 5
        assert nodes.statuses() == [
            {"node": owner, "serviceName": "web", "serviceNamespace": "default", "interfaces": [{"name": "eth0"}]}
        ]
        (event,) = nodes.kube.all(EVENTS)
        assert (event["reason"], event["message"]) == ("nodeAssigned", f'announcing from node "{owner}" with protocol "layer2"')
        (lease,) = nodes.kube.all(LEASES)
        assert (lease["metadata"]["name"], lease["spec"]["holderIdentity"]) == ("announced-192-0-2-1", owner)
    assert nodes.statuses() == []


async def test_an_owner_without_a_way_to_the_api_falls_silent_before_another_answers() -> None:
    nodes = Nodes()
    async with nodes.all():
        (owner,) = nodes.wire.who()
        nodes.ways[owner].cut = True
        silent = await nodes.pass_time(8)
        (now,) = nodes.wire.who()
        assert now != owner
        assert 0 < silent <= 3.1
        nodes.ways[owner].cut = False
        await nodes.pass_time(10)
        # the one that came back does not take the address away
        assert nodes.wire.who() == [now]
        assert [one["node"] for one in nodes.statuses()] == [now]


async def test_an_agent_that_ends_hands_its_addresses_over() -> None:
    nodes = Nodes()
    async with nodes.all():
        (owner,) = nodes.wire.who()
        nodes.stops[owner].set()
        assert await nodes.pass_time(5) <= 1.1
        assert nodes.wire.who() != [owner]


async def test_an_agent_that_comes_back_has_its_addresses_at_once() -> None:
    nodes = Nodes()
    async with nodes.all():
        (owner,) = nodes.wire.who()
    async with nodes.one(owner):
        # as after a kill: the Lease is this node's still
        await asyncio.sleep(0.5)
        (lease,) = nodes.kube.all(LEASES)
        assert lease["spec"]["holderIdentity"] == owner
        assert nodes.wire.who() == [owner]


async def test_a_node_that_is_no_longer_ready_gives_its_addresses_up() -> None:
    nodes = Nodes()
    async with nodes.all():
        (owner,) = nodes.wire.who()
        nodes.kube.put(NODES, node_object(int(owner[-1]), ready=False))
        assert await nodes.pass_time(5) <= 1.5
        assert nodes.wire.who() not in ([], [owner])


async def test_with_local_traffic_the_address_follows_the_endpoints() -> None:
    nodes = Nodes()
    nodes.service(externalTrafficPolicy="Local")

    def endpoint(node: str, *, ready: bool = True) -> None:
        labels = {"kubernetes.io/service-name": "web"}
        meta = {"name": "web-x", "namespace": "default", "labels": labels}
        body = {"metadata": meta, "endpoints": [{"nodeName": node, "conditions": {"ready": ready}}]}
        nodes.kube.put(ENDPOINT_SLICES, body)

    async with nodes.all():
        assert nodes.wire.who() == []
        for node in ("demo-2", "demo-3", "demo-1"):
            endpoint(node)
            await nodes.pass_time(3)
            assert nodes.wire.who() == [node]
        endpoint("demo-1", ready=False)
        await nodes.pass_time(3)
        assert nodes.wire.who() == []


async def test_endpoints_that_no_announcement_depends_on_cost_nothing() -> None:
    nodes = Nodes(1)
    for number in range(1, 4):
        nodes.kube.put(SERVICES, service_object(f"other-{number}"))
    async with nodes.all() as made:
        before = made["demo-1"].metrics.text()
        for number in range(1, 4):
            labels = {"kubernetes.io/service-name": f"other-{number}"}
            meta = {"name": f"x-{number}", "namespace": "default", "labels": labels}
            nodes.kube.put(ENDPOINT_SLICES, {"metadata": meta, "endpoints": [{"nodeName": "demo-1"}]})
        await asyncio.sleep(2)
        assert reconciles(made["demo-1"].metrics.text()) == reconciles(before)


async def test_a_service_that_goes_is_answered_for_no_more() -> None:
    nodes = Nodes()
    async with nodes.all():
        await nodes.kube.delete(SERVICES, "web", namespace="default")
        await nodes.pass_time(1)
        assert nodes.wire.who() == []
        assert nodes.statuses() == []


async def test_addresses_without_the_allocators_mark_are_not_ours() -> None:
    nodes = Nodes()
    body = service_object("cloud")
    nodes.kube.put(SERVICES, {**body, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}})
    async with nodes.all():
        assert nodes.wire.who("192.0.2.9") == []


async def test_the_owner_repeats_itself_when_another_machine_claims_the_address() -> None:
    nodes = Nodes()
    async with nodes.all():
        (owner,) = nodes.wire.who()
        await nodes.pass_time(10)
        nodes.wire.announced.clear()
        for _ in range(20):
            nodes.wire.contested[owner](ADDRESS)
        assert nodes.wire.announced == [f"{owner} {ADDRESS}"]
        await nodes.pass_time(1.5)
        nodes.wire.contested[owner](ADDRESS)
        assert len(nodes.wire.announced) == 2


async def test_a_node_without_the_named_interface_does_not_compete() -> None:
    nodes = Nodes()
    nodes.advert(interfaces=["eth7"])
    async with nodes.all():
        assert nodes.wire.who() == []
        assert not nodes.kube.all(LEASES)
    async with nodes.one("demo-1"), nodes.one("demo-2", frozenset({"eth0", "eth7"})):
        await nodes.pass_time(5)
        assert nodes.wire.who() == ["demo-2"]
        assert nodes.statuses()[0]["interfaces"] == [{"name": "eth7"}]


async def test_what_an_earlier_process_of_the_node_left_is_taken_away() -> None:
    nodes = Nodes()
    for node, name in (("demo-1", "old"), ("elsewhere", "other")):
        labels = {"metallb.io/node": node, "metallb.io/service-name": name, "metallb.io/service-namespace": "default"}
        meta = {"name": status_name(f"default/{name}"), "namespace": NAMESPACE, "labels": labels}
        nodes.kube.put(SERVICE_L2_STATUSES, {"metadata": meta, "status": {"node": node}})
    async with nodes.one("demo-1"):
        await nodes.pass_time(3)
        assert sorted(one["node"] for one in nodes.statuses()) == ["demo-1", "elsewhere"]
        assert {one["metadata"]["labels"]["metallb.io/service-name"] for one in nodes.kube.all(SERVICE_L2_STATUSES)} == {
            "web",
            "other",
        }


@pytest.mark.parametrize("seed", range(8))
async def test_never_two_owners_and_soon_one_again_whatever_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    nodes = Nodes()
    async with nodes.all():
        for _ in range(12):
            for way in nodes.ways.values():
                way.cut = chance.random() < 0.4
            # one look in ten a second is in ``pass_time``: it fails on two owners
            await nodes.pass_time(chance.uniform(0.2, 6))
        for way in nodes.ways.values():
            way.cut = False
        await nodes.pass_time(8)
        assert len(nodes.wire.who()) == 1
        assert await nodes.pass_time(10) == 0
