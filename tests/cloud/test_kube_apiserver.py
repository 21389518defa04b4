"""The Kubernetes side against a real API server: informer, election, events, and the controllers with exactly their rights."""

from __future__ import annotations

import asyncio
import gc
import urllib.error
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from moyai.ccm.app import CcmOptions, controller_manager
from moyai.ccm.manifests import NAME, ManifestOptions, render
from moyai.cloud.memory import MemoryCloud
from moyai.cloud.model import Power, Route
from moyai.core.errors import Conflict, NotFound, Terminal
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.leader import LeaderElection, LeaseTimes
from moyai.kube.objects import Reference, Service, parse_node, parse_service
from moyai.kube.resources import LEASES, SERVICES
from moyai.kube.watching import KubeClient
from moyai.runtime.calls import CloudCalls
from moyai.runtime.controllers import ControllerSet
from moyai.runtime.metrics import Metrics
from tests.cloud.kube_api import KubeApi, kube_api
from tests.fakes.running import running
from tests.unit.ccm_world import CONFIG, add_machine, cluster_cloud, node_object, server, service_object

PLAIN: dict[str, Any] = {"type": "ClusterIP", "ports": [{"port": 80}]}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Generator[KubeApi]:
    with kube_api(tmp_path_factory.mktemp("kube")) as started:
        started.apply(render(ManifestOptions("demo", CONFIG, "registry.moyai.dev/moyai:test", "10.244.0.0/16")))
        yield started


@pytest.fixture(autouse=True)
def _collected() -> Generator[None]:
    """Collect each test's garbage in the test itself, so that its warnings do not appear in a later test."""
    yield
    gc.collect()


@asynccontextmanager
async def client(path: Path) -> AsyncGenerator[KubeClient]:
    made = KubeClient.connect(path)
    try:
        yield made
    finally:
        await made.close()


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def service(api: KubeApi, name: str, *, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make it (with ``body``) or read it."""
    path = "/api/v1/namespaces/default/services"
    if body is not None:
        return cast("dict[str, Any]", api.call("POST", path, body={"apiVersion": "v1", "kind": "Service", **body}))
    return cast("dict[str, Any]", api.call("GET", f"{path}/{name}"))


def exists(api: KubeApi, path: str) -> bool:
    try:
        api.call("GET", path)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return False
    return True


async def test_an_informer_follows_and_misses_no_deletion_while_the_api_server_is_away(api: KubeApi) -> None:
    service(api, "early", body=service_object("early", **PLAIN))
    service(api, "doomed", body=service_object("doomed", **PLAIN))
    seen: list[tuple[str, str]] = []
    async with client(api.kubeconfig) as kube:
        breaks: list[str] = []
        informer: Informer[Service] = Informer(
            kube, SERVICES, parse=parse_service, on_break=lambda name, _why: breaks.append(name)
        )

        def told(key: str, old: Service | None, new: Service | None) -> None:
            seen.append((key, "add" if old is None else "delete" if new is None else "change"))

        informer.add_handler(told)
        task = asyncio.create_task(informer.run())
        try:
            await asyncio.wait_for(informer.synced.wait(), 10)
            assert ("default/early", "add") in seen
            api.call(
                "PATCH",
                "/api/v1/namespaces/default/services/early",
                body={"metadata": {"labels": {"a": "b"}}},
                kind="application/merge-patch+json",
            )
            await until(lambda: ("default/early", "change") in seen)
            await asyncio.to_thread(api.stop)
            await until(lambda: breaks)
            await asyncio.to_thread(api.start)
            # deleted at once: the informer may still be waiting for its next try, then only a comparison can tell
            api.call("DELETE", "/api/v1/namespaces/default/services/doomed")
            await until(lambda: ("default/doomed", "delete") in seen)
            assert informer.get("default/early")
            assert informer.healthy
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            api.call("DELETE", "/api/v1/namespaces/default/services/early")


async def test_errors_are_told_apart(api: KubeApi) -> None:
    async with client(api.kubeconfig) as kube:
        with pytest.raises(NotFound):
            await kube.get(SERVICES, "nothing", namespace="default")
        service(api, "twice", body=service_object("twice", **PLAIN))
        body = {"apiVersion": "v1", "kind": "Service", **service_object("twice", **PLAIN)}
        with pytest.raises(Conflict):
            await kube.create(SERVICES, body, namespace="default")
        with pytest.raises(Conflict):
            await kube.patch(SERVICES, "twice", body={"metadata": {"resourceVersion": "1"}}, namespace="default")
        await kube.delete(SERVICES, "twice", namespace="default")
        await kube.delete(SERVICES, "twice", namespace="default")
    async with client(api.kubeconfig_of(NAME)) as kube:
        with pytest.raises(Terminal, match="forbidden"):
            await kube.delete(SERVICES, "kubernetes", namespace="default")


async def test_one_of_two_leads_and_the_other_follows_when_the_lease_is_handed_back(api: KubeApi) -> None:
    times = LeaseTimes(duration=3, deadline=2, retry=0.2)
    async with client(api.kubeconfig_of(NAME)) as kube:
        first, second = (
            LeaderElection(kube, name=NAME, namespace="kube-system", identity=one, times=times) for one in ("one", "two")
        )
        await asyncio.wait_for(first.acquire(), 5)
        holding = asyncio.create_task(first.hold())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(4)
        assert first.leading
        assert not second.leading
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        await first.release()
        await asyncio.wait_for(waiting, 3)
        assert second.leading
        # the lease is taken away: its holder must notice
        holding = asyncio.create_task(second.hold())
        lease = await kube.get(LEASES, NAME, namespace="kube-system")
        lease["spec"] |= {"holderIdentity": "thief", "leaseDurationSeconds": 60}
        async with client(api.kubeconfig) as admin:
            while True:
                try:
                    await admin.replace(LEASES, NAME, body=lease, namespace="kube-system")
                    break
                except Conflict:
                    lease = await kube.get(LEASES, NAME, namespace="kube-system")
                    lease["spec"] |= {"holderIdentity": "thief", "leaseDurationSeconds": 60}
        await asyncio.wait_for(holding, 10)
        assert not second.leading
        api.call("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{NAME}")


async def test_the_same_event_again_raises_its_count(api: KubeApi) -> None:
    async with client(api.kubeconfig_of(NAME)) as kube:
        recorder = EventRecorder(kube, component="test")
        task = asyncio.create_task(recorder.run())
        about = Reference("Service", "told", "uid-told", "default")
        for _ in range(3):
            recorder.event(about, "Warning", reason="Trouble", message="It does not work: so and so")
        recorder.event(about, "Normal", reason="Fine", message="It works")
        await recorder.flush(10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    events = api.call("GET", "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=told")["items"]
    assert sorted((one["reason"], one["count"]) for one in events) == [("Fine", 1), ("Trouble", 3)]


@asynccontextmanager
async def controllers(api: KubeApi, cloud: MemoryCloud, *names: str) -> AsyncGenerator[ControllerSet]:
    """The controllers as in the cluster: with the service account's token and the rights of the manifests."""
    metrics = Metrics()
    async with client(api.kubeconfig_of(NAME)) as kube:
        manager = controller_manager(
            CcmOptions(Path("unused"), "demo", ("10.244.0.0/16",), names, bind="127.0.0.1:0", leader_elect=True),
            CONFIG,
            kube=kube,
            calls=CloudCalls(cloud, metrics, "RegionOne"),
            metrics=metrics,
            poll=0.01,
        )
        async with running(manager):
            yield manager


async def test_nodes_are_initialised_and_follow_their_machines(api: KubeApi) -> None:
    cloud = cluster_cloud()
    for number in (1, 2):
        add_machine(cloud, number)
        body = node_object(number, initialised=False, ready=True)
        api.call("POST", "/api/v1/nodes", body={"apiVersion": "v1", "kind": "Node", **body})
    nodes = {name: f"/api/v1/nodes/{name}" for name in ("demo-1", "demo-2")}
    async with controllers(api, cloud, "node", "node-lifecycle", "route"):
        await until(lambda: all(parse_node(api.call("GET", path)).provider_id for path in nodes.values()))
        node = parse_node(api.call("GET", nodes["demo-1"]))
        assert node.provider_id == cloud.machines.provider_id(server(1).id)
        assert [(one.type, one.address) for one in node.addresses] == [("InternalIP", "10.0.0.1"), ("Hostname", "demo-1")]
        assert node.pod_cidrs == ("10.244.1.0/24",)
        assert node.labels["topology.kubernetes.io/zone"] == "az1"
        assert node.labels["topology.kubernetes.io/region"] == "RegionOne"
        assert node.labels["node.kubernetes.io/instance-type"] == "m1.small"
        assert [taint.key for taint in node.taints if "cloudprovider" in taint.key] == []
        assert "keep" in [taint.key for taint in node.taints]
        wanted = {Route(f"10.244.{n}.0/24", f"10.0.0.{n}") for n in (1, 2)}
        await until(lambda: set(cloud.store.routers["router-1"].routes) == wanted)
        await until(lambda: parse_node(api.call("GET", nodes["demo-1"])).network_unavailable is False)
        assert [pair.address for pair in cloud.store.ports["p1"].send_from] == ["10.244.1.0/24"]
        # the machine stops
        cloud.store.servers.put(server(1, status="SHUTOFF", power=Power.OFF))
        not_ready = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
        strategic = "application/strategic-merge-patch+json"
        api.call("PATCH", nodes["demo-1"] + "/status", body=not_ready, kind=strategic)
        shutdown = "node.cloudprovider.kubernetes.io/shutdown"
        await until(lambda: shutdown in [one.key for one in parse_node(api.call("GET", nodes["demo-1"])).taints])
        # and comes back
        cloud.store.servers.put(server(1))
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        api.call("PATCH", nodes["demo-1"] + "/status", body=ready, kind=strategic)
        await until(lambda: shutdown not in [one.key for one in parse_node(api.call("GET", nodes["demo-1"])).taints])
        # the other is gone for good
        cloud.store.servers.drop(server(2).id)
        api.call("PATCH", nodes["demo-2"] + "/status", body=not_ready, kind=strategic)
        await until(lambda: not exists(api, nodes["demo-2"]))
        assert exists(api, nodes["demo-1"])
    api.call("DELETE", nodes["demo-1"])


async def test_a_service_is_served_and_cleaned_up(api: KubeApi) -> None:
    cloud = cluster_cloud()
    for number in (1, 2):
        add_machine(cloud, number)
        body = node_object(number)
        made = api.call("POST", "/api/v1/nodes", body={"apiVersion": "v1", "kind": "Node", **body})
        api.call("PUT", f"/api/v1/nodes/demo-{number}/status", body={**made, "status": body["status"]})
    service(api, "web", body=service_object("web", externalTrafficPolicy="Local"))
    async with controllers(api, cloud, "service"):
        await until(lambda: parse_service(service(api, "web")).ingress)
        found = parse_service(service(api, "web"))
        (balancer,) = cloud.store.balancers
        (listener,) = balancer.listeners
        assert listener.pool
        assert listener.pool.monitor
        assert listener.pool.monitor.url_path == "/healthz"
        assert {member.monitor_port for member in listener.pool.members} == {found.health_check_node_port}
        assert found.ingress[0].ip_mode == "VIP"
        await until(lambda: parse_service(service(api, "web")).annotations)
        events = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=web"
        await until(
            lambda: {"EnsuringLoadBalancer", "EnsuredLoadBalancer"} <= {e["reason"] for e in api.call("GET", events)["items"]}
        )
        api.call("DELETE", "/api/v1/namespaces/default/services/web")
        await until(lambda: not exists(api, "/api/v1/namespaces/default/services/web"))
        assert not cloud.store.balancers
        assert not cloud.store.rules
    for number in (1, 2):
        api.call("DELETE", f"/api/v1/nodes/demo-{number}")
