"""Firewall groups, private LANs, routers and elastic addresses of the front over a cloud in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moyai.nifcloud_front.store.rows import BridgeRow
from tests.fakes.nifcloud_front import Refused, TestFront


@pytest.fixture
def front(tmp_path: Path) -> TestFront:
    return TestFront(tmp_path)


def _code(work: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as refused:
        work()
    return refused.value.code


def test_a_firewall_group_is_busy_until_it_is_applied(front: TestFront) -> None:
    front.call("CreateSecurityGroup", GroupName="masters", Placement={"AvailabilityZone": "east-11"})
    rule = {"IpProtocol": "TCP", "FromPort": 6443, "InOut": "IN", "ListOfRequestIpRanges": [{"CidrIp": "192.0.2.1/32"}]}
    busy = "Server.ResourceIncorrectState.SecurityGroup.Processing"
    assert _code(lambda: front.call("AuthorizeSecurityGroupIngress", GroupName="masters", IpPermissions=[rule])) == busy
    front.settle()
    front.call("AuthorizeSecurityGroupIngress", GroupName="masters", IpPermissions=[rule])
    assert front.call("DescribeSecurityGroups")["SecurityGroupInfo"][0]["GroupStatus"] == "processing"
    front.settle()
    (shown,) = front.call("DescribeSecurityGroups", GroupName=["masters"])["SecurityGroupInfo"]
    assert shown["GroupStatus"] == "applied"
    assert shown["IpPermissions"][0]["IpRanges"] == [{"CidrIp": "192.0.2.1"}]
    assert "ToPort" not in shown["IpPermissions"][0]
    again = _code(lambda: front.call("AuthorizeSecurityGroupIngress", GroupName="masters", IpPermissions=[rule]))
    assert again == "Client.InvalidParameterDuplicate.CidrIp.or.SecurityGroupName"
    (group,) = front.cloud.firewall.security_groups()
    below = [one for one in front.cloud.firewall.security_group_rules([group.id]) if one.direction == "ingress"]
    assert [(one.protocol, one.port_min, one.remote_cidr) for one in below] == [("tcp", 6443, "192.0.2.1/32")]
    front.call("RevokeSecurityGroupIngress", GroupName="masters", IpPermissions=[rule])
    front.settle()
    assert not [one for one in front.cloud.firewall.security_group_rules([group.id]) if one.direction == "ingress"]
    missing = _code(lambda: front.call("RevokeSecurityGroupIngress", GroupName="masters", IpPermissions=[rule]))
    assert missing == "Client.InvalidParameterNotFound.SecurityGroupIngress"


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (
            {"IpProtocol": "TCP", "ListOfRequestIpRanges": [{"CidrIp": "10.0.0.0/8"}]},
            "Client.InvalidParameter.Required.IpPermissions.1.FromPort",
        ),
        (
            {"IpProtocol": "VRRP", "FromPort": 1, "ListOfRequestIpRanges": [{"CidrIp": "10.0.0.0/8"}]},
            "Client.InvalidParameter.Value.IpPermissions.1.FromPort",
        ),
        ({"IpProtocol": "ICMP"}, "Client.InvalidParameter.Required.IpPermissions.1.IpRanges.1.CidrIp"),
        (
            {"IpProtocol": "ICMP", "ListOfRequestGroups": [{"GroupName": "masters"}]},
            "Client.InvalidParameter.Value.SecurityGroup",
        ),
        (
            {"IpProtocol": "ICMP", "ListOfRequestIpRanges": [{"CidrIp": "10.0.0.1/8"}]},
            "Client.InvalidParameter.Format.IpPermissions.1.IpRanges.1.CidrIp",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_refused(front: TestFront, rule: dict[str, Any], code: str) -> None:
    front.call("CreateSecurityGroup", GroupName="masters")
    front.settle()
    assert _code(lambda: front.call("AuthorizeSecurityGroupIngress", GroupName="masters", IpPermissions=[rule])) == code


def test_a_group_in_use_stays(front: TestFront) -> None:
    front.call("CreateSecurityGroup", GroupName="nodes")
    front.settle()
    front.server("web1", SecurityGroup=["nodes"])
    assert _code(lambda: front.call("DeleteSecurityGroup", GroupName="nodes")) == "Client.Inoperable.SecurityGroup.InUse"
    front.end("web1")
    front.call("DeleteSecurityGroup", GroupName="nodes")
    front.settle()
    assert front.call("DescribeSecurityGroups")["SecurityGroupInfo"] == []
    assert {one.name for one in front.cloud.firewall.security_groups()} <= {"nifcloud-balancers", "nifcloud-open"}


# ---- networks and addresses


def test_a_private_lan_holds_servers_of_its_zone(front: TestFront) -> None:
    lan = front.call("NiftyCreatePrivateLan", PrivateLanName="lan1", CidrBlock="10.20.0.0/24", AvailabilityZone="east-11")
    assert lan["PrivateLan"]["State"] == "pending"
    front.settle()
    nics = [{"NetworkId": "net-COMMON_GLOBAL"}, {"NetworkName": "lan1", "IpAddress": "10.20.0.5"}]
    far = {"AvailabilityZone": "east-12"}
    refused = _code(lambda: front.call("RunInstances", ImageId=front.image(), NetworkInterface=nics, Placement=far))
    assert refused == "Client.InvalidParameter.Value.NetworkInterface.2.NetworkId"
    assert front.server("web1", NetworkInterface=nics)["PrivateIpAddress"] == "10.20.0.5"
    taken = _code(lambda: front.call("RunInstances", ImageId=front.image(), NetworkInterface=nics))
    assert taken == "Client.InvalidParameterDuplicate.IpAddress"
    dhcp = [{"NetworkName": "lan1"}]
    refused = _code(lambda: front.call("RunInstances", ImageId=front.image(), NetworkInterface=dhcp))
    assert refused == "Client.Inoperable.Network.NoExistEnableDhcp"
    static = [{"NetworkName": "lan1", "IpAddress": "static"}]
    assert front.server("web2", NetworkInterface=static)["PrivateIpAddress"] == "10.20.0.193"
    port = next(one for one in front.cloud.networks.ports() if "10.20.0.193" in one.fixed_ips)
    assert [one.address for one in port.send_from] == ["10.20.0.0/24"]
    assert _code(lambda: front.call("NiftyDeletePrivateLan", PrivateLanName="lan1")) == "Client.Inoperable.Network.InUse"
    front.end("web1", "web2")
    front.call("NiftyDeletePrivateLan", PrivateLanName="lan1")
    front.settle()
    assert front.call("NiftyDescribePrivateLans")["PrivateLanSet"] == []


def test_a_bridge_joins_private_lans_of_several_zones(front: TestFront) -> None:
    with front.store.transaction() as tx:
        tx.put(BridgeRow("10.20.0.0/24", "10.20.0.0/24"))
    for number in (1, 2):
        zone = f"east-1{number}"
        front.call("NiftyCreatePrivateLan", PrivateLanName=f"lan{number}", CidrBlock="10.20.0.0/24", AvailabilityZone=zone)
    front.settle()
    first = [{"NetworkName": "lan1", "IpAddress": "10.20.0.5"}]
    front.server("web1", NetworkInterface=first)
    far = {"AvailabilityZone": "east-12"}
    second = [{"NetworkName": "lan2", "IpAddress": "10.20.0.5"}]
    taken = _code(lambda: front.call("RunInstances", ImageId=front.image(), NetworkInterface=second, Placement=far))
    assert taken == "Client.InvalidParameterDuplicate.IpAddress"
    front.server("web2", NetworkInterface=[{"NetworkName": "lan2", "IpAddress": "10.20.0.6"}], Placement=far)
    ports = [one for one in front.cloud.networks.ports() if one.name.startswith("i-")]
    assert len({one.network_id for one in ports}) == 1
    front.end("web1", "web2")
    for number, left in ((1, 1), (2, 0)):
        front.call("NiftyDeletePrivateLan", PrivateLanName=f"lan{number}")
        front.settle()
        assert len([one for one in front.cloud.networks.networks() if one.name.startswith("bridge")]) == left


def test_a_router_gives_addresses(front: TestFront) -> None:
    front.call("NiftyCreatePrivateLan", PrivateLanName="lan1", CidrBlock="10.20.0.0/24")
    front.settle()
    arms = [{"NetworkId": "net-COMMON_GLOBAL"}, {"NetworkName": "lan1", "IpAddress": "10.20.0.1", "Dhcp": True}]
    front.call("NiftyCreateRouter", RouterName="router1", NetworkInterface=arms)
    assert front.call("NiftyDescribeRouters")["RouterSet"][0]["State"] == "pending"
    front.settle()
    assert front.call("NiftyDescribeRouters", RouterName=["router1"])["RouterSet"][0]["State"] == "available"
    small = {"Name": "type", "ListOfRequestValue": ["large"]}
    assert front.call("NiftyDescribeRouters", Filter=[small])["RouterSet"] == []
    assert front.server("web1", NetworkInterface=[{"NetworkName": "lan1"}])["PrivateIpAddress"].startswith("10.20.0.")
    front.end("web1")
    front.call("NiftyDeleteRouter", RouterName="router1")
    front.settle()
    assert front.call("NiftyDescribeRouters")["RouterSet"] == []


def test_an_elastic_address_moves_by_a_reboot(front: TestFront) -> None:
    own = front.server("web1")["IpAddress"]
    address = front.call("AllocateAddress", Placement={"AvailabilityZone": "east-11"})["PublicIp"]
    assert address not in ("", own)
    front.call("NiftyModifyAddressAttribute", PublicIp=address, Attribute="description", Value="moyai")
    running = _code(lambda: front.call("AssociateAddress", PublicIp=address, InstanceId="web1", NiftyReboot="false"))
    assert running == "Client.Inoperable.Instance.Running"
    front.call("AssociateAddress", PublicIp=address, InstanceId="web1", NiftyReboot="true")
    assert front.shown("web1")["InstanceState"]["Name"] == "pending"
    front.settle()
    assert (front.shown("web1")["IpAddress"], front.shown("web1")["InstanceState"]["Name"]) == (address, "running")
    assert _code(lambda: front.call("ReleaseAddress", PublicIp=address)) == "Client.Inoperable.IpAddress.InUse"
    front.end("web1")
    (left,) = front.call("DescribeAddresses")["AddressesSet"]
    assert (left["InstanceId"], left["Description"]) == ("", "moyai")
    front.call("ReleaseAddress", PublicIp=address)
    front.settle()
    assert front.call("DescribeAddresses")["AddressesSet"] == []
    assert front.cloud.addresses.floating_ips() == []


def test_what_a_crash_left_without_tags_goes_all_the_same(front: TestFront) -> None:
    front.call("CreateSecurityGroup", GroupName="masters")
    front.call("NiftyCreatePrivateLan", PrivateLanName="lan1", CidrBlock="10.20.0.0/24")
    front.settle()
    arms = [{"NetworkName": "lan1", "IpAddress": "10.20.0.1"}, {"NetworkId": "net-COMMON_GLOBAL"}]
    front.call("NiftyCreateRouter", RouterName="router1", NetworkInterface=arms)
    front.settle()
    store = front.cloud.store
    tables: list[Any] = [store.groups, store.networks, store.routers]
    for table in tables:
        for one in list(table):
            table.put(replace(one, tags=()))
    front.call("NiftyDeleteRouter", RouterName="router1")
    front.settle()
    front.call("NiftyDeletePrivateLan", PrivateLanName="lan1")
    front.call("DeleteSecurityGroup", GroupName="masters")
    front.settle()
    cloud = front.cloud
    names = [one.name for one in (*cloud.firewall.security_groups(), *cloud.networks.networks(), *cloud.routers.routers())]
    assert not [one for one in names if one.startswith(("fw-", "net-", "rt-")) and one != "net-COMMON_GLOBAL"]
