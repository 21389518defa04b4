"""Which provider a Service goes to, and what the controller does around it, with providers of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Sequence
from contextlib import asynccontextmanager

import pytest

from moyai.ccm.provider import Ensured, Inventory, Orphan, Protect, Report, StillWorking
from moyai.ccm.service import CLASS_ANNOTATION, FINALIZER, ServiceController
from moyai.core.errors import Terminal
from moyai.kube.events import EventRecorder
from moyai.kube.objects import Ingress, Node, Service, parse_node, parse_service
from moyai.kube.resources import EVENTS, NODES, SERVICES
from moyai.runtime.controllers import ControllerSet, cache
from moyai.runtime.metrics import Metrics
from tests.fakes.kubernetes import Kubernetes
from tests.fakes.running import running
from tests.unit.ccm_world import node_object, service_object

pytestmark = pytest.mark.virtual_time

CLASS = "example.org/announced"
NOTE = "example.org/note"


class Provider:
    """Reachable at ``address``; ``errors`` are raised by the next calls."""

    output_annotations = frozenset({NOTE})

    def __init__(self, address: str) -> None:
        self.address = address
        self.errors: list[Exception] = []
        self.calls: list[str] = []
        self.made: set[Orphan] = set()

    def watch(self, again: Callable[[], None]) -> None:
        self.again = again

    def unknown_annotations(self, service: Service) -> Sequence[str]:
        return [key for key in service.annotations if key.startswith("example.org/odd")]

    def backends(self, nodes: Collection[Node]) -> Callable[[Service], Hashable]:
        names = tuple(sorted(node.name for node in nodes if "speaker" in node.labels))
        return lambda _service: names

    async def ensure(self, service: Service, nodes: Collection[Node], *, protect: Protect, report: Report) -> Ensured:
        self._call("ensure", service)
        await protect()
        return Ensured(Ingress(ip=self.address), {NOTE: "here"}, ("announced",))

    async def remove(self, service: Service, *, report: Report) -> None:
        self._call("remove", service)

    async def inventory(self, alive: Callable[[], Collection[str]]) -> Inventory:
        keys = frozenset(alive())
        gone = frozenset(one for one in self.made if one.services.isdisjoint(keys))
        return Inventory(frozenset[str]().union(*(one.services for one in self.made)), gone)

    async def remove_orphan(self, orphan: Orphan) -> None:
        self.calls.append(f"orphan {orphan.key.name}")
        self.made.discard(orphan)

    def _call(self, name: str, service: Service) -> None:
        self.calls.append(f"{name} {service.key}")
        if self.errors:
            raise self.errors.pop(0)


class Stage:
    def __init__(self) -> None:
        self.kube = Kubernetes()
        self.default, self.announced = Provider("203.0.113.1"), Provider("198.51.100.1")
        self.metrics = Metrics()

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        services = cache(self.kube, SERVICES, parse=parse_service, metrics=self.metrics)
        nodes = cache(self.kube, NODES, parse=parse_node, metrics=self.metrics)
        events = EventRecorder(self.kube, component="test")
        controller = ServiceController(
            kube=self.kube,
            services=services,
            nodes=nodes,
            providers={"": self.default, CLASS: self.announced},
            events=events,
        )
        parts = ControllerSet(
            metrics=self.metrics, caches=[services, nodes], parts=[controller.part()], tasks={"events": events.run}
        )
        async with running(parts):
            await asyncio.sleep(1)
            yield

    def service(self, name: str) -> Service:
        return parse_service(self.kube.find(SERVICES, name, namespace="default"))

    def events(self) -> list[str]:
        return [str(one["reason"]) for one in self.kube.all(EVENTS)]


async def test_the_class_chooses_the_provider_and_an_unknown_one_is_left_alone() -> None:
    stage = Stage()
    stage.kube.put(SERVICES, service_object("plain"))
    stage.kube.put(SERVICES, service_object("named", loadBalancerClass=CLASS))
    stage.kube.put(SERVICES, service_object("foreign", loadBalancerClass="example.org/other"))
    async with stage.run():
        assert sorted(stage.default.calls) == ["ensure default/plain"]
        assert sorted(stage.announced.calls) == ["ensure default/named"]
        assert stage.service("plain").ingress == (Ingress("203.0.113.1"),)
        named = stage.service("named")
        assert named.ingress == (Ingress("198.51.100.1"),)
        assert named.finalizers == (FINALIZER,)
        assert named.annotations == {NOTE: "here", CLASS_ANNOTATION: CLASS}
        foreign = stage.service("foreign")
        assert (foreign.ingress, foreign.finalizers, dict(foreign.annotations)) == ((), (), {})
        assert stage.events().count("EnsuredLoadBalancer") == 2


async def test_a_service_whose_type_changes_is_removed_by_the_provider_of_the_class_that_the_api_dropped() -> None:
    stage = Stage()
    stage.kube.put(SERVICES, service_object("named", loadBalancerClass=CLASS))
    async with stage.run():
        body = stage.kube.find(SERVICES, "named", namespace="default")
        spec = {**body["spec"], "type": "ClusterIP", "loadBalancerClass": None}
        stage.kube.put(SERVICES, {**body, "metadata": dict(body["metadata"]), "spec": spec})
        await asyncio.sleep(1)
        assert stage.announced.calls[-1] == "remove default/named"
        assert not any(call.startswith("remove") for call in stage.default.calls)
        named = stage.service("named")
        assert (named.ingress, named.finalizers, dict(named.annotations)) == ((), (), {})


async def test_work_that_takes_long_comes_again_without_being_a_failure() -> None:
    stage = Stage()
    stage.default.errors = [StillWorking("being built", requeue_after=30)] * 2
    stage.kube.put(SERVICES, service_object("slow"))
    async with stage.run():
        await asyncio.sleep(40)
        assert stage.service("slow").ingress == ()
        await asyncio.sleep(30)
        assert stage.service("slow").ingress == (Ingress("203.0.113.1"),)
        stage.default.errors = [StillWorking("being removed", requeue_after=30)] * 2
        await stage.kube.delete(SERVICES, "slow", namespace="default")
        await asyncio.sleep(70)
    assert ("services", "default", "slow") not in stage.kube.objects
    assert not [one for one in stage.events() if one.endswith("Failed")]
    assert stage.events().count("DeletingLoadBalancer") == 1


async def test_a_failure_is_shown_on_the_service_and_its_finalizer_stays_while_the_removal_fails() -> None:
    stage = Stage()
    stage.kube.put(SERVICES, service_object("web", annotations={"example.org/odd": "1"}))
    async with stage.run():
        stage.default.errors = [Terminal("no more addresses")]
        await stage.kube.delete(SERVICES, "web", namespace="default")
        await asyncio.sleep(10)
        assert stage.service("web").finalizers == (FINALIZER,)
        assert {"UnknownAnnotation", "UnAvailableLoadBalancer", "DeleteLoadBalancerFailed"} <= set(stage.events())
        await asyncio.sleep(600)
        assert ("services", "default", "web") not in stage.kube.objects


async def test_nodes_matter_as_far_as_the_provider_says() -> None:
    stage = Stage()
    stage.kube.put(SERVICES, service_object("web"))
    async with stage.run():
        stage.default.calls.clear()
        stage.kube.put(NODES, node_object(1))
        await asyncio.sleep(5)
        assert sorted(stage.default.calls) == []
        for number in (2, 3):
            body = node_object(number)
            body["metadata"]["labels"] = {"speaker": ""}
            stage.kube.put(NODES, body)
        await asyncio.sleep(5)
        assert sorted(stage.default.calls) == ["ensure default/web"]


async def test_a_provider_has_its_services_looked_at_again() -> None:
    stage = Stage()
    stage.kube.put(SERVICES, service_object("plain"))
    stage.kube.put(SERVICES, service_object("named", loadBalancerClass=CLASS))
    async with stage.run():
        for one in (stage.default, stage.announced):
            one.calls.clear()
        stage.announced.again()
        await asyncio.sleep(1)
        assert (stage.default.calls, stage.announced.calls) == ([], ["ensure default/named"])
