"""A node's part of the pod network as a plan: peers by annotations, the desired state of each backend, and the way there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.core.errors import UsageError
from moyai.kube.objects import Node, NodeAddress
from moyai.plan.node_network import (
    AdjustTunnel,
    CreateTunnel,
    DeleteLink,
    Forwarding,
    KernelStep,
    LeftOut,
    Me,
    Neighbour,
    NetworkConf,
    NodeNetwork,
    ObservedNetwork,
    Peer,
    PeerEntries,
    PeerReader,
    PodRoute,
    Put,
    Remove,
    Uplink,
    announcement,
    desired,
    difference,
    me_of,
    read_net_conf,
    relevant,
    without_obstacles,
    write_net_conf,
)

CIDR = "10.244.0.0/16"
VXLAN, HOST_GW = NetworkConf(CIDR, "vxlan"), NetworkConf(CIDR, "host-gw")
DIRECT = NetworkConf(CIDR, "vxlan", direct_routing=True)
UPLINK = Uplink("eth0", 2, 1450, ("10.8.0.0/24",))
ME = Me("n0", "10.8.0.10", "10.244.0.0/24", "02:00:00:00:00:00")
PREFIX = "flannel.alpha.coreos.com/"


def peer(number: int, *, address: str = "", mac: str = "") -> Peer:
    return Peer(
        f"n{number}", address or f"10.8.0.{10 + number}", f"10.244.{number}.0/24", mac or f"02:00:00:00:00:{number:02x}"
    )


def node(number: int, *, data: str | None = None, kind: str = "vxlan", **annotations: str) -> Node:
    mac = f"02:00:00:00:00:{number:02x}"
    given = {
        f"{PREFIX}kube-subnet-manager": "true",
        f"{PREFIX}backend-type": kind,
        f"{PREFIX}backend-data": json.dumps({"VNI": 1, "VtepMAC": mac}) if data is None else data,
        f"{PREFIX}public-ip": f"10.8.0.{10 + number}",
        **{PREFIX + key.replace("_", "-"): value for key, value in annotations.items()},
    }
    addresses = (NodeAddress("InternalIP", f"10.8.0.{10 + number}"),)
    return Node(f"n{number}", f"u{number}", annotations=given, addresses=addresses, pod_cidrs=(f"10.244.{number}.0/24",))


def test_the_configuration_is_flannels_and_reads_back_as_written() -> None:
    text = '{"Network": "10.244.0.0/16", "EnableIPv4": true, "Backend": {"Type": "vxlan", "Port": 0, "VNI": 7}}'
    conf = read_net_conf(text)
    assert conf == NetworkConf(CIDR, "vxlan", vni=7, port=8472)
    for one in (conf, HOST_GW, DIRECT, replace(VXLAN, mtu=9000, port=4789)):
        assert read_net_conf(write_net_conf(one)) == one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "net-conf.json is no JSON"),
        ("[]", "should be an object"),
        ('{"Network": "10.244.0.1/16", "Backend": {"Type": "vxlan"}}', "Network: '10.244.0.1/16', should be a range"),
        ('{"Network": "10.244.0.0/16"}', "Backend.Type: 'udp', should be one of vxlan, host-gw"),
        ('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": true}}', "Backend.VNI: True, should be a number"),
        ('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "GBP": true}}', "Backend.GBP: True, should be left out"),
        ('{"Network": "10.244.0.0/16", "EnableIPv6": true, "Backend": {"Type": "vxlan"}}', "EnableIPv6, should be left out"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_with_the_key(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        read_net_conf(text)


def test_nodes_that_announced_themselves_are_peers() -> None:
    silent = replace(node(3), annotations={})
    assert PeerReader(VXLAN).peers([node(1), node(2), silent], ME).peers == (peer(1), peer(2))
    # no tunnel, no announcement needed: the Node's own address
    assert [one.name for one in PeerReader(HOST_GW).peers([silent], ME).peers] == ["n3"]
    moved = node(1, public_ip_overwrite="192.0.2.1")
    assert PeerReader(VXLAN).peers([moved], ME).peers == (peer(1, address="192.0.2.1"),)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (node(1, data=""), "should be JSON with VNI and VtepMAC"),
        (node(1, data="null"), "should be JSON with VNI and VtepMAC"),
        (node(1, data='{"VNI": 1, "VtepMAC": "02:00"}'), "VtepMAC '02:00', should be a MAC address"),
        (node(1, data='{"VNI": 9, "VtepMAC": "02:00:00:00:00:01"}'), "its VNI is 9, this network's is 1"),
        (node(1, kind="host-gw"), "backend-type is 'host-gw', this network's is 'vxlan'"),
        (node(1, public_ip="x"), "its address 'x' is none of IPv4"),
        (replace(node(1), pod_cidrs=("10.9.0.0/24",)), "outside of the pod network"),
        (replace(node(1), pod_cidrs=("fd00::/64",)), "is no range of IPv4"),
        (replace(node(1), pod_cidrs=(ME.pod_cidr,)), "10.244.0.0/24 is node n0's already"),
        (node(1, public_ip=ME.address), "10.8.0.10 is node n0's already"),
    ],
)
def test_a_node_with_a_half_written_or_contradictory_announcement_is_left_out_with_the_reason(bad: Node, why: str) -> None:
    found = PeerReader(VXLAN).peers([bad, node(2)], ME)
    assert [one.name for one in found.peers] == ["n2"]
    assert why in found.problems["n1"]


def test_a_node_announces_what_others_read_and_keeps_its_mac_address() -> None:
    fresh = Node("n5", "u5", addresses=(NodeAddress("InternalIP", "10.8.0.15"),), pod_cidrs=("10.244.5.0/24",))
    me = me_of(fresh, VXLAN)
    assert isinstance(me, Me)
    first = int(me.mac[:2], 16)
    assert not first & 1, "of a group"
    assert first & 2, "of a manufacturer"
    assert me_of(fresh, VXLAN) == me
    told = announcement(me, VXLAN)
    assert told.missing(fresh)
    announced = replace(fresh, annotations=told.annotations)
    assert not told.missing(announced)
    (seen,) = PeerReader(VXLAN).peers([announced], ME).peers
    assert (seen.mac, seen.address, seen.pod_cidr) == (me.mac, me.address, me.pod_cidr)
    # flannel was here before: its tunnel's address stays
    kept = me_of(node(5), VXLAN)
    assert isinstance(kept, Me)
    assert kept.mac == "02:00:00:00:00:05"
    assert announcement(me, HOST_GW).annotations[f"{PREFIX}backend-data"] == "null"


def test_what_a_node_lacks_is_named() -> None:
    assert me_of(Node("n", "u"), VXLAN) == LeftOut("the Node has no pod range (spec.podCIDR) yet")
    assert me_of(Node("n", "u", pod_cidrs=("10.244.1.0/24",)), VXLAN) == LeftOut("the Node has no InternalIP yet")


def test_only_what_matters_here_is_a_reason_to_look() -> None:
    one = node(1)
    assert relevant(one) == relevant(replace(one, ready=False, labels={"a": "b"}, version="7"))
    assert relevant(one) != relevant(replace(one, pod_cidrs=()))
    assert relevant(one) != relevant(None)


def test_vxlan_has_a_neighbour_a_forwarding_entry_and_a_route_for_each_peer() -> None:
    found = desired(ME, [peer(1)], uplink=UPLINK, conf=VXLAN)
    tunnel = found.network.tunnel
    assert tunnel is not None
    assert (tunnel.name, tunnel.vni, tunnel.port, tunnel.local, tunnel.parent, tunnel.mtu) == (
        "flannel.1", 1, 8472, "10.8.0.10", 2, 1400,
    )  # fmt: skip
    assert {
        Neighbour("10.244.1.0", peer(1).mac),
        Forwarding(peer(1).mac, "10.8.0.11"),
        PodRoute("10.244.1.0/24", "10.244.1.0", "tunnel"),
        PodRoute(CIDR, metric=9999),
    } < found.network.entries
    assert not found.problems


def test_direct_routing_differs_by_a_route_for_machines_of_the_same_subnet_alone() -> None:
    near, far = peer(1), peer(2, address="192.0.2.2")
    plain = desired(ME, [near, far], uplink=UPLINK, conf=VXLAN).network.entries
    direct = desired(ME, [near, far], uplink=UPLINK, conf=DIRECT).network.entries
    assert direct - plain == {PodRoute("10.244.1.0/24", "10.8.0.11", "uplink")}
    assert plain - direct == {PodRoute("10.244.1.0/24", "10.244.1.0", "tunnel")}


def test_host_gw_reaches_machines_of_the_same_subnet_and_names_the_others() -> None:
    found = desired(ME, [peer(1), peer(2, address="192.0.2.2")], uplink=UPLINK, conf=HOST_GW)
    assert found.network == NodeNetwork(
        None, frozenset({PodRoute(CIDR, metric=9999), PodRoute("10.244.1.0/24", "10.8.0.11", "uplink")})
    )
    assert "192.0.2.2 is on none of this node's subnets (10.8.0.0/24)" in found.problems["n2"]


def test_a_network_that_carries_too_little_is_a_failure_with_its_number() -> None:
    found = desired(ME, [], uplink=replace(UPLINK, mtu=1300), conf=VXLAN)
    assert "1300 bytes (eth0), which leaves 1250 to pods in VXLAN: it should carry 1330 at least" in found.failure
    assert not desired(ME, [], uplink=replace(UPLINK, mtu=1300), conf=HOST_GW).failure


def test_a_route_of_somebody_elses_stays_unless_it_leads_to_the_same_place() -> None:
    wanted = desired(ME, [peer(1), peer(2)], uplink=UPLINK, conf=HOST_GW).network
    elsewhere = PodRoute("10.244.1.0/24", "10.8.0.99", "uplink")
    same = PodRoute("10.244.2.0/24", "10.8.0.12", "uplink")
    observed = ObservedNetwork(foreign={one.key: one for one in (elsewhere, same)})
    found, obstacles = without_obstacles(wanted, observed)
    assert obstacles == (elsewhere,)
    assert wanted.entries - found.entries == {PodRoute("10.244.1.0/24", "10.8.0.11", "uplink")}


def after(state: ObservedNetwork, step: KernelStep) -> ObservedNetwork:
    """What a kernel has after the step."""
    network = state.network
    match step:
        case DeleteLink(name):
            if network.tunnel and network.tunnel.name == name:
                left = frozenset(one for one in network.entries if isinstance(one, PodRoute) and one.device != "tunnel")
                return replace(state, network=NodeNetwork(None, left))
            return replace(state, strays=state.strays - {name})
        case CreateTunnel(tunnel):
            assert network.tunnel is None
            return replace(state, network=replace(network, tunnel=replace(tunnel, up=False, marked=False)))
        case AdjustTunnel(tunnel):
            assert network.tunnel is not None
            return replace(state, network=replace(network, tunnel=tunnel))
        case Put(entry):
            assert (isinstance(entry, PodRoute) and entry.device != "tunnel") or (network.tunnel and network.tunnel.up)
            others = frozenset(one for one in network.entries if one.key != entry.key)
            return replace(state, network=replace(network, entries=others | {entry}))
        case Remove(entry):
            assert entry in network.entries
            return replace(state, network=replace(network, entries=network.entries - {entry}))


peers = st.lists(
    st.builds(
        peer, st.integers(1, 6), address=st.sampled_from(["", "192.0.2.2"]), mac=st.sampled_from(["", "02:00:00:00:00:77"])
    ),
    max_size=5,
    unique_by=(lambda one: one.name, lambda one: one.mac),
)
confs = st.sampled_from([VXLAN, DIRECT, HOST_GW, replace(VXLAN, port=4789), replace(VXLAN, mtu=9000)])


@pytest.mark.exhaustive
@given(before=peers, now=peers, old=confs, new=confs, most=st.integers(0, 40))
def test_from_any_state_of_an_earlier_agent_cut_anywhere_the_next_pass_reaches_the_desired_state(
    before: list[Peer], now: list[Peer], old: NetworkConf, new: NetworkConf, most: int
) -> None:
    state = ObservedNetwork()
    for step in difference(desired(ME, before, uplink=UPLINK, conf=old).network, state):
        state = after(state, step)
    if new.backend == "host-gw" and state.network.tunnel:
        # as the kernel is read where no tunnel is wanted
        entries = frozenset(one for one in state.network.entries if isinstance(one, PodRoute))
        state = ObservedNetwork(NodeNetwork(None, entries), strays=frozenset({state.network.tunnel.name}))
    wanted = desired(ME, now, uplink=UPLINK, conf=new).network
    for step in difference(wanted, state)[:most]:
        state = after(state, step)
    for step in difference(wanted, state):
        state = after(state, step)
    assert difference(wanted, state) == ()
    assert state.network == wanted
    assert state.strays == frozenset()


def test_what_is_remembered_of_peers_is_never_another_answer() -> None:
    entries = PeerEntries()
    far = peer(2, address="192.0.2.2")
    for conf in (VXLAN, DIRECT, HOST_GW, VXLAN):
        for uplink in (UPLINK, replace(UPLINK, subnets=("192.0.2.0/24",))):
            for peers in ([peer(1), far], [peer(1)], [peer(1, mac="02:00:00:00:00:99"), far]):
                kept = desired(ME, peers, uplink=uplink, conf=conf, entries=entries)
                assert kept == desired(ME, peers, uplink=uplink, conf=conf)
