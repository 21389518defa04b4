"""Which address a Service gets, by MetalLB's pools and annotations."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.core.errors import UsageError
from moyai.kube.objects import AddressPool, Ingress, Service, ServicePort, parse_address_pool, parse_range
from moyai.plan.announce.allocation import AllocatedAddress, AllocationRequest, allocate_address, validated
from moyai.plan.announce.metallb_words import FROM_POOL, requested_address, unknown_annotations

EVERYTHING = [parse_range("0.0.0.0/0")]


def pool(
    name: str = "main", *addresses: str, created: str = "", labels: Mapping[str, str] | None = None, **spec: Any
) -> AddressPool:
    meta = {"name": name, "uid": name, "namespace": "metallb-system", "creationTimestamp": created, "labels": labels or {}}
    return parse_address_pool({"metadata": meta, "spec": {"addresses": list(addresses or ("192.0.2.0/30",)), **spec}})


def service(name: str = "web", address: str = "", *, port: int = 80, **fields: Any) -> Service:
    ports = (ServicePort("", "TCP", port, 0),)
    ingress = (Ingress(address),) if address else ()
    return Service("default", name, name, ports=ports, ingress=ingress, type="LoadBalancer", **fields)


def asked(
    one: Service, *pools: AddressPool, others: tuple[Service, ...] = (), namespace: Mapping[str, str] | None = None
) -> AllocatedAddress:
    held: dict[IPv4Address, list[Service]] = {}
    for other in others:
        held.setdefault(IPv4Address(other.ingress[0].ip), []).append(other)
    return allocate_address(AllocationRequest(one, held, namespace or {}), validated(pools, EVERYTHING))


def address(one: Service, *pools: AddressPool, others: tuple[Service, ...] = ()) -> str:
    return str(asked(one, *pools, others=others).address)


def wants(**annotations: str) -> dict[str, str]:
    return {f"metallb.io/{key.replace('_', '-')}": value for key, value in annotations.items()}


def test_addresses_are_given_one_after_the_other_until_none_is_left() -> None:
    others: list[Service] = []
    for number in range(4):
        others.append(service(f"s{number}", address(service(f"s{number}"), pool(), others=tuple(others))))
    assert [one.ingress[0].ip for one in others] == ["192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
    with pytest.raises(UsageError, match="no address is left in main"):
        asked(service(), pool(), others=tuple(others))


def test_a_service_keeps_its_address_while_it_is_right() -> None:
    assert asked(service(address="192.0.2.2"), pool()) == AllocatedAddress(IPv4Address("192.0.2.2"), "main")
    moved = asked(service(address="198.51.100.1"), pool())
    assert (str(moved.address), moved.moved) == ("192.0.2.0", "198.51.100.1 is in no pool")
    # whatever the cloud's load balancer answered at before
    assert address(replace(service(), ingress=(Ingress(hostname="lb.example.org"),)), pool()) == "192.0.2.0"


def test_addresses_that_end_in_0_and_255_are_avoided_where_the_pool_says_so() -> None:
    buggy = pool("main", "192.0.2.254-192.0.3.1", avoidBuggyIPs=True)
    assert [str(one) for one in buggy.addresses()] == ["192.0.2.254", "192.0.3.1"]
    assert (buggy.size, pool("main", "192.0.2.254-192.0.3.1").size) == (2, 4)
    with pytest.raises(UsageError, match=r"192\.0\.3\.0 is in no pool"):
        asked(service(annotations=wants(loadBalancerIPs="192.0.3.0")), buggy)


@given(first=st.integers(0, 2**12), length=st.integers(0, 2**11))
def test_the_size_of_a_pool_is_the_number_of_its_addresses(first: int, length: int) -> None:
    found = pool("main", f"{IPv4Address(first)}-{IPv4Address(first + length)}", avoidBuggyIPs=True)
    assert found.size == len(list(found.addresses()))


def test_pools_that_give_only_on_request_are_asked_by_name_or_address() -> None:
    reserved = pool("reserved", "198.51.100.0/30", autoAssign=False)
    with pytest.raises(UsageError, match=r"no pool gives addresses to this Service: pools: reserved \(198"):
        asked(service(), reserved)
    assert address(service(annotations=wants(address_pool="reserved")), pool(), reserved) == "198.51.100.0"
    assert address(service(annotations=wants(loadBalancerIPs="198.51.100.2")), pool(), reserved) == "198.51.100.2"
    # what was given on request stays when the request goes
    assert address(service(address="198.51.100.2"), pool(), reserved) == "198.51.100.2"


@pytest.mark.parametrize("prefix", ["metallb.io/", "metallb.universe.tf/"])
def test_both_spellings_of_the_annotations_count_and_so_does_the_field(prefix: str) -> None:
    assert address(service(annotations={f"{prefix}loadBalancerIPs": "192.0.2.3"}), pool()) == "192.0.2.3"
    assert address(service(annotations={f"{prefix}address-pool": "main"}), pool("a", "198.51.100.0/30"), pool()) == "192.0.2.0"
    assert address(service(load_balancer_ip="192.0.2.1"), pool()) == "192.0.2.1"
    said = {f"{prefix}odd": "x", f"{prefix}address-pool": "y", FROM_POOL: "z", "example.org/odd": "x"}
    assert unknown_annotations(said) == [f"{prefix}odd"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"annotations": wants(loadBalancerIPs="203.0.113.9")}, r"203\.0\.113\.9 is in no pool: pools: main \(192"),
        ({"annotations": wants(loadBalancerIPs="nonsense")}, "'nonsense' is not one IP address"),
        ({"annotations": wants(loadBalancerIPs="192.0.2.1,2001:db8::1")}, "is not one IP address"),
        ({"annotations": wants(loadBalancerIPs="2001:db8::1")}, "IPv6 addresses are not supported"),
        ({"annotations": wants(loadBalancerIPs="192.0.2.1"), "load_balancer_ip": "192.0.2.2"}, "and spec.loadBalancerIP is"),
        ({"annotations": wants(address_pool="other")}, "pool other cannot be used: it does not exist"),
        (
            {"annotations": wants(loadBalancerIPs="192.0.2.1", address_pool="other")},
            "is of pool main, and the Service asks for pool other",
        ),
    ],
)
def test_wishes_that_cannot_be_fulfilled_are_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        asked(service(**fields), pool())


def test_pools_for_certain_services_go_by_their_priority() -> None:
    late = pool("b", "198.51.100.0/30", serviceAllocation={"priority": 50, "namespaces": ["default"]})
    early = pool("c", "203.0.113.0/30", serviceAllocation={"priority": 20, "serviceSelectors": [{"matchLabels": {"a": "1"}}]})
    unranked = pool("d", "203.0.113.16/30", serviceAllocation={"namespaces": ["default"]})
    everybodys = pool("a")
    pools = (everybodys, unranked, late, early)
    assert asked(service(labels={"a": "1"}), *pools).pool == "c"
    assert asked(service(), *pools).pool == "b"
    assert asked(service(), everybodys, unranked).pool == "d"
    assert asked(replace(service(), namespace="other"), *pools).pool == "a"
    with pytest.raises(UsageError, match=r"pool b is not for this Service \(spec\.serviceAllocation of the pool\)"):
        asked(replace(service(annotations=wants(address_pool="b")), namespace="other"), *pools)


def test_a_pool_may_be_for_namespaces_by_their_labels() -> None:
    chosen = pool("b", "198.51.100.0/30", serviceAllocation={"namespaceSelectors": [{"matchLabels": {"team": "a"}}]})
    assert asked(service(), pool(), chosen, namespace={"team": "a"}).pool == "b"
    assert asked(service(), pool(), chosen, namespace={"team": "b"}).pool == "main"
    # the list and the selectors are two ways to be meant
    both = pool(
        "c",
        "203.0.113.0/30",
        serviceAllocation={"namespaces": ["default"], "namespaceSelectors": [{"matchLabels": {"x": "y"}}]},
    )
    assert asked(service(), pool(), both).pool == "c"


def test_services_share_an_address_with_one_key_on_different_ports() -> None:
    keyed = wants(allow_shared_ip="k")
    first = service("first", "192.0.2.2", annotations=keyed)
    assert address(service(port=81, annotations=keyed), pool(), others=(first,)) == "192.0.2.2"
    # the other spelling, and the same port over another protocol
    udp = replace(service(annotations={"metallb.universe.tf/allow-shared-ip": "k"}), ports=(ServicePort("", "UDP", 80, 0),))
    assert address(udp, pool(), others=(first,)) == "192.0.2.2"
    # otherwise the first free one
    for other in (
        service(port=80, annotations=keyed),
        service(port=81, annotations=wants(allow_shared_ip="x")),
        service(port=81),
    ):
        assert address(other, pool(), others=(first,)) == "192.0.2.0"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"port": 81}, "cannot be shared: Service default/first has it, and the two have no sharing key in common"),
        ({"port": 80, "annotations": wants(allow_shared_ip="k")}, "Service default/first has port 80/TCP of it"),
        ({"port": 81, "annotations": wants(allow_shared_ip="k"), "local_traffic": True}, "routes in another way"),
    ],
)
def test_an_address_that_is_asked_for_and_cannot_be_shared_says_why(fields: dict[str, Any], message: str) -> None:
    first = service("first", "192.0.2.2", annotations=wants(allow_shared_ip="k"))
    with pytest.raises(UsageError, match=message):
        asked(service(load_balancer_ip="192.0.2.2", **fields), pool(), others=(first,))


def test_with_local_traffic_the_same_pods_are_behind_a_shared_address() -> None:
    keyed: dict[str, Any] = {"annotations": wants(allow_shared_ip="k"), "local_traffic": True, "selector": {"app": "a"}}
    first, second = service("first", "192.0.2.2", **keyed), service(port=81, **keyed)
    assert address(second, pool(), others=(first,)) == "192.0.2.2"
    assert address(replace(second, selector={"app": "b"}), pool(), others=(first,)) == "192.0.2.0"


def test_of_pools_that_overlap_the_older_one_counts() -> None:
    older, newer = (
        pool("z", "192.0.2.0/30", created="2026-01-01T00:00:00Z"),
        pool("a", "192.0.2.3-192.0.2.9", created="2026-01-02T00:00:00Z"),
    )
    found = validated([newer, older], EVERYTHING)
    assert [one.name for one in found.usable] == ["z"]
    assert found.refused == {"a": "spec.addresses: 192.0.2.3-192.0.2.9 overlaps 192.0.2.0-192.0.2.3 of pool z, which is older"}
    # one that goes leaves its addresses to the other
    assert [one.name for one in validated([newer, replace(older, deleting=True)], EVERYTHING).usable] == ["a"]


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        (["192.0.2.0/24"], r"192\.0\.2\.0-192\.0\.2\.255 is not within 192\.0\.2\.0-192\.0\.2\.15"),
        (["nonsense"], "'nonsense' is neither a CIDR nor a range"),
        (["192.0.2.9-192.0.2.1"], "ends before it begins"),
        (["192.0.2.0/30", "192.0.2.3/32"], r"192\.0\.2\.3-192\.0\.2\.3 overlaps 192\.0\.2\.0"),
        (["2001:db8::/120"], "has no IPv4 address"),
    ],
)
def test_a_pool_that_cannot_be_used_says_why(addresses: list[str], why: str) -> None:
    found = validated([pool("main", *addresses)], [parse_range("192.0.2.0/28")])
    assert not found.usable
    assert re.search(why, found.refused["main"])


@pytest.mark.parametrize(
    "addresses",
    [
        ["192.0.2.1/32"] * 100_000,
        [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32" for n in range(100_000)],
        ["x" * 1000] * 1000,
        ["fd00::/64"] * 1000,
    ],
    ids=["the same", "all of them", "no address", "IPv6"],
)
def test_a_pool_of_very_many_ranges_is_refused_soon_and_in_few_words(addresses: list[str]) -> None:
    start = time.process_time()
    found = pool("a", *addresses)
    assert found.name in validated([found], []).refused
    assert len("; ".join((*found.problems, *found.remarks))) < 2000
    assert time.process_time() - start < 3


def test_many_pools_of_many_ranges_are_compared_soon() -> None:
    pools = [pool(f"p{n}", *(f"10.{n}.{m >> 6}.{m % 64 * 4}/31" for m in range(1000))) for n in range(20)]
    start = time.process_time()
    assert validated([*pools, pool("z", "10.19.15.156/30", created="9")], [parse_range("10.0.0.0/8")]).refused.keys() == {"z"}
    assert time.process_time() - start < 3


def test_the_part_of_a_pool_that_is_of_ipv6_has_no_effect() -> None:
    mixed = pool("main", "192.0.2.0/30", "2001:db8::1-2001:db8::9")
    assert mixed.remarks == ("spec.addresses: 2001:db8::1-2001:db8::9 has no effect: IPv6 addresses are not supported",)
    assert address(service(), mixed) == "192.0.2.0"


def test_bits_behind_the_length_are_cleared_as_metallb_does() -> None:
    assert str(parse_range("192.0.2.5/30")) == "192.0.2.4-192.0.2.7"


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b"]), st.integers(80, 82), st.sampled_from(["", "192.0.2.1", "192.0.2.9"])),
        max_size=12,
    )
)
def test_no_two_services_have_one_address_unless_they_may_share_it(asking: list[tuple[str, int, str]]) -> None:
    pools = validated([pool("p", "192.0.2.0/29")], EVERYTHING)
    served: list[Service] = []
    for number, (key, port, wanted) in enumerate(asking):
        one = service(f"s{number}", port=port, annotations=wants(allow_shared_ip=key) if key else {}, load_balancer_ip=wanted)
        held: dict[IPv4Address, list[Service]] = {}
        for other in served:
            held.setdefault(IPv4Address(other.ingress[0].ip), []).append(other)
        try:
            found = allocate_address(AllocationRequest(one, held), pools)
        except UsageError:
            continue
        served.append(replace(one, ingress=(Ingress(str(found.address)),)))
        assert pools.of(found.address) is not None
        assert allocate_address(AllocationRequest(served[-1], held), pools).address == found.address, "what is given is kept"
    for number, one in enumerate(served):
        for other in served[:number]:
            if one.ingress == other.ingress:
                assert requested_address(one).sharing == requested_address(other).sharing != ""
                assert one.ports != other.ports
