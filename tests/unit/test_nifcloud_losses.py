"""Hours of lost replies, busy objects and dying processes: nothing of NIFCLOUD's is doubled, and nothing is left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from moyai.cloud.model import SecurityGroupRule
from moyai.cloud.nifcloud.balancer_model import HealthCheck, PairBalancer, PortPair
from moyai.cloud.nifcloud.marks import Mark, wire_name
from moyai.core.errors import MoyaiError, Retriable
from moyai.core.ids import CLUSTER_TAG, cluster_tag
from tests.fakes.nifcloud_account import AddressNotes
from tests.fakes.nifcloud_wire import NifcloudWire

UID = "0123456789"
TAG, OWN = cluster_tag(UID), {CLUSTER_TAG: UID}
NODES = ("demo-workers-0", "demo-workers-1", "demo-workers-2")
SERVERS = frozenset(wire_name(Mark(UID, name)) for name in NODES)
GROUP = wire_name(Mark(UID, "demo-worker"))
BALANCER = PairBalancer(
    "0123456789abcde",
    tuple(PortPair("TCP", port, 30000 + port, HealthCheck(f"TCP:{30000 + port}"), SERVERS) for port in (80, 443)),
)


def persist(wire: NifcloudWire, work: Callable[[], object]) -> None:
    """One run after the other, each of a new process, until the work is done."""
    for _ in range(60):
        try:
            work()
        except Retriable:
            wire.clock.sleep(30)
        except MoyaiError as error:
            if "Died.Here" not in str(error):
                raise
            wire.clock.sleep(1)
        else:
            return
    raise AssertionError("never done")


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_doubled_and_nothing_is_left(seed: int) -> None:
    wire, note, chance = NifcloudWire(), AddressNotes(), random.Random(seed)
    wire.account.server("foreign", description="our web server")
    wire.account.volume("foreign", description="pvc-of-the-other-driver")
    wire.trouble = lambda call: chance.choices(
        ("", "lost", "lost after its effect", "busy", "died", "half an answer"), (60, 10, 10, 8, 6, 6)
    )[0]

    def server(name: str) -> None:
        cloud = wire.cloud()
        port = cloud.networks.create_port(name=name, network_id="net-COMMON_GLOBAL", subnet_id="", tags=[TAG])
        cloud.machines.create_server(
            name=name,
            image_id="283",
            flavor_id="e-medium4",
            port_ids=[port.id],
            user_data="#!/bin/sh\n",
            metadata=OWN,
            tags=[TAG],
        )

    def rules() -> None:
        firewall = wire.cloud().firewall
        firewall.create_security_group(name="demo-worker", tags=[TAG])
        firewall.create_security_group_rules(
            [SecurityGroupRule(GROUP, protocol="tcp", port_min=port, port_max=port) for port in (6443, 10250)]
        )

    for name in NODES:
        persist(wire, lambda name=name: server(name))
    persist(wire, rules)
    wire.clock.sleep(60)
    for name in ("pvc-a", "pvc-b"):
        persist(wire, lambda name=name: wire.cloud().disks.create_volume(name=name, size_gb=1, metadata=OWN))
    persist(wire, lambda: wire.cloud().l4.ensure(BALANCER))
    mine = Mark(UID, "demo-bastion")
    persist(wire, lambda: wire.cloud().elastic_addresses.allocate(mine, zone="east-11", note=note))

    account = wire.account
    assert set(account.instances) == {*SERVERS, "foreign"}
    assert sorted(one["Description"] for one in account.volumes.values()) == ["pvc-a", "pvc-b", "pvc-of-the-other-driver"]
    assert [one["server"] for one in account.volumes.values()] == ["", "", ""]
    assert {name: len(one["IpPermissions"]) for name, one in account.groups.items()} == {GROUP: 2}
    assert [len(pair["Instances"]) for pair in account.balancers[BALANCER.name]] == [3, 3]
    assert len(account.addresses) == 1

    def clear() -> None:
        cloud = wire.cloud()
        cloud.l4.delete(BALANCER.name)
        for disk in cloud.disks.volumes(metadata=OWN):
            cloud.disks.delete_volume(disk.id)
        for one in cloud.machines.servers(tag=TAG):
            cloud.machines.delete_server(one.id)
        for group in cloud.firewall.security_groups(tag=TAG):
            cloud.firewall.delete_security_group(group.id)
        for address in cloud.elastic_addresses.all():
            cloud.elastic_addresses.release(address.address, uid=UID)

    persist(wire, clear)
    left = (account.instances, account.volumes, account.groups, account.balancers, account.addresses)
    assert [set(one) for one in left] == [{"foreign"}, {"foreign"}, set(), set(), set()]
    assert Counter(call.operation for call in wire.calls if "foreign" in call.parameters.values()) == Counter()
