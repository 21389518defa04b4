"""Routes beside those of BGP, on the way between the modes host-gw and bgp."""

from __future__ import annotations

from moyai.agent.pod_network.kernel import Indices, contradicts
from moyai.linux.netlink import KernelChange
from moyai.linux.netlink_messages import KernelRoute
from moyai.plan.node_network import (
    BESIDE_METRIC,
    Me,
    NetworkConf,
    NodeNetwork,
    ObservedNetwork,
    Peer,
    PodRoute,
    Remove,
    Uplink,
    desired,
    difference,
    read_net_conf,
    until_bgp,
    write_net_conf,
)

ME, UPLINK = Me("me", "10.8.0.9", "10.244.9.0/24", ""), Uplink("eth0", 2, 1500, ("10.8.0.0/24",))
ONE, TWO = (Peer(f"n{n}", f"10.8.0.1{n}", f"10.244.{n}.0/24") for n in (1, 2))
BESIDE = NetworkConf("10.244.0.0/16", "host-gw", also="bgp", beside=True)
BGP = NetworkConf("10.244.0.0/16", "bgp")


def beside(peer: Peer) -> PodRoute:
    return PodRoute(peer.pod_cidr, peer.address, "uplink", BESIDE_METRIC)


def test_a_route_beside_is_worse_than_bgps_for_the_kernel_and_for_frr() -> None:
    found = desired(ME, (ONE,), uplink=UPLINK, conf=BESIDE).network.entries
    assert beside(ONE) in found
    # FRR reads the distance from the first byte: that of its own routes is 20 or 200
    assert BESIDE_METRIC >> 24 > 200
    assert BESIDE_METRIC > 20
    assert read_net_conf(write_net_conf(BESIDE)) == BESIDE


def test_in_mode_bgp_such_a_route_goes_when_bgp_has_one_or_its_node_is_gone() -> None:
    wanted = desired(ME, (), uplink=UPLINK, conf=BGP).network
    have = NodeNetwork(None, wanted.entries | {beside(ONE), beside(TWO)})
    by_bgp = PodRoute(ONE.pod_cidr, ONE.address, "uplink", 20)
    observed = ObservedNetwork(have, foreign={by_bgp.key: by_bgp})
    both = {ONE.pod_cidr, TWO.pod_cidr}
    assert difference(until_bgp(wanted, observed, ranges=both), observed) == (Remove(beside(ONE)),)
    assert set(difference(until_bgp(wanted, observed, ranges={ONE.pod_cidr}), observed)) == {
        Remove(beside(ONE)),
        Remove(beside(TWO)),
    }


def test_a_route_of_bgp_beside_ours_is_a_reason_to_read_the_kernel_again() -> None:
    known = ObservedNetwork(NodeNetwork(None, frozenset({beside(ONE)})))

    def asked(destination: str, *, metric: int = 20) -> bool:
        report = KernelChange(KernelRoute(destination, 186, metric, "10.8.0.11", 2), gone=False)
        return contradicts(report, known, indices=Indices(2), uplink=UPLINK)

    assert asked(ONE.pod_cidr)
    assert not asked(TWO.pod_cidr)
    assert asked(ONE.pod_cidr, metric=BESIDE_METRIC)
