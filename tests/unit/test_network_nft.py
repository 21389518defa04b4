"""kube-proxy's choice as nftables lists it, in the forms of its versions, and moyai's own masquerading."""

from __future__ import annotations

from typing import Any

import pytest

from moyai.diagnose.network.nft_rules import Packet, Ruleset, Translated
from moyai.kube.resources import Json
from tests.unit import network_world as w

POD, CLUSTER_IP = "10.244.1.5", "10.96.0.10"


def asked(source: str = POD, destination: str = CLUSTER_IP, *, port: int = 80) -> Packet:
    return Packet(source, destination, "tcp", port)


def elements(kind: str, name: str, *elem: Any) -> Json:
    return {kind: {"family": "ip", "table": "kube-proxy", "name": name, "elem": list(elem)}}


def newer(protocol: str | int = "tcp", choices: int = 2) -> list[Json]:
    """As kube-proxy 1.37 writes a Service with so many endpoints. ``protocol``: a number on a system without /etc/protocols."""
    chain = "service-AAAA-default/web/tcp/"
    ends = [[number, {"concat": [f"10.244.{number + 1}.5", 8080]}] for number in range(choices)]
    key = {"numgen": {"mode": "random", "mod": choices, "offset": 0}}
    several = {"dnat": {"family": "ip", "addr": {"map": {"key": key, "data": {"set": ends}}}}}
    single = {"dnat": {"addr": "10.244.1.5", "port": 8080}}
    mark = {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"meta": {"key": "mark"}}, 16384]}}
    is_tcp = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": protocol}}
    return [
        *w.table("ip", "kube-proxy"),
        w.chain("kube-proxy", "services"),
        elements("map", "service-ips", [{"concat": [CLUSTER_IP, protocol, 80]}, {"goto": {"target": chain}}]),
        elements(
            "map", "no-endpoint-services", [{"concat": ["10.96.0.11", protocol, 80]}, {"goto": {"target": "reject-chain"}}]
        ),
        elements("set", "cluster-ips", CLUSTER_IP),
        elements("set", "hairpin-connections", {"concat": [POD, POD, protocol, 8080]}),
        w.rule(
            "kube-proxy",
            "services",
            w.match("daddr", "@cluster-ips"),
            w.match("saddr", w.prefix(w.PODS), op="!="),
            {"mangle": mark},
        ),
        w.rule("kube-proxy", chain, is_tcp, several if choices > 1 else single),
    ]


@pytest.mark.parametrize("protocol", ["tcp", 6])
def test_the_endpoints_of_a_service_are_read(protocol: str | int) -> None:
    ends = (("10.244.1.5", 8080), ("10.244.2.5", 8080))
    found = Ruleset(newer(protocol))
    assert found.translate(asked("10.244.9.9")) == Translated(ends)
    assert found.translate(asked("10.244.9.9", port=81)).lack == "unknown"
    assert found.translate(asked("10.244.9.9", "10.96.0.11")).lack == "empty"
    assert Ruleset(newer(protocol, 1)).translate(asked("10.244.9.9")) == Translated(ends[:1])


def test_who_is_masqueraded() -> None:
    found = Ruleset(newer())
    assert not found.translate(asked("10.244.9.9")).masqueraded
    assert found.translate(asked("10.8.0.10")).masqueraded
    assert not found.translate(asked(POD)).masqueraded, "the other endpoint is followed"
    assert found.translate(asked(POD)).endpoints[0][0] == "10.244.2.5"
    assert Ruleset(newer(choices=1)).translate(asked(POD)).masqueraded, "its own endpoint is the only one"


def test_an_older_kube_proxy_has_a_chain_for_each_endpoint() -> None:
    found = Ruleset(w.proxy_table())
    ends = (("10.244.2.5", 8080), ("10.244.3.5", 8080))
    assert found.translate(asked()) == Translated(ends)
    assert found.translate(asked("10.8.0.10")) == Translated(ends, masqueraded=True)


def test_chains_in_a_circle_end() -> None:
    circle = w.rule("kube-proxy", "service-AAAA-default/web/tcp/", {"jump": {"target": "service-AAAA-default/web/tcp/"}})
    assert len(Ruleset([*newer(), circle]).translate(asked("10.244.9.9")).endpoints) == 2


@pytest.mark.parametrize(
    ("bare", "source", "destination", "masqueraded"),
    [
        (True, POD, "192.0.2.1", True),
        (True, POD, w.address(2), False),
        (False, POD, w.address(2), True),
        (False, POD, w.pod_address(2), False),
        (False, w.address(1), "192.0.2.1", False),
    ],
)
def test_moyais_own_table_masquerades_what_leaves(bare: bool, source: str, destination: str, masqueraded: bool) -> None:
    assert Ruleset(w.own_table(bare=bare)).masquerades(asked(source, destination)) is masqueraded


def test_a_condition_that_is_not_understood_is_not_met() -> None:
    odd = w.rule(
        "moyai", "postrouting", {"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": "new"}}, {"masquerade": None}
    )
    assert not Ruleset([w.chain("moyai", "postrouting"), odd]).masquerades(asked())
