"""What the load-balancer provider refuses, and that it refuses nothing that it can do."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from moyai.linux import haproxy
from moyai.localcloud.drivers.octavia import validate as v


def full(**pool: Any) -> dict[str, Any]:
    """A load balancer as Octavia hands it over."""
    return {
        "vip_address": "10.0.0.9",
        "listeners": [
            {"protocol": "TCP", "l7policies": [], "insert_headers": {}, "tls_versions": None, "sni_container_refs": []}
        ],
        "pools": [{"protocol": "TCP", "lb_algorithm": "ROUND_ROBIN", "tls_enabled": False, **pool}],
    }


def test_what_it_can_do() -> None:
    assert v.balancer(full()) is None
    assert v.balancer(full(protocol="UDP", members=[{"address": "10.0.0.1"}], healthmonitor={"type": "UDP-CONNECT"})) is None
    assert v.pool({"protocol": "UDP", "session_persistence": {"type": "SOURCE_IP", "persistence_timeout": 60}}) is None
    assert v.pool({"protocol": "HTTP", "session_persistence": {"type": "APP_COOKIE", "cookie_name": "J"}}) is None
    assert v.monitor({"type": "HTTP", "url_path": "/a?b", "expected_codes": "200, 201"}) is None
    assert v.listener({"protocol": "HTTP", "insert_headers": {"X-Forwarded-For": "true", "X-Real-IP": "false"}}) is None
    assert v.vips({"vip_subnet_id": "x"}) is None
    assert v.balancer({**full(), "additional_vips": [{"ip_address": "fd00::9"}]}) is None
    both = {"vip_address": "10.0.0.9", "additional_vips": [{"ip_address": "fd00::9"}]}
    assert v.balancer({**both, "pools": [{"protocol": "UDP", "members": [{"address": "fd00::1"}]}]}) is None
    rules = [{"type": "HEADER", "key": "X", "value": "it's a # \t%[x]\\"}]
    policy = {"action": "REDIRECT_TO_URL", "redirect_url": "http://a/%20?'#", "rules": rules}
    assert v.listener({"protocol": "HTTP", "l7policies": [policy]}) is None
    assert v.flavor({}) is None
    amphora = {"loadbalancer_topology": "ACTIVE_STANDBY", "compute_flavor": "x", "amp_image_tag": "y", "sriov_vip": False}
    assert v.flavor(amphora) is None
    assert v.zone({"compute_zone": "az1", "management_network": "x", "valid_vip_networks": ["y"]}) is None


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (v.listener({"protocol": "TERMINATED_HTTPS"}), "Barbican"),
        (v.listener({"protocol": "PROMETHEUS"}), "supported: HTTP, HTTPS, TCP, UDP"),
        (v.listener({"default_tls_container_ref": "x"}), "Barbican"),
        (v.listener({"protocol": "TCP", "l7policies": [{"action": "REJECT"}]}), "supported: HTTP"),
        (v.listener({"protocol": "HTTP", "l7policies": [{"rules": [{"type": "SSL_DN_FIELD"}]}]}), "Barbican"),
        (v.l7_policy({"action": "REDIRECT_TO_MOON"}, "HTTP"), "REDIRECT_TO_MOON"),
        (v.l7_policy({"redirect_url": "http://a/?b\nSet-Cookie: c"}, "HTTP"), r"'\n'"),
        (v.l7_policy({"redirect_prefix": "http://a/? "}, "HTTP"), "' '"),
        (v.l7_rule({"type": "SSL_CONN_HAS_CERT"}), "Barbican"),
        (v.l7_rule({"type": "PATH", "value": "a\x00"}), "value"),
        (v.l7_rule({"type": "PATH", "value": "a\n"}), "value"),
        (v.l7_rule({"type": "HEADER", "key": "a b", "value": "x"}), "key"),
        (v.listener({"insert_headers": {"X-Real-IP": "true"}}), "X-Real-IP"),
        (v.balancer(full(protocol="SCTP")), "SCTP"),
        (v.balancer(full(tls_enabled=True)), "TLS"),
        (v.balancer(full(protocol="UDP", lb_algorithm="LEAST_CONNECTIONS")), "over UDP"),
        (v.balancer(full(protocol="UDP", members=[{"address": "2001:db8::1"}])), "IP version"),
        (v.balancer(full(protocol="UDP", session_persistence={"type": "HTTP_COOKIE"})), "over UDP"),
        (v.balancer(full(session_persistence={"type": "HTTP_COOKIE"})), "HTTP_COOKIE"),
        (v.balancer({**full(), "vip_qos_policy_id": "x"}), "QoS"),
        (v.vips({"vip_qos_policy_id": "x"}), "QoS"),
        (
            v.pool({"protocol": "UDP", "session_persistence": {"type": "SOURCE_IP", "persistence_granularity": "255.0.0.0"}}),
            "gran",
        ),
        (v.monitor({"type": "SCTP"}), "SCTP"),
        (v.monitor({"type": "HTTP", "url_path": "/a' b"}), "quote"),
        (v.monitor({"type": "HTTP", "url_path": "/a\nb"}), "control"),
        (v.member({"vnic_type": "direct"}, "TCP", vips=()), "vnic_type"),
        (v.flavor({"x": 1}), "x; supported"),
        (v.flavor({"sriov_vip": True}), "sriov_vip"),
        (v.flavor({"loadbalancer_topology": "MANY"}), "MANY"),
        (v.zone({"x": 1}), "x; supported"),
    ],
)
def test_what_it_refuses(problem: str | None, words: str) -> None:
    assert problem is not None
    assert words in problem


def test_patterns_of_a_whole_tree_are_found() -> None:
    rules = [{"compare_type": "REGEX", "value": "^/a"}, {"compare_type": "EQUAL_TO", "value": "b"}]
    listener: dict[str, Any] = {"l7policies": [{"rules": rules}, {"rules": []}, {}]}
    assert (
        v.patterns({"listeners": [listener, {"l7policies": None}]}) == v.patterns(listener) == v.patterns(rules[0]) == ["^/a"]
    )


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
def test_haproxy_says_which_patterns_it_knows() -> None:
    assert haproxy.refuses_pattern(r"^/(?P<x>a)\d+' #$") is None
    said = haproxy.refuses_pattern("(?<=a+)b")
    assert said is not None
    assert "lookbehind" in said
