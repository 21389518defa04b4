"""A cloud controller manager over a Kubernetes and a cloud in memory: what the tests of its controllers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from moyai.ccm.app import CcmOptions, controller_manager
from moyai.ccm.settings import CcmConfig, ClusterConfig, LoadBalancerConfig, RouteConfig
from moyai.cloud.capabilities import Cloud
from moyai.cloud.credentials import Use
from moyai.cloud.memory import Killed, MemoryAdapter, MemoryCloud, Mortal
from moyai.cloud.model import Address, FloatingIP, Network, Port, Power, Router, SecurityGroup, Server, Subnet
from moyai.core.clock import Clock
from moyai.core.ids import POD_CIDR_KEY, cluster_tag
from moyai.kube.objects import parse_service
from moyai.kube.resources import EVENTS, NODES, SERVICES, Json
from moyai.runtime.calls import CloudCalls
from moyai.runtime.controllers import ControllerSet
from moyai.runtime.metrics import Metrics
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import limited, memory
from tests.fakes.kubernetes import Kubernetes

UID = "abcdef0123"
SUBNET = "00000000-0000-0000-0000-00000000000a"
CONFIG = CcmConfig(
    MemoryAdapter().read_login({"url": "http://cloud/v3", "region": "RegionOne"}),
    LoadBalancerConfig(subnet_id=SUBNET),
    RouteConfig("router-1"),
    ClusterConfig(UID, ("group-1",)),
)


def cluster_cloud(*, looks: int = 2, mortal: Mortal | None = None) -> MemoryCloud:
    """The cluster's network with its way out, as ``CONFIG`` names it, and no machines."""
    return furnished(memory(looks=looks, mortal=mortal))


def furnished(cloud: MemoryCloud) -> MemoryCloud:
    store = cloud.store
    store.networks.put(Network("net", "net", (SUBNET,)))
    store.subnets.put(Subnet(SUBNET, "nodes", "net", "10.0.0.0/24", "10.0.0.254"))
    store.give_out(SUBNET, first="10.0.0.100", last="10.0.0.200")
    store.groups.put(SecurityGroup("group-1", "nodes"))
    store.routers.put(Router("router-1", "router"))
    cloud.routers.add_router_interface("router-1", SUBNET)
    cloud.routers.set_router_gateway("router-1", external(cloud).id)
    cloud.calls.clear()
    return cloud


def external(cloud: MemoryCloud) -> Network:
    return next(one for one in cloud.store.networks if one.external)


def add_machine(cloud: MemoryCloud, number: int) -> None:
    machine = cloud.store.servers.put(server(number))
    address = f"10.0.0.{number}"
    cloud.store.ports.put(Port(f"p{number}", "p", "net", "ACTIVE", (address,), (SUBNET,), device_id=machine.id))


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
        spec |= {"providerID": f"memory:///{server(number).id}", "podCIDR": f"10.244.{number}.0/24"}
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
    """``run`` keeps a manager running; ``until`` waits for something to come true.

    ``poll``: how often the manager looks at a load balancer, ``pause``: how often ``until`` looks, in seconds.
    """

    poll = 0.001
    pause = 0.005

    def __init__(self, *, nodes: int = 2, cloud: MemoryCloud | None = None) -> None:
        self.kube = Kubernetes()
        self.mortal = Mortal()
        self.cloud = cloud or cluster_cloud(mortal=self.mortal)
        self.store = self.cloud.store
        #: As the controllers see it.
        self.inside: Cloud = limited(self.cloud, Use.CONTROLLERS)
        self.config = CONFIG
        self.name = "demo"
        self.clock: Clock = FakeClock()
        for number in range(1, nodes + 1):
            self.add_machine(number)
            self.kube.put(NODES, node_object(number))

    def add_machine(self, number: int) -> None:
        add_machine(self.cloud, number)

    def machine(self, number: int, **changes: Any) -> None:
        """From now on the cloud's server is like this."""
        self.store.servers.put(server(number, **changes))

    def floating(self) -> list[FloatingIP]:
        return list(self.store.floating_ips)

    def die_with_kubernetes(self) -> None:
        """Changes of Kubernetes count for the mortal as those of the cloud do."""

        def tick(name: str, after: bool) -> None:
            if not after:
                self.mortal.check()
            elif not name.startswith(("get", "list")):
                with self.mortal.change():
                    pass

        self.kube.on_call = tick

    def manager(self, *controllers: str, clock: Clock | None = None) -> ControllerSet:
        metrics = Metrics()
        return controller_manager(
            CcmOptions(
                Path("unused"),
                self.name,
                ("10.244.0.0/16",),
                controllers or ("service",),
                bind="127.0.0.1:0",
                leader_elect=False,
            ),
            self.config,
            kube=self.kube,
            calls=CloudCalls(self.inside, metrics, "RegionOne", clock=clock or self.clock),
            metrics=metrics,
            clock=clock or self.clock,
            poll=self.poll,
        )

    @asynccontextmanager
    async def run(self, *controllers: str) -> AsyncGenerator[ControllerSet]:
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
            await self.clock.asleep(self.pause)

    def service(self, name: str = "web") -> Json:
        return self.kube.find(SERVICES, name, namespace="default")

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


async def run_until_dead(world: World) -> None:
    """Until the change at which the mortal of the world dies."""
    try:
        async with world.run():
            for _ in range(200):
                await world.clock.asleep(0.005)
                if world.mortal.dead:
                    break
    except (Killed, BaseExceptionGroup):
        pass
    assert world.mortal.dead, "fewer changes than that are made"
