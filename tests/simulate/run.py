"""One size of a simulation: a cluster is built, the cloud controller manager meets its nodes, Services come and go, nodes leave
and are replaced, and the cluster is removed.

Everything shares one virtual clock: servers take 20 s, load balancers 8 s, and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from moyai.ccm.app import CcmOptions, controller_manager
from moyai.ccm.settings import CcmConfig, ClusterConfig, LoadBalancerConfig, RouteConfig
from moyai.cloud.memory import Delays, MemoryAdapter, MemoryCloud
from moyai.cloud.model import Image, Power, Server
from moyai.core.ids import cluster_tag
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.kube.resources import NODES, SERVICES, Json
from moyai.lifecycle import down as removing
from moyai.lifecycle import up as building
from moyai.lifecycle.record import Record
from moyai.runtime.calls import CloudCalls
from moyai.runtime.metrics import Metrics
from moyai.spec.load import parse
from moyai.spec.model import Cluster
from tests.fakes.clock import FakeClock, VirtualLoop
from tests.fakes.cluster_api import ClusterApi
from tests.fakes.kubernetes import Kubernetes
from tests.fakes.running import running
from tests.simulate.figures import Phase, Run
from tests.simulate.leaving import SHARE, LeavingNodes

PODS = "10.128.0.0/14"
_SPEC = """
spec:
  nodePools: [{{replicas: {workers}}}]
  network: {{nodeCIDR: 10.8.0.0/20, podCIDR: {pods}, maxRoutes: 10000}}
"""
#: The longest that a phase may take, in virtual seconds.
_PATIENCE = 7200.0


def simulate(nodes: int, services: int, *, folder: Path) -> Run:
    """``folder`` takes the cluster's record."""
    loop = VirtualLoop()
    try:
        # a folder that is thrown away needs no disk that has written it
        with patch("os.fsync", _written):
            return loop.run_until_complete(_Simulation(nodes, services, folder=folder).run())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def measure(nodes: int, services: int) -> Run:
    """As ``simulate``, with the most memory that this process has had."""
    with tempfile.TemporaryDirectory(prefix="moyai-simulate-") as folder:
        run = simulate(nodes, services, folder=Path(folder))
    return replace(run, peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _written(_handle: int) -> None:
    """As if the disk had it."""


class _Simulation:
    def __init__(self, nodes: int, services: int, *, folder: Path) -> None:
        self._nodes, self._services = nodes, services
        self._paths = Paths(folder / "cache", folder / "state")
        self._phases: list[Phase] = []
        self._api: ClusterApi | None = None

    async def run(self) -> Run:
        self._clock = FakeClock()
        self._cloud = MemoryCloud(clock=self._clock, delays=Delays(server=20, volume=3, snapshot=3, balancer=8))
        self._kube = Kubernetes()
        self._kube.bookmark_seconds = 60
        version = parse("").spec.kubernetes_version
        image = Image("node", f"moyai-node-{version}", "ACTIVE", properties={"moyai_kubernetes_version": version})
        self._cloud.store.images.put(image)
        planning = await asyncio.to_thread(self._build)
        await self._control()
        await asyncio.to_thread(self._end)
        return Run(self._nodes, self._services, planning, tuple(self._phases))

    # ---- the lifecycle

    def _build(self) -> float:
        with patch.object(building, "open_api", self._open_api):
            start = time.monotonic()
            building.preview(self._cluster(self._nodes), self._cloud, paths=self._paths, clock=self._clock)
            planning = time.monotonic() - start
            with _Counting(self, "up", unit="node", objects=self._nodes):
                self._uid = self._up(self._nodes).uid
            with _Counting(self, "up again", unit="node", objects=self._nodes):
                assert not self._up(self._nodes).changed
        assert len(self._servers()) == self._nodes
        return planning

    def _end(self) -> None:
        few = self._nodes // SHARE
        leaving = LeavingNodes(self._cloud, self._kube, uid=self._uid, clock=self._clock)
        self._cloud.machines.delete_server(self._late.id)
        self._kube.vanish(NODES, self._late.name)
        leaving.balance(self._services)
        unit = "node or Service"
        with patch.object(building, "open_api", self._open_api), patch.object(removing, "open_api", self._open_api):
            if few:
                with _Counting(self, "scale down", unit=unit, objects=few + self._services):
                    self._up(self._nodes - few)
                assert len(self._servers()) == self._nodes - few
                leaving.fail(few)
                with _Counting(self, "replace", unit=unit, objects=few + self._services):
                    self._up(self._nodes - few)
                assert all(one.power is Power.RUNNING for one in self._servers())
            with _Counting(self, "down", unit=unit, objects=self._nodes - few + self._services):
                target, record = removing.target_of("quickstart", self._paths, cloud=self._cloud)
                reporter = Reporter(clock=self._clock)
                report = removing.down(
                    target, record, cloud=self._cloud, paths=self._paths, reporter=reporter, clock=self._clock
                )
        assert not report.left

    def _open_api(self, record: Record) -> Any:
        if self._api is None:
            self._api = ClusterApi(self._kube, self._cloud, tag=cluster_tag(record.uid))
        return self._api if (record.folder / "kubeconfig").exists() else None

    def _cluster(self, nodes: int) -> Cluster:
        return parse(_SPEC.format(workers=nodes - 1, pods=PODS))

    def _up(self, nodes: int) -> building.UpResult:
        reporter = Reporter(clock=self._clock)
        return building.up(self._cluster(nodes), self._cloud, paths=self._paths, reporter=reporter, clock=self._clock)

    def _servers(self) -> list[Server]:
        return self._cloud.store.servers.by("tag", cluster_tag(self._uid))

    # ---- the controllers

    async def _control(self) -> None:
        async with self._manager():
            await self._phase("nodes join", "node", objects=self._nodes, begin=self._join, done=self._joined)
            await self._phase("Services come", "Service", objects=self._services, begin=self._serve, done=self._served)
            await self._phase("a node joins", "Service", objects=self._services, begin=self._join_one, done=self._reached)
            await self._phase("an hour of rest", "Service", objects=self._services, begin=self._rest, done=self._rested)
            await self._phase("Services go", "Service", objects=self._services, begin=self._stop, done=self._stopped)

    @asynccontextmanager
    async def _manager(self) -> AsyncGenerator[None]:
        store, tag = self._cloud.store, cluster_tag(self._uid)
        config = CcmConfig(
            MemoryAdapter().read_login({"url": "http://cloud/v3", "region": "RegionOne"}),
            LoadBalancerConfig(subnet_id=store.subnets.by("tag", tag)[0].id),
            RouteConfig(store.routers.by("tag", tag)[0].id),
            ClusterConfig(self._uid, tuple(one.id for one in store.groups.by("tag", tag) if one.name.endswith("worker"))),
        )
        controllers = ("node", "node-lifecycle", "route", "service")
        metrics = Metrics()
        manager = controller_manager(
            CcmOptions(Path("unused"), "demo", (PODS,), controllers, bind="127.0.0.1:0", leader_elect=False),
            config,
            kube=self._kube,
            calls=CloudCalls(self._cloud, metrics, "RegionOne"),
            metrics=metrics,
            clock=self._clock,
        )
        # what the lifecycle saw of the nodes was made up
        for one in list(self._kube.all(NODES)):
            self._kube.vanish(NODES, one["metadata"]["name"])
        self._kube.forget_history()
        async with running(manager):
            await asyncio.sleep(5)
            yield

    def _join(self) -> None:
        for server in self._servers():
            self._kube.put(NODES, _node(server))

    def _joined(self) -> bool:
        return all(_initialised(one) for one in self._kube.all(NODES))

    def _serve(self) -> None:
        for number in range(self._services):
            self._kube.put(SERVICES, _service(number))

    def _served(self) -> bool:
        return all(one["status"].get("loadBalancer", {}).get("ingress") for one in self._kube.all(SERVICES))

    def _join_one(self) -> None:
        store = self._cloud.store
        like = self._servers()[-1]
        subnet = store.subnets.by("tag", cluster_tag(self._uid))[0]
        port = self._cloud.networks.create_port(name="late", network_id=subnet.network_id, subnet_id=subnet.id, tags=[])
        self._late = self._cloud.machines.create_server(
            name="late",
            image_id="node",
            flavor_id="2",
            port_ids=[port.id],
            user_data="",
            metadata={**like.metadata, "moyai.pod-cidr": "10.131.255.0/24"},
            tags=like.tags,
        )
        self._kube.put(NODES, _node(self._late))

    def _reached(self) -> bool:
        server = self._cloud.store.servers[self._late.id]
        address = next((one.address for one in server.addresses), "")
        pools = (one.pool for balancer in self._cloud.store.balancers for one in balancer.listeners)
        return bool(address) and all(pool and any(one.address == address for one in pool.members) for pool in pools)

    def _rested(self) -> bool:
        return self._clock.monotonic() > self._rest_until

    def _rest(self) -> None:
        self._rest_until = self._clock.monotonic() + 3600

    def _stop(self) -> None:
        for one in list(self._kube.all(SERVICES)):
            meta = one["metadata"]
            self._kube.remove((SERVICES.plural, meta["namespace"], meta["name"]), one)

    def _stopped(self) -> bool:
        return not self._kube.all(SERVICES)

    async def _phase(self, name: str, unit: str, *, objects: int, begin: Callable[[], None], done: Callable[[], bool]) -> None:
        end = self._clock.monotonic() + _PATIENCE
        with _Counting(self, name, unit=unit, objects=objects):
            begin()
            while not done():
                assert self._clock.monotonic() < end, f"{name}: not done after {_PATIENCE:.0f} s"
                await asyncio.sleep(1)
            # what follows from it, a node's changes that wait to be joined among it
            await asyncio.sleep(30)

    def count(self, phase: Phase) -> None:
        self._phases.append(phase)

    def counters(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        return Counter(self._cloud.calls), Counter(self._cloud.answered), Counter(self._kube.calls)


class _Counting:
    """Counts what goes on within a phase."""

    def __init__(self, simulation: _Simulation, name: str, *, unit: str, objects: int) -> None:
        self._simulation, self._name, self._unit, self._objects = simulation, name, unit, objects

    def __enter__(self) -> None:
        self._before, self._start = self._simulation.counters(), time.monotonic()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        seconds = time.monotonic() - self._start
        more = [after - before for before, after in zip(self._before, self._simulation.counters(), strict=True)]
        if self._unit == "Service":
            # the controllers' rounds over the nodes go on meanwhile, and have a phase of their own
            more = [Counter({name: number for name, number in one.items() if name not in _ABOUT_NODES}) for one in more]
        self._simulation.count(Phase(self._name, self._unit, self._objects, seconds, *more))


#: The calls of the rounds over the nodes, to the cloud and to Kubernetes.
_ABOUT_NODES = frozenset(
    {
        "machines.servers",
        "machines.server",
        "pod_routing.add_routes",
        "pod_routing.remove_routes",
        "routers.router",
        "networks.update_port",
        *(f"{verb} {NODES.plural}" for verb in ("get", "list", "watch", "patch")),
    }
)


def _node(server: Server) -> Json:
    """As a kubelet registers it."""
    taint = {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": server.name, "labels": {}}, "spec": {"taints": [taint]}, "status": status}


def _initialised(node: Json) -> bool:
    conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
    return bool(node["spec"].get("providerID")) and conditions.get("NetworkUnavailable") == "False"


def _service(number: int) -> Json:
    ports = [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30000 + number}]
    return {
        "metadata": {"name": f"web-{number}", "namespace": "default", "annotations": {}, "finalizers": []},
        "spec": {"type": "LoadBalancer", "ports": ports},
        "status": {"loadBalancer": {}},
    }
