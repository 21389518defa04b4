"""Faults that the cloud's own controller manager has, each with a test that moyai's load balancers for Services lack it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moyai.cloud.nifcloud.firewall import NifcloudFirewall
from moyai.cloud.nifcloud.marks import Mark
from moyai.cloud.nifcloud.nifcloud_service_balancers import NifcloudServiceBalancers
from moyai.cloud.nifcloud.service_orders import PREFIX
from moyai.cloud.service_balancers import BackendNode, BalancerChanging, ServedService, ServiceToServe, WantedPort
from moyai.core.errors import Terminal, UsageError
from moyai.core.ids import cluster_tag
from tests.fakes.nifcloud_calls import Call, Refused
from tests.fakes.nifcloud_wire import NifcloudWire

UID = "0123abcd-4567-89ef-0123-456789abcdef"
NAME = "0123abcd456789e"
CLUSTER = "abcdef0123"
WEB, TLS = WantedPort("TCP", 80, 30080), WantedPort("TCP", 443, 30443)
SERVICE = ServiceToServe("default/web", UID, (WEB, TLS))
ELB = replace(SERVICE, annotations={f"{PREFIX}type": "elb"})


@pytest.fixture
def wire() -> NifcloudWire:
    made = NifcloudWire()
    for name in ("node1", "node2", "foreign"):
        made.account.server(name)
    return made


def nodes(wire: NifcloudWire, *names: str) -> list[BackendNode]:
    servers = wire.account.instances
    return [BackendNode(name, f"nifcloud:///east-11/{servers[name]['InstanceUniqueId']}") for name in names]


def ensure(wire: NifcloudWire, service: ServiceToServe, *names: str, known: list[BackendNode] | None = None) -> ServedService:
    """As a controller does it that starts now, and comes again."""
    balancers = wire.cloud().service_balancers
    backends = nodes(wire, *names) if known is None else known
    for _ in range(60):
        try:
            return balancers.ensure_balancer(service, backends)
        except BalancerChanging:
            wire.clock.sleep(5)
    raise AssertionError("does not come to an end")


def remove(balancers: NifcloudServiceBalancers, wire: NifcloudWire) -> None:
    for _ in range(60):
        try:
            return balancers.remove_balancer(NAME)
        except BalancerChanging:
            wire.clock.sleep(5)
    raise AssertionError("does not come to an end")


def pairs(wire: NifcloudWire) -> dict[tuple[int, int], dict[str, Any]]:
    """Ports → what the account has of the pair."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for one in wire.account.balancers.get(NAME, []):
        listener = one["ListenerDescriptions"][0]["Listener"]
        found[listener["LoadBalancerPort"], listener["InstancePort"]] = one
    return found


def listeners(wire: NifcloudWire) -> dict[int, dict[str, Any]]:
    described = wire.account.elbs[NAME]["ElasticLoadBalancerListenerDescriptions"]
    return {one["Listener"]["ElasticLoadBalancerPort"]: one["Listener"] for one in described}


def members(one: dict[str, Any]) -> set[str]:
    return {server["InstanceId"] for server in one["Instances"]}


def firewall(wire: NifcloudWire) -> NifcloudFirewall:
    return wire.cloud().firewall


def group(wire: NifcloudWire, *servers: str, name: str = "workers") -> str:
    """A firewall group that these servers are in."""
    made = firewall(wire).create_security_group(name=name, tags=[cluster_tag(CLUSTER)])
    for one in servers:
        wire.account.instances[one]["group"] = made.id
    return made.id


def opened(wire: NifcloudWire, *groups: str) -> set[tuple[str, int | None, str | None]]:
    wire.clock.sleep(60)
    return {(one.group_id, one.port_min, one.remote_cidr) for one in firewall(wire).security_group_rules(groups)}


# ---- (a) to (d): members, ports, half-made load balancers


@pytest.mark.parametrize("service", [SERVICE, ELB], ids=["lb", "elb"])
def test_a_no_nodes_never_means_all_servers(wire: NifcloudWire, service: ServiceToServe) -> None:
    ensure(wire, service)
    assert wire.count["DescribeInstances"] == 0
    assert not [one for one in wire.count if "RegisterInstances" in one]
    ensure(wire, service, "node1")
    ensure(wire, service)
    found = pairs(wire).values() if service is SERVICE else listeners(wire).values()
    assert [members(one) for one in found] == [set[str](), set[str]()]


def test_a_servers_that_are_no_nodes_leave_a_load_balancer_that_had_all(wire: NifcloudWire) -> None:
    ensure(wire, SERVICE, "node1", "node2", "foreign")
    ensure(wire, SERVICE, "node1", "node2")
    assert [members(one) for one in pairs(wire).values()] == [{"node1", "node2"}] * 2


def test_b_a_vanished_node_blocks_nobody(wire: NifcloudWire) -> None:
    known = [*nodes(wire, "node1", "node2"), BackendNode("gone", "nifcloud:///east-11/i-gone0000")]
    ensure(wire, SERVICE, known=known)
    assert members(pairs(wire)[80, 30080]) == {"node1", "node2"}
    del wire.account.instances["node1"]
    changed = replace(SERVICE, annotations={f"{PREFIX}network-volume": "20"})
    ensure(wire, changed, known=known)
    assert "node2" in members(pairs(wire)[80, 30080])
    assert {one["NetworkVolume"] for one in pairs(wire).values()} == {20}


def test_c_changed_node_ports_of_three_ports(wire: NifcloudWire) -> None:
    three = replace(SERVICE, ports=(WEB, TLS, WantedPort("TCP", 8080, 31000)))
    ensure(wire, three, "node1")
    moved = replace(three, ports=tuple(WantedPort("TCP", one.port, one.node_port + 1) for one in three.ports))
    served = ensure(wire, moved, "node1")
    assert set(pairs(wire)) == {(80, 30081), (443, 30444), (8080, 31001)}
    assert pairs(wire)[80, 30081]["HealthCheck"]["Target"] == "TCP:30081"
    assert served.address == "198.51.100.7"
    assert wire.count["DeleteLoadBalancer"] == 0


def test_c_two_ports_exchange_their_node_ports(wire: NifcloudWire) -> None:
    ensure(wire, SERVICE, "node1")
    ensure(wire, replace(SERVICE, ports=(WantedPort("TCP", 80, 30443), WantedPort("TCP", 443, 30080))), "node1")
    assert set(pairs(wire)) == {(80, 30443), (443, 30080)}


@pytest.mark.parametrize(
    "operation",
    [
        "ConfigureHealthCheck",
        "RegisterInstancesWithLoadBalancer",
        "SetFilterForLoadBalancer",
        "RegisterPortWithLoadBalancer",
        "UpdateLoadBalancer",
    ],
)
def test_d_a_half_made_load_balancer_is_completed(wire: NifcloudWire, operation: str) -> None:
    annotations = {f"{PREFIX}balancing-type": "2", f"{PREFIX}network-volume": "20", f"{PREFIX}healthcheck-interval": "30"}
    service = replace(SERVICE, annotations=annotations, source_ranges=("192.0.2.0/24",))
    wire.refuse(operation, "Client.Died.Here")
    with pytest.raises(Terminal):
        ensure(wire, service, "node1")
    ensure(wire, service, "node1")
    assert set(pairs(wire)) == {(80, 30080), (443, 30443)}
    for one in pairs(wire).values():
        assert members(one) == {"node1"}
        assert one["HealthCheck"]["Interval"] == 30
        assert one["Filter"]["IPAddresses"] == [{"IPAddress": "192.0.2.0/24"}]
        assert one["ListenerDescriptions"][0]["Listener"]["BalancingType"] == 2
        assert one["NetworkVolume"] == 20


def test_d_a_policy_that_cannot_change_is_said_and_the_rest_changes(wire: NifcloudWire) -> None:
    ensure(wire, SERVICE, "node1")
    changed = replace(SERVICE, annotations={f"{PREFIX}policy-type": "ats", f"{PREFIX}healthcheck-protocol": "ICMP"})
    served = ensure(wire, changed, "node1")
    ((reason, message),) = served.remarks
    assert reason == "BalancerKeepsSetting"
    assert "policy type standard (asked for: ats)" in message
    assert pairs(wire)[80, 30080]["HealthCheck"]["Target"] == "ICMP"


@pytest.mark.parametrize("service", [SERVICE, ELB], ids=["lb", "elb"])
def test_d_an_accounting_type_that_changes_next_month_is_ordered_once(wire: NifcloudWire, service: ServiceToServe) -> None:
    ensure(wire, service, "node1")
    monthly = replace(service, annotations={**service.annotations, f"{PREFIX}accounting-type": "1"})
    assert ensure(wire, monthly, "node1").changes == ("accounting type 1",)
    assert ensure(wire, monthly, "node1").changes == ()
    assert wire.count["UpdateLoadBalancer"] + wire.count["NiftyUpdateElasticLoadBalancer"] == 1


# ---- (e) to (g): elastic load balancers and the firewall


def test_e_targets_of_each_listener_are_its_own(wire: NifcloudWire) -> None:
    ensure(wire, ELB, "node1", "node2")
    listeners(wire)[443]["Instances"] = [{"InstanceId": "foreign"}]
    ensure(wire, ELB, "node1", "node2")
    assert [members(one) for one in listeners(wire).values()] == [{"node1", "node2"}] * 2


def test_f_a_node_that_leaves_closes_no_port_of_others_in_its_group(wire: NifcloudWire) -> None:
    shared, alone = group(wire, "node1", "node2"), group(wire, "foreign", name="others")
    ensure(wire, ELB, "node1", "node2", "foreign")
    both = {(one, port, "198.51.100.8") for one in (shared, alone) for port in (30080, 30443)}
    assert opened(wire, shared, alone) == both
    ensure(wire, ELB, "node1")
    assert opened(wire, shared, alone) == {one for one in both if one[0] == shared}


def test_f_rules_follow_node_ports_and_go_with_the_load_balancer(wire: NifcloudWire) -> None:
    made = group(wire, "node1")
    ensure(wire, ELB, "node1")
    ensure(wire, replace(ELB, ports=(WantedPort("TCP", 80, 31000),)), "node1")
    assert opened(wire, made) == {(made, 31000, "198.51.100.8")}
    remove(wire.cloud().service_balancers, wire)
    assert opened(wire, made) == set()


def test_f_rules_of_the_existing_manager_are_taken_over_and_those_of_users_stay(wire: NifcloudWire) -> None:
    made = group(wire, "node1")
    ensure(wire, ELB, "node1")
    rule = {"InOut": "IN", "IpProtocol": "TCP", "IpRanges": [{"CidrIp": "198.51.100.8"}], "Groups": []}
    users = [
        {**rule, "FromPort": 30080, "ToPort": 30090},
        {**rule, "FromPort": 30999, "IpProtocol": "UDP"},
        {**rule, "FromPort": 30999, "IpRanges": [{"CidrIp": "192.0.2.1"}]},
    ]
    permissions = wire.account.groups[made]["IpPermissions"]
    permissions += [{**rule, "FromPort": 30999}, *users]
    wanted = {(made, 30080, "198.51.100.8"), (made, 30443, "198.51.100.8"), (made, 30999, "192.0.2.1")}
    ensure(wire, ELB, "node1")
    assert {**rule, "FromPort": 30999} not in wire.account.groups[made]["IpPermissions"]
    assert wanted <= opened(wire, made)
    remove(wire.cloud().service_balancers, wire)
    wire.clock.sleep(60)
    firewall(wire).security_groups()
    assert wire.account.groups[made]["IpPermissions"] == users


@pytest.mark.parametrize("code", ["SecurityGroup", "CidrIp.or.SecurityGroupName"])
def test_g_a_rule_that_is_there_already_is_no_error(wire: NifcloudWire, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    made = group(wire, "node1")
    authorize = wire.account.do_authorize_security_group_ingress

    def faster(call: Call) -> dict[str, Any]:
        authorize(call)
        raise Refused(f"Client.InvalidParameterDuplicate.{code}", "another process made it")

    monkeypatch.setattr(wire.account, "do_authorize_security_group_ingress", faster)
    ensure(wire, ELB, "node1")
    assert len(opened(wire, made)) == 2


# ---- (h) to (n)


def test_h_a_changed_type_leaks_no_load_balancer(wire: NifcloudWire) -> None:
    made = group(wire, "node1")
    ensure(wire, SERVICE, "node1")
    served = ensure(wire, ELB, "node1")
    assert (served.address, wire.account.balancers, list(wire.account.elbs)) == ("198.51.100.8", {}, [NAME])
    order = [call.operation for call in wire.calls]
    assert order.index("NiftyCreateElasticLoadBalancer") < order.index("DeleteLoadBalancer")
    served = ensure(wire, SERVICE, "node1")
    assert (served.address, list(wire.account.balancers), wire.account.elbs) == ("198.51.100.7", [NAME], {})
    assert opened(wire, made) == set()


def test_h_a_type_that_cannot_be_had_leaves_the_load_balancer_alone(wire: NifcloudWire) -> None:
    ensure(wire, SERVICE, "node1")
    with pytest.raises(UsageError, match="allowed ranges"):
        ensure(wire, replace(ELB, source_ranges=("192.0.2.0/24",)), "node1")
    assert list(wire.account.balancers) == [NAME]


def test_i_servers_are_looked_up_in_one_list_for_all_nodes(wire: NifcloudWire) -> None:
    names = [f"more{number}" for number in range(20)]
    for name in names:
        wire.account.server(name)
    ensure(wire, SERVICE, *names)
    assert wire.count["DescribeInstances"] == 1


def test_j_answers_may_lack_what_is_optional(wire: NifcloudWire) -> None:
    ensure(wire, SERVICE, "node1")
    del wire.account.instances["node1"]["Placement"]
    for one in wire.account.balancers[NAME]:
        del one["Filter"]
        del one["PolicyType"]
    wire.account.balancers["fedcba987654321"] = [{"LoadBalancerName": "fedcba987654321", "ListenerDescriptions": []}]
    balancers = wire.cloud().service_balancers
    assert balancers.cluster_balancers(CLUSTER) == frozenset()
    assert ensure(wire, SERVICE, "node1").changes == ()
    elastic = replace(ELB, uid="a" * 32)
    ensure(wire, elastic, "node1")
    for key in ("NetworkInterfaces", "AvailabilityZones"):
        del wire.account.elbs["a" * 15][key]
    assert ensure(wire, elastic, "node1").address == "198.51.100.8"


def test_j_what_a_load_balancer_has_beyond_known_limits_is_no_obstacle(wire: NifcloudWire) -> None:
    ensure(wire, SERVICE, "node1")
    for one in wire.account.balancers[NAME]:
        one["NetworkVolume"] = 3000
    ensure(wire, SERVICE, "node1", "node2")
    assert members(pairs(wire)[80, 30080]) == {"node1", "node2"}
    for one in wire.account.balancers[NAME]:
        del one["NetworkVolume"], one["AccountingType"]
    ensure(wire, SERVICE, "node2")
    assert members(pairs(wire)[80, 30080]) == {"node2"}
    assert wire.count["UpdateLoadBalancer"] == 0


def test_k_a_port_without_a_node_port_is_refused_and_nothing_made(wire: NifcloudWire) -> None:
    with pytest.raises(UsageError, match="port 443 has no node port"):
        ensure(wire, replace(SERVICE, ports=(WEB, WantedPort("TCP", 443, 0))), "node1")
    assert not wire.calls


def test_k_a_pair_without_a_node_port_is_mended(wire: NifcloudWire) -> None:
    ensure(wire, SERVICE, "node1")
    pairs(wire)[443, 30443]["ListenerDescriptions"][0]["Listener"]["InstancePort"] = 0
    ensure(wire, SERVICE, "node1")
    assert set(pairs(wire)) == {(80, 30080), (443, 30443)}


def test_l_the_zone_of_an_elb_is_that_of_most_nodes_and_stays(wire: NifcloudWire) -> None:
    for name in ("far1", "far2"):
        wire.account.server(name, zone="east-12")
    ensure(wire, ELB, "node1", "far1", "far2")
    assert wire.account.elbs[NAME]["AvailabilityZones"] == ["east-12"]
    ensure(wire, ELB, "node1", "node2", "far1")
    assert wire.sent("NiftyCreateElasticLoadBalancer")[0]["AvailabilityZones.member.1"] == "east-12"
    assert wire.count["NiftyCreateElasticLoadBalancer"] == 1


def test_l_the_zone_of_an_elb_in_a_private_lan_is_the_lans(wire: NifcloudWire) -> None:
    wire.account.lans["net-lan1"] = {"NetworkId": "net-lan1", "PrivateLanName": "lan", "AvailabilityZone": "east-13"}
    arm = f"{PREFIX}network-interface-1-"
    annotations = {
        f"{PREFIX}type": "elb",
        f"{arm}network-id": "net-lan1",
        f"{arm}ip-address": "192.168.0.10",
        f"{arm}system-ip-addresses": "192.168.0.11,192.168.0.12",
    }
    made = group(wire, "node1")
    ensure(wire, replace(ELB, annotations=annotations), "node1")
    assert wire.account.elbs[NAME]["AvailabilityZones"] == ["east-13"]
    # it comes from its own addresses, checks from the system addresses
    sources = {source for _, _, source in opened(wire, made)}
    assert {f"192.168.0.{number}" for number in (10, 11, 12)} <= sources
    missing = replace(ELB, uid="ff" * 16, annotations={**annotations, f"{arm}network-id": "net-lan2"})
    with pytest.raises(UsageError, match="NIFCLOUD has no private LAN net-lan2"):
        ensure(wire, missing, "node1")


def test_m_a_load_balancer_is_a_clusters_if_all_its_members_are(wire: NifcloudWire) -> None:
    for number, uid in enumerate((CLUSTER, CLUSTER, "9876543210")):
        wire.account.server(f"marked{number}", description=Mark(uid, f"node-{number}").text)

    def made(first: str, *names: str) -> str:
        service = replace(SERVICE, uid=first * 32)
        ensure(wire, service, *names)
        return first * 15

    own, _mixed, _other, _unmarked, _empty = (
        made("a", "marked0", "marked1"),
        made("b", "marked0", "marked2"),
        made("c", "marked2"),
        made("d", "marked0", "foreign"),
        made("e"),
    )
    assert wire.cloud().service_balancers.cluster_balancers(CLUSTER) == {own}


def test_n_more_than_30_source_ranges_are_refused_before_anything_is_made(wire: NifcloudWire) -> None:
    with pytest.raises(UsageError, match="at most 30 addresses and ranges, port 80 names 31"):
        ensure(wire, replace(SERVICE, source_ranges=tuple(f"10.{number}.0.0/16" for number in range(31))), "node1")
    assert not wire.calls
    ensure(wire, replace(SERVICE, source_ranges=("10.1.0.0/16", "192.0.2.7/32")), "node1")
    for one in pairs(wire).values():
        assert {entry["IPAddress"] for entry in one["Filter"]["IPAddresses"]} == {"10.1.0.0/16", "192.0.2.7"}
    ensure(wire, replace(SERVICE, source_ranges=("192.0.2.7/32",)), "node1")
    assert pairs(wire)[80, 30080]["Filter"]["IPAddresses"] == [{"IPAddress": "192.0.2.7"}]


@pytest.mark.parametrize("service", [SERVICE, ELB], ids=["lb", "elb"])
def test_what_is_as_it_should_be_is_left_alone(wire: NifcloudWire, service: ServiceToServe) -> None:
    group(wire, "node1", "node2")
    ensure(wire, service, "node1", "node2")
    before = len(wire.calls)
    served = ensure(wire, service, "node1", "node2")
    assert served.changes == ()
    assert {call.operation for call in wire.calls[before:] if "Describe" not in call.operation} == set()
