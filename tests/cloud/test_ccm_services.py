"""Services of a real API server become load balancers of the real local cloud, answer the host, and go without a trace."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from moyai.ccm.app import CcmOptions, controller_manager
from moyai.ccm.settings import CcmConfig, ClusterConfig, LoadBalancerConfig
from moyai.cloud.load_balancers import CheckType, LoadBalancer, SessionPersistence, TrafficProtocol
from moyai.cloud.openstack import OpenStackCloud, connect
from moyai.cloud.openstack.cloud_conf import GlobalConfig
from moyai.core.ids import cluster_tag, new_uid
from moyai.kube.objects import parse_service
from moyai.kube.watching import KubeClient
from moyai.runtime.calls import CloudCalls
from moyai.runtime.controllers import ControllerSet
from moyai.runtime.metrics import Metrics
from tests import sdk
from tests.cloud.kube_api import KubeApi, kube_api
from tests.cloud.lb_site import PORT, Site, curl, site
from tests.fakes.running import running

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="looks into the cloud's namespaces"),
    *sdk.REMOVALS,
]

SERVICES = "/api/v1/namespaces/default/services"
INTERNAL = "service.beta.kubernetes.io/openstack-internal-load-balancer"


class Stage:
    """The API server, the cloud with its site, and the part that acts as the cluster."""

    def __init__(self, api: KubeApi, place: Site, *, cloud: OpenStackCloud) -> None:
        self.api, self.place, self.cloud = api, place, cloud
        self.uid = new_uid()
        self.group = cloud.firewall.create_security_group(name=f"{place.name}-workers", tags=[cluster_tag(self.uid)])
        public = next(one for one in cloud.networks.networks(external=True) if one.name == "public")
        self.config = CcmConfig(
            GlobalConfig(auth_url="unused"),
            LoadBalancerConfig(subnet_id=place.subnet.id, floating_network_id=public.id),
            cluster=ClusterConfig(self.uid, (self.group.id,)),
        )
        self.metrics = Metrics()
        for number, address in enumerate(place.members):
            self.node(number, address)

    def node(self, number: int, address: str) -> None:
        name = f"node-{number}"
        spec = {"providerID": f"openstack:///00000000-0000-0000-0000-00000000000{number}"}
        self.api.call(
            "POST", "/api/v1/nodes", body={"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}
        )
        status = {"addresses": [{"type": "InternalIP", "address": address}]}
        self.api.call("PATCH", f"/api/v1/nodes/{name}/status", body={"status": status}, kind="application/merge-patch+json")

    def create(self, name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        plain = {"type": "LoadBalancer", "ports": [{"name": "web", "port": 80, "nodePort": PORT, "protocol": "TCP"}]}
        meta = {"name": name, "annotations": annotations or {}}
        self.api.call(
            "POST", SERVICES, body={"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {**plain, **spec}}
        )

    def change(self, name: str, *, annotations: dict[str, str | None] | None = None, **spec: Any) -> None:
        body = {"metadata": {"annotations": annotations or {}}, "spec": spec}
        self.api.call("PATCH", f"{SERVICES}/{name}", body=body, kind="application/merge-patch+json")

    def delete(self, name: str) -> None:
        self.api.call("DELETE", f"{SERVICES}/{name}")

    def address(self, name: str) -> str:
        ingress = parse_service(self.api.call("GET", f"{SERVICES}/{name}")).ingress
        return ingress[0].ip if ingress else ""

    def names(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.api.call("GET", SERVICES)["items"]]

    def events(self, name: str) -> list[str]:
        path = f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={name}"
        return [f"{one['reason']}: {one['message']}" for one in self.api.call("GET", path)["items"]]

    def tree(self, name: str) -> LoadBalancer:
        full = f"kube_service_{self.place.name}_default_{name}"
        (found,) = self.cloud.load_balancers.load_balancers(name=full)
        return self.cloud.load_balancers.get(found.id)

    @asynccontextmanager
    async def controller(self) -> AsyncGenerator[ControllerSet]:
        kube = KubeClient.connect(self.api.kubeconfig)
        # a process has metrics of its own
        self.metrics = Metrics()
        options = CcmOptions(Path("unused"), self.place.name, bind="127.0.0.1:0", controllers=("service",), leader_elect=False)
        manager = controller_manager(
            options, self.config, kube=kube, calls=CloudCalls(self.cloud, self.metrics), metrics=self.metrics
        )
        try:
            async with running(manager):
                yield manager
        finally:
            await kube.close()

    def left(self) -> list[str]:
        tag = cluster_tag(self.uid)
        return [
            *(one.name for one in self.cloud.load_balancers.load_balancers(tag=tag)),
            *(one.address for one in self.cloud.addresses.floating_ips(tag=tag)),
            *(one.description for one in self.cloud.firewall.security_group_rules([self.group.id]) if tag in one.description),
        ]


@pytest.fixture(scope="module")
def stage(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    folder = tmp_path_factory.mktemp("ccm")
    with kube_api(folder) as api, site(cloud_name, folder) as place:
        made = Stage(api, place, cloud=connect(cloud_name))
        try:
            yield made
            assert made.left() == []
        finally:
            for one in made.cloud.load_balancers.load_balancers(tag=cluster_tag(made.uid)):
                made.cloud.load_balancers.delete(one.id)
            for one in made.cloud.addresses.floating_ips(tag=cluster_tag(made.uid)):
                made.cloud.addresses.delete_floating_ip(one.id)
            made.cloud.firewall.delete_security_group(made.group.id)


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


async def settled(stage: Stage, manager: ControllerSet, *, name: str) -> None:
    """Nothing more to change: what the cloud shows is what is wanted, in its own spelling."""

    def counted(*calls: str) -> list[float]:
        return [stage.metrics.value("moyai_cloud_calls_total", call=call, outcome="ok") for call in calls]

    async with asyncio.timeout(60):
        before: list[float] = []
        # a load balancer that takes its time is looked at again later, and then changed further
        while before != counted(*CHANGES):
            before, gets = counted(*CHANGES), counted("get")
            stage.change(name, annotations={"example.org/look-again": str(time.monotonic())})
            await until(lambda gets=gets: counted("get") > gets)
            await until(lambda: manager.controllers["service"].queue.idle)


CHANGES = (
    "create",
    "create_listener",
    "update_listener",
    "delete_listener",
    "create_pool",
    "update_pool",
    "delete_pool",
    "set_members",
    "create_monitor",
    "update_monitor",
    "delete_monitor",
    "create_floating_ip",
    "create_security_group_rules",
    "delete_security_group_rule",
)


async def test_a_service_answers_through_its_floating_ip_and_goes_without_a_trace(stage: Stage) -> None:
    async with stage.controller() as manager:
        stage.create("web")
        await until(lambda: stage.address("web"))
        await until(lambda: curl(stage.address("web")), 10)
        await settled(stage, manager, name="web")
        await until(lambda: any(one.startswith("EnsuredLoadBalancer") for one in stage.events("web")), 5)
        stage.delete("web")
        await until(lambda: "web" not in stage.names())
        assert stage.left() == []


async def test_every_change_is_made_once_and_then_nothing_differs(stage: Stage) -> None:
    async with stage.controller() as manager:
        stage.create("wide", annotations={"loadbalancer.openstack.org/connection-limit": "100"})
        await until(lambda: stage.address("wide"))
        await settled(stage, manager, name="wide")
        both = [
            {"name": "web", "port": 80, "nodePort": PORT, "protocol": "TCP"},
            {"name": "dns", "port": 80, "nodePort": PORT, "protocol": "UDP"},
            {"name": "more", "port": 8081, "nodePort": 9001, "protocol": "TCP"},
        ]
        stage.change(
            "wide",
            ports=both,
            sessionAffinity="ClientIP",
            loadBalancerSourceRanges=["198.18.0.0/15", "192.0.2.0/24"],
            annotations={
                "loadbalancer.openstack.org/connection-limit": None,
                "loadbalancer.openstack.org/timeout-client-data": "70000",
                "loadbalancer.openstack.org/health-monitor-delay": "9",
            },
        )
        await until(lambda: len(stage.tree("wide").listeners) == 3)
        await settled(stage, manager, name="wide")
        tree = stage.tree("wide")
        web = next(one for one in tree.listeners if one.key == (TrafficProtocol.TCP, 80))
        assert web.connection_limit == -1
        assert web.timeout_client_data_ms == 70000
        assert set(web.allowed_cidrs) == {"198.18.0.0/15", "192.0.2.0/24"}
        assert web.pool
        assert web.pool.persistence is SessionPersistence.SOURCE_ADDRESS
        assert web.pool.monitor
        assert web.pool.monitor.delay == 9
        udp = next(one for one in tree.listeners if one.protocol is TrafficProtocol.UDP)
        assert udp.pool
        assert udp.pool.monitor
        assert udp.pool.monitor.type is CheckType.UDP
        # the host is not in the ranges: it is refused, and let in again when they go
        assert curl(stage.address("wide")) == ""
        stage.change(
            "wide",
            ports=both[:1],
            loadBalancerSourceRanges=None,
            sessionAffinity="None",
            annotations={"loadbalancer.openstack.org/proxy-protocol": None},
        )
        await until(lambda: len(stage.tree("wide").listeners) == 1)
        await settled(stage, manager, name="wide")
        await until(lambda: curl(stage.address("wide")), 10)
        address = stage.address("wide")
        stage.change("wide", annotations={INTERNAL: "true"})
        await until(lambda: stage.address("wide") != address)
        assert stage.address("wide") == stage.tree("wide").vip_address
        stage.change("wide", externalTrafficPolicy="Local", annotations={INTERNAL: None})
        await until(lambda: stage.address("wide").startswith(address.rsplit(".", 1)[0]))
        await settled(stage, manager, name="wide")
        pool = stage.tree("wide").listeners[0].pool
        assert pool
        assert pool.monitor
        assert pool.monitor.url_path == "/healthz"
        stage.change("wide", type="ClusterIP", externalTrafficPolicy=None)
        await until(lambda: not stage.address("wide"))
        await until(lambda: stage.left() == [])
        stage.delete("wide")


async def test_what_was_left_without_a_service_is_found_at_the_start(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moyai.ccm.orphans._LOOK_SECONDS", 5.0)
    async with stage.controller():
        stage.create("lost")
        await until(lambda: stage.address("lost"))
    # somebody took the finalizer off by hand, while no controller ran
    stage.api.call("PATCH", f"{SERVICES}/lost", body={"metadata": {"finalizers": None}}, kind="application/merge-patch+json")
    stage.delete("lost")
    assert stage.left()
    async with stage.controller():
        await until(lambda: stage.left() == [])


async def test_a_subnet_that_is_not_there_is_told_to_the_user(stage: Stage) -> None:
    async with stage.controller():
        stage.create("nowhere", annotations={"loadbalancer.openstack.org/subnet-id": stage.uid.ljust(32, "0")})
        await until(lambda: any("SyncLoadBalancerFailed" in one for one in stage.events("nowhere")))
        (event,) = [one for one in stage.events("nowhere") if "Failed" in one]
        assert "Subnet" in event or "subnet" in event
        stage.delete("nowhere")
        await until(lambda: "nowhere" not in stage.names())
