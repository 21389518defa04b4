"""Which nodes compete for which address."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moyai.kube.objects import Ingress, L2Advertisement, NamespacedName, Node, Service, parse_endpoints, parse_l2_advertisement
from moyai.kube.objects.node import EXCLUDE_LABEL
from moyai.plan.announce.speakers import CANDIDATES, AnnouncedAddress, AnnouncedServices, ranked, to_announce
from tests.unit.test_announce_allocation import pool

ADDRESS = "192.0.2.1"


def node(name: str, **fields: Any) -> Node:
    return replace(Node(name, name, ready=True), **fields)


def service(name: str = "web", **fields: Any) -> Service:
    return replace(Service("default", name, name, type="LoadBalancer", ingress=(Ingress(ADDRESS),)), **fields)


def advert(name: str = "all", **spec: Any) -> L2Advertisement:
    return parse_l2_advertisement({"metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec})


def situation(*nodes: Node, **fields: Any) -> AnnouncedServices:
    now = AnnouncedServices(services=[service()], nodes=nodes, pools=[pool()], advertisements=[advert()], endpoints={})
    return replace(now, **fields)


def competing(now: AnnouncedServices) -> set[str]:
    return {one.name for one in now.nodes if ADDRESS in to_announce(one.name, now)}


NODES = [node(f"n{number}") for number in range(10)]


def test_few_nodes_compete_for_an_address_the_same_wherever_it_is_asked() -> None:
    now = situation(*NODES)
    assert competing(now) == set(ranked(ADDRESS, (one.name for one in NODES))[:CANDIDATES])
    assert competing(situation(*reversed(NODES))) == competing(now)
    assert to_announce(sorted(competing(now))[0], now) == {
        ADDRESS: AnnouncedAddress(ADDRESS, (), (NamespacedName("default", "web"),))
    }


def test_an_owner_stays_one_when_nodes_come_that_go_before_it() -> None:
    last = ranked(ADDRESS, (one.name for one in NODES))[-1]
    assert ADDRESS not in to_announce(last, situation(*NODES))
    assert ADDRESS in to_announce(last, situation(*NODES, owned={ADDRESS}))
    # but not when it may be the owner no more
    lost = [replace(one, ready=False) if one.name == last else one for one in NODES]
    assert ADDRESS not in to_announce(last, situation(*lost, owned={ADDRESS}))


def test_a_node_that_cannot_serve_does_not_compete() -> None:
    unfit = [
        node("silent", ready=False),
        node("unknown", ready=None),
        node("ending", deleting=True),
        node("without-pods", network_unavailable=True),
        node("excluded", labels={EXCLUDE_LABEL: ""}),
    ]
    assert competing(situation(*unfit, node("fit"))) == {"fit"}


def test_without_an_advertisement_or_a_pool_nobody_announces() -> None:
    assert competing(situation(*NODES, advertisements=[])) == set()
    assert competing(situation(*NODES, pools=[])) == set()
    assert competing(situation(*NODES, services=[service(deleting=True)])) == set()
    assert competing(situation(*NODES, services=[service(ingress=())])) == set()
    assert competing(situation(*NODES, services=[service(ingress=(Ingress(hostname="x"),))])) == set()
    assert competing(situation(*NODES, pools=[pool("main", "nonsense", "192.0.2.0/30")])) == set()


def test_advertisements_choose_pools_services_and_nodes() -> None:
    a, b = node("a", labels={"zone": "a"}), node("b", labels={"zone": "b"})
    labelled = pool(labels={"kind": "public"})

    def chosen(*adverts: L2Advertisement, **fields: Any) -> set[str]:
        return competing(situation(a, b, advertisements=adverts, pools=[labelled], **fields))

    assert chosen(advert(ipAddressPools=["main"])) == {"a", "b"}
    assert chosen(advert(ipAddressPools=["other"])) == set()
    assert chosen(advert(ipAddressPools=["other"], ipAddressPoolSelectors=[{"matchLabels": {"kind": "public"}}])) == {"a", "b"}
    assert chosen(advert(nodeSelectors=[{"matchLabels": {"zone": "a"}}])) == {"a"}
    assert chosen(advert(serviceSelectors=[{"matchLabels": {"x": "1"}}])) == set()
    assert chosen(advert(serviceSelectors=[{"matchLabels": {"x": "1"}}]), services=[service(labels={"x": "1"})]) == {"a", "b"}


def test_interfaces_are_of_the_advertisements_that_count_on_a_node() -> None:
    a, b = node("a", labels={"zone": "a"}), node("b", labels={"zone": "b"})
    adverts = [
        advert("one", interfaces=["eth1"], nodeSelectors=[{"matchLabels": {"zone": "a"}}]),
        advert("two", interfaces=["eth2"]),
    ]
    now = situation(a, b, advertisements=adverts)
    assert to_announce("a", now)[ADDRESS].interfaces == ("eth1", "eth2")
    assert to_announce("b", now)[ADDRESS].interfaces == ("eth2",)
    # an advertisement that names none means the node's own
    assert to_announce("b", situation(a, b, advertisements=[*adverts, advert("three")]))[ADDRESS].interfaces == ()


def test_with_named_interfaces_each_node_competes_that_may_have_them() -> None:
    assert len(competing(situation(*NODES, advertisements=[advert(interfaces=["eth1"])]))) == len(NODES)


def test_with_local_traffic_only_nodes_with_a_ready_endpoint_compete() -> None:
    slices = [
        parse_endpoints(
            {
                "metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
                "endpoints": [
                    {"nodeName": "n1", "conditions": {"ready": True}},
                    {"nodeName": "n2", "conditions": {"ready": False}},
                    {"nodeName": "n3"},
                    {"conditions": {"ready": True}},
                ],
            }
        )
    ]
    endpoints = {one.service: one.nodes for one in slices}
    assert endpoints == {"default/web": frozenset({"n1", "n3"})}
    local = [service(local_traffic=True)]
    assert competing(situation(*NODES, services=local, endpoints=endpoints)) == {"n1", "n3"}
    assert competing(situation(*NODES, services=local)) == set()
    # of Services that share the address each must be served
    both = [service(local_traffic=True), service("other", local_traffic=True)]
    assert competing(situation(*NODES, services=both, endpoints={**endpoints, "default/other": frozenset({"n3"})})) == {"n3"}


@given(st.sets(st.sampled_from([f"n{n}" for n in range(12)]), min_size=1))
def test_somebody_competes_wherever_somebody_can(names: set[str]) -> None:
    now = situation(*(node(name) for name in sorted(names)))
    assert len(competing(now)) == min(CANDIDATES, len(names))


def test_addresses_spread_over_nodes() -> None:
    first = {ranked(f"192.0.2.{n}", (one.name for one in NODES))[0] for n in range(100)}
    assert len(first) == len(NODES)
