"""Load balancers for Services over the local cloud's front, which was written without a look at the adapter: what each takes
for granted of the API must fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.nifcloud.error_codes import error_from_code
from moyai.cloud.nifcloud.nifcloud_cloud import NifcloudCloud
from moyai.cloud.nifcloud.nifcloud_limits import Terms
from moyai.cloud.nifcloud.sdk import ApiPlace
from moyai.cloud.nifcloud.service_orders import PREFIX
from moyai.cloud.service_balancers import BackendNode, BalancerChanging, ServedService, ServiceToServe, WantedPort
from tests.fakes.nifcloud_front import Refused, TestFront

NAME = "a" * 15
WEB, TLS, MORE = WantedPort("TCP", 80, 30080), WantedPort("TCP", 443, 30443), WantedPort("TCP", 8080, 31000)
SERVICE = ServiceToServe("default/web", "a" * 32, (WEB, TLS), {f"{PREFIX}accounting-type": "2"})


class World:
    """Implements ``sdk.Caller``: a call of the adapter is one of the SDK's to the front. The front works when time passes."""

    def __init__(self, folder: Path) -> None:
        self.front = TestFront(folder)
        self.count: Counter[str] = Counter()
        self.cloud = NifcloudCloud(
            self, ApiPlace("jp-east-1"), name="nifcloud:jp-east-1", terms=Terms("east-11"), clock=self.front.clock
        )
        self.front.call("CreateSecurityGroup", GroupName="workers", Placement={"AvailabilityZone": "east-11"})
        self.front.settle()
        self.ids = {name: self.front.server(name, SecurityGroup=["workers"])["InstanceUniqueId"] for name in ("node1", "node2")}

    def call(self, operation: str, arguments: Mapping[str, Any], *, object_id: str = "") -> Mapping[str, Any]:
        self.count[operation] += 1
        self.front.settle()
        try:
            return self.front.call(operation, **arguments)
        except Refused as error:
            words = str(error).partition(": ")[2]
            raise error_from_code(error.code, words, operation=operation, object_id=object_id) from error

    def ensure(self, service: ServiceToServe, names: Collection[str] = ("node1", "node2")) -> ServedService:
        nodes = [BackendNode(name, f"nifcloud:///east-11/{self.ids[name]}") for name in names]
        for _ in range(60):
            try:
                return self.cloud.service_balancers.ensure_balancer(service, nodes)
            except BalancerChanging:
                self.front.clock.sleep(5)
        raise AssertionError("does not come to an end")

    def changes(self) -> Counter[str]:
        return Counter({name: number for name, number in self.count.items() if "Describe" not in name})

    def again(self, service: ServiceToServe, names: Collection[str] = ("node1", "node2")) -> None:
        """Nothing is left to be done."""
        before = self.changes()
        assert self.ensure(service, names).changes == ()
        assert self.changes() == before

    def elb(self) -> dict[str, Any]:
        found = self.front.call("NiftyDescribeElasticLoadBalancers")["NiftyDescribeElasticLoadBalancersResult"]
        return next(one for one in found["ElasticLoadBalancerDescriptions"] if one["ElasticLoadBalancerName"] == NAME)

    def opened(self) -> set[tuple[int, str]]:
        self.front.settle()
        (group,) = self.front.call("DescribeSecurityGroups")["SecurityGroupInfo"]
        return {
            (one["FromPort"], remote["CidrIp"].removesuffix("/32"))
            for one in group["IpPermissions"]
            if one["IpProtocol"] == "TCP"
            for remote in one["IpRanges"]
        }


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_l4_load_balancer_from_its_making_to_its_end(world: World) -> None:
    limited = replace(SERVICE, source_ranges=("192.0.2.0/24", "198.51.100.1/32"))
    address = world.ensure(limited).address
    world.again(limited)
    pairs = world.front.pairs(NAME)
    assert {one["ListenerDescriptions"][0]["Listener"]["InstancePort"] for one in pairs} == {30080, 30443}
    assert all({server["InstanceId"] for server in one["Instances"]} == {"node1", "node2"} for one in pairs)
    annotations = {
        f"{PREFIX}{suffix}": value
        for suffix, value in {
            "balancing-type": "2",
            "network-volume": "200",
            "healthcheck-protocol": "ICMP",
            "healthcheck-interval": "30",
            "healthcheck-unhealthy-threshold": "3",
        }.items()
    }
    ports = (WantedPort("TCP", 80, 32080), WantedPort("TCP", 443, 32443), MORE)
    changed = replace(SERVICE, ports=ports, annotations=annotations, source_ranges=("203.0.113.0/24",))
    assert world.ensure(changed).address == address
    world.again(changed)
    assert world.ensure(replace(SERVICE, ports=(MORE,)), ["node2"]).address == address
    (pair,) = world.front.pairs(NAME)
    assert [one["InstanceId"] for one in pair["Instances"]] == ["node2"]
    world.ensure(replace(SERVICE, ports=(MORE,)), [])
    assert world.front.pairs(NAME)[0]["Instances"] == []
    assert world.count["CreateLoadBalancer"] == 1
    world.cloud.service_balancers.remove_balancer(NAME)
    assert world.front.pairs(NAME) == []


def test_an_elastic_load_balancer_from_its_making_to_its_end(world: World) -> None:
    elastic = replace(SERVICE, annotations={f"{PREFIX}type": "elb"})
    address = world.ensure(elastic).address
    world.again(elastic)
    assert {port for port, source in world.opened() if source == address} == {30080, 30443}
    annotations = {f"{PREFIX}type": "elb", f"{PREFIX}balancing-type": "2", f"{PREFIX}network-volume": "200"}
    changed = replace(elastic, ports=(WantedPort("TCP", 80, 32080),), annotations=annotations)
    assert world.ensure(changed, ["node1"]).address == address
    world.again(changed, ["node1"])
    assert {port for port, _ in world.opened()} == {32080}
    world.cloud.service_balancers.remove_balancer(NAME)
    assert world.opened() == set()


def test_a_private_elastic_load_balancer(world: World) -> None:
    made = world.front.call(
        "NiftyCreatePrivateLan", PrivateLanName="lan1", CidrBlock="192.168.5.0/24", AvailabilityZone="east-11"
    )
    world.front.settle()
    arm = f"{PREFIX}network-interface-1-"
    annotations = {
        f"{PREFIX}type": "elb",
        f"{arm}network-id": made["PrivateLan"]["NetworkId"],
        f"{arm}ip-address": "192.168.5.10",
        f"{arm}system-ip-addresses": "192.168.5.11,192.168.5.12",
    }
    private = replace(SERVICE, annotations=annotations)
    served = world.ensure(private)
    assert (served.address, served.remarks) == ("192.168.5.10", ())
    world.again(private)
    sources = {f"192.168.5.{number}" for number in (10, 11, 12)}
    assert world.opened() == {(port, source) for port in (30080, 30443) for source in sources}
    kept = world.ensure(replace(SERVICE, annotations={f"{PREFIX}type": "elb"})).remarks
    assert [reason for reason, _ in kept] == ["BalancerKeepsSetting"]


def test_a_changed_type_leaves_one_load_balancer(world: World) -> None:
    elastic = replace(SERVICE, annotations={f"{PREFIX}type": "elb"})
    first, second = world.ensure(SERVICE).address, world.ensure(elastic).address
    assert world.front.pairs(NAME) == []
    assert world.elb()["DNSName"] == second != first
    world.ensure(SERVICE)
    assert len(world.front.pairs(NAME)) == 2
    assert world.opened() == set()


@pytest.mark.parametrize("ranges", [(), ("192.0.2.0/24",), ("203.0.113.0/24",)])
def test_a_filter_that_somebody_turned_round_lets_in_whom_the_service_names(world: World, ranges: tuple[str, ...]) -> None:
    service = replace(SERVICE, ports=(WEB,), source_ranges=ranges)
    world.ensure(replace(service, source_ranges=()))
    world.front.call(
        "SetFilterForLoadBalancer",
        LoadBalancerName=NAME,
        LoadBalancerPort=80,
        InstancePort=30080,
        FilterType="2",
        IPAddresses=[{"IPAddress": "192.0.2.0/24", "AddOnFilter": True}],
    )
    world.front.settle()
    world.ensure(service)
    (pair,) = world.front.pairs(NAME)
    entries = {one["IPAddress"] for one in pair["Filter"]["IPAddresses"]}
    assert entries == set(ranges or ("*.*.*.*",))
    assert pair["Filter"]["FilterType"] == "1" or not ranges
    world.again(service)
