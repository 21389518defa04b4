"""The front dies between any two of its own steps, and comes back: nothing is doubled, nothing is left, nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.memory.orders import Killed
from moyai.core.errors import Retriable
from tests.fakes.nifcloud_front import TestFront

Story = Callable[[TestFront], None]


def _servers(front: TestFront) -> None:
    front.call("CreateSecurityGroup", GroupName="nodes")
    front.settle()
    front.call("NiftyCreatePrivateLan", PrivateLanName="lan1", CidrBlock="10.20.0.0/24")
    front.settle()
    nics = [{"NetworkId": "net-COMMON_GLOBAL"}, {"NetworkName": "lan1", "IpAddress": "static"}]
    front.server("web1", NetworkInterface=nics, SecurityGroup=["nodes"])


def _disk(front: TestFront) -> None:
    front.call("CreateVolume", VolumeId="data", Size=1, InstanceId="web1")
    front.settle()
    front.call("ExtendVolumeSize", VolumeId="data")
    front.settle()
    front.call("DetachVolume", VolumeId="data", Agreement=True)
    front.settle()
    front.call("AttachVolume", VolumeId="data", InstanceId="web1")
    front.settle()


def _balancer(front: TestFront) -> None:
    ports = {"LoadBalancerName": "web", "LoadBalancerPort": 80, "InstancePort": 30080}
    front.call("CreateLoadBalancer", LoadBalancerName="web", Listeners=[{"LoadBalancerPort": 80, "InstancePort": 30080}])
    front.call("RegisterInstancesWithLoadBalancer", **ports, Instances=[{"InstanceId": "web1"}])
    front.settle()
    front.call("AllocateAddress")
    front.settle()


def _removal(front: TestFront) -> None:
    front.call("DeleteLoadBalancer", LoadBalancerName="web", LoadBalancerPort=80, InstancePort=30080)
    front.settle()
    (address,) = front.call("DescribeAddresses")["AddressesSet"]
    front.call("ReleaseAddress", PublicIp=address["PublicIp"])
    front.settle()
    front.end("web1")
    front.call("DeleteVolume", VolumeId="data")
    front.settle()
    front.call("DeleteSecurityGroup", GroupName="nodes")
    front.settle()
    front.call("NiftyDeletePrivateLan", PrivateLanName="lan1")
    front.settle()


STORIES: tuple[Story, ...] = (_servers, _disk, _balancer, _removal)


def _below(front: TestFront) -> dict[str, int]:
    """How many objects of each kind the cloud below has."""
    cloud = front.cloud
    return {
        "servers": len(cloud.machines.servers()),
        "ports": len([one for one in cloud.networks.ports() if one.name.startswith("i-")]),
        "networks": len(cloud.networks.networks()),
        "subnets": len(cloud.networks.subnets()),
        "volumes": len(cloud.disks.volumes()),
        "gigabytes": sum(one.size_gb for one in cloud.disks.volumes()),
        "groups": len(cloud.firewall.security_groups()),
        "addresses": len(cloud.addresses.floating_ips()),
        "balancers": len(cloud.load_balancers.load_balancers()),
        "routers": len(cloud.routers.routers()),
    }


class _Dying:
    """Ends the process at one of its own commits."""

    def __init__(self) -> None:
        self.count, self.at = 0, 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Killed


def _play(front: TestFront, story: Story) -> None:
    """The story, by a client that repeats a call whose answer it did not get, if it has had no effect."""
    plain = front.call

    def call(name: str, **arguments: Any) -> dict[str, Any]:
        before = front.state()
        try:
            return plain(name, **arguments)
        except Killed:
            _back(front)
            return plain(name, **arguments) if front.state() == before else {}

    def settle() -> None:
        try:
            front.worker.settle()
        except Killed:
            _back(front)
            front.worker.settle()

    front.call = call
    front.settle = settle
    story(front)
    front.call, front.settle = plain, TestFront.settle.__get__(front)


def _back(front: TestFront) -> None:
    front.cloud.mortal.revive()
    front.store.close()
    front.reopen()


@pytest.mark.exhaustive
@pytest.mark.parametrize("chapter", range(len(STORIES)))
@pytest.mark.parametrize("where", ["commit", "before a change below", "after a change below"])
def test_a_crash_anywhere_leaves_what_no_crash_leaves(tmp_path: Path, chapter: int, where: str) -> None:
    dying = _Dying()
    plain = TestFront(tmp_path / _folder(tmp_path, "plain"), scale=0, committed=dying)
    for story in STORIES[:chapter]:
        story(plain)
    commits, changes = dying.count, plain.cloud.mortal.changes
    STORIES[chapter](plain)
    expected = _below(plain)
    points = dying.count - commits if where == "commit" else plain.cloud.mortal.changes - changes
    assert points >= 5
    for point in range(1, points + 1):
        dying = _Dying()
        front = TestFront(tmp_path / _folder(tmp_path, str(point)), scale=0, committed=dying)
        for story in STORIES[:chapter]:
            story(front)
        if where == "commit":
            dying.at = dying.count + point
        else:
            front.cloud.mortal.kill_at(point, after=where.startswith("after"))
        _play(front, STORIES[chapter])
        assert _below(front) == expected, f"killed at {point} of {points}"
        front.store.close()


def _folder(base: Path, name: str) -> str:
    (base / name).mkdir()
    return name


def test_a_cloud_that_refuses_for_a_while_is_asked_again(tmp_path: Path) -> None:
    front = TestFront(tmp_path)
    front.cloud.faults.fail_next("machines.create_server", Retriable("busy"), times=3)
    front.cloud.faults.fail_next("machines.create_server", Retriable("lost"), times=1, after=True)
    assert front.server("web1")["InstanceState"]["Name"] == "running"
    assert len(front.cloud.machines.servers()) == 1
