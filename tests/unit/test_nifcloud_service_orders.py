"""What Services ask of NIFCLOUD: each annotation with its values, each limit, each refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moyai.cloud.nifcloud.balancer_model import BalancerArm, HealthCheck, PairBalancer
from moyai.cloud.nifcloud.nic_plans import PUBLIC, SHARED_PRIVATE
from moyai.cloud.nifcloud.nifcloud_limits import L4, Terms
from moyai.cloud.nifcloud.service_orders import (
    PREFIX,
    BalancerOrder,
    balancer_name,
    lasting,
    read_order,
    unknown_annotations,
    wanted_balancer,
)
from moyai.cloud.service_balancers import ServiceToServe, WantedPort
from moyai.core.errors import UsageError

LAN = "net-0a1b2c3d"
LAN_ARM = {
    "network-interface-1-network-id": LAN,
    "network-interface-1-ip-address": "192.168.0.10",
    "network-interface-1-system-ip-addresses": "192.168.0.11,192.168.0.12",
}


def service(annotations: dict[str, str] | None = None, **changes: object) -> ServiceToServe:
    marked = {f"{PREFIX}{suffix}": value for suffix, value in (annotations or {}).items()}
    made = ServiceToServe("default/web", "0123abcd-4567-89ef-0123-456789abcdef", (WantedPort("TCP", 80, 30080),), marked)
    return replace(made, **changes)  # pyright: ignore[reportArgumentType]


def order(annotations: dict[str, str] | None = None, **changes: object) -> BalancerOrder:
    return read_order(service(annotations, **changes))


def refusal(annotations: dict[str, str] | None = None, **changes: object) -> str:
    with pytest.raises(UsageError) as caught:
        order(annotations, **changes)
    return caught.value.message


def test_a_service_without_annotations_gets_the_defaults() -> None:
    found = order()
    assert found.limits is L4
    assert (found.volume, found.accounting, found.policy, found.arms) == (None, None, "standard", ())
    (pair,) = found.pairs
    assert (pair.protocol, pair.port, pair.node_port, pair.balancing) == ("TCP", 80, 30080, 1)
    assert pair.check == HealthCheck("TCP:30080", 10, 1)
    assert not pair.allowed


def test_the_name_is_the_first_15_hexadecimal_digits_of_the_uid() -> None:
    assert balancer_name("0123abcd-4567-89ef-0123-456789abcdef") == "0123abcd456789e"


LB_VOLUMES = (*range(10, 50, 10), *range(100, 2100, 100))
ELB_VOLUMES = (*range(10, 50, 10), *range(100, 600, 100))


@pytest.mark.parametrize("volume", LB_VOLUMES)
def test_lb_has_these_volumes(volume: int) -> None:
    assert order({"network-volume": str(volume)}).volume == volume


@pytest.mark.parametrize("volume", ELB_VOLUMES)
def test_elb_has_these_volumes(volume: int) -> None:
    assert order({"type": "elb", "network-volume": str(volume)}).volume == volume


@pytest.mark.parametrize(
    ("kind", "volume"), [("lb", "50"), ("lb", "2100"), ("lb", "0"), ("lb", "ten"), ("elb", "600"), ("elb", "50")]
)
def test_other_volumes_are_refused_with_the_right_ones(kind: str, volume: str) -> None:
    message = refusal({"type": kind, "network-volume": volume})
    assert f"annotation {PREFIX}network-volume is '{volume}', and must be one of 10, 20, 30, 40, 100, 200" in message


@pytest.mark.parametrize("value", ["1", "2"])
@pytest.mark.parametrize("kind", ["lb", "elb"])
def test_accounting_and_balancing_types(kind: str, value: str) -> None:
    found = order({"type": kind, "accounting-type": value, "balancing-type": value})
    assert (found.accounting, found.pairs[0].balancing) == (value, int(value))


@pytest.mark.parametrize("value", ["standard", "ats"])
def test_policy_types(value: str) -> None:
    assert order({"policy-type": value}).policy == value


@pytest.mark.parametrize(("protocol", "target"), [("TCP", "TCP:30080"), ("ICMP", "ICMP")])
def test_health_checks(protocol: str, target: str) -> None:
    given = {
        "healthcheck-protocol": protocol,
        "healthcheck-interval": "300",
        "healthcheck-unhealthy-threshold": "10",
    }
    assert order(given).pairs[0].check == HealthCheck(target, 300, 10)
    least = {"healthcheck-interval": "5", "healthcheck-unhealthy-threshold": "1"}
    assert order(least).pairs[0].check == HealthCheck("TCP:30080", 5, 1)


@pytest.mark.parametrize(
    ("suffix", "value", "right"),
    [
        ("type", "nlb", "one of lb, elb"),
        ("accounting-type", "3", "one of 1, 2"),
        ("accounting-type", "hourly", "one of 1, 2"),
        ("policy-type", "fast", "one of standard, ats"),
        ("balancing-type", "0", "one of 1, 2"),
        ("healthcheck-protocol", "HTTP", "one of TCP, ICMP"),
        ("healthcheck-interval", "4", "a number from 5 to 300"),
        ("healthcheck-interval", "301", "a number from 5 to 300"),
        ("healthcheck-interval", "soon", "a number from 5 to 300"),
        ("healthcheck-unhealthy-threshold", "0", "a number from 1 to 10"),
        ("healthcheck-unhealthy-threshold", "11", "a number from 1 to 10"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_what_is(suffix: str, value: str, right: str) -> None:
    assert refusal({suffix: value}) == f"Service default/web: annotation {PREFIX}{suffix} is '{value}', and must be {right}"


def test_all_reasons_are_in_one_line() -> None:
    message = refusal({"accounting-type": "3", "balancing-type": "9"}, asked_address="198.51.100.1")
    assert all(word in message for word in ("accounting-type", "balancing-type", "spec.loadBalancerIP is 198.51.100.1"))
    assert "\n" not in message


# ---- limits


def ports(count: int) -> tuple[WantedPort, ...]:
    return tuple(WantedPort("TCP", 80 + number, 30080 + number) for number in range(count))


@pytest.mark.parametrize("kind", ["lb", "elb"])
def test_three_ports_and_no_more(kind: str) -> None:
    assert len(order({"type": kind}, ports=ports(3)).pairs) == 3
    assert f"load balancers of type {kind} have at most 3 ports, 4 are asked for" in refusal({"type": kind}, ports=ports(4))


@pytest.mark.parametrize("kind", ["lb", "elb"])
@pytest.mark.parametrize("protocol", ["UDP", "SCTP"])
def test_tcp_alone(kind: str, protocol: str) -> None:
    assert f"port 53 is {protocol}" in refusal({"type": kind}, ports=(WantedPort(protocol, 53, 30053),))


def test_thirty_filter_entries_and_no_more() -> None:
    ranges = tuple(f"192.0.2.{number}/32" for number in range(31))
    assert len(order(source_ranges=ranges[:30]).pairs[0].allowed) == 30
    assert "let in at most 30 addresses and ranges, port 80 names 31" in refusal(source_ranges=ranges)


def test_source_ranges_are_written_as_the_cloud_writes_them() -> None:
    assert order(source_ranges=("192.0.2.7/32", "10.1.2.3/8")).pairs[0].allowed == {"192.0.2.7", "10.0.0.0/8"}
    assert order(source_ranges=("192.0.2.7/32", "0.0.0.0/0")).pairs[0].allowed == set()


@pytest.mark.parametrize(("given", "word"), [("2001:db8::/32", "is of IPv6"), ("everybody", "is no CIDR")])
def test_source_ranges_that_would_not_be_kept_are_refused(given: str, word: str) -> None:
    assert word in refusal(source_ranges=(given,))


def test_elb_refuses_source_ranges_instead_of_letting_everybody_in() -> None:
    assert "allowed ranges cannot be named" in refusal({"type": "elb"}, source_ranges=("192.0.2.0/24",))


# ---- networks of an elb


def test_an_elb_is_public_where_nothing_is_said() -> None:
    assert order({"type": "elb"}).arms == (BalancerArm(PUBLIC, vip=True),)


def test_an_elb_with_one_arm_in_a_private_lan() -> None:
    arm = BalancerArm(LAN, "192.168.0.10", ("192.168.0.11", "192.168.0.12"), vip=True)
    assert order({"type": "elb", **LAN_ARM}).arms == (arm,)


@pytest.mark.parametrize("vip", ["1", "2"])
def test_an_elb_with_two_arms(vip: str) -> None:
    found = order({"type": "elb", **LAN_ARM, "network-interface-2-network-id": SHARED_PRIVATE, "vip-network": vip}).arms
    assert [(one.network, one.vip) for one in found] == [(LAN, vip == "1"), (SHARED_PRIVATE, vip == "2")]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"network-interface-1-ip-address": ""}, "needs an address and exactly two system addresses"),
        ({"network-interface-1-system-ip-addresses": ""}, "needs an address and exactly two system addresses"),
        ({"network-interface-1-system-ip-addresses": "192.168.0.11"}, "must be two IPv4 addresses"),
        ({"network-interface-1-system-ip-addresses": "192.168.0.11,x"}, "must be two IPv4 addresses"),
        ({"network-interface-1-system-ip-addresses": "192.168.0.10,192.168.0.11"}, "two addresses that differ"),
        ({"network-interface-1-ip-address": "192.168.0"}, "must be one IPv4 address"),
        ({"network-interface-1-network-id": PUBLIC}, "gives the balancer its addresses: none can be named"),
        ({"network-interface-1-network-id": "lan1"}, "or the id of a private LAN"),
        ({"network-interface-2-network-id": LAN}, "another network than that of the first"),
        ({"vip-network": "2"}, "because there is no second network interface"),
        ({"vip-network": "3"}, "one of 1, 2"),
    ],
)
def test_networks_that_no_elb_can_have(changes: dict[str, str], word: str) -> None:
    assert word in refusal({"type": "elb", **LAN_ARM, **changes})


# ---- annotations without effect


def test_annotations_without_effect_are_named() -> None:
    given = service({"type": "elb", "policy-type": "ats", "colour": "red", "vip-network": "1"}).annotations
    assert unknown_annotations(given) == [f"{PREFIX}colour", f"{PREFIX}policy-type"]
    assert unknown_annotations(service({"policy-type": "ats", "vip-network": "1"}).annotations) == [f"{PREFIX}vip-network"]
    assert unknown_annotations({"example.com/other": "1"}) == []


# ---- what is wanted of a load balancer that exists


FOUND = PairBalancer("n", (), volume=300, accounting="1", policy="ats")


def wanted(annotations: dict[str, str], *, found: PairBalancer | None) -> PairBalancer:
    return wanted_balancer(order(annotations), name="n", members=["a"], zone="east-11", terms=Terms(), found=found)


def test_what_costs_money_and_is_not_named_stays_as_it_is() -> None:
    kept = wanted({}, found=FOUND)
    assert (kept.volume, kept.accounting, kept.pairs[0].members) == (300, "1", {"a"})
    changed = wanted({"network-volume": "20", "accounting-type": "2"}, found=FOUND)
    assert (changed.volume, changed.accounting) == (20, "2")
    new = wanted({}, found=None)
    assert (new.volume, new.accounting, new.policy) == (10, "2", "standard")


def test_what_no_load_balancer_can_change_is_said() -> None:
    assert lasting(order({"policy-type": "standard"}), FOUND) == ["policy type ats (asked for: standard)"]
    elb = order({"type": "elb", **LAN_ARM})
    public = PairBalancer("n", (), arms=(BalancerArm(PUBLIC, "198.51.100.8", vip=True),))
    assert lasting(elb, public) == [f"networks {PUBLIC} 198.51.100.8 (asked for: {LAN} 192.168.0.10 192.168.0.11 192.168.0.12)"]
    assert lasting(order({"type": "elb"}), public) == []
