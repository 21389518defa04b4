"""Who has a pod, and which machine has a tunnel: answers to what a kernel misses."""

from __future__ import annotations

from moyai.plan.node_network import (
    Forwarding,
    Me,
    Neighbour,
    NetworkConf,
    Peer,
    PeerIndex,
    PodRoute,
    TunnelAddress,
    Uplink,
    desired,
    read_net_conf,
    write_net_conf,
)
from moyai.plan.pod_network import pod_network_of
from moyai.spec.load import parse

ONE = Peer("n1", "10.8.0.11", "10.244.1.0/24", "02:00:00:00:00:01")
WIDE = Peer("n2", "10.8.0.12", "10.244.2.0/23", "02:00:00:00:00:0A")
BARE = Peer("n3", "10.8.0.13", "10.244.9.0/24")


def test_a_pod_is_on_the_node_with_its_range_and_a_mac_address_on_the_node_with_that_tunnel() -> None:
    index = PeerIndex((ONE, WIDE, BARE))
    assert index.answer(address="10.244.1.7") == (Forwarding(ONE.mac, ONE.address), Neighbour("10.244.1.7", ONE.mac))
    assert index.answer(address="10.244.3.7")[0] == Forwarding(WIDE.mac, WIDE.address)
    # the kernel writes small letters
    assert index.answer(mac="02:00:00:00:00:0a") == (Forwarding(WIDE.mac, WIDE.address),)
    for unknown in ({"address": "10.244.9.7"}, {"address": "192.0.2.1"}, {"mac": "02:00:00:00:00:99"}, {"mac": ""}):
        assert index.answer(**unknown) == ()


def test_what_was_answered_and_is_not_so_any_more_is_outdated() -> None:
    moved = Peer("n1", "10.8.0.99", ONE.pod_cidr, ONE.mac)
    assert PeerIndex((ONE, WIDE)).outdated(PeerIndex((WIDE, ONE))) == frozenset()
    assert PeerIndex((ONE,)).outdated(PeerIndex((moved,))) == {(ONE.mac, ONE.address)}
    assert PeerIndex((ONE, WIDE)).outdated(PeerIndex((ONE,))) == {(WIDE.mac.lower(), WIDE.address)}


def test_on_demand_a_node_has_one_route_and_with_direct_routing_those_of_its_subnet() -> None:
    me, uplink = Me("me", "10.8.0.9", "10.244.0.0/24", "02:00:00:00:00:09"), Uplink("eth0", 2, 1500, ("10.8.0.0/24",))
    conf = NetworkConf("10.244.0.0/16", "vxlan", on_demand=True)
    whole = {PodRoute("10.244.0.0/16", metric=9999), PodRoute("10.244.0.0/16", device="tunnel"), TunnelAddress("10.244.0.0")}
    found = desired(me, (ONE, WIDE), uplink=uplink, conf=conf)
    assert (found.network.entries, found.problems) == (whole, {})
    assert found.network.tunnel is not None
    assert found.network.tunnel.misses
    straight = NetworkConf("10.244.0.0/16", "vxlan", on_demand=True, direct_routing=True)
    routes = {PodRoute(one.pod_cidr, one.address, "uplink") for one in (ONE, WIDE)}
    assert desired(me, (ONE, WIDE), uplink=uplink, conf=straight).network.entries == whole | routes


def test_the_spec_reaches_the_nodes_configuration() -> None:
    spec = parse("spec: {network: {mode: vxlan, vxlan: {resolve: onDemand}}}").spec
    conf = pod_network_of(spec).conf
    assert conf is not None
    assert conf.on_demand
    assert read_net_conf(write_net_conf(conf)) == conf
    known = pod_network_of(parse("spec: {network: {mode: vxlan}}").spec).conf
    assert known is not None
    assert "Resolve" not in write_net_conf(known)
