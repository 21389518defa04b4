"""Sessions, prefixes with their classes, and FRR's configuration out of nodes, Services and MetalLB's resources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from moyai.core.errors import UsageError
from moyai.kube.objects import Ingress, NamespacedName, Node, NodeAddress, Service, parse_address_pool
from moyai.kube.objects.bgp import (
    BfdProfile,
    BgpPeer,
    parse_bfd_profile,
    parse_bgp_advertisement,
    parse_bgp_peer,
    parse_community,
    parse_password,
)
from moyai.kube.objects.meta import Reference
from moyai.plan.bgp.announced_prefixes import Announcing, announced
from moyai.plan.bgp.bgp_conf import BgpConf, PeerConf, read_bgp_conf, write_bgp_conf
from moyai.plan.bgp.frr_config import FrrConfig, frr_commands
from moyai.plan.bgp.router import frr_config
from moyai.plan.bgp.sessions import Sessions, Speakers, sessions

CONF = BgpConf(64522, "10.244.0.0/16", ("10.8.0.200/29",))
ROUTER = PeerConf("rt-01", "172.17.0.1", 64512, accept=("10.9.0.0/24",))


def node(number: int, **more: Any) -> Node:
    addresses = (NodeAddress("InternalIP", f"172.17.0.{20 + number}"),)
    return Node(f"n{number}", f"u{number}", addresses=addresses, pod_cidrs=(f"10.244.{number}.0/24",), ready=True, **more)


def peer(name: str = "rt", **spec: Any) -> BgpPeer:
    whole = {"myASN": 64522, "peerASN": 64512, "peerAddress": "172.17.0.1", **spec}
    return parse_bgp_peer({"metadata": {"name": name, "namespace": "metallb-system"}, "spec": whole})


def advert(name: str = "all", **spec: Any) -> Any:
    return parse_bgp_advertisement({"metadata": {"name": name, "uid": name}, "spec": spec})


def service(name: str, address: str, **more: Any) -> Service:
    return Service("default", name, name, type="LoadBalancer", ingress=(Ingress(ip=address),), **more)


POOL = parse_address_pool({"metadata": {"name": "main"}, "spec": {"addresses": ["10.8.0.200/29"]}})


def announcing(*services: Service, **more: Any) -> Announcing:
    ready = {one.key: frozenset({"n1", "n2"}) for one in services}
    given: dict[str, Any] = {"advertisements": [advert()], "endpoints": ready, "peers": ["rt"], "ranges": CONF.ranges, **more}
    return Announcing(services, given.pop("nodes", [node(1), node(2), node(3)]), [POOL], **given)


def config(now: Sessions, conf: BgpConf = CONF, **more: Any) -> FrrConfig:
    return frr_config(now, more.pop("classes", ()), address="172.17.0.21", pods="10.244.1.0/24", conf=conf, profiles=more)


# --- the spec's configuration ---------------------------------------------------------------------------------------------


def test_the_configuration_is_read_as_it_was_written() -> None:
    conf = replace(CONF, peers=(ROUTER,))
    assert read_bgp_conf(write_bgp_conf(conf)) == conf
    for wrong in ("", "[]", "{}", '{"peers": [], "ranges": [], "what": 1}'):
        with pytest.raises(UsageError):
            read_bgp_conf(wrong)


# --- sessions -------------------------------------------------------------------------------------------------------------


def test_a_small_cluster_is_a_full_mesh() -> None:
    nodes = [node(1), node(2), node(3), Node("n4", "u4")]
    found = sessions(nodes[0], Speakers(nodes), conf=CONF)
    assert (found.asn, found.router_id) == (64522, "172.17.0.21")
    assert [one.address for one in found.mesh] == ["172.17.0.22", "172.17.0.23"]
    assert sessions(nodes[0], Speakers(nodes), conf=replace(CONF, pods="")).mesh == ()


def test_a_large_cluster_has_reflectors_and_each_session_has_two_ends() -> None:
    label = {CONF.reflector: ""}
    nodes = [node(number, labels=label if number < 3 else {}) for number in range(1, 13)]
    ends = {one.name: {(two.node, two.client) for two in sessions(one, Speakers(nodes), conf=CONF).mesh} for one in nodes}
    assert ends["n5"] == {("n1", False), ("n2", False)}
    assert ends["n1"] == {("n2", False), *((f"n{number}", True) for number in range(3, 13))}
    for one, others in ends.items():
        for other, _ in others:
            assert one in {name for name, _ in ends[other]}


def test_a_large_cluster_without_reflectors_stays_a_mesh_and_says_so() -> None:
    nodes = [node(number) for number in range(1, 13)]
    found = sessions(nodes[0], Speakers(nodes), conf=CONF)
    assert len(found.mesh) == 11
    assert found.too_many


def test_routers_of_the_spec_and_of_metallb_are_peers() -> None:
    chosen = peer("b", peerAddress="172.17.0.2", nodeSelectors=[{"matchLabels": {"rack": "1"}}], routerID="1.1.1.1")
    now = Speakers([node(1)], [chosen, peer("a", peerAddress="172.17.0.3", password="x")])
    found = sessions(node(1, labels={"rack": "1"}), now, conf=replace(CONF, peers=(ROUTER,)))
    assert [one.peer.name for one in found.peers] == ["rt-01", "a", "b"]
    assert [one.password for one in found.peers] == ["", "x", ""]
    assert found.router_id == "1.1.1.1"
    assert "x" not in repr(found.peers[1]).replace("external", "")
    assert [one.peer.name for one in sessions(node(1), now, conf=CONF).peers] == ["a"]


def test_a_node_that_says_to_be_the_specs_router_does_not_end_its_session() -> None:
    liar = Node("n9", "u9", addresses=(NodeAddress("InternalIP", ROUTER.address),), ready=True)
    found = sessions(node(1), Speakers([node(1), liar]), conf=replace(CONF, peers=(ROUTER,)))
    assert [one.peer.name for one in found.peers] == ["rt-01"]


def test_without_the_mode_the_first_peer_says_the_as() -> None:
    first = replace(peer("z", myASN=65001), created="2026-01-01T00:00:00Z")
    second = replace(peer("a", myASN=65002, peerAddress="172.17.0.2"), created="2026-01-02T00:00:00Z")
    found = sessions(node(1), Speakers([node(1)], [second, first]), conf=BgpConf())
    assert (found.asn, [one.local_asn for one in found.peers]) == (65001, [0, 65002])
    assert sessions(node(1), Speakers([node(1)]), conf=BgpConf()).asn == 0


def remarks_of(*peers: BgpPeer, **more: Any) -> str:
    now = Speakers([node(1), node(2)], peers, **more)
    return "|".join(one.message for one in sessions(node(1), now, conf=CONF).remarks)


def test_what_of_a_peer_is_not_done_is_said() -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"vrf": "red"}, "spec.vrf is not supported"),
        ({"interface": "eth0", "peerAddress": ""}, "spec.interface is not supported"),
        ({"peerAddress": "2001:db8::1"}, "IPv6"),
        ({"peerAddress": ""}, "spec.peerAddress is missing"),
        ({"peerAddress": "router"}, "no IP address"),
        ({"peerAddress": "224.0.0.5"}, "spec.peerAddress: 224.0.0.5 is no router's address"),
        # the session with that node would be made another one, and its pods were out of reach
        ({"peerAddress": "172.17.0.22"}, "spec.peerAddress: 172.17.0.22 is node n2's address"),
        ({"holdTime": "9" * 5000 + "s"}, "spec.holdTime"),
        ({"dynamicASN": "external"}, "either spec.peerASN or spec.dynamicASN"),
        ({"holdTime": "soon"}, "spec.holdTime: 'soon'"),
        ({"password": "two words"}, "spec.password"),
        ({"password": "a", "passwordSecret": {"name": "b"}}, "either spec.password"),
        ({"passwordSecret": {"name": "b"}}, "Secret b is missing"),
        ({"passwordSecret": {"name": "b", "namespace": "other"}}, "should be metallb-system"),
        ({"bfdProfile": "fast"}, "there is no BFDProfile fast"),
        ({"myASN": 64512}, "spec.myASN: 64512, should be 64522"),
        ({"enableGracefulRestart": True}, "no effect without spec.bfdProfile"),
        ({"dualStackAddressFamily": True}, "spec.dualStackAddressFamily has no effect"),
    )
    for spec, why in cases:
        assert why in remarks_of(peer(**spec)), spec
    assert remarks_of(peer()) == ""
    assert "172.17.0.1 is a's already" in remarks_of(peer("a"), peer("b"))
    assert remarks_of(peer(passwordSecret={"name": "b"}), secrets={"b": "x"}) == ""


def test_a_password_is_one_word() -> None:
    assert parse_password({"data": {"password": "czNjcmV0"}}) == "s3cret"
    for wrong in ("", "%", "YSBi", "YQph"):
        assert parse_password({"data": {"password": wrong}}) == ""


# --- prefixes -------------------------------------------------------------------------------------------------------------


def test_every_node_announces_an_address_and_all_alike_are_one_class() -> None:
    now = announcing(service("a", "10.8.0.200"), service("b", "10.8.0.201"))
    found = announced("n3", now)
    assert set(found.prefixes) == {"10.8.0.200/32", "10.8.0.201/32"}
    assert len({one.number for one in found.prefixes.values()}) == 1
    assert found.told == {NamespacedName("default", name): ("rt",) for name in "ab"}
    # the number does not depend on which Services there are
    assert announced("n1", announcing(service("b", "10.8.0.201"))).prefixes["10.8.0.201/32"] in found.prefixes.values()


def test_with_the_local_policy_nodes_with_an_endpoint_announce() -> None:
    now = announcing(service("a", "10.8.0.200", local_traffic=True))
    assert [bool(announced(name, now).prefixes) for name in ("n1", "n2", "n3")] == [True, True, False]


def test_a_service_without_endpoints_is_announced_by_nobody() -> None:
    assert announced("n1", announcing(service("a", "10.8.0.200"), endpoints={})).prefixes == {}


def test_a_node_that_cannot_serve_does_not_announce() -> None:
    excluded = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
    changes: tuple[dict[str, Any], ...] = (
        {"ready": False},
        {"deleting": True},
        {"labels": excluded},
        {"network_unavailable": True},
    )
    for change in changes:
        nodes = [replace(node(1), **change), node(2)]
        assert announced("n1", announcing(service("a", "10.8.0.200"), nodes=nodes)).prefixes == {}, change


def test_a_cordoned_node_withdraws_while_another_can_announce() -> None:
    one = service("a", "10.8.0.200", local_traffic=True)
    nodes = [node(1, cordoned=True), node(2)]
    assert announced("n1", announcing(one, nodes=nodes)).prefixes == {}
    assert announced("n2", announcing(one, nodes=nodes)).prefixes != {}
    alone = {one.key: frozenset({"n1"})}
    assert announced("n1", announcing(one, nodes=nodes, endpoints=alone)).prefixes != {}


class CountedNodes(list[Node]):
    """Counts how often all of them are gone through."""

    walks = 0

    def __iter__(self) -> Iterator[Node]:
        self.walks += 1
        return super().__iter__()


def test_a_service_more_goes_through_no_nodes_again() -> None:
    def walks(count: int) -> int:
        nodes = CountedNodes(node(number) for number in range(1, 4))
        services = [service(f"s{number}", f"10.8.0.{200 + number}") for number in range(count)]
        assert len(announced("n1", announcing(*services, nodes=nodes)).prefixes) == count
        return nodes.walks

    assert walks(1) == walks(8)


def test_advertisements_choose_and_are_united() -> None:
    adverts = [
        advert("a", peers=["rt"], communities=["vpn", "65535:65282"], localPref=50),
        advert("b", communities=["large:1:2:3"], localPref=50, nodeSelectors=[{"matchLabels": {"x": "1"}}]),
        advert("c", ipAddressPools=["other"], communities=["1:1"]),
        advert("d", aggregationLength=29, localPref=7),
    ]
    nodes = [node(1), node(2, labels={"x": "1"})]
    more: dict[str, Any] = {"advertisements": adverts, "names": {"vpn": "64512:9"}, "peers": ["rt", "xx"], "nodes": nodes}
    first, second = (announced(name, announcing(service("a", "10.8.0.201"), **more)) for name in ("n1", "n2"))
    assert set(first.prefixes) == {"10.8.0.201/32", "10.8.0.200/29"}
    only = first.prefixes["10.8.0.201/32"].peers
    assert (set(only), only["rt"].communities, only["rt"].large) == ({"rt"}, ("64512:9", "65535:65282"), ())
    both = second.prefixes["10.8.0.201/32"].peers
    assert (both["rt"].large, both["rt"].local_pref) == (("1:2:3",), 50)
    assert both["xx"].communities == ()
    assert first.remarks == second.remarks == ()


def test_what_of_an_advertisement_is_not_done_is_said() -> None:
    def said(*adverts: Any) -> str:
        return "|".join(
            one.message for one in announced("n1", announcing(service("a", "10.8.0.201"), advertisements=adverts)).remarks
        )

    assert "10.8.0.192/28 is not within 10.8.0.200/29" in said(advert(aggregationLength=28))
    assert "64 is not within 0 to 32" in said(advert(aggregationLength=64))
    assert "'vpn' is neither" in said(advert(communities=["vpn"]))
    assert "is neither" in said(advert(communities=["9" * 5000 + ":1"]))
    assert "'large:1:2' is neither" in said(advert(communities=["large:1:2"]))
    assert "aggregationLengthV6" in said(advert(aggregationLengthV6=64))
    assert "there is no BGPPeer other" in said(advert(peers=["rt", "other"]))
    assert "another advertisement of the same prefix" in said(advert("a", localPref=1), advert("b", localPref=2))


def test_names_of_communities_are_read() -> None:
    found = parse_community({"metadata": {"name": "x"}, "spec": {"communities": [{"name": "vpn", "value": "1:2"}]}})
    assert found.values == {"vpn": "1:2"}


# --- FRR ------------------------------------------------------------------------------------------------------------------


def whole(**more: Any) -> FrrConfig:
    nodes = [node(1), node(2)]
    return config(sessions(nodes[0], Speakers(nodes, [peer(**more)]), conf=CONF))


def test_the_first_commands_name_things_before_they_are_used() -> None:
    commands = frr_commands(FrrConfig(), whole(password="s3cret"))
    assert commands.bfdd[:2] == ("bfd", "profile moyai-default")
    lines = commands.bgpd
    start = lines.index("router bgp 64522")
    for text in ("ip prefix-list moyai-pods seq 5 permit 10.244.0.0/16 ge 17", "route-map moyai-out-172.17.0.1 deny 65535"):
        assert lines.index(text) < start
    assert "neighbor 172.17.0.1 password s3cret" in lines
    assert lines.index("neighbor 172.17.0.1 remote-as 64512") < lines.index(
        "neighbor 172.17.0.1 route-map moyai-in-172.17.0.1 in"
    )
    assert "s3cret" not in repr(commands)
    assert "s3cret" not in repr(whole(password="s3cret"))
    # every session is fenced in both directions
    for address in ("172.17.0.1", "172.17.0.22"):
        assert {line.split()[-1] for line in lines if line.startswith(f"neighbor {address} route-map ")} == {"in", "out"}


def test_nothing_changes_nothing() -> None:
    commands = frr_commands(whole(), whole())
    assert (commands.bfdd, commands.bgpd) == ((), ())


def test_a_node_that_joins_touches_no_other_session() -> None:
    two, three = [node(1), node(2)], [node(1), node(2), node(3)]
    before, after = (config(sessions(nodes[0], Speakers(nodes), conf=CONF)) for nodes in (two, three))
    lines = frr_commands(before, after).bgpd
    assert lines[0] == "router bgp 64522"
    assert {line.split()[1] for line in lines if line.startswith("neighbor")} == {"172.17.0.23"}
    assert "no neighbor 172.17.0.23" in frr_commands(after, before).bgpd


def test_another_service_is_no_configuration_and_another_class_is_one_entry() -> None:
    now = sessions(node(1), Speakers([node(1)], [peer()]), conf=CONF)

    def of(*services: Service, **more: Any) -> FrrConfig:
        return config(now, classes=announced("n1", announcing(*services, **more)).prefixes.values())

    one = of(service("a", "10.8.0.200"))
    assert frr_commands(one, of(service("a", "10.8.0.200"), service("b", "10.8.0.201"))).bgpd == ()
    other = of(service("a", "10.8.0.200"), advertisements=[advert(communities=["1:2"])])
    lines = frr_commands(one, other).bgpd
    assert [line for line in lines if line.startswith("no ")] != []
    assert all(line.startswith(("route-map moyai-out-", "no route-map moyai-out-", "match ", "set ", "exit")) for line in lines)
    assert "set community 1:2" in lines
    assert "set metric 0" in lines


def test_a_changed_router_is_made_again_and_one_that_goes_leaves_nothing() -> None:
    before = whole()
    lines = frr_commands(before, whole(holdTime="30s")).bgpd
    assert lines.index("no neighbor 172.17.0.1") < lines.index("neighbor 172.17.0.1 timers 10 30")
    assert not any("172.17.0.22" in line for line in lines)
    gone = frr_commands(before, config(sessions(node(1), Speakers([node(1), node(2)]), conf=CONF))).bgpd
    assert {"no neighbor 172.17.0.1", "no route-map moyai-out-172.17.0.1", "no route-map moyai-in-172.17.0.1"} <= set(gone)
    assert gone.index("no neighbor 172.17.0.1") < gone.index("no route-map moyai-in-172.17.0.1")


def test_another_as_makes_the_router_again() -> None:
    lines = frr_commands(whole(), replace(whole(), asn=1)).bgpd
    assert lines.index("no router bgp 64522") < lines.index("router bgp 1")
    assert "neighbor 172.17.0.1 remote-as 64512" in lines


def test_each_field_of_a_peer_becomes_a_line() -> None:
    spec: dict[str, Any] = {
        "peerPort": 1790,
        "sourceAddress": "172.17.0.9",
        "ebgpMultiHop": True,
        "holdTime": "1m30s",
        "keepaliveTime": "20s",
        "connectTime": "5s",
        "bfdProfile": "fast",
        "enableGracefulRestart": True,
        "myASN": 65000,
    }
    fast = BfdProfile("fast", Reference("BFDProfile", "fast", ""), multiplier=5)
    now = sessions(node(1), Speakers([node(1)], [peer(**spec)], {"fast": fast}), conf=CONF)
    made = config(now, fast=fast)
    assert set(made.neighbours["172.17.0.1"].session) >= {
        "port 1790",
        "update-source 172.17.0.9",
        "ebgp-multihop",
        "timers 20 90",
        "timers connect 5",
        "bfd profile user-fast",
        "graceful-restart",
        "local-as 65000 no-prepend replace-as",
    }
    assert "detect-multiplier 5" in made.profiles["user-fast"]


def test_graceful_restart_is_off_without_bfd() -> None:
    session = whole().neighbours["172.17.0.1"].session
    assert "graceful-restart-disable" in session
    assert "graceful-restart" not in session


def test_a_profile_says_all_it_has() -> None:
    spec = {"echoMode": True, "echoInterval": 60, "passiveMode": True, "minimumTtl": 3, "receiveInterval": 100}
    found = parse_bfd_profile({"metadata": {"name": "x"}, "spec": spec})
    now = sessions(node(1), Speakers([node(1)], [peer(bfdProfile="x")], {"x": found}), conf=CONF)
    lines = config(now, x=found).profiles["user-x"]
    assert {"echo-mode", "echo transmit-interval 60", "passive-mode", "minimum-ttl 3", "receive-interval 100"} <= set(lines)


def test_a_router_of_the_spec_gets_pods_and_gives_its_ranges() -> None:
    made = config(sessions(node(1), Speakers([node(1)]), conf=replace(CONF, peers=(ROUTER,))))
    assert made.lists["moyai-in-172.17.0.1"] == {5: "permit 10.9.0.0/24 le 32"}
    assert made.maps["moyai-in-172.17.0.1"][10].lines == ("match ip address prefix-list moyai-in-172.17.0.1", "set metric 0")
    assert made.maps["moyai-out-172.17.0.1"][65000].lines == ("match ip address prefix-list moyai-own",)
    assert "maximum-prefix 100 restart 1" in made.neighbours["172.17.0.1"].family
    assert config(sessions(node(1), Speakers([node(1)], [peer()]), conf=CONF)).maps["moyai-in-172.17.0.1"].keys() == {65535}


def test_without_an_as_there_is_no_configuration() -> None:
    assert config(Sessions()) == FrrConfig()
