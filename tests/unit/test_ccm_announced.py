"""Announced Services in the cloud controller manager: addresses, what is said of pools, rules for ports, classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from moyai.ccm.settings import AnnounceConfig, CcmConfig, LoadBalancerConfig
from moyai.kube.resources import (
    ADDRESS_POOLS,
    BGP_ADVERTISEMENTS,
    L2_ADVERTISEMENTS,
    LEASES,
    NAMESPACES,
    SERVICE_L2_STATUSES,
    SERVICES,
    Json,
)
from moyai.plan.announce.metallb_words import ANNOUNCED_CLASS, FROM_POOL, NAMESPACE, status_name
from tests.unit.ccm_world import CONFIG, World, service_object

pytestmark = pytest.mark.virtual_time

ANNOUNCE = AnnounceConfig(("192.0.2.0/28",))


def metallb(kind: str, name: str, **spec: Any) -> Json:
    return {"kind": kind, "metadata": {"name": name, "namespace": NAMESPACE, "labels": {}}, "spec": spec}


class Announcing(World):
    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.config: CcmConfig = replace(CONFIG, announce=ANNOUNCE, **changes)
        self.kube.put(L2_ADVERTISEMENTS, metallb("L2Advertisement", "all"))

    def pool(self, name: str, *addresses: str, **spec: Any) -> None:
        self.kube.put(ADDRESS_POOLS, metallb("IPAddressPool", name, addresses=list(addresses), **spec))

    def put(self, name: str, **spec: Any) -> None:
        self.kube.put(SERVICES, service_object(name, **{"loadBalancerClass": ANNOUNCED_CLASS, **spec}))

    def status(self, name: str) -> Json:
        return self.kube.find(ADDRESS_POOLS, name, namespace=NAMESPACE).get("status", {})

    def rules(self) -> list[tuple[str | None, int | None, str | None]]:
        return sorted(
            (one.protocol, one.port_min, one.remote_cidr) for one in self.store.rules if "announced" in one.description
        )

    @asynccontextmanager
    async def settled(self) -> AsyncGenerator[None]:
        async with self.run():
            await asyncio.sleep(2)
            yield


async def test_a_service_gets_an_address_of_a_pool_and_keeps_it_over_a_restart() -> None:
    world = Announcing()
    world.pool("main", "192.0.2.4/30")
    world.put("web")
    async with world.settled():
        assert world.address() == "192.0.2.4"
        assert world.service()["metadata"]["annotations"][FROM_POOL] == "main"
        assert "EnsuredLoadBalancer: Load balancer at 192.0.2.4: address 192.0.2.4 of pool main" in world.events()
    world.put("other")
    async with world.settled():
        assert (world.address(), world.address("other")) == ("192.0.2.4", "192.0.2.5")
        assert world.status("main")["assignedIPv4"] == 2
        assert world.status("main")["availableIPv4"] == 2
        assert not [call for call in world.cloud.calls if "load_balancer" in call and "create" in call]


async def test_the_clouds_load_balancers_stay_the_default_and_each_class_of_metallb_is_announced() -> None:
    world = Announcing(load_balancer=replace(CONFIG.load_balancer, enabled=True))
    world.config = replace(world.config, announce=replace(ANNOUNCE, load_balancer_class="example.org/lb"))
    world.pool("main", "192.0.2.0/28")
    world.kube.put(SERVICES, service_object("plain"))
    classes = {"a": ANNOUNCED_CLASS, "b": "metallb.io/metallb", "c": "metallb.universe.tf/metallb", "d": "example.org/lb"}
    for name, given in classes.items():
        world.put(name, loadBalancerClass=given)
    world.put("foreign", loadBalancerClass="example.org/other")
    async with world.settled():
        assert {name: world.address(name).rpartition(".")[0] for name in classes} == dict.fromkeys(classes, "192.0.2")
        assert len({world.address(name) for name in classes}) == len(classes)
        assert world.address("foreign") == ""
        assert FROM_POOL not in world.service("plain")["metadata"]["annotations"]
        assert any("load_balancer" in call and "create" in call for call in world.cloud.calls)


async def test_without_load_balancers_of_the_cloud_services_without_a_class_are_announced() -> None:
    world = Announcing(load_balancer=LoadBalancerConfig(enabled=False))
    world.pool("main", "192.0.2.0/28")
    world.kube.put(SERVICES, service_object("plain"))
    async with world.settled():
        assert world.address("plain") == "192.0.2.0"


async def test_where_the_configuration_has_no_ranges_nothing_of_it_runs() -> None:
    world = World()
    world.kube.put(SERVICES, service_object(loadBalancerClass=ANNOUNCED_CLASS))
    async with world.run():
        await asyncio.sleep(2)
        assert world.address() == ""
        assert not [call for call in world.kube.calls if "ipaddresspools" in call or "namespaces" in call]


async def test_a_pool_that_has_run_dry_is_said_and_an_address_that_is_freed_goes_to_who_waits() -> None:
    world = Announcing()
    world.pool("main", "192.0.2.0/31")
    for name in ("a", "b", "c"):
        world.put(name)
    async with world.settled():
        without = [name for name in ("a", "b", "c") if not world.address(name)]
        assert len(without) == 1
        assert (
            f'AllocationFailed: Failed to allocate IP for "default/{without[0]}": no address is left in main' in world.events()
        )
        assert "PoolExhausted: No address is left: 2 of 2 are given" in world.events()
        (condition,) = world.status("main")["conditions"]
        assert (condition["status"], condition["reason"], world.status("main")["availableIPv4"]) == ("False", "Exhausted", 0)
        other = next(name for name in ("a", "b", "c") if name not in without)
        freed = world.address(other)
        await world.kube.delete(SERVICES, other, namespace="default")
        await asyncio.sleep(5)
        assert world.address(without[0]) == freed
        assert world.status("main")["conditions"][0]["reason"] == "Exhausted"
        await world.kube.delete(SERVICES, without[0], namespace="default")
        await asyncio.sleep(5)
        assert world.status("main")["conditions"][0]["status"] == "True"
        assert "PoolUsable: This pool is used again" in world.events()


async def test_a_pool_that_comes_later_or_changes_counts_at_once() -> None:
    world = Announcing()
    world.put("web")
    async with world.settled():
        assert world.address() == ""
        assert any(one.startswith("AllocationFailed") and "there is no pool that can be used" in one for one in world.events())
        world.pool("main", "192.0.2.8/30")
        await asyncio.sleep(2)
        assert world.address() == "192.0.2.8"
        world.pool("main", "192.0.2.12/30")
        await asyncio.sleep(2)
        assert world.address() == "192.0.2.12"
        assert any(
            one == "AddressChanged: The address 192.0.2.8 is given up: 192.0.2.8 is in no pool" for one in world.events()
        )
        await world.kube.delete(ADDRESS_POOLS, "main", namespace=NAMESPACE)
        await asyncio.sleep(2)
        # an address that nobody answers for is not shown
        assert world.address() == ""
        assert FROM_POOL not in world.service()["metadata"]["annotations"]


async def test_pools_that_overlap_or_that_the_cloud_does_not_permit_are_refused_in_words() -> None:
    world = Announcing()
    world.pool("foreign", "198.51.100.0/28")
    world.pool("main", "192.0.2.0/30")
    async with world.settled():
        world.pool("overlap", "192.0.2.3-192.0.2.9")
        await asyncio.sleep(2)
        events = world.events()
        assert any(
            "PoolRefused" in one and "198.51.100.0-198.51.100.15 is not within 192.0.2.0-192.0.2.15" in one for one in events
        )
        assert any("PoolRefused" in one and "overlaps 192.0.2.0-192.0.2.3 of pool main" in one for one in events)
        assert world.status("overlap")["conditions"][0]["reason"] == "Refused"
        assert world.status("main")["conditions"][0]["reason"] == "Usable"


async def test_a_pool_that_nothing_announces_says_so() -> None:
    world = Announcing()
    await world.kube.delete(L2_ADVERTISEMENTS, "all", namespace=NAMESPACE)
    world.pool("main", "192.0.2.0/30")
    async with world.settled():
        assert world.status("main")["conditions"][0]["reason"] == "NotAnnounced"
        world.kube.put(L2_ADVERTISEMENTS, metallb("L2Advertisement", "mine", ipAddressPools=["main"]))
        await asyncio.sleep(2)
        assert world.status("main")["conditions"][0]["reason"] == "Usable"


async def test_an_advertisement_of_bgp_covers_a_pool_too() -> None:
    world = Announcing()
    await world.kube.delete(L2_ADVERTISEMENTS, "all", namespace=NAMESPACE)
    world.pool("main", "192.0.2.0/30")
    world.kube.put(BGP_ADVERTISEMENTS, metallb("BGPAdvertisement", "mine", ipAddressPools=["main"]))
    async with world.settled():
        assert world.status("main")["conditions"][0]["reason"] == "Usable"


async def test_pools_are_for_namespaces_by_their_labels() -> None:
    world = Announcing()
    world.pool("main", "192.0.2.0/30", serviceAllocation={"namespaceSelectors": [{"matchLabels": {"team": "a"}}]})
    world.kube.put(NAMESPACES, {"metadata": {"name": "default", "labels": {}}})
    world.put("web")
    async with world.settled():
        assert world.address() == ""
        world.kube.put(NAMESPACES, {"metadata": {"name": "default", "labels": {"team": "a"}}})
        await asyncio.sleep(2)
        assert world.address() == "192.0.2.0"


async def test_ports_are_opened_to_source_ranges_once_for_all_services_and_closed_with_the_last() -> None:
    world = Announcing()
    world.pool("main", "192.0.2.0/28")
    for name in ("a", "b"):
        world.put(name)
    world.put("c", loadBalancerSourceRanges=["203.0.113.0/24"], ports=[{"port": 53, "protocol": "UDP", "nodePort": 30053}])
    async with world.settled():
        assert world.rules() == [("tcp", 80, "0.0.0.0/0"), ("udp", 53, "203.0.113.0/24")]
        await world.kube.delete(SERVICES, "a", namespace="default")
        await world.kube.delete(SERVICES, "c", namespace="default")
        await asyncio.sleep(2)
        assert world.rules() == [("tcp", 80, "0.0.0.0/0")]
        world.edit("b", loadBalancerSourceRanges=["203.0.113.0/24", "2001:db8::/32"])
        await asyncio.sleep(2)
        assert world.rules() == [("tcp", 80, "203.0.113.0/24")]
        assert any(one.startswith("SourceRangesLeftOut") for one in world.events())
        await world.kube.delete(SERVICES, "b", namespace="default")
        await asyncio.sleep(2)
        assert world.rules() == []


async def test_a_port_at_which_nodes_answer_stays_closed() -> None:
    world = Announcing()
    world.pool("main", "192.0.2.0/28")
    world.put(
        "web", ports=[{"port": port, "protocol": "TCP", "nodePort": 30000 + number} for number, port in enumerate((22, 443))]
    )
    async with world.settled():
        assert world.rules() == [("tcp", 443, "0.0.0.0/0")]
        assert (
            "PortNotOpened: Port 22/TCP stays closed to machines outside of the cluster: on nodes it is SSH" in world.events()
        )


async def test_removal_takes_the_status_with_it_and_leaves_the_lease() -> None:
    world = Announcing()
    world.pool("main", "192.0.2.0/28")
    world.put("web")
    name = status_name("default/web")
    world.kube.put(SERVICE_L2_STATUSES, metallb("ServiceL2Status", name))
    world.kube.put(LEASES, {"metadata": {"name": "announced-192-0-2-0", "namespace": NAMESPACE}, "spec": {}})
    async with world.settled():
        await world.kube.delete(SERVICES, "web", namespace="default")
        await asyncio.sleep(2)
        assert not world.exists()
        assert not world.kube.all(SERVICE_L2_STATUSES)
        # another owner of the address must wait for it
        assert len(world.kube.all(LEASES)) == 1


async def test_services_that_share_an_address_are_one_address_of_the_pool() -> None:
    world = Announcing()
    world.pool("main", "192.0.2.0/28")
    shared = {"metallb.io/allow-shared-ip": "k"}
    world.put("a", annotations=shared)
    world.put("b", annotations=shared, ports=[{"port": 443, "protocol": "TCP", "nodePort": 30443}])
    async with world.settled():
        assert world.address("a") == world.address("b") != ""
        assert world.status("main")["assignedIPv4"] == 1


async def test_a_hundred_services_at_once_get_a_hundred_addresses() -> None:
    world = Announcing()
    world.config = replace(world.config, announce=AnnounceConfig(("10.0.0.0/24",)))
    world.pool("main", "10.0.0.0/24", avoidBuggyIPs=True)
    for number in range(100):
        world.put(f"s{number}")
    async with world.settled():
        await asyncio.sleep(10)
        assert len({world.address(f"s{number}") for number in range(100)} - {""}) == 100


async def test_annotations_of_metallb_that_have_no_effect_are_named() -> None:
    world = Announcing()
    world.pool("main", "192.0.2.0/28")
    world.put("web", annotations={"metallb.io/bgp-odd": "x"})
    async with world.settled():
        assert "UnknownAnnotation: Without effect here: metallb.io/bgp-odd" in world.events()
