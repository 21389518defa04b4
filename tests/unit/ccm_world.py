"""A cloud controller manager over a Kubernetes and a cloud in memory: what the tests of its controllers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from moyai.ccm.app import Manager, Options
from moyai.ccm.settings import CloudConfig, GlobalConfig, LoadBalancerConfig, MoyaiConfig, RouteConfig
from moyai.cloud.model import Address, Port, Power, Server
from moyai.core.clock import Clock
from moyai.core.ids import POD_CIDR_KEY, cluster_tag
from moyai.kube.objects import parse_service
from moyai.kube.resources import EVENTS, NODES, SERVICES, Json
from moyai.runtime.calls import CloudCalls
from moyai.runtime.metrics import Metrics
from tests.unit.fake_cloud import FakeCloud
from tests.unit.fake_kube import FakeKube

PARTS = ("machines", "networks", "firewall", "addresses", "pod_routing", "tags", "load_balancers")
UID = "abcdef0123"
SUBNET = "00000000-0000-0000-0000-00000000000a"
CONFIG = CloudConfig(
    GlobalConfig(auth_url="http://cloud/v3", region="RegionOne"),
    LoadBalancerConfig(subnet_id=SUBNET),
    RouteConfig("router-1"),
    MoyaiConfig(UID, ("group-1",)),
)


def server(number: int, **changes: Any) -> Server:
    fields: dict[str, Any] = {
        "id": f"00000000-0000-0000-0000-00000000000{number}",
        "name": f"demo-{number}",
        "status": "ACTIVE",
        "power": Power.RUNNING,
        "zone": f"az{number}",
        "flavor_name": "m1.small",
        "addresses": (Address(f"10.0.0.{number}", "fixed", "net"),),
        "metadata": {POD_CIDR_KEY: f"10.244.{number}.0/24"},
        "tags": (cluster_tag(UID),),
    }
    return Server(**{**fields, **changes})


def node_object(number: int, *, initialised: bool = True, ready: bool = True) -> Json:
    spec: Json = {"taints": []}
    status: Json = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    if initialised:
        spec |= {"providerID": f"openstack:///{server(number).id}", "podCIDR": f"10.244.{number}.0/24"}
        status["addresses"] = [
            {"type": "InternalIP", "address": f"10.0.0.{number}"},
            {"type": "Hostname", "address": f"demo-{number}"},
        ]
    else:
        spec["taints"] = [
            {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"},
            {"key": "keep", "effect": "NoExecute"},
        ]
    return {"metadata": {"name": f"demo-{number}", "labels": {}}, "spec": spec, "status": status}


def service_object(name: str = "web", **spec: Any) -> Json:
    annotations = spec.pop("annotations", {})
    plain: Json = {
        "type": "LoadBalancer",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}],
    }
    return {
        "metadata": {"name": name, "namespace": "default", "annotations": annotations, "finalizers": []},
        "spec": {**plain, **spec},
        "status": {"loadBalancer": {}},
    }


class World:
    """``run`` keeps a manager running; ``until`` waits for something to come true."""

    def __init__(self, *, nodes: int = 2) -> None:
        self.kube = FakeKube()
        self.cloud = FakeCloud()
        self.config = CONFIG
        for number in range(1, nodes + 1):
            self.add_machine(number)
            self.kube.put(NODES, node_object(number))

    def add_machine(self, number: int) -> None:
        machine = server(number)
        self.cloud.servers_.append(machine)
        self.cloud.ports_[f"p{number}"] = Port(
            f"p{number}", "p", "net", "ACTIVE", fixed_ips=(f"10.0.0.{number}",), device_id=machine.id
        )

    def manager(self, *controllers: str, clock: Clock | None = None) -> Manager:
        metrics = Metrics()
        calls = cast("Any", self.cloud)
        return Manager(
            Options(
                Path("unused"),
                "demo",
                ("10.244.0.0/16",),
                controllers or ("service",),
                bind="127.0.0.1:0",
                leader_elect=False,
            ),
            self.config,
            kube=self.kube,
            calls=CloudCalls(cast("Any", SimpleNamespace(**dict.fromkeys(PARTS, calls))), metrics, "RegionOne"),
            metrics=metrics,
            clock=clock,
            poll=0.001,
        )

    @asynccontextmanager
    async def run(self, *controllers: str) -> AsyncGenerator[Manager]:
        manager = self.manager(*controllers)
        stop = asyncio.Event()
        task = asyncio.create_task(manager.run(stop))
        try:
            yield manager
        finally:
            stop.set()
            await task

    async def until(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while not condition():
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"did not come true; events: {self.events()}; calls: {self.cloud.calls}")
            await asyncio.sleep(0.005)

    def service(self, name: str = "web") -> Json:
        return self.kube.find(SERVICES, name, "default")

    def address(self, name: str = "web") -> str:
        ingress = parse_service(self.service(name)).ingress
        return (ingress[0].ip or ingress[0].hostname) if ingress else ""

    def exists(self, name: str = "web") -> bool:
        return ("services", "default", name) in self.kube.objects

    def events(self) -> list[str]:
        return [f"{one['reason']}: {one['message']}" for one in self.kube.all(EVENTS)]

    def edit(self, name: str = "web", **spec: Any) -> None:
        """Change a Service's spec (or ``annotations``) as a user would."""
        changed = self.service(name)
        changed = {**changed, "metadata": dict(changed["metadata"]), "spec": dict(changed["spec"])}
        if "annotations" in spec:
            changed["metadata"]["annotations"] = {**changed["metadata"].get("annotations", {}), **spec.pop("annotations")}
        changed["spec"].update(spec)
        self.kube.put(SERVICES, changed)
